import { describe, expect, it } from "vitest"
import { Lanes, type Turn } from "../../../src/kernel/webhooks/Lanes.ts"

const ids = (turns: ReadonlyArray<Turn>): ReadonlyArray<string> => turns.map(({ webhookId }) => webhookId)
const lanesOf = (underWayMax: number, perOriginMax: number, ...offers: ReadonlyArray<string>) => {
  const lanes = new Lanes({ underWayMax, perOriginMax })
  for (const offer of offers) lanes.offer(offer, offer.slice(0, 1))
  return lanes
}

describe("webhooks take turns", () => {
  it("origin by origin, and within an origin the one first that waits for longest", () => {
    expect(ids(lanesOf(8, 4, "a1", "a2", "a3", "b1", "c1", "b2").take())).toEqual(["a1", "b1", "c1", "a2", "b2", "a3"])
  })

  it("so many at once, and so many to one origin", () => {
    const lanes = lanesOf(3, 2, "a1", "a2", "a3", "b1", "b2")
    const [a1, b1, a2] = lanes.take()
    expect(ids([a1!, b1!, a2!])).toEqual(["a1", "b1", "a2"])
    expect(lanes.take()).toEqual([])
    lanes.done(b1!)
    expect(ids(lanes.take())).toEqual(["b2"])
    lanes.done(a1!)
    expect(ids(lanes.take())).toEqual(["a3"])
  })

  it("each one attempt at a time, also when it is offered again meanwhile", () => {
    const lanes = lanesOf(8, 4, "a1", "a1")
    const [a1] = lanes.take()
    lanes.offer("a1", "a")
    expect(lanes.take()).toEqual([])
    lanes.done(a1!)
    expect(ids(lanes.take())).toEqual(["a1"])
  })

  it("of which slow origins get half at the most, whatever waits for them", () => {
    const lanes = lanesOf(4, 2, "a1", "a2", "b1", "b2")
    for (const turn of lanes.take()) lanes.done(turn, true)
    for (const offer of ["a1", "a2", "b1", "b2", "c1", "c2", "c3"]) lanes.offer(offer, offer.slice(0, 1))
    const turns = lanes.take()
    expect(ids(turns).toSorted()).toEqual(["a1", "b1", "c1", "c2"])
    lanes.done(turns.find(({ origin }) => origin === "c")!, false)
    expect(ids(lanes.take())).toEqual(["c3"])
    lanes.done(turns.find(({ webhookId }) => webhookId === "c2")!, false)
    expect(lanes.take()).toEqual([])
  })

  it("and an origin that has answered well again is slow no more", () => {
    const lanes = lanesOf(2, 2, "a1")
    lanes.done(lanes.take()[0]!, true)
    lanes.offer("a1", "a")
    lanes.done(lanes.take()[0]!, false)
    for (const offer of ["a1", "a2"]) lanes.offer(offer, "a")
    expect(ids(lanes.take())).toEqual(["a1", "a2"])
  })
})
