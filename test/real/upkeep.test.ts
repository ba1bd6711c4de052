/** What the database needs from time to time, and what it needs to begin with: a role that may create in its schema. */
import { Effect, Layer, ManagedRuntime } from "effect"
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest"
import type { AccountId, AgentId, KeyId, OrderId, SessionId, Token } from "../../src/domain/ids.ts"
import { audit } from "../../src/store/Audit.ts"
import { Committer } from "../../src/store/Committer.ts"
import type { CommitRows } from "../../src/store/Commit.ts"
import { findRemembered } from "../../src/store/IdempotencyStore.ts"
import { imbalance } from "../../src/store/LedgerStore.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { Postgres, type Sql, connect } from "../../src/store/Postgres.ts"
import { keepUp } from "../../src/store/Upkeep.ts"
import { rollUpSql } from "../../src/store/usageSql.ts"
import { closedChat, isErased, textsOf } from "../support/closedSession.ts"
import { startKernel } from "../support/kernelNode.ts"
import { balanceOf, newAccount, submitted, takeToken, transaction } from "../support/ledgerRows.ts"
import { type TestDatabase, type TestPostgres, freshDatabase, testPostgres } from "../support/postgres.ts"

const hourMs = 3_600_000
const dayMs = 24 * hourMs
/** A quarter past an hour of a day that nothing else is about, and that has been by every clock. */
const now = Date.parse("2021-05-17T10:15:00.000Z")
const at = (ms: number): Date => new Date(ms)

let database: TestDatabase
let sql: Sql

const partitionsOf = async (table: string): Promise<ReadonlyArray<string>> => (await sql<Array<{ name: string }>>`
  select inhrelid::regclass::text as name from pg_inherits where inhparent = ${table}::regclass order by 1`).map(({ name }) => name)

const remember = async (accountId: string, atMs: number): Promise<string> => {
  const key = randomUUID()
  await sql`insert into idempotency_keys (account_id, key, fingerprint, result_id, created_at) values (${accountId}, ${key}, 'f', 'r', ${at(atMs)})`
  await sql`insert into idempotency_answers (account_id, key, status, headers, body, created_at) values (${accountId}, ${key}, 200, '[]', 'answer', ${at(atMs)})`
  return key
}
const insertUsage = (atMs: number) => sql`
  insert into usage (id, account_id, subject_id, agent_id, call, status, cost, latency_ms, created_at)
  values (${randomUUID()}, ${randomUUID()}, ${randomUUID()}, ${randomUUID()}, 'proxy', 200, 0, 1, ${at(atMs)}) returning tableoid::regclass::text as partition`

const cleanBooks = async (): Promise<void> => expect((await audit(sql)).filter(({ ok }) => !ok)).toEqual([])

/** In an empty database; `sql` is a pool of it. */
const useDatabase = (): void => {
  beforeEach(async () => {
    database = await freshDatabase()
    sql = connect(database.options, { max: 6, statementTimeoutMs: 10_000, name: "tollgate-test" })
    await migrate(sql)
    return async () => {
      await sql.end({ timeout: 1 })
      await database.drop()
    }
  })
}

/** Turn after turn until there is no backlog. Answers how many it took. */
const keepUpWhole = async (nowMs: number, usageRetentionDays?: number): Promise<number> => {
  let turns = 1
  while (await keepUp(sql, nowMs, usageRetentionDays === undefined ? undefined : { usageRetentionDays, chatRetentionDays: 3_650 })) turns++
  return turns
}

describe("upkeep", () => {
  useDatabase()

  it("has partitions ready for this and the next three days and hours, and adds the next ones in time", async () => {
    await keepUp(sql, now)
    const days = ["usage_20210517", "usage_20210518", "usage_20210519", "usage_20210520"]
    const hours = ["10", "11", "12", "13"].map((hour) => `idempotency_answers_20210517${hour}`)
    expect(await partitionsOf("usage")).toEqual([...days, "usage_default"])
    expect(await partitionsOf("idempotency_answers")).toEqual([...hours, "idempotency_answers_default"])
    await keepUp(sql, now)
    expect(await partitionsOf("usage")).toHaveLength(5)
    await keepUp(sql, now + hourMs)
    expect(await partitionsOf("idempotency_answers")).toContain("idempotency_answers_2021051714")
    expect(await insertUsage(now)).toEqual([{ partition: "usage_20210517" }])
    expect(await insertUsage(now + 4 * dayMs)).toEqual([{ partition: "usage_default" }])
  })

  it("is done by many nodes at once", async () => {
    await Promise.all(Array.from({ length: 6 }, () => keepUp(sql, now)))
    expect([await partitionsOf("usage"), await partitionsOf("idempotency_answers")].map(({ length }) => length)).toEqual([5, 5])
  })

  it("goes on when rows came before their partition, which stay where they are", async () => {
    expect(await insertUsage(now)).toEqual([{ partition: "usage_default" }])
    const id = await newAccount(sql)
    const key = await remember(id, now)
    await keepUp(sql, now)
    expect(await partitionsOf("usage")).toEqual(["usage_20210518", "usage_20210519", "usage_20210520", "usage_default"])
    expect(await partitionsOf("idempotency_answers")).toEqual(["11", "12", "13"].map((hour) => `idempotency_answers_20210517${hour}`).concat("idempotency_answers_default"))
    await keepUp(sql, now + dayMs + 1)
    expect(await sql`select from idempotency_answers where key = ${key}`).toEqual([])
  })

  it("forgets idempotency keys and their answers after 24 hours, and not before", async () => {
    const id = await newAccount(sql)
    await keepUp(sql, now - 25 * hourMs)
    const [gone, leaving] = [await remember(id, now - 25 * hourMs), await remember(id, now - 24 * hourMs + 1)]
    expect(await sql`select tableoid::regclass::text as partition from idempotency_answers where key = ${gone}`).toEqual([{ partition: "idempotency_answers_2021051609" }])
    await keepUp(sql, now)
    const fresh = await remember(id, now)
    await keepUp(sql, now)
    const keys = async () => (await sql<Array<{ key: string }>>`select key from idempotency_keys order by created_at`).map(({ key }) => key)
    const answers = async () => (await sql<Array<{ key: string }>>`select key from idempotency_answers order by created_at`).map(({ key }) => key)
    expect(await keys()).toEqual([leaving, fresh])
    expect(await answers()).toEqual([leaving, fresh])
    await keepUp(sql, now + hourMs)
    expect([await keys(), await answers()]).toEqual([[fresh], [fresh]])
    const hours = ["1611", "1612", "1710", "1711", "1712", "1713", "1714"].map((hour) => `idempotency_answers_202105${hour}`)
    expect(await partitionsOf("idempotency_answers")).toEqual([...hours, "idempotency_answers_default"])
  })

  it("takes from a key that is older than 24 hours and not swept yet its meaning at once", async () => {
    const id = await newAccount(sql)
    const [old, young] = [await remember(id, Date.now() - dayMs - 1_000), await remember(id, Date.now() - dayMs + 60_000)]
    const found = (key: string) => Effect.runPromise(findRemembered(id, key).pipe(Effect.provide(Postgres.layer(database.options))))
    expect(await found(old)).toBeUndefined()
    expect(await found(young)).toMatchObject({ fingerprint: "f", answer: { status: 200 } })
    expect(await sql`select key from idempotency_keys`).toEqual([{ key: young }])
  })

  it("folds old batches into the books without moving a unit, also when many nodes do it at once", async () => {
    for (const amount of [5n, 7n, 11n, 13n]) await newAccount(sql, amount)
    await sql`update batches set created_at = now() - interval '2 hours' where deposits in (-5, -7, -11)`
    await sql`update transactions set created_at = now() - interval '2 hours' where available in (5, 7, 11)`
    const sums = () => Effect.runPromise(imbalance.pipe(Effect.provide(Postgres.layer(database.options))))
    expect(await sums()).toBe(0n)
    await Promise.all(Array.from({ length: 4 }, () => keepUp(sql, Date.now())))
    expect(await sql`select deposits from batches`).toEqual([{ deposits: -13n }])
    expect(await sql`select amount from books where book = 'deposits'`).toEqual([{ amount: -23n }])
    expect(await sums()).toBe(0n)
    await cleanBooks()
  })

  it("works off what an outage of days left in turns that each stay short", async () => {
    const id = await newAccount(sql)
    await sql`insert into idempotency_keys select ${id}, 'key ' || n, 'f', 'r', ${at(now - 25 * hourMs)} from generate_series(1, 25000) n`
    await sql`insert into batches select gen_random_uuid(), 1, 0, -1, 0, '{}', ${at(now - 2 * hourMs)} from generate_series(1, 15000)`
    const left = async () => [await sql`select from idempotency_keys`, await sql`select from batches`].map(({ count }) => count)
    expect(await keepUp(sql, now)).toBe(true)
    const [keys, batches] = await left()
    expect(keys).toBeLessThan(25_000)
    expect(keys).toBeGreaterThan(0)
    expect(batches).toBeGreaterThan(0)
    expect(await keepUpWhole(now)).toBeLessThan(10)
    expect(await left()).toEqual([0, 0])
    expect(await sql`select book, amount from books where amount <> 0 order by 1`).toEqual([{ book: "deposits", amount: -15_000n }, { book: "fee", amount: 15_000n }])
  })

  it("removes nothing that is past its time only by a clock that runs ahead", async () => {
    const id = await newAccount(sql, 5n)
    const real = Date.now()
    await keepUp(sql, real - 2 * hourMs)
    const keys = [await remember(id, real - 2 * hourMs), await remember(id, real)]
    await insertUsage(real)
    const before = await partitionsOf("idempotency_answers")
    await keepUpWhole(real + 1_000 * dayMs, 1)
    expect(await partitionsOf("idempotency_answers")).toEqual(expect.arrayContaining([...before]))
    expect((await sql<Array<{ key: string }>>`select key from idempotency_answers join idempotency_keys using (key)`).map(({ key }) => key).sort()).toEqual(keys.sort())
    expect(await sql`select from usage`).toHaveLength(1)
    expect(await sql`select deposits from batches`).toEqual([{ deposits: -5n }])
  })
})

describe("retention of usage", () => {
  useDatabase()
  const today = Math.floor(now / dayMs) * dayMs
  const daysOf = async (): Promise<ReadonlyArray<string>> => (await partitionsOf("usage")).filter((name) => name !== "usage_default")
  const usageDays = (...offsets: ReadonlyArray<number>): ReadonlyArray<string> => offsets.map((offset) => `usage_${at(today + offset * dayMs).toISOString().slice(0, 10).replaceAll("-", "")}`)

  let buyer: AccountId
  let submit: (atMs: number) => Promise<void>

  /** Paid calls by the Committer, so that charges, usage and roll-ups are what a gateway writes. */
  beforeEach(async () => {
    buyer = await newAccount(sql, 1_000_000n)
    const token: Token = await takeToken(sql, buyer)
    const runtime = ManagedRuntime.make(Committer.layer.pipe(Layer.provideMerge(Postgres.layer(database.options))))
    const committer = await runtime.runPromise(Committer)
    const [agentId, subjectId] = [randomUUID() as string as AgentId, randomUUID() as string as KeyId]
    submit = async (atMs) => {
      const charge = transaction({ available: -100n, fee: 100n, agentId, subjectId, atMs })
      const usage = [{ id: charge.id, accountId: buyer, subjectId, agentId, call: "proxy" as const, status: 200, cost: 100n, latencyMs: 5, atMs }]
      expect(await submitted(committer.submit, buyer, token, { transactions: [charge], usage })).toEqual({ _tag: "committed" })
    }
    return () => runtime.dispose()
  })

  /** A paid call at noon of each of these days, counted from today, which have their partitions. */
  const calls = async (...offsets: ReadonlyArray<number>): Promise<void> => {
    for (const offset of offsets) {
      await keepUp(sql, today + offset * dayMs)
      await submit(today + offset * dayMs + 12 * hourMs)
    }
    await sql.unsafe(rollUpSql)
  }
  const kept = async () => ({
    byAgent: await sql`select * from usage_hourly_by_agent order by hour`,
    byAgentAndDay: await sql`select * from usage_daily_by_agent order by day`,
    byAccount: await sql`select * from usage_daily_by_account order by day`,
    byWeek: await sql`select * from usage_weekly_by_account order by week`,
    byMonth: await sql`select * from usage_months_by_account order by month`,
    byPair: await sql`select * from usage_by_pair`,
    totals: await sql`select * from agent_totals`,
    charges: await sql`select id, balance_after from transactions order by created_at`
  })

  it("drops the days before, and keeps roll-ups, charges and the balance's history whole", async () => {
    await calls(-9, -5, -4, -3, -2, -1, 0)
    const before = await kept()
    expect(before.byAgent).toHaveLength(7)
    await keepUpWhole(now, 3)
    expect(await daysOf()).toEqual(usageDays(-3, -2, -1, 0, 1, 2, 3))
    expect(await sql`select created_at from usage order by 1`).toEqual([-3, -2, -1, 0].map((offset) => ({ created_at: at(today + offset * dayMs + 12 * hourMs) })))
    expect(await kept()).toEqual(before)
    expect(await balanceOf(sql, buyer)).toBe(1_000_000n - 700n)
    await cleanBooks()
    await keepUpWhole(now + dayMs, 3)
    expect(await daysOf()).toEqual(usageDays(-2, -1, 0, 1, 2, 3, 4))
    await cleanBooks()
  })

  it("never drops today or yesterday, whichever of two clocks runs ahead, and keeps all without a setting", async () => {
    await calls(-2, -1, 0)
    await keepUpWhole(now)
    expect(await daysOf()).toEqual(usageDays(-2, -1, 0, 1, 2, 3))
    await keepUpWhole(today + dayMs - 1, 1)
    expect(await daysOf()).toEqual(usageDays(-1, 0, 1, 2, 3))
    // The node's clock is a year ahead; the database's says what day it is.
    const real = Date.now()
    await keepUp(sql, real - dayMs)
    await insertUsage(real - dayMs)
    await keepUpWhole(real + 365 * dayMs, 1)
    expect((await sql`select from usage`).count).toBe(1)
    expect(await daysOf()).toContain(`usage_${new Date(real - dayMs).toISOString().slice(0, 10).replaceAll("-", "")}`)
  })

  it("waits for nobody: while the oldest day is read nothing is dropped, calls are written on, and later it goes", async () => {
    await calls(-9, -5, -4, -1, 0)
    const reader = await sql.reserve()
    await reader`begin`
    await reader.unsafe(`select from ${usageDays(-9)[0]!}`)
    const days = await daysOf()
    // The younger ones stay too: roll-ups are proved from the oldest day on.
    await Promise.all([keepUpWhole(now, 2), submit(now), submit(now)])
    expect(await daysOf()).toEqual(days)
    await cleanBooks()
    await reader`commit`
    reader.release()
    await keepUpWhole(now, 2)
    expect((await daysOf())[0]).toBe(usageDays(-2)[0])
    expect(await sql`select from usage`).toHaveLength(4)
    await cleanBooks()
  })

  it("is done by many nodes at once", async () => {
    await calls(-9, -8, -7, -6, -1, 0)
    await Promise.all(Array.from({ length: 5 }, () => keepUpWhole(now, 1)))
    await keepUpWhole(now, 1)
    expect((await daysOf())[0]).toBe(usageDays(-1)[0])
    await cleanBooks()
  })

  it("reaches rows that came before their partition, after the partitions of their time", async () => {
    await submit(today - 9 * dayMs)
    await submit(today - dayMs)
    await calls(-6, 0)
    const strays = () => sql`select from usage_default`
    expect((await strays()).count).toBe(2)
    const reader = await sql.reserve()
    await reader`begin`
    await reader.unsafe(`select from ${usageDays(-6)[0]!}`)
    await keepUp(sql, now, { usageRetentionDays: 3, chatRetentionDays: 3_650 })
    expect((await strays()).count).toBe(2)
    await reader`commit`
    reader.release()
    await keepUpWhole(now, 3)
    expect((await strays()).count).toBe(1)
    await cleanBooks()
  })

  it("is not mistaken for a loss by an audit that had begun", async () => {
    await calls(-9, -1, 0)
    const writer = await sql.reserve()
    await writer`begin`
    await writer`lock table transactions`
    const auditing = audit(sql)
    await vi.waitFor(async () => expect(await sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`).toHaveLength(1), { timeout: 5_000 })
    await keepUpWhole(now, 2)
    expect((await daysOf())[0]).toBe(usageDays(-1)[0])
    await writer`commit`
    writer.release()
    expect((await auditing).filter(({ ok }) => !ok)).toEqual([])
  })

  it("is done by a gateway by itself, as its setting says", async () => {
    const real = Date.now()
    for (const days of [40, 30]) {
      await keepUp(sql, real - days * dayMs)
      await insertUsage(real - days * dayMs)
    }
    const [said, kept] = [await closedChat(sql, real - 40 * dayMs, 1), await closedChat(sql, real - 30 * dayMs, 1)]
    const node = await startKernel(database.options, { usageRetentionDays: 35, chatRetentionDays: 38 })
    try {
      await vi.waitFor(async () => expect((await sql`select from usage`).count).toBe(1), { timeout: 10_000 })
      expect(await sql`select from usage where created_at < now() - interval '35 days'`).toHaveLength(0)
      await vi.waitFor(async () => expect(await isErased(sql, said)).toBe(true), { timeout: 10_000 })
      expect([await textsOf(sql, said), await textsOf(sql, kept)]).toEqual([0, 1])
    } finally {
      await node.stop()
    }
  })
})

describe.each([15, 18] as const)("on PostgreSQL %i, a role that may only create in its schema", (major) => {
  let server: TestPostgres
  let admin: Sql
  beforeAll(async () => {
    server = await testPostgres({ major })
    admin = connect({ ...server.options, user: "postgres", database: "postgres" }, { max: 1, statementTimeoutMs: 10_000, name: "tollgate-test" })
    await admin`create role gateway login nosuperuser nocreatedb nocreaterole`
  })
  afterAll(async () => {
    await admin.end()
    await server.stop()
  })

  const tryOut = async (name: string, prepare: string): Promise<void> => {
    await admin.unsafe(`create database ${name}`)
    const owner = connect({ ...server.options, user: "postgres", database: name }, { max: 1, statementTimeoutMs: 10_000, name: "tollgate-test" })
    await owner.unsafe(prepare).finally(() => owner.end())
    const role = connect({ ...server.options, user: "gateway", database: name }, { max: 2, statementTimeoutMs: 10_000, name: "tollgate-test" })
    try {
      await migrate(role)
      await migrate(role)
      await keepUp(role, now - 30 * hourMs)
      await keepUp(role, now)
      expect((await audit(role)).filter(({ ok }) => !ok)).toEqual([])
      expect(await role`select from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relname = 'accounts' and c.relowner = 'gateway'::regrole`).toHaveLength(1)
    } finally {
      await role.end()
    }
  }

  it("makes and keeps its tables in public", () => tryOut("in_public", "grant create on schema public to gateway"))

  it("makes and keeps its tables in a schema of its own, which its search_path names", () =>
    tryOut("in_own", "create schema tollgate; grant usage, create on schema tollgate to gateway; alter role gateway in database in_own set search_path = tollgate"))

  it("is refused without it", async () => {
    await expect(tryOut("in_nothing", "select 1")).rejects.toMatchObject({ code: "42501" })
  })
})
