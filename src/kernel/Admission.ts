/**
 * The gate of every authenticated call: credential, account, scope, window. On
 * the hot path (credential proved before, account resident here) it decides
 * synchronously; otherwise it proves and activates first and then decides the
 * same way.
 */
import { Context, Effect, Layer } from "effect"
import { limits } from "../config.ts"
import { type Account, type Subject } from "../domain/account.ts"
import { type GatewayError, Unauthenticated } from "../domain/errors.ts"
import { callsInWindow, untilEmptyMs } from "../domain/rateLimit.ts"
import { type Need as SubjectNeed, admitSubject } from "../domain/subject.ts"
import { Accounts } from "./AccountActor.ts"
import type { Caller } from "./Caller.ts"
import { Credentials } from "./identity/Credentials.ts"

/** What a row asks of its caller. Built once for each row. */
export interface Need extends SubjectNeed {
  /** Whose API keys are good here. */
  readonly dialect: string
}

export interface Rate {
  readonly limit: number
  readonly remaining: number
  readonly resetMs: number
}

/** Exactly one of `caller` and `error` is set; `rate` whenever the credential was good. */
export interface Decision {
  readonly caller: Caller | undefined
  readonly rate: Rate | undefined
  readonly error: GatewayError | undefined
}

export class Admission extends Context.Service<Admission, {
  /** Decides at once when the credential is known and its account resident here; `undefined` otherwise. Counts one call in the window. */
  readonly admitNow: (authorization: string, need: Need, nowMs: number) => Decision | undefined
  /** The same after looking up the credential and activating the account. */
  readonly admit: (authorization: string, need: Need) => Effect.Effect<Decision>
}>()("tollgate/kernel/Admission") {
  static readonly layer = Layer.effect(Admission, Effect.gen(function*() {
    const accounts = yield* Accounts
    const credentials = yield* Credentials
    return Admission.of({
      admitNow: (authorization, need, nowMs) => {
        const caller = credentials.known(authorization)
        if (caller === undefined || (caller.dialect !== undefined && caller.dialect !== need.dialect)) return undefined
        const account = accounts.admitting(caller.accountId, nowMs)
        return account === undefined ? undefined : decision(account, caller, need, nowMs)
      },
      admit: (authorization, need) => Effect.gen(function*() {
        if (authorization === "") return refusal(new Unauthenticated({ reason: "missing" }))
        const caller = credentials.known(authorization) ?? (yield* credentials.prove(authorization))
        if (caller.dialect !== undefined && caller.dialect !== need.dialect) return refusal(new Unauthenticated({ reason: "wrong_dialect" }))
        return yield* accounts.ask(caller.accountId, (account, nowMs) => decision(account, caller, need, nowMs))
      }).pipe(Effect.catch((error) => Effect.succeed(refusal(error._tag === "NotFound" ? new Unauthenticated({ reason: "revoked" }) : error))))
    })
  }))
}

const refusal = (error: GatewayError): Decision => ({ caller: undefined, rate: undefined, error })

const decision = (account: Account, caller: Caller, need: Need, nowMs: number): Decision => {
  const subject = account.subjects.get(caller.subjectId)
  if (subject === undefined) return refusal(new Unauthenticated({ reason: "revoked" }))
  if (caller.expiresAtMs <= nowMs) return refusal(new Unauthenticated({ reason: "expired" }))
  const error = admitSubject(account, subject, need, nowMs)
  return { caller: error === undefined ? caller : undefined, rate: rateOf(subject, nowMs), error }
}

const rateOf = (subject: Subject, nowMs: number): Rate => ({
  limit: subject.limit,
  remaining: Math.max(0, subject.limit - callsInWindow(subject.window, nowMs)),
  // The window may keep a call up to a second longer than it must; the header names the window.
  resetMs: Math.min(limits.rateWindowMs, untilEmptyMs(subject.window, nowMs))
})
