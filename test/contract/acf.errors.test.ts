/** The words of every refusal of acf, whether or not a test can bring it about. */
import { expect, it } from "vitest"
import { acf } from "../../src/dialects/acf/index.ts"
import * as errors from "../../src/domain/errors.ts"
import { type Goldens, after, describeErrors } from "./Errors.ts"

const retryAfterMs = 1_500
const issues = [{ loc: ["body", "name"], msg: "Missing key" }]

const goldens: Goldens = {
  InvalidRequest: [
    { error: new errors.InvalidRequest({ malformed: false, issues }), status: 422, body: { detail: "body.name: Missing key", errors: issues } },
    { error: new errors.InvalidRequest({ malformed: true, issues: [{ loc: ["body"], msg: "Not valid JSON" }] }), status: 422, body: { detail: "body: Not valid JSON", errors: [{ loc: ["body"], msg: "Not valid JSON" }] } },
    {
      error: new errors.InvalidRequest({ malformed: true, issues: [{ loc: ["header", "host"], msg: "Missing" }] }), status: 400,
      body: { detail: "header.host: Missing", errors: [{ loc: ["header", "host"], msg: "Missing" }] }
    }
  ],
  RuleBroken: [{ error: new errors.RuleBroken({ issues: [{ loc: ["name"], msg: "must not be blank" }] }), status: 400, body: { detail: "name: must not be blank" } }],
  BodyTooLarge: [{ error: new errors.BodyTooLarge({ bytesMax: 10 }), status: 413, body: { detail: "The body is too large: at most 10 bytes are allowed" } }],
  BodyTimeout: [{ error: new errors.BodyTimeout(), status: 408, body: { detail: "The body did not arrive in time" } }],
  NotFound: ([
    ["service", "Service not found"], ["agent", "Service not found"], ["agent identity", "Agent not found"], ["team", "Team not found"], ["settlement", "Settlement not found or already paid"], ["path", "Not Found"]
  ] as const).map(([what, detail]) => ({ error: new errors.NotFound({ what, id: "guessed" }), status: 404, body: { detail } })),
  MethodNotAllowed: [{ error: new errors.MethodNotAllowed({ allow: ["GET", "POST"] }), status: 405, headers: [["allow", "GET, POST"]], body: { detail: "Method Not Allowed" } }],
  AlreadyExists: [{ error: new errors.AlreadyExists({ what: "team member", id: "guessed" }), status: 409, body: { detail: "Team member exists already" } }],
  IdempotencyKeyReused: [{ error: new errors.IdempotencyKeyReused({ key: "k" }), status: 409, body: { detail: "This Idempotency-Key came before with another request" } }],
  IdempotencyInFlight: [{ error: new errors.IdempotencyInFlight({ key: "k", retryAfterMs }), status: 409, headers: after(2), body: { detail: "The first call with this Idempotency-Key is still running" } }],
  AnswerNotStored: [{ error: new errors.AnswerNotStored({ key: "k", resultId: "id-1" }), status: 409, body: { detail: "The first call with this Idempotency-Key is done, and its answer can't be repeated. It made id-1" } }],
  AddressForbidden: [{
    error: new errors.AddressForbidden({ field: "endpoint", address: "http://10.0.0.1/" }), status: 400,
    body: { detail: "endpoint: the gateway does not call this address: it must be a public http or https address" }
  }],
  InputNotAccepted: [{ error: new errors.InputNotAccepted({ wanted: "multipart" }), status: 422, body: { detail: "The provider takes other input: multipart" } }],
  Unauthenticated: ([
    ["missing", "Missing API key: send the header Authorization: Bearer {key_id}:{secret}"], ["invalid", "Invalid API key"], ["revoked", "Invalid API key"], ["reused", "Invalid API key"], ["credentials", "Invalid API key"],
    ["expired", "The API key has expired: create another one"], ["wrong_dialect", "This credential belongs to another product: use an API key of this one (acf_...:sec_...)"]
  ] as const).map(([reason, detail]) => ({ error: new errors.Unauthenticated({ reason }), status: 401, headers: [["www-authenticate", "Bearer"]], body: { detail } })),
  ScopeMissing: [{ error: new errors.ScopeMissing({ scope: "provider" }), status: 403, body: { detail: "Insufficient permissions: this needs a key of the role provider" } }],
  LoginRequired: [{ error: new errors.LoginRequired(), status: 403, body: { detail: "This needs a login" } }],
  EmailUnverified: [{ error: new errors.EmailUnverified(), status: 403, body: { detail: "Verify your email" } }],
  NotOwner: [{ error: new errors.NotOwner({ what: "service", id: "guessed" }), status: 403, body: { detail: "Not your service" } }],
  OriginForbidden: [{ error: new errors.OriginForbidden(), status: 403, body: { detail: "Pages of this origin may not connect" } }],
  AccountSuspended: [{ error: new errors.AccountSuspended(), status: 403, body: { detail: "The account is suspended: contact the operator" } }],
  InsufficientCredits: [{ error: new errors.InsufficientCredits({ required: 500_000n, available: 100_000n, held: 250_000n }), status: 402, body: { detail: "Insufficient credits: 0.50 are needed, 0.10 are available" } }],
  BudgetExceeded: [{ error: new errors.BudgetExceeded({ window: "total", amount: 1n, spent: 1n, held: 1n, required: 500_000n }), status: 402, body: { detail: "The key's budget does not cover 0.50" } }],
  RateLimited: [{ error: new errors.RateLimited({ limit: 60, windowMs: 60_000, retryAfterMs: 1 }), status: 429, headers: after(1), body: { detail: "Rate limit exceeded. Try again later." } }],
  TooManyAttempts: [{ error: new errors.TooManyAttempts({ retryAfterMs: 60_001 }), status: 429, headers: after(61), body: { detail: "Rate limit exceeded. Try again later." } }],
  MailboxFull: [{ error: new errors.MailboxFull({ actor: "account", retryAfterMs: 0 }), status: 503, headers: after(1), body: { detail: "Too many calls of this owner are waiting. Nothing was done; try again in a second" } }],
  Overloaded: [{ error: new errors.Overloaded({ what: "credential look-ups", retryAfterMs: 1_000 }), status: 503, headers: after(1), body: { detail: "The gateway is busy. Nothing was done; try again in a second" } }],
  AgentPaused: [{ error: new errors.AgentPaused({ agent: "SUMM" }), status: 400, body: { detail: "Service is not active" } }],
  AgentUnavailable: ([
    ["unreachable", 502, "Provider unreachable"], ["timeout", 504, "Provider timeout"], ["circuit_open", 400, "The provider has failed too often and is given a rest"],
    ["busy", 503, "The provider has too many calls waiting"], ["broken_answer", 502, "The provider broke off its answer"], ["address_forbidden", 400, "The provider is at an address that the gateway does not call"]
  ] as const).map(([reason, status, detail]) => ({
    error: new errors.AgentUnavailable({ agent: "SUMM", reason, retryAfterMs }), status, ...(reason === "circuit_open" || reason === "busy" ? { headers: after(2) } : {}), body: { detail }
  })),
  StoreUnavailable: [{ error: new errors.StoreUnavailable({ retryAfterMs }), status: 503, headers: after(2), body: { detail: "The gateway can't read its books. Nothing was done; try again in 2 seconds" } }],
  NotCommitted: [{ error: new errors.NotCommitted({ retryAfterMs }), status: 503, headers: after(2), body: { detail: "The call could not be recorded. Nothing was charged; try again in 2 seconds" } }],
  OutcomeUnknown: [{ error: new errors.OutcomeUnknown({ retryAfterMs }), status: 503, headers: after(2), body: { detail: "It is not known yet whether the call took effect: repeat it with the same Idempotency-Key" } }],
  HoldLost: [{ error: new errors.HoldLost({ retryAfterMs }), status: 503, headers: after(2), body: { detail: "The credits set aside for the call were lost. Nothing was charged; try again" } }],
  Draining: [{ error: new errors.Draining({ retryAfterMs }), status: 503, headers: after(2), body: { detail: "The gateway is restarting. Nothing was done; try again in 2 seconds" } }],
  NotImplemented: [{ error: new errors.NotImplemented({ feature: "Chat" }), status: 501, body: { detail: "Chat is not there yet" } }],
  NotConfigured: [{ error: new errors.NotConfigured({ setting: "SECRETS_KEY" }), status: 503, headers: after(300), body: { detail: "The operator has not configured SECRETS_KEY, which this needs" } }]
}

describeErrors(acf, goldens)

it("tells of a defect nothing but the request id", () => {
  expect(acf.internalError("r-1")).toEqual({ status: 500, body: { detail: "Internal server error: quote the request id r-1 when you report it" } })
})
