/**
 * News of rows that were written past their actor: by an operator's command or
 * a transaction outside any activation; and of an account's webhooks. Sent by
 * NOTIFY in the writing transaction, so that it arrives after the commit; heard
 * on a connection of its own. Whenever that connection begins to listen, news
 * may have been missed: the listener is told that anything may have changed.
 */
import { Effect, Layer } from "effect"
import { log } from "../telemetry/log.ts"
import { Postgres, type Sql } from "./Postgres.ts"

const channel = "tollgate_changed"

type Changed = "account" | "agent" | "webhooks"
/** `webhooks`: those of the account with this id. `token`: the account's own after the change, so that an activation of later is no news' business. */
export type Change = { readonly what: Changed; readonly id: string; readonly token: bigint | undefined } | { readonly what: "anything" }

/** To be run in the transaction that changes the row. */
export const notifyChange = (sql: Sql, what: Changed, id: string, token?: bigint) =>
  sql`select pg_notify(${channel}, ${token === undefined ? `${what}:${id}` : `${what}:${id}:${token}`})`

const read = (payload: string): Change | undefined => {
  const [what, id, token] = payload.split(":")
  return (what === "account" || what === "agent" || what === "webhooks") && id ? { what, id, token: token ? BigInt(token) : undefined } : undefined
}

/** Listens while the layer lives. Reconnects by itself. */
export const listenForChanges = (heard: (change: Change) => void) => Layer.effectDiscard(Effect.gen(function*() {
  const { news } = yield* Postgres
  yield* Effect.acquireRelease(
    Effect.promise(() => news.listen(channel, (payload) => {
      const change = read(payload)
      if (change !== undefined) heard(change)
    }, () => heard({ what: "anything" }))),
    // The pool may be gone already: then so is the listener.
    (listener) => Effect.promise(() => listener.unlisten().catch((error: unknown) => log.debug({ err: error }, "unlisten")))
  )
}))
