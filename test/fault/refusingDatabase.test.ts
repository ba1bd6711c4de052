/**
 * A database that answers and takes nothing: read-only, as after a failover or
 * by its keeper's hand, or out of disk space. It counts as away, so that no
 * agent works for a call that can't be charged, and as back when it takes a
 * write again.
 */
import { describe, expect, it } from "vitest"
import { type GatewayProcess, type Reply, storm, tally, until } from "../support/GatewayProcess.ts"
import { testPostgres } from "../support/postgres.ts"
import { type StageDatabase, booked, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage()

const isReady = async (gateway: GatewayProcess): Promise<boolean> => (await gateway.call("GET", "/ready")).status === 200

interface Trouble {
  readonly begin: () => Promise<unknown>
  readonly end: () => Promise<unknown>
}

const expectRefusedAndBack = async ({ env, sql }: StageDatabase, { begin, end }: Trouble): Promise<void> => {
  const [gateway, agent] = await Promise.all([stage.gateway(env), stage.agent()])
  const [payer, seller] = await Promise.all([gateway.person("10.00"), gateway.person()])
  const [free, paid] = await Promise.all([gateway.list(seller, agent.url, "0"), gateway.list(seller, agent.url, "0.01")])
  const token = await gateway.key(payer)
  const call = ({ ticker }: { readonly ticker: string }): Promise<Reply> => gateway.call("POST", `/v1/proxy/${ticker}`, { token, body: { prompt: "work" } })
  expect([(await call(free)).status, (await call(paid)).status]).toEqual([200, 200])

  await begin()
  // The first finds out; after it no agent works in vain.
  expect((await call(paid)).status).toBe(503)
  await until(async () => !await isReady(gateway))
  const asked = agent.asked.length
  const refused = [...await storm(20, 4, () => call(paid)), await gateway.call("POST", "/v1/orders", { token, body: { agent_id: paid.id, prompt: "work" } })]
  expect(tally(refused)).toEqual({ 503: 21 })
  for (const reply of refused) expect(Number(reply!.headers["retry-after"])).toBeGreaterThanOrEqual(1)
  expect(agent.asked).toHaveLength(asked)
  expect(tally(await storm(20, 4, () => call(free)))).toEqual({ 200: 20 })
  expect(await isReady(gateway)).toBe(false)
  expect(await gateway.metric("tollgate_holds_open")).toBe(0)

  await end()
  await until(() => isReady(gateway))
  await until(async () => (await call(paid)).status === 200)
  expect(tally(await storm(20, 4, () => call(paid)))).toEqual({ 200: 20 })
  expect(await gateway.balance(payer)).toEqual({ balance_usd: "9.78", reserved_usd: "0.00" })
  await gateway.stop()
  expect(await booked(sql, payer.accountId)).toEqual({ available: 9_780_000n, reserved: 0n })
  await expectCleanBooks(sql)
}

describe("paid calls get 503 with Retry-After, free ones go on, and service resumes by itself, when the database", () => {
  const ownServer = async () => {
    const server = await testPostgres()
    stage.onEnd(() => server.stop())
    const { env, options } = await server.freshDatabase()
    return { env, options, sql: stage.connect(options), admin: stage.connect({ ...options, user: "postgres" }) }
  }

  it("becomes read-only as a whole, and writable again", async () => {
    const { admin, ...database } = await ownServer()
    const become = async (readOnly: "on" | "off"): Promise<void> => {
      await admin.unsafe(`alter system set default_transaction_read_only = ${readOnly}`)
      await admin`select pg_reload_conf()`
    }
    await expectRefusedAndBack(database, { begin: () => become("on"), end: () => become("off") })
  })

  it("becomes read-only for connections made from then on, and writable for new ones again", async () => {
    const database = await stage.database()
    const name = database.options.database
    const endConnections = () => database.sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${name} and application_name in ('tollgate', 'tollgate-committer')`
    await expectRefusedAndBack(database, {
      begin: async () => {
        await database.sql.unsafe(`alter database ${name} set default_transaction_read_only = on`)
        await endConnections()
      },
      end: () => database.sql.begin((sql) => sql.unsafe(`set transaction read write; alter database ${name} reset default_transaction_read_only`))
    })
  })

  it("has no disk space left, and has some again", async () => {
    const database = await stage.database()
    await expectRefusedAndBack(database, {
      begin: async () => {
        await database.sql.unsafe(`create function full_disk() returns trigger language plpgsql as
          $$ begin raise exception 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$`)
        await database.sql.unsafe("create trigger full_disk before insert on batches execute function full_disk()")
      },
      end: () => database.sql.unsafe("drop trigger full_disk on batches")
    })
  })
})
