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
    name: "available and reserved of every account are the sums of its entries",
    findings: `
      select coalesce(a.id, t.account_id)::text as id,
             format('available %s, entries %s; reserved %s, entries %s', a.available, t.available, a.reserved, t.reserved) as detail
      from accounts a
      full join (select account_id, sum(available) as available, sum(reserved) as reserved from transactions group by account_id) t on t.account_id = a.id
      where a.id is null or a.available <> coalesce(t.available, 0) or a.reserved <> coalesce(t.reserved, 0)`
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

/** A roll-up against what usage says, group by group. */
const rollUpCheck = (table: string, subject: string, sums: Readonly<Record<string, string>>): Check => {
  const names = Object.keys(sums)
  return {
    name: `${table} is what the retained usage sums to`,
    findings: `
      with ${retained}, recomputed as (
        select date_trunc('hour', created_at) as hour, ${subject}, ${names.map((name) => `${sums[name]} as ${name}`).join(", ")}
        from usage where created_at >= (select since from retained) group by 1, 2
      ), stored as (
        select * from ${table} where hour >= (select since from retained)
      )
      select ${subject} || ' at ' || hour as id,
             format('stored ${names.map((name) => `${name} %s`).join(", ")}; usage ${names.map((name) => `${name} %s`).join(", ")}', ${[...names.map((name) => `s.${name}`), ...names.map((name) => `r.${name}`)].join(", ")}) as detail
      from stored s full join recomputed r using (hour, ${subject})
      where ${names.map((name) => `s.${name} is distinct from r.${name}`).join(" or ")}`
  }
}

const sums = { calls: "count(*)", errors: "count(*) filter (where status >= 500)", cost: "sum(cost)" }

const usage: ReadonlyArray<Check> = [
  {
    name: "every paid call was charged, once and its cost",
    findings: `
      select u.id::text, format('costs %s, charged %s times', min(u.cost), count(t.id)) as detail from usage u
      left join transactions t on t.id = u.id and t.account_id = u.account_id and t.agent_id = u.agent_id and t.subject_id = u.subject_id
        and (t.type = 'charge' and t.available = -u.cost and (u.call = 'chat') = (t.order_id is not null) or u.call = 'order' and t.type = 'complete' and t.reserved = -u.cost)
      where u.cost <> 0 group by u.id having count(t.id) <> 1 or min(u.cost) < 0`
  },
  {
    // The two rows of a call may lie on both sides of the midnight from which usage is retained.
    name: "every charge and completion belongs to exactly one paid call",
    findings: `
      with ${retained}, paid as (select id, count(*) as calls from usage where cost <> 0 group by id)
      select t.id::text, format('%s of %s, %s paid calls', t.type, -t.available - t.reserved, coalesce(paid.calls, 0)) as detail
      from transactions t left join paid on paid.id = t.id
      where t.type in ('charge', 'complete') and t.available + t.reserved <> 0 and paid.calls is distinct from 1
        and t.created_at >= (select since + interval '1 hour' from retained)`
  },
  rollUpCheck("usage_hourly_by_agent", "agent_id", { ...sums, latency_ms: "sum(latency_ms)" }),
  rollUpCheck("usage_hourly_by_account", "account_id", sums),
  {
    name: "agent totals are the sums of their hours",
    findings: `
      select agent_id::text as id, format('calls %s, hours %s; cost %s, hours %s', t.calls, h.calls, t.cost, h.cost) as detail
      from agent_totals t
      full join (select agent_id, sum(calls) as calls, sum(cost) as cost from usage_hourly_by_agent group by agent_id) h using (agent_id)
      where t.calls is distinct from h.calls or t.cost is distinct from h.cost`
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
    // Keys that can't be used any more get nothing back, and need not.
    name: "total budgets of usable keys have spent what their transactions say",
    findings: `
      select b.key_id || ' total' as id, format('spent %s, transactions %s', b.spent, coalesce(t.spent, 0)) as detail
      from budgets b
      join api_keys k on k.id = b.key_id and k.status = 'active' and (k.expires_at is null or k.expires_at > now())
      left join (
        select subject_id, -sum(available) as spent from transactions where type in ('charge', 'reserve', 'refund') group by subject_id
      ) t on t.subject_id = b.key_id
      where b.budget_window = 'total' and b.spent <> coalesce(t.spent, 0)`
  },
  {
    name: "every idempotency key names something of its account that exists",
    findings: `
      with named as (
        select account_id, key, result_id, case when result_id ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then result_id::uuid end as id from idempotency_keys
      )
      select n.account_id || ' ' || n.key as id, 'result ' || n.result_id as detail from named n
      where not exists (select from transactions r where r.id = n.id and r.account_id = n.account_id)
        and not exists (select from orders r where r.id = n.id and r.account_id = n.account_id)
        and not exists (select from agents r where r.id = n.id and r.owner_id = n.account_id)
        and not exists (select from api_keys r where r.id = n.id and r.account_id = n.account_id)`
  }
]

const checks: ReadonlyArray<Check> = [...balances, ...orders, ...chat, ...usage, ...keys]

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
