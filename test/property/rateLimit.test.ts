/** The rate window against a naive list of the times at which calls were admitted. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { callsInWindow, makeRateWindow, type RateWindow, takeCall, untilEmptyMs, untilNextCallMs } from "../../src/domain/rateLimit.ts"

const runs = { numRuns: process.env["TOLLGATE_FULL"] === "1" ? 5_000 : 500 }

/** Bursts, trickles, waits around a minute, and long silences. */
const gapMs = fc.oneof(fc.constant(0), fc.nat(30), fc.nat(1_500), fc.integer({ min: 57_000, max: 62_500 }), fc.nat(200_000))
const begin = fc.oneof(fc.constant(0), fc.nat(70_000), fc.constant(1_800_000_000_000), fc.nat(2 ** 42))
const plan = { gaps: fc.array(gapMs, { minLength: 1, maxLength: 120 }), limit: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 40 })), beginMs: begin }

const copyOf = (window: RateWindow): RateWindow => ({ ...window, counts: window.counts.slice() })

/** Seconds, this one and the 60 before it, are what counts at `nowMs`. */
const counted = (admitted: ReadonlyArray<number>, nowMs: number): number =>
  admitted.filter((atMs) => Math.floor(atMs / 1000) >= Math.floor(nowMs / 1000) - 60).length

describe("the rate window", () => {
  it("admits exactly what a list of timestamps would", () => {
    fc.assert(fc.property(fc.record(plan), ({ gaps, limit, beginMs }) => {
      const window = makeRateWindow()
      const admitted: Array<number> = []
      let nowMs = beginMs
      for (const gap of gaps) {
        nowMs += gap
        const free = counted(admitted, nowMs) < limit
        expect(takeCall(window, limit, nowMs)).toBe(free)
        if (free) admitted.push(nowMs)
        expect(callsInWindow(window, nowMs)).toBe(counted(admitted, nowMs))
      }
    }), runs)
  })

  it("never admits more than the limit in any 60 seconds", () => {
    fc.assert(fc.property(fc.record(plan), ({ gaps, limit, beginMs }) => {
      const window = makeRateWindow()
      const admitted: Array<number> = []
      let nowMs = beginMs
      for (const gap of gaps) {
        nowMs += gap
        while (takeCall(window, limit, nowMs)) admitted.push(nowMs)
      }
      for (const fromMs of admitted) {
        expect(admitted.filter((atMs) => atMs >= fromMs && atMs <= fromMs + 60_000).length).toBeLessThanOrEqual(limit)
      }
    }), runs)
  })

  it("admits again after 61 seconds at the latest", () => {
    fc.assert(fc.property(fc.record(plan), ({ gaps, limit, beginMs }) => {
      const window = makeRateWindow()
      let nowMs = beginMs
      for (const gap of gaps) takeCall(window, limit, nowMs += gap)
      expect(untilNextCallMs(window, limit, nowMs)).toBeLessThanOrEqual(61_000)
      expect(takeCall(window, limit, nowMs + 61_000)).toBe(true)
    }), runs)
  })

  it("says to the millisecond when a call is possible again, also under a limit that was changed", () => {
    fc.assert(fc.property(fc.record({ ...plan, changed: fc.integer({ min: 1, max: 45 }) }), ({ gaps, limit, beginMs, changed }) => {
      const window = makeRateWindow()
      let nowMs = beginMs
      for (const gap of gaps) {
        takeCall(window, limit, nowMs += gap)
        for (const asked of [limit, changed]) {
          const waitMs = untilNextCallMs(window, asked, nowMs)
          expect(takeCall(copyOf(window), asked, nowMs + waitMs)).toBe(true)
          if (waitMs > 0) expect(takeCall(copyOf(window), asked, nowMs + waitMs - 1)).toBe(false)
        }
      }
    }), runs)
  })

  it("says to the millisecond when it will be empty", () => {
    fc.assert(fc.property(fc.record(plan), ({ gaps, limit, beginMs }) => {
      const window = makeRateWindow()
      let nowMs = beginMs
      for (const gap of gaps) {
        takeCall(window, limit, nowMs += gap)
        const waitMs = untilEmptyMs(window, nowMs)
        expect(callsInWindow(copyOf(window), nowMs + waitMs)).toBe(0)
        expect(callsInWindow(copyOf(window), nowMs + waitMs - 1)).toBeGreaterThan(0)
      }
    }), runs)
  })

  it("counts calls of a clock that stepped back into its last second, and is exact about the wait", () => {
    const step = fc.oneof(gapMs, fc.integer({ min: -90_000, max: -1 }))
    fc.assert(fc.property(fc.record({ ...plan, gaps: fc.array(step, { minLength: 1, maxLength: 120 }) }), ({ gaps, limit, beginMs }) => {
      const window = makeRateWindow()
      const admitted: Array<number> = []
      let nowMs = beginMs + 200_000
      let latestMs = 0
      for (const gap of gaps) {
        nowMs = Math.max(0, nowMs + gap)
        latestMs = Math.max(latestMs, nowMs)
        const free = counted(admitted, latestMs) < limit
        const waitMs = untilNextCallMs(window, limit, nowMs)
        expect(waitMs === 0).toBe(free)
        if (!free) {
          expect(takeCall(copyOf(window), limit, nowMs + waitMs)).toBe(true)
          expect(takeCall(copyOf(window), limit, nowMs + waitMs - 1)).toBe(false)
        }
        expect(takeCall(window, limit, nowMs)).toBe(free)
        if (free) admitted.push(latestMs)
      }
    }), runs)
  })

  it("does not count a refused call", () => {
    const window = makeRateWindow()
    expect(takeCall(window, 1, 5_000)).toBe(true)
    for (let ms = 5_001; ms < 66_000; ms += 50) expect(takeCall(window, 1, ms)).toBe(false)
    expect(takeCall(window, 1, 66_000)).toBe(true)
  })
})
