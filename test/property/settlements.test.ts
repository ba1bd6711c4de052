/**
 * Random calls, settlements with overlapping periods and payments, on two nodes
 * at once: every due is settled at most once and by whichever settlement could
 * have it, every settlement is paid at most once, its sums are those of plain
 * SQL, and what a provider has plus what it was paid is what it earned.
 *
 * A failing run prints its seed; `SEED=…` runs it again.
 */
import { Context, Effect, ManagedRuntime } from "effect"
import fc from "fast-check"
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Settings, readSettings } from "../../src/config.ts"
import type { AccountId, AgentId, HoldId, KeyId, TransactionId } from "../../src/domain/ids.ts"
import { type Decided, decide, spendable } from "../../src/domain/ledger.ts"
import { share, splitOf } from "../../src/domain/terms.ts"
import { gatewayLayer } from "../../src/gateway.ts"
import { Accounts } from "../../src/kernel/AccountActor.ts"
import type { Caller } from "../../src/kernel/Caller.ts"
import { newId } from "../../src/kernel/Ids.ts"
import { Ledger } from "../../src/kernel/Ledger.ts"
import { Settlements } from "../../src/kernel/market/Settlements.ts"
import { audit } from "../../src/store/Audit.ts"
import type { Due, UsageRow } from "../../src/store/Commit.ts"
import type { Settlement } from "../../src/store/market/SettlementStore.ts"
import { type Sql, connect } from "../../src/store/Postgres.ts"
import { UsageBuffer } from "../../src/store/UsageBuffer.ts"
import { log } from "../../src/telemetry/log.ts"
import { newAccount } from "../support/ledgerRows.ts"
import { type TestDatabase, freshDatabase } from "../support/postgres.ts"

const numRuns = process.env["TOLLGATE_FULL"] === "1" ? 30 : 2
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31)
/** Run at once, each with accounts of its own. */
const scenes = 6

const dayMs = 86_400_000
/** Calls and periods lie in the months after the provider's first service. */
const spanDays = 140
const fortune = 1_000_000_000_000n

const command = fc.oneof(
  {
    weight: 6, arbitrary: fc.record({
      _tag: fc.constant("call"), agent: fc.nat(1), way: fc.constantFrom("charged", "recorded", "free"), status: fc.constantFrom(200, 302, 404, 499, 500, 503),
      cost: fc.oneof(fc.bigInt(1n, 30n), fc.bigInt(1n, 100_000_000n)), atMs: fc.nat(spanDays * dayMs - 1)
    })
  },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("settle"), fromMs: fc.nat(spanDays * dayMs - 1), lengthMs: fc.integer({ min: 1, max: 60 * dayMs }) }) },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constant("pay"), which: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("spend"), percent: fc.bigInt(1n, 100n) }) }
)
type Command = typeof command extends fc.Arbitrary<infer A> ? A : never
const scene = fc.record({
  sinceDaysAgo: fc.integer({ min: spanDays + 1, max: 500 }),
  /** Those of one group run at once, one after the other on its own node. */
  groups: fc.array(fc.array(fc.record({ node: fc.nat(1), command: command as fc.Arbitrary<Command> }), { minLength: 1, maxLength: 6 }), { minLength: 4, maxLength: 14 })
})
type Scene = typeof scene extends fc.Arbitrary<infer A> ? A : never

const settings: Settings = readSettings({ PORT: "0", DATABASE_URL: "postgres://database.test/tollgate", SECRETS_KEY: "k".repeat(32) })

let database: TestDatabase
let sql: Sql
let nodes: ReadonlyArray<Awaited<ReturnType<typeof startNode>>>
let admin: Caller

const startNode = async () => {
  const runtime = ManagedRuntime.make(gatewayLayer(settings, database.options))
  const services = await runtime.context()
  return {
    accounts: Context.get(services, Accounts), ledger: Context.get(services, Ledger), settlements: Context.get(services, Settlements),
    usage: Context.get(services, UsageBuffer), stop: () => runtime.dispose()
  }
}
type GatewayNode = Awaited<ReturnType<typeof startNode>>

beforeAll(async () => {
  log.level = "silent"
  database = await freshDatabase()
  nodes = await Promise.all([startNode(), startNode()])
  sql = connect(database.options, { max: 4, statementTimeoutMs: 30_000, name: "tollgate-test" })
  admin = { accountId: await newAccount(sql), kind: "key", dialect: "acf", subjectId: newId<KeyId>(), loginId: undefined, expiresAtMs: Infinity }
})
afterAll(async () => {
  await Promise.all(nodes.map(({ stop }) => stop()))
  await sql.end()
  await database.drop()
})

/** A provider with two services, and a buyer for each node. */
const people = async (sinceMs: number) => {
  const [provider, ...buyers] = await Promise.all([newAccount(sql), newAccount(sql, fortune), newAccount(sql, fortune)])
  const agents = [newId<AgentId>(), newId<AgentId>()]
  for (const id of agents) {
    await sql`
      insert into agents (id, owner_id, dialect, ticker, name, description, category, endpoint_url, price, auth_tier, provider_since, updated_at)
      values (${id}, ${provider!}, 'acf', ${`P${randomUUID().slice(0, 8).toUpperCase()}`}, 'A service', '', 'ai', 'https://service.example.com', 1, 'none', ${new Date(sinceMs)}, now())`
  }
  return { provider: provider as AccountId, buyers: buyers as ReadonlyArray<AccountId>, agents }
}
type People = Awaited<ReturnType<typeof people>>

/** Of an account that the nodes take from each other. */
const insist = async <A>(act: () => Promise<A>): Promise<A> => {
  for (let left = 20; ; left--) {
    try {
      return await act()
    } catch (error) {
      if (left === 0 || (error as { readonly _tag?: string })._tag !== "NotCommitted") throw error
    }
  }
}

/** Written as the gateway writes it: with the charge, with a commit, or by the buffer of free calls. */
const writeCall = async (node: GatewayNode, { provider, buyers, agents }: People, at: number, sinceMs: number, made: Extract<Command, { _tag: "call" }>): Promise<UsageRow> => {
  const [accountId, agentId, atMs] = [buyers[at]!, agents[made.agent]!, sinceMs + (made.atMs as number)]
  const subjectId = accountId as string as KeyId
  const isFree = made.way === "free" || made.status >= 500
  const split = splitOf({ dialect: "acf", providerSinceMs: sinceMs, createdAtMs: sinceMs }, atMs)
  const cost = isFree ? 0n : made.cost
  const due: Due | undefined = made.status >= 500 ? undefined : { fee: share(cost, split).fee, recorded: made.way === "recorded" && !isFree }
  const row: UsageRow = { id: newId(), accountId, subjectId, agentId, call: "proxy", status: made.status, cost, due, latencyMs: 5, atMs }
  if (isFree) node.usage.add(row)
  else if (made.way === "recorded") await Effect.runPromise(node.accounts.act(accountId, (account) => node.accounts.commit(account, { calls: [row] })))
  else {
    await Effect.runPromise(node.accounts.act(accountId, (account) => {
      const holdId = row.id as HoldId
      decide(account, { _tag: "Hold", hold: { id: holdId, subjectId, amount: cost, call: "proxy", agentId, agent: "P", createdAtMs: atMs, expiresAtMs: Infinity } }, atMs)
      const outcome = decide(account, { _tag: "Capture", holdId, amount: cost, earnerId: provider, split }, atMs) as Decided
      return node.accounts.commit(account, { transactions: [outcome.transaction!], usage: [row] }, outcome)
    }))
  }
  return row
}

const move = (node: GatewayNode, provider: AccountId, amountOf: (available: bigint) => bigint): Promise<bigint> => insist(async () => {
  await Effect.runPromise(node.ledger.sweep(provider, true))
  return Effect.runPromise(node.accounts.act(provider, (account, nowMs) => {
    const amount = amountOf(spendable(account))
    if (amount === 0n) return Effect.succeed(0n)
    const facts = { transactionId: newId<TransactionId>(), type: "adjustment", reference: "of the test" } as const
    const outcome = decide(account, amount < 0n ? { _tag: "Withdraw", amount: -amount, ...facts } : { _tag: "Deposit", amount, ...facts }, nowMs) as Decided
    return Effect.as(node.accounts.commit(account, { transactions: [outcome.transaction!] }, outcome), amount)
  }))
})

interface Written { readonly row: UsageRow; readonly group: number }
interface Created { readonly settlement: Settlement; readonly group: number }

const play = async ({ sinceDaysAgo, groups }: Scene) => {
  const sinceMs = Date.now() - sinceDaysAgo * dayMs
  const cast = await people(sinceMs)
  const calls: Array<Written> = []
  const settlements: Array<Created> = []
  const paid: Array<string> = []
  let moved = 0n

  const settle = async (node: GatewayNode, group: number, startMs: number, endMs: number): Promise<void> => {
    const exit = await Effect.runPromise(Effect.result(node.settlements.create(admin, { provider: cast.provider, startMs, endMs })))
    if (exit._tag === "Success") settlements.push({ settlement: exit.success, group })
    else expect(exit.failure._tag, "only the very same period").toBe("RuleBroken")
  }
  const pay = async (node: GatewayNode, id: string): Promise<void> => {
    const exit = await Effect.runPromise(Effect.result(node.settlements.pay(admin, id, `tx of ${id}`)))
    if (exit._tag === "Success") paid.push(id)
    else expect(["NotFound", "RuleBroken"]).toContain(exit.failure._tag)
  }
  const moving = async (node: GatewayNode, amountOf: (available: bigint) => bigint): Promise<void> => {
    const amount = await move(node, cast.provider, amountOf)
    moved += amount
  }
  const run = async (node: GatewayNode, at: number, group: number, command: Command): Promise<void> => {
    switch (command._tag) {
      case "call": return void calls.push({ row: await writeCall(node, cast, at, sinceMs, command as never), group })
      case "settle": return settle(node, group, sinceMs + command.fromMs, sinceMs + command.fromMs + command.lengthMs)
      case "pay": return settlements.length === 0 ? undefined : pay(node, settlements[command.which % settlements.length]!.settlement.id)
      case "spend": return moving(node, (available) => -(available * command.percent / 100n))
    }
  }
  for (const [group, commands] of groups.entries()) {
    await Promise.all([0, 1].map(async (at) => {
      for (const { node, command } of commands) if (node === at) await run(nodes[at]!, at, group, command)
    }))
    // What a settlement of another node could not see yet is written now.
    await Promise.all(nodes.map(({ usage }) => Effect.runPromise(usage.flush)))
  }
  return {
    ...cast, sinceMs, calls, settlements, paid, settle, pay, last: groups.length,
    spent: () => -moved, give: (amount: bigint) => moving(nodes[0]!, () => amount)
  }
}

const check = async (played: Awaited<ReturnType<typeof play>>): Promise<void> => {
  const { calls, settlements, paid, provider, agents, sinceMs, last } = played
  const due = calls.filter(({ row }) => row.due !== undefined)
  const owners = await sql<Array<{ usage_id: string; settlement_id: string | null }>>`select usage_id, settlement_id from dues where agent_id in ${sql([...agents])}`
  const settledBy = new Map(owners.map(({ usage_id, settlement_id }) => [usage_id, settlement_id]))
  expect(settledBy.size).toBe(due.length)
  for (const { row, group } of due) {
    const could = settlements.filter(({ settlement: { periodStart, periodEnd } }) => periodStart.getTime() <= row.atMs && row.atMs < periodEnd.getTime())
    const by = settledBy.get(row.id)
    if (by === null) expect(could.filter((created) => created.group > group), "a later settlement leaves nothing of its period").toEqual([])
    else expect(could.map(({ settlement }) => settlement.id)).toContain(by)
  }

  // All that is left, and all that was not paid.
  await played.settle(nodes[1]!, last, sinceMs - dayMs, sinceMs + spanDays * dayMs)
  expect(await sql`select from dues where agent_id in ${sql([...agents])} and settlement_id is null`).toHaveLength(0)
  const spent = played.spent()
  if (spent > 0n) await played.give(spent)
  await Promise.all(settlements.filter(({ settlement: { id } }) => !paid.includes(id)).map(({ settlement }, at) => played.pay(nodes[at % 2]!, settlement.id)))
  expect([...paid].sort()).toEqual(settlements.map(({ settlement }) => settlement.id).sort())

  const total = (of: (written: Written) => bigint): bigint => due.reduce((sum, written) => sum + of(written), 0n)
  const earned = total(({ row }) => row.due!.recorded ? 0n : row.cost - row.due!.fee)
  const [sums] = await sql`
    select coalesce(sum(total), 0)::bigint as total, coalesce(sum(fee), 0)::bigint as fee, coalesce(sum(credited), 0)::bigint as credited, coalesce(sum(calls), 0)::int as calls,
           count(*) filter (where status <> 'completed')::int as unpaid from settlements where account_id = ${provider}`
  expect(sums).toEqual({ total: total(({ row }) => row.cost), fee: total(({ row }) => row.due!.fee), credited: earned, calls: due.length, unpaid: 0 })
  const [out] = await sql`select coalesce(-sum(available), 0)::bigint as out from transactions where account_id = ${provider} and type = 'withdrawal'`
  const [left] = await sql`select (a.available + e.posted)::bigint as has from accounts a join earnings e on e.account_id = a.id where a.id = ${provider}`
  expect([out!["out"], left!["has"]], "what it has and what it was paid is what it earned").toEqual([earned, 0n])
}

describe("settlements of random calls, made and paid on two nodes at once,", () => {
  it("settle every due once, pay every settlement once, and leave the books clean", async () => {
    await fc.assert(fc.asyncProperty(fc.array(scene, { minLength: scenes, maxLength: scenes }), async (all) => {
      await Promise.all(all.map(async (scene) => check(await play(scene))))
      expect((await audit(sql)).filter(({ ok }) => !ok)).toEqual([])
    }), { numRuns, seed, endOnFailure: true })
  }, 600_000)
})
