/**
 * Who is calling, once a credential has been proved. The hot path's handle on
 * an account's activation: everything that can change (status, scopes, window,
 * balance) is read from the actor at each call, never from here.
 */
import type { AccountId, KeyId, UserId, LoginId } from "../domain/ids.ts"

/** One API key, or one person's logins together: they share a window. */
export type SubjectId = KeyId | UserId

export interface Caller {
  readonly accountId: AccountId
  /** `agent`: an agent that shows the token it was called with; it may read `session` and nothing else. */
  readonly kind: "key" | "login" | "agent"
  /** Of a key, the dialect that issued it; a login is good for its own dialect's rows only by their `auth`. */
  readonly dialect: string | undefined
  readonly subjectId: SubjectId
  /** Of a login, which of the person's logins: what a logout ends. */
  readonly loginId: LoginId | undefined
  /** When the credential itself ends (a login's access token), in epoch milliseconds. */
  readonly expiresAtMs: number
  readonly session?: string
}
