/**
 * How acf words what went wrong: `{"detail": text}`, statuses by its contract
 * (contracts/acf.md). A body or query that does not fit its schema is 422 with
 * `errors`, a broken business rule 400.
 */
import { formatUsd } from "../../domain/credits.ts"
import type { AgentUnavailable, GatewayErrorTag, InvalidRequest, Unauthenticated } from "../../domain/errors.ts"
import type { ErrorTable, Rendered } from "../../http/dialect.ts"

/** What a commit can end with: for rows that write. */
export const commitErrors: ReadonlyArray<GatewayErrorTag> = ["NotCommitted", "OutcomeUnknown", "MailboxFull", "Overloaded"]

const notConfiguredRetryMs = 300_000

const seconds = (ms: number): number => Math.max(1, Math.ceil(ms / 1000))
const inSeconds = (ms: number): string => seconds(ms) === 1 ? "in a second" : `in ${seconds(ms)} seconds`

const say = (status: number, detail: string, facts: object = {}): Rendered => ({ status, body: { detail, ...facts } })

const wait = (status: number, retryAfterMs: number, detail: string): Rendered =>
  ({ status, headers: [["retry-after", String(seconds(retryAfterMs))]], body: { detail } })

const first = (issues: InvalidRequest["issues"]): string => {
  const [issue] = issues
  return issue === undefined ? "The request doesn't fit" : `${issue.loc.join(".")}: ${issue.msg}`
}

/** A head that can't be read is no request at all; the rest is what the schema refuses. */
const invalidRequest = ({ malformed, issues }: InvalidRequest): Rendered =>
  say(malformed && issues[0]?.loc[0] !== "body" ? 400 : 422, first(issues), { errors: issues })

const missing: Readonly<Record<string, string>> = { path: "Not Found", route: "Not Found", agent: "Service not found", "agent identity": "Agent not found", settlement: "Settlement not found or already paid" }
const named = (what: string): string => `${what.slice(0, 1).toUpperCase()}${what.slice(1)}`

const unauthenticated: Readonly<Record<Unauthenticated["reason"], string>> = {
  missing: "Missing API key: send the header Authorization: Bearer {key_id}:{secret}",
  invalid: "Invalid API key",
  expired: "The API key has expired: create another one",
  revoked: "Invalid API key",
  reused: "Invalid API key",
  credentials: "Invalid API key",
  wrong_dialect: "This credential belongs to another product: use an API key of this one (acf_...:sec_...)"
}

const agentUnavailable: Readonly<Record<AgentUnavailable["reason"], readonly [status: number, detail: string]>> = {
  unreachable: [502, "Provider unreachable"],
  timeout: [504, "Provider timeout"],
  circuit_open: [400, "The provider has failed too often and is given a rest"],
  busy: [503, "The provider has too many calls waiting"],
  broken_answer: [502, "The provider broke off its answer"],
  address_forbidden: [400, "The provider is at an address that the gateway does not call"]
}

const unavailable = ({ reason, retryAfterMs }: AgentUnavailable): Rendered => {
  const [status, detail] = agentUnavailable[reason]
  return reason === "circuit_open" || reason === "busy" ? wait(status, retryAfterMs, detail) : say(status, detail)
}

export const errors: ErrorTable = {
  InvalidRequest: invalidRequest,
  RuleBroken: ({ issues }) => say(400, first(issues)),
  BodyTooLarge: ({ bytesMax }) => say(413, `The body is too large: at most ${bytesMax} bytes are allowed`),
  BodyTimeout: () => say(408, "The body did not arrive in time"),
  NotFound: ({ what }) => say(404, missing[what] ?? `${named(what)} not found`),
  MethodNotAllowed: ({ allow }) => ({ status: 405, headers: [["allow", allow.join(", ")]], body: { detail: "Method Not Allowed" } }),
  AlreadyExists: ({ what }) => say(409, `${named(what)} exists already`),
  IdempotencyKeyReused: () => say(409, "This Idempotency-Key came before with another request"),
  IdempotencyInFlight: ({ retryAfterMs }) => wait(409, retryAfterMs, "The first call with this Idempotency-Key is still running"),
  AnswerNotStored: ({ resultId }) => say(409, `The first call with this Idempotency-Key is done, and its answer can't be repeated. It made ${resultId}`),
  AddressForbidden: ({ field }) => say(400, `${field}: the gateway does not call this address: it must be a public http or https address`),
  InputNotAccepted: ({ wanted }) => say(422, `The provider takes other input: ${wanted}`),

  Unauthenticated: ({ reason }) => ({ status: 401, headers: [["www-authenticate", "Bearer"]], body: { detail: unauthenticated[reason] } }),
  ScopeMissing: ({ scope }) => say(403, `Insufficient permissions: this needs a key of the role ${scope}`),
  LoginRequired: () => say(403, "This needs a login"),
  EmailUnverified: () => say(403, "Verify your email"),
  NotOwner: ({ what }) => say(403, `Not your ${what}`),
  OriginForbidden: () => say(403, "Pages of this origin may not connect"),
  AccountSuspended: () => say(403, "The account is suspended: contact the operator"),

  InsufficientCredits: ({ required, available }) => say(402, `Insufficient credits: ${formatUsd(required)} are needed, ${formatUsd(available)} are available`),
  BudgetExceeded: ({ required }) => say(402, `The key's budget does not cover ${formatUsd(required)}`),

  RateLimited: ({ retryAfterMs }) => wait(429, retryAfterMs, "Rate limit exceeded. Try again later."),
  TooManyAttempts: ({ retryAfterMs }) => wait(429, retryAfterMs, "Rate limit exceeded. Try again later."),
  MailboxFull: ({ retryAfterMs }) => wait(503, retryAfterMs, `Too many calls of this owner are waiting. Nothing was done; try again ${inSeconds(retryAfterMs)}`),
  Overloaded: ({ retryAfterMs }) => wait(503, retryAfterMs, `The gateway is busy. Nothing was done; try again ${inSeconds(retryAfterMs)}`),

  AgentPaused: () => say(400, "Service is not active"),
  AgentUnavailable: unavailable,
  StoreUnavailable: ({ retryAfterMs }) => wait(503, retryAfterMs, `The gateway can't read its books. Nothing was done; try again ${inSeconds(retryAfterMs)}`),
  NotCommitted: ({ retryAfterMs }) => wait(503, retryAfterMs, `The call could not be recorded. Nothing was charged; try again ${inSeconds(retryAfterMs)}`),
  OutcomeUnknown: ({ retryAfterMs }) => wait(503, retryAfterMs, "It is not known yet whether the call took effect: repeat it with the same Idempotency-Key"),
  HoldLost: ({ retryAfterMs }) => wait(503, retryAfterMs, "The credits set aside for the call were lost. Nothing was charged; try again"),
  Draining: ({ retryAfterMs }) => wait(503, retryAfterMs, `The gateway is restarting. Nothing was done; try again ${inSeconds(retryAfterMs)}`),

  NotImplemented: ({ feature }) => say(501, `${feature} is not there yet`),
  NotConfigured: ({ setting }) => wait(503, notConfiguredRetryMs, `The operator has not configured ${setting}, which this needs`)
}

export const internalError = (requestId: string): Rendered =>
  say(500, `Internal server error: quote the request id ${requestId} when you report it`)

/** Of every refusal. */
export const errorSchema = {
  type: "object",
  properties: {
    detail: { type: "string", description: "What went wrong and what to do about it" },
    errors: {
      type: "array", description: "Of a body or query that does not fit",
      items: { type: "object", properties: { loc: { type: "array", items: { type: "string" } }, msg: { type: "string" } }, required: ["loc", "msg"] }
    }
  },
  required: ["detail"],
  examples: [{ detail: "Service not found" }]
}
