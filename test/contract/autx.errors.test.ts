/** The words of every refusal, whether or not a test can bring it about. The compiler asks for a new tag's. */
import { expect, it } from "vitest"
import { autx } from "../../src/dialects/autx/index.ts"
import * as errors from "../../src/domain/errors.ts"
import { type Goldens, after, describeErrors } from "./Errors.ts"

const retryAfterMs = 1_500

const goldens: Goldens = {
  InvalidRequest: [
    { error: new errors.InvalidRequest({ malformed: true, issues: [{ loc: ["body"], msg: "Not valid JSON" }] }), status: 400, body: { detail: "body: Not valid JSON", errors: [{ loc: ["body"], msg: "Not valid JSON" }] } },
    { error: new errors.InvalidRequest({ malformed: false, issues: [{ loc: ["body", "ticker"], msg: "Missing key" }] }), status: 422, body: { detail: "body.ticker: Missing key", errors: [{ loc: ["body", "ticker"], msg: "Missing key" }] } }
  ],
  RuleBroken: [{ error: new errors.RuleBroken({ issues: [{ loc: ["name"], msg: "must not be blank" }] }), status: 422, body: { detail: "name: must not be blank", errors: [{ loc: ["name"], msg: "must not be blank" }] } }],
  BodyTooLarge: [{ error: new errors.BodyTooLarge({ bytesMax: 10 }), status: 413, body: { detail: "The body is too large: at most 10 bytes are allowed", bytes_max: 10 } }],
  BodyTimeout: [{ error: new errors.BodyTimeout(), status: 408, body: { detail: "The body did not arrive in time" } }],
  NotFound: [
    { error: new errors.NotFound({ what: "order", id: "guessed" }), status: 404, body: { detail: "No such order among yours" } },
    { error: new errors.NotFound({ what: "account", id: "guessed" }), status: 404, body: { detail: "No such account" } }
  ],
  MethodNotAllowed: [{ error: new errors.MethodNotAllowed({ allow: ["GET", "POST"] }), status: 405, headers: [["allow", "GET, POST"]], body: { detail: "Method not allowed: this path has GET, POST" } }],
  AlreadyExists: [
    { error: new errors.AlreadyExists({ what: "ticker", id: "SUMM" }), status: 409, body: { detail: "The ticker SUMM is taken: choose another one" } },
    { error: new errors.AlreadyExists({ what: "email", id: "a@b.c" }), status: 409, body: { detail: "This email is registered already: log in, or reset its password" } }
  ],
  IdempotencyKeyReused: [{ error: new errors.IdempotencyKeyReused({ key: "k" }), status: 409, body: { detail: "This Idempotency-Key came before with another request: repeat that request unchanged, or use another key" } }],
  IdempotencyInFlight: [{ error: new errors.IdempotencyInFlight({ key: "k", retryAfterMs }), status: 409, headers: after(2), body: { detail: "The first call with this Idempotency-Key is still running: try again in 2 seconds", retry_after: 2 } }],
  AnswerNotStored: [{ error: new errors.AnswerNotStored({ key: "k", resultId: "id-1" }), status: 409, body: { detail: "The first call with this Idempotency-Key is done, and its answer can't be repeated. It made id-1", result_id: "id-1" } }],
  AddressForbidden: [{
    error: new errors.AddressForbidden({ field: "endpoint_url", address: "http://10.0.0.1/" }), status: 422,
    body: {
      detail: "endpoint_url: The gateway does not call this address: it must be a public http or https address",
      errors: [{ loc: ["body", "endpoint_url"], msg: "The gateway does not call this address: it must be a public http or https address" }]
    }
  }],
  InputNotAccepted: [{ error: new errors.InputNotAccepted({ wanted: "multipart" }), status: 422, body: { detail: "The agent takes other input: multipart" } }],
  Unauthenticated: ([
    ["missing", "Authentication is required: send the header Authorization: Bearer with an API key or an access token"],
    ["invalid", "The credential is not valid"],
    ["expired", "The credential has expired: refresh the login, or create another API key"],
    ["revoked", "The credential was revoked"],
    ["reused", "This refresh token was used before, so its login has ended: log in again"],
    ["credentials", "Wrong email or password"],
    ["wrong_dialect", "This API key belongs to another product"]
  ] as const).map(([reason, detail]) => ({ error: new errors.Unauthenticated({ reason }), status: 401, headers: [["www-authenticate", "Bearer"]], body: { detail } })),
  ScopeMissing: [{ error: new errors.ScopeMissing({ scope: "orders" }), status: 403, body: { detail: "The API key lacks the scope orders", scope: "orders" } }],
  LoginRequired: [{ error: new errors.LoginRequired(), status: 403, body: { detail: "This needs a login: an API key can't do it" } }],
  EmailUnverified: [{ error: new errors.EmailUnverified(), status: 403, body: { detail: "Verify your email" } }],
  NotOwner: [{ error: new errors.NotOwner({ what: "agent", id: "guessed" }), status: 403, body: { detail: "Only the owner may change this agent" } }],
  OriginForbidden: [{ error: new errors.OriginForbidden(), status: 403, body: { detail: "Pages of this origin may not connect: the operator allows origins with ALLOWED_ORIGINS" } }],
  AccountSuspended: [{ error: new errors.AccountSuspended(), status: 403, body: { detail: "The account is suspended: contact the operator" } }],
  InsufficientCredits: [{
    error: new errors.InsufficientCredits({ required: 500_000n, available: 100_000n, held: 250_000n }), status: 402,
    body: { detail: "Insufficient credits", required_usd: "0.50", available_usd: "0.10", held_usd: "0.25", hint: "Add credits, or try again when calls in flight have ended" }
  }],
  BudgetExceeded: [
    {
      error: new errors.BudgetExceeded({ window: "month", amount: 5_000_000n, spent: 4_000_000n, held: 750_000n, required: 500_000n, resetsAtMs: Date.UTC(2026, 3, 1) }), status: 402,
      body: {
        detail: "The API key's budget for this month does not cover this call", required_usd: "0.50", available_usd: "0.25", held_usd: "0.75", budget_usd: "5.00", window: "month",
        spent_usd: "4.00", resets_at: "2026-04-01T00:00:00.000Z", hint: "Try again when the budget has reset, or use another key"
      }
    },
    {
      error: new errors.BudgetExceeded({ window: "total", amount: 1n, spent: 1n, held: 1n, required: 1n }), status: 402,
      body: {
        detail: "The API key's budget for all its calls does not cover this call", required_usd: "0.000001", available_usd: "0.00", held_usd: "0.000001", budget_usd: "0.000001",
        window: "total", spent_usd: "0.000001", resets_at: null, hint: "This budget never resets: use another key"
      }
    }
  ],
  RateLimited: [{ error: new errors.RateLimited({ limit: 60, windowMs: 60_000, retryAfterMs: 1 }), status: 429, headers: after(1), body: { detail: "Rate limit exceeded", limit: 60, window_seconds: 60, retry_after: 1 } }],
  TooManyAttempts: [{ error: new errors.TooManyAttempts({ retryAfterMs: 60_001 }), status: 429, headers: after(61), body: { detail: "Too many attempts: try again in 61 seconds", retry_after: 61 } }],
  MailboxFull: [{ error: new errors.MailboxFull({ actor: "account", retryAfterMs: 0 }), status: 503, headers: after(1), body: { detail: "Too many calls of this account are waiting. Nothing was done; try again in a second", retry_after: 1 } }],
  Overloaded: [{ error: new errors.Overloaded({ what: "password checks", retryAfterMs: 1_000 }), status: 503, headers: after(1), body: { detail: "The gateway is busy. Nothing was done; try again in a second", retry_after: 1 } }],
  AgentPaused: [{ error: new errors.AgentPaused({ agent: "SUMM" }), status: 503, headers: after(60), body: { detail: "The agent SUMM is paused. Nothing was charged", retry_after: 60 } }],
  AgentUnavailable: ([
    ["unreachable", "can't be reached"],
    ["timeout", "did not answer in time"],
    ["circuit_open", "has failed too often and is given a rest"],
    ["busy", "has too many calls waiting"],
    ["broken_answer", "broke off its answer"],
    ["address_forbidden", "is at an address that the gateway does not call"]
  ] as const).map(([reason, what]) => ({
    error: new errors.AgentUnavailable({ agent: "SUMM", reason, retryAfterMs }), status: 503, headers: after(2),
    body: { detail: `The agent SUMM ${what}. Nothing was charged; try again in 2 seconds`, retry_after: 2 }
  })),
  StoreUnavailable: [{ error: new errors.StoreUnavailable({ retryAfterMs }), status: 503, headers: after(2), body: { detail: "The gateway can't read its books. Nothing was done; try again in 2 seconds", retry_after: 2 } }],
  NotCommitted: [{ error: new errors.NotCommitted({ retryAfterMs }), status: 503, headers: after(2), body: { detail: "The call could not be recorded. Nothing was charged; try again in 2 seconds", retry_after: 2 } }],
  OutcomeUnknown: [{ error: new errors.OutcomeUnknown({ retryAfterMs }), status: 503, headers: after(2), body: { detail: "It is not known yet whether the call took effect: repeat it with the same Idempotency-Key in 2 seconds", retry_after: 2 } }],
  HoldLost: [{ error: new errors.HoldLost({ retryAfterMs }), status: 503, headers: after(2), body: { detail: "The credits set aside for the call were lost. Nothing was charged; try again in 2 seconds", retry_after: 2 } }],
  Draining: [{ error: new errors.Draining({ retryAfterMs }), status: 503, headers: after(2), body: { detail: "The gateway is restarting. Nothing was done; try again in 2 seconds", retry_after: 2 } }],
  NotImplemented: [{ error: new errors.NotImplemented({ feature: "Chat" }), status: 501, body: { detail: "Chat is not there yet" } }],
  NotConfigured: [{ error: new errors.NotConfigured({ setting: "SECRETS_KEY" }), status: 503, headers: after(300), body: { detail: "The operator has not configured SECRETS_KEY, which this needs", retry_after: 300 } }]
}

describeErrors(autx, goldens)

it("tells of a defect nothing but the request id", () => {
  expect(autx.internalError("r-1")).toEqual({ status: 500, body: { detail: "Something went wrong here: quote the request id r-1 when you report it", request_id: "r-1" } })
})
