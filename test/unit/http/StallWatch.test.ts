import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { type Stallable, StallWatch } from "../../../src/http/StallWatch.ts"

let watch: StallWatch
let stalled: Array<string>

const transfer = (name: string, then: () => void = () => undefined): Stallable => ({
  idleTicks: 0, watchedBefore: undefined, watchedAfter: undefined,
  stalled: () => {
    stalled.push(name)
    then()
  }
})

beforeEach(() => {
  vi.useFakeTimers()
  watch = new StallWatch(1_000)
  stalled = []
})
afterEach(() => {
  watch.close()
  vi.useRealTimers()
})

describe("a watched transfer", () => {
  it("is told once, after it stood still for the whole time", () => {
    watch.add(transfer("a"))
    vi.advanceTimersByTime(999)
    expect(stalled).toEqual([])
    vi.advanceTimersByTime(5_000)
    expect(stalled).toEqual(["a"])
  })

  it("that moves, or is taken out, is left alone", () => {
    const moving = transfer("moving")
    const [first, middle, last] = ["first", "middle", "last"].map((name) => transfer(name)) as [Stallable, Stallable, Stallable]
    for (const item of [first, moving, middle, last]) watch.add(item)
    for (const item of [middle, middle, last]) watch.delete(item)
    for (let i = 0; i < 10; i++) {
      vi.advanceTimersByTime(400)
      moving.idleTicks = 0
    }
    expect(stalled).toEqual(["first"])
  })

  it("added again starts anew and is still told once", () => {
    const again = transfer("again")
    watch.add(again)
    watch.add(transfer("other"))
    vi.advanceTimersByTime(800)
    watch.add(again)
    vi.advanceTimersByTime(200)
    expect(stalled).toEqual(["other"])
    vi.advanceTimersByTime(3_000)
    expect(stalled).toEqual(["other", "again"])
  })

  it("that is taken out by another's end is not told", () => {
    const victim = transfer("victim")
    watch.add(victim)
    watch.add(transfer("first", () => watch.delete(victim)))
    vi.advanceTimersByTime(2_000)
    expect(stalled).toEqual(["first"])
  })
})
