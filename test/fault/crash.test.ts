/**
 * kill -9 in the middle of a storm of orders. What was acknowledged is there,
 * once; what was running is failed and refunded, and never sent again; and the
 * storm that goes on after the restart buys exactly what the money is worth.
 */
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import type { Sql } from "../../src/store/Postgres.ts"
import { type GatewayProcess, type Reply, storm, tally, until } from "../support/GatewayProcess.ts"
import type { LoopbackAgent } from "../support/LoopbackAgent.ts"
import { booked, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage()

const orders = process.env["TOLLGATE_FULL"] === "1" ? 100_000 : 10_000
/** Of 100 that the account can pay: the kill comes after this many were acknowledged. */
const acknowledgedBefore = 40

interface Site {
  readonly start: () => Promise<GatewayProcess>
  readonly look: () => Sql
}

/** Every second order is answered; the other agents' answers are never given, so that the kill finds orders running. */
const halfAnswering = (): Promise<LoopbackAgent> => {
  let asked = 0
  return stage.agent((response) => { if (asked++ % 2 === 0) response.end("done") })
}

const expectOneOf = async (sql: Sql, replies: ReadonlyArray<Reply | undefined>): Promise<void> => {
  const acknowledged = replies.filter((reply) => reply?.status === 201).map((reply) => reply!.json.id as string)
  expect(acknowledged.length).toBeGreaterThanOrEqual(acknowledgedBefore)
  expect(new Set(acknowledged).size).toBe(acknowledged.length)
  const [row] = await sql<Array<{ count: number }>>`select count(*)::int as count from orders where id = any(${acknowledged}::uuid[])`
  expect(row!.count).toBe(acknowledged.length)
}

const crash = async ({ start, look }: Site): Promise<void> => {
  const [first, agent] = await Promise.all([start(), halfAnswering()])
  const [buyer, seller] = await Promise.all([first.person("1.00"), first.person()])
  const { id } = await first.list(seller, agent.url, "0.01")
  const token = await first.key(buyer)
  const order = (gateway: GatewayProcess): Promise<Reply> => gateway.call("POST", "/v1/orders", { token, body: { agent_id: id, prompt: "work" } })

  let acknowledged = 0
  let killed: Promise<void> | undefined
  const before = await storm(orders, 64, async () => {
    if (killed !== undefined) return killed.then(() => undefined)
    const reply = await order(first)
    if (reply.status === 201 && ++acknowledged === acknowledgedBefore) killed = first.kill9()
    return reply
  })
  await killed
  agent.behave = (response) => response.end("done")

  const second = await start()
  const sql = look()
  await until(async () => (await sql`select from orders where status = 'pending'`).length === 0)
  await expectOneOf(sql, before)
  await expectCleanBooks(sql)
  const ended = await sql<Array<{ id: string; status: string }>>`select id, status from orders`
  const completed = ended.filter(({ status }) => status === "completed").length
  expect(ended.length).toBeGreaterThan(completed)
  expect(await booked(sql, buyer.accountId)).toEqual({ available: 1_000_000n - BigInt(completed) * 10_000n, reserved: 0n })
  // What the dead gateway had sent may reach the agent late; nothing reaches it twice.
  expect(agent.asked).toHaveLength(new Set(agent.asked).size)

  const after = await storm(1_000, 64, () => order(second))
  expect(tally(after)).toEqual({ 201: 100 - completed, 402: 900 + completed })
  await until(async () => (await sql`select from orders where status = 'pending'`).length === 0)
  expect(await booked(sql, buyer.accountId)).toEqual({ available: 0n, reserved: 0n })
  expect(agent.asked).toHaveLength(new Set(agent.asked).size)
  expect(await second.metric("tollgate_holds_open")).toBe(0)
  await expectCleanBooks(sql)
  await sql.end()
  await second.stop()
}

describe("kill -9 of the gateway amid 10,000 orders", () => {
  it("loses and doubles nothing on a database of its own", { timeout: 120_000 }, async () => {
    const { env, sql } = await stage.database()
    await crash({ start: () => stage.gateway(env), look: () => sql })
  })

  it("loses and doubles nothing with the embedded database, which goes down with it", { timeout: 120_000 }, async () => {
    const dataDir = join(stage.directory(), "data")
    mkdirSync(dataDir)
    await crash({
      start: () => stage.gateway({ DATA_DIR: dataDir }),
      look: () => stage.connect({ host: join(dataDir, "postgres"), port: 5432, user: "tollgate", database: "tollgate" })
    })
  })
})
