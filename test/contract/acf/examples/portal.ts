/** Examples of the provider's portal and of settlements. */
import { randomUUID } from "node:crypto"
import { expect } from "vitest"
import { type Owner, owner, service } from "../../../support/acf.ts"
import type { World } from "../../../support/World.ts"
import type { Examples } from "../../Example.ts"
import { anothers, noService, notYours } from "./services.ts"

const period = { period_start: "2020-01-01T00:00:00Z", period_end: "2100-01-01T00:00:00Z" }
const number = expect.any(Number)

/** A service of the provider that was called once, at $0.05. */
const called = async (world: World, provider: Owner): Promise<string> => {
  const [{ id }, buyer] = [await service(world, provider), await owner(world)]
  await buyer.call("GET", `/api/v1/proxy/${id}/x`)
  return id
}
/** A settlement of that call. */
const settled = async (world: World, provider: Owner, admin?: Owner): Promise<string> => {
  await called(world, provider)
  const by = admin ?? await owner(world, { role: "admin" })
  return (await by.call("POST", "/api/v1/settlements", { provider_id: provider.name, ...period })).json.id
}
const settledByCaller = async (world: World, admin: Owner): Promise<string> => settled(world, await owner(world, { role: "provider" }), admin)

const amounts = { total_amount: "0.05", platform_fee: "0", net_amount: "0.05" }
const numbers = { total_amount: 0.05, platform_fee: 0, net_amount: 0.05 }
const times = { period_start: "<time>", period_end: "<time>" }
const noSettlement = { detail: "Settlement not found or already paid" }

const ofService = (path: string) => ({
  NotFound: { request: () => ({ path: `/api/v1/provider/services/nobody/${path}` }), status: 404, answer: noService },
  NotOwner: { request: async (world: World) => ({ path: `/api/v1/provider/services/${(await anothers(world)).id}/${path}` }), status: 403, answer: notYours }
})

export const portal: Examples<Owner> = {
  "acf.settlements.create": {
    success: {
      request: async (world) => {
        const provider = await owner(world, { role: "provider" })
        await called(world, provider)
        return { body: { provider_id: provider.name, ...period } }
      },
      answer: { id: "<id>", provider_id: "<owner>", ...amounts, call_count: 1, status: "pending" }
    },
    refusals: {
      RuleBroken: {
        request: (_, { name }) => ({ body: { provider_id: name, period_start: "2026-03-01", period_end: "2026-03-01" } }),
        status: 400, answer: { detail: "period_start: must be before period_end" }
      }
    }
  },
  "acf.settlements.list": {
    success: {
      request: async (world) => {
        const provider = await owner(world, { role: "provider" })
        await settled(world, provider)
        return { token: provider.token, path: "/api/v1/settlements?status=pending&limit=10" }
      },
      answer: { settlements: [{ id: "<id>", provider_id: "<owner>", ...times, ...amounts, status: "pending", payment_tx: null }], count: 1 }
    },
    refusals: { RuleBroken: { request: () => ({ path: "/api/v1/settlements?status=best" }), status: 400, answer: { detail: expect.stringMatching(/^status: must be one of /) } } }
  },
  "acf.settlements.pay": {
    success: {
      request: async (world, caller) => ({ path: `/api/v1/settlements/${await settledByCaller(world, caller)}/pay`, body: { payment_tx: "0xabc123" } }),
      answer: { status: "completed", payment_tx: "0xabc123" }
    },
    refusals: {
      NotFound: { request: () => ({ path: `/api/v1/settlements/${randomUUID()}/pay`, body: { payment_tx: "0xabc123" } }), status: 404, answer: noSettlement },
      RuleBroken: {
        request: async (world, caller) => {
          const id = await settledByCaller(world, caller)
          // As if the call had been prepaid, and the provider had spent what it got.
          await world.sql`update settlements set credited = 50000 where id = ${id}`
          return { path: `/api/v1/settlements/${id}/pay`, body: { payment_tx: "0xabc123" } }
        },
        status: 400, answer: { detail: expect.stringMatching(/^\w+: /) }
      }
    }
  },
  "acf.admin.commission": {
    success: {
      request: async (world) => {
        const provider = await owner(world, { role: "provider" })
        await service(world, provider)
        return { path: `/api/v1/admin/providers/${provider.name}/commission` }
      },
      answer: {
        provider_id: "<owner>", registered: true, current_rate: "0.00", current_tier: "Month 1 (Free)", registration_date: "<time>", month_number: 1,
        next_tier_date: "<time>", next_tier_rate: "0.05"
      }
    },
    refusals: {}
  },
  "acf.provider.dashboard": {
    success: {
      request: async (world, caller) => {
        await called(world, caller)
        return {}
      },
      answer: { provider_id: "<owner>", total_services: 1, total_calls: 1, total_revenue: 0.05, total_settled: 0, pending_settlement: 0.05 }
    },
    refusals: {}
  },
  "acf.provider.services": {
    success: {
      request: async (world, caller) => {
        await called(world, caller)
        return {}
      },
      answer: {
        services: [{
          id: "<id>", name: "A service", description: "Scripted by a test", endpoint: "<endpoint>", price_per_call: "0.05", status: "active", category: "ai",
          total_calls: 1, total_revenue: 0.05, avg_latency_ms: number, created_at: "<time>"
        }]
      }
    },
    refusals: {}
  },
  "acf.provider.analytics": {
    success: {
      request: async (world, caller) => ({ path: `/api/v1/provider/services/${await called(world, caller)}/analytics` }),
      answer: {
        service_id: "<id>", service_name: "A service", total_calls: 1, total_revenue: 0.05, avg_latency_ms: number, success_rate: 100, unique_buyers: 1,
        first_call: "<time>", last_call: "<time>", daily: [{ date: "<date>", calls: 1, revenue: 0.05 }]
      }
    },
    refusals: ofService("analytics")
  },
  "acf.provider.earnings": {
    success: {
      request: async (world, caller) => {
        await settled(world, caller)
        return {}
      },
      answer: { total_earned: 0.05, total_settled: 0, pending_settlement: 0.05, settlements: [{ id: "<id>", ...numbers, status: "pending", ...times }] }
    },
    refusals: {}
  },
  "acf.provider.keys": {
    success: {
      request: () => ({}),
      answer: { keys: [{ key_id: "<key id>", role: "provider", rate_limit: null, wallet_address: null, created_at: "<time>", expires_at: "<time>" }] }
    },
    refusals: {}
  },
  "acf.provider.revoke_key": {
    success: { request: (_, { keyId }) => ({ path: `/api/v1/provider/keys/${keyId}` }), answer: { status: "revoked", key_id: "<key id>" } },
    refusals: {
      NotFound: { request: () => ({ path: "/api/v1/provider/keys/acf_nobody" }), status: 404, answer: { detail: expect.stringMatching(/key not found$/i) } },
      NotOwner: { request: async (world) => ({ path: `/api/v1/provider/keys/${(await owner(world)).keyId}` }), status: 403, answer: { detail: "Not your key" } }
    }
  },
  "acf.provider.test": {
    success: {
      request: async (world, caller) => ({ path: `/api/v1/provider/services/${(await service(world, caller)).id}/test` }),
      answer: { service_id: "<id>", endpoint: "<endpoint>", reachable: true, latency_ms: number, status_code: 200, error: "" }
    },
    refusals: ofService("test")
  },
  "acf.provider.onboarding": {
    success: {
      request: async (world, caller) => {
        await service(world, caller)
        return {}
      },
      answer: {
        provider_id: "<owner>",
        steps: {
          create_api_key: { completed: true, label: "Create API key" }, register_service: { completed: true, label: "Register your first service" },
          activate_service: { completed: true, label: "Activate a service" }, first_traffic: { completed: false, label: "Receive first API call" },
          first_settlement: { completed: false, label: "Complete first settlement" }
        },
        completed_steps: 3, total_steps: 5, completion_pct: 60
      }
    },
    refusals: {}
  },
  "acf.provider.milestones": {
    success: {
      request: async (world, caller) => {
        await called(world, caller)
        return {}
      },
      answer: {
        milestones: ([["first_service", true], ["first_call", true], ["first_revenue", true], ["first_settlement", false]] as const).map(([name, achieved]) =>
          ({ name, label: expect.any(String), description: expect.any(String), reward_description: expect.any(String), achieved }))
      }
    },
    refusals: {}
  }
}
