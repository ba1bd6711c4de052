import { describe, expect, it } from "vitest"
import { backoffMs } from "../../../src/kernel/Outbox.ts"

describe("the wait before a letter is tried again", () => {
  it("is a minute first, doubles, and is never more than an hour, a fifth more or less", () => {
    const minutes = Array.from({ length: 9 }, (_, at) => backoffMs(at + 1, 0.5) / 60_000)
    expect(minutes).toEqual([1, 2, 4, 8, 16, 32, 60, 60, 60])
    expect(backoffMs(2_000, 1)).toBeCloseTo(72 * 60_000)
    expect(backoffMs(1, 0)).toBeCloseTo(48_000)
    expect(backoffMs(1, 1)).toBeCloseTo(72_000)
  })
})
