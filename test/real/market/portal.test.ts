/** The provider's portal over HTTP: its own figures from its own calls, its keys, and whether its services are there. */
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { once } from "node:events"
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type World, makeWorld } from "../../support/World.ts"
import { type Owner, owner, service } from "../../support/acf.ts"

let world: World
let admin: Owner
beforeAll(async () => {
  world = await makeWorld()
  admin = await owner(world, { role: "admin" })
})
afterAll(() => world.stop())

const get = async (by: Owner, path: string): Promise<any> => {
  const { status, json } = await by.call("GET", `/api/v1/provider/${path}`)
  expect(status).toBe(200)
  return json
}
const statusOf = ({ url }: { readonly url: string }) => ({ status: Number(/\/(\d{3})$/.exec(url)?.[1] ?? 200) })
const call = async (by: Owner, id: string, status = 200): Promise<void> => {
  expect((await by.call("GET", `/api/v1/proxy/${id}/${status}`)).status).toBe(status)
}
const settle = async (provider: Owner): Promise<string> => {
  const at = (hours: number): string => new Date(Date.now() + hours * 3_600_000).toISOString()
  const { status, json } = await admin.call("POST", "/api/v1/settlements", { provider_id: provider.name, period_start: at(-1), period_end: at(1) })
  expect(status).toBe(201)
  return json.id
}
const today = (): string => new Date().toISOString().slice(0, 10)
const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?\+00:00$/)

describe("a new provider", () => {
  it("has nothing but its key, and is told the way", async () => {
    const provider = await owner(world, { role: "provider" })
    expect(await get(provider, "dashboard")).toEqual({
      provider_id: provider.name, total_services: 0, total_calls: 0, total_revenue: 0, total_settled: 0, pending_settlement: 0
    })
    expect(await get(provider, "services")).toEqual({ services: [] })
    expect(await get(provider, "earnings")).toEqual({ total_earned: 0, total_settled: 0, pending_settlement: 0, settlements: [] })
    expect(await get(provider, "onboarding")).toEqual({
      provider_id: provider.name,
      steps: {
        create_api_key: { completed: true, label: "Create API key" },
        register_service: { completed: false, label: "Register your first service" },
        activate_service: { completed: false, label: "Activate a service" },
        first_traffic: { completed: false, label: "Receive first API call" },
        first_settlement: { completed: false, label: "Complete first settlement" }
      },
      completed_steps: 1, total_steps: 5, completion_pct: 20
    })
    const { milestones } = await get(provider, "milestones")
    expect(milestones.map(({ name, achieved }: any) => [name, achieved])).toEqual(
      ["first_service", "first_call", "first_revenue", "first_settlement"].map((name) => [name, false]))
    expect(milestones[0]).toEqual({
      name: "first_service", label: "First service", description: "Register a service", achieved: false,
      reward_description: "Your commission program begins: Month 1 (Free): 0 %, Months 2-3 (Growth): 5 %, Standard: 10 %"
    })
  })

  it("may not look without a provider's key", async () => {
    const buyer = await owner(world)
    for (const [method, path] of [
      ["GET", "dashboard"], ["GET", "services"], ["GET", `services/${randomUUID()}/analytics`], ["GET", "earnings"], ["GET", "keys"], ["DELETE", `keys/${buyer.keyId}`],
      ["POST", `services/${randomUUID()}/test`], ["GET", "onboarding"], ["GET", "milestones"]
    ] as const) {
      expect([path, (await buyer.call(method, `/api/v1/provider/${path}`)).status]).toEqual([path, 403])
      expect([path, (await world.call(method, `/acf/api/v1/provider/${path}`)).status]).toEqual([path, 401])
    }
  })
})

describe("a provider with calls", () => {
  it("sees what they come to at once, also those of a removed service, exact to the micro-dollar", async () => {
    const [provider, stranger, one, two] = await Promise.all([
      owner(world, { role: "provider" }), owner(world, { role: "provider" }), owner(world), owner(world)
    ])
    const kept = await service(world, provider, { name: "Kept", price: "0.10", respond: statusOf })
    const gone = await service(world, provider, { name: "Gone", price: "0.000001", respond: statusOf })
    const idle = await service(world, provider, { name: "Idle", price: "7" })
    const theirs = await service(world, stranger, { price: "1" })
    await Promise.all([call(one, kept.id), call(one, kept.id), call(two, kept.id, 404), call(two, kept.id, 500), call(one, gone.id), call(one, theirs.id)])
    expect((await provider.call("DELETE", `/api/v1/services/${gone.id}`)).status).toBe(200)

    expect(await get(provider, "dashboard")).toEqual({
      provider_id: provider.name, total_services: 3, total_calls: 5, total_revenue: 0.300001, total_settled: 0, pending_settlement: 0.300001
    })
    const { services } = await get(provider, "services")
    expect(services.map(({ id }: any) => id)).toEqual([idle.id, gone.id, kept.id])
    expect(services[1]).toEqual({
      id: gone.id, name: "Gone", description: "Scripted by a test", endpoint: gone.endpoint, price_per_call: "0.000001", status: "removed", category: "ai",
      total_calls: 1, total_revenue: 0.000001, avg_latency_ms: expect.any(Number), created_at: time
    })
    expect(services[0]).toMatchObject({ price_per_call: "7.00", status: "active", total_calls: 0, total_revenue: 0, avg_latency_ms: 0 })

    const [sums] = await world.sql<[{ latency: number }]>`select round(avg(latency_ms)::numeric, 1)::float8 as latency from usage where agent_id = ${kept.id}`
    expect(await get(provider, `services/${kept.id}/analytics`)).toEqual({
      service_id: kept.id, service_name: "Kept", total_calls: 4, total_revenue: 0.3, avg_latency_ms: sums.latency, success_rate: 50, unique_buyers: 2,
      first_call: time, last_call: time, daily: [{ date: today(), calls: 4, revenue: 0.3 }]
    })
    expect(await get(provider, `services/${idle.id}/analytics`)).toEqual({
      service_id: idle.id, service_name: "Idle", total_calls: 0, total_revenue: 0, avg_latency_ms: 0, success_rate: 100, unique_buyers: 0,
      first_call: null, last_call: null, daily: []
    })
    expect(await provider.call("GET", `/api/v1/provider/services/${theirs.id}/analytics`)).toMatchObject({ status: 403, json: { detail: "Not your service" } })
    for (const id of [randomUUID(), "1", "%27", "%25"]) {
      expect(await provider.call("GET", `/api/v1/provider/services/${id}/analytics`)).toMatchObject({ status: 404, json: { detail: "Service not found" } })
    }
  })

  it("counts the last 30 days of a service, today included, newest first, and a merged buyer once", async () => {
    const provider = await owner(world, { role: "provider" })
    const { id } = await service(world, provider)
    const [merged, into] = [await owner(world), await owner(world)]
    await world.sql`update accounts set merged_into = ${into.accountId} where id = ${merged.accountId}`
    for (const [daysAgo, accountId] of [[0, merged.accountId], [29, into.accountId], [30, merged.accountId], [400, into.accountId]] as const) {
      await world.sql`
        with counted as (
          insert into usage_by_pair (account_id, agent_id, calls, cost, last_day) values (${accountId}, ${id}, 2, 30, now()::date) on conflict do nothing
        )
        insert into usage_daily_by_agent (day, agent_id, calls, succeeded, errors, cost, latency_ms) values (now()::date - ${daysAgo}::int, ${id}, 2, 1, 0, 30, 7)`
    }
    const day = (daysAgo: number): string => new Date(Date.parse(today()) - daysAgo * 86_400_000).toISOString().slice(0, 10)
    expect(await get(provider, `services/${id}/analytics`)).toMatchObject({
      unique_buyers: 1, daily: [{ date: day(0), calls: 2, revenue: 0.00003 }, { date: day(29), calls: 2, revenue: 0.00003 }]
    })
  })

  it("sees what was settled and what is still to come", async () => {
    const [provider, buyer] = await Promise.all([owner(world, { role: "provider" }), owner(world)])
    const { id } = await service(world, provider, { price: "0.25" })
    await Promise.all([call(buyer, id), call(buyer, id)])
    const settlement = await settle(provider)
    expect(await get(provider, "earnings")).toEqual({
      total_earned: 0.5, total_settled: 0, pending_settlement: 0.5,
      settlements: [{ id: settlement, total_amount: 0.5, platform_fee: 0, net_amount: 0.5, status: "pending", period_start: time, period_end: time }]
    })
    expect((await admin.call("PATCH", `/api/v1/settlements/${settlement}/pay`, { payment_tx: "0xabc" })).status).toBe(200)
    await call(buyer, id)
    expect(await get(provider, "earnings")).toMatchObject({ total_earned: 0.75, total_settled: 0.5, pending_settlement: 0.25, settlements: [{ status: "completed" }] })
    expect(await get(provider, "dashboard")).toMatchObject({ total_revenue: 0.75, total_settled: 0.5, pending_settlement: 0.25 })
    expect(await get(provider, "onboarding")).toMatchObject({ completed_steps: 5, completion_pct: 100 })
    expect((await get(provider, "milestones")).milestones.every(({ achieved }: any) => achieved)).toBe(true)
  })
})

describe("a provider's keys", () => {
  it("are listed without secrets, and end at once when they are revoked, the one in use too", async () => {
    const provider = await owner(world, { role: "provider", rateLimit: 77 })
    const second = await owner(world, { name: provider.name })
    const stranger = await owner(world, { role: "provider" })
    const { keys } = await get(provider, "keys")
    expect(keys).toHaveLength(2)
    expect(keys).toEqual(expect.arrayContaining([
      { key_id: provider.keyId, role: "provider", rate_limit: 77, wallet_address: null, created_at: time, expires_at: time },
      expect.objectContaining({ key_id: second.keyId, role: "buyer" })
    ]))
    const revoke = (keyId: string) => provider.call("DELETE", `/api/v1/provider/keys/${keyId}`)
    expect(await revoke(stranger.keyId)).toMatchObject({ status: 403, json: { detail: "Not your key" } })
    for (const unknown of ["acf_0000000000000000", "1", "%27", randomUUID()]) expect(await revoke(unknown)).toMatchObject({ status: 404, json: { detail: "Key not found" } })
    expect((await second.call("GET", "/api/v1/usage/me")).status).toBe(200)
    expect(await revoke(second.keyId)).toMatchObject({ status: 200, json: { status: "revoked", key_id: second.keyId } })
    expect((await second.call("GET", "/api/v1/usage/me")).status).toBe(401)
    expect((await revoke(second.keyId)).status).toBe(404)
    expect((await get(provider, "keys")).keys).toMatchObject([{ key_id: provider.keyId }])
    expect((await stranger.call("GET", "/api/v1/provider/dashboard")).status).toBe(200)
    expect((await revoke(provider.keyId)).status).toBe(200)
    expect((await provider.call("GET", "/api/v1/provider/dashboard")).status).toBe(401)
  })
})

describe("the test of a service", () => {
  const test = (by: Owner, id: string) => by.call("POST", `/api/v1/provider/services/${id}/test`)
  let provider: Owner
  beforeAll(async () => { provider = await owner(world, { role: "provider" }) })

  it.each([[200, true, ""], [302, true, ""], [404, true, ""], [500, false, "It answers with status 500"], [503, false, "It answers with status 503"]])(
    "finds one that answers %i reachable: %s, by one GET without credentials, and counts no call", async (status, reachable, error) => {
      const { id, endpoint, asked } = await service(world, provider, { respond: () => ({ status, headers: { location: "http://127.0.0.1:1/" } }) })
      expect(await test(provider, id)).toMatchObject({
        status: 200, json: { service_id: id, endpoint, reachable, latency_ms: expect.any(Number), status_code: status, error }
      })
      expect(asked.map(({ method, headers, body }) => [method, headers.authorization, headers.cookie, body])).toEqual([["GET", undefined, undefined, ""]])
      expect(await get(provider, `services/${id}/analytics`)).toMatchObject({ total_calls: 0 })
    })

  it("does not wait for the body of the answer", async () => {
    const endless = createServer((socket) => {
      socket.on("error", () => {}).resume()
      socket.write("HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\nand so on")
    }).listen(0, "127.0.0.1")
    await once(endless, "listening")
    const { id } = await service(world, provider, { endpoint: `http://127.0.0.1:${(endless.address() as AddressInfo).port}/` })
    const closed = once(endless, "connection").then(([socket]) => once(socket, "close"))
    expect((await test(provider, id)).json).toMatchObject({ reachable: true, status_code: 200 })
    await closed
    endless.close()
  })

  it("says in plain words why one is not there, and does not take its callers' circuit for it", async () => {
    const closed = createServer().listen(0, "127.0.0.1")
    await once(closed, "listening")
    const { port } = closed.address() as AddressInfo
    const { id } = await service(world, provider, { endpoint: `http://127.0.0.1:${port}/` })
    await new Promise((done) => closed.close(done))
    const errors = new Set<string>()
    for (let i = 0; i < 6; i++) {
      const { status, json } = await test(provider, id)
      expect([status, json.reachable, json.status_code]).toEqual([200, false, 0])
      errors.add(json.error)
    }
    expect([...errors]).toEqual(["Connection failed", "Not tried: it failed too often, try again in 1 s"])
    expect((await provider.call("GET", `/api/v1/proxy/${id}/x`)).status).toBe(502)
  })

  it("does not reach a private address, however it is written", async () => {
    const { id } = await service(world, provider)
    for (const url of ["http://10.0.0.1/", "http://169.254.169.254/latest/meta-data", "http://[::1]/", "http://[::ffff:10.0.0.1]/", "http://167772161/"]) {
      await world.sql`update agents set endpoint_url = ${url} where id = ${id}`
      expect((await test(provider, id)).json).toMatchObject({ endpoint: url, reachable: false, status_code: 0, error: "The address is not a public one: it is not called" })
    }
  })

  it("is for its owner", async () => {
    const { id, asked } = await service(world, provider)
    expect(await test(await owner(world, { role: "provider" }), id)).toMatchObject({ status: 403, json: { detail: "Not your service" } })
    expect(await test(provider, randomUUID())).toMatchObject({ status: 404, json: { detail: "Service not found" } })
    expect(asked).toEqual([])
  })
})
