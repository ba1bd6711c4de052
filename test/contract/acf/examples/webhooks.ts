/** Examples of webhooks. */
import { randomUUID } from "node:crypto"
import { expect } from "vitest"
import { type Owner, owner } from "../../../support/acf.ts"
import type { World } from "../../../support/World.ts"
import type { Examples } from "../../Example.ts"

const body = (more: object = {}) => ({ url: "https://my-agent.example.com/webhook", events: ["service.called", "payment.completed", "service.called"], secret: "whsec_my_webhook_secret", ...more })
const shown = { id: "<id>", owner_id: "<owner>", url: "https://my-agent.example.com/webhook", events: ["payment.completed", "service.called"], active: true, created_at: "<time>" }
const noWebhook = { detail: "Webhook not found" }

const webhook = async (by: Owner): Promise<string> => (await by.call("POST", "/api/v1/webhooks", body())).json.id
const anothers = async (world: World): Promise<string> => webhook(await owner(world))

export const webhooks: Examples<Owner> = {
  "acf.webhooks.create": {
    success: { request: () => ({ body: body() }), answer: shown },
    refusals: {
      RuleBroken: { request: () => ({ body: body({ events: ["service.forgotten"] }) }), status: 400, answer: { detail: expect.stringMatching(/events/) } },
      AddressForbidden: {
        request: () => ({ body: body({ url: "https://10.0.0.1/hook" }) }),
        status: 400, answer: { detail: "url: the gateway does not call this address: it must be a public http or https address" }
      },
      NotConfigured: { world: "bare", request: () => ({ body: body() }), status: 503, answer: { detail: "The operator has not configured SECRETS_KEY, which this needs" } }
    }
  },
  "acf.webhooks.list": {
    success: {
      request: async (_, caller) => {
        await webhook(caller)
        return {}
      },
      answer: { webhooks: [shown], count: 1 }
    },
    refusals: {}
  },
  "acf.webhooks.delete": {
    success: { request: async (_, caller) => ({ path: `/api/v1/webhooks/${await webhook(caller)}` }), answer: { status: "deleted", webhook_id: "<id>" } },
    refusals: { NotFound: { request: async (world) => ({ path: `/api/v1/webhooks/${await anothers(world)}` }), status: 404, answer: noWebhook } }
  },
  "acf.webhooks.deliveries": {
    success: {
      request: async (world, caller) => {
        const id = await webhook(caller)
        await world.sql`insert into deliveries (id, webhook_id, event, facts, created_at, attempts, next_attempt_at, failed_at, last_error) values (${randomUUID()}, ${id}, 'service.called', '{}', now(), 4, now(), now(), 'timeout')`
        return { path: `/api/v1/webhooks/${id}/deliveries?limit=1` }
      },
      answer: {
        deliveries: [{ id: "<id>", event: "service.called", created_at: "<time>", attempts: 4, status: "failed", next_attempt_at: null, last_status: null, last_error: "timeout", delivered_at: null }],
        count: 1
      }
    },
    refusals: { NotFound: { request: async (world) => ({ path: `/api/v1/webhooks/${await anothers(world)}/deliveries` }), status: 404, answer: noWebhook } }
  }
}
