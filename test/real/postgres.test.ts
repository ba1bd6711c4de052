/** What `store/Postgres.ts` adds to postgres.js: arrays by their text form, Unix sockets by their URL, patience with a server that is busy. */
import fc from "fast-check"
import postgres from "postgres"
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest"
import { type Sql, awaitServer, connect } from "../../src/store/Postgres.ts"
import { log } from "../../src/telemetry/log.ts"
import { type PostgresOptions, freshDatabase } from "../support/postgres.ts"

let sql: Sql
let options: PostgresOptions
let drop: () => Promise<void>

beforeAll(async () => {
  const database = await freshDatabase()
  drop = database.drop
  options = database.options
  sql = connect(database.options, { max: 1, statementTimeoutMs: 10_000, name: "tollgate-test" })
})
afterAll(async () => {
  await sql.end()
  await drop()
})

describe("an array", () => {
  it("of any texts comes back as it was sent, and the database sees its elements", async () => {
    // PostgreSQL's texts hold neither NUL nor half a surrogate pair.
    const text = fc.string({ unit: "grapheme", maxLength: 20 }).map((value) => value.replaceAll("\0", "").toWellFormed())
    const tricky = fc.constantFrom("", "a,b", "{}", '"', "\\", '\\"', " ", "NULL", "a\nb", "}{")
    await fc.assert(fc.asyncProperty(fc.array(fc.oneof(text, tricky), { maxLength: 6 }), async (items) => {
      const [row] = await sql`select ${items}::text[] as items, cardinality(${items}::text[]) as count, to_json(${items}::text[]) as seen`
      expect(row).toEqual({ items, count: items.length, seen: items })
    }), { numRuns: 100 })
  })

  it("of uuids selects the rows that it names", async () => {
    const ids = ["01a20149-5caa-7347-be8b-373de2b00aa6", "11a20149-5caa-7347-be8b-373de2b00aa6"]
    const rows = await sql`select id from unnest(${ids}::uuid[]) id where id = any(${ids.slice(1)}::uuid[])`
    expect(rows).toEqual([{ id: ids[1] }])
  })
})

describe("a Unix socket", () => {
  const nameOver = async (url: string): Promise<unknown> => {
    const own = connect(url, { max: 1, statementTimeoutMs: 10_000, name: "tollgate-test" })
    try {
      return (await own`select current_database() || ' ' || current_user as name`)[0]!["name"]
    } finally {
      await own.end()
    }
  }

  it("is reached by each of libpq's ways to name it in a URL", async () => {
    const { host, port, user, database } = options
    const place = `host=${encodeURIComponent(host)}&port=${port}`
    for (const url of [
      `postgres://${user}@/${database}?${place}`,
      `postgres://${user}:nobody-asks@/${database}?host=${host}`,
      `postgresql://${user}@ignored.test:1/${database}?${place}`
    ]) expect(await nameOver(url), url).toBe(`${database} ${user}`)
  })

  it("is the one of PGHOST when a URL has a login and no host", async () => {
    vi.stubEnv("PGHOST", options.host)
    try {
      expect(await nameOver(`postgres://${options.user}@/${options.database}`)).toBe(`${options.database} ${options.user}`)
    } finally {
      vi.unstubAllEnvs()
    }
  })
})

describe("a start", () => {
  it("waits for a connection when others have all that there are", async () => {
    const admin = postgres({ ...options, user: "postgres", max: 1, onnotice: () => {} })
    const warned = new Promise<unknown>((done) => {
      vi.spyOn(log, "warn").mockImplementationOnce((fact: unknown) => done(fact))
    })
    const own = connect(options, { max: 1, statementTimeoutMs: 10_000, name: "tollgate-test" })
    try {
      await admin.unsafe(`alter database ${options.database} connection limit 0`)
      const reached = awaitServer(own)
      expect(await warned).toEqual({ reason: `too many connections for database "${options.database}"` })
      await admin.unsafe(`alter database ${options.database} connection limit -1`)
      await reached
      expect(await own`select 1 as one`).toEqual([{ one: 1 }])
    } finally {
      await Promise.all([own.end(), admin.end()])
    }
  })
})
