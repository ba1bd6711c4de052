import { describe, expect, it } from "vitest"
import { eventsOf, isTaken, retryMs, webhookEvents } from "../../../src/domain/webhook.ts"

describe("the events of a webhook", () => {
  it("are each named once, sorted", () => {
    expect(eventsOf(["service.called", "payment.completed", "service.called"])).toEqual(["payment.completed", "service.called"])
    expect(eventsOf([...webhookEvents].reverse())).toEqual(["payment.completed", "reputation.updated", "service.called", "settlement.completed"])
    expect(eventsOf([])).toEqual([])
  })

  it("are known ones", () => {
    expect(eventsOf(["service.called", "service.Called"])).toEqual({ unknown: "service.Called" })
    expect(eventsOf(["toString"])).toEqual({ unknown: "toString" })
  })
})

describe("a delivery", () => {
  it("is tried again after 1, 2 and 4 seconds, and then given up", () => {
    expect([1, 2, 3, 4, 5].map(retryMs)).toEqual([1_000, 2_000, 4_000, undefined, undefined])
  })

  it("is taken by an answer below 300", () => {
    expect([199, 200, 204, 299, 300, 302, 404, 500].filter(isTaken)).toEqual([200, 204, 299])
  })
})
