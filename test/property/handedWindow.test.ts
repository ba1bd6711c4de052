/** A rate window that goes to another node goes on there as if it had never moved. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type RateWindow, callsBySecond, callsInWindow, goOnWith, grantCalls, makeRateWindow, takeCall } from "../../src/domain/rateLimit.ts"

const runs = process.env["TOLLGATE_FULL"] === "1" ? 10_000 : 500
const startMs = 1_700_000_000_000

const call = fc.record({ afterMs: fc.nat(5_000), granted: fc.nat(3) })
const calls = fc.array(call, { maxLength: 60 })

/** Answers when the last call was. */
const make = (window: RateWindow, wanted: ReadonlyArray<{ readonly afterMs: number; readonly granted: number }>, fromMs = startMs): number => {
  let nowMs = fromMs
  for (const { afterMs, granted } of wanted) {
    nowMs += afterMs
    if (granted === 0) takeCall(window, 1_000, nowMs)
    else grantCalls(window, 1_000, granted, nowMs)
  }
  return nowMs
}
const later = (window: RateWindow, nowMs: number): ReadonlyArray<number> =>
  Array.from({ length: 64 }, (_, second) => callsInWindow(window, nowMs + second * 1_000))

describe("a handed window", () => {
  it("counts at every later second what it would have counted where it was, however often it is handed over", () => {
    fc.assert(fc.property(calls, fc.nat(3_000), fc.integer({ min: 1, max: 3 }), (wanted, restMs, times) => {
      const [there, here] = [makeRateWindow(), makeRateWindow()]
      const nowMs = make(there, wanted) + restMs
      for (let time = 0; time < times; time++) goOnWith(here, callsBySecond(there, nowMs), nowMs)
      expect(later(here, nowMs)).toEqual(later(there, nowMs))
    }), { numRuns: runs })
  })

  it("that comes back to a node that still has its calls of before counts none of them twice", () => {
    fc.assert(fc.property(calls, calls, (before, after) => {
      const [one, two] = [makeRateWindow(), makeRateWindow()]
      const movedMs = make(one, before)
      goOnWith(two, callsBySecond(one, movedMs), movedMs)
      const backMs = make(two, after, movedMs)
      goOnWith(one, callsBySecond(two, backMs), backMs)
      expect(later(one, backMs)).toEqual(later(two, backMs))
    }), { numRuns: runs })
  })

  it("of a node whose clock is ahead counts no shorter than by this node's clock", () => {
    const [there, here] = [makeRateWindow(), makeRateWindow()]
    for (let n = 0; n < 5; n++) takeCall(there, 5, startMs + 2_500)
    goOnWith(here, callsBySecond(there, startMs + 2_500), startMs)
    expect([takeCall(here, 5, startMs), takeCall(here, 5, startMs + 60_000), takeCall(here, 5, startMs + 62_000)]).toEqual([false, false, true])
  })
})
