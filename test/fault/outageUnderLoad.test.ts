/**
 * The database is away for five seconds in the middle of the day: dozens of
 * callers, free and paid, don't stop calling. Paid calls are told to come back,
 * free ones go on, nothing that was acknowledged is lost, nothing refused is
 * charged, and everything works again without anybody's help.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, describe, expect, it } from "vitest"
import { limits } from "../../src/config.ts"
import { type GatewayProcess, type Person, type Reply, storm, tally, until } from "../support/GatewayProcess.ts"
import { type TestPostgres, familyOf, testPostgres } from "../support/postgres.ts"
import { booked, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)

const outageMs = 5_000
/** What the gateway promises after the database's return is 2 s; a busy machine may need longer for the test's own part. */
const recoveryMs = 10_000
const callersOfEach = 24
const pauseMs = 40

const arrange = async () => {
  const server = await testPostgres()
  stage.onEnd(() => server.stop())
  const { env, options } = await server.freshDatabase()
  const sql = stage.connect(options)
  // The test's servers forget their last moments when they are killed, unless told not to.
  await sql.unsafe(`alter database ${options.database} set synchronous_commit = on`)
  const [gateway, agent] = await Promise.all([stage.gateway(env), stage.agent()])
  const [seller, ...buyers] = await Promise.all([gateway.person(), ...Array.from({ length: 4 }, () => gateway.person("100.00"))])
  const [free, paid] = await Promise.all([gateway.list(seller, agent.url, "0"), gateway.list(seller, agent.url, "0.01")])
  const keys = await Promise.all(buyers.map((buyer) => gateway.key(buyer)))
  return { server, sql, gateway, buyers, free, paid, keys }
}

/** Callers that call until `stop`, each with its own key in turn. */
const load = (gateway: GatewayProcess, keys: ReadonlyArray<string>, ticker: string) => {
  const replies: Array<Reply> = []
  let running = true
  const caller = async (_: unknown, nth: number): Promise<void> => {
    while (running) {
      replies.push(await gateway.call("POST", `/v1/proxy/${ticker}`, { token: keys[nth % keys.length]!, body: { prompt: "work" } }))
      await sleep(pauseMs)
    }
  }
  const callers = Promise.all(Array.from({ length: callersOfEach }, caller))
  return {
    replies,
    /** Resolves when `count` more calls have had this status. */
    more: (count: number, status: number): Promise<void> => {
      const from = replies.length
      return until(async () => replies.slice(from).filter((reply) => reply.status === status).length >= count)
    },
    stop: async () => {
      running = false
      await callers
    }
  }
}

const isReady = async (gateway: GatewayProcess): Promise<boolean> => (await gateway.call("GET", "/ready")).status === 200

type Outage = (server: TestPostgres) => Promise<() => Promise<void>>

const outages: ReadonlyArray<readonly [string, Outage]> = [
  ["shut down at once", async (server) => {
    await server.halt("SIGQUIT")
    return server.start
  }],
  ["frozen", async (server) => {
    const processes = familyOf(server.pid())
    for (const pid of processes) process.kill(pid, "SIGSTOP")
    let frozen = true
    const thaw = async (): Promise<void> => {
      if (frozen) for (const pid of processes) process.kill(pid, "SIGCONT")
      frozen = false
    }
    stage.onEnd(thaw)
    return thaw
  }]
]

describe("Postgres, under load from dozens of callers,", () => {
  it.concurrent.each(outages)("%s for 5 s: paid calls get 503 with Retry-After, free ones go on, nothing acknowledged is lost, service resumes by itself", { timeout: 90_000 }, async (_, outage) => {
    const { server, sql, gateway, buyers, free, paid, keys } = await arrange()
    const [freeLoad, paidLoad] = [load(gateway, keys, free.ticker), load(gateway, keys, paid.ticker)]
    await Promise.all([freeLoad.more(100, 200), paidLoad.more(100, 200)])

    const restore = await outage(server)
    const over = sleep(outageMs)
    await until(async () => !await isReady(gateway))
    const newcomers = await storm(50, 10, (nth) => gateway.call("POST", `/v1/proxy/${paid.ticker}`, { token: keys[nth % keys.length]!, body: { prompt: "work" } }))
    expect(tally(newcomers)).toEqual({ 503: 50 })
    await freeLoad.more(100, 200)
    await over
    await restore()
    const backAt = performance.now()
    await until(() => isReady(gateway))
    await Promise.all([freeLoad.more(100, 200), paidLoad.more(100, 200)])
    expect(performance.now() - backAt).toBeLessThan(recoveryMs)
    await Promise.all([freeLoad.stop(), paidLoad.stop()])

    expect(tally(freeLoad.replies)).toEqual({ 200: freeLoad.replies.length })
    const { 200: passed = 0, 503: refused = 0, ...others } = tally(paidLoad.replies)
    expect([passed + refused, others]).toEqual([paidLoad.replies.length, {}])
    for (const reply of [...newcomers, ...paidLoad.replies]) if (reply?.status === 503) expect(Number(reply.headers["retry-after"])).toBeGreaterThanOrEqual(1)

    expect(await gateway.metric("tollgate_holds_open")).toBe(0)
    const dropped = await gateway.metric("tollgate_usage_dropped_total")
    const connections = await sql`select from pg_stat_activity where datname = current_database() and application_name like 'tollgate%' and application_name <> 'tollgate-test'`
    expect(connections.length).toBeLessThanOrEqual(limits.readConnections + limits.committerConnections + 1)
    await gateway.stop()
    await expectEachPaidOnce(sql, buyers, paidLoad.replies.filter(({ status }) => status === 200), passed)
    // Of what was being written when the database went it is not known whether it was: those rows are not sent again.
    const [usage] = await sql`select count(*)::int as rows from usage where cost = 0 and status = 200`
    expect(usage!.rows).toBeLessThanOrEqual(freeLoad.replies.length)
    expect(usage!.rows).toBeGreaterThanOrEqual(freeLoad.replies.length - dropped)
  })
})

const expectEachPaidOnce = async (sql: Awaited<ReturnType<typeof arrange>>["sql"], buyers: ReadonlyArray<Person>, answered: ReadonlyArray<Reply>, passed: number): Promise<void> => {
  const acknowledged = answered.map((reply) => reply.headers["x-autx-transaction-id"] as string)
  const charged = await sql<Array<{ id: string }>>`select id from transactions where type = 'charge'`
  expect(charged.map(({ id }) => id).sort()).toEqual(acknowledged.sort())
  const balances = await Promise.all(buyers.map(({ accountId }) => booked(sql, accountId)))
  expect(balances.reduce((sum, { available }) => sum + available, 0n)).toBe(100_000_000n * BigInt(buyers.length) - 10_000n * BigInt(passed))
  expect(balances.every(({ reserved }) => reserved === 0n)).toBe(true)
  await expectCleanBooks(sql)
}
