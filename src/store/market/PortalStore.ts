/**
 * What a provider sees of its own: sums over its agents, whatever their status,
 * and its keys. All figures come from the roll-ups (`usageSql.ts`); days are UTC.
 */
import { Effect } from "effect"
import type { Agent } from "../../domain/agent.ts"
import type { StoreUnavailable } from "../../domain/errors.ts"
import type { AccountId, AgentId, KeyId } from "../../domain/ids.ts"
import { type AgentColumns, agentOf } from "../AgentStore.ts"
import { Postgres, type Sql } from "../Postgres.ts"

/** Newest first, at most so many. */
const servicesMax = 1_000
const keysMax = 1_000

export interface ProviderTotals {
  readonly services: number
  readonly activeServices: number
  readonly keys: number
  readonly calls: bigint
  readonly revenue: bigint
  /** The part of the revenue that settlements are made of: agents of other dialects are paid at each call. */
  readonly settleable: bigint
  /** Of completed settlements, before commission. */
  readonly settled: bigint
  readonly settlementsCompleted: number
}

export interface ServiceFigures {
  readonly agent: Agent
  readonly calls: bigint
  readonly revenue: bigint
  /** In milliseconds, one decimal; 0 without calls. */
  readonly latencyMs: number
}

export interface DayFigures {
  /** `2026-03-19` */
  readonly date: string
  readonly calls: bigint
  readonly revenue: bigint
}

export interface ServiceAnalytics extends ServiceFigures {
  /** Answered below 400, per hundred, one decimal; 100 without calls. */
  readonly successRate: number
  readonly buyers: number
  readonly firstAt: Date | undefined
  readonly lastAt: Date | undefined
  /** Newest first; days without calls are left out. */
  readonly daily: ReadonlyArray<DayFigures>
}

export interface MarketKeyRow {
  readonly id: KeyId
  readonly keyId: string
  readonly scopes: ReadonlyArray<string>
  readonly rateLimit: number | undefined
  readonly walletAddress: string | undefined
  readonly createdAt: Date
  readonly expiresAt: Date | undefined
}

const selectTotals = (sql: Sql, accountId: AccountId) => sql<Array<{
  services: number; active: number; keys: number; calls: bigint; revenue: bigint; settleable: bigint; settled: bigint; completed: number
}>>`
  select sums.*, paid.*, (select count(*)::int from api_keys where account_id = ${accountId} and dialect = 'acf' and status = 'active') as keys
  from (
    select count(*)::int as services, count(*) filter (where a.status = 'active')::int as active, coalesce(sum(t.calls), 0)::bigint as calls,
           coalesce(sum(t.cost), 0)::bigint as revenue, coalesce(sum(t.cost) filter (where a.dialect = 'acf'), 0)::bigint as settleable
    from agents a left join agent_totals t on t.agent_id = a.id where a.owner_id = ${accountId}
  ) sums, (
    select coalesce(sum(total), 0)::bigint as settled, count(*)::int as completed from settlements
    where status = 'completed' and account_id in (select account_id from parties where party_id = ${accountId})
  ) paid`

const figures = (sql: Sql) => sql`
  a.*, coalesce(t.calls, 0) as calls, coalesce(t.cost, 0) as cost, coalesce(round(t.latency_ms::numeric / nullif(t.calls, 0), 1), 0)::float8 as latency`

interface FigureColumns extends AgentColumns { calls: bigint; cost: bigint; latency: number }

const selectServices = (sql: Sql, accountId: AccountId) => sql<Array<FigureColumns>>`
  select ${figures(sql)} from agents a left join agent_totals t on t.agent_id = a.id
  where a.owner_id = ${accountId} order by a.created_at desc, a.id desc limit ${servicesMax}`

const selectAnalytics = (sql: Sql, id: AgentId, days: number) => sql<Array<FigureColumns & {
  success: number; buyers: number; first_at: Date | null; last_at: Date | null; daily: Array<{ date: string; calls: string; cost: string }>
}>>`
  select ${figures(sql)}, coalesce(round(100 * t.succeeded::numeric / nullif(t.calls, 0), 1), 100)::float8 as success, t.first_at, t.last_at,
    (select count(distinct p.party_id)::int from usage_by_pair u join parties p using (account_id) where u.agent_id = a.id) as buyers,
    (select coalesce(json_agg(json_build_object('date', to_char(d.day, 'YYYY-MM-DD'), 'calls', d.calls::text, 'cost', d.cost::text) order by d.day desc), '[]')
     from usage_daily_by_agent d where d.agent_id = a.id and d.day > now()::date - ${days}::int) as daily
  from agents a left join agent_totals t on t.agent_id = a.id where a.id = ${id}`

interface KeyColumns {
  id: KeyId; account_id: AccountId; key_prefix: string; scopes: Array<string>; rate_limit: number | null; wallet_address: string | null; created_at: Date; expires_at: Date | null
}

const selectKeys = (sql: Sql, accountId: AccountId) => sql<Array<KeyColumns>>`
  select id, account_id, key_prefix, scopes, rate_limit, wallet_address, created_at, expires_at from api_keys
  where account_id = ${accountId} and dialect = 'acf' and status = 'active' order by id desc limit ${keysMax}`

const selectKey = (sql: Sql, keyId: string) => sql<Array<{ id: KeyId; account_id: AccountId }>>`
  select id, account_id from api_keys where dialect = 'acf' and key_prefix = ${keyId} and status = 'active'`

const figuresOf = (row: FigureColumns): ServiceFigures => ({ agent: agentOf(row), calls: row.calls, revenue: row.cost, latencyMs: row.latency })

export const providerTotals = (accountId: AccountId): Effect.Effect<ProviderTotals, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectTotals(sql, accountId))).pipe(Effect.map(([row]) => {
    const { active, completed, ...same } = row!
    return { ...same, activeServices: active, settlementsCompleted: completed }
  }))

export const listServices = (accountId: AccountId): Effect.Effect<ReadonlyArray<ServiceFigures>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectServices(sql, accountId))).pipe(Effect.map((rows) => rows.map(figuresOf)))

/** Of an agent that exists. `days`: of the daily figures, today included. */
export const serviceAnalytics = (id: AgentId, days: number): Effect.Effect<ServiceAnalytics, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectAnalytics(sql, id, days))).pipe(Effect.map(([row]): ServiceAnalytics => ({
    ...figuresOf(row!), successRate: row!.success, buyers: row!.buyers, firstAt: row!.first_at ?? undefined, lastAt: row!.last_at ?? undefined,
    daily: row!.daily.map(({ date, calls, cost }) => ({ date, calls: BigInt(calls), revenue: BigInt(cost) }))
  })))

/** Those that were not revoked, newest first. */
export const listMarketKeys = (accountId: AccountId): Effect.Effect<ReadonlyArray<MarketKeyRow>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectKeys(sql, accountId))).pipe(Effect.map((rows) => rows.map((row): MarketKeyRow => ({
    id: row.id, keyId: row.key_prefix, scopes: row.scopes, rateLimit: row.rate_limit ?? undefined, walletAddress: row.wallet_address ?? undefined,
    createdAt: row.created_at, expiresAt: row.expires_at ?? undefined
  }))))

/** Whose key has this public id, unless it was revoked. */
export const findMarketKey = (keyId: string): Effect.Effect<{ readonly id: KeyId; readonly accountId: AccountId } | undefined, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectKey(sql, keyId))).pipe(
    Effect.map(([row]) => row === undefined ? undefined : { id: row.id, accountId: row.account_id })
  )
