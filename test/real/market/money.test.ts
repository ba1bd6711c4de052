/**
 * What calls of services cost: recorded, or taken from credits and shared; and
 * that a service and an agent are one thing, on their own terms, by whichever
 * product they are called.
 */
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Owner, type ScriptedService, adminSecret, credit, owner, service } from "../../support/acf.ts"
import { ChatSocket } from "../../support/ChatSocket.ts"
import { type Person, type Reply, type World, makeWorld } from "../../support/World.ts"

let recording: World
let prepaid: World
beforeAll(async () => {
  [recording, prepaid] = await Promise.all([
    makeWorld({ settings: { acfAdminSecret: adminSecret } }),
    makeWorld({ settings: { acfSettlement: "prepaid", acfAdminSecret: adminSecret, proxyBilling: "paid" } })
  ])
})
afterAll(async () => {
  for (const world of [recording, prepaid]) {
    expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])
    await world.stop()
  }
})

const call = (by: Owner, { id }: { readonly id: string }, headers?: Readonly<Record<string, string>>): Promise<Reply> => by.call("POST", `/api/v1/proxy/${id}`, { text: "x" }, headers)
const balanceOf = async (by: Owner): Promise<number> => (await by.call("GET", `/api/v1/balance/${by.name}`)).json.balance
const usageOf = async (by: Owner): Promise<object> => (await by.call("GET", "/api/v1/usage/me")).json
const amounts = (replies: ReadonlyArray<Reply>) => replies.map(({ status, headers }) => [status, headers.get("x-acf-amount")])

interface Row { id: string; status: number; cost: bigint; recorded: boolean; fee: bigint | null; amount: bigint | null; charged: bigint | null; earned: bigint | null; kept: bigint | null; buyback: bigint | null }
/** A buyer's calls with what is owed for each and what it moved, oldest first. */
const rowsOf = async (world: World, buyer: Owner): Promise<ReadonlyArray<Row>> => {
  // Who asks for its usage gets all of it, and so it is written.
  await usageOf(buyer)
  return world.sql<Array<Row>>`
    select u.id, u.status, u.cost, u.recorded, d.fee, d.amount, t.available as charged, t.earned, t.fee as kept, t.buyback
    from usage u left join dues d on d.usage_id = u.id left join transactions t on t.id = u.id where u.account_id = ${buyer.accountId} order by u.id`
}

/** Makes a provider one of that many months. */
const age = (world: World, { accountId }: Owner, months: number) => world.sql.begin(async (sql) => {
  const agents = await sql<Array<{ id: string }>>`
    update agents set provider_since = now() - ${months} * interval '1 month' - interval '1 day', version = version + 1 where owner_id = ${accountId} returning id`
  for (const { id } of agents) await sql`select pg_notify('tollgate_changed', ${`agent:${id}`})`
})
/** A provider whose month is known to the gateway by now, with a service of its. */
const seller = async (world: World, months: number, options: Parameters<typeof service>[2] = {}): Promise<{ readonly provider: Owner; readonly sold: ScriptedService }> => {
  const provider = await owner(world, { role: "provider" })
  const sold = await service(world, provider, { price: "0.000099", ...options })
  await age(world, provider, months)
  // What is PATCHed is read anew.
  await provider.call("PATCH", `/api/v1/services/${sold.id}`, { description: "aged" })
  return { provider, sold }
}

describe("a recorded call", () => {
  it("is in usage and owed to its provider at the rate of its month, and moves no credits", async () => {
    const buyer = await owner(recording)
    await credit(recording, buyer, "1")
    const sellers = await Promise.all([0, 1, 4].map((months) => seller(recording, months)))
    const replies: Array<Reply> = []
    for (const { sold } of sellers) replies.push(await call(buyer, sold))
    expect(amounts(replies)).toEqual([[200, "0.000099"], [200, "0.000099"], [200, "0.000099"]])
    const rows = await rowsOf(recording, buyer)
    expect(rows.map(({ id }) => id).sort()).toEqual(replies.map(({ headers }) => headers.get("x-acf-usage-id")!).sort())
    expect(rows.map(({ cost, recorded, amount, fee, charged }) => [cost, recorded, amount, fee, charged])).toEqual([
      [99n, true, 99n, 0n, null], [99n, true, 99n, 5n, null], [99n, true, 99n, 10n, null]
    ])
    expect(await usageOf(buyer)).toMatchObject({ buyer_id: buyer.name, total_calls: 3, total_spent_usd: "0.000297" })
    expect((await buyer.call("GET", `/api/v1/balance/${buyer.name}`)).json).toEqual({ buyer_id: buyer.name, balance: 1, total_deposited: 1, total_spent: 0 })
  })

  it("costs and owes nothing when the provider answers 500, and what it answers below is owed", async () => {
    const buyer = await owner(recording)
    const statuses = [500, 404, 302]
    const sold = await service(recording, await owner(recording, { role: "provider" }), { respond: () => ({ status: statuses.shift()! }) })
    expect(amounts([await call(buyer, sold), await call(buyer, sold), await call(buyer, sold)])).toEqual([[500, "0"], [404, "0.05"], [302, "0.05"]])
    expect(await usageOf(buyer)).toMatchObject({ total_calls: 3, total_spent_usd: "0.10" })
    expect((await rowsOf(recording, buyer)).map(({ status, cost, amount }) => [status, cost, amount])).toEqual([[500, 0n, null], [404, 50_000n, 50_000n], [302, 50_000n, 50_000n]])
  })

  it("needs no credits, and is durable when it is answered", async () => {
    const [buyer, sold] = await Promise.all([owner(recording), owner(recording, { role: "provider" }).then((provider) => service(recording, provider))])
    const rows = await Promise.all(Array.from({ length: 20 }, async () => {
      const id = (await call(buyer, sold)).headers.get("x-acf-usage-id")!
      return recording.sql`select from usage u join dues d on d.usage_id = u.id where u.id = ${id} and u.cost = 50000`
    }))
    expect(rows.map(({ length }) => length)).toEqual(Array.from({ length: 20 }, () => 1))
    expect(await balanceOf(buyer)).toBe(0)
  })

  it("with an idempotency key is one call: the second repeats its answer and its bill", async () => {
    const [buyer, sold] = await Promise.all([owner(recording), owner(recording, { role: "provider" }).then((provider) => service(recording, provider))])
    const key = { "idempotency-key": randomUUID() }
    const [first, second] = [await call(buyer, sold, key), await call(buyer, sold, key)]
    expect([first, second].map(({ status, text, headers }) => [status, text, headers.get("x-acf-usage-id"), headers.get("idempotent-replayed")])).toEqual([
      [200, first.text, first.headers.get("x-acf-usage-id"), null], [200, first.text, first.headers.get("x-acf-usage-id"), "true"]
    ])
    expect((await buyer.call("POST", `/api/v1/proxy/${sold.id}/other`, { text: "x" }, key)).status).toBe(409)
    expect(sold.asked).toHaveLength(1)
    expect(await rowsOf(recording, buyer)).toHaveLength(1)
  })
})

describe("a database that is cut while a call is recorded or charged", () => {
  it.each(["record", "prepaid"] as const)("(%s) after the statement was sent: the caller is told the truth, and it is in the books once", async (mode) => {
    const world = mode === "record" ? recording : prepaid
    const [buyer, sold] = await Promise.all([owner(world), owner(world, { role: "provider" }).then((provider) => service(world, provider))])
    await credit(world, buyer, "1")
    expect((await call(buyer, sold)).status).toBe(200)
    for (const cut of ["beforeAnswer", "beforeSend"] as const) {
      const before = (await rowsOf(world, buyer)).filter(({ cost }) => cost > 0n).length
      const cutting = world.store.arm(cut, buyer.accountId)
      const reply = await call(buyer, sold)
      await cutting
      const after = (await rowsOf(world, buyer)).filter(({ cost }) => cost > 0n)
      if (reply.status === 200) expect(after.slice(before).map(({ id }) => id)).toEqual([reply.headers.get("x-acf-usage-id")])
      else {
        expect(reply.status).toBe(503)
        expect(Number(reply.headers.get("retry-after"))).toBeGreaterThanOrEqual(1)
        // "Nothing was charged" is only said where that is so.
        if (!reply.json.detail.includes("not known")) expect(after).toHaveLength(before)
      }
    }
    let again = await call(buyer, sold)
    while (again.status === 503) again = await call(buyer, sold)
    expect(again.status).toBe(200)
    const paid = (await rowsOf(world, buyer)).filter(({ cost }) => cost > 0n).length
    expect(await usageOf(buyer)).toMatchObject({ total_spent_usd: (paid * 5 / 100).toFixed(2) })
    expect(await balanceOf(buyer)).toBe(mode === "record" ? 1 : (100 - paid * 5) / 100)
  })
})

describe("a prepaid call", () => {
  it("is taken from credits once, and shared by the provider's month to the micro-dollar", async () => {
    const buyer = await owner(prepaid)
    await credit(prepaid, buyer, "1")
    const sellers = await Promise.all([0, 1, 4].map((months) => seller(prepaid, months)))
    const replies: Array<Reply> = []
    for (const { sold } of sellers) replies.push(await call(buyer, sold))
    expect(amounts(replies)).toEqual([[200, "0.000099"], [200, "0.000099"], [200, "0.000099"]])
    const rows = await rowsOf(prepaid, buyer)
    expect(rows.map(({ cost, recorded, amount, fee, charged, earned, kept, buyback }) => [cost, recorded, amount, fee, charged, earned, kept, buyback])).toEqual([
      [99n, false, 99n, 0n, -99n, 99n, 0n, 0n], [99n, false, 99n, 5n, -99n, 94n, 5n, 0n], [99n, false, 99n, 10n, -99n, 89n, 10n, 0n]
    ])
    expect(await balanceOf(buyer)).toBe(0.999703)
    expect(await Promise.all(sellers.map(({ provider }) => balanceOf(provider)))).toEqual([0.000099, 0.000094, 0.000089])
    expect(await usageOf(buyer)).toMatchObject({ total_calls: 3, total_spent_usd: "0.000297" })
  })

  it("beyond the credits is 402, with a challenge only for a service that takes x402; 200 at once never overdraw", async () => {
    const buyer = await owner(prepaid)
    await credit(prepaid, buyer, "0.5")
    const provider = await owner(prepaid, { role: "provider" })
    const methods = ["x402", "both", "paypal", "nowpayments", "stripe", "credits"]
    const services = await Promise.all(methods.map((paymentMethod) => service(prepaid, provider, { paymentMethod })))
    const replies = await Promise.all(Array.from({ length: 200 }, (_, n) => call(buyer, services[n % services.length]!)))
    expect(replies.map(({ status }) => status).sort()).toEqual([...Array<number>(10).fill(200), ...Array<number>(190).fill(402)])
    expect(await balanceOf(buyer)).toBe(0)
    expect((await rowsOf(prepaid, buyer)).map(({ cost }) => cost)).toEqual(Array<bigint>(10).fill(50_000n))
    expect(await balanceOf(provider)).toBe(0.5)
    const challenged = await Promise.all(services.map((each) => call(buyer, each)))
    expect(challenged.map(({ status, headers }) => [status, headers.has("payment-required")])).toEqual(methods.map((method) => [402, method === "x402" || method === "both"]))
    for (const { json } of challenged) expect(json).toEqual({ detail: expect.stringContaining("0.05") })
    const [row] = await prepaid.sql<Array<{ available: bigint }>>`select available from accounts where id = ${buyer.accountId}`
    expect(row).toEqual({ available: 0n })
  })

  it("that the provider fails gives the credits free again for the next", async () => {
    const statuses = [500, 200, 200]
    const [buyer, sold] = await Promise.all([owner(prepaid), owner(prepaid, { role: "provider" }).then((provider) => service(prepaid, provider, { respond: () => ({ status: statuses.shift()! }) }))])
    await credit(prepaid, buyer, "0.05")
    expect(amounts([await call(buyer, sold), await call(buyer, sold), await call(buyer, sold)])).toEqual([[500, "0"], [200, "0.05"], [402, null]])
  })
})

describe("a service and an agent are one thing", () => {
  /** A buyer of both products: one account with a login and an acf key. */
  const linked = async (world: World): Promise<{ readonly buyer: Owner; readonly person: Person }> => {
    const [buyer, person] = await Promise.all([owner(world), world.user()])
    const link = await world.call("POST", "/v1/account/links", { token: person.accessToken, body: { dialect: "acf", key: buyer.token } })
    expect(link.status).toBe(201)
    return { buyer: { ...buyer, accountId: person.accountId }, person }
  }

  it("a service called by autx has its own terms, whatever autx charges; an agent called by acf has autx's", async () => {
    for (const world of [recording, prepaid]) {
      const [{ buyer, person }, agent, { sold }] = await Promise.all([linked(world), world.agent({ price: "0.01" }), seller(world, 1, { price: "0.05" })])
      await credit(world, buyer, "1")
      const byAutx = await world.call("POST", `/v1/proxy/${sold.id}`, { token: person.accessToken, body: {} })
      const byAcf = await call(buyer, agent)
      const isPaid = world === prepaid
      expect([byAutx.status, byAutx.headers.get("x-autx-cost-usd"), byAutx.headers.has("x-autx-transaction-id")]).toEqual([200, "0.05", isPaid])
      expect(amounts([byAcf])).toEqual([[200, isPaid ? "0.01" : "0"]])
      const rows = await rowsOf(world, buyer)
      expect(rows.map(({ cost, recorded, fee, charged, earned, kept, buyback }) => [cost, recorded, fee, charged, earned, kept, buyback])).toEqual(isPaid
        ? [[50_000n, false, 2_500n, -50_000n, 47_500n, 2_500n, 0n], [10_000n, false, null, -10_000n, 7_200n, 1_000n, 1_800n]]
        : [[50_000n, true, 2_500n, null, null, null, null], [0n, false, null, null, null, null, null]])
      expect(await usageOf(buyer)).toMatchObject({ total_calls: 2, total_spent_usd: isPaid ? "0.06" : "0.05" })
    }
  })

  it("an agent's own owner calls it for nothing by acf too, and a service's own owner pays itself all but the commission", async () => {
    const { buyer: both, person } = await linked(prepaid)
    await credit(prepaid, both, "1")
    const agent = await prepaid.agent({ price: "0.01", owner: person })
    expect(amounts([await call(both, agent)])).toEqual([[200, "0"]])
    const { provider, sold } = await seller(prepaid, 4, { price: "0.05" })
    await credit(prepaid, provider, "0.1")
    expect(amounts([await call(provider, sold)])).toEqual([[200, "0.05"]])
    expect((await rowsOf(prepaid, provider)).map(({ charged, earned, kept }) => [charged, earned, kept])).toEqual([[-50_000n, 45_000n, 5_000n]])
  })

  it("an order and a chat turn of a service are paid from credits in either mode, under acf's commission, and are owed to its provider", async () => {
    const respond = () => ({ headers: { "content-type": "text/event-stream" }, body: "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\ndata: [DONE]\n\n" })
    for (const world of [recording, prepaid]) {
      const [{ buyer, person }, { sold, provider }] = await Promise.all([linked(world), seller(world, 1, { price: "0.05", respond })])
      await person.fund("1.00")
      const order = await world.call("POST", "/v1/orders", { token: person.accessToken, body: { agent_id: sold.id, prompt: "work" } })
      expect(order.status).toBe(201)
      let state = order.json
      while (state.status === "pending") state = (await world.call("GET", `/v1/orders/${order.json.id}`, { token: person.accessToken })).json
      expect(state).toMatchObject({ status: "completed" })
      const chat = await ChatSocket.open(world, sold.id, person.accessToken)
      expect(await chat.turn("hi")).toMatchObject({ text: "hello", billing: { amount_charged: "0.05" } })
      chat.close()
      const rows = await rowsOf(world, buyer)
      const due = [50_000n, false, 50_000n, 2_500n, 47_500n]
      expect(rows.map(({ cost, recorded, amount, fee, earned }) => [cost, recorded, amount, fee, earned])).toEqual([due, due])
      expect(await balanceOf(provider)).toBe(0.095)
      // The session has set credits aside for its next turns.
      expect(await world.sql`select available from accounts where id = ${buyer.accountId}`).toEqual([{ available: 900_000n }])
    }
  })
})
