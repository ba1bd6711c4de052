/**
 * The free tier: exactly so many calls of an owner to a service cost nothing,
 * however many come at once, by whichever of its keys, and whatever happens to
 * the owner's account meanwhile.
 */
import { afterAll, beforeAll, expect, it, vi } from "vitest"
import { type Owner, type ScriptedService, adminSecret, credit, owner, service } from "../../support/acf.ts"
import { type Reply, type World, makeWorld } from "../../support/World.ts"

const tier = 10

let world: World
let provider: Owner
beforeAll(async () => {
  world = await makeWorld({ settings: { acfSettlement: "prepaid", acfAdminSecret: adminSecret } })
  provider = await owner(world, { role: "provider" })
})
afterAll(async () => {
  expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])
  await world.stop()
})

const offer = (more: Parameters<typeof service>[2] = {}): Promise<ScriptedService> => service(world, provider, { price: "0.01", freeTierCalls: tier, ...more })
const call = (by: Owner, { id }: ScriptedService): Promise<Reply> => by.call("POST", `/api/v1/proxy/${id}`, { text: "x" })
const storm = (count: number, one: (n: number) => Promise<Reply>): Promise<ReadonlyArray<Reply>> => Promise.all(Array.from({ length: count }, (_, n) => one(n)))

const isFree = ({ headers }: Reply): boolean => headers.get("x-acf-free-tier") === "true"
/** How many were free, and how many of the others were paid. */
const split = (replies: ReadonlyArray<Reply>) => ({
  free: replies.filter(isFree).length,
  paid: replies.filter((reply) => !isFree(reply) && reply.headers.get("x-acf-amount") === "0.01").length
})
const spent = async (by: Owner): Promise<object> => (await by.call("GET", "/api/v1/usage/me")).json

it("gives exactly 10 of 100 first calls at once, and what the others cost is paid", async () => {
  const [buyer, offered] = await Promise.all([owner(world), offer()])
  await credit(world, buyer, "5")
  const replies = await storm(100, () => call(buyer, offered))
  expect(split(replies)).toEqual({ free: tier, paid: 100 - tier })
  for (const reply of replies.filter(isFree)) expect(reply.headers.get("x-acf-amount")).toBe("0")
  expect(await spent(buyer)).toMatchObject({ total_calls: 100, total_spent_usd: "0.90" })
  expect((await buyer.call("GET", `/api/v1/balance/${buyer.name}`)).json).toMatchObject({ balance: 4.1, total_spent: 0.9 })
})

it("is one for all keys of an owner, and another one for each owner and each service", async () => {
  const [first, other] = await Promise.all([owner(world), owner(world)])
  const [keys, offered, elsewhere] = await Promise.all([
    Promise.all([owner(world, { name: first.name }), owner(world, { name: first.name, role: "provider" })]), offer(), offer(), credit(world, first, "5"), credit(world, other, "5")
  ])
  const mine = [first, ...keys]
  const [ours, theirs, there] = await Promise.all([
    storm(60, (n) => call(mine[n % 3]!, offered)), storm(20, () => call(other, offered)), storm(20, (n) => call(mine[n % 3]!, elsewhere))
  ])
  expect([split(ours), split(theirs), split(there)]).toEqual([{ free: tier, paid: 50 }, { free: tier, paid: 10 }, { free: tier, paid: 10 }])
})

it("is what it was while the account is given up and activated again amid the calls", async () => {
  const [buyer, offered] = await Promise.all([owner(world), offer({ respond: () => new Promise((done) => setImmediate(done, { body: "x" })) })])
  await credit(world, buyer, "5")
  let ended = 0
  const replies = await storm(100, async () => {
    const reply = await call(buyer, offered)
    if (++ended % 7 === 0) await world.alter(buyer, async () => {})
    return reply
  })
  // A charge whose activation was given up under it is refused, and may be tried again; a free call needs none.
  expect(split(replies).free).toBe(tier)
  expect(new Set(replies.map(({ status }) => status)).size).toBeLessThanOrEqual(2)
  const later = await storm(10, () => call(buyer, offered))
  expect(split(later)).toEqual({ free: 0, paid: 10 })
})

it("counts calls that the provider failed, and does not count calls that never reached it", async () => {
  const [buyer, broken] = await Promise.all([owner(world), offer({ freeTierCalls: 3, endpoint: "http://127.0.0.1:1" })])
  // Five failures open the circuit; three of them were free, and two had a price, which nobody can pay.
  const failed: Array<Reply> = []
  for (let n = 0; n < 4; n++) failed.push(await call(buyer, broken))
  expect(failed.map(({ status, headers }) => [status, headers.get("x-acf-free-tier")])).toEqual([[502, "true"], [502, "true"], [502, "true"], [402, null]])

  // 402 again and again counts for nothing: a larger tier has two more calls, not fewer.
  await storm(5, () => call(buyer, broken))
  await provider.call("PATCH", `/api/v1/services/${broken.id}`, { free_tier_calls: 5 })
  expect([await call(buyer, broken), await call(buyer, broken)].map(({ status }) => status)).toEqual([502, 502])

  // Nor does an open circuit: the call after it is still within the tier.
  await provider.call("PATCH", `/api/v1/services/${broken.id}`, { free_tier_calls: 6 })
  const refused = await call(buyer, broken)
  expect([refused.status, Number(refused.headers.get("retry-after")) >= 1]).toEqual([400, true])
  await provider.call("PATCH", `/api/v1/services/${broken.id}`, { endpoint: world.endpoint() })
  const clock = performance.now.bind(performance)
  const now = vi.spyOn(performance, "now").mockImplementation(() => clock() + 5_000)
  const back = await call(buyer, broken)
  now.mockRestore()
  expect([back.status, isFree(back)]).toEqual([200, true])
  expect((await call(buyer, broken)).status).toBe(402)
  expect(await spent(buyer)).toMatchObject({ total_calls: 6, total_spent_usd: "0" })
})

it("follows what the provider changes: a larger one goes on, a smaller one has ended, and one that comes back is no larger", async () => {
  const [buyer, offered] = await Promise.all([owner(world), offer({ freeTierCalls: 2 })])
  await credit(world, buyer, "1")
  const change = (fields: object) => provider.call("PATCH", `/api/v1/services/${offered.id}`, fields)
  const next = async (count: number): Promise<ReadonlyArray<boolean>> => {
    const free: Array<boolean> = []
    for (let n = 0; n < count; n++) free.push(isFree(await call(buyer, offered)))
    return free
  }
  expect(await next(3)).toEqual([true, true, false])
  await change({ free_tier_calls: 5 })
  expect(await next(3)).toEqual([true, true, false])
  await change({ free_tier_calls: 1 })
  expect(await next(1)).toEqual([false])
  await change({ free_tier_calls: 0 })
  expect(await next(2)).toEqual([false, false])
  // Nine calls so far, also those of the time without a tier.
  await change({ free_tier_calls: 10 })
  expect(await next(2)).toEqual([true, false])
})

it("begins with all that was called before there was one", async () => {
  const [buyer, offered] = await Promise.all([owner(world), offer({ freeTierCalls: 0, price: "0" })])
  await storm(3, () => call(buyer, offered))
  await credit(world, buyer, "1")
  await provider.call("PATCH", `/api/v1/services/${offered.id}`, { free_tier_calls: 5, price_per_call: "0.01" })
  expect(split(await storm(20, () => call(buyer, offered)))).toEqual({ free: 2, paid: 18 })
})
