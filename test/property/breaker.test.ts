import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { abandoned, admit, type Admitted, breakerLimits, failed, newBreaker, succeeded } from "../../src/domain/breaker.ts"

// A failing run prints its seed; `SEED=… npx vitest` runs it again.
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31)

/** The same rules without counters: remembers every end since the circuit last closed and looks at all of them each time. */
class NaiveBreaker {
  state: "closed" | "open" | "half_open" = "closed"
  ends: Array<{ readonly atMs: number; readonly good: boolean }> = []
  openUntilMs = 0
  openForMs = 0
  closedAtMs = -Infinity

  admit(nowMs: number): "pass" | "probe" | number {
    if (this.state === "closed") return "pass"
    if (this.state === "half_open") return breakerLimits.openMs
    if (nowMs < this.openUntilMs) return Math.ceil(this.openUntilMs - nowMs)
    this.state = "half_open"
    return "probe"
  }
  ended(admitted: Admitted, good: boolean, nowMs: number): void {
    if (admitted === "probe") {
      if (!good) return this.open(nowMs, true)
      this.state = "closed"
      this.closedAtMs = nowMs
      this.ends = []
      return
    }
    if (this.state !== "closed") return
    this.ends.push({ atMs: nowMs, good })
    const half = breakerLimits.windowMs / 2
    const recent = this.ends.filter((end) => Math.floor(end.atMs / half) >= Math.floor(nowMs / half) - 1)
    const bad = recent.filter((end) => !end.good).length
    const last = this.ends.slice(-breakerLimits.failuresInARow)
    const inARow = last.length === breakerLimits.failuresInARow && last.every((end) => !end.good)
    const share = recent.length >= breakerLimits.callsMin && bad / recent.length >= breakerLimits.failureShare
    if (!good && (inARow || share)) this.open(nowMs, nowMs - this.closedAtMs < breakerLimits.windowMs)
  }
  open(nowMs: number, relapsed: boolean): void {
    this.openForMs = relapsed ? Math.min(this.openForMs * 2 || breakerLimits.openMs, breakerLimits.openMsMax) : breakerLimits.openMs
    this.state = "open"
    this.openUntilMs = nowMs + this.openForMs
  }
}

const step = fc.record({
  afterMs: fc.oneof({ weight: 6, arbitrary: fc.integer({ min: 0, max: 400 }) }, fc.integer({ min: 0, max: 40_000 })),
  act: fc.oneof(
    { weight: 4, arbitrary: fc.constant("call" as const) },
    { weight: 4, arbitrary: fc.constant("fail" as const) },
    { weight: 2, arbitrary: fc.constant("succeed" as const) },
    { weight: 1, arbitrary: fc.constant("abandon" as const) }
  ),
  which: fc.nat()
})

describe("the breaker", () => {
  it("admits and refuses like a model that remembers everything", () => {
    let openings = 0
    fc.assert(fc.property(fc.array(step, { minLength: 50, maxLength: 500, size: "max" }), (steps) => {
      const breaker = newBreaker()
      const model = new NaiveBreaker()
      const calls: Array<Admitted> = []
      let nowMs = 0
      for (const { afterMs, act, which } of steps) {
        nowMs += afterMs
        if (act === "call" || calls.length === 0) {
          const admitted = admit(breaker, nowMs)
          expect(typeof admitted === "object" ? admitted.openForMs : admitted).toBe(model.admit(nowMs))
          if (typeof admitted === "string") calls.push(admitted)
          else openings++
          continue
        }
        const [admitted] = calls.splice(which % calls.length, 1)
        if (act === "abandon") {
          abandoned(breaker, admitted!)
          if (admitted === "probe") model.state = "open"
        } else {
          (act === "succeed" ? succeeded : failed)(breaker, admitted!, nowMs)
          model.ended(admitted!, act === "succeed", nowMs)
        }
        expect(calls.filter((call) => call === "probe").length).toBeLessThanOrEqual(1)
        expect(breaker.phase).toBe(model.state)
      }
    }), { seed, numRuns: 300 })
    expect(openings).toBeGreaterThan(100)
  })
})

describe("a breaker that failed again and again", () => {
  const trip = (breaker: ReturnType<typeof newBreaker>, nowMs: number): void => {
    for (let i = 0; i < breakerLimits.failuresInARow; i++) failed(breaker, "pass", nowMs)
  }
  const openTimes = (breaker: ReturnType<typeof newBreaker>, count: number): ReadonlyArray<number> =>
    Array.from({ length: count }, () => {
      const openForMs = Math.round(breaker.openUntilMs)
      expect(admit(breaker, openForMs)).toBe("probe")
      failed(breaker, "probe", openForMs)
      return breaker.openUntilMs - openForMs
    })

  it("stays open twice as long each time, up to the cap", () => {
    const breaker = newBreaker()
    trip(breaker, 0)
    expect(admit(breaker, 0)).toEqual({ openForMs: breakerLimits.openMs })
    expect(openTimes(breaker, 6)).toEqual([2_000, 4_000, 8_000, 16_000, 30_000, 30_000])
  })

  it("begins with the shortest time again after a healthy window, not after one good probe", () => {
    const breaker = newBreaker()
    trip(breaker, 0)
    expect(admit(breaker, 1_000)).toBe("probe")
    succeeded(breaker, "probe", 1_000)
    trip(breaker, 2_000)
    expect(breaker.openUntilMs - 2_000).toBe(2_000)
    expect(admit(breaker, 4_000)).toBe("probe")
    succeeded(breaker, "probe", 4_000)
    trip(breaker, 4_000 + breakerLimits.windowMs)
    expect(breaker.openUntilMs - 4_000 - breakerLimits.windowMs).toBe(breakerLimits.openMs)
  })

  it("opens for a share of failures that never come in a row", () => {
    const breaker = newBreaker()
    let calls = 0
    while (admit(breaker, calls) === "pass") (calls++ % 2 === 0 ? succeeded : failed)(breaker, "pass", calls)
    expect(calls).toBe(breakerLimits.callsMin)
  })
})
