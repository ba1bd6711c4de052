/**
 * What autx answers when a call is refused: `{"detail": "text"}`, with the
 * figures beside it. Every 402, 409 and 429 says what was exceeded, by how much,
 * and when or how to try again; every 503 carries `Retry-After`; no answer says
 * what the gateway is made of, and none repeats an id that the caller may have
 * guessed.
 */
import { formatUsd } from "../../domain/credits.ts"
import type { AgentUnavailable, GatewayErrorTag, InsufficientCredits, InvalidRequest, BudgetExceeded, Unauthenticated } from "../../domain/errors.ts"
import type { ErrorTable, Rendered } from "../../http/dialect.ts"

/** What any row that commits can answer with. */
export const commitErrors: ReadonlyArray<GatewayErrorTag> = ["StoreUnavailable", "NotCommitted", "OutcomeUnknown", "MailboxFull", "Overloaded"]

/** An owner's pause has no known end: look again after a while. */
const pausedRetryMs = 60_000
/** Operators don't come at once. */
const notConfiguredRetryMs = 300_000

const seconds = (ms: number): number => Math.max(1, Math.ceil(ms / 1000))
const inSeconds = (ms: number): string => seconds(ms) === 1 ? "in a second" : `in ${seconds(ms)} seconds`

const say = (status: number, detail: string, facts: object = {}): Rendered => ({ status, body: { detail, ...facts } })

const wait = (status: number, retryAfterMs: number, detail: string, facts: object = {}): Rendered =>
  ({ status, headers: [["retry-after", String(seconds(retryAfterMs))]], body: { detail, ...facts, retry_after: seconds(retryAfterMs) } })

const invalidRequest = ({ malformed, issues }: Pick<InvalidRequest, "malformed" | "issues">): Rendered => {
  const [first] = issues
  const detail = first === undefined ? "The request doesn't fit" : `${first.loc.join(".")}: ${first.msg}`
  return say(malformed ? 400 : 422, detail, { errors: issues })
}

const missing: Readonly<Record<string, string>> = {
  agent: "No such agent: check the id or ticker, or list agents with GET /agents/",
  "api key": "No such API key, or it was revoked already",
  order: "No such order among yours",
  path: "There is nothing at this path",
  route: "There is nothing at this path",
  session: "No such chat session among yours"
}

const unauthenticated: Readonly<Record<Unauthenticated["reason"], string>> = {
  missing: "Authentication is required: send the header Authorization: Bearer with an API key or an access token",
  invalid: "The credential is not valid",
  expired: "The credential has expired: refresh the login, or create another API key",
  revoked: "The credential was revoked",
  reused: "This refresh token was used before, so its login has ended: log in again",
  credentials: "Wrong email or password",
  wrong_dialect: "This API key belongs to another product"
}

const agentUnavailable: Readonly<Record<AgentUnavailable["reason"], string>> = {
  unreachable: "can't be reached",
  timeout: "did not answer in time",
  circuit_open: "has failed too often and is given a rest",
  busy: "has too many calls waiting",
  broken_answer: "broke off its answer",
  address_forbidden: "is at an address that the gateway does not call"
}

const insufficientCredits = ({ required, available, held }: InsufficientCredits): Rendered => say(402, "Insufficient credits", {
  required_usd: formatUsd(required),
  available_usd: formatUsd(available),
  held_usd: formatUsd(held),
  hint: held > 0n ? "Add credits, or try again when calls in flight have ended" : "Add credits, then try again"
})

const budgetName = { day: "today", month: "this month", total: "all its calls" } as const

const budgetExceeded = ({ window, amount, spent, held, required, resetsAtMs }: BudgetExceeded): Rendered => say(402, `The API key's budget for ${budgetName[window]} does not cover this call`, {
  required_usd: formatUsd(required),
  available_usd: formatUsd(amount > spent + held ? amount - spent - held : 0n),
  held_usd: formatUsd(held),
  budget_usd: formatUsd(amount),
  window,
  spent_usd: formatUsd(spent),
  resets_at: resetsAtMs === undefined ? null : new Date(resetsAtMs).toISOString(),
  hint: resetsAtMs === undefined ? "This budget never resets: use another key" : "Try again when the budget has reset, or use another key"
})

export const errors: ErrorTable = {
  InvalidRequest: invalidRequest,
  RuleBroken: (error) => invalidRequest({ ...error, malformed: false }),
  BodyTooLarge: ({ bytesMax }) => say(413, `The body is too large: at most ${bytesMax} bytes are allowed`, { bytes_max: bytesMax }),
  BodyTimeout: () => say(408, "The body did not arrive in time"),
  NotFound: ({ what }) => say(404, missing[what] ?? `No such ${what}`),
  MethodNotAllowed: ({ allow }) => ({ status: 405, headers: [["allow", allow.join(", ")]], body: { detail: `Method not allowed: this path has ${allow.join(", ")}` } }),
  AlreadyExists: ({ what, id }) => what === "email" ? say(409, "This email is registered already: log in, or reset its password")
    : what === "link" ? say(409, `This account, or the owner ${id}, is linked with another one already`)
    : say(409, `The ${what} ${id} is taken: choose another one`),
  IdempotencyKeyReused: () => say(409, "This Idempotency-Key came before with another request: repeat that request unchanged, or use another key"),
  IdempotencyInFlight: ({ retryAfterMs }) => wait(409, retryAfterMs, `The first call with this Idempotency-Key is still running: try again ${inSeconds(retryAfterMs)}`),
  AnswerNotStored: ({ resultId }) => say(409, `The first call with this Idempotency-Key is done, and its answer can't be repeated. It made ${resultId}`, { result_id: resultId }),
  AddressForbidden: ({ field }) => {
    const msg = "The gateway does not call this address: it must be a public http or https address"
    return say(422, `${field}: ${msg}`, { errors: [{ loc: ["body", field], msg }] })
  },
  InputNotAccepted: ({ wanted }) => say(422, `The agent takes other input: ${wanted}`),

  Unauthenticated: ({ reason }) => ({ status: 401, headers: [["www-authenticate", "Bearer"]], body: { detail: unauthenticated[reason] } }),
  ScopeMissing: ({ scope }) => say(403, `The API key lacks the scope ${scope}`, { scope }),
  LoginRequired: () => say(403, "This needs a login: an API key can't do it"),
  EmailUnverified: () => say(403, "Verify your email"),
  NotOwner: ({ what }) => say(403, `Only the owner may change this ${what}`),
  OriginForbidden: () => say(403, "Pages of this origin may not connect: the operator allows origins with ALLOWED_ORIGINS"),
  AccountSuspended: () => say(403, "The account is suspended: contact the operator"),

  InsufficientCredits: insufficientCredits,
  BudgetExceeded: budgetExceeded,

  RateLimited: ({ limit, windowMs, retryAfterMs }) => wait(429, retryAfterMs, "Rate limit exceeded", { limit, window_seconds: windowMs / 1000 }),
  TooManyAttempts: ({ retryAfterMs }) => wait(429, retryAfterMs, `Too many attempts: try again ${inSeconds(retryAfterMs)}`),
  MailboxFull: ({ retryAfterMs }) => wait(503, retryAfterMs, `Too many calls of this account are waiting. Nothing was done; try again ${inSeconds(retryAfterMs)}`),
  Overloaded: ({ retryAfterMs }) => wait(503, retryAfterMs, `The gateway is busy. Nothing was done; try again ${inSeconds(retryAfterMs)}`),

  AgentPaused: ({ agent }) => wait(503, pausedRetryMs, `The agent ${agent} is paused. Nothing was charged`),
  AgentUnavailable: ({ agent, reason, retryAfterMs }) => wait(503, retryAfterMs, `The agent ${agent} ${agentUnavailable[reason]}. Nothing was charged; try again ${inSeconds(retryAfterMs)}`),
  StoreUnavailable: ({ retryAfterMs }) => wait(503, retryAfterMs, `The gateway can't read its books. Nothing was done; try again ${inSeconds(retryAfterMs)}`),
  NotCommitted: ({ retryAfterMs }) => wait(503, retryAfterMs, `The call could not be recorded. Nothing was charged; try again ${inSeconds(retryAfterMs)}`),
  OutcomeUnknown: ({ retryAfterMs }) => wait(503, retryAfterMs, `It is not known yet whether the call took effect: repeat it with the same Idempotency-Key ${inSeconds(retryAfterMs)}`),
  HoldLost: ({ retryAfterMs }) => wait(503, retryAfterMs, `The credits set aside for the call were lost. Nothing was charged; try again ${inSeconds(retryAfterMs)}`),
  Draining: ({ retryAfterMs }) => wait(503, retryAfterMs, `The gateway is restarting. Nothing was done; try again ${inSeconds(retryAfterMs)}`),

  NotImplemented: ({ feature }) => say(501, `${feature} is not there yet`),
  NotConfigured: ({ setting }) => wait(503, notConfiguredRetryMs, `The operator has not configured ${setting}, which this needs`)
}

export const internalError = (requestId: string): Rendered =>
  say(500, `Something went wrong here: quote the request id ${requestId} when you report it`, { request_id: requestId })

/** Of every refusal. */
export const errorSchema = {
  type: "object",
  description: "Refusals carry the figures beside the text: what is missing, of how much, and when to try again.",
  properties: {
    detail: { type: "string", description: "What went wrong and what to do about it" },
    errors: {
      type: "array",
      items: { type: "object", properties: { loc: { type: "array", items: { type: "string" } }, msg: { type: "string" } }, required: ["loc", "msg"] }
    },
    retry_after: { type: "integer", description: "Seconds, as in Retry-After" }
  },
  required: ["detail"],
  examples: [{ detail: "Insufficient credits", required_usd: "0.50", available_usd: "0.10", held_usd: "0.00", hint: "Add credits, then try again" }]
}
