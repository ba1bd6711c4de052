/** What an account has called and spent since ever, also as the accounts that were merged into it. */
import { Effect } from "effect"
import type { Credits } from "../../domain/credits.ts"
import type { StoreUnavailable } from "../../domain/errors.ts"
import type { AccountId } from "../../domain/ids.ts"
import { Postgres, type Sql } from "../Postgres.ts"

export interface OwnUsage {
  readonly calls: number
  readonly cost: Credits
  /** One decimal; 0 without calls. */
  readonly averageLatencyMs: number
}

const selectUsage = (sql: Sql, accountId: AccountId) => sql<Array<OwnUsage>>`
  select coalesce(sum(calls), 0)::float8 as calls, coalesce(sum(cost), 0)::bigint as cost,
         coalesce(round(sum(latency_ms)::numeric / nullif(sum(calls), 0), 1), 0)::float8 as "averageLatencyMs"
  from usage_daily_by_account where account_id in (select id from accounts where id = ${accountId} or merged_into = ${accountId})`

export const readUsage = (accountId: AccountId): Effect.Effect<OwnUsage, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectUsage(sql, accountId))).pipe(Effect.map(([row]) => row!))
