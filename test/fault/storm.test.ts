/**
 * The storms: far more callers at once than the money lasts for. Exactly what
 * is paid for passes, at any concurrency, and nothing stays held.
 */
import { describe, expect, it } from "vitest"
import { type GatewayProcess, type Listed, type Reply, storm, tally } from "../support/GatewayProcess.ts"
import type { LoopbackAgent } from "../support/LoopbackAgent.ts"
import { booked, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage()

const orders = process.env["TOLLGATE_FULL"] === "1" ? 100_000 : 10_000

describe("an account of $1.00", () => {
  it(`ordering ${orders} times at $0.01 over 64 sockets gets exactly 100 orders`, { timeout: 120_000 }, async () => {
    const { env, sql } = await stage.database()
    const [gateway, agent] = await Promise.all([stage.gateway(env), stage.agent()])
    const [buyer, seller] = await Promise.all([gateway.person("1.00"), gateway.person()])
    const { id } = await gateway.list(seller, agent.url, "0.01")
    const token = await gateway.key(buyer)

    const replies = await storm(orders, 64, () => gateway.call("POST", "/v1/orders", { token, body: { agent_id: id, prompt: "work" } }))

    expect(tally(replies)).toEqual({ 201: 100, 402: orders - 100 })
    await gateway.stop()
    expect(new Set(agent.asked).size).toBe(100)
    expect(agent.asked).toHaveLength(100)
    expect(await booked(sql, buyer.accountId)).toEqual({ available: 0n, reserved: 0n })
    expect(await sql`select status, count(*)::int as count from orders group by status`).toEqual([{ status: "completed", count: 100 }])
    await expectCleanBooks(sql)
  })
})

/** All calls at once: the agent keeps those that reach it until every other one is answered. */
const parallelCalls = async (gateway: GatewayProcess, agent: LoopbackAgent, { ticker }: Listed, token: string, count: number): Promise<ReadonlyArray<Reply | undefined>> => {
  let answered = 0
  agent.keep()
  const releaseWhenDecided = (): void => { if (answered + agent.asked.length === count) agent.release() }
  const replies = storm(count, count, async () => {
    const reply = await gateway.call("POST", `/v1/proxy/${ticker}`, { token, body: { prompt: "work" } })
    answered++
    releaseWhenDecided()
    return reply
  })
  for (let seen = 1; agent.asked.length + answered < count; seen++) await Promise.race([agent.seen(seen), replies])
  releaseWhenDecided()
  return replies
}

describe("1,000 parallel calls at $0.03", () => {
  const calls = 1_000
  const paidFor = 166

  const arrange = async (usd: string) => {
    const { env, sql } = await stage.database()
    const [gateway, agent] = await Promise.all([stage.gateway(env), stage.agent()])
    const [buyer, seller] = await Promise.all([gateway.person(usd), gateway.person()])
    return { sql, gateway, agent, buyer, listed: await gateway.list(seller, agent.url, "0.03") }
  }

  const expectNothingHeld = async (gateway: GatewayProcess, token: string): Promise<void> => {
    expect(await gateway.ask(200, "GET", "/v1/credits/holds", { token })).toEqual([])
    expect(await gateway.metric("tollgate_holds_open")).toBe(0)
  }

  it("let exactly 166 pass on an account of $5.00, and tell the others what is missing", async () => {
    const { sql, gateway, agent, buyer, listed } = await arrange("5.00")
    const replies = await parallelCalls(gateway, agent, listed, await gateway.key(buyer), calls)

    expect(tally(replies)).toEqual({ 200: paidFor, 402: calls - paidFor })
    expect(agent.asked).toHaveLength(paidFor)
    for (const reply of replies) {
      if (reply?.status === 402) expect(reply.json).toMatchObject({ required_usd: "0.03", available_usd: "0.02", held_usd: "4.98" })
      else expect(reply?.headers).toMatchObject({ "x-autx-cost-usd": "0.03" })
    }
    await expectNothingHeld(gateway, buyer.token)
    expect(await gateway.balance(buyer)).toEqual({ balance_usd: "0.02", reserved_usd: "0.00" })
    await gateway.stop()
    expect(await booked(sql, buyer.accountId)).toEqual({ available: 20_000n, reserved: 0n })
    await expectCleanBooks(sql)
  })

  it.each(["total", "day"] as const)("let exactly 166 pass on a key with a %s budget of $5.00, whatever its account has", async (window) => {
    const { sql, gateway, agent, buyer, listed } = await arrange("100.00")
    const token = await gateway.key(buyer, { amount_usd: "5.00", window })
    const replies = await parallelCalls(gateway, agent, listed, token, calls)

    expect(tally(replies)).toEqual({ 200: paidFor, 402: calls - paidFor })
    expect(agent.asked).toHaveLength(paidFor)
    for (const reply of replies) {
      if (reply?.status === 402) expect(reply.json).toMatchObject({ required_usd: "0.03", available_usd: "0.02", held_usd: "4.98", budget_usd: "5.00", window })
    }
    await expectNothingHeld(gateway, buyer.token)
    const [key] = await gateway.ask(200, "GET", "/v1/api-keys", { token: buyer.token })
    expect(key.budgets).toEqual([{ amount_usd: "5.00", window, spent_usd: "4.98" }])
    expect(await gateway.balance(buyer)).toEqual({ balance_usd: "95.02", reserved_usd: "0.00" })
    await gateway.stop()
    await expectCleanBooks(sql)
  })
})
