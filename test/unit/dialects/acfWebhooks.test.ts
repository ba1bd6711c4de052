import { describe, expect, it } from "vitest"
import { webhookDress } from "../../../src/dialects/acf/wire/webhooks.ts"
import type { WebhookEvent, WebhookFacts } from "../../../src/domain/webhook.ts"
import type { AccountId } from "../../../src/domain/ids.ts"

const call = { usage_id: "u", service_id: "s", buyer: "b-id", provider: "p-id", amount: "1250001", payment_method: "x402", status_code: 404, latency_ms: 150 }

const bodyOf = <E extends WebhookEvent>(event: E, facts: WebhookFacts[E]) => JSON.parse(webhookDress.body({
  id: "d", webhookId: "w", accountId: "p-id" as AccountId, url: "https://example.com", sealedSecret: new Uint8Array(), event, facts,
  names: { "b-id": "my-agent", "p-id": "Zoë \"quoted\" \u2028" }, createdAt: new Date("2026-03-19T10:00:01Z"), attempts: 2
}))

describe("what a webhook of acf is told", () => {
  it.each([
    ["service.called", call, { usage_id: "u", service_id: "s", buyer_id: "my-agent", provider_id: "Zoë \"quoted\" \u2028", amount_usd: 1.250001, payment_method: "x402", status_code: 404, latency_ms: 150 }],
    ["reputation.updated", { account: "nobody", score: 8.72, previous: 0 }, { agent_id: "nobody", overall_score: 8.72, previous_score: 0 }],
    ["settlement.completed", { settlement_id: "t", provider: "b-id", total: "10500000", fee: "1050000", net: "9450000", payment_tx: "0xabc" },
      { settlement_id: "t", provider_id: "my-agent", total_amount: "10.50", platform_fee: "1.05", net_amount: "9.45", payment_tx: "0xabc" }]
  ] as const)("of %s goes by names, exact amounts, and the time of the event", (event, facts, payload) => {
    expect(bodyOf(event, facts as never)).toEqual({ event, payload, timestamp: "2026-03-19T10:00:01+00:00", webhook_id: "w", id: "d", data: payload })
  })

  it("of a payment is what the call was, and its transaction", () => {
    const { payload } = bodyOf("payment.completed", { ...call, transaction_id: "t" })
    expect(payload).toEqual({ ...bodyOf("service.called", call).payload, transaction_id: "t" })
  })
})
