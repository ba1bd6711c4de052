/**
 * A rate window whose calls are partly made by other nodes, against the list of
 * the moments at which calls were really made: granted ones at any time until
 * `sliceMsMax` after their grant, or never, and then given back sooner or later.
 */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { callsInWindow, grantCalls, makeRateWindow, returnCalls, sliceMsMax, takeCall, untilEmptyMs, untilNextCallMs } from "../../src/domain/rateLimit.ts"
import { callsGranted, creditsGranted } from "../../src/domain/lease.ts"

const runs = { numRuns: process.env["TOLLGATE_FULL"] === "1" ? 5_000 : 500 }

const gapMs = fc.oneof(fc.constant(0), fc.nat(30), fc.nat(1_500), fc.integer({ min: 57_000, max: 62_500 }))
const step = fc.oneof(
  fc.record({ do: fc.constant("take" as const), gap: gapMs }),
  fc.record({ do: fc.constant("grant" as const), gap: gapMs, wanted: fc.integer({ min: 1, max: 12 }), afterMs: fc.array(fc.nat(sliceMsMax), { maxLength: 12 }), backAfterMs: fc.nat(90_000) })
)
const plan = fc.record({ steps: fc.array(step, { minLength: 1, maxLength: 80 }), limit: fc.integer({ min: 1, max: 30 }), beginMs: fc.nat(2 ** 41) })

interface Back { readonly atMs: number; readonly calls: number; readonly second: number }

/** Runs a plan; answers the window, when calls were made, and the time it ended at. */
const run = ({ steps, limit, beginMs }: typeof plan extends fc.Arbitrary<infer A> ? A : never, givesBack: boolean) => {
  const window = makeRateWindow()
  const made: Array<number> = []
  const backs: Array<Back> = []
  let nowMs = beginMs
  const settle = (): void => {
    backs.sort((a, b) => a.atMs - b.atMs)
    while (givesBack && backs.length > 0 && backs[0]!.atMs <= nowMs) {
      const { calls, second, atMs } = backs.shift()!
      returnCalls(window, calls, second, Math.max(atMs, nowMs))
    }
  }
  for (const each of steps) {
    nowMs += each.gap
    settle()
    if (each.do === "take") {
      if (takeCall(window, limit, nowMs)) made.push(nowMs)
      continue
    }
    const { calls, second } = grantCalls(window, limit, each.wanted, nowMs)
    const uses = each.afterMs.slice(0, calls)
    for (const after of uses) made.push(nowMs + after)
    backs.push({ atMs: nowMs + Math.max(each.backAfterMs, ...uses), calls: calls - uses.length, second })
  }
  return { window, made, nowMs, backs }
}

describe("a window whose calls other nodes make", () => {
  it("never lets more than the limit be made in any 60 seconds, whoever makes them", () => {
    fc.assert(fc.property(plan, (wanted) => {
      const { made } = run(wanted, true)
      for (const fromMs of made) expect(made.filter((atMs) => atMs >= fromMs && atMs <= fromMs + 60_000).length).toBeLessThanOrEqual(wanted.limit)
    }), runs)
  })

  it("is empty at most 62 seconds after the last, and says when", () => {
    fc.assert(fc.property(plan, (wanted) => {
      const { window, nowMs } = run(wanted, false)
      const emptyMs = untilEmptyMs(window, nowMs)
      expect(emptyMs).toBeLessThanOrEqual(62_000)
      expect(callsInWindow({ ...window, counts: window.counts.slice() }, nowMs + emptyMs)).toBe(0)
      const nextMs = untilNextCallMs(window, wanted.limit, nowMs)
      expect(takeCall({ ...window, counts: window.counts.slice() }, wanted.limit, nowMs + nextMs)).toBe(true)
    }), runs)
  })

  it("counts a granted call to the last moment at which 60 seconds with it could be", () => {
    const window = makeRateWindow()
    grantCalls(window, 1, 1, 976)
    expect(takeCall(window, 1, 61_999)).toBe(false)
    expect(takeCall(window, 1, 62_000)).toBe(true)
  })

  it("counts nothing for calls that came back in time", () => {
    const window = makeRateWindow()
    const { calls, second } = grantCalls(window, 10, 7, 5_000)
    expect(callsInWindow(window, 5_500)).toBe(7)
    returnCalls(window, calls - 2, second, 5_900)
    expect(callsInWindow(window, 5_900)).toBe(2)
    expect(callsInWindow(window, 6_100)).toBe(2)
    returnCalls(window, 1, second, 9_000)
    expect(callsInWindow(window, 9_000)).toBe(1)
    // Never more than were counted there.
    returnCalls(window, 5, second, 9_000)
    expect(callsInWindow(window, 9_000)).toBe(0)
    expect(callsInWindow(window, 80_000)).toBe(0)
  })
})

describe("what is granted of what is wanted", () => {
  const amount = fc.bigInt(0n, 1_000n)

  it("is never more than there is, and all that is needed when there is so much", () => {
    fc.assert(fc.property(amount, amount, amount, amount, (most, credits, needed, min) => {
      const granted = creditsGranted(most, { credits, needed, min })
      expect(granted <= most).toBe(true)
      expect(granted >= needed || needed > most).toBe(true)
      // Without anybody waiting half of what there is stays.
      if (needed === 0n) expect(granted === 0n || granted >= min && granted <= most / 2n && granted <= credits).toBe(true)
    }), runs)
    fc.assert(fc.property(fc.nat(100), fc.nat(100), fc.nat(1), (left, wanted, needed) => {
      const granted = callsGranted(left, wanted, needed)
      expect(granted).toBeLessThanOrEqual(left)
      expect(granted).toBeGreaterThanOrEqual(Math.min(needed, left))
    }), runs)
  })
})
