/**
 * Looking whether sessions in memory are still this node's own, after news from
 * other nodes or when some were missed: a session that is closed, or another
 * node's by now, is let go; one whose key was revoked loses its socket.
 *
 * Many are looked at in one statement, one statement at a time. While the
 * database does not answer they wait; none is let go unseen. Bounded: a session
 * waits once.
 */
import { Effect, Latch } from "effect"
import type { Postgres } from "../../store/Postgres.ts"
import { standingSessions } from "../../store/SessionStore.ts"
import { log } from "../../telemetry/log.ts"
import type { ChatSession } from "./ChatSession.ts"

/** Rows of one statement. */
const batchMax = 500
/** Between two attempts while the database does not answer. */
const retryMs = 500

export class SessionCheck {
  readonly #read: <A, E>(effect: Effect.Effect<A, E, Postgres>) => Effect.Effect<A, E>
  readonly #due = new Set<ChatSession>()
  readonly #isDue = Latch.makeUnsafe()

  constructor(read: <A, E>(effect: Effect.Effect<A, E, Postgres>) => Effect.Effect<A, E>) {
    this.#read = read
  }

  look(session: ChatSession): void {
    this.#due.add(session)
    this.#isDue.openUnsafe()
  }

  /** Looks whenever there is something to look at. */
  get run(): Effect.Effect<never> {
    return this.#isDue.await.pipe(Effect.andThen(Effect.suspend(() => this.#lookAtSome())), Effect.forever)
  }

  #lookAtSome(): Effect.Effect<void> {
    const asked: Array<{ readonly session: ChatSession; readonly id: ChatSession["id"]; readonly subjectId: ChatSession["subjectId"] }> = []
    for (const session of this.#due) {
      if (asked.length === batchMax) break
      // Before the row is read: news that come meanwhile are looked at again.
      this.#due.delete(session)
      if (session.isOpen) asked.push({ session, id: session.id, subjectId: session.subjectId })
    }
    if (this.#due.size === 0) this.#isDue.closeUnsafe()
    if (asked.length === 0) return Effect.void
    return this.#read(standingSessions(asked)).pipe(
      Effect.map((rows) => {
        for (const { session, id, subjectId } of asked) {
          const row = rows.get(id)
          session.stands(row)
          if (row?.isRevoked === true) session.revoked(subjectId)
        }
      }),
      Effect.catchCause((cause) => {
        log.warn({ cause: String(cause) }, "a look at chat sessions failed, will be tried again")
        for (const { session } of asked) this.look(session)
        return Effect.sleep(retryMs)
      })
    )
  }
}
