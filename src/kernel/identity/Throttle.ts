/**
 * Slows down who guesses passwords and who makes the gateway write letters, by
 * the machine of `domain/attempts.ts`.
 *
 * Guarantee: on one node, at most ten failed proofs per email and per network
 * address in 15 minutes, at any concurrency; as many letters per email, and as
 * many requests for one per address. A proof that succeeds clears the email's
 * failures; one that could not be checked (overloaded, store away, caller gone)
 * counts for nothing, and nothing was learned from it.
 *
 * The counts are each node's own and in memory: a restart forgets them, and N
 * nodes allow N times as many.
 */
import { Clock, Context, Effect, Exit, Layer } from "effect"
import { type Attempts, beginAttempt, endAttempt, forgiveAttempts, makeAttempts, subjectOfAddress } from "../../domain/attempts.ts"
import { TooManyAttempts } from "../../domain/errors.ts"

export class Throttle extends Context.Service<Throttle, {
  /** Runs `proof` unless too many failed before; `false` is a failure. `address` is left out where a login was proved already. */
  readonly guess: <E, R>(email: string, address: string | undefined, proof: Effect.Effect<boolean, E, R>) => Effect.Effect<boolean, E | TooManyAttempts, R>
  /**
   * Runs what shows an API key, unless too many were refused for an address: 5 in a minute (contracts/acf.md, Keys).
   * Any number may run at once: good keys are shown by many behind one address, and nobody guesses 256 bits.
   */
  readonly key: <A, E extends { readonly _tag: string }, R>(address: string, proof: Effect.Effect<A, E, R>) => Effect.Effect<A, E | TooManyAttempts, R>
  /** Clears what failed for an email, when it was proved in another way. */
  readonly forgive: (email: string) => Effect.Effect<void>
  /** Counts one letter to an email. */
  readonly letter: (email: string) => Effect.Effect<void, TooManyAttempts>
  /** Counts one request for a letter from an address. */
  readonly request: (address: string) => Effect.Effect<void, TooManyAttempts>
}>()("tollgate/kernel/identity/Throttle") {
  static readonly layer = Layer.sync(Throttle, () => {
    const emails = makeAttempts()
    const addresses = makeAttempts()
    const letters = makeAttempts()
    const requests = makeAttempts()
    const keys = makeAttempts({ max: 5, windowMs: 60_000, isLenient: true })
    return Throttle.of({
      guess: (email, address, proof) => {
        const proved = attempt(emails, email, proof)
        return (address === undefined ? proved : attempt(addresses, subjectOfAddress(address), proved)).pipe(
          Effect.tap((isProved) => Effect.sync(() => { if (isProved) forgiveAttempts(emails, email) }))
        )
      },
      key: (address, proof) => Effect.suspend(() => {
        let isGuess = false
        const watched = proof.pipe(
          Effect.tapError((error) => Effect.sync(() => { isGuess = refusals.has(error._tag) })),
          Effect.exit
        )
        return attempt(keys, subjectOfAddress(address), Effect.map(watched, (exit) => ({ exit, isGood: !isGuess })), ({ isGood }) => isGood)
      }).pipe(Effect.flatMap(({ exit }) => exit)),
      forgive: (email) => Effect.sync(() => forgiveAttempts(emails, email)),
      letter: (email) => Effect.asVoid(attempt(letters, email, Effect.succeed(false))),
      request: (address) => Effect.asVoid(attempt(requests, subjectOfAddress(address), Effect.succeed(false)))
    })
  })
}

/** What says that a key was no good. */
const refusals: ReadonlySet<string> = new Set(["Unauthenticated", "NotOwner", "ScopeMissing"])

/** `isGood`: whether what `proof` answers costs no attempt. */
const attempt = <A, E, R>(
  attempts: Attempts, name: string, proof: Effect.Effect<A, E, R>, isGood: (answer: A) => boolean = (answer) => answer === true
): Effect.Effect<A, E | TooManyAttempts, R> =>
  Effect.acquireUseRelease(
    Effect.flatMap(Clock.currentTimeMillis, (nowMs) => {
      const waitMs = beginAttempt(attempts, name, nowMs)
      return waitMs === 0 ? Effect.void : Effect.fail(new TooManyAttempts({ retryAfterMs: waitMs }))
    }),
    () => proof,
    (_, exit) => Effect.map(Clock.currentTimeMillis, (nowMs) =>
      endAttempt(attempts, name, Exit.isSuccess(exit) && !isGood(exit.value), nowMs))
  )
