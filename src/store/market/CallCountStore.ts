/** How often an account has called an agent, since ever. */
import { Effect } from "effect"
import type { StoreUnavailable } from "../../domain/errors.ts"
import type { AccountId, AgentId } from "../../domain/ids.ts"
import { Postgres, type Sql } from "../Postgres.ts"

const selectCalls = (sql: Sql, accountId: AccountId, agentId: AgentId) => sql<Array<{ calls: bigint }>>`
  select coalesce(sum(calls), 0)::bigint as calls from usage_by_pair
  where account_id in (select id from accounts where id = ${accountId} or merged_into = ${accountId}) and agent_id = ${agentId}`

export const countCallsTo = (accountId: AccountId, agentId: AgentId): Effect.Effect<number, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectCalls(sql, accountId, agentId))).pipe(Effect.map(([row]) => Number(row?.calls ?? 0n)))
