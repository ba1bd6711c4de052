/**
 * Services as the market shows them: agents of every dialect, with the name of
 * who provides them. Suspended ones are nowhere. Writes go through the owner's
 * commit (`kernel/Listings.ts`).
 *
 * A category of blanks is `uncategorized`.
 */
import { Effect } from "effect"
import type { Agent, AgentStatus } from "../../domain/agent.ts"
import type { Credits } from "../../domain/credits.ts"
import type { StoreUnavailable } from "../../domain/errors.ts"
import { type AccountId, isUuid } from "../../domain/ids.ts"
import type { PaymentMethod } from "../../domain/terms.ts"
import { type AgentColumns, agentOf } from "../AgentStore.ts"
import { Postgres, type Sql } from "../Postgres.ts"

export interface Service {
  readonly agent: Agent
  /** Its owner's name, or its owner's id. */
  readonly provider: string
}

export const serviceSorts = ["created_at", "price", "name"] as const
/** Newest first, cheapest first, by the characters of the name; then newest first. */
export type ServiceSort = typeof serviceSorts[number]

export interface ServiceFilter {
  readonly status: AgentStatus
  /** Each is in the name or the description, in upper or lower case. */
  readonly words: ReadonlyArray<string>
  /** `undefined`: any. */
  readonly category: string | undefined
  /** One of them at least, unless there is none. */
  readonly tags: ReadonlyArray<string>
  readonly priceMin: Credits | undefined
  readonly priceMax: Credits | undefined
  readonly paymentMethod: PaymentMethod | undefined
  /** Only those whose first calls are free. */
  readonly isFreeAtFirst: boolean
}

export interface ServicePage {
  readonly sort: ServiceSort
  readonly limit: number
  readonly offset: number
}

export interface TrendingService extends Service {
  readonly calls: number
  readonly averageLatencyMs: number
}

/** So many categories are told, those with the most services. */
const categoriesMax = 1_000
const trendingDays = 7

type ServiceColumns = AgentColumns & { provider: string }

const serviceOf = (row: ServiceColumns): Service => ({ agent: agentOf(row), provider: row.provider })

const columns = (sql: Sql) => sql`a.*, (select p.name from parties p where p.account_id = a.owner_id) as provider`
const categoryOf = (sql: Sql) => sql`coalesce(nullif(btrim(a.category), ''), 'uncategorized')`
const isActive = (sql: Sql) => sql`a.status = 'active' and not a.suspended`

/** What a word looks like to `like`: nothing in it has a meaning. */
const patternOf = (word: string): string => `%${word.replace(/[\\%_]/g, "\\$&")}%`

/** By the rules of Unicode, whatever the database's locale. Those for ASCII are in them, and take a fifth of the time. */
const hasWords = (sql: Sql, words: ReadonlyArray<string>) => {
  const rules = words.every((word) => /^[\x20-\x7e]*$/.test(word)) ? sql`collate "C"` : sql`collate "und-x-icu"`
  return sql`lower((a.name || ' ' || a.description) ${rules}) like all (array(select lower(word ${rules}) from unnest(${words.map(patternOf)}::text[]) word))`
}

const matches = (sql: Sql, filter: ServiceFilter) => sql`
  a.status = ${filter.status} and not a.suspended
  ${filter.words.length === 0 ? sql`` : sql`and ${hasWords(sql, filter.words)}`}
  ${filter.category === undefined ? sql`` : sql`and ${categoryOf(sql)} = ${filter.category}`}
  ${filter.tags.length === 0 ? sql`` : sql`and a.tags && ${filter.tags as Array<string>}::text[]`}
  ${filter.priceMin === undefined ? sql`` : sql`and a.price >= ${filter.priceMin}`}
  ${filter.priceMax === undefined ? sql`` : sql`and a.price <= ${filter.priceMax}`}
  ${filter.paymentMethod === undefined ? sql`` : sql`and a.payment_method = ${filter.paymentMethod}`}
  ${filter.isFreeAtFirst ? sql`and a.free_tier_calls > 0` : sql``}`

const order = (sql: Sql, sort: ServiceSort) => ({
  created_at: sql`a.created_at desc, a.id desc`, price: sql`a.price, a.id desc`, name: sql`a.name collate "C", a.id desc`
})[sort]

const selectPage = (sql: Sql, filter: ServiceFilter, { sort, limit, offset }: ServicePage) => sql<Array<ServiceColumns>>`
  select ${columns(sql)} from agents a where ${matches(sql, filter)} order by ${order(sql, sort)} limit ${limit} offset ${offset}`

const selectCount = (sql: Sql, filter: ServiceFilter) => sql<Array<{ count: number }>>`
  select count(*)::int as count from agents a where ${matches(sql, filter)}`

const selectCategories = (sql: Sql) => sql<Array<{ category: string; count: number }>>`
  select category, count(*)::int as count from (select ${categoryOf(sql)} as category from agents a where ${isActive(sql)}) active
  group by category order by count desc, category collate "C" limit ${categoriesMax}`

const selectTrending = (sql: Sql, limit: number) => sql<Array<ServiceColumns & { answered: number; average: number }>>`
  select ${columns(sql)}, u.answered::int as answered, round(u.latency / u.calls, 1)::float8 as average
  from (
    select agent_id, sum(calls) as calls, sum(calls - errors) as answered, sum(latency_ms) as latency
    from usage_daily_by_agent where day > (now() at time zone 'utc')::date - ${trendingDays}::int group by agent_id
  ) u join agents a on a.id = u.agent_id
  where u.answered > 0 and ${isActive(sql)} order by u.answered desc, a.created_at desc, a.id desc limit ${limit}`

/** Calls count for their service's category, also when the service is gone. */
const selectRecommended = (sql: Sql, buyer: AccountId | undefined, limit: number) => sql<Array<ServiceColumns>>`
  with own as (
    select account_id from parties where party_id = ${buyer ?? null}::uuid
  ), used as (
    select agent_id, sum(calls) as calls from usage_by_pair where account_id in (select account_id from own) group by agent_id
  ), liked as (
    select ${categoryOf(sql)} as category, sum(used.calls) as calls from used join agents a on a.id = used.agent_id group by 1
  )
  select ${columns(sql)} from agents a left join liked on liked.category = ${categoryOf(sql)}
  where ${isActive(sql)} and a.owner_id not in (select account_id from own) and a.id not in (select agent_id from used)
    and (liked.category is not null or not exists (select from liked))
  order by liked.calls desc nulls last, a.created_at desc, a.id desc limit ${limit}`

export const findService = (id: string): Effect.Effect<Service | undefined, StoreUnavailable, Postgres> =>
  isUuid(id)
    ? Postgres.use(({ run }) => run((sql) => sql<Array<ServiceColumns>>`select ${columns(sql)} from agents a where a.id = ${id} and not a.suspended`)).pipe(
      Effect.map(([row]) => row === undefined ? undefined : serviceOf(row)))
    : Effect.succeed(undefined)

export const listServices = (filter: ServiceFilter, page: ServicePage): Effect.Effect<ReadonlyArray<Service>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectPage(sql, filter, page))).pipe(Effect.map((rows) => rows.map(serviceOf)))

export const countServices = (filter: ServiceFilter): Effect.Effect<number, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectCount(sql, filter))).pipe(Effect.map(([row]) => row!.count))

/** Categories of active services, the largest first. */
export const listCategories: Effect.Effect<ReadonlyArray<{ readonly category: string; readonly count: number }>, StoreUnavailable, Postgres> =
  Postgres.use(({ run }) => run(selectCategories))

/** By the calls that were answered below 500, today and the six days (UTC) before. */
export const listTrending = (limit: number): Effect.Effect<ReadonlyArray<TrendingService>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectTrending(sql, limit))).pipe(
    Effect.map((rows) => rows.map((row) => ({ ...serviceOf(row), calls: row.answered, averageLatencyMs: row.average })))
  )

/**
 * Services in the categories that a buyer's calls were in, those with the most
 * calls first; the newest ones for a buyer without any, or for nobody. Neither its
 * own nor those that it has called.
 */
export const listRecommended = (buyer: AccountId | undefined, limit: number): Effect.Effect<ReadonlyArray<Service>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectRecommended(sql, buyer, limit))).pipe(Effect.map((rows) => rows.map(serviceOf)))
