import { describe, expect, it } from "vitest"
import { isPeriod, points, scoresOf } from "../../../src/domain/reputation.ts"

const scores = (calls: bigint, succeeded: bigint, errors: bigint, latencyMs: bigint) => {
  const { overall, latency, reliability, quality } = scoresOf({ calls, succeeded, errors, latencyMs })
  return [overall, latency, reliability, quality].map(points)
}

type Sums = readonly [calls: bigint, succeeded: bigint, errors: bigint, latencyMs: bigint]

describe("scores (overall, latency, reliability, quality)", () => {
  it.each([
    ["no calls", [0n, 0n, 0n, 0n], [0, 0, 0, 0]],
    ["one perfect call in no time", [1n, 1n, 0n, 0n], [10, 10, 10, 10]],
    ["calls of 850 ms on average, of which 85 % succeed and 16 % are errors", [100n, 85n, 16n, 85_000n], [8.67, 9.15, 8.5, 8.4]],
    ["calls of 10 s", [3n, 3n, 0n, 30_000n], [7, 0, 10, 10]],
    ["calls of a minute: latency is not below 0", [2n, 2n, 0n, 120_000n], [7, 0, 10, 10]],
    ["answers of 4xx: neither success nor error", [4n, 0n, 0n, 0n], [6, 10, 0, 10]],
    ["answers of 5xx only", [4n, 0n, 4n, 0n], [3, 10, 0, 0]]
  ] satisfies ReadonlyArray<readonly [string, Sums, ReadonlyArray<number>]>)("of %s", (_, sums: Sums, expected) => {
    expect(scores(...sums)).toEqual(expected)
  })

  it.each([
    ["up at the half", [1n, 1n, 0n, 5n], 10, 10],
    ["down below it", [1n, 1n, 0n, 6n], 10, 9.99],
    ["up at the half of a part", [1n, 1n, 0n, 15n], 10, 9.99],
    ["down just below the half of a part", [1_000n, 1_000n, 0n, 15_001n], 10, 9.98]
  ] satisfies ReadonlyArray<readonly [string, Sums, number, number]>)("are rounded %s", (_, sums: Sums, overall, latency) => {
    expect(scores(...sums).slice(0, 2)).toEqual([overall, latency])
  })

  it("add up unrounded: the overall one is rounded once", () => {
    // 9.994 × 0.3 + 9.994 × 0.4 + 9.999 × 0.3 = 9.9955; of rounded parts (9.99, 9.99, 10) it would be 9.993.
    expect(scores(10_000n, 9_994n, 1n, 60_000n)).toEqual([10, 9.99, 9.99, 10])
    // 9.995 × 0.3 + 3.333… × 0.4 + 6.666… × 0.3 = 6.33183…
    expect(scores(3n, 1n, 1n, 15n)).toEqual([6.33, 10, 3.33, 6.67])
  })

  it("are exact where a float has no more digits", () => {
    const calls = 2n ** 53n + 1n
    expect(scores(calls, calls, 0n, calls * 5n)).toEqual([10, 10, 10, 10])
    expect(scores(calls, calls, 0n, calls * 5n + 1n)).toEqual([10, 9.99, 10, 10])
  })
})

describe("a period", () => {
  it.each(["all-time", "2026-01", "2026-12", "0001-01", "9999-12"])("is %s", (text) => expect(isPeriod(text)).toBe(true))
  it.each(["", "2026", "2026-00", "2026-13", "2026-1", "0000-01", "2026-03-01", "02026-03", "2026-03 ", "2026-03\n", "all-Time", "'; --"])(
    "is not %j", (text) => expect(isPeriod(text)).toBe(false))
})
