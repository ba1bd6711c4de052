/** Webhooks on the wire: subscriptions, the log of deliveries, and the message that a receiver gets. */
import { Schema } from "effect"
import { usdNumber } from "../../../domain/credits.ts"
import { type WebhookEvent, type WebhookFacts, webhookEvents } from "../../../domain/webhook.ts"
import { Id, object, text } from "../../../http/rows/fields.ts"
import type { WebhookDress } from "../../../kernel/webhooks/Sender.ts"
import { Limit, OwnerId, PathId, plainUsd, Time } from "./fields.ts"

const Event = Schema.Literals(webhookEvents)

export const WithWebhook = Schema.Struct({ webhook_id: PathId })
export const DeliveryQuery = Schema.Struct({ limit: Limit(50) })
export const NewWebhook = Schema.Struct({
  url: text(2_048, 1).annotate({ description: "Must be https, at a public address", examples: ["https://my-agent.example.com/webhook"] }),
  events: Schema.Array(text(64)).check(Schema.isMaxLength(100)).annotate({ description: `Of ${webhookEvents.map((event) => `\`${event}\``).join(", ")}`, examples: [["service.called"]] }),
  secret: text(256, 1).annotate({ description: "The key of the signature. Sealed before it is stored, never shown again" })
}).annotate(object("AcfNewWebhook"))

export const Webhook = Schema.Struct({
  id: Id, owner_id: OwnerId, url: Schema.String, events: Schema.Array(Event), active: Schema.Boolean, created_at: Time
}).annotate({ identifier: "AcfWebhook" })
export const Webhooks = Schema.Struct({ webhooks: Schema.Array(Webhook), count: Schema.Int }).annotate({ identifier: "AcfWebhooks" })
export const DeletedWebhook = Schema.Struct({ status: Schema.Literal("deleted"), webhook_id: Id }).annotate({ identifier: "AcfDeletedWebhook" })

const Delivery = Schema.Struct({
  id: Id.annotate({ description: "The same in each attempt: `id` of the body, `X-ACF-Delivery`" }),
  event: Event, created_at: Time, attempts: Schema.Int, status: Schema.Literals(["pending", "delivered", "failed"]),
  next_attempt_at: Schema.NullOr(Time), last_status: Schema.NullOr(Schema.Int), last_error: Schema.NullOr(Schema.String), delivered_at: Schema.NullOr(Time)
}).annotate({ identifier: "AcfDelivery" })
export const Deliveries = Schema.Struct({ deliveries: Schema.Array(Delivery), count: Schema.Int }).annotate({ identifier: "AcfDeliveries" })

type Named = (accountId: string) => string

const called = ({ usage_id, service_id, buyer, provider, amount, payment_method, status_code, latency_ms }: WebhookFacts["service.called"], named: Named) =>
  ({ usage_id, service_id, buyer_id: named(buyer), provider_id: named(provider), amount_usd: usdNumber(BigInt(amount)), payment_method, status_code, latency_ms })

const payloads: { readonly [E in WebhookEvent]: (facts: WebhookFacts[E], named: Named) => object } = {
  "service.called": called,
  "payment.completed": (facts, named) => ({ ...called(facts, named), transaction_id: facts.transaction_id }),
  "reputation.updated": ({ account, score, previous }, named) => ({ agent_id: named(account), overall_score: score, previous_score: previous }),
  "settlement.completed": ({ settlement_id, provider, total, fee, net, payment_tx }, named) => ({
    settlement_id, provider_id: named(provider), total_amount: plainUsd(BigInt(total)), platform_fee: plainUsd(BigInt(fee)), net_amount: plainUsd(BigInt(net)), payment_tx
  })
}

const timeText = Schema.encodeSync(Time)

export const webhookDress: WebhookDress = {
  body: ({ id, webhookId, event, facts, names, createdAt }) => {
    const payload = payloads[event](facts as never, (accountId) => names[accountId] ?? accountId)
    return JSON.stringify({ event, payload, timestamp: timeText(createdAt), webhook_id: webhookId, id, data: payload })
  },
  headers: ({ id, event, createdAt }, signature) => ({
    "Content-Type": "application/json", "User-Agent": "Tollgate", "X-ACF-Signature": signature, "X-ACF-Event": event,
    "X-ACF-Timestamp": timeText(createdAt), "X-ACF-Delivery": id
  })
}
