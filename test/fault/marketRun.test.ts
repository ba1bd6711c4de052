/**
 * Some thousand seeded calls by many buyers of many services, through both
 * dialects, with providers that fail, free tiers and every rate of commission.
 * What each caller was told is added up here; afterwards every figure that the
 * gateway gives (usage, earnings, settlements, statistics, balances, the ledger)
 * must be these sums, to the micro-dollar. `SEED=…` replays the choices.
 */
import { afterAll, describe, expect, it } from "vitest"
import { formatUsd, microPerUsd, parseUsd } from "../../src/domain/credits.ts"
import { plainUsd } from "../../src/dialects/acf/wire/fields.ts"
import { type Owner, type ScriptedService, owner, service } from "../support/acf.ts"
import { Random } from "../support/Random.ts"
import { type Answered, type Person, type ScriptedAgent, type World, makeWorld } from "../support/World.ts"

const calls = process.env["TOLLGATE_FULL"] === "1" ? 10_000 : 1_000
const [buyersCount, providersCount, servicesCount, agentsCount] = [50, 8, 27, 3]
const callersAtOnce = 24

const random = new Random()
console.log(`marketRun: SEED=${random.seed}`)

/** A buyer of acf, and for some the same one's login and key of autx. */
interface Buyer {
  readonly owner: Owner
  readonly person: Person | undefined
  readonly autxKey: string | undefined
  funded: bigint
  calls: number
  spent: bigint
}
interface Sold {
  readonly id: string
  readonly price: bigint
  readonly freeTierCalls: number
  /** Percent, by the month of its provider. */
  readonly commission: bigint
  readonly provider: string
  readonly method: string
  calls: number
  paid: number
  revenue: bigint
  fee: bigint
  readonly due: { calls: number; total: bigint; fee: bigint }
  readonly freeBy: Map<Buyer, number>
}

/** What a failing provider does next. */
const moods = (chance: Random) => (): Answered | "drop" => {
  const draw = chance.next()
  if (draw < 0.05) return "drop"
  if (draw < 0.12) return { status: 503, body: "no" }
  if (draw < 0.2) return { status: 404, body: "what?" }
  return { body: "ok".repeat(1 + chance.below(40)) }
}

const monthsAgo = [0, 2, 6]
const commissions = [0n, 5n, 10n]
const prices = [1n, 333_333n, 50_000n, 10_000n, 7n, 1_250_001n, 99n]

const people = async (world: World): Promise<{ readonly buyers: ReadonlyArray<Buyer>; readonly sold: ReadonlyArray<Sold>; readonly admin: Owner; readonly providers: ReadonlyArray<Owner> }> => {
  const admin = await owner(world, { role: "admin" })
  const providers = await Promise.all(Array.from({ length: providersCount }, () => owner(world, { role: "provider" })))
  const methods = ["x402", "paypal", "stripe", "credits"]
  const services = await Promise.all(Array.from({ length: servicesCount }, async (_, index): Promise<Sold> => {
    const provider = providers[index % providersCount]!
    const price = index === 5 ? 0n : random.of(prices)
    const freeTierCalls = random.chance(0.4) ? random.below(6) : 0
    const made: ScriptedService = await service(world, provider, {
      price: formatUsd(price), freeTierCalls, paymentMethod: methods[index % methods.length]!, respond: moods(random.fork())
    })
    return {
      id: made.id, price, freeTierCalls, commission: commissions[index % providersCount % 3]!, provider: provider.name, method: methods[index % methods.length]!,
      calls: 0, paid: 0, revenue: 0n, fee: 0n, due: { calls: 0, total: 0n, fee: 0n }, freeBy: new Map()
    }
  }))
  for (const [index, { accountId }] of providers.entries()) {
    await world.alter({ accountId }, (sql) => sql`update agents set provider_since = now() - ${monthsAgo[index % 3]!} * interval '31 days', version = version + 1 where owner_id = ${accountId}`)
  }
  const agents = await Promise.all(Array.from({ length: agentsCount }, (_, index): Promise<ScriptedAgent> => world.agent({ price: index === 0 ? "0.000010" : "0.250000", respond: moods(random.fork()) })))
  const listed = agents.map(({ id, owner }, index): Sold => ({
    id, price: index === 0 ? 10n : 250_000n, freeTierCalls: 0, commission: 10n, provider: owner.accountId, method: "credits",
    calls: 0, paid: 0, revenue: 0n, fee: 0n, due: { calls: 0, total: 0n, fee: 0n }, freeBy: new Map()
  }))
  const buyers = await Promise.all(Array.from({ length: buyersCount }, async (_, index): Promise<Buyer> => {
    const buyer = await owner(world)
    const person = index % 5 === 0 ? await world.user() : undefined
    const autxKey = person === undefined ? undefined : (await person.key("proxy")).key
    // Every tenth has too little for what it does.
    const funded = index % 10 === 9 ? 400_000n : 1_000n * microPerUsd
    const credited = await world.call("POST", `/acf/api/v1/admin/credit?buyer_id=${buyer.name}&amount=${formatUsd(funded)}`, { headers: { "x-admin-key": operatorSecret } })
    expect(credited.status).toBe(200)
    if (person !== undefined) expect((await world.call("POST", "/v1/account/links", { token: person.accessToken, body: { dialect: "acf", key: buyer.token } })).status).toBe(201)
    return { owner: buyer, person, autxKey, funded, calls: 0, spent: 0n }
  }))
  return { buyers, sold: [...services, ...listed], admin, providers }
}

const operatorSecret = "the operator's own secret"

/** One call, and what it adds to the sums. */
const callOnce = async (world: World, chance: Random, buyer: Buyer, sold: Sold): Promise<void> => {
  const throughAutx = buyer.autxKey !== undefined && chance.chance(0.5)
  const reply = throughAutx
    ? await world.call("POST", `/v1/proxy/${sold.id}`, { token: buyer.autxKey!, body: "hello" })
    : await buyer.owner.call(chance.of(["GET", "POST", "PUT", "PATCH", "DELETE"]), `/api/v1/proxy/${sold.id}/x?n=${chance.below(9)}`)
  // Refused before it was sent: no call.
  if (reply.status === 402 || reply.status === 400) return
  const amount = parseUsd(reply.headers.get(throughAutx ? "x-autx-cost-usd" : "x-acf-amount") ?? "0")!
  const isFree = reply.headers.get("x-acf-free-tier") === "true"
  if (throughAutx && reply.status === 503 && /rest|waiting/.test(reply.text)) return
  buyer.calls++
  buyer.spent += amount
  sold.calls++
  sold.revenue += amount
  if (isFree) sold.freeBy.set(buyer, (sold.freeBy.get(buyer) ?? 0) + 1)
  if (amount > 0n) {
    expect(amount).toBe(sold.price)
    expect(reply.status).toBeLessThan(500)
    sold.paid++
    sold.fee += amount - amount * (100n - sold.commission) / 100n
  }
  if (reply.status < 500) {
    sold.due.calls++
    sold.due.total += amount
    sold.due.fee += amount - amount * (100n - sold.commission) / 100n
  }
}

const sumBy = (some: ReadonlyArray<Sold>, of: (sold: Sold) => bigint): bigint => some.reduce((sum, sold) => sum + of(sold), 0n)
const usd = (amount: bigint): number => Number(amount) / 1_000_000

const worlds: Array<World> = []
afterAll(() => Promise.all(worlds.map((world) => world.stop())))

describe.each(["record", "prepaid"] as const)("a market whose calls are settled by %s", (acfSettlement) => {
  it("gives figures that are, each of them, the sum of what its callers were told", async () => {
    const world = await makeWorld({ settings: { acfSettlement, proxyBilling: "paid", acfAdminSecret: operatorSecret } })
    worlds.push(world)
    const { buyers, sold, admin, providers } = await people(world)
    const plan = Array.from({ length: calls }, () => ({ buyer: random.of(buyers), sold: random.of(sold), chance: random.fork() }))
    let next = 0
    await Promise.all(Array.from({ length: callersAtOnce }, async () => {
      while (next < plan.length) {
        const { buyer, sold, chance } = plan[next++]!
        await callOnce(world, chance, buyer, sold)
      }
    }))

    // Buyers.
    for (const buyer of buyers) {
      const { json } = await buyer.owner.call("GET", "/api/v1/usage/me")
      expect([json.total_calls, json.total_spent_usd], buyer.owner.name).toEqual([buyer.calls, plainUsd(buyer.spent)])
      for (const each of sold) expect(each.freeBy.get(buyer) ?? 0).toBeLessThanOrEqual(each.freeTierCalls)
    }
    const services = sold.slice(0, servicesCount)
    const agents = sold.slice(servicesCount)

    // Providers.
    for (const provider of providers) {
      const own = services.filter((each) => each.provider === provider.name)
      const { json } = await provider.call("GET", "/api/v1/provider/earnings")
      expect(json.total_earned).toBe(usd(sumBy(own, ({ revenue }) => revenue)))
      const listed = (await provider.call("GET", "/api/v1/provider/services")).json.services
      for (const each of own) {
        const view = listed.find(({ id }: { id: string }) => id === each.id)
        expect([view.total_calls, view.total_revenue]).toEqual([each.calls, usd(each.revenue)])
      }
    }

    // The platform.
    const { json: stats } = await admin.call("GET", "/api/v1/admin/stats")
    expect([stats.total_usage_records, stats.total_revenue_usd]).toEqual([sold.reduce((sum, each) => sum + each.calls, 0), usd(sumBy(sold, ({ revenue }) => revenue))])
    const { json: payments } = await admin.call("GET", "/api/v1/admin/payments/summary")
    for (const method of new Set(sold.filter((each) => each.calls > 0).map((each) => each.method))) {
      const of = sold.filter((each) => each.method === method)
      expect(payments.methods[method]).toEqual({ count: of.reduce((sum, each) => sum + each.calls, 0), total_usd: usd(sumBy(of, ({ revenue }) => revenue)) })
    }

    // Settlements.
    let fees = 0n
    for (const provider of providers) {
      const own = services.filter((each) => each.provider === provider.name)
      const period = { period_start: "2020-01-01T00:00:00Z", period_end: "2100-01-01T00:00:00Z" }
      const { status, json } = await admin.call("POST", "/api/v1/settlements", { provider_id: provider.name, ...period })
      const [total, fee] = [sumBy(own, ({ due }) => due.total), sumBy(own, ({ due }) => due.fee)]
      expect([status, json.total_amount, json.platform_fee, json.net_amount, json.call_count])
        .toEqual([201, plainUsd(total), plainUsd(fee), plainUsd(total - fee), own.reduce((sum, each) => sum + each.due.calls, 0)])
      expect((await admin.call("PATCH", `/api/v1/settlements/${json.id}/pay`, { payment_tx: "0xabc" })).status).toBe(200)
      fees += fee
      const again = await admin.call("POST", "/api/v1/settlements", { provider_id: provider.name, period_start: "2021-01-01T00:00:00Z", period_end: "2100-01-01T00:00:00Z" })
      expect([again.json.total_amount, again.json.call_count]).toEqual(["0", 0])
    }

    // Credits: what was charged is gone from the buyers, and what was paid out from the providers.
    const fromCredits = (buyer: Buyer) => buyer.funded - (acfSettlement === "prepaid" ? buyer.spent : 0n)
    for (const buyer of buyers) {
      const { json } = await buyer.owner.call("GET", `/api/v1/balance/${buyer.owner.name}`)
      if (acfSettlement === "prepaid") expect(json.balance, buyer.owner.name).toBe(usd(fromCredits(buyer)))
      expect(json.total_deposited).toBe(usd(buyer.funded))
    }
    for (const provider of providers) expect((await provider.call("GET", `/api/v1/balance/${provider.name}`)).json.balance).toBe(0)
    const [books] = await world.sql<Array<{ fee: bigint; withdrawn: bigint; charged: bigint; recorded: bigint }>>`
      select (select coalesce(sum(fee), 0) from transactions)::bigint as fee, (select coalesce(sum(withdrawals), 0) from transactions)::bigint as withdrawn,
        (select coalesce(sum(-available), 0) from transactions where type = 'charge')::bigint as charged, (select coalesce(sum(cost), 0) from usage where recorded)::bigint as recorded`
    const [ofServices, ofAgents] = [sumBy(services, ({ revenue }) => revenue), sumBy(agents, ({ revenue }) => revenue)]
    // Of an autx agent's price the platform keeps what 72 % and 18 % leave.
    const agentFees = sumBy(agents, ({ price, paid }) => BigInt(paid) * (price - price * 72n / 100n - price * 18n / 100n))
    expect(books).toEqual(acfSettlement === "prepaid"
      ? { fee: fees + agentFees, withdrawn: ofServices - fees, charged: ofServices + ofAgents, recorded: 0n }
      : { fee: agentFees, withdrawn: 0n, charged: ofAgents, recorded: ofServices })

    expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])
  }, 300_000)
})
