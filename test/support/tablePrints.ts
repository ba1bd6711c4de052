/**
 * Every table of a gateway's database as a number of rows and a digest, to tell
 * whether a refused request left anything behind. Not among them: the record of
 * calls, where a call that broke off may stand at no cost (`chargedCalls` looks
 * at those), the counters of batches, and what a gateway notes every few seconds
 * of itself: that it lives, and the calls it has in flight.
 */
import type { Sql } from "../../src/store/Postgres.ts"

const notAmongThem = ["usage", "usage_pending", "usage_hourly_by_agent", "usage_daily_by_agent", "usage_daily_by_account", "usage_weekly_by_account", "usage_months_by_account", "usage_by_pair", "agent_totals", "batches", "calls_in_flight", "chat_nodes"]

/** Table → rows and digest. */
export type TablePrints = Readonly<Record<string, string>>

export const tablePrints = async (sql: Sql): Promise<TablePrints> => {
  const [query] = await sql<Array<{ text: string }>>`
    select string_agg(format($$select %L as name, count(*) || ' ' || md5(coalesce(string_agg(t::text, '|' order by t::text), '')) as print from %I t$$, relname, relname), ' union all ' order by relname) as text
    from pg_class
    where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition and relname not in ${sql(notAmongThem)}`
  const rows = await sql.unsafe<Array<{ name: string; print: string }>>(query!.text)
  return Object.fromEntries(rows.map(({ name, print }) => [name, print]))
}

/** How many calls were recorded at a cost. */
export const chargedCalls = async (sql: Sql): Promise<number> => {
  const [row] = await sql<Array<{ calls: bigint }>>`select count(*) as calls from usage where cost > 0`
  return Number(row!.calls)
}
