/**
 * kill -9 of a gateway with a market: calls that were answered are in the books,
 * once; the free tier goes on where it was; and two accounts are one or two.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type GatewayProcess, type Reply, storm, until } from "../support/GatewayProcess.ts"
import { type StageDatabase, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)
const adminSecret = "the operator's own secret"
const adminKey = `acf_0123456789abcdef:sec_${"operator".repeat(6)}`

let database: StageDatabase
beforeAll(async () => { database = await stage.database() })
afterAll(() => expectCleanBooks(database.sql))

const start = (settlement: "record" | "prepaid" = "record"): Promise<GatewayProcess> => stage.gateway({
  ...database.env, ACF_SETTLEMENT: settlement, ACF_ADMIN_SECRET: adminSecret, ACF_ADMIN_KEY: adminKey, ACF_IP_RATE: "1000000", ACF_IP_BURST: "1000000"
})

let owners = 0
interface Owner {
  readonly name: string
  readonly accountId: string
  readonly token: string
}
const owner = async (gateway: GatewayProcess, role: "buyer" | "provider"): Promise<Owner> => {
  const name = `owner-${++owners}`
  const { key_id, secret } = await gateway.ask(201, "POST", "/acf/api/v1/keys", { token: adminKey, body: { owner_id: name, role, rate_limit: 300 } })
  const [row] = await database.sql<Array<{ account_id: string }>>`select account_id from owners where name = ${name}`
  // As many calls as a storm has.
  await database.sql`update api_keys set rate_limit = null where key_prefix = ${key_id}`
  return { name, accountId: row!.account_id, token: `${key_id}:${secret}` }
}
const offer = async (gateway: GatewayProcess, fields: object): Promise<string> => {
  const [{ token }, agent] = await Promise.all([owner(gateway, "provider"), stage.agent()])
  const body = { name: "A service", description: "Scripted", endpoint: agent.url, category: "ai", price_per_call: "0.01", payment_method: "credits", ...fields }
  return (await gateway.ask(201, "POST", "/acf/api/v1/services", { token, body })).id
}
const credit = (gateway: GatewayProcess, { name }: Owner, usd: string): Promise<unknown> =>
  gateway.ask(200, "POST", `/acf/api/v1/admin/credit?buyer_id=${name}&amount=${usd}`, { headers: { "x-admin-key": adminSecret } })
const call = (gateway: GatewayProcess, { token }: Owner, id: string): Promise<Reply> => gateway.call("POST", `/acf/api/v1/proxy/${id}`, { token, body: { text: "x" } })

const freeOf = (replies: ReadonlyArray<Reply | undefined>): number => replies.filter((reply) => reply?.headers["x-acf-free-tier"] === "true").length

describe("the free tier after a restart", () => {
  it("has exactly what is left of it, for 100 calls that come at once and are the first", async () => {
    let gateway = await start()
    const [buyer, id] = await Promise.all([owner(gateway, "buyer"), offer(gateway, { free_tier_calls: 10 })])
    expect(freeOf(await storm(3, 3, () => call(gateway, buyer, id)))).toBe(3)
    // Nothing but the stop itself writes these down.
    await gateway.stop()
    gateway = await start()
    expect(freeOf(await storm(4, 4, () => call(gateway, buyer, id)))).toBe(4)
    // Who asks for its usage makes sure that it is written.
    expect(await gateway.ask(200, "GET", "/acf/api/v1/usage/me", { token: buyer.token })).toMatchObject({ total_calls: 7 })
    await gateway.kill9()
    gateway = await start()
    const replies = await storm(100, 100, () => call(gateway, buyer, id))
    expect(freeOf(replies)).toBe(3)
    expect(await gateway.ask(200, "GET", "/acf/api/v1/usage/me", { token: buyer.token })).toMatchObject({ total_calls: 107, total_spent_usd: "0.97" })
    await gateway.stop()
  })
})

describe("kill -9 straight after an answer", () => {
  it.each(["record", "prepaid"] as const)("(%s) loses no call that was answered with its cost, and has none twice", async (settlement) => {
    const gateway = await start(settlement)
    const [buyer, id] = await Promise.all([owner(gateway, "buyer"), offer(gateway, {})])
    await credit(gateway, buyer, "50")
    let answered = 0
    let killed: Promise<void> | undefined
    const replies = await storm(2_000, 32, async () => {
      if (killed !== undefined) return undefined
      const reply = await call(gateway, buyer, id)
      if (reply.status === 200 && ++answered === 200) killed = gateway.kill9()
      return reply
    })
    await killed
    const told = replies.filter((reply) => reply?.status === 200).map((reply) => String(reply!.headers["x-acf-usage-id"]))
    expect(told.length).toBeGreaterThanOrEqual(200)
    expect(new Set(told).size).toBe(told.length)
    const rows = await database.sql<Array<{ id: string; is_charged: boolean }>>`
      select u.id, t.id is not null as is_charged from usage u join dues d on d.usage_id = u.id and d.amount = u.cost left join transactions t on t.id = u.id and t.available = -u.cost
      where u.account_id = ${buyer.accountId} and u.cost = 10000`
    const booked = new Set(rows.map((row) => row.id))
    expect(booked.size).toBe(rows.length)
    expect(told.filter((each) => !booked.has(each))).toEqual([])
    expect(rows.every(({ is_charged }) => is_charged === (settlement === "prepaid"))).toBe(true)
    const [account] = await database.sql`select available from accounts where id = ${buyer.accountId}`
    expect(account).toEqual({ available: 50_000_000n - (settlement === "prepaid" ? 10_000n * BigInt(rows.length) : 0n) })
    await expectCleanBooks(database.sql)
  })
})

describe("kill -9 amid a link", () => {
  it("leaves two accounts, which may be linked then, or one", async () => {
    let gateway = await start("prepaid")
    const [buyer, person, id] = await Promise.all([owner(gateway, "buyer"), gateway.person("2.00"), offer(gateway, {})])
    await credit(gateway, buyer, "1")
    const body = { dialect: "acf", key: buyer.token }
    await database.sql.begin(async (locked) => {
      await locked`select from earnings where account_id = ${person.accountId} for update`
      const link = expect(gateway.call("POST", "/v1/account/links", { token: person.token, body })).rejects.toThrow()
      await until(async () => (await database.sql`
        select from pg_stat_activity where datname = current_database() and application_name = 'tollgate' and wait_event_type = 'Lock'`).length === 1)
      await gateway.kill9()
      await link
    })
    gateway = await start("prepaid")
    await until(async () => (await database.sql`select from pg_locks l join pg_stat_activity a using (pid) where a.datname = current_database() and not l.granted`).length === 0)
    expect(await gateway.ask(200, "GET", `/acf/api/v1/balance/${buyer.name}`, { token: buyer.token })).toMatchObject({ balance: 1 })
    expect(await gateway.ask(201, "POST", "/v1/account/links", { token: person.token, body })).toMatchObject({ balance_usd: "3.00" })
    await gateway.kill9()
    gateway = await start("prepaid")
    expect((await call(gateway, buyer, id)).status).toBe(200)
    expect(await gateway.ask(201, "POST", "/v1/account/links", { token: person.token, body })).toMatchObject({ balance_usd: "2.99" })
    expect(await gateway.balance(person)).toEqual({ balance_usd: "2.99", reserved_usd: "0.00" })
    await gateway.stop()
  })
})
