/**
 * One statement for many: sessions are taken over and closed in great numbers
 * at once, after a restart and when nobody comes back to them. What is asked in
 * one turn of the event loop goes together.
 */
import { Deferred, Effect, Exit } from "effect"
import type { SessionId } from "../../domain/ids.ts"
import type { OwnedSession } from "../../store/SessionStore.ts"

/** Rows of one statement. */
const batchMax = 500

interface Waiting<Asked, Found, E> {
  readonly asked: Asked
  readonly found: Deferred.Deferred<Found | undefined, E>
}

export class InBulk<Asked extends OwnedSession, Found extends OwnedSession, E> {
  readonly #run: (all: ReadonlyArray<Asked>) => Effect.Effect<ReadonlyMap<SessionId, Found>, E>
  #waiting: Array<Waiting<Asked, Found, E>> = []

  constructor(run: (all: ReadonlyArray<Asked>) => Effect.Effect<ReadonlyMap<SessionId, Found>, E>) {
    this.#run = run
  }

  /** `undefined`: nothing was done to it, or it is another account's. */
  ask(asked: Asked): Effect.Effect<Found | undefined, E> {
    return Effect.suspend(() => {
      const found = Deferred.makeUnsafe<Found | undefined, E>()
      if (this.#waiting.push({ asked, found }) === 1) setImmediate(() => Effect.runFork(this.#flush()))
      return Deferred.await(found)
    })
  }

  #flush(): Effect.Effect<void> {
    const batch = this.#waiting.splice(0, batchMax)
    if (this.#waiting.length > 0) setImmediate(() => Effect.runFork(this.#flush()))
    return this.#run(batch.map(({ asked }) => asked)).pipe(
      Effect.onExit((exit) => Effect.forEach(batch, ({ asked, found }) => Deferred.done(found, Exit.map(exit, (all) => {
        const one = all.get(asked.id)
        return one?.accountId === asked.accountId ? one : undefined
      })), { discard: true })),
      Effect.ignore
    )
  }
}
