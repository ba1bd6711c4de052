/**
 * Usage rows of free calls: telemetry, not money. Kept in memory for at most
 * `usageFlushMs`, then inserted with their roll-ups in one statement. While
 * Postgres is away up to `usageBufferRows` are kept; more are counted as
 * dropped. A flush of unknown outcome is not repeated, so that no call is ever
 * counted twice; after one that failed nothing is sent before the database
 * answers again, so that an outage costs one flush at most.
 */
import { Context, Effect, Layer } from "effect"
import { limits } from "../config.ts"
import { log } from "../telemetry/log.ts"
import { gauge, metrics } from "../telemetry/Metrics.ts"
import type { UsageRow } from "./Commit.ts"
import { usageParameter } from "./batchParameters.ts"
import { usageSql } from "./batchSql.ts"
import { Postgres, verdictOf } from "./Postgres.ts"

const insertUsage = `with calls as materialized (select * from unnest($1::text::batch_usage[])), ${usageSql("calls").trim()} select 1`

export class UsageBuffer extends Context.Service<UsageBuffer, {
  readonly add: (row: UsageRow) => void
  /** Writes what is buffered now; used by a stop. */
  readonly flush: Effect.Effect<void>
}>()("tollgate/store/UsageBuffer") {
  static readonly layer = Layer.effect(UsageBuffer, Effect.gen(function*() {
    const { reads, heedReads } = yield* Postgres
    let rows: Array<UsageRow> = []
    /** Rows on their way, which come back when they are refused. */
    let sending = 0
    let flushing: Promise<void> | undefined
    let isAway = false
    gauge("tollgate_usage_buffered_rows", "Usage rows of free calls that wait to be written", () => rows.length + sending)

    const isBack = (): Promise<boolean> => reads`select 1`.then(() => true, () => false)
    const flushOnce = async (): Promise<void> => {
      if (isAway) isAway = !await isBack()
      while (!isAway && rows.length > 0) {
        const part = rows.splice(0, limits.usageFlushRowsMax)
        sending = part.length
        try {
          await reads.unsafe(insertUsage, [usageParameter(part)], { prepare: true })
        } catch (error) {
          isAway = true
          heedReads(error)
          if (verdictOf(error) === "refused") rows = part.concat(rows)
          else metrics.usageDropped.inc(part.length)
          log.warn({ err: error, rows: part.length }, "usage rows not written")
        }
        sending = 0
      }
    }
    const flush = (): Promise<void> => flushing ??= flushOnce().finally(() => { flushing = undefined })
    yield* Effect.acquireRelease(
      Effect.sync(() => setInterval(() => { if (rows.length > 0) void flush() }, limits.usageFlushMs)),
      (timer) => Effect.sync(() => clearInterval(timer))
    )
    return UsageBuffer.of({
      add: (row) => {
        if (rows.length + sending < limits.usageBufferRows) rows.push(row)
        else metrics.usageDropped.inc()
      },
      flush: Effect.promise(() => flush().then(flush))
    })
  }))
}
