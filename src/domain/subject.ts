/**
 * May this subject call at all, and now? The guard ladder of every
 * authenticated call, in the contract's order: credential, account, scope,
 * email, window. Only the last rung changes anything: it counts the call.
 */
import type { Account, Subject } from "./account.ts"
import { AccountSuspended, EmailUnverified, LoginRequired, RateLimited, ScopeMissing, Unauthenticated } from "./errors.ts"
import { takeCall, untilNextCallMs } from "./rateLimit.ts"

export interface Need {
  readonly auth: "public" | "optional" | "login" | "key" | "loginOrKey" | "loginOrKeyOrAgent"
  readonly scope?: string | undefined
  readonly verified?: boolean | undefined
  /** Leaves the window alone. */
  readonly uncounted?: boolean | undefined
}

export type Refusal = Unauthenticated | AccountSuspended | LoginRequired | ScopeMissing | EmailUnverified | RateLimited

const windowMs = 60_000

/** `undefined`: admitted, and counted in the window. A refusal counts nothing. */
export const admitSubject = (account: Account, subject: Subject, need: Need, nowMs: number): Refusal | undefined => {
  if (subject.revoked) return new Unauthenticated({ reason: "revoked" })
  if (subject.expiresAtMs <= nowMs) return new Unauthenticated({ reason: "expired" })
  if (account.suspended) return new AccountSuspended()
  if (need.auth === "login" && subject.kind !== "login") return new LoginRequired()
  if (need.auth === "key" && subject.kind !== "key") return new Unauthenticated({ reason: "wrong_dialect" })
  if (need.scope !== undefined && subject.scopes !== undefined && !subject.scopes.has(need.scope)) return new ScopeMissing({ scope: need.scope })
  if (need.verified === true && !account.emailVerified) return new EmailUnverified()
  if (need.uncounted !== true && !takeCall(subject.window, subject.limit, nowMs)) {
    return new RateLimited({ limit: subject.limit, windowMs, retryAfterMs: untilNextCallMs(subject.window, subject.limit, nowMs) })
  }
  return undefined
}
