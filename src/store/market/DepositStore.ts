/** Deposits that wait for their payment, and what an account has put in and spent since ever. */
import { Effect } from "effect"
import type { Credits } from "../../domain/credits.ts"
import type { StoreUnavailable } from "../../domain/errors.ts"
import type { AccountId } from "../../domain/ids.ts"
import { insertAudit } from "../AuditStore.ts"
import type { AuditRow } from "../Commit.ts"
import { Postgres, type Sql } from "../Postgres.ts"

export interface NewDeposit {
  readonly id: string
  readonly accountId: AccountId
  readonly amount: Credits
  readonly atMs: number
  readonly audit: AuditRow
}

const insertDeposit = (sql: Sql, { id, accountId, amount, atMs, audit }: NewDeposit) => sql`
  with audited as (${insertAudit(sql, accountId, audit)})
  insert into deposits (id, account_id, amount, created_at) values (${id}, ${accountId}, ${amount}, ${new Date(atMs)})`

/** Merged accounts are one. What was recorded was not spent from credits. */
const selectTotals = (sql: Sql, accountId: AccountId) => sql<Array<{ deposited: bigint; spent: bigint }>>`
  with family as (select id from accounts where id = ${accountId} or merged_into = ${accountId})
  select (select coalesce(sum(-deposits), 0) from transactions where account_id in (select id from family) and type in ('deposit', 'adjustment') and deposits < 0)::bigint as deposited,
         (select coalesce(sum(cost - recorded), 0) from usage_daily_by_account where account_id in (select id from family))::bigint as spent`

export const addDeposit = (deposit: NewDeposit): Effect.Effect<void, StoreUnavailable, Postgres> =>
  Effect.asVoid(Postgres.use(({ run }) => run((sql) => insertDeposit(sql, deposit))))

export const findTotals = (accountId: AccountId): Effect.Effect<{ readonly deposited: Credits; readonly spent: Credits }, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectTotals(sql, accountId))).pipe(Effect.map(([row]) => row!))
