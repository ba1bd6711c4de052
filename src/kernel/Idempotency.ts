/**
 * Idempotent calls (`Idempotency-Key`).
 *
 * Guarantee. Of all calls of one account with one key, at most one takes effect
 * in 24 h. The same key with the same request repeats the first answer; with
 * another request it is refused. A call that failed before its commit leaves no
 * trace, so that the key may be tried again.
 *
 * How. `begin` enters the key in this node's table before it looks at the
 * database, and `end` takes it out after the outcome is known: a second call
 * either meets the entry (`IdempotencyInFlight`) or, later, the committed row.
 * The row is part of the very commit that makes the effect durable. The table's
 * unique constraint stands behind both, for the second node.
 *
 * Failure cases. Outcome of the commit unknown: the next call with the key reads
 * what the database says. Answer too long or secret: the replay is refused with
 * the id of what the first call made.
 */
import { Context, Effect, Layer } from "effect"
import { limits } from "../config.ts"
import { AnswerNotStored, IdempotencyInFlight, IdempotencyKeyReused, InvalidRequest, type StoreUnavailable } from "../domain/errors.ts"
import { findRemembered } from "../store/IdempotencyStore.ts"
import type { IdempotencyRow } from "../store/Commit.ts"
import { Postgres } from "../store/Postgres.ts"
import type { Caller } from "./Caller.ts"

export interface StoredAnswer {
  readonly status: number
  readonly headers: ReadonlyArray<readonly [string, string]>
  readonly body: string | Uint8Array
}

/** One call that carries an `Idempotency-Key`, as the kernel commits it. */
export interface IdempotentCall {
  readonly key: string
  /** SHA-256 over method, route and body. */
  readonly fingerprint: string
  /** Renders the answer that a replay repeats; `undefined` when it must not be stored (a secret). Called before the commit. */
  readonly answer: (result: unknown) => StoredAnswer | undefined
}

export type IdempotencyError = IdempotencyInFlight | IdempotencyKeyReused | AnswerNotStored | StoreUnavailable

export class Idempotency extends Context.Service<Idempotency, {
  /** The stored answer to repeat, or `undefined`: go on, and call `end` when the outcome is known. After an error `end` must not be called. */
  readonly begin: (caller: Caller, call: Pick<IdempotentCall, "key" | "fingerprint">) => Effect.Effect<StoredAnswer | undefined, IdempotencyError>
  readonly end: (caller: Caller, call: Pick<IdempotentCall, "key" | "fingerprint">) => void
}>()("tollgate/kernel/Idempotency") {
  static readonly layer = Layer.effect(Idempotency, Effect.gen(function*() {
    const postgres = yield* Postgres
    const inFlight = new Set<string>()
    const entryOf = (caller: Caller, key: string): string => `${caller.accountId} ${key}`
    return Idempotency.of({
      begin: (caller, call) => Effect.suspend((): Effect.Effect<StoredAnswer | undefined, IdempotencyError> => {
        const entry = entryOf(caller, call.key)
        if (inFlight.has(entry)) return Effect.fail(new IdempotencyInFlight({ key: call.key, retryAfterMs: 1_000 }))
        inFlight.add(entry)
        return findRemembered(caller.accountId, call.key).pipe(
          Effect.provideService(Postgres, postgres),
          Effect.flatMap((row): Effect.Effect<StoredAnswer | undefined, IdempotencyError> => {
            if (row === undefined) return Effect.void as Effect.Effect<undefined>
            if (row.fingerprint !== call.fingerprint) return Effect.fail(new IdempotencyKeyReused({ key: call.key }))
            if (row.answer === undefined) return Effect.fail(new AnswerNotStored({ key: call.key, resultId: row.resultId }))
            return Effect.succeed(row.answer)
          }),
          Effect.onError(() => Effect.sync(() => { inFlight.delete(entry) }))
        )
      }),
      end: (caller, call) => { inFlight.delete(entryOf(caller, call.key)) }
    })
  }))
}

const visibleAscii = /^[\x21-\x7e]+$/

/** `undefined` when the header's value can be a key. */
export const refuseIdempotencyKey = (key: string): InvalidRequest | undefined =>
  key.length <= limits.idempotencyKeyCharsMax && visibleAscii.test(key) ? undefined : new InvalidRequest({
    malformed: false,
    issues: [{ loc: ["header", "idempotency-key"], msg: `must be 1 to ${limits.idempotencyKeyCharsMax} visible ASCII characters` }]
  })

/** The row that makes a call's effect repeatable, for the commit of that effect. */
export const idempotencyRows = (call: IdempotentCall | undefined, resultId: string, result: unknown, atMs: number): ReadonlyArray<IdempotencyRow> =>
  call === undefined ? [] : [{ key: call.key, fingerprint: call.fingerprint, resultId, answer: call.answer(result), atMs }]
