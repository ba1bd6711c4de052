/**
 * News of rows that were written past their actor: by an operator's command or
 * a transaction outside any activation. Sent by NOTIFY in the writing
 * transaction, so that it arrives after the commit; heard on a connection of
 * its own. When that connection was lost news may have been missed: the
 * listener is told that anything may have changed.
 */
import { Effect, Layer } from "effect"
import { log } from "../telemetry/log.ts"
import { Postgres, type Sql } from "./Postgres.ts"

const channel = "tollgate_changed"

export type Change = { readonly what: "account" | "agent"; readonly id: string } | { readonly what: "anything" }

/** To be run in the transaction that changes the row. */
export const notifyChange = (sql: Sql, what: "account" | "agent", id: string) => sql`select pg_notify(${channel}, ${`${what}:${id}`})`

const read = (payload: string): Change | undefined => {
  const [what, id] = payload.split(":")
  return (what === "account" || what === "agent") && id ? { what, id } : undefined
}

/** Listens while the layer lives. Reconnects by itself. */
export const listenForChanges = (heard: (change: Change) => void) => Layer.effectDiscard(Effect.gen(function*() {
  const { news } = yield* Postgres
  let first = true
  yield* Effect.acquireRelease(
    Effect.promise(() => news.listen(channel, (payload) => {
      const change = read(payload)
      if (change !== undefined) heard(change)
    }, () => {
      if (!first) heard({ what: "anything" })
      first = false
    })),
    // The pool may be gone already: then so is the listener.
    (listener) => Effect.promise(() => listener.unlisten().catch((error: unknown) => log.debug({ err: error }, "unlisten")))
  )
}))
