/** The periods of budgets against the calendar as ISO text, and what is spent in them against a plain list. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type Budget, type BudgetWindow, enterPeriod, periodEndMs, periodStartMs, spend, spentAt, unspend } from "../../src/domain/budget.ts"

const runs = { numRuns: process.env["TOLLGATE_FULL"] === "1" ? 20_000 : 2_000 }

const at = (text: string): number => Date.parse(text)
/** Any time of two centuries, and often one beside a midnight on which a month may end. */
const time = fc.oneof(
  fc.integer({ min: 0, max: at("2200-01-01T00:00:00Z") }),
  fc.tuple(fc.integer({ min: 1970, max: 2199 }), fc.nat(11), fc.integer({ min: 0, max: 31 }), fc.integer({ min: -1, max: 1 }))
    .map(([year, month, day, ms]) => Math.max(0, Date.UTC(year, month, 1 + day) + ms))
)
const isoLength = { day: 10, month: 7 } as const
const period = fc.constantFrom("day" as const, "month" as const)

describe("a budget's period", () => {
  it("holds the time, and every time with the same date or month", () => {
    fc.assert(fc.property(period, time, (window, nowMs) => {
      const name = (ms: number): string => new Date(ms).toISOString().slice(0, isoLength[window])
      const startMs = periodStartMs(window, nowMs)
      const endMs = periodEndMs(window, nowMs)!
      expect(startMs <= nowMs && nowMs < endMs).toBe(true)
      expect([name(startMs), name(endMs - 1)]).toEqual([name(nowMs), name(nowMs)])
      expect(name(startMs - 1)).not.toBe(name(nowMs))
      expect(name(endMs)).not.toBe(name(nowMs))
    }), runs)
  })

  it("begins where the one before it ends", () => {
    fc.assert(fc.property(period, time, (window, nowMs) => {
      const endMs = periodEndMs(window, nowMs)!
      expect(periodStartMs(window, endMs)).toBe(endMs)
      expect(periodEndMs(window, periodStartMs(window, nowMs))).toBe(endMs)
    }), runs)
  })

  it("is the whole of time for a total", () => {
    fc.assert(fc.property(time, (nowMs) => {
      expect(periodStartMs("total", nowMs)).toBe(0)
      expect(periodEndMs("total", nowMs)).toBeUndefined()
    }), runs)
  })

  it.each([
    ["day", "2028-02-29T12:00:00Z", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"],
    ["day", "2028-02-28T23:59:59.999Z", "2028-02-28T00:00:00Z", "2028-02-29T00:00:00Z"],
    ["day", "2027-02-28T23:59:59.999Z", "2027-02-28T00:00:00Z", "2027-03-01T00:00:00Z"],
    ["day", "2026-12-31T23:59:59.999Z", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z"],
    ["month", "2028-02-29T23:59:59.999Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"],
    ["month", "2100-02-28T23:59:59.999Z", "2100-02-01T00:00:00Z", "2100-03-01T00:00:00Z"],
    ["month", "2026-01-31T00:00:00Z", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"],
    ["month", "2026-12-15T08:00:00Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"]
  ] as const)("of one %s around %s is from %s to %s", (window, now, start, end) => {
    expect(periodStartMs(window, at(now))).toBe(at(start))
    expect(periodEndMs(window, at(now))).toBe(at(end))
  })
})

describe("what a budget has spent", () => {
  const fresh = (window: BudgetWindow, atMs: number): Budget => ({ window, amount: 1_000n, periodStartMs: periodStartMs(window, atMs), spent: 0n })
  const gapMs = fc.oneof(fc.nat(5_000), fc.nat(86_400_000), fc.nat(40 * 86_400_000), fc.integer({ min: -86_400_000, max: -1 }))
  const act = fc.record({ gap: gapMs, amount: fc.bigInt(0n, 50n), kind: fc.constantFrom("spend", "unspend", "enter"), pick: fc.nat(5) })

  it("is the sum of what was spent in the latest period and not given back", () => {
    fc.assert(fc.property(fc.constantFrom("day" as const, "month" as const, "total" as const), time, fc.array(act, { maxLength: 60 }), (window, beginMs, acts) => {
      const budget = fresh(window, beginMs)
      const spends: Array<{ period: number; amount: bigint; back: boolean }> = []
      let nowMs = beginMs
      let latest = periodStartMs(window, beginMs)
      for (const { gap, amount, kind, pick } of acts) {
        nowMs = Math.max(0, nowMs + gap)
        if (kind === "unspend") {
          const spent = spends[spends.length - 1 - pick]
          if (spent !== undefined && !spent.back) {
            spent.back = true
            unspend(budget, spent.amount, spent.period)
          }
        } else {
          latest = Math.max(latest, periodStartMs(window, nowMs))
          if (kind === "enter") enterPeriod(budget, nowMs)
          else {
            spend(budget, amount, nowMs)
            spends.push({ period: latest, amount, back: false })
          }
        }
        const counts = Math.max(latest, periodStartMs(window, nowMs))
        const sum = spends.filter((spent) => spent.period === counts && !spent.back).reduce((total, spent) => total + spent.amount, 0n)
        expect(spentAt(budget, nowMs)).toBe(sum)
      }
    }), runs)
  })

  it("stays spent when the clock steps back over midnight", () => {
    const budget = fresh("day", at("2026-03-01T00:00:00Z"))
    spend(budget, 900n, at("2026-03-01T00:00:01Z"))
    expect(spentAt(budget, at("2026-02-28T23:59:59Z"))).toBe(900n)
    spend(budget, 100n, at("2026-02-28T23:59:59Z"))
    expect(spentAt(budget, at("2026-03-01T00:00:02Z"))).toBe(1_000n)
  })

  it("of a day that is over is not given back to the next", () => {
    const budget = fresh("day", at("2026-02-28T00:00:00Z"))
    spend(budget, 300n, at("2026-02-28T23:59:59Z"))
    spend(budget, 200n, at("2026-03-01T00:00:00Z"))
    unspend(budget, 300n, at("2026-02-28T00:00:00Z"))
    expect(spentAt(budget, at("2026-03-01T00:00:00Z"))).toBe(200n)
  })
})
