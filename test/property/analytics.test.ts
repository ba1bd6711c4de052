/**
 * For random histories of calls every figure of the market is what its
 * definition says over the calls themselves. The calls are written as gateways
 * write them: charged, recorded with a commit, or by the buffer of free calls.
 * Some accounts are then merged into others. Now is often the edge of a week,
 * a month or a year.
 *
 * A failing run prints its seed; `SEED=…` runs it again.
 */
import { Clock, Context, Effect, Layer, ManagedRuntime } from "effect"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { AccountId, AgentId, KeyId, TransactionId } from "../../src/domain/ids.ts"
import { Analytics } from "../../src/kernel/market/Analytics.ts"
import { Owners } from "../../src/kernel/market/Owners.ts"
import type { Caller } from "../../src/kernel/Caller.ts"
import type { CommitRows, UsageRow } from "../../src/store/Commit.ts"
import { Committer } from "../../src/store/Committer.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { Postgres, type Sql, connect } from "../../src/store/Postgres.ts"
import { UsageBuffer } from "../../src/store/UsageBuffer.ts"
import { newAccount, submitted, takeToken, transaction } from "../support/ledgerRows.ts"
import {
  type PlainAgent, type PlainMarket, plainBuyers, plainDaily, plainHealth, plainPayments, plainRanking, plainTopServices, plainTrends, plainUsage
} from "../support/PlainMarket.ts"
import { type TestDatabase, freshDatabase } from "../support/postgres.ts"

const numRuns = process.env["TOLLGATE_FULL"] === "1" ? 500 : 40
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31)

const dayMs = 86_400_000
const buyerCount = 6
const fortune = 1_000_000_000_000_000n

/** Sundays and Mondays, years of 53 weeks, a leap day, and any other time. */
const now = fc.oneof(
  fc.constantFrom(
    "2027-01-03T23:59:59.999Z", "2027-01-04T00:00:00.000Z", "2024-12-30T00:00:00.000Z", "2024-12-29T12:00:00.000Z", "2028-02-29T12:00:00.000Z", "2028-03-01T00:00:00.000Z",
    "2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00.000Z", "2026-03-31T08:00:00.000Z"
  ).map((text) => Date.parse(text)),
  fc.integer({ min: Date.UTC(2020, 0), max: Date.UTC(2033, 0) })
)
const call = fc.record({
  /** Often the same two, so that they meet again. */
  buyer: fc.oneof(fc.constant(1), fc.nat(buyerCount - 1)), agent: fc.oneof(fc.constant(0), fc.nat()),
  daysAgo: fc.oneof({ weight: 3, arbitrary: fc.nat(8) }, { weight: 2, arbitrary: fc.nat(95) }, { weight: 1, arbitrary: fc.nat(1_700) }),
  /** Of the day: often its first or last moment. */
  ms: fc.oneof(fc.constantFrom(0, dayMs - 1), fc.nat(dayMs - 1)),
  status: fc.constantFrom(200, 201, 399, 400, 404, 499, 500, 503), latencyMs: fc.oneof(fc.nat(10), fc.nat(30_000)),
  cost: fc.oneof(fc.bigInt(0n, 3n), fc.bigInt(0n, 100_000_000n)), way: fc.constantFrom("charged", "recorded", "buffered")
})
type Call = typeof call extends fc.Arbitrary<infer A> ? A : never
const history = fc.record({
  nowMs: now, calls: fc.array(call, { maxLength: 80 }),
  /** Which buyer each became; one that others became stays itself. */
  merges: fc.array(fc.option(fc.nat(buyerCount - 1), { freq: 3 }), { minLength: buyerCount, maxLength: buyerCount }),
  /** Often few, among which there are calls. */
  days: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 365 })), limit: fc.integer({ min: 1, max: 7 }), periods: fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 52 }))
})

describe("the market's figures", () => {
  let database: TestDatabase
  let sql: Sql
  const open = (options: TestDatabase["options"]) => ManagedRuntime.make(Analytics.layer.pipe(
    Layer.provide(Owners.layer), Layer.provideMerge(Layer.mergeAll(Committer.layer, UsageBuffer.layer)), Layer.provideMerge(Postgres.layer(options)), Layer.provideMerge(TestClock.layer())
  ))
  let node: ReturnType<typeof open>
  let buyers: ReadonlyArray<AccountId>
  let agents: ReadonlyArray<PlainAgent>
  const names = new Map<string, string>()
  const displayNames = new Map<string, string>()

  /** Three providers: with several identities, with one that does not count, with none and no name. */
  const addProviders = async (): Promise<ReadonlyArray<AccountId>> => {
    const [first, second, third] = await Promise.all([newAccount(sql), newAccount(sql), newAccount(sql)])
    names.set(first, "first").set(second, "second")
    displayNames.set(first, "The older one")
    for (const [account, name, status, seconds] of [
      [first, "An older one that has left", "deactivated", 1], [first, "The newer one", "active", 3], [first, "The older one", "active", 2], [second, "Suspended", "suspended", 4]
    ] as const) await sql`
      insert into identities (id, account_id, display_name, identity_type, capabilities, metadata, status, created_at, updated_at)
      values (${`${9 - seconds}${randomUUID().slice(1)}`}, ${account}, ${name}, 'api_key_only', '{}', '{}', ${status}, to_timestamp(${seconds}), now())`
    return [first, second, third]
  }
  const addAgent = async (owner: AccountId, n: number): Promise<PlainAgent> => {
    const agent = {
      id: randomUUID(), name: `Agent ${n}`, category: n === 1 ? "" : `category-${n % 3}`, owner, method: ["x402", "paypal", "credits"][n % 3]!,
      status: ["active", "active", "active", "paused", "removed"][n % 5]!, isSuspended: n === 2
    }
    await sql`
      insert into agents (id, owner_id, dialect, ticker, name, description, category, endpoint_url, price, auth_tier, status, suspended, payment_method, updated_at)
      values (${agent.id}, ${owner}, ${n % 2 === 0 ? "acf" : "autx"}, ${`A${n}`}, ${agent.name}, '', ${agent.category}, 'https://example.com', 1, 'jwt_default', ${agent.status}, ${agent.isSuspended}, ${agent.method}, now())`
    return agent
  }

  beforeAll(async () => {
    database = await freshDatabase()
    sql = connect(database.options, { max: 2, statementTimeoutMs: 30_000, name: "tollgate-test" })
    await migrate(sql)
    node = open(database.options)
    buyers = await Promise.all(Array.from({ length: buyerCount }, () => newAccount(sql)))
    buyers.slice(1).forEach((buyer, n) => names.set(buyer, `buyer-${n}`))
    const providers = await addProviders()
    agents = await Promise.all(Array.from({ length: 8 }, (_, n) => addAgent(providers[n % 3]!, n)))
    for (const [account, name] of names) await sql`insert into owners (dialect, name, account_id, created_at) values ('acf', ${name}, ${account}, now())`
  })
  afterAll(async () => {
    await node.dispose()
    await sql.end()
    await database.drop()
  })

  const rowOf = (nowMs: number, { buyer, agent, daysAgo, ms, status, latencyMs, cost }: Call): UsageRow => ({
    id: randomUUID(), accountId: buyers[buyer]!, subjectId: buyers[buyer]! as string as KeyId, agentId: agents[agent % agents.length]!.id as AgentId, call: "proxy",
    status, cost: status >= 500 ? 0n : cost, latencyMs, atMs: Math.min(nowMs, (Math.floor(nowMs / dayMs) - daysAgo) * dayMs + ms)
  })

  const rowsOf = (row: UsageRow, way: Call["way"]): CommitRows => way === "recorded" || row.cost === 0n
    ? { calls: [{ ...row, due: { fee: 0n, recorded: row.cost > 0n } }] }
    : { transactions: [transaction({ id: row.id as TransactionId, available: -row.cost, fee: row.cost, agentId: row.agentId, subjectId: row.subjectId, atMs: row.atMs })], usage: [row] }

  /** Writes the calls as gateways do; answers them as they were made. */
  const play = async (nowMs: number, calls: ReadonlyArray<Call>): Promise<ReadonlyArray<UsageRow>> => {
    await sql`truncate usage, usage_hourly_by_agent, usage_daily_by_agent, usage_daily_by_account, usage_weekly_by_account, usage_months_by_account, usage_by_pair, agent_totals, transactions, dues`
    await sql`update accounts set available = ${fortune}, merged_into = null where id in ${sql(buyers)}`
    const tokens = new Map(await Promise.all(buyers.map(async (id) => [id, await takeToken(sql, id)] as const)))
    const services = await node.context()
    const { submit } = Context.get(services, Committer)
    const { add } = Context.get(services, UsageBuffer)
    const rows = calls.map((made) => rowOf(nowMs, made))
    const outcomes = await Promise.all(rows.flatMap((row, n) => {
      const { way } = calls[n]!
      if (way !== "buffered") return [submitted(submit, row.accountId, tokens.get(row.accountId)!, rowsOf(row, way))]
      add(row)
      return []
    }))
    expect(outcomes.filter(({ _tag }) => _tag !== "committed")).toEqual([])
    return rows
  }

  const merge = async (merges: ReadonlyArray<number | null>): Promise<(account: string) => string> => {
    const into = new Map<string, string>()
    merges.forEach((target, n) => {
      if (target !== null && target !== n && !into.has(buyers[target]!) && ![...into.values()].includes(buyers[n]!)) into.set(buyers[n]!, buyers[target]!)
    })
    for (const [account, target] of into) await sql`update accounts set available = 0, merged_into = ${target} where id = ${account}`
    return (account) => into.get(account) ?? account
  }

  const at = <A, E>(nowMs: number, use: (analytics: Analytics["Service"]) => Effect.Effect<A, E>): Promise<A> =>
    node.runPromise(TestClock.setTime(nowMs).pipe(Effect.andThen(Clock.currentTimeMillis), Effect.tap((ms) => Effect.sync(() => expect(ms).toBe(nowMs))), Effect.andThen(Analytics.use(use))))

  it("are what the calls themselves come to, for any history, any now and any accounts that were merged", { timeout: 600_000 }, async () => {
    await fc.assert(fc.asyncProperty(history, async ({ nowMs, calls, merges, days, limit, periods }) => {
      const rows = await play(nowMs, calls)
      const partyOf = await merge(merges)
      const nameOf = (party: string): string => names.get(party) ?? party
      const market: PlainMarket = {
        nowMs, agents, partyOf, nameOf, displayNameOf: (party) => displayNames.get(party) ?? nameOf(party),
        calls: rows.map(({ accountId, agentId, ...row }) => ({ ...row, account: accountId, agent: agentId }))
      }
      const read = <A, E>(use: (analytics: Analytics["Service"]) => Effect.Effect<A, E>): Promise<A> => at(nowMs, use)

      expect(await read(({ stats }) => stats)).toMatchObject({ calls: rows.length, cost: rows.reduce((total, { cost }) => total + cost, 0n) })
      for (const party of new Set(buyers.map(partyOf))) {
        expect(await read(({ own }) => own({ accountId: party } as Caller))).toEqual(plainUsage(market, party))
      }
      expect(await read(({ daily }) => daily(days))).toEqual(plainDaily(market, days))
      for (const granularity of ["daily", "weekly", "monthly"]) {
        for (const count of [1, periods]) expect(await read(({ trends }) => trends(granularity, count))).toEqual(plainTrends(market, granularity, count))
      }
      expect(await read(({ ranking }) => ranking("all-time", limit))).toEqual(plainRanking(market, undefined, limit))
      expect(await read(({ ranking }) => ranking(String(days), limit))).toEqual(plainRanking(market, days, limit))
      expect(await read(({ health }) => health())).toEqual(plainHealth(market))
      expect(await read(({ payments }) => payments)).toEqual(plainPayments(market))
      for (const sortBy of ["revenue", "calls", "latency"]) {
        expect(await read(({ topServices }) => topServices(sortBy, days, limit))).toEqual(plainTopServices(market, sortBy, days, limit))
      }
      expect(await read(({ buyers }) => buyers(days))).toEqual(plainBuyers(market, days))
    }), { numRuns, seed })
  })
})
