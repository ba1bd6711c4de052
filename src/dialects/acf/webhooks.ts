/** Webhooks: subscribing to events, and what became of each. */
import { Effect } from "effect"
import { endpoint } from "../../http/endpoint.ts"
import { Webhooks } from "../../kernel/webhooks/Webhooks.ts"
import * as wire from "./wire/webhooks.ts"

const tag = "Webhooks"

type Listed = Effect.Success<ReturnType<Webhooks["Service"]["list"]>>[number]
type Logged = Effect.Success<ReturnType<Webhooks["Service"]["deliveries"]>>[number]

const webhookView = ({ owner, createdAt, ...same }: Listed) => ({ ...same, owner_id: owner, active: true, created_at: createdAt })

const deliveryView = ({ id, event, createdAt, attempts, status, nextAttemptAt, lastStatus, lastError, deliveredAt }: Logged) => ({
  id, event, created_at: createdAt, attempts, status, next_attempt_at: nextAttemptAt ?? null,
  last_status: lastStatus ?? null, last_error: lastError ?? null, delivered_at: deliveredAt ?? null
})

export const webhooks = [
  endpoint({
    id: "acf.webhooks.create", method: "POST", path: "/api/v1/webhooks", auth: "key", uncounted: true, status: 201,
    docs: {
      summary: "Subscribe to events",
      description: "Each event is posted to the URL until it answers below 300: at once, and again after 1, 2 and 4 seconds. `X-ACF-Signature` is the HMAC-SHA256 (hex) of the body's bytes by the secret. It may come more than once, with the same `X-ACF-Delivery`. At most 20 an owner.",
      tag
    },
    payload: wire.NewWebhook, success: wire.Webhook, errors: ["RuleBroken", "AddressForbidden", "NotConfigured"],
    handle: ({ payload }, { caller }) => Webhooks.use((webhooks) => webhooks.create(caller, payload)),
    view: webhookView
  }),
  endpoint({
    id: "acf.webhooks.list", method: "GET", path: "/api/v1/webhooks", auth: "key", uncounted: true,
    docs: { summary: "List your webhooks", description: "Newest first.", tag },
    success: wire.Webhooks,
    handle: (_, { caller }) => Webhooks.use((webhooks) => webhooks.list(caller)),
    view: (rows) => ({ webhooks: rows.map(webhookView), count: rows.length })
  }),
  endpoint({
    id: "acf.webhooks.delete", method: "DELETE", path: "/api/v1/webhooks/{webhook_id}", auth: "key", uncounted: true,
    docs: { summary: "Unsubscribe", description: "What was still to be delivered is dropped.", tag },
    params: wire.WithWebhook, success: wire.DeletedWebhook, errors: ["NotFound"],
    handle: ({ params }, { caller }) => Webhooks.use((webhooks) => webhooks.remove(caller, params.webhook_id)).pipe(Effect.as(params.webhook_id)),
    view: (id) => ({ status: "deleted", webhook_id: id })
  }),
  endpoint({
    id: "acf.webhooks.deliveries", method: "GET", path: "/api/v1/webhooks/{webhook_id}/deliveries", auth: "key", uncounted: true,
    docs: { summary: "What a webhook was told", description: "Newest first. Those that are over are listed for 7 days.", tag },
    params: wire.WithWebhook, query: wire.DeliveryQuery, success: wire.Deliveries, errors: ["NotFound"],
    handle: ({ params, query }, { caller }) => Webhooks.use((webhooks) => webhooks.deliveries(caller, params.webhook_id, query.limit)),
    view: (rows) => ({ deliveries: rows.map(deliveryView), count: rows.length })
  })
]
