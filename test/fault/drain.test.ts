/**
 * Ctrl-C. Whoever was being served is served to the end, nobody new is, and
 * what was buffered is written before the process ends well.
 */
import { once } from "node:events"
import { connect } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { describe, expect, it } from "vitest"
import { until } from "../support/GatewayProcess.ts"
import { booked, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage()

const arrange = async () => {
  const { env, sql } = await stage.database()
  const [gateway, agent, slow] = await Promise.all([stage.gateway(env), stage.agent(), stage.agent()])
  const [buyer, seller] = await Promise.all([gateway.person("1.00"), gateway.person()])
  const [free, paid, ordered] = await Promise.all([gateway.list(seller, agent.url, "0"), gateway.list(seller, agent.url, "0.03"), gateway.list(seller, slow.url, "0.03")])
  agent.keep()
  slow.keep()
  const { token } = buyer
  const calls = [
    gateway.call("POST", `/v1/proxy/${free.ticker}`, { token, body: { prompt: "work" } }),
    gateway.call("POST", `/v1/proxy/${paid.ticker}`, { token, body: { prompt: "work" } })
  ]
  const order = await gateway.ask(201, "POST", "/v1/orders", { token, body: { agent_id: ordered.id, prompt: "work" } })
  await Promise.all([agent.seen(2), slow.seen(1)])
  return { env, sql, gateway, agent, slow, buyer, calls, order }
}

/** Whether a new connection is taken. */
const isOpen = async (port: number): Promise<boolean> => {
  const socket = connect(port, "127.0.0.1")
  try {
    await once(socket, "connect")
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

describe("the first SIGINT", () => {
  it("refuses new connections, lets calls and orders finish, writes what is buffered and ends with 0", async () => {
    const { sql, gateway, agent, slow, buyer, calls, order } = await arrange()
    gateway.signal("SIGINT")
    await until(async () => !await isOpen(gateway.port))
    agent.release()

    const [free, paid] = await Promise.all(calls)
    expect([free!.status, free!.text]).toEqual([200, "done"])
    expect(paid).toMatchObject({ status: 200, text: "done", headers: { "x-autx-cost-usd": "0.03" } })
    await sleep(500) // The order's agent works on when all calls are answered.
    slow.release()
    expect(await gateway.ended).toBe(0)
    expect(await sql`select status, output_text from orders where id = ${order.id}`).toEqual([{ status: "completed", output_text: "done" }])
    expect(await booked(sql, buyer.accountId)).toEqual({ available: 940_000n, reserved: 0n })
    expect(await sql`select call, status, cost from usage order by call, cost`).toEqual([
      { call: "order", status: 200, cost: 30_000n }, { call: "proxy", status: 200, cost: 0n }, { call: "proxy", status: 200, cost: 30_000n }
    ])
    await expectCleanBooks(sql)
  })
})

describe("a second SIGINT", () => {
  it("ends at once, and what it cuts off is put right by the next start", async () => {
    const { env, sql, gateway, slow, buyer, calls, order } = await arrange()
    const cut = Promise.all(calls.map((call) => expect(call).rejects.toThrow()))
    gateway.signal("SIGINT")
    await until(async () => !await isOpen(gateway.port))
    gateway.signal("SIGINT")
    expect(await gateway.ended).toBe(1)
    await cut

    const next = await stage.gateway(env)
    await until(async () => (await sql`select from orders where status = 'pending'`).length === 0)
    expect(await sql`select status from orders where id = ${order.id}`).toEqual([{ status: "failed" }])
    expect(await next.balance(buyer)).toEqual({ balance_usd: "1.00", reserved_usd: "0.00" })
    expect(slow.asked).toEqual([order.id])
    await expectCleanBooks(sql)
  })
})
