/** The bucket of one address, against a clock that goes, jumps and steps back. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { makeBucket, takeToken } from "../../../src/domain/tokenBucket.ts"

const bounds = { ratePerSecond: 1, burst: 3 }

describe("the token bucket", () => {
  it("begins full, and what it refuses says when the next token is there", () => {
    const bucket = makeBucket(bounds, 1_000)
    expect([0, 0, 0].map(() => takeToken(bucket, bounds, 1_000))).toEqual([0, 0, 0])
    expect(takeToken(bucket, bounds, 1_000)).toBe(1_000)
    expect(takeToken(bucket, bounds, 1_600)).toBe(400)
    expect(takeToken(bucket, bounds, 2_000)).toBe(0)
    expect(takeToken(bucket, bounds, 2_000)).toBe(1_000)
  })

  it("never holds more than its burst, however long nobody came", () => {
    const bucket = makeBucket(bounds, 0)
    expect([1, 2, 3, 4].map(() => takeToken(bucket, bounds, 86_400_000))).toEqual([0, 0, 0, 1_000])
  })

  it("gains and loses nothing when the clock steps back", () => {
    const bucket = makeBucket(bounds, 10_000)
    takeToken(bucket, bounds, 10_000)
    takeToken(bucket, bounds, 4_000)
    expect(takeToken(bucket, bounds, 4_000)).toBe(0)
    expect(takeToken(bucket, bounds, 4_000)).toBe(1_000)
    expect(takeToken(bucket, bounds, 10_500)).toBe(500)
  })

  it("admits in no span of time more than the burst and what was gained in it", () => {
    const steps = fc.array(fc.nat(3_000), { minLength: 1, maxLength: 120 })
    fc.assert(fc.property(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 8 }), steps, (ratePerSecond, burst, waits) => {
      const bucket = makeBucket({ ratePerSecond, burst }, 0)
      const admitted: Array<number> = []
      let nowMs = 0
      for (const wait of waits) {
        nowMs += wait % 7 === 0 ? 0 : wait
        const retryAfterMs = takeToken(bucket, { ratePerSecond, burst }, nowMs)
        if (retryAfterMs === 0) admitted.push(nowMs)
        else expect(takeToken({ ...bucket }, { ratePerSecond, burst }, nowMs + retryAfterMs)).toBe(0)
        for (const [index, since] of admitted.entries()) {
          expect(admitted.length - index).toBeLessThanOrEqual(burst + (nowMs - since) * ratePerSecond / 1_000 + 1e-6)
        }
      }
    }), { numRuns: process.env["TOLLGATE_FULL"] === "1" ? 5_000 : 300 })
  })
})
