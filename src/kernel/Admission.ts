/**
 * The gate of every authenticated call: credential, account, scope, window. On
 * the hot path (credential proved before, account resident here) it decides
 * synchronously; otherwise it proves and activates first and then decides the
 * same way.
 */
import { Context, Effect, Layer } from "effect"
import { Config, limits } from "../config.ts"
import { type Account, type Subject } from "../domain/account.ts"
import { type GatewayError, RateLimited, Unauthenticated } from "../domain/errors.ts"
import { type RateWindow, callsInWindow, makeRateWindow, takeCall, untilEmptyMs, untilNextCallMs } from "../domain/rateLimit.ts"
import { type Need as SubjectNeed, admitSubject } from "../domain/subject.ts"
import type { Peer } from "../cluster/Cluster.ts"
import { Accounts } from "./AccountActor.ts"
import type { Caller } from "./Caller.ts"
import { Credentials } from "./identity/Credentials.ts"
import { Spending } from "./lease/Spending.ts"

/** What a row asks of its caller. Built once for each row. */
export interface Need extends SubjectNeed {
  /** Whose API keys are good here. */
  readonly dialect: string
  /** Of a caller whose account another node owns: the call may be passed on to it. Otherwise the owner is asked. */
  readonly passes?: boolean | undefined
  /** With it: what the owner has leased to this node may do for the call. */
  readonly leased?: boolean | undefined
}

export interface Rate {
  readonly limit: number
  readonly remaining: number
  readonly resetMs: number
}

/** Exactly one of `caller`, `error` and `elsewhere` is set; `rate` whenever the credential was good and decided on here. */
export interface Decision {
  readonly caller: Caller | undefined
  readonly rate: Rate | undefined
  readonly error: GatewayError | undefined
  /** The owner of the caller's account, which has to decide. */
  readonly elsewhere?: Peer | undefined
}

export class Admission extends Context.Service<Admission, {
  /** Decides at once when the credential is known and its account resident here; `undefined` otherwise. Counts one call in the window. */
  readonly admitNow: (authorization: string, need: Need, nowMs: number) => Decision | undefined
  /** The same after looking up the credential and activating the account. */
  readonly admit: (authorization: string, need: Need) => Effect.Effect<Decision>
  /** One more call of a caller that was admitted before, e.g. over its open socket. Counts it in the window. */
  readonly again: (caller: Caller, need: Need) => Effect.Effect<void, GatewayError>
}>()("tollgate/kernel/Admission") {
  static readonly layer = Layer.effect(Admission, Effect.gen(function*() {
    const accounts = yield* Accounts
    const spending = yield* Spending
    const credentials = yield* Credentials
    const settings = yield* Config
    const windows = new Map<string, RateWindow>()
    const decideHere = (caller: Caller, need: Need) => accounts.ask(caller.accountId, (account, nowMs) => decision(account, caller, need, nowMs))

    /** A window may be full of calls that other nodes were granted and don't make. */
    const afterRecall = (caller: Caller, need: Need, full: Decision): Effect.Effect<Decision, GatewayError> => Effect.gen(function*() {
      const account = yield* accounts.ask(caller.accountId, (account) => account)
      if (!spending.areOut(account, caller.subjectId)) return full
      yield* spending.recall(account, caller.subjectId)
      return yield* decideHere(caller, need)
    })

    /** By what the owner says. A call that is refused for another reason does not count. */
    const decideLeased = (caller: Caller, need: Need): Effect.Effect<Decision, GatewayError> => spending.admit(caller, need.uncounted !== true).pipe(
      Effect.map((account) => account === undefined ? refusal(new Unauthenticated({ reason: "revoked" })) : leasedDecision(account, caller, need))
    )
    const leasedDecision = (account: Account, caller: Caller, need: Need): Decision => {
      const decided = decision(account, caller, need, Date.now())
      if (decided.error !== undefined && need.uncounted !== true) spending.passedOn(caller, 0n, false)
      return decided
    }

    /** An account that is gone has taken its credentials with it. */
    const decide = (caller: Caller, need: Need): Effect.Effect<Decision, GatewayError> => Effect.suspend(() => {
      const peer = spending.peerOf(caller)
      if (peer === undefined) {
        return decideHere(caller, need).pipe(
          Effect.flatMap((decided) => decided.error?._tag === "RateLimited" ? afterRecall(caller, need, decided) : Effect.succeed(decided)),
          // It waited here for the account, which went to another node.
          Effect.catchIf((error) => error._tag === "Overloaded" && error.what === "placement" && spending.peerOf(caller) !== undefined, () => decide(caller, need))
        )
      }
      if (need.passes !== true) return decideLeased(caller, need)
      if (need.leased === true) spending.missed(caller)
      return Effect.succeed({ caller: undefined, rate: undefined, error: undefined, elsewhere: peer })
    }).pipe(Effect.catchTag("NotFound", () => Effect.fail(new Unauthenticated({ reason: "revoked" }))))
    const prove = (authorization: string, need: Need): Effect.Effect<Caller, GatewayError> => need.auth !== "loginOrKeyOrAgent"
      ? credentials.prove(authorization)
      : credentials.prove(authorization).pipe(Effect.catchTag("Unauthenticated", (refused) => credentials.proveAgent(authorization).pipe(
        Effect.catchTag("Unauthenticated", () => Effect.fail(refused))
      )))
    /** An agent has a window of its own: it must not use up that of the caller whose token it shows. */
    const agentsDecision = (caller: Caller): Decision => {
      const nowMs = Date.now()
      if (windows.size >= limits.agentCacheEntries && !windows.has(caller.subjectId)) windows.delete(windows.keys().next().value!)
      const window = windows.get(caller.subjectId) ?? makeRateWindow()
      windows.set(caller.subjectId, window)
      const isAdmitted = takeCall(window, settings.keyRateLimitDefault, nowMs)
      const rate = rateOf({ limit: settings.keyRateLimitDefault, window }, nowMs)
      return isAdmitted ? { caller, rate, error: undefined } : {
        caller: undefined, rate,
        error: new RateLimited({ limit: rate.limit, windowMs: limits.rateWindowMs, retryAfterMs: untilNextCallMs(window, rate.limit, nowMs) })
      }
    }
    return Admission.of({
      admitNow: (authorization, need, nowMs) => {
        const caller = credentials.known(authorization)
        if (caller === undefined || (caller.dialect !== undefined && caller.dialect !== need.dialect)) return undefined
        const account = accounts.admitting(caller.accountId, nowMs)
        if (account === undefined && need.leased === true) {
          const leased = spending.admitNow(caller)
          return leased === undefined ? undefined : leasedDecision(leased, caller, need)
        }
        // Without its subject the key was revoked, or went to another account: it is looked up again.
        if (account === undefined || !account.subjects.has(caller.subjectId)) return undefined
        const decided = decision(account, caller, need, nowMs)
        return decided.error?._tag === "RateLimited" && spending.areOut(account, caller.subjectId) ? undefined : decided
      },
      admit: (authorization, need) => Effect.gen(function*() {
        if (authorization === "") return refusal(new Unauthenticated({ reason: "missing" }))
        const caller = credentials.known(authorization) ?? (yield* prove(authorization, need))
        if (caller.kind === "agent") return agentsDecision(caller)
        if (caller.dialect !== undefined && caller.dialect !== need.dialect) return refusal(new Unauthenticated({ reason: "wrong_dialect" }))
        const decided = yield* decide(caller, need)
        if (decided.error?._tag !== "Unauthenticated" || decided.error.reason !== "revoked" || caller.kind !== "key") return decided
        credentials.forget(authorization)
        const again = yield* prove(authorization, need)
        return again.accountId === caller.accountId ? decided : yield* decide(again, need)
      }).pipe(Effect.catch((error) => Effect.succeed(refusal(error)))),
      again: (caller, need) => decide(caller, need).pipe(Effect.flatMap(({ error }) => error === undefined ? Effect.void : Effect.fail(error)))
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

const rateOf = (subject: Pick<Subject, "limit" | "window">, nowMs: number): Rate => ({
  limit: subject.limit,
  remaining: Math.max(0, subject.limit - callsInWindow(subject.window, nowMs)),
  // The window may keep a call up to a second longer than it must; the header names the window.
  resetMs: Math.min(limits.rateWindowMs, untilEmptyMs(subject.window, nowMs))
})
