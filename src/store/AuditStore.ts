/** The audit log: an account's own management actions. Written by what writes the action, read newest first. */
import { Effect } from "effect"
import type { StoreUnavailable } from "../domain/errors.ts"
import type { AccountId } from "../domain/ids.ts"
import type { AuditRow } from "./Commit.ts"
import { Postgres, type Sql } from "./Postgres.ts"

export interface AuditEntry {
  readonly id: string
  readonly actor: string
  readonly action: string
  readonly target: string
  readonly details: Readonly<Record<string, unknown>>
  readonly createdAt: Date
}

/** A part of the transaction, or of the statement, that does what the row says. */
export const insertAudit = (sql: Sql, accountId: AccountId, { id, actor, action, target, details, atMs }: AuditRow) => sql`
  insert into audit_log (id, account_id, actor, action, target, details, created_at)
  values (${id}, ${accountId}, ${actor}, ${action}, ${target}, ${sql.json(details as never)}, ${new Date(atMs)})`

const selectAudit = (sql: Sql, accountId: AccountId, limit: number, after: string | undefined) => sql<Array<{
  id: string; actor: string; action: string; target: string; details: Record<string, unknown>; created_at: Date
}>>`
  select id, actor, action, target, details, created_at from audit_log
  where account_id = ${accountId} ${after === undefined ? sql`` : sql`and id < ${after}`}
  order by id desc limit ${limit}`

export const listAudit = (accountId: AccountId, limit: number, after: string | undefined): Effect.Effect<ReadonlyArray<AuditEntry>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectAudit(sql, accountId, limit, after))).pipe(
    Effect.map((rows) => rows.map(({ created_at, ...row }): AuditEntry => ({ ...row, createdAt: created_at })))
  )
