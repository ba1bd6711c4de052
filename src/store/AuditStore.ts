/** Reading the audit log: an account's own management actions, newest first. */
import { Effect } from "effect"
import type { StoreUnavailable } from "../domain/errors.ts"
import type { AccountId } from "../domain/ids.ts"
import { Postgres, type Sql } from "./Postgres.ts"

export interface AuditEntry {
  readonly id: string
  readonly actor: string
  readonly action: string
  readonly target: string
  readonly details: Readonly<Record<string, unknown>>
  readonly createdAt: Date
}

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
