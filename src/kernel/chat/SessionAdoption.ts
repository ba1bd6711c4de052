/**
 * Taking sessions over from the database, many in one statement: after a
 * restart all of a node's clients come back at once. Who asks for a session
 * that is being taken over already gets the same answer.
 */
import { Deferred, Effect, Exit } from "effect"
import type { StoreUnavailable } from "../../domain/errors.ts"
import type { AccountId, SessionId } from "../../domain/ids.ts"
import type { Postgres } from "../../store/Postgres.ts"
import { type AdoptedSession, adoptSessions } from "../../store/SessionStore.ts"

/** Rows of one statement. */
const batchMax = 500

interface Wanted {
  readonly id: SessionId
  readonly accountId: AccountId
  readonly found: Deferred.Deferred<AdoptedSession | undefined, StoreUnavailable>
}

export class SessionAdoption {
  readonly #nodeId: string
  readonly #read: <A, E>(effect: Effect.Effect<A, E, Postgres>) => Effect.Effect<A, E>
  readonly #wanted = new Map<string, Wanted>()
  #waiting: Array<Wanted> = []

  constructor(nodeId: string, read: <A, E>(effect: Effect.Effect<A, E, Postgres>) => Effect.Effect<A, E>) {
    this.#nodeId = nodeId
    this.#read = read
  }

  /** `undefined`: closed, unknown, or another account's. */
  adopt(accountId: AccountId, id: SessionId): Effect.Effect<AdoptedSession | undefined, StoreUnavailable> {
    return Effect.suspend(() => {
      const name = `${accountId} ${id}`
      const known = this.#wanted.get(name)
      if (known !== undefined) return Deferred.await(known.found)
      const wanted: Wanted = { id, accountId, found: Deferred.makeUnsafe() }
      this.#wanted.set(name, wanted)
      this.#waiting.push(wanted)
      if (this.#waiting.length === 1) setImmediate(() => Effect.runFork(this.#flush()))
      return Deferred.await(wanted.found)
    })
  }

  #flush(): Effect.Effect<void> {
    const batch = this.#waiting.splice(0, batchMax)
    if (this.#waiting.length > 0) setImmediate(() => Effect.runFork(this.#flush()))
    return this.#read(adoptSessions(this.#nodeId, batch)).pipe(
      Effect.onExit((exit) => Effect.forEach(batch, ({ id, accountId, found }) => {
        this.#wanted.delete(`${accountId} ${id}`)
        return Deferred.done(found, Exit.map(exit, (adopted) => adopted.get(id)))
      }, { discard: true })),
      Effect.ignore
    )
  }
}
