/** The operator's figures and an owner's own usage, over HTTP, of a small market whose calls were made through the proxies. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Owner, type ScriptedService, owner, service } from "../../support/acf.ts"
import { type ScriptedAgent, type World, makeWorld } from "../../support/World.ts"

let world: World
let admin: Owner
const today = new Date().toISOString().slice(0, 10)
const latency = expect.toSatisfy((value: unknown) => typeof value === "number" && value >= 0 && Number.isInteger(Math.round(value * 1e6) / 1e5))

const figures = async (path: string, caller = admin): Promise<any> => {
  const { status, json } = await caller.call("GET", `/api/v1/${path}`)
  expect([status, path]).toEqual([200, path])
  return json
}

beforeAll(async () => {
  world = await makeWorld({ settings: { acfSettlement: "record" } })
  admin = await owner(world, { role: "admin", name: "the operator" })
})
afterAll(() => world.stop())

describe("a market before its first call", () => {
  it("has no figures, and tells so without dividing by them", async () => {
    expect(await figures("admin/stats")).toEqual({
      total_services: 0, total_agents: 0, total_teams: 0, total_usage_records: 0, total_revenue_usd: 0, total_settlements: 0, active_webhooks: 0
    })
    expect(await figures("admin/usage/daily")).toEqual({ days: 30, data: [] })
    expect(await figures("admin/providers/ranking")).toEqual({ period: "all-time", providers: [] })
    expect(await figures("admin/services/health")).toEqual({ services: [] })
    expect(await figures("admin/payments/summary")).toEqual({ methods: {} })
    expect(await figures("admin/analytics/trends")).toEqual({ granularity: "weekly", data: [] })
    expect(await figures("admin/analytics/top-services")).toEqual({ sort_by: "revenue", days: 30, services: [] })
    expect(await figures("admin/analytics/buyers")).toEqual({
      days: 30, total_buyers_all_time: 0, active_buyers: 0, repeat_buyers: 0, repeat_rate: 0, avg_calls_per_buyer: 0, top_spenders: []
    })
    expect(await figures("usage/me")).toEqual({ buyer_id: "the operator", total_calls: 0, total_spent_usd: "0", avg_latency_ms: 0 })
  })
})

describe("a market with calls", () => {
  let one: Owner
  let two: Owner
  let good: ScriptedService
  let bad: ScriptedService
  let foreign: ScriptedAgent
  const statuses = [200, 404, 500]

  beforeAll(async () => {
    const provider = await owner(world, { role: "provider", name: "shop \"<b>%_'" })
    ;[one, two, foreign] = await Promise.all([owner(world, { name: "one" }), owner(world, { name: "two" }), world.agent()])
    await provider.call("POST", "/api/v1/agents", { display_name: "The Shop" })
    good = await service(world, provider, { name: "Good", price: "0.05", category: "ai", freeTierCalls: 1 })
    bad = await service(world, provider, { name: "Bad", price: "1.000001", category: "", paymentMethod: "paypal", respond: () => ({ status: statuses.shift() ?? 200, body: "" }) })
    await service(world, provider, { name: "Never called", paymentMethod: "stripe" })
    const call = async (buyer: Owner, to: { readonly id: string }, times: number): Promise<void> => {
      for (let n = 0; n < times; n++) await buyer.call("GET", `/api/v1/proxy/${to.id}/`)
    }
    await call(one, good, 4)
    await call(two, bad, 3)
    await call(one, foreign, 1)
    await provider.call("POST", "/api/v1/teams", { name: "Team" })
  })

  it("is told of as a whole", async () => {
    expect(await figures("admin/stats")).toEqual({
      total_services: 4, total_agents: 1, total_teams: 1, total_usage_records: 8, total_revenue_usd: 2.150002, total_settlements: 0, active_webhooks: 0
    })
    expect(await figures("admin/payments/summary")).toEqual({
      methods: { paypal: { count: 3, total_usd: 2.000002 }, x402: { count: 4, total_usd: 0.15 }, credits: { count: 1, total_usd: 0 } }
    })
  })

  it("is told of by day, and by periods that are called as the calendar calls them", async () => {
    const day = { calls: 8, revenue: 2.150002, unique_buyers: 2, active_services: 3, avg_latency_ms: latency, success_rate: 75 }
    expect(await figures("admin/usage/daily?days=1")).toEqual({ days: 1, data: [{ date: today, call_count: 8, revenue_usd: 2.150002, unique_buyers: 2, unique_services: 3 }] })
    expect(await figures("admin/analytics/trends?granularity=daily&periods=2")).toEqual({ granularity: "daily", data: [{ period: today, ...day }] })
    expect(await figures("admin/analytics/trends?granularity=monthly&periods=52")).toEqual({ granularity: "monthly", data: [{ period: today.slice(0, 7), ...day }] })
    expect(await figures("admin/analytics/trends")).toEqual({ granularity: "weekly", data: [{ period: expect.stringMatching(/^\d{4}-W[0-5]\d$/), ...day }] })
  })

  it("ranks providers by what they earned, of every product", async () => {
    const providers = [
      { provider_id: "shop \"<b>%_'", display_name: "The Shop", total_calls: 7, total_revenue: 2.150002, avg_latency_ms: latency, success_rate: 71.4 },
      { provider_id: foreign.owner.accountId, display_name: foreign.owner.accountId, total_calls: 1, total_revenue: 0, avg_latency_ms: latency, success_rate: 100 }
    ]
    expect(await figures("admin/providers/ranking")).toEqual({ period: "all-time", providers })
    expect(await figures("admin/providers/ranking?period=7&limit=1")).toEqual({ period: "7", providers: providers.slice(0, 1) })
  })

  it("tells how its services do, the worst first and those without calls too", async () => {
    const { services } = await figures("admin/services/health")
    const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT.*\+00:00$/)
    expect(services.slice(0, 2)).toEqual([
      { service_id: bad.id, name: "Bad", provider_id: "shop \"<b>%_'", status: "active", avg_latency_ms: latency, error_rate: 33.3, last_called: time },
      { service_id: good.id, name: "Good", provider_id: "shop \"<b>%_'", status: "active", avg_latency_ms: latency, error_rate: 0, last_called: time }
    ])
    expect(services.map(({ name, last_called }: { name: string; last_called: string | null }) => [name, last_called === null])).toEqual([
      ["Bad", false], ["Good", false], [expect.any(String), false], ["Never called", true]
    ])
  })

  it("ranks services by revenue, calls or latency", async () => {
    const provider_id = "shop \"<b>%_'"
    const rows = {
      bad: { service_id: bad.id, service_name: "Bad", provider_id, category: "", total_calls: 3, total_revenue: 2.000002, avg_latency_ms: latency, unique_buyers: 1, success_rate: 33.3 },
      good: { service_id: good.id, service_name: "Good", provider_id, category: "ai", total_calls: 4, total_revenue: 0.15, avg_latency_ms: latency, unique_buyers: 1, success_rate: 100 }
    }
    expect(await figures("admin/analytics/top-services?limit=2")).toEqual({ sort_by: "revenue", days: 30, services: [rows.bad, rows.good] })
    expect(await figures("admin/analytics/top-services?sort_by=calls&days=1&limit=2")).toEqual({ sort_by: "calls", days: 1, services: [rows.good, rows.bad] })
    const { services } = await figures("admin/analytics/top-services?sort_by=latency&days=365")
    const latencies = services.map(({ avg_latency_ms }: { avg_latency_ms: number }) => avg_latency_ms)
    expect(latencies).toEqual([...latencies].sort((a, b) => a - b))
    expect(latencies).toHaveLength(3)
  })

  it("tells of its buyers, and a buyer of what it has spent", async () => {
    expect(await figures("admin/analytics/buyers?days=365")).toEqual({
      days: 365, total_buyers_all_time: 2, active_buyers: 2, repeat_buyers: 2, repeat_rate: 100, avg_calls_per_buyer: 4,
      top_spenders: [{ buyer_id: "two", calls: 3, total_spent: 2.000002, services_used: 1 }, { buyer_id: "one", calls: 5, total_spent: 0.15, services_used: 2 }]
    })
    expect(await figures("usage/me", two)).toEqual({ buyer_id: "two", total_calls: 3, total_spent_usd: "2.000002", avg_latency_ms: latency })
    expect(await figures("usage/me", await owner(world, { name: "one" }))).toEqual({ buyer_id: "one", total_calls: 5, total_spent_usd: "0.15", avg_latency_ms: latency })
  })

  it("refuses what is out of range as 422, and what it does not know as 400", async () => {
    const asked = async (status: number, ...paths: ReadonlyArray<string>) => {
      const replies = await Promise.all(paths.map(async (path) => [path, (await admin.call("GET", `/api/v1/admin/${path}`)).status]))
      expect(replies).toEqual(paths.map((path) => [path, status]))
    }
    await asked(422, ...["0", "91", "-1", "1.5", "abc", "", "1e1", "99999999999999999999"].map((days) => `usage/daily?days=${days}`))
    await asked(422, "providers/ranking?limit=0", "providers/ranking?limit=101", "analytics/trends?periods=0", "analytics/trends?periods=53",
      "analytics/top-services?limit=51", "analytics/top-services?days=366", "analytics/buyers?days=366")
    await asked(400, ...["hourly", "", "Weekly", "week'", "toString"].map((name) => `analytics/trends?granularity=${name}`))
    await asked(400, ...["name", "", "price", "constructor"].map((name) => `analytics/top-services?sort_by=${name}`))
    await asked(400, ...["soon", "", "0", "-1", "3651", "1e3", "30d", "99999999999999999999"].map((period) => `providers/ranking?period=${period}`))
    await asked(200, "usage/daily?days=90", "analytics/buyers?days=365", "analytics/top-services?days=365&limit=50", "analytics/trends?periods=52", "providers/ranking?period=3650&limit=100")
    const { json } = await admin.call("GET", "/api/v1/admin/analytics/trends?granularity=hourly")
    expect(json).toEqual({ detail: "granularity: must be one of daily, weekly, monthly" })
  })

  it("counts a look at one's own usage in the key's window, and the operator's figures not", async () => {
    const [buyer, operator] = await Promise.all([owner(world, { rateLimit: 1 }), owner(world, { role: "admin", rateLimit: 1 })])
    const looks = async (caller: Owner, path: string) => [(await caller.call("GET", path)).status, (await caller.call("GET", path)).status]
    expect(await looks(buyer, "/api/v1/usage/me")).toEqual([200, 429])
    expect(await looks(operator, "/api/v1/admin/stats")).toEqual([200, 200])
  })
})
