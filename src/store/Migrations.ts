/**
 * Forward-only migrations: the `.sql` files beside this module in name order,
 * each in a transaction of its own with the row that records it, all under one
 * advisory lock, so that nodes may start at once. A file that was changed after
 * it was applied stops the start, and so does one that was applied and is not
 * here: the tables are a newer version's.
 */
import { createHash } from "node:crypto"
import { readFileSync, readdirSync } from "node:fs"
import type { Sql } from "./Postgres.ts"

/** Any constant will do; every node must use the same. */
const lockKey = 8_202_611

/** This version and these tables don't belong together; nothing was changed. One line for the operator. */
export class SchemaMismatch extends Error {
  override readonly name = "SchemaMismatch"
}

const folder = new URL("./migrations/", import.meta.url)

export const migrate = async (sql: Sql, onApplied: (name: string) => void = () => {}): Promise<void> => {
  const files = readdirSync(folder).filter((name) => name.endsWith(".sql")).sort()
  // Leaves an open connection to reserve: postgres.js never hands out one that it has yet to open.
  await sql`select 1`
  const connection = await sql.reserve()
  try {
    await connection`set statement_timeout = 0`
    await connection`select pg_advisory_lock(${lockKey})`
    await connection`create table if not exists migrations (name text primary key, sha256 text not null, applied_at timestamptz not null default now())`
    const applied = new Map((await connection<Array<{ name: string; sha256: string }>>`select name, sha256 from migrations`).map((row) => [row.name, row.sha256]))
    const newer = [...applied.keys()].sort().find((name) => !files.includes(name))
    if (newer !== undefined) throw new SchemaMismatch(`these tables were made by a newer version (migration ${newer}), and there is no way back: use that version or a newer one`)
    for (const name of files) {
      const text = readFileSync(new URL(name, folder), "utf8")
      const sha256 = createHash("sha256").update(text).digest("hex")
      const known = applied.get(name)
      if (known === sha256) continue
      if (known !== undefined) throw new SchemaMismatch(`migration ${name} was changed after it was applied; restore it and add a new file instead`)
      await connection.unsafe(`begin; ${text}; insert into migrations (name, sha256) values ('${name}', '${sha256}'); commit`).catch(async (cause) => {
        await connection`rollback`
        throw cause
      })
      onApplied(name)
    }
  } finally {
    await connection`select pg_advisory_unlock(${lockKey})`.catch(() => {})
    await connection`reset statement_timeout`.catch(() => {})
    connection.release()
  }
}
