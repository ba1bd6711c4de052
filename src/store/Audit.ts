/**
 * The live audit: proves from the rows alone that no money was lost, invented
 * or charged twice. Shares no SQL with what writes the rows.
 *
 * Guarantee: all checks see one moment, and hold no lock that a writer waits
 * for: one REPEATABLE READ, READ ONLY transaction, so it may run beside the
 * gateway under load. A check that finds nothing has looked at every row it
 * names. What it needs is some scans and aggregations on the server; nothing
 * but counts and one example a check leaves it.
 *
 * Limits. Usage older than its oldest day partition is gone; what would need it
 * is checked from there on. Folded batches are checked as the sums they became.
 *
 * Called by `scripts/audit.ts`, and by the tests that kill and cut.
 */
import type { Sql } from "./Postgres.ts"

export interface CheckResult {
  readonly name: string
  readonly ok: boolean
  /** "nothing", or how many rows break the rule and one of them. */
  readonly found: string
}

interface Check {
  /** What holds. */
  readonly name: string
  /** A query of the rows that break it: `id` and `detail`, both text. */
  readonly findings: string
}

const balances: ReadonlyArray<Check> = [
  {
    name: "every transaction sums to zero",
    findings: `
      select id::text, available + reserved + earned + fee + buyback + deposits + withdrawals || ' micro-dollars too many' as detail
      from transactions where available + reserved + earned + fee + buyback + deposits + withdrawals <> 0`
  },
  {
    name: "all entries together sum to zero",
    findings: `select 'all books' as id, 'imbalance ' || sum(amount) as detail from entries having sum(amount) <> 0`
  },
  {
    name: "available, with what is left of its leases, and reserved of every account are the sums of its entries",
    findings: `
      select coalesce(a.id, l.account_id, t.account_id)::text as id,
             format('available %s, in leases %s, entries %s; reserved %s, entries %s', a.available, l.rest, t.available, a.reserved, t.reserved) as detail
      from accounts a
      full join (select account_id, sum(amount - spent) as rest from leases group by account_id) l on l.account_id = a.id
      full join (select account_id, sum(available) as available, sum(reserved) as reserved from transactions group by account_id) t on t.account_id = a.id
      where a.id is null or a.available + coalesce(l.rest, 0) <> coalesce(t.available, 0) or a.reserved <> coalesce(t.reserved, 0)`
  },
  {
    name: "every lease has spent what its transactions say, all charges of its account and subject, and no more than it has",
    findings: `
      select l.id::text, format('amount %s, spent %s, transactions %s', l.amount, l.spent, -sum(t.available)) as detail
      from leases l left join transactions t on t.lease_id = l.id group by l.id
      having l.spent <> coalesce(-sum(t.available), 0) or l.spent < 0 or l.spent > l.amount
          or count(*) filter (where t.type <> 'charge' or t.account_id <> l.account_id or t.id is not null and t.subject_id is distinct from l.subject_id) > 0`
  },
  {
    name: "posted earnings of every account are the sum of its entries",
    findings: `
      select coalesce(e.account_id, t.earner_id)::text as id, format('posted %s, entries %s', e.posted, t.earned) as detail
      from earnings e
      full join (select earner_id, sum(earned) as earned from transactions where earned <> 0 group by earner_id) t on t.earner_id = e.account_id
      where coalesce(e.posted, 0) <> coalesce(t.earned, 0)`
  },
  {
    name: "no account is below zero",
    findings: `
      select id::text, format('available %s, reserved %s', available, reserved) as detail from accounts where available < 0 or reserved < 0
      union all select account_id::text, 'earnings ' || posted from earnings where posted < 0`
  },
  {
    name: "books and batches together are the sums of the system's entries",
    findings: `
      with known as (
        select book, amount from books
        union all select side.book, side.amount from (
          select coalesce(sum(fee), 0) as fee, coalesce(sum(buyback), 0) as buyback, coalesce(sum(deposits), 0) as deposits, coalesce(sum(withdrawals), 0) as withdrawals from batches
        ) b, lateral (values ('fee', fee), ('buyback', buyback), ('deposits', deposits), ('withdrawals', withdrawals)) side(book, amount)
      ), entered as (
        select side.book, side.amount from (
          select coalesce(sum(fee), 0) as fee, coalesce(sum(buyback), 0) as buyback, coalesce(sum(deposits), 0) as deposits, coalesce(sum(withdrawals), 0) as withdrawals from transactions
        ) t, lateral (values ('fee', fee), ('buyback', buyback), ('deposits', deposits), ('withdrawals', withdrawals)) side(book, amount)
      )
      select book as id, format('books and batches %s, entries %s', k.amount, e.amount) as detail
      from (select book, sum(amount) as amount from known group by book) k full join entered e using (book)
      where k.amount is distinct from e.amount`
  },
  {
    // A minute of grace: batches are dated by the database, folded and decided by the gateway's clock.
    name: "every transaction's batch exists or was folded",
    findings: `
      select t.id::text, 'batch ' || t.batch_id as detail from transactions t
      where t.created_at > now() - interval '59 minutes' and not exists (select from batches b where b.id = t.batch_id)`
  }
]

/** The order's own transactions are its reserve and, for one that ended, this ending; and no other. */
const orderCheck = (name: string, which: string, ending: string): Check => ({
  name,
  findings: `
    select o.id::text, format('amount %s, transactions: %s', o.amount, coalesce(string_agg(format('%s %s', t.type, t.available + t.reserved + t.earned), ', ' order by t.id), 'none')) as detail
    from orders o left join transactions t on t.order_id = o.id
    where ${which}
    group by o.id
    having count(t.id) <> ${ending === "" ? 1 : 2}
        or count(*) filter (where t.type = 'reserve' and t.account_id = o.account_id and t.available = -o.amount and t.reserved = o.amount) <> 1
        ${ending === "" ? "" : `or count(*) filter (where ${ending} and t.account_id = o.account_id and t.reserved = -o.amount) <> 1`}`
})

const orders: ReadonlyArray<Check> = [
  orderCheck("every completed order was reserved once, completed once and not refunded", "o.status = 'completed' and o.session_id is null", "t.type = 'complete' and t.available = 0 and t.fee = o.fee"),
  orderCheck("every failed order was reserved once and refunded once", "o.status = 'failed'", "t.type = 'refund' and t.available = o.amount"),
  orderCheck("every pending order was reserved once and nothing else", "o.status = 'pending'", ""),
  {
    name: "every reserve, completion and refund belongs to an order",
    findings: `
      select t.id::text, t.type || ' of order ' || coalesce(t.order_id::text, 'none') as detail from transactions t
      where (t.order_id is not null or t.type in ('reserve', 'complete', 'refund')) and not exists (select from orders o where o.id = t.order_id)`
  },
  {
    name: "what an account has reserved is the sum of its pending orders",
    findings: `
      select coalesce(a.id, o.account_id)::text as id, format('reserved %s, pending %s', a.reserved, o.amount) as detail
      from accounts a
      full join (select account_id, sum(amount) as amount from orders where status = 'pending' group by account_id) o on o.account_id = a.id
      where coalesce(a.reserved, 0) <> coalesce(o.amount, 0)`
  }
]

/** A chat turn is an order that was charged when it ended, and never reserved. */
const chat: ReadonlyArray<Check> = [
  {
    name: "every chat turn was charged its amount, once, or nothing when it is free",
    findings: `
      select o.id::text, format('amount %s, transactions: %s', o.amount, coalesce(string_agg(format('%s %s', t.type, t.available), ', ' order by t.id), 'none')) as detail
      from orders o left join transactions t on t.order_id = o.id
      where o.session_id is not null
      group by o.id
      having count(t.id) <> case o.amount when 0 then 0 else 1 end
          or count(t.id) <> count(*) filter (where t.type = 'charge' and t.available = -o.amount and t.reserved = 0 and t.fee = o.fee)`
  },
  {
    name: "every charge that names an order belongs to a completed chat turn of its account, agent and payer",
    findings: `
      select t.id::text, 'charge of order ' || t.order_id as detail from transactions t
      where t.type = 'charge' and t.order_id is not null and not exists (
        select from orders o
        where o.id = t.order_id and o.session_id is not null and o.status = 'completed'
          and o.account_id = t.account_id and o.agent_id = t.agent_id and o.subject_id = t.subject_id)`
  },
  {
    name: "every chat turn belongs to a session of its account and agent",
    findings: `
      select o.id::text, 'session ' || o.session_id as detail from orders o
      where o.session_id is not null and not exists (
        select from sessions s where s.id = o.session_id and s.account_id = o.account_id and s.agent_id = o.agent_id)`
  },
  {
    name: "every session counts and sums its turns, which are numbered without a hole",
    findings: `
      select s.id, format('%s messages, turns %s, numbers %s to %s; consumed %s, turns %s', s.message_count, t.turns, t.first, t.last, s.consumed, t.amount) as detail
      from sessions s
      left join (
        select session_id, count(*) as turns, count(distinct message_index) as numbers, min(message_index) as first, max(message_index) as last, sum(amount) as amount
        from orders where session_id is not null group by session_id
      ) t on t.session_id = s.id
      where s.message_count <> coalesce(t.turns, 0) or s.consumed <> coalesce(t.amount, 0) or t.numbers <> t.turns or t.first <> 1 or t.last <> t.turns`
  }
]

/** From when on no usage row was dropped: the start of the oldest day partition. */
const retained = `
  retained as (
    select coalesce(min(substring(pg_get_expr(c.relpartbound, c.oid) from $bound$FROM \\('([^']+)'\\)$bound$)::timestamptz), '-infinity') as since
    from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'usage'::regclass
  )`

/** Calls that are not in the roll-ups yet (`usageSql.ts`). */
const rolledUp = "id not in (select c.id from usage_pending p, unnest(p.calls) c)"

/** A roll-up against what usage says, group by group. */
const rollUpCheck = (table: string, period: "hour" | "day", subjects: string, sums: Readonly<Record<string, string>>): Check => {
  const names = Object.keys(sums)
  const moment = period === "hour" ? "date_trunc('hour', created_at)" : "created_at::date"
  return {
    name: `${table} is what the retained usage sums to`,
    findings: `
      with ${retained}, recomputed as (
        select ${moment} as ${period}, ${subjects}, ${names.map((name) => `${sums[name]} as ${name}`).join(", ")}
        from usage where created_at >= (select since from retained) and ${rolledUp} group by ${period}, ${subjects}
      ), stored as (
        select * from ${table} where ${period} >= (select since from retained)
      )
      select concat_ws(' ', ${subjects}) || ' at ' || ${period} as id,
             format('stored ${names.map((name) => `${name} %s`).join(", ")}; usage ${names.map((name) => `${name} %s`).join(", ")}', ${[...names.map((name) => `s.${name}`), ...names.map((name) => `r.${name}`)].join(", ")}) as detail
      from stored s full join recomputed r using (${period}, ${subjects})
      where ${names.map((name) => `s.${name} is distinct from r.${name}`).join(" or ")}`
  }
}

const sums = { calls: "count(*)", errors: "count(*) filter (where status >= 500)", cost: "sum(cost)" }
const succeeded = "count(*) filter (where status < 400)"
const latency_ms = "sum(latency_ms)"

const usage: ReadonlyArray<Check> = [
  {
    name: "every paid call was charged, once and its cost",
    findings: `
      select u.id::text, format('costs %s, charged %s times', min(u.cost), count(t.id)) as detail from usage u
      left join transactions t on t.id = u.id and t.account_id = u.account_id and t.agent_id = u.agent_id and t.subject_id = u.subject_id
        and (t.type = 'charge' and t.available = -u.cost and (u.call = 'chat') = (t.order_id is not null) or u.call = 'order' and t.type = 'complete' and t.reserved = -u.cost)
      where u.cost <> 0 and not u.recorded group by u.id having count(t.id) <> 1 or min(u.cost) < 0`
  },
  {
    name: "no recorded call was charged, and none costs less than nothing",
    findings: `
      select u.id::text, format('costs %s, transaction %s', u.cost, coalesce(t.type, 'none')) as detail from usage u
      left join transactions t on t.id = u.id where u.recorded and (t.id is not null or u.cost < 0 or u.call <> 'proxy')`
  },
  {
    // The two rows of a call may lie on both sides of the midnight from which usage is retained.
    name: "every charge and completion belongs to exactly one paid call",
    findings: `
      with ${retained}, paid as (select id, count(*) as calls from usage where cost <> 0 and not recorded group by id)
      select t.id::text, format('%s of %s, %s paid calls', t.type, -t.available - t.reserved, coalesce(paid.calls, 0)) as detail
      from transactions t left join paid on paid.id = t.id
      where t.type in ('charge', 'complete') and t.available + t.reserved <> 0 and paid.calls is distinct from 1
        and t.created_at >= (select since + interval '1 hour' from retained)`
  },
  rollUpCheck("usage_hourly_by_agent", "hour", "agent_id", { ...sums, latency_ms }),
  rollUpCheck("usage_daily_by_agent", "day", "agent_id", { ...sums, succeeded, latency_ms }),
  rollUpCheck("usage_daily_by_account", "day", "account_id", { ...sums, succeeded, latency_ms, recorded: "coalesce(sum(cost) filter (where recorded), 0)" }),
  {
    name: "usage_weekly_by_account is what the days of its weeks sum to",
    findings: `
      select account_id || ' in the week of ' || week as id, format('stored calls %s, cost %s; days calls %s, cost %s', w.calls, w.cost, d.calls, d.cost) as detail
      from usage_weekly_by_account w
      full join (
        select date_trunc('week', day::timestamp)::date as week, account_id, sum(calls) as calls, sum(cost) as cost from usage_daily_by_account group by 1, 2
      ) d using (week, account_id)
      where w.calls is distinct from d.calls or w.cost is distinct from d.cost`
  },
  {
    name: "usage_months_by_account has the months of all days, and no others",
    findings: `
      select account_id || ' in the month of ' || month as id, case when m.account_id is null then 'missing' else 'without calls' end as detail
      from usage_months_by_account m
      full join (select distinct date_trunc('month', day::timestamp)::date as month, account_id from usage_daily_by_account) d using (month, account_id)
      where m.account_id is null or d.account_id is null`
  },
  {
    name: "usage_by_pair has every retained call, and the last one's day",
    findings: `
      with ${retained}, recomputed as (
        select account_id, agent_id, count(*) as calls, sum(cost) as cost, max(created_at)::date as last_day
        from usage where created_at >= (select since from retained) and ${rolledUp} group by 1, 2
      )
      select r.account_id || ' ' || r.agent_id as id, format('stored calls %s, cost %s, last %s; usage calls %s, cost %s, last %s', p.calls, p.cost, p.last_day, r.calls, r.cost, r.last_day) as detail
      from recomputed r left join usage_by_pair p using (account_id, agent_id)
      where p.calls is null or p.calls < r.calls or p.cost < r.cost or p.last_day <> r.last_day`
  },
  {
    name: "usage_by_pair has no more calls of an agent than its totals",
    findings: `
      select p.agent_id::text as id, format('pairs calls %s, cost %s; totals calls %s, cost %s', p.calls, p.cost, t.calls, t.cost) as detail
      from (select agent_id, sum(calls) as calls, sum(cost) as cost from usage_by_pair group by agent_id) p left join agent_totals t using (agent_id)
      where t.calls is null or p.calls > t.calls or p.cost > t.cost`
  },
  {
    name: "agent totals are the sums of their hours",
    findings: `
      select agent_id::text as id, format('calls %s, hours %s; cost %s, hours %s', t.calls, h.calls, t.cost, h.cost) as detail
      from agent_totals t
      full join (select agent_id, sum(calls) as calls, sum(cost) as cost from usage_hourly_by_agent group by agent_id) h using (agent_id)
      where t.calls is distinct from h.calls or t.cost is distinct from h.cost`
  },
  {
    name: "agent totals are the sums of their days",
    findings: `
      select agent_id::text as id, format('calls %s, days %s; cost %s, days %s; succeeded %s, days %s', t.calls, d.calls, t.cost, d.cost, t.succeeded, d.succeeded) as detail
      from agent_totals t
      full join (
        select agent_id, sum(calls) as calls, sum(succeeded) as succeeded, sum(errors) as errors, sum(cost) as cost, sum(latency_ms) as latency_ms
        from usage_daily_by_agent group by agent_id
      ) d using (agent_id)
      where (t.calls, t.succeeded, t.errors, t.cost, t.latency_ms) is distinct from (d.calls, d.succeeded, d.errors, d.cost, d.latency_ms)`
  }
]

const market: ReadonlyArray<Check> = [
  {
    name: "a retained call is owed to its provider exactly when it was answered below 500 by an acf service",
    findings: `
      with ${retained}, owed as (
        select u.id, u.agent_id, u.cost, u.recorded from usage u join agents a on a.id = u.agent_id
        where a.dialect = 'acf' and u.created_at >= (select since + interval '1 hour' from retained) and (u.call = 'proxy' and u.status < 500 or u.call <> 'proxy' and u.cost > 0)
      )
      select coalesce(o.id, d.usage_id)::text as id, format('call costs %s, due %s', o.cost, d.amount) as detail
      from owed o full join (select * from dues where called_at >= (select since + interval '1 hour' from retained)) d on d.usage_id = o.id
      where o.id is null or d.usage_id is null or o.cost <> d.amount or o.agent_id <> d.agent_id or o.recorded <> d.recorded`
  },
  {
    name: "a due that was charged has the fee of its transaction",
    findings: `
      select d.usage_id::text as id, format('fee %s, transaction %s', d.fee, t.fee) as detail
      from dues d left join transactions t on t.id = d.usage_id
      where not d.recorded and d.amount > 0 and d.fee is distinct from t.fee`
  },
  {
    name: "every settlement is the sum of its dues, which lie in its period and are its provider's",
    findings: `
      select s.id::text, format('total %s, dues %s; fee %s, dues %s; calls %s, dues %s; %s outside', s.total, d.total, s.fee, d.fee, s.calls, d.calls, d.outside) as detail
      from settlements s
      left join (
        select d.settlement_id, count(*) as calls, sum(d.amount) as total, sum(d.fee) as fee,
               coalesce(sum(d.amount - d.fee) filter (where not d.recorded), 0) as credited,
               count(*) filter (where d.called_at < o.period_start or d.called_at >= o.period_end or a.owner_id <> coalesce(p.merged_into, p.id)) as outside
        from dues d join settlements o on o.id = d.settlement_id join agents a on a.id = d.agent_id left join accounts p on p.id = o.account_id
        group by d.settlement_id
      ) d on d.settlement_id = s.id
      where (s.total, s.fee, s.credited) is distinct from (coalesce(d.total, 0)::bigint, coalesce(d.fee, 0)::bigint, coalesce(d.credited, 0)::bigint)
         or s.calls <> coalesce(d.calls, 0) or d.outside > 0`
  },
  {
    name: "every settlement that was paid took from the provider's credits what was there of it, once",
    findings: `
      select s.id::text, format('%s, credited %s, %s withdrawals of %s', s.status, s.credited, count(t.id), coalesce(sum(-t.available), 0)) as detail
      from settlements s left join transactions t on t.type = 'withdrawal' and t.reference = 'settlement ' || s.id
      group by s.id
      having coalesce(sum(-t.available), 0) <> case when s.status = 'completed' then s.credited else 0 end
          or count(t.id) > 1`
  },
  {
    name: "an account that was merged into another has no keys, agents, subscriptions or name left",
    findings: `
      select a.id::text, 'merged into ' || a.merged_into as detail from accounts a
      where a.merged_into is not null and (
        exists (select from api_keys k where k.account_id = a.id and k.status = 'active') or exists (select from agents g where g.owner_id = a.id)
        or exists (select from webhooks w where w.account_id = a.id) or exists (select from owners o where o.account_id = a.id)
        or exists (select from users u where u.account_id = a.id) or exists (select from accounts b where b.merged_into = a.id))`
  }
]

const keys: ReadonlyArray<Check> = [
  {
    name: "no budget is overspent or below zero",
    findings: `
      select key_id || ' ' || budget_window as id, format('spent %s of %s', spent, amount) as detail
      from budgets where spent < 0 or spent > amount`
  },
  {
    // Keys that can't be used any more get nothing back, and need not. What was spent of a lease is the budget's when it is closed.
    name: "total budgets of usable keys have spent, with their keys' leases, what their transactions say, and no more than they are",
    findings: `
      select b.key_id || ' total' as id, format('spent %s, of leases %s, transactions %s', b.spent, l.spent, coalesce(t.spent, 0)) as detail
      from budgets b
      join api_keys k on k.id = b.key_id and k.status = 'active' and (k.expires_at is null or k.expires_at > now())
      left join (
        select subject_id, -sum(available) as spent from transactions where type in ('charge', 'reserve', 'refund') group by subject_id
      ) t on t.subject_id = b.key_id
      left join (select subject_id, sum(spent) as spent from leases group by subject_id) l on l.subject_id = b.key_id
      where b.budget_window = 'total' and (b.spent + coalesce(l.spent, 0) <> coalesce(t.spent, 0) or b.spent + coalesce(l.spent, 0) > b.amount)`
  },
  {
    name: "every idempotency key names something of its account that exists",
    findings: `
      with named as (
        select account_id, party_id, key, result_id, case when result_id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then result_id::uuid end as id
        from idempotency_keys join parties using (account_id)
      )
      select n.account_id || ' ' || n.key as id, 'result ' || n.result_id as detail from named n
      where not exists (select from transactions r join parties p using (account_id) where r.id = n.id and p.party_id = n.party_id)
        and not exists (select from orders r join parties p using (account_id) where r.id = n.id and p.party_id = n.party_id)
        and not exists (select from agents r where r.id = n.id and r.owner_id = n.party_id)
        and not exists (select from api_keys r where r.id = n.id and r.account_id = n.party_id)
        and not exists (select from usage r join parties p using (account_id) where r.id = n.id and r.recorded and p.party_id = n.party_id)`
  }
]

const checks: ReadonlyArray<Check> = [...balances, ...orders, ...chat, ...usage, ...market, ...keys]

/** Runs every check on one moment of the database. Changes nothing. Fails only when the database can't be read. */
export const audit = (sql: Sql): Promise<ReadonlyArray<CheckResult>> =>
  sql.begin("isolation level repeatable read read only", async (transaction) => {
    // The pool's statement timeout is for pages; hours are UTC hours; sums over 10⁷ rows should not spill.
    await transaction`select set_config('statement_timeout', '0', true), set_config('timezone', 'UTC', true), set_config('work_mem', '64MB', true)`
    const results: Array<CheckResult> = []
    for (const { name, findings } of checks) {
      const [row] = await transaction.unsafe<Array<{ count: bigint; example: string | null }>>(
        `select count(*) as count, min(id || ': ' || detail) as example from (${findings}) as finding`
      )
      const { count, example } = row!
      results.push({ name, ok: count === 0n, found: count === 0n ? "nothing" : `${count}, e.g. ${example}` })
    }
    return results
  })
