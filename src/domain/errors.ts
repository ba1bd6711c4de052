/**
 * Every way a call can be refused or fail, as facts: ids, amounts, times. No
 * prose, no status codes, no secrets; each dialect turns a tag into its own
 * shape (`dialects/<name>/errors.ts`), and the compiler refuses a missing one.
 *
 * Grouped by what the caller should do. Each docstring ends with the state that
 * is left behind.
 */
import { Schema } from "effect"

const retry = { retryAfterMs: Schema.Int }

// Fix the request.

/** Path, query, header or body don't fit the row. `malformed` when the body wasn't even JSON. Nothing was done. */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", {
  malformed: Schema.Boolean,
  issues: Schema.Array(Schema.Struct({ loc: Schema.Array(Schema.String), msg: Schema.String }))
}) {}
/** The request fits its row, and breaks a rule of what it asks for (a name that is blank, a method that is unknown). Nothing was done. */
export class RuleBroken extends Schema.TaggedError<RuleBroken>()("RuleBroken", {
  issues: Schema.Array(Schema.Struct({ loc: Schema.Array(Schema.String), msg: Schema.String }))
}) {}
/** The body is longer than the row (or the agent's manifest) allows. Nothing was done; the rest of the body was not read. */
export class BodyTooLarge extends Schema.TaggedError<BodyTooLarge>()("BodyTooLarge", { bytesMax: Schema.Int }) {}
/** The body did not arrive in time. Nothing was done. */
export class BodyTimeout extends Schema.TaggedError<BodyTimeout>()("BodyTimeout", {}) {}
/** No such thing, or not the caller's. Nothing was done. */
export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", { what: Schema.String, id: Schema.String }) {}
/** The path exists with other methods. Nothing was done. */
export class MethodNotAllowed extends Schema.TaggedError<MethodNotAllowed>()("MethodNotAllowed", { allow: Schema.Array(Schema.String) }) {}
/** A unique name is taken (`what`: ticker, email). Nothing was created. */
export class AlreadyExists extends Schema.TaggedError<AlreadyExists>()("AlreadyExists", { what: Schema.String, id: Schema.String }) {}
/** The idempotency key came before with another body. Nothing was done; the first answer stands. */
export class IdempotencyKeyReused extends Schema.TaggedError<IdempotencyKeyReused>()("IdempotencyKeyReused", { key: Schema.String }) {}
/** The first call with this idempotency key is still running. Nothing more was done. */
export class IdempotencyInFlight extends Schema.TaggedError<IdempotencyInFlight>()("IdempotencyInFlight", { key: Schema.String, ...retry }) {}
/** The first call with this key is done, but its answer can't be repeated (a secret, or too long); `resultId` names what it made. */
export class AnswerNotStored extends Schema.TaggedError<AnswerNotStored>()("AnswerNotStored", { key: Schema.String, resultId: Schema.String }) {}
/** The agent's address is one that the gateway must not reach. Nothing was stored or sent. */
export class AddressForbidden extends Schema.TaggedError<AddressForbidden>()("AddressForbidden", { field: Schema.String, address: Schema.String }) {}
/** The agent's manifest refuses this kind of input. Nothing was charged or sent. */
export class InputNotAccepted extends Schema.TaggedError<InputNotAccepted>()("InputNotAccepted", { wanted: Schema.String }) {}

// Authenticate.

export const AuthenticationFailure = Schema.Literals(["missing", "invalid", "expired", "revoked", "reused", "credentials", "wrong_dialect"])
/** No credential, or not a good one. Nothing was done (`reused`: the refresh token's whole family is revoked). */
export class Unauthenticated extends Schema.TaggedError<Unauthenticated>()("Unauthenticated", { reason: AuthenticationFailure }) {}
/** The credential lacks the scope. Nothing was done. */
export class ScopeMissing extends Schema.TaggedError<ScopeMissing>()("ScopeMissing", { scope: Schema.String }) {}
/** The row is for logins only, and an API key came. Nothing was done. */
export class LoginRequired extends Schema.TaggedError<LoginRequired>()("LoginRequired", {}) {}
/** The account's email is not verified. Nothing was done. */
export class EmailUnverified extends Schema.TaggedError<EmailUnverified>()("EmailUnverified", {}) {}
/** The thing is public but another account's. Nothing was changed. */
export class NotOwner extends Schema.TaggedError<NotOwner>()("NotOwner", { what: Schema.String, id: Schema.String }) {}
/** A page of an origin that may not call the gateway asks for a socket. Nothing was done. */
export class OriginForbidden extends Schema.TaggedError<OriginForbidden>()("OriginForbidden", {}) {}
/** An operator has suspended the account. Nothing was done. */
export class AccountSuspended extends Schema.TaggedError<AccountSuspended>()("AccountSuspended", {}) {}

// Pay.

/** The balance less open holds does not cover the amount. Nothing was held or charged. */
export class InsufficientCredits extends Schema.TaggedError<InsufficientCredits>()("InsufficientCredits", {
  required: Schema.BigInt,
  available: Schema.BigInt,
  held: Schema.BigInt
}) {}
/** A budget of the key does not cover the amount. Nothing was held or charged. `resetsAtMs` is absent for a total. */
export class BudgetExceeded extends Schema.TaggedError<BudgetExceeded>()("BudgetExceeded", {
  window: Schema.Literals(["day", "month", "total"]),
  amount: Schema.BigInt,
  spent: Schema.BigInt,
  held: Schema.BigInt,
  required: Schema.BigInt,
  resetsAtMs: Schema.optionalKey(Schema.Int)
}) {}

// Wait.

/** The window of the key or login is full. Nothing was done, and the refused call does not count. */
export class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", {
  limit: Schema.Int,
  windowMs: Schema.Int,
  ...retry
}) {}
/** Too many failed attempts for an email or an address. Nothing was tried. */
export class TooManyAttempts extends Schema.TaggedError<TooManyAttempts>()("TooManyAttempts", { ...retry }) {}
/** The actor's mailbox is full. The command was not taken. */
export class MailboxFull extends Schema.TaggedError<MailboxFull>()("MailboxFull", { actor: Schema.String, ...retry }) {}
/** A bounded resource (`what`) is used up. Nothing was done. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", { what: Schema.String, ...retry }) {}

// Try again, or elsewhere.

/** The owner has paused the agent. Nothing was held or sent. */
export class AgentPaused extends Schema.TaggedError<AgentPaused>()("AgentPaused", { agent: Schema.String }) {}
export const AgentFailure = Schema.Literals(["unreachable", "timeout", "circuit_open", "busy", "broken_answer", "address_forbidden"])
/** The agent gave no usable answer. The hold was released; nothing was charged. */
export class AgentUnavailable extends Schema.TaggedError<AgentUnavailable>()("AgentUnavailable", {
  agent: Schema.String,
  reason: AgentFailure,
  ...retry
}) {}
/** Postgres can't be reached. Nothing was done. */
export class StoreUnavailable extends Schema.TaggedError<StoreUnavailable>()("StoreUnavailable", { ...retry }) {}
/** The commit was refused or did not happen, or the account moved to another owner. Nothing was charged; retry. */
export class NotCommitted extends Schema.TaggedError<NotCommitted>()("NotCommitted", { ...retry }) {}
/** The outcome of the commit could not be learned in time. It happened entirely or not at all; retry with the same idempotency key. */
export class OutcomeUnknown extends Schema.TaggedError<OutcomeUnknown>()("OutcomeUnknown", { ...retry }) {}
/** The hold of a call is gone (expired, other owner, other term). Nothing was charged; counted as lost to a crash. */
export class HoldLost extends Schema.TaggedError<HoldLost>()("HoldLost", { ...retry }) {}
/** The gateway is stopping. Nothing was done. */
export class Draining extends Schema.TaggedError<Draining>()("Draining", { ...retry }) {}

// Give up.

/** The contract names it, this version does not have it. Nothing was done. */
export class NotImplemented extends Schema.TaggedError<NotImplemented>()("NotImplemented", { feature: Schema.String }) {}
/** The operator has not configured what this needs. Nothing was done. */
export class NotConfigured extends Schema.TaggedError<NotConfigured>()("NotConfigured", { setting: Schema.String }) {}

export const GatewayError = Schema.Union([
  InvalidRequest, RuleBroken, BodyTooLarge, BodyTimeout, NotFound, MethodNotAllowed, AlreadyExists,
  IdempotencyKeyReused, IdempotencyInFlight, AnswerNotStored, AddressForbidden, InputNotAccepted,
  Unauthenticated, ScopeMissing, LoginRequired, EmailUnverified, NotOwner, OriginForbidden, AccountSuspended,
  InsufficientCredits, BudgetExceeded,
  RateLimited, TooManyAttempts, MailboxFull, Overloaded,
  AgentPaused, AgentUnavailable, StoreUnavailable, NotCommitted, OutcomeUnknown, HoldLost, Draining,
  NotImplemented, NotConfigured
])
export type GatewayError = typeof GatewayError.Type
export type GatewayErrorTag = GatewayError["_tag"]
