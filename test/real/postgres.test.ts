/** What `store/Postgres.ts` adds to postgres.js: arrays by their text form. */
import fc from "fast-check"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Sql, connect } from "../../src/store/Postgres.ts"
import { freshDatabase } from "../support/postgres.ts"

let sql: Sql
let drop: () => Promise<void>

beforeAll(async () => {
  const database = await freshDatabase()
  drop = database.drop
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
