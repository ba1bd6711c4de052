/** What the database needs from time to time, and what it needs to begin with: a role that may create in its schema. */
import { Effect } from "effect"
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest"
import { audit } from "../../src/store/Audit.ts"
import { findRemembered } from "../../src/store/IdempotencyStore.ts"
import { imbalance } from "../../src/store/LedgerStore.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { Postgres, type Sql, connect } from "../../src/store/Postgres.ts"
import { keepUp } from "../../src/store/Upkeep.ts"
import { newAccount } from "../support/ledgerRows.ts"
import { type TestDatabase, type TestPostgres, freshDatabase, testPostgres } from "../support/postgres.ts"

const hourMs = 3_600_000
const dayMs = 24 * hourMs
/** A quarter past an hour of a day that nothing else is about. */
const now = Date.parse("2031-05-17T10:15:00.000Z")
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

describe("upkeep", () => {
  beforeEach(async () => {
    database = await freshDatabase()
    sql = connect(database.options, { max: 6, statementTimeoutMs: 10_000, name: "tollgate-test" })
    await migrate(sql)
    return async () => {
      await sql.end()
      await database.drop()
    }
  })

  it("has partitions ready for this and the next three days and hours, and adds the next ones in time", async () => {
    await keepUp(sql, now)
    const days = ["usage_20310517", "usage_20310518", "usage_20310519", "usage_20310520"]
    const hours = ["10", "11", "12", "13"].map((hour) => `idempotency_answers_20310517${hour}`)
    expect(await partitionsOf("usage")).toEqual([...days, "usage_default"])
    expect(await partitionsOf("idempotency_answers")).toEqual([...hours, "idempotency_answers_default"])
    await keepUp(sql, now)
    expect(await partitionsOf("usage")).toHaveLength(5)
    await keepUp(sql, now + hourMs)
    expect(await partitionsOf("idempotency_answers")).toContain("idempotency_answers_2031051714")
    expect(await insertUsage(now)).toEqual([{ partition: "usage_20310517" }])
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
    expect(await partitionsOf("usage")).toEqual(["usage_20310518", "usage_20310519", "usage_20310520", "usage_default"])
    expect(await partitionsOf("idempotency_answers")).toEqual(["11", "12", "13"].map((hour) => `idempotency_answers_20310517${hour}`).concat("idempotency_answers_default"))
    await keepUp(sql, now + dayMs + 1)
    expect(await sql`select from idempotency_answers where key = ${key}`).toEqual([])
  })

  it("forgets idempotency keys and their answers after 24 hours, and not before", async () => {
    const id = await newAccount(sql)
    await keepUp(sql, now - 25 * hourMs)
    const [gone, leaving] = [await remember(id, now - 25 * hourMs), await remember(id, now - 24 * hourMs + 1)]
    expect(await sql`select tableoid::regclass::text as partition from idempotency_answers where key = ${gone}`).toEqual([{ partition: "idempotency_answers_2031051609" }])
    await keepUp(sql, now)
    const fresh = await remember(id, now)
    await keepUp(sql, now)
    const keys = async () => (await sql<Array<{ key: string }>>`select key from idempotency_keys order by created_at`).map(({ key }) => key)
    const answers = async () => (await sql<Array<{ key: string }>>`select key from idempotency_answers order by created_at`).map(({ key }) => key)
    expect(await keys()).toEqual([leaving, fresh])
    expect(await answers()).toEqual([leaving, fresh])
    await keepUp(sql, now + hourMs)
    expect([await keys(), await answers()]).toEqual([[fresh], [fresh]])
    const hours = ["1611", "1612", "1710", "1711", "1712", "1713", "1714"].map((hour) => `idempotency_answers_203105${hour}`)
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
    expect((await audit(sql)).filter(({ ok }) => !ok)).toEqual([])
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
