/**
 * The market's figures for its operator, all from roll-ups: no query here reads
 * `usage`, so none grows with the calls of a day. Days are UTC; accounts that
 * were merged are one buyer. Rates and averages have one decimal, rounded half
 * up from exact sums.
 */
import { Effect } from "effect"
import type { Credits } from "../../domain/credits.ts"
import type { StoreUnavailable } from "../../domain/errors.ts"
import type { AgentStatus } from "../../domain/agent.ts"
import type { AgentId } from "../../domain/ids.ts"
import type { PaymentMethod } from "../../domain/terms.ts"
import { Postgres, type Sql } from "../Postgres.ts"

/** Both days count, as `2026-03-19`. */
export interface DaySpan {
  readonly from: string
  readonly to: string
}

/** What calls come to. */
export interface Figures {
  readonly calls: number
  readonly cost: Credits
  readonly averageLatencyMs: number
  /** Percent answered below 400. */
  readonly successRate: number
}

/** Of roll-up rows that are grouped; each has calls. */
const figures = (sql: Sql) => sql`
  sum(calls)::float8 as calls, sum(cost)::bigint as cost,
  round(sum(latency_ms)::numeric / sum(calls), 1)::float8 as "averageLatencyMs", round(100 * sum(succeeded)::numeric / sum(calls), 1)::float8 as "successRate"`

/**
 * Accounts that are one party with another, few of all. Distinct buyers are counted as distinct accounts, which an index
 * does, less those that are a party's second one: looking up the party of each row would take several times as long.
 */
const families = (sql: Sql) => sql`
  families as (
    select id as account_id, merged_into as party_id from accounts where merged_into is not null
    union select merged_into, merged_into from accounts where merged_into is not null
  )`

export interface MarketStats {
  readonly services: number
  readonly agents: number
  readonly teams: number
  readonly calls: number
  readonly cost: Credits
  readonly settlements: number
  readonly webhooks: number
}

const selectStats = (sql: Sql) => sql<Array<MarketStats>>`
  select (select count(*) from agents where status = 'active' and not suspended)::float8 as services,
         (select count(*) from identities where status = 'active')::float8 as agents,
         (select count(*) from teams where status = 'active')::float8 as teams,
         (select count(*) from settlements)::float8 as settlements,
         (select count(*) from webhooks where deleted_at is null)::float8 as webhooks,
         coalesce(sum(calls), 0)::float8 as calls, coalesce(sum(cost), 0)::bigint as cost
  from agent_totals`

/**
 * How days are put together, and how such a period is called: weeks are those of ISO 8601, with its year. `first` is the
 * first day of the oldest of so many periods.
 */
const periods = {
  daily: { unit: "day", label: "YYYY-MM-DD", first: (count: number, today: Date) => today.setUTCDate(today.getUTCDate() - count + 1) },
  weekly: { unit: "week", label: `IYYY-"W"IW`, first: (count: number, today: Date) => today.setUTCDate(today.getUTCDate() - (today.getUTCDay() + 6) % 7 - 7 * (count - 1)) },
  monthly: { unit: "month", label: "YYYY-MM", first: (count: number, today: Date) => today.setUTCMonth(today.getUTCMonth() - count + 1, 1) }
} as const
export type Granularity = keyof typeof periods
export const granularities = Object.keys(periods) as ReadonlyArray<Granularity>

export interface PeriodFigures extends Figures {
  readonly period: string
  readonly buyers: number
  readonly services: number
}

export interface DayFigures extends Pick<PeriodFigures, "calls" | "cost" | "buyers" | "services"> {
  readonly date: string
}

const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10)

/** One row for each account that called in a period. */
const activity = {
  daily: (sql: Sql) => sql`(select day as start, account_id from usage_daily_by_account)`,
  weekly: (sql: Sql) => sql`(select week as start, account_id from usage_weekly_by_account)`,
  monthly: (sql: Sql) => sql`(select month as start, account_id from usage_months_by_account)`
} as const

/** One row for each agent that was called in a period. */
const sales = (sql: Sql, granularity: Granularity, from: string, today: string) => granularity === "daily"
  ? sql`select day as start, calls, succeeded, cost, latency_ms from usage_daily_by_agent where day between ${from}::date and ${today}::date`
  : sql`
    select date_trunc(${periods[granularity].unit}, day::timestamp)::date as start,
           sum(calls)::bigint as calls, sum(succeeded)::bigint as succeeded, sum(cost)::bigint as cost, sum(latency_ms)::bigint as latency_ms
    from usage_daily_by_agent where day between ${from}::date and ${today}::date group by 1, agent_id`

const selectPeriods = (sql: Sql, granularity: Granularity, count: number, today: string) => {
  const { label, first } = periods[granularity]
  const from = dayOf(first(count, new Date(today)))
  return sql<Array<PeriodFigures>>`
    with ${families(sql)}, bought as (
      select start, count(*) as accounts from ${activity[granularity](sql)} a where start between ${from}::date and ${today}::date group by start
    ), twice as (
      select start, count(*) - count(distinct party_id) as accounts from families join ${activity[granularity](sql)} a using (account_id)
      where start between ${from}::date and ${today}::date group by start
    ), sold as (
      select start, ${figures(sql)}, count(*)::int as services from (${sales(sql, granularity, from, today)}) s group by start
    )
    select to_char(start, ${label}) as period, calls, cost, "averageLatencyMs", "successRate", services, (bought.accounts - coalesce(twice.accounts, 0))::int as buyers
    from sold join bought using (start) left join twice using (start) order by start desc`
}

export interface ProviderFigures extends Figures {
  readonly provider: string
  readonly displayName: string
}

const agentSums = (sql: Sql, { from, to }: DaySpan) => sql`
  select agent_id, sum(calls) as calls, sum(succeeded) as succeeded, sum(cost) as cost, sum(latency_ms) as latency_ms
  from usage_daily_by_agent where day between ${from}::date and ${to}::date group by agent_id`

/** The best earning first. A provider's display name is its oldest active agent's, if it has one. */
const selectProviders = (sql: Sql, span: DaySpan | undefined, limit: number) => sql<Array<ProviderFigures>>`
  with sold as (
    ${span === undefined ? sql`select * from agent_totals` : agentSums(sql, span)}
  ), ranked as (
    select p.party_id, p.name as provider, ${figures(sql)} from sold u
    join agents a on a.id = u.agent_id join parties p on p.account_id = a.owner_id
    group by p.party_id, p.name order by sum(cost) desc, sum(calls) desc, p.party_id limit ${limit}
  )
  select r.provider, r.calls, r.cost, r."averageLatencyMs", r."successRate",
         coalesce((select display_name from identities i where i.account_id = r.party_id and i.status = 'active' order by i.created_at, i.id limit 1), r.provider) as "displayName"
  from ranked r order by r.cost desc, r.calls desc, r.party_id`

export interface ServiceHealth {
  readonly id: AgentId
  readonly name: string
  readonly provider: string
  readonly status: AgentStatus
  readonly averageLatencyMs: number
  /** Percent answered with 500 or above. */
  readonly errorRate: number
  readonly lastAt: Date | null
}

const selectHealth = (sql: Sql, limit: number) => sql<Array<ServiceHealth>>`
  select a.id, a.name, p.name as provider, a.status, t.last_at as "lastAt",
         coalesce(round(t.latency_ms::numeric / nullif(t.calls, 0), 1), 0)::float8 as "averageLatencyMs",
         coalesce(round(100 * t.errors::numeric / nullif(t.calls, 0), 1), 0)::float8 as "errorRate"
  from agents a join parties p on p.account_id = a.owner_id left join agent_totals t on t.agent_id = a.id
  where a.status = 'active' and not a.suspended
  order by "errorRate" desc, coalesce(t.calls, 0) desc, a.id limit ${limit}`

export interface MethodFigures {
  readonly method: PaymentMethod
  readonly calls: number
  readonly cost: Credits
}

const selectMethods = (sql: Sql) => sql<Array<MethodFigures>>`
  select a.payment_method as method, sum(t.calls)::float8 as calls, sum(t.cost)::bigint as cost
  from agent_totals t join agents a on a.id = t.agent_id group by 1 order by sum(t.cost) desc, 1`

const orders = {
  revenue: (sql: Sql) => sql`cost desc, calls desc, agent_id`,
  calls: (sql: Sql) => sql`calls desc, cost desc, agent_id`,
  latency: (sql: Sql) => sql`sums.latency_ms::numeric / calls, calls desc, agent_id`
} as const
export type ServiceOrder = keyof typeof orders
export const serviceOrders = Object.keys(orders) as ReadonlyArray<ServiceOrder>

export interface ServiceFigures extends Figures {
  readonly id: AgentId
  readonly name: string
  readonly provider: string
  readonly category: string
  readonly buyers: number
}

const selectTopServices = (sql: Sql, order: ServiceOrder, span: DaySpan, limit: number) => sql<Array<ServiceFigures>>`
  with ${families(sql)}, sums as (
    ${agentSums(sql, span)}
  ), top as (
    select *, row_number() over (order by ${orders[order](sql)}) as rank from sums order by rank limit ${limit}
  )
  select a.id, a.name, p.name as provider, a.category, top.calls::float8, top.cost::bigint,
         round(top.latency_ms / top.calls, 1)::float8 as "averageLatencyMs", round(100 * top.succeeded / top.calls, 1)::float8 as "successRate",
         ((select count(*) from usage_by_pair u where u.agent_id = top.agent_id and u.last_day >= ${span.from}::date)
          - (select count(*) - count(distinct f.party_id) from families f join usage_by_pair u on u.account_id = f.account_id and u.agent_id = top.agent_id and u.last_day >= ${span.from}::date))::int as buyers
  from top join agents a on a.id = top.agent_id join parties p on p.account_id = a.owner_id order by top.rank`

export interface Spender {
  readonly buyer: string
  readonly calls: number
  readonly cost: Credits
  readonly services: number
}

export interface BuyerFigures {
  /** Since ever. */
  readonly everyone: number
  readonly active: number
  /** With more than one call. */
  readonly repeated: number
  readonly repeatRate: number
  readonly averageCalls: number
  readonly topSpenders: ReadonlyArray<Spender>
}

/** The first day of the first whole week. */
const firstMonday = (from: string): string => {
  const day = new Date(from)
  return dayOf(day.setUTCDate(day.getUTCDate() + (8 - day.getUTCDay()) % 7))
}

/** A span that ends today is some days and then weeks, of which the last one is still going on. */
const spent = (sql: Sql, { from, to }: DaySpan) => {
  const monday = firstMonday(from)
  return sql`
    select account_id, calls, cost from usage_daily_by_account where day >= ${from}::date and day < ${monday}::date and day <= ${to}::date
    union all select account_id, calls, cost from usage_weekly_by_account where week between ${monday}::date and ${to}::date`
}

/** One row at least, with the figures of all; of a spender unless `buyer` is null. */
const selectBuyers = (sql: Sql, span: DaySpan, limit: number) => sql<Array<Omit<BuyerFigures, "topSpenders"> & (Spender | { buyer: null })>>`
  with spent as (
    select account_id, sum(calls) as calls, sum(cost) as cost from (${spent(sql, span)}) s group by account_id
  ), party as materialized (
    select coalesce(a.merged_into, a.id) as id, sum(calls) as calls, sum(cost) as cost from spent join accounts a on a.id = spent.account_id group by 1
  ), everyone as (
    select count(*) as active, count(*) filter (where calls > 1) as repeated, sum(calls) as calls from party
  ), top as (
    select * from party order by cost desc, calls desc, id limit ${limit}
  )
  select p.name as buyer, top.calls::float8, top.cost::bigint,
         (select count(distinct u.agent_id) from accounts m join usage_by_pair u on u.account_id = m.id
          where (m.id = top.id or m.merged_into = top.id) and u.last_day >= ${span.from}::date)::int as services,
         e.active::int, e.repeated::int, coalesce(round(100 * e.repeated::numeric / nullif(e.active, 0), 1), 0)::float8 as "repeatRate",
         coalesce(round(e.calls / nullif(e.active, 0), 1), 0)::float8 as "averageCalls",
         (select count(distinct coalesce(a.merged_into, a.id))
          from (select distinct account_id from usage_months_by_account) u join accounts a on a.id = u.account_id)::int as everyone
  from everyone e left join (top join parties p on p.account_id = top.id) on true order by top.cost desc, top.calls desc, top.id`

const read = <Row>(query: (sql: Sql) => Promise<ReadonlyArray<Row>>): Effect.Effect<ReadonlyArray<Row>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run(query))

export const readStats = (): Effect.Effect<MarketStats, StoreUnavailable, Postgres> => read(selectStats).pipe(Effect.map(([row]) => row!))
/** The last `count` periods, `today`'s among them; those without calls are left out, the latest comes first. */
export const listPeriods = (granularity: Granularity, count: number, today: string) => read((sql) => selectPeriods(sql, granularity, count, today))
export const listDays = (count: number, today: string): Effect.Effect<ReadonlyArray<DayFigures>, StoreUnavailable, Postgres> =>
  listPeriods("daily", count, today).pipe(Effect.map((days) => days.map(({ period, calls, cost, buyers, services }) => ({ date: period, calls, cost, buyers, services }))))
export const listProviders = (span: DaySpan | undefined, limit: number) => read((sql) => selectProviders(sql, span, limit))
/** Of active services, the worst error rate first, then the most called. */
export const listHealth = (limit: number) => read((sql) => selectHealth(sql, limit))
export const listMethods = () => read(selectMethods)
export const listTopServices = (order: ServiceOrder, span: DaySpan, limit: number) => read((sql) => selectTopServices(sql, order, span, limit))
export const readBuyers = (span: DaySpan, topSpenders: number): Effect.Effect<BuyerFigures, StoreUnavailable, Postgres> =>
  read((sql) => selectBuyers(sql, span, topSpenders)).pipe(Effect.map((rows) => {
    const { everyone, active, repeated, repeatRate, averageCalls } = rows[0]!
    const spenders = rows.flatMap((row) => row.buyer === null ? [] : [{ buyer: row.buyer, calls: row.calls, cost: row.cost, services: row.services }])
    return { everyone, active, repeated, repeatRate, averageCalls, topSpenders: spenders }
  }))
