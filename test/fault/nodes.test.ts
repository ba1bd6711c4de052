/**
 * Two gateways on one database that know nothing of each other. They take an
 * account from one another all the time; the fencing token keeps that from
 * losing or doubling anything.
 */
import { describe, expect, it } from "vitest"
import { type GatewayProcess, type Reply, storm, tally, until } from "../support/GatewayProcess.ts"
import { booked, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage()

describe("two gateways", () => {
  it("started at once on an empty database both start", { timeout: 60_000 }, async () => {
    for (let round = 0; round < 3; round++) {
      const { env } = await stage.database()
      const nodes = await Promise.all([stage.gateway(env), stage.gateway(env)])
      const [person] = await Promise.all(nodes.map((node) => node.person("1.00")))
      for (const node of nodes) expect(await node.balance(person!)).toEqual({ balance_usd: "1.00", reserved_usd: "0.00" })
      await Promise.all(nodes.map((node) => node.stop()))
    }
  })

  it("serving one account at the same time charge each answered call once, and nothing else", { timeout: 60_000 }, async () => {
    const { env, sql } = await stage.database()
    const [one, two, agent] = await Promise.all([stage.gateway(env), stage.gateway(env), stage.agent()])
    const [buyer, seller] = await Promise.all([one.person("3.00"), one.person()])
    const { id, ticker } = await one.list(seller, agent.url, "0.01")
    const token = await one.key(buyer)
    const call = (node: GatewayProcess): Promise<Reply> => node.call("POST", `/v1/proxy/${ticker}`, { token, body: { prompt: "work" } })
    const order = (node: GatewayProcess): Promise<Reply> => node.call("POST", "/v1/orders", { token, body: { agent_id: id, prompt: "work" } })

    const replies = await storm(400, 16, (n) => (n % 4 === 0 ? order : call)(n % 2 === 0 ? one : two))
    const { 200: passed = 0, 201: ordered = 0, 402: short = 0, 503: refused = 0, ...others } = tally(replies)
    expect(others).toEqual({})
    expect(passed + ordered + short + refused).toBe(400)
    for (const node of [one, two]) {
      await until(async () => (await call(node)).status === 200)
      expect(await node.metric("tollgate_holds_open")).toBe(0)
    }
    await until(async () => (await sql`select from orders where status = 'pending'`).length === 0)

    const [orders] = await sql`select count(*) filter (where status = 'completed')::int as completed, count(*)::int as all from orders`
    const charged = (await sql`select from transactions where type = 'charge'`).length
    expect(charged).toBe(passed + 2)
    expect(orders!.all).toBe(ordered)
    expect(await booked(sql, buyer.accountId)).toEqual({ available: 3_000_000n - 10_000n * BigInt(charged + (orders!.completed as number)), reserved: 0n })
    await Promise.all([one.stop(), two.stop()])
    await expectCleanBooks(sql)
  })
  it("whose callers pay each other across both, all at once, never deadlock", { timeout: 60_000 }, async () => {
    const { env, sql } = await stage.database()
    const [one, two, agent] = await Promise.all([stage.gateway(env), stage.gateway(env), stage.agent()])
    const people = await Promise.all(Array.from({ length: 6 }, () => one.person("5.00")))
    const listed = await Promise.all(people.map((person) => one.list(person, agent.url, "0.01")))
    const replies = await storm(600, 24, (n) => (n % 2 === 0 ? one : two).call("POST", `/v1/proxy/${listed[(n * 5 + 1) % 6]!.ticker}`, { token: people[n % 6]!.token, body: {} }))
    const { 200: passed = 0, 503: refused = 0, ...others } = tally(replies)
    expect([passed + refused, others]).toEqual([600, {}])
    expect(passed).toBeGreaterThan(0)
    await Promise.all([one.stop(), two.stop()])
    expect(await sql`select deadlocks from pg_stat_database where datname = current_database()`).toEqual([{ deadlocks: 0n }])
    expect(`${one.stderr()}${two.stderr()}`).not.toContain("40P01")
    await expectCleanBooks(sql)
  })
})

describe("three gateways", () => {
  it("together let an account of $1.00 pay for exactly 33 calls at $0.03, however they race", { timeout: 60_000 }, async () => {
    const { env, sql } = await stage.database()
    const [agent, ...nodes] = await Promise.all([stage.agent(), stage.gateway(env), stage.gateway(env), stage.gateway(env)])
    const [buyer, seller] = await Promise.all([nodes[0]!.person("1.00"), nodes[0]!.person()])
    const { ticker } = await nodes[0]!.list(seller, agent.url, "0.03")
    const token = await nodes[0]!.key(buyer)
    // Who is told to come back does, until there is nothing left.
    const replies = await storm(60, 12, async (n) => {
      for (;;) {
        const reply = await nodes[n % nodes.length]!.call("POST", `/v1/proxy/${ticker}`, { token, body: {} })
        if (reply.status !== 503) return reply
      }
    })
    expect(tally(replies)).toEqual({ 200: 33, 402: 27 })
    for (const node of nodes) expect(await node.metric("tollgate_holds_open")).toBe(0)
    await Promise.all(nodes.map((node) => node.stop()))
    expect(await booked(sql, buyer.accountId)).toEqual({ available: 10_000n, reserved: 0n })
    await expectCleanBooks(sql)
  })
})
