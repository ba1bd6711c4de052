/**
 * What a node does on its own: expired holds are released, idle accounts leave
 * memory, the database is kept up, the books are proved. No step may fail the
 * node; what fails is logged and tried again at the next turn.
 */
import { Effect, Layer, Schedule } from "effect"
import { limits } from "../config.ts"
import { imbalance } from "../store/LedgerStore.ts"
import { Postgres } from "../store/Postgres.ts"
import { keepUp } from "../store/Upkeep.ts"
import { log } from "../telemetry/log.ts"
import { gauge } from "../telemetry/Metrics.ts"
import { Accounts } from "./AccountActor.ts"
import { Holds } from "./Holds.ts"

const holdSweepMs = 1_000
const upkeepMs = 600_000
const booksMs = 15_000

const every = <E, R>(intervalMs: number, what: string, task: Effect.Effect<unknown, E, R>) =>
  task.pipe(
    Effect.catchCause((cause) => Effect.sync(() => log.warn({ cause: String(cause) }, `${what} failed, will be tried again`))),
    Effect.repeat(Schedule.spaced(intervalMs)),
    Effect.forkScoped
  )

export const layerMaintenance = Layer.effectDiscard(Effect.gen(function*() {
  const accounts = yield* Accounts
  const holds = yield* Holds
  const { run } = yield* Postgres
  // Not a number until the first proof: 0 would be a claim.
  let lastImbalance = NaN
  gauge("tollgate_ledger_imbalance_microusd", "What the books don't add up by; any number but 0 is an emergency", () => lastImbalance)

  yield* every(holdSweepMs, "release of expired holds", Effect.sync(() => {
    for (const { accountId, holdId } of holds.expired(Date.now())) accounts.release(accountId, holdId)
  }))
  yield* every(limits.passivateSweepMs, "passivation", Effect.sync(() => accounts.passivateIdle(Date.now())))
  yield* every(upkeepMs, "database upkeep", run((sql) => keepUp(sql, Date.now())))
  yield* every(booksMs, "proof of the books", imbalance.pipe(Effect.map((found) => {
    lastImbalance = Number(found)
    if (found !== 0n) log.fatal({ microusd: String(found) }, "the books don't balance")
  })))
}))
