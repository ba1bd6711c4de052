/** Examples of the operator's figures, and of the dashboard. Others call meanwhile, so figures of everybody are numbers here. */
import { expect } from "vitest"
import { type Owner, owner } from "../../../support/acf.ts"
import type { World } from "../../../support/World.ts"
import type { Examples, Success } from "../../Example.ts"
import { afterFive, from, suspended, wrongKey } from "./keys.ts"
import { anothers } from "./services.ts"

const number = expect.any(Number)
const text = expect.any(String)

const afterACall = (path: string): Success<Owner>["request"] => async (world) => {
  const buyer = await owner(world)
  await buyer.call("GET", `/api/v1/proxy/${(await anothers(world)).id}/x`)
  return { path }
}
/** A list that holds at least one of these. */
const some = (row: object) => expect.arrayContaining([row])

const door = (token: string, more: object = {}) => ({ path: `/admin/dashboard?key=${encodeURIComponent(token)}`, ...more })
/** What a browser keeps once an admin has shown a key. */
const session = async (world: World): Promise<string> => {
  const { token } = await owner(world, { role: "admin" })
  return (await world.call("GET", "/acf/admin/dashboard", { token })).headers.get("set-cookie")!.split(";")[0]!
}

export const admin: Examples<Owner> = {
  "acf.admin.stats": {
    success: {
      request: afterACall("/api/v1/admin/stats"),
      answer: { total_services: number, total_agents: number, total_teams: number, total_usage_records: number, total_revenue_usd: number, total_settlements: number, active_webhooks: number }
    },
    refusals: {}
  },
  "acf.admin.daily": {
    success: {
      request: afterACall("/api/v1/admin/usage/daily?days=1"),
      answer: { days: 1, data: [{ date: "<date>", call_count: number, revenue_usd: number, unique_buyers: number, unique_services: number }] }
    },
    refusals: {}
  },
  "acf.admin.ranking": {
    success: {
      request: afterACall("/api/v1/admin/providers/ranking?period=30&limit=1"),
      answer: { period: "30", providers: [{ provider_id: "<owner>", display_name: text, total_calls: number, total_revenue: number, avg_latency_ms: number, success_rate: number }] }
    },
    refusals: { RuleBroken: { request: () => ({ path: "/api/v1/admin/providers/ranking?period=soon" }), status: 400, answer: { detail: expect.stringMatching(/^period: must be /) } } }
  },
  "acf.admin.health": {
    success: {
      request: afterACall("/api/v1/admin/services/health"),
      answer: { services: some({ service_id: "<id>", name: "A service", provider_id: "<owner>", status: "active", avg_latency_ms: number, error_rate: 0, last_called: "<time>" }) }
    },
    refusals: {}
  },
  "acf.admin.payments": {
    success: { request: afterACall("/api/v1/admin/payments/summary"), answer: { methods: expect.objectContaining({ x402: { count: number, total_usd: number } }) } },
    refusals: {}
  },
  "acf.admin.trends": {
    success: {
      request: afterACall("/api/v1/admin/analytics/trends?granularity=weekly&periods=1"),
      answer: {
        granularity: "weekly",
        data: [{ period: "<week>", calls: number, revenue: number, unique_buyers: number, active_services: number, avg_latency_ms: number, success_rate: number }]
      }
    },
    refusals: { RuleBroken: { request: () => ({ path: "/api/v1/admin/analytics/trends?granularity=yearly" }), status: 400, answer: { detail: "granularity: must be one of daily, weekly, monthly" } } }
  },
  "acf.admin.top_services": {
    success: {
      request: afterACall("/api/v1/admin/analytics/top-services?sort_by=calls&days=1&limit=1"),
      answer: {
        sort_by: "calls", days: 1,
        services: [{
          service_id: "<id>", service_name: text, provider_id: "<owner>", category: text, total_calls: number, total_revenue: number, avg_latency_ms: number, unique_buyers: number, success_rate: number
        }]
      }
    },
    refusals: { RuleBroken: { request: () => ({ path: "/api/v1/admin/analytics/top-services?sort_by=best" }), status: 400, answer: { detail: "sort_by: must be one of revenue, calls, latency" } } }
  },
  "acf.admin.buyers": {
    success: {
      request: afterACall("/api/v1/admin/analytics/buyers?days=1"),
      answer: {
        days: 1, total_buyers_all_time: number, active_buyers: number, repeat_buyers: number, repeat_rate: number, avg_calls_per_buyer: number,
        top_spenders: some({ buyer_id: "<owner>", calls: 1, total_spent: 0.05, services_used: 1 })
      }
    },
    refusals: {}
  },
  "acf.dashboard.read": {
    success: {
      request: async (world) => ({ headers: { cookie: await session(world) } }),
      answer: undefined,
      headers: { "content-type": /^text\/html; charset=utf-8$/, "content-security-policy": /default-src 'none'/ }
    },
    // Refusals are pages too.
    refusals: {
      Unauthenticated: { request: () => ({}), status: 401, answer: undefined },
      AccountSuspended: { request: async (world) => door((await suspended(world)).token), status: 403, answer: undefined },
      ScopeMissing: { request: (_, { token }) => door(token), status: 403, answer: undefined },
      TooManyAttempts: {
        request: (world) => {
          const wrong = door(wrongKey, { headers: from("192.0.2.5") })
          return afterFive(world, "GET", wrong.path, wrong)
        },
        status: 429, answer: undefined
      }
    }
  }
}
