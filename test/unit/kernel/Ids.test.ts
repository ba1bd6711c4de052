import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { newId, requestId } from "../../../src/kernel/Ids.ts"

const many = (count: number): Array<string> => Array.from({ length: count }, () => newId<string>())
const timeOf = (id: string): number => parseInt(id.replace("-", "").slice(0, 12), 16)

describe("an id", () => {
  // Each millisecond is later than the test before left off.
  let nowMs = Date.now() + 1_000_000
  beforeEach(() => { vi.useFakeTimers({ toFake: ["Date"], now: nowMs += 1_000_000 }) })
  afterEach(() => { vi.useRealTimers() })

  it("is a UUID of version 7 that tells its millisecond", () => {
    for (const id of many(2_000)) {
      expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
      expect(timeOf(id)).toBe(nowMs)
    }
  })

  it("is above every one before, within a millisecond, over one, and when the clock steps back", () => {
    const ids = many(20_000)
    vi.setSystemTime(nowMs + 1)
    ids.push(...many(10))
    vi.setSystemTime(nowMs - 60_000)
    ids.push(...many(10))
    expect(ids).toEqual([...ids].sort())
    expect(new Set(ids).size).toBe(ids.length)
  })

  it("counts on from another place in each millisecond, and ends at random", () => {
    const counts = new Set<string>()
    const ends = new Set<string>()
    for (let ms = 1; ms <= 500; ms++) {
      vi.setSystemTime(nowMs + ms)
      const id = newId<string>()
      counts.add(id.slice(14, 23))
      ends.add(id.slice(25))
    }
    expect(counts.size).toBeGreaterThan(490)
    expect(ends.size).toBe(500)
  })
})

describe("a request id", () => {
  it("is url-safe and unlike any other", () => {
    const ids = Array.from({ length: 5_000 }, () => requestId())
    expect(new Set(ids).size).toBe(5_000)
    for (const id of ids) expect(id).toMatch(/^[\w-]{13,}$/)
  })
})
