/**
 * How calls get into the books of use: `usage` has a row of each, and what pages
 * and figures are made of are roll-ups by hour, day, week, month and pair.
 *
 * A commit writes its calls to `usage` and, as one array, to `usage_pending`; a
 * moment later `rollUp` takes what is pending there and adds it to the roll-ups,
 * in one statement, so that each call is added exactly once. Adding it within
 * the commit cost two thirds more of PostgreSQL's time for a paid call: every
 * batch changed rows of six tables that the next one changes again.
 *
 * Lock order: pending rows by id, then the roll-ups in the order of this text,
 * each by its keys. Two at once take different pending rows; who wants the same
 * ones waits, and finds them gone.
 *
 * Who reads figures rolls up first (`UsageBuffer.flush`), and so sees every call
 * that was answered before.
 */

/** The columns of `batch_usage`, in its order. */
const columns = "id, account_id, subject_id, agent_id, call, status, cost, latency_ms, created_at, fee, recorded, due"

/** Sections that write the calls of the CTE `calls`, which has the columns of `batch_usage`. */
export const meterSql = (calls: string): string => `
used as (
  insert into usage (id, account_id, subject_id, agent_id, call, status, cost, recorded, latency_ms, created_at)
  select id, account_id, subject_id, agent_id, call, status, cost, recorded, latency_ms, created_at from ${calls}
), owed as (
  insert into dues (usage_id, agent_id, amount, fee, recorded, called_at)
  select id, agent_id, cost, fee, recorded, created_at from ${calls} where due
), kept as (
  insert into usage_pending (calls) select array_agg(row(${columns})::batch_usage) from ${calls} having count(*) > 0
)`

/** Rows of `usage_pending` that one statement takes. */
export const pendingMax = 500

/**
 * Answers one row, `taken`: how many pending rows there were, at most `pendingMax`. Only an account's first call of a day
 * (its row was inserted, so nobody has locked it: `xmax` is 0) can be its month's first.
 */
export const rollUpSql = `
with taken as (
  delete from usage_pending where id in (select id from usage_pending order by id limit ${pendingMax}) returning calls
), called as materialized (
  select c.* from taken, unnest(taken.calls) c
), cells as materialized (
  select date_trunc('hour', created_at) as hour, account_id, agent_id, count(*) as calls, count(*) filter (where status < 400) as succeeded,
         count(*) filter (where status >= 500) as errors, sum(cost)::bigint as cost, coalesce(sum(cost) filter (where recorded), 0)::bigint as recorded,
         sum(latency_ms) as latency_ms, min(created_at) as first_at, max(created_at) as last_at
  from called group by 1, 2, 3
), used_by_agent as (
  insert into usage_hourly_by_agent as h (hour, agent_id, calls, errors, cost, latency_ms)
  select hour, agent_id, sum(calls), sum(errors), sum(cost), sum(latency_ms) from cells group by 1, 2 order by 1, 2
  on conflict (hour, agent_id) do update set
    calls = h.calls + excluded.calls, errors = h.errors + excluded.errors, cost = h.cost + excluded.cost, latency_ms = h.latency_ms + excluded.latency_ms
), used_on_day as (
  insert into usage_daily_by_agent as d (day, agent_id, calls, succeeded, errors, cost, latency_ms)
  select hour::date, agent_id, sum(calls), sum(succeeded), sum(errors), sum(cost), sum(latency_ms) from cells group by 1, 2 order by 2, 1
  on conflict (agent_id, day) do update set
    calls = d.calls + excluded.calls, succeeded = d.succeeded + excluded.succeeded, errors = d.errors + excluded.errors,
    cost = d.cost + excluded.cost, latency_ms = d.latency_ms + excluded.latency_ms
), used_by_account as (
  insert into usage_daily_by_account as d (day, account_id, calls, succeeded, errors, cost, recorded, latency_ms)
  select hour::date, account_id, sum(calls), sum(succeeded), sum(errors), sum(cost), sum(recorded), sum(latency_ms) from cells group by 1, 2 order by 2, 1
  on conflict (account_id, day) do update set
    calls = d.calls + excluded.calls, succeeded = d.succeeded + excluded.succeeded, errors = d.errors + excluded.errors,
    cost = d.cost + excluded.cost, recorded = d.recorded + excluded.recorded, latency_ms = d.latency_ms + excluded.latency_ms
  returning day, account_id, xmax = 0 as is_new
), used_in_week as (
  insert into usage_weekly_by_account as w (week, account_id, calls, cost)
  select date_trunc('week', hour)::date, account_id, sum(calls), sum(cost) from cells group by 1, 2 order by 2, 1
  on conflict (week, account_id) do update set calls = w.calls + excluded.calls, cost = w.cost + excluded.cost
), used_in_month as (
  insert into usage_months_by_account (month, account_id)
  select distinct date_trunc('month', day::timestamp)::date, account_id from used_by_account where is_new order by 2, 1
  on conflict do nothing
), used_by_pair as (
  insert into usage_by_pair as p (account_id, agent_id, calls, cost, last_day)
  select account_id, agent_id, sum(calls), sum(cost), max(hour)::date from cells group by 1, 2 order by 1, 2
  on conflict (account_id, agent_id) do update set
    calls = p.calls + excluded.calls, cost = p.cost + excluded.cost, last_day = greatest(p.last_day, excluded.last_day)
), used_in_all as (
  insert into agent_totals as t (agent_id, calls, succeeded, errors, cost, latency_ms, first_at, last_at)
  select agent_id, sum(calls), sum(succeeded), sum(errors), sum(cost), sum(latency_ms), min(first_at), max(last_at) from cells group by 1 order by 1
  on conflict (agent_id) do update set
    calls = t.calls + excluded.calls, succeeded = t.succeeded + excluded.succeeded, errors = t.errors + excluded.errors, cost = t.cost + excluded.cost,
    latency_ms = t.latency_ms + excluded.latency_ms, first_at = least(t.first_at, excluded.first_at), last_at = greatest(t.last_at, excluded.last_at)
)
select count(*)::int as taken from taken`
