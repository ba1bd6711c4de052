/**
 * What a node does on its own: expired holds are released, idle accounts leave
 * memory, chat sessions are swept, the database is kept up, the books are proved, and what a crash leaves
 * unpaid is counted. No step may fail the node; what fails is logged and tried
 * again at the next turn.
 *
 * A crash forgets the holds of calls in flight, and with them the calls: they
 * are never charged and their callers saw their connection end. So that they
 * are counted all the same, each node writes down how many it has, and those
 * that live count what a dead one wrote last (`CallsInFlightStore`), within two
 * looks. After a single gateway's restart that is itself.
 */
import { Effect, Layer, Schedule } from "effect"
import { Config, limits } from "../config.ts"
import { type Beats, takeLostCalls, writeCallsInFlight } from "../store/CallsInFlightStore.ts"
import { imbalance } from "../store/LedgerStore.ts"
import { Postgres } from "../store/Postgres.ts"
import { keepUp } from "../store/Upkeep.ts"
import { log } from "../telemetry/log.ts"
import { gauge, metrics } from "../telemetry/Metrics.ts"
import { Accounts } from "./AccountActor.ts"
import { Chat } from "./chat/Chat.ts"
import { Holds } from "./Holds.ts"
import { Spending } from "./lease/Spending.ts"
import { Node } from "./Node.ts"

const holdSweepMs = 1_000
const upkeepMs = 600_000
const booksMs = 15_000
const callsInFlightMs = 1_000
/** A node that did not write for this long has died, or might as well have. */
const lostCallsMs = 5_000

const every = <E, R>(intervalMs: number, what: string, task: Effect.Effect<unknown, E, R>) =>
  task.pipe(
    Effect.catchCause((cause) => Effect.sync(() => log.warn({ cause: String(cause) }, `${what} failed, will be tried again`))),
    Effect.repeat(Schedule.spaced(intervalMs)),
    Effect.forkScoped
  )

export const layerMaintenance = Layer.effectDiscard(Effect.gen(function*() {
  const accounts = yield* Accounts
  const holds = yield* Holds
  const spending = yield* Spending
  const settings = yield* Config
  const { run } = yield* Postgres
  // Not a number until the first proof: 0 would be a claim.
  let lastImbalance = NaN
  gauge("tollgate_ledger_imbalance_microusd", "What the books don't add up by; any number but 0 is an emergency", () => lastImbalance)

  yield* every(holdSweepMs, "release of expired holds", Effect.sync(() => {
    for (const { accountId, subjectId, holdId } of holds.expired(Date.now())) spending.release({ accountId, subjectId }, holdId)
  }))
  yield* every(limits.passivateSweepMs, "passivation", Effect.sync(() => accounts.passivateIdle(Date.now())))
  yield* every(upkeepMs, "database upkeep", run((sql) => keepUp(sql, Date.now(), settings)).pipe(Effect.repeat({ while: (more) => more })))
  yield* every(booksMs, "proof of the books", imbalance.pipe(Effect.map((found) => {
    lastImbalance = Number(found)
    if (found !== 0n) log.fatal({ microusd: String(found) }, "the books don't balance")
  })))
  yield* countLostCalls
  const chat = yield* Chat
  yield* every(limits.chatSweepMs, "sweep of chat sessions", Effect.sync(chat.sweep))
  yield* every(limits.chatBeatMs, "care of chat sessions that nodes left", chat.beat)
}))

const countLostCalls = Effect.gen(function*() {
  const holds = yield* Holds
  const chat = yield* Chat
  const { run } = yield* Postgres
  const { id: nodeId } = yield* Node
  /** Whether the database may have a row of this node. */
  let noted = false
  let seen: Beats = new Map()

  const write = (calls: number) => Effect.suspend(() => {
    if (calls === 0 && !noted) return Effect.void
    noted = true
    return run((sql) => writeCallsInFlight(sql, nodeId, calls)).pipe(Effect.map(() => { noted = calls > 0 }))
  })
  const take = Effect.suspend(() => {
    const before = seen
    // After a look that fails the next one is a first look: what an outage stopped has not died.
    seen = new Map()
    return run((sql) => takeLostCalls(sql, nodeId, before)).pipe(Effect.map((taken) => {
      seen = taken.seen
      if (taken.lost === 0) return
      metrics.callsLostToCrash.inc(taken.lost)
      log.warn({ calls: taken.lost }, "a gateway died with paid calls in flight: none of them is charged")
    }))
  })

  // A stop is no crash. It comes after the last write, which it waits for.
  yield* Effect.addFinalizer(() => Effect.ignore(write(0)))
  yield* every(callsInFlightMs, "count of calls in flight", Effect.uninterruptible(Effect.suspend(() => write(holds.callCount() + chat.paidTurnsRunning()))))
  yield* every(lostCallsMs, "count of lost calls", take)
})
