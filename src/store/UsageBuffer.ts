/**
 * Usage rows of free calls: telemetry, not money. Kept in memory for at most
 * `usageFlushMs`, then inserted in one statement. While
 * Postgres is away up to `usageBufferRows` are kept; more are counted as
 * dropped. A flush of unknown outcome is not repeated, so that no call is ever
 * counted twice; after one that failed nothing is sent before the database
 * answers again, so that an outage costs one flush at most.
 *
 * Rows wait as the bytes that are sent, outside the garbage collector's heap: as
 * objects they lived long enough to be copied by it twice and to make it walk the
 * whole heap every three seconds, 50 ms at a time.
 */
import { Context, Effect, Layer } from "effect"
import { limits } from "../config.ts"
import { log } from "../telemetry/log.ts"
import { gauge, metrics } from "../telemetry/Metrics.ts"
import type { UsageRow } from "./Commit.ts"
import { usageRow } from "./batchParameters.ts"
import { meterSql, pendingMax, rollUpSql } from "./usageSql.ts"
import { Postgres, verdictOf } from "./Postgres.ts"

const insertUsage = `with calls as materialized (select * from unnest($1::text::batch_usage[])), ${meterSql("calls")} select 1`

/** Rows that go in one statement. */
class Page {
  rows = 0
  readonly #bytes = Buffer.allocUnsafeSlow(limits.usagePageBytes)
  #length = 0

  /** Whether there was room. */
  add(row: string): boolean {
    if (this.#length + row.length >= limits.usagePageBytes) return false
    this.#bytes[this.#length++] = this.rows++ === 0 ? brace : comma
    this.#length += this.#bytes.write(row, this.#length, "latin1")
    return true
  }

  /** A `batch_usage[]`. */
  get text(): string {
    return `${this.#bytes.toString("latin1", 0, this.#length)}}`
  }

  clear(): void {
    this.rows = 0
    this.#length = 0
  }
}
const brace = 123
const comma = 44

export class UsageBuffer extends Context.Service<UsageBuffer, {
  readonly add: (row: UsageRow) => void
  /** Writes what is buffered now, and adds what was called, by whatever commit, to the roll-ups: before a stop, and before figures are read. Gives up, without a word, on a database that does not answer in `readAnswerTimeoutMs`. */
  readonly flush: Effect.Effect<void>
}>()("tollgate/store/UsageBuffer") {
  static readonly layer = Layer.effect(UsageBuffer, Effect.gen(function*() {
    const { reads, heedReads } = yield* Postgres
    /** Oldest first; the last one is being filled. */
    let pages = [new Page()]
    /** One that was sent, to be filled again. */
    let spare: Page | undefined
    /** With those on their way, which come back when they are refused. */
    let rows = 0
    let flushing: Promise<void> | undefined
    let isAway = false
    gauge("tollgate_usage_buffered_rows", "Usage rows of free calls that wait to be written", () => rows)

    const add = (row: UsageRow): void => {
      if (rows >= limits.usageBufferRows) return metrics.usageDropped.inc()
      const text = usageRow(row)
      if (!pages.at(-1)!.add(text)) {
        pages.push(freshPage())
        pages.at(-1)!.add(text)
      }
      rows++
    }
    const freshPage = (): Page => {
      const page = spare ?? new Page()
      spare = undefined
      return page
    }
    /** Takes the oldest away, so that nothing is added to it. */
    const takePage = (): Page => {
      const page = pages.shift()!
      if (pages.length === 0) pages.push(freshPage())
      return page
    }
    const sent = (page: Page): void => {
      rows -= page.rows
      page.clear()
      spare = page
    }

    const isBack = (): Promise<boolean> => reads`select 1`.then(() => true, () => false)
    const flushOnce = async (): Promise<void> => {
      if (isAway) isAway = !await isBack()
      while (!isAway && rows > 0) {
        const page = takePage()
        try {
          await reads.unsafe(insertUsage, [page.text], { prepare: true })
          sent(page)
        } catch (error) {
          isAway = true
          heedReads(error)
          log.warn({ err: error, rows: page.rows }, "usage rows not written")
          if (verdictOf(error) === "refused") pages = [page, ...pages]
          else {
            metrics.usageDropped.inc(page.rows)
            sent(page)
          }
        }
      }
    }
    let rolling: Promise<void> | undefined
    let isStuck = false
    const rollUpOnce = async (): Promise<void> => {
      try {
        // Mostly nothing is pending, and looking costs a tenth of taking nothing. What another node is taking is still seen, and waited for.
        if ((await reads`select from usage_pending limit 1`).count === 0) return
        for (;;) {
          const [row] = await reads.unsafe<Array<{ taken: number }>>(rollUpSql, [], { prepare: true })
          if (row!.taken < pendingMax) break
        }
        isStuck = false
      } catch (error) {
        heedReads(error)
        log[isStuck ? "debug" : "warn"]({ err: error }, "calls were not added to the roll-ups, will be tried again")
        isStuck = true
      }
    }
    const rollUp = (): Promise<void> => rolling ??= rollUpOnce().finally(() => { rolling = undefined })
    const flush = (): Promise<void> => flushing ??= flushOnce().finally(() => { flushing = undefined })
    yield* Effect.acquireRelease(
      Effect.sync(() => [
        setInterval(() => { if (rows > 0) void flush() }, limits.usageFlushMs),
        setInterval(() => void rollUp(), limits.usageRollUpMs)
      ]),
      (timers) => Effect.sync(() => timers.forEach((timer) => clearInterval(timer)))
    )
    return UsageBuffer.of({
      add,
      flush: Effect.promise(() => flush().then(flush).then(rollUp).then(rollUp)).pipe(Effect.timeoutOption(limits.readAnswerTimeoutMs), Effect.asVoid)
    })
  }))
}
