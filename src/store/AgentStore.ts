/** Agents as rows: finding one by id or ticker, and the listing. Writes go through the owner's commit. */
import { Effect } from "effect"
import type { Agent, AgentStatus, AuthTier, Manifest } from "../domain/agent.ts"
import type { StoreUnavailable } from "../domain/errors.ts"
import { type AccountId, type AgentId, isUuid } from "../domain/ids.ts"
import type { PaymentMethod } from "../domain/terms.ts"
import { Postgres, type Sql } from "./Postgres.ts"

/** A row of `agents`. */
export interface AgentColumns {
  id: AgentId; owner_id: AccountId; dialect: string; ticker: string; name: string; description: string; category: string
  endpoint_url: string; price: bigint; free_tier_calls: number; auth_tier: AuthTier; status: AgentStatus
  suspended: boolean; manifest: Manifest | null; provider: string | null; provider_key: Uint8Array | null; version: bigint; created_at: Date
  tags: Array<string>; payment_method: PaymentMethod; provider_since: Date | null; updated_at: Date
}

export interface ListedAgent {
  readonly agent: Agent
  readonly calls: bigint
  readonly revenue: bigint
  /** Chat turns that buyers cancelled today (UTC) after it had begun to answer; for its owner only. */
  readonly lateCancelsToday?: number
}

export type AgentSort = "trending" | "revenue" | "new"

export interface AgentQuery {
  readonly sort: AgentSort
  readonly limit: number
  /** The last row of the page before: its sort figure and id. */
  readonly after: { readonly figure: bigint; readonly id: string } | undefined
  readonly category: string | undefined
  /** Matched literally against name, ticker and description. */
  readonly text: string | undefined
  /** Own agents, also paused ones; `undefined`: everybody's active ones. */
  readonly ownerId: AccountId | undefined
}

const selectByName = (sql: Sql, name: string) => isUuid(name)
  ? sql<Array<AgentColumns & { calls: bigint | null; cost: bigint | null }>>`
      select a.*, t.calls, t.cost from agents a left join agent_totals t on t.agent_id = a.id where a.id = ${name}`
  : sql<Array<AgentColumns & { calls: bigint | null; cost: bigint | null }>>`
      select a.*, t.calls, t.cost from agents a left join agent_totals t on t.agent_id = a.id where a.ticker = ${name.toUpperCase()}`

const selectPage = (sql: Sql, query: AgentQuery) => sql<Array<AgentColumns & { calls: bigint; cost: bigint; figure: bigint; late_cancels: number | null }>>`
  select * from (
    select a.*, coalesce(t.calls, 0) as calls, coalesce(t.cost, 0) as cost,
      ${query.ownerId === undefined ? sql`null::int`
        : sql`coalesce((select sum(l.cancels) from late_cancels l where l.agent_id = a.id and l.day = (now() at time zone 'utc')::date), 0)::int`} as late_cancels,
      ${query.sort === "trending"
        ? sql`coalesce((select sum(h.calls) from usage_hourly_by_agent h where h.agent_id = a.id and h.hour > now() - interval '24 hours'), 0)::bigint`
        : query.sort === "revenue" ? sql`coalesce(t.cost, 0)` : sql`0::bigint`} as figure
    from agents a left join agent_totals t on t.agent_id = a.id
    where not a.suspended
      and ${query.ownerId === undefined ? sql`a.status = 'active'` : sql`a.owner_id = ${query.ownerId} and a.status <> 'removed'`}
      ${query.category === undefined ? sql`` : sql`and a.category = ${query.category}`}
      ${query.text === undefined ? sql`` : sql`and position(lower(${query.text}) in lower(a.name || ' ' || a.ticker || ' ' || a.description)) > 0`}
  ) listed
  ${query.after === undefined ? sql`` : sql`where (figure, id) < (${query.after.figure}::bigint, ${query.after.id}::uuid)`}
  order by figure desc, id desc limit ${query.limit}`

export const agentOf = (row: AgentColumns): Agent => ({
  id: row.id, ownerId: row.owner_id, dialect: row.dialect, ticker: row.ticker, name: row.name, description: row.description,
  category: row.category, endpointUrl: row.endpoint_url, price: row.price, freeTierCalls: row.free_tier_calls, authTier: row.auth_tier,
  status: row.status, suspended: row.suspended, manifest: row.manifest ?? undefined, provider: row.provider ?? undefined,
  providerKey: row.provider_key ?? undefined, tags: row.tags, paymentMethod: row.payment_method,
  providerSinceMs: row.provider_since?.getTime(), version: row.version, createdAtMs: row.created_at.getTime(), updatedAtMs: row.updated_at.getTime()
})

export const findAgent = (name: string): Effect.Effect<ListedAgent | undefined, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectByName(sql, name))).pipe(
    Effect.map(([row]) => row === undefined ? undefined : { agent: agentOf(row), calls: row.calls ?? 0n, revenue: row.cost ?? 0n })
  )

const selectProviderSince = (sql: Sql, ownerId: AccountId) => sql<Array<{ since: Date | null }>>`
  select min(provider_since) as since from agents where owner_id = ${ownerId}`

/** When the owner's first acf service was registered; `undefined` before it. */
export const findProviderSince = (ownerId: AccountId): Effect.Effect<number | undefined, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectProviderSince(sql, ownerId))).pipe(Effect.map(([row]) => row?.since?.getTime()))

export const listAgents = (query: AgentQuery): Effect.Effect<ReadonlyArray<ListedAgent & { readonly figure: bigint }>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectPage(sql, query))).pipe(
    Effect.map((rows) => rows.map((row) => ({
      agent: agentOf(row), calls: row.calls, revenue: row.cost, figure: row.figure, ...(row.late_cancels === null ? {} : { lateCancelsToday: row.late_cancels })
    })))
  )
