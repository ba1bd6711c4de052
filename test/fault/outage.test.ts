/**
 * The database goes away and comes back. Meanwhile what needs no database goes
 * on, what needs it is refused with a time to come back, and afterwards the
 * gateway works again without anybody's help, having lost nothing it had
 * acknowledged.
 */
import { describe, expect, it } from "vitest"
import { type GatewayProcess, type Reply, storm, tally, until } from "../support/GatewayProcess.ts"
import { type CutProxy, startCutProxy } from "../support/CutProxy.ts"
import { testPostgres } from "../support/postgres.ts"
import { booked, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage()

const arrange = async (env: Readonly<Record<string, string>>) => {
  const [gateway, agent] = await Promise.all([stage.gateway(env), stage.agent()])
  const [buyer, seller] = await Promise.all([gateway.person("10.00"), gateway.person()])
  const [free, paid] = await Promise.all([gateway.list(seller, agent.url, "0"), gateway.list(seller, agent.url, "0.01")])
  const token = await gateway.key(buyer)
  const callTo = ({ ticker }: { readonly ticker: string }) => (): Promise<Reply> => gateway.call("POST", `/v1/proxy/${ticker}`, { token, body: { prompt: "work" } })
  const order = (): Promise<Reply> => gateway.call("POST", "/v1/orders", { token, body: { agent_id: paid.id, prompt: "work" } })
  // The key, its account, its agents and their tokens are known to the node from here on.
  expect([(await callTo(free)()).status, (await callTo(paid)()).status]).toEqual([200, 200])
  return { gateway, agent, buyer, token, callFree: callTo(free), callPaid: callTo(paid), order }
}

const throughProxy = async () => {
  const { env, options, sql } = await stage.database()
  const proxy = await startCutProxy(options)
  stage.onEnd(() => proxy.close())
  return { proxy, sql, ...await arrange({ ...env, PGHOST: proxy.options.host }) }
}

const isReady = async (gateway: GatewayProcess): Promise<boolean> => (await gateway.call("GET", "/ready")).status === 200

const expectToComeBack = (reply: Reply): void => {
  expect(reply.status).toBe(503)
  expect(Number(reply.headers["retry-after"])).toBeGreaterThanOrEqual(1)
}

const callsCharged = (replies: ReadonlyArray<Reply | undefined>): number => replies.filter((reply) => reply?.status === 200).length

describe("while the database is away", () => {
  it("free calls of known keys go on, paid ones and orders get 503 with Retry-After, and the node is not ready", async () => {
    const { proxy, sql, gateway, buyer, callFree, callPaid, order } = await throughProxy()
    proxy.sever()
    expectToComeBack(await callPaid()) // The first finds out; its hold is released.
    expect(await isReady(gateway)).toBe(false)
    for (const reply of await Promise.all([callPaid(), order()])) expectToComeBack(reply!)
    expect(tally(await storm(200, 16, callFree))).toEqual({ 200: 200 })
    expectToComeBack(await gateway.call("GET", "/v1/credits/balance", { token: buyer.token }))
    expect((await gateway.call("GET", "/health")).status).toBe(200)
    expect(await gateway.metric("tollgate_holds_open")).toBe(0)

    proxy.restore()
    await until(() => isReady(gateway))
    await until(async () => (await callPaid()).status === 200)
    expect(tally(await storm(50, 16, callPaid))).toEqual({ 200: 50 })
    await gateway.stop()
    const [usage] = await sql<Array<{ free: number; charged: number }>>`select count(*) filter (where cost = 0 and status = 200)::int as free, count(*) filter (where cost > 0)::int as charged from usage`
    expect(usage).toEqual({ free: 201, charged: 52 })
    expect(await booked(sql, buyer.accountId)).toEqual({ available: 10_000_000n - 520_000n, reserved: 0n })
    await expectCleanBooks(sql)
  })
})

describe("an outage amid paid calls", () => {
  const amid = async (sever: (proxy: CutProxy) => Promise<unknown>) => {
    const { proxy, sql, gateway, buyer, callPaid } = await throughProxy()
    let answered = 0
    let away: Promise<unknown> | undefined
    const replies = await storm(400, 32, async () => {
      const reply = await callPaid()
      if (++answered === 100) away = sever(proxy)
      return reply
    })
    await away
    await until(() => isReady(gateway))
    expect(Object.keys(tally(replies)).filter((status) => status !== "200")).toEqual(["503"])
    await until(async () => (await callPaid()).status === 200)
    // A retry may have been refused while the account was activated again; each 200 so far is in the books, and nothing else is.
    await gateway.stop()
    const [row] = await sql<Array<{ count: number }>>`select count(*)::int as count from transactions where account_id = ${buyer.accountId} and type = 'charge'`
    return { sql, row: row!, acknowledged: callsCharged(replies) + 2, gateway }
  }

  it("loses nothing that was answered, and charges nothing that was refused", async () => {
    const { sql, row, acknowledged } = await amid(async (proxy) => {
      proxy.sever()
      proxy.restore()
    })
    expect(row.count).toBe(acknowledged)
    await expectCleanBooks(sql)
  })

  it("whose last batch was executed but not acknowledged is answered by what the database says", async () => {
    const { sql, row, acknowledged } = await amid((proxy) => proxy.arm("beforeAnswer", "insert into batches"))
    expect(row.count).toBe(acknowledged)
    await expectCleanBooks(sql)
  })
})

describe("a database server that dies", () => {
  it("is worked with again as soon as it is back", async () => {
    const server = await testPostgres()
    stage.onEnd(() => server.stop())
    const { env, options } = await server.freshDatabase()
    const { gateway, callFree, callPaid } = await arrange(env)
    await server.kill9()
    expect((await callFree()).status).toBe(200)
    await until(async () => (await callPaid()).status === 200)
    await until(() => isReady(gateway))
    await gateway.stop()
    await expectCleanBooks(stage.connect(options))
  })
})
