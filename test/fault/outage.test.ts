/**
 * The database goes away and comes back. Meanwhile what needs no database goes
 * on, what needs it is refused with a time to come back, and afterwards the
 * gateway works again without anybody's help, having lost nothing it had
 * acknowledged.
 */
import { describe, expect, it } from "vitest"
import type { Sql } from "../../src/store/Postgres.ts"
import { type GatewayProcess, type Person, type Reply, password, storm, tally, until } from "../support/GatewayProcess.ts"
import { type CutProxy, startCutProxy } from "../support/CutProxy.ts"
import { familyOf, testPostgres } from "../support/postgres.ts"
import { booked, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage()

const arrange = async (env: Readonly<Record<string, string>>) => {
  const [gateway, agent] = await Promise.all([stage.gateway(env), stage.agent()])
  const [payer, seller] = await Promise.all([gateway.person("10.00"), gateway.person()])
  const [free, paid] = await Promise.all([gateway.list(seller, agent.url, "0"), gateway.list(seller, agent.url, "0.01")])
  const token = await gateway.key(payer)
  const call = { body: { prompt: "work" } }
  const callPaid = (): Promise<Reply> => gateway.call("POST", `/v1/proxy/${paid.ticker}`, { token, ...call })
  const callFree = (): Promise<Reply> => gateway.call("POST", `/v1/proxy/${free.ticker}`, { token, ...call })
  const order = (): Promise<Reply> => gateway.call("POST", "/v1/orders", { token, body: { agent_id: paid.id, prompt: "work" } })
  // The node knows keys, accounts, agents and their tokens from here on.
  expect([(await callFree()).status, (await callPaid()).status]).toEqual([200, 200])
  return { gateway, payer, callFree, callPaid, order }
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

const charges = async (sql: Sql, { accountId }: Person): Promise<number> =>
  (await sql`select from transactions where account_id = ${accountId} and type = 'charge'`).length

describe("while the database refuses connections", () => {
  it("free calls of known keys go on, paid ones and orders get 503 with Retry-After, and the node is not ready", { timeout: 60_000 }, async () => {
    const { proxy, sql, gateway, payer, callFree, callPaid, order } = await throughProxy()
    proxy.sever()
    expectToComeBack(await callPaid()) // The first finds out.
    expect(await isReady(gateway)).toBe(false)
    for (const reply of await Promise.all([callPaid(), order(), gateway.call("GET", "/v1/credits/balance", { token: payer.token })])) expectToComeBack(reply)
    expect((await callFree()).status).toBe(200)
    await until(async () => gateway.stderr().includes("usage rows not written"))
    expect(tally(await storm(200, 16, callFree))).toEqual({ 200: 200 })
    expect((await gateway.call("GET", "/health")).status).toBe(200)
    expect(await gateway.metric("tollgate_holds_open")).toBe(0)

    proxy.restore()
    await until(() => isReady(gateway))
    expect(tally(await storm(50, 16, callPaid))).toEqual({ 200: 50 })
    // What was being written when the database went may be lost, the refused call and the free one after it; nothing later is.
    const dropped = await gateway.metric("tollgate_usage_dropped_total")
    expect(dropped).toBeLessThanOrEqual(2)
    await gateway.stop()
    const [usage] = await sql`select count(*)::int as rows, count(*) filter (where cost > 0)::int as charged from usage`
    expect(usage!["charged"]).toBe(51)
    // A row counts as dropped too when it can't be learned whether it was written, and the refused call has none while it may still be charged.
    expect(usage!["rows"]).toBeGreaterThanOrEqual(1 + 200 + 51 + 1 - dropped)
    expect(usage!["rows"]).toBeLessThanOrEqual(1 + 1 + 200 + 51 + 1)
    expect(await booked(sql, payer.accountId)).toEqual({ available: 10_000_000n - 510_000n, reserved: 0n })
    await expectCleanBooks(sql)
  })
})

describe("while the database is away", () => {
  it("an unknown key is not called wrong, nor an unknown agent missing, nor a login refused: 503, until it is known again", { timeout: 60_000 }, async () => {
    const { proxy, gateway, payer, callFree } = await throughProxy()
    const strangers = (): Promise<ReadonlyArray<Reply>> => Promise.all([
      gateway.call("POST", "/v1/proxy/NOBODY", { token: `autx_live_${"x".repeat(43)}`, body: {} }),
      gateway.call("POST", "/v1/proxy/NOBODY", { token: payer.token, body: {} }),
      gateway.call("POST", "/v1/auth/login", { body: { email: "nobody@example.com", password } }),
      gateway.call("GET", "/v1/api-keys", { token: payer.token })
    ])
    proxy.sever()
    for (const reply of await strangers()) expectToComeBack(reply)
    expect((await callFree()).status).toBe(200)
    proxy.restore()
    await until(async () => (await strangers()).every(({ status }) => status !== 503))
    expect((await strangers()).map(({ status }) => status)).toEqual([401, 404, 401, 200])
  })

  it("a node that nobody asks to charge finds out by itself that it is not ready, and that it is again", async () => {
    const { proxy, gateway } = await throughProxy()
    expect(await isReady(gateway)).toBe(true)
    proxy.sever()
    await until(async () => !await isReady(gateway))
    proxy.restore()
    await until(() => isReady(gateway))
  })
})

describe("connections cut amid paid calls", () => {
  it.each<[string, (proxy: CutProxy) => void]>([
    ["all at once", (proxy) => { proxy.sever(); proxy.restore() }],
    ["when a batch was executed and not acknowledged", (proxy) => { void proxy.arm("beforeAnswer", ",charge,") }],
    ["before a batch arrived", (proxy) => { void proxy.arm("beforeSend", ",charge,") }]
  ])("%s, lose no charge that was answered and make none that was refused", async (_, cut) => {
    const { proxy, sql, gateway, payer, callPaid } = await throughProxy()
    let answered = 0
    const replies = await storm(600, 32, async () => {
      const reply = await callPaid()
      if (++answered % 100 === 0 && answered < 600) cut(proxy)
      return reply
    })
    await until(() => isReady(gateway))
    await until(async () => (await callPaid()).status === 200) // A cut may have been waiting for this one.
    const { 200: passed = 0, 503: refused = 0, ...others } = tally(replies)
    expect(others).toEqual({})
    expect(refused).toBeGreaterThan(0)
    await gateway.stop()
    expect(await charges(sql, payer)).toBe(passed + 2)
    await expectCleanBooks(sql)
  })
})

describe("a connection that ends in the middle of a transaction", () => {
  it("fails its caller, and nobody else", async () => {
    const { sql, gateway, payer, callPaid } = await throughProxy()
    let asked!: Promise<Reply>
    await sql.begin(async (locked) => {
      await locked`select from users where account_id = ${payer.accountId} for update`
      asked = gateway.call("POST", "/v1/auth/password", { token: payer.token, body: { current_password: password, new_password: "another horse" } })
      await until(async () => (await sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = 'tollgate' and wait_event_type = 'Lock'`).length === 1)
    })
    expectToComeBack(await asked)
    expect((await callPaid()).status).toBe(200)
    await gateway.stop()
  })
})

describe("a database server that", () => {
  const ownServer = async () => {
    const server = await testPostgres()
    stage.onEnd(() => server.stop())
    const { env, options } = await server.freshDatabase()
    const sql = stage.connect(options)
    // The test's servers forget their last moments when they are killed, unless told not to.
    await sql.unsafe(`alter database ${options.database} set synchronous_commit = on`)
    return { server, sql, ...await arrange(env) }
  }

  it("dies is worked with again when it is back", async () => {
    const { server, sql, gateway, payer, callFree, callPaid } = await ownServer()
    const back = server.kill9()
    // It may be back before the call's batch is sent once more.
    const during = await callPaid()
    if (during.status !== 200) expectToComeBack(during)
    expect((await callFree()).status).toBe(200)
    await back
    await until(() => isReady(gateway))
    expect((await callPaid()).status).toBe(200)
    await gateway.stop()
    expect(await charges(sql, payer)).toBe(during.status === 200 ? 3 : 2)
    await expectCleanBooks(sql)
  })

  it("freezes is refused more work, and goes on where it stopped", async () => {
    const { server, sql, gateway, payer, callFree, callPaid } = await ownServer()
    const processes = familyOf(server.pid())
    for (const pid of processes) process.kill(pid, "SIGSTOP")
    try {
      const waiting = callPaid()
      await until(async () => !await isReady(gateway))
      expectToComeBack(await callPaid())
      expect((await callFree()).status).toBe(200)
      for (const pid of processes) process.kill(pid, "SIGCONT")
      expect((await waiting).status).toBe(200)
    } finally {
      for (const pid of processes) process.kill(pid, "SIGCONT")
    }
    await until(() => isReady(gateway))
    expect((await callPaid()).status).toBe(200)
    await gateway.stop()
    expect(await charges(sql, payer)).toBe(3)
    await expectCleanBooks(sql)
  })
})
