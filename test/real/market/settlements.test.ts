/** Settlements over HTTP, on two nodes of one database: no call is in two, none is paid twice, and the books say so. */
import { randomUUID } from "node:crypto"
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest"
import { audit } from "../../../src/store/Audit.ts"
import { type Reply, type World, makeWorld } from "../../support/World.ts"
import { type Owner, type ScriptedService, owner, service } from "../../support/acf.ts"
import { type KernelNode, startKernel } from "../../support/kernelNode.ts"
import { newAccount } from "../../support/ledgerRows.ts"

let world: World
/** Another node, which records what calls cost. */
let other: KernelNode
let admin: Owner
let buyer: Owner
/** Calls the other node: an account is one node's at a time. */
let recordedBuyer: Owner

const hourMs = 3_600_000
const hours = (count: number): string => new Date(Date.now() + count * hourMs).toISOString()

/** An owner who has this much in credits. */
const funded = async (micro: bigint): Promise<Owner> => {
  const name = `owner-${randomUUID()}`
  const accountId = await newAccount(world.sql, micro)
  await world.sql`insert into owners (dialect, name, account_id, created_at) values ('acf', ${name}, ${accountId}, now())`
  return owner(world, { name })
}

beforeAll(async () => {
  world = await makeWorld({ settings: { acfSettlement: "prepaid", webhookAllowHttp: true } })
  other = await startKernel(world.store.options, { acfIpRate: 1_000_000, acfIpBurst: 1_000_000 })
  admin = await owner(world, { role: "admin" })
  buyer = await funded(100_000_000n)
  recordedBuyer = await owner(world)
})
afterAll(async () => {
  await other.stop()
  await world.stop()
})
afterEach(async () => {
  expect((await audit(world.sql)).filter(({ ok }) => !ok)).toEqual([])
})

/** A service whose provider is in this month of the commission, and answers as the path says. */
const provided = async (month: number, price = "0.10"): Promise<ScriptedService> => {
  const provider = await owner(world, { role: "provider" })
  await world.sql`
    insert into agents (id, owner_id, dialect, ticker, name, description, category, endpoint_url, price, auth_tier, status, provider_since, updated_at)
    values (${randomUUID()}, ${provider.accountId}, 'acf', ${`F${randomUUID().slice(0, 8).toUpperCase()}`}, 'Its first', '', 'ai', 'https://first.example.com', 0, 'none', 'removed',
            now() - make_interval(months => ${month - 1}), now())`
  return service(world, provider, { price, respond: ({ url }) => ({ status: Number(/\/(\d{3})$/.exec(url)?.[1] ?? 200) }) })
}
const call = async ({ id }: ScriptedService, status = 200, by = buyer): Promise<void> => {
  expect((await by.call("GET", `/api/v1/proxy/${id}/${status}`)).status).toBe(status)
}
/** By the node that records. */
const callRecorded = async ({ id }: ScriptedService): Promise<void> => {
  const answer = await fetch(`${other.url}/acf/api/v1/proxy/${id}/200`, { headers: { authorization: `Bearer ${recordedBuyer.token}` } })
  expect([answer.status, answer.headers.get("x-acf-amount")]).toEqual([200, "0.10"])
}
const settle = (provider: string, start: string, end: string): Promise<Reply> =>
  admin.call("POST", "/api/v1/settlements", { provider_id: provider, period_start: start, period_end: end })
const settled = async (provider: string, start = hours(-1), end = hours(1)): Promise<any> => {
  const { status, json } = await settle(provider, start, end)
  expect(status).toBe(201)
  return json
}
const pay = (id: string, paymentTx = "0xabc"): Promise<Reply> => admin.call("PATCH", `/api/v1/settlements/${id}/pay`, { payment_tx: paymentTx })
/** A call of the admin's to the other node. */
const elsewhere = async (method: string, path: string, body: object): Promise<{ readonly status: number; readonly json: any }> => {
  const answer = await fetch(`${other.url}/acf${path}`, {
    method, headers: { authorization: `Bearer ${admin.token}`, "content-type": "application/json" }, body: JSON.stringify(body)
  })
  return { status: answer.status, json: await answer.json() }
}
const payElsewhere = (id: string, paymentTx = "0xdef") => elsewhere("PATCH", `/api/v1/settlements/${id}/pay`, { payment_tx: paymentTx })
const has = async ({ accountId }: Owner): Promise<bigint> => {
  const [row] = await world.sql<Array<{ has: bigint }>>`select a.available + e.posted as has from accounts a join earnings e on e.account_id = a.id where a.id = ${accountId}`
  return row!.has
}
const withdrawals = (id: string) => world.sql`select account_id, available from transactions where type = 'withdrawal' and reference = ${`settlement ${id}`}`

describe("a settlement", () => {
  it("takes up every call below 500 of its period, with the commission of its month, and no call twice", async () => {
    const shop = await provided(3)
    await Promise.all([call(shop), call(shop, 404), call(shop, 503)])
    await callRecorded(shop)
    const [start, end] = [hours(-1), hours(1)]
    const first = await settled(shop.owner.name, start, end)
    expect(first).toEqual({
      id: expect.any(String), provider_id: shop.owner.name, total_amount: "0.30", platform_fee: "0.015", net_amount: "0.285", call_count: 3, status: "pending"
    })
    expect(await settle(shop.owner.name, start, end)).toMatchObject({ status: 400, json: { detail: "period_start: the provider has a settlement of this period already" } })
    expect(await settle(shop.owner.accountId, start, end), "by the account's id it is the same provider").toMatchObject({ status: 400 })
    expect(await settled(shop.owner.name, hours(-2), hours(2))).toMatchObject({ total_amount: "0", platform_fee: "0", net_amount: "0", call_count: 0 })
    await call(shop)
    expect(await settled(shop.owner.accountId, hours(-3), hours(1))).toMatchObject({ provider_id: shop.owner.name, total_amount: "0.10", platform_fee: "0.005", call_count: 1 })
  })

  it("has the free calls of a moment ago, which cost nothing", async () => {
    const shop = await provided(4, "0")
    await Promise.all(Array.from({ length: 5 }, () => call(shop)))
    expect(await settled(shop.owner.name)).toMatchObject({ total_amount: "0", platform_fee: "0", call_count: 5 })
  })

  it("begins with its start and ends before its end", async () => {
    const shop = await provided(1)
    await call(shop)
    const [{ called_at: at }] = await world.sql<[{ called_at: Date }]>`select called_at from dues where agent_id = ${shop.id}`
    const ms = (more: number): string => new Date(at.getTime() + more).toISOString()
    expect(await settled(shop.owner.name, hours(-1), ms(0))).toMatchObject({ call_count: 0 })
    expect(await settled(shop.owner.name, ms(1), hours(1))).toMatchObject({ call_count: 0 })
    expect(await settled(shop.owner.name, ms(0), ms(1))).toMatchObject({ call_count: 1, platform_fee: "0" })
  })

  it("of a provider that nobody knows is of nothing, and is paid without moving anything", async () => {
    const name = `nobody's '%_" ${randomUUID()}`
    const made = await settled(name, "2026-03-01", "2026-04-01T00:00:00+02:00")
    expect(made).toMatchObject({ provider_id: name, total_amount: "0", platform_fee: "0", net_amount: "0", call_count: 0, status: "pending" })
    const { json } = await admin.call("GET", `/api/v1/settlements?provider_id=${encodeURIComponent(name)}`)
    const listed = {
      id: made.id, provider_id: name, period_start: "2026-03-01T00:00:00+00:00", period_end: "2026-03-31T22:00:00+00:00",
      total_amount: "0", platform_fee: "0", net_amount: "0", status: "pending", payment_tx: null
    }
    expect(json).toEqual({ settlements: [listed], count: 1 })
    expect(await pay(made.id, "wire 7")).toMatchObject({ status: 200, json: { status: "completed", payment_tx: "wire 7" } })
    expect((await admin.call("GET", `/api/v1/settlements?provider_id=${encodeURIComponent(name)}&status=completed`)).json)
      .toEqual({ settlements: [{ ...listed, status: "completed", payment_tx: "wire 7" }], count: 1 })
    expect(await pay(made.id)).toMatchObject({ status: 404, json: { detail: "Settlement not found or already paid" } })
    expect(await withdrawals(made.id)).toHaveLength(0)
  })

  it.each([
    ["the end before the start", { provider_id: "p", period_start: "2026-03-02", period_end: "2026-03-01" }, 400],
    ["an empty period", { provider_id: "p", period_start: "2026-03-01T01:00:00+01:00", period_end: "2026-03-01T00:00:00Z" }, 400],
    ["a day that is not", { provider_id: "p", period_start: "2026-02-30", period_end: "2026-03-01" }, 422],
    ["no time", { provider_id: "p", period_start: "soon", period_end: "2026-03-01" }, 422],
    ["a number", { provider_id: "p", period_start: 1_773_000_000, period_end: "2026-03-01" }, 422],
    ["no provider", { period_start: "2026-02-01", period_end: "2026-03-01" }, 422],
    ["an empty name", { provider_id: "", period_start: "2026-02-01", period_end: "2026-03-01" }, 422],
    ["a name of 10 kB", { provider_id: "p".repeat(10_000), period_start: "2026-02-01", period_end: "2026-03-01" }, 422],
    ["no object", [], 422]
  ])("with %s is refused", async (_, body, status) => {
    const answer = await admin.call("POST", "/api/v1/settlements", body)
    expect([answer.status, typeof answer.json.detail]).toEqual([status, "string"])
  })

  it("is made and paid by admins alone", async () => {
    const provider = await owner(world, { role: "provider" })
    const body = { provider_id: provider.name, period_start: "2026-03-01", period_end: "2026-04-01" }
    const { id } = await settled(provider.name, "2026-02-01", "2026-03-01")
    for (const { call } of [provider, buyer]) {
      expect((await call("POST", "/api/v1/settlements", body)).status).toBe(403)
      expect((await call("PATCH", `/api/v1/settlements/${id}/pay`, { payment_tx: "x" })).status).toBe(403)
    }
    expect((await world.call("POST", "/acf/api/v1/settlements", { body })).status).toBe(401)
    expect((await world.call("GET", "/acf/api/v1/settlements")).status).toBe(401)
  })
})

describe("the list of settlements", () => {
  it("shows a provider its own, whatever it asks for, an admin all, and a buyer none", async () => {
    const [one, two] = await Promise.all([owner(world, { role: "provider" }), owner(world, { role: "provider" })])
    const ids: Array<string> = []
    for (const [at, { name }] of [one, two, one, two].entries()) ids.push((await settled(name, `2025-0${at + 1}-01`, "2025-09-01")).id)
    await pay(ids[0]!)
    const list = async (by: Owner, query = "") => {
      const { status, json } = await by.call("GET", `/api/v1/settlements${query}`)
      expect([status, json.count]).toEqual([200, json.settlements.length])
      return json.settlements.map(({ id }: { id: string }) => id)
    }
    expect(await list(one)).toEqual([ids[2], ids[0]])
    expect(await list(one, `?provider_id=${two.name}`)).toEqual([ids[2], ids[0]])
    expect(await list(one, "?status=completed")).toEqual([ids[0]])
    expect(await list(one, "?limit=0")).toEqual([ids[2]])
    expect(await list(buyer)).toEqual([])
    expect(await list(admin, "?limit=4")).toEqual([...ids].reverse())
    expect(await list(admin, `?provider_id=${two.name}&limit=1000`)).toEqual([ids[3], ids[1]])
    expect(await list(admin, `?provider_id=${two.accountId}&status=pending`)).toEqual([ids[3], ids[1]])
    expect(await list(admin, "?provider_id=%25")).toEqual([])
    expect((await one.call("GET", "/api/v1/settlements?status=lost")).status).toBe(400)
    expect((await one.call("GET", "/api/v1/settlements?limit=many")).status).toBe(422)
  })
})

describe("many settlements of one provider at once, on two nodes,", () => {
  it("never take up a call twice, and leave out none", async () => {
    const shop = await provided(4, "0.03")
    await Promise.all(Array.from({ length: 40 }, () => call(shop)))
    const dues = await world.sql<Array<{ called_at: Date }>>`select called_at from dues where agent_id = ${shop.id} order by called_at`
    const [first, last] = [dues[0]!.called_at.getTime(), dues.at(-1)!.called_at.getTime()]
    /** Each overlaps most others, and together they cover all. */
    const create = (at: number) => {
      const [start, end] = [new Date(first - at), new Date(last + 1 - Math.floor((last - first) * (at % 7) / 7))]
      const body = { provider_id: shop.owner.name, period_start: start.toISOString(), period_end: end.toISOString() }
      return at % 2 === 0 ? admin.call("POST", "/api/v1/settlements", body) : elsewhere("POST", "/api/v1/settlements", body)
    }
    // While somebody holds the dues as many begin as the nodes have connections.
    const creations = await world.sql.begin(async (sql) => {
      await sql`select from dues where agent_id = ${shop.id} for update`
      const creating = Promise.all(Array.from({ length: 32 }, (_, at) => create(at)))
      await vi.waitFor(async () => {
        const [waiting] = await world.sql`select count(*)::int as settlements from pg_stat_activity where wait_event_type = 'Lock' and query like '%insert into settlements%'`
        expect(waiting!["settlements"]).toBeGreaterThanOrEqual(8)
      }, { timeout: 15_000, interval: 10 })
      return { creating }
    })
    const made = await creations.creating
    expect(new Set(made.map(({ status }) => status))).toEqual(new Set([201]))
    expect(made.reduce((sum, { json }) => sum + json.call_count, 0)).toBe(40)
    const [sums] = await world.sql`
      select sum(s.total)::bigint as total, sum(s.fee)::bigint as fee, sum(s.calls)::bigint as calls,
             (select count(*)::int from dues d where d.agent_id = ${shop.id} and d.settlement_id is null) as open
      from settlements s where s.provider = ${shop.owner.name}`
    expect(sums).toEqual({ total: 1_200_000n, fee: 120_000n, calls: 40n, open: 0 })
  })
})

describe("paying a settlement", () => {
  it("takes what the provider had in credits from there, once, however often and wherever it is paid at once", async () => {
    const shop = await provided(4)
    await Promise.all(Array.from({ length: 10 }, () => call(shop)))
    await callRecorded(shop)
    const { id } = await settled(shop.owner.name)
    expect(await has(shop.owner)).toBe(900_000n)
    const paid = await Promise.all(Array.from({ length: 8 }, (_, at) => at % 2 === 0 ? pay(id, `tx ${at}`) : payElsewhere(id, `tx ${at}`)))
    expect(paid.map(({ status }) => status).sort()).toEqual([200, ...Array.from({ length: 7 }, () => 404)])
    expect(await withdrawals(id)).toEqual([{ account_id: shop.owner.accountId, available: -900_000n }])
    expect(await has(shop.owner)).toBe(0n)
    const winner = paid.findIndex(({ status }) => status === 200)
    const [row] = await world.sql`select status, payment_tx, total, fee, credited from settlements where id = ${id}`
    expect(row).toEqual({ status: "completed", payment_tx: `tx ${winner}`, total: 1_100_000n, fee: 110_000n, credited: 900_000n })
    const log = await world.sql`select actor, details from audit_log where target = ${id} and action = 'settlement.pay' and account_id = ${shop.owner.accountId}`
    expect(log).toEqual([{ actor: expect.stringMatching(/^key:/), details: { payment_tx: `tx ${winner}`, credited: "0.90" } }])
  })

  it("is refused while the provider has spent it, changes nothing then, and works when it is back", async () => {
    const [shop, another] = await Promise.all([provided(1, "0.20"), provided(1, "0.15")])
    await Promise.all([call(shop), call(shop)])
    const { id } = await settled(shop.owner.name)
    await call(another, 200, await owner(world, { name: shop.owner.name }))
    const refused = { status: 400, json: { detail: "settlement: the provider has spent what it was credited: it has 0.25 of 0.40, 0.15 are missing" } }
    expect([await pay(id), await payElsewhere(id)]).toMatchObject([refused, refused])
    expect([await has(shop.owner), (await withdrawals(id)).length]).toEqual([250_000n, 0])
    expect((await shop.owner.call("GET", "/api/v1/settlements")).json.settlements).toMatchObject([{ id, status: "pending", payment_tx: null }])
    // What it earns now is in its credits by this node, and the other one remembers less.
    await call(shop)
    await vi.waitFor(async () => {
      expect((await shop.owner.call("GET", `/api/v1/balance/${shop.owner.name}`)).json).toMatchObject({ balance: 0.45 })
    }, { timeout: 15_000, interval: 100 })
    expect((await payElsewhere(id)).status).toBe(200)
    expect([await has(shop.owner), await withdrawals(id)]).toEqual([50_000n, [{ account_id: shop.owner.accountId, available: -400_000n }]])
  })

  it("that was recorded moves no credits, and the provider's webhook is told of it", async () => {
    const shop = await provided(4)
    const hook = await shop.owner.call("POST", "/api/v1/webhooks", { url: world.endpoint(), events: ["settlement.completed"], secret: "a secret of the receiver" })
    expect(hook.status).toBe(201)
    await callRecorded(shop)
    const { id, net_amount: net } = await settled(shop.owner.name)
    expect([net, (await pay(id)).status, await has(shop.owner), (await withdrawals(id)).length]).toEqual(["0.09", 200, 0n, 0])
    expect(await world.sql`select event, facts from deliveries where webhook_id = ${hook.json.id}`).toEqual([{
      event: "settlement.completed", facts: { settlement_id: id, provider: shop.owner.accountId, total: "100000", fee: "10000", net: "90000", payment_tx: "0xabc" }
    }])
  })

  it("goes on when the provider is suspended: the money has left", async () => {
    const shop = await provided(1)
    await call(shop)
    const { id } = await settled(shop.owner.name)
    await world.alter(shop.owner, (sql) => sql`update accounts set status = 'suspended' where id = ${shop.owner.accountId}`)
    expect([(await pay(id)).status, await has(shop.owner)]).toEqual([200, 0n])
  })

  it("takes it from the account that the provider's was merged into", async () => {
    const shop = await provided(1)
    await call(shop)
    const { id } = await settled(shop.owner.name)
    const person = await world.user()
    expect((await world.call("POST", "/v1/account/links", { token: person.accessToken, body: { dialect: "acf", key: shop.owner.token } })).status).toBe(201)
    expect([(await pay(id)).status, await withdrawals(id)]).toEqual([200, [{ account_id: person.accountId, available: -100_000n }]])
    await call(shop)
    expect(await settled(shop.owner.name, hours(-2), hours(2))).toMatchObject({ provider_id: shop.owner.name, call_count: 1 })
    expect((await shop.owner.call("GET", "/api/v1/settlements")).json.settlements).toMatchObject([{ status: "pending" }, { id, provider_id: shop.owner.name, status: "completed" }])
  })

  it.each([["no body", undefined], ["an empty reference", { payment_tx: "" }], ["a long one", { payment_tx: "x".repeat(201) }], ["a number", { payment_tx: 7 }]])(
    "with %s is refused", async (_, body) => {
      expect((await admin.call("PATCH", `/api/v1/settlements/${randomUUID()}/pay`, body)).status).toBe(422)
    })

  it.each([randomUUID(), "1", "'; select 1", "%", "%00"])("that does not exist (%s) finds nothing", async (id) => {
    expect((await pay(encodeURIComponent(id))).status).toBe(404)
  })
})

describe("a provider's commission", () => {
  const commission = async (name: string) => (await admin.call("GET", `/api/v1/admin/providers/${encodeURIComponent(name)}/commission`)).json

  it("goes by the months since its first service", async () => {
    const shop = await provided(1)
    const since = (at: string) => world.sql`update agents set provider_since = ${at}::timestamptz where owner_id = ${shop.owner.accountId}`
    const midnight = (months: number): string => {
      const today = new Date()
      const day = new Date(Date.UTC(today.getUTCFullYear(), today.getUTCMonth() + months, 1))
      return `${day.toISOString().slice(0, 10)}T00:00:00+00:00`
    }
    await since(midnight(0))
    expect(await commission(shop.owner.name)).toEqual({
      provider_id: shop.owner.name, registered: true, current_rate: "0.00", current_tier: "Month 1 (Free)", registration_date: midnight(0), month_number: 1,
      next_tier_date: midnight(1), next_tier_rate: "0.05"
    })
    await since(midnight(-2))
    expect(await commission(shop.owner.accountId)).toEqual({
      provider_id: shop.owner.name, registered: true, current_rate: "0.05", current_tier: "Months 2-3 (Growth)", registration_date: midnight(-2), month_number: 3,
      next_tier_date: midnight(1), next_tier_rate: "0.10"
    })
    await since(midnight(-3))
    expect(await commission(shop.owner.name)).toEqual({
      provider_id: shop.owner.name, registered: true, current_rate: "0.10", current_tier: "Standard", registration_date: midnight(-3), month_number: 4,
      next_tier_date: null, next_tier_rate: null
    })
  })

  it("is the standard one without a service, and for nobody", async () => {
    const none = { registered: false, current_rate: "0.10", current_tier: "Standard", registration_date: null, month_number: null, next_tier_date: null, next_tier_rate: null }
    for (const name of [buyer.name, "nobody % _ '"]) expect(await commission(name)).toEqual({ provider_id: name, ...none })
    expect((await buyer.call("GET", "/api/v1/admin/providers/x/commission")).status).toBe(403)
  })
})
