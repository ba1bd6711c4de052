import { describe, expect, it } from "vitest"
import type { AccountId } from "../../../src/domain/ids.ts"
import { Subscriptions } from "../../../src/kernel/webhooks/Subscriptions.ts"
import type { SubscribedWebhook } from "../../../src/store/market/WebhookStore.ts"

const [one, two] = ["account 1" as AccountId, "account 2" as AccountId]
const webhook = (accountId: AccountId, id: string, ...events: SubscribedWebhook["events"]): SubscribedWebhook => ({ accountId, id, url: `https://${id}.test/`, events })

describe("subscriptions", () => {
  it("are each account's own, by event", () => {
    const subscriptions = new Subscriptions()
    subscriptions.replace(undefined, [webhook(one, "a", "service.called", "payment.completed"), webhook(two, "b", "service.called"), webhook(one, "c", "service.called")])
    expect([subscriptions.of(one, "service.called"), subscriptions.of(one, "payment.completed"), subscriptions.of(two, "service.called")]).toEqual([["a", "c"], ["a"], ["b"]])
    expect(subscriptions.of(two, "payment.completed")).toBe(subscriptions.of("account 3" as AccountId, "service.called"))
    expect([subscriptions.urlOf("b"), subscriptions.urlOf("d")]).toEqual(["https://b.test/", undefined])
  })

  it("of an account are replaced as a whole, and those of all others stay", () => {
    const subscriptions = new Subscriptions()
    subscriptions.replace(undefined, [webhook(one, "a", "service.called"), webhook(two, "b", "service.called")])
    subscriptions.replace(one, [webhook(one, "c", "settlement.completed")])
    expect([subscriptions.of(one, "service.called"), subscriptions.of(one, "settlement.completed"), subscriptions.of(two, "service.called")]).toEqual([[], ["c"], ["b"]])
    expect([subscriptions.urlOf("a"), subscriptions.urlOf("b")]).toEqual([undefined, "https://b.test/"])
    subscriptions.replace(undefined, [])
    expect([subscriptions.of(two, "service.called"), subscriptions.urlOf("c")]).toEqual([[], undefined])
  })

  it("that move to another account are that one's, whichever of the two is read first", () => {
    for (const order of [[one, two], [two, one]]) {
      const subscriptions = new Subscriptions()
      subscriptions.replace(undefined, [webhook(one, "a", "service.called")])
      for (const account of order) subscriptions.replace(account, account === two ? [webhook(two, "a", "service.called")] : [])
      expect([subscriptions.of(one, "service.called"), subscriptions.of(two, "service.called"), subscriptions.urlOf("a")]).toEqual([[], ["a"], "https://a.test/"])
    }
  })
})
