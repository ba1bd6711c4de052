/**
 * The one statement of a flush, put together from the sections that a batch
 * needs. However many commands a batch holds, it is one statement, one round
 * trip and one fsync.
 *
 * The fence is `live`: the presented accounts whose token is still current,
 * locked and changed in one step. Every section joins it, so that a stale
 * activation writes nothing, and its neighbours in the batch don't notice. The
 * statement returns the accounts that were refused.
 *
 * A batch with leases has a longer fence. An account that is spent from by
 * leases is live when all of its leases in the batch are open and have what is
 * taken: they are locked first, then looked at, and none is raised unless all
 * can be. Its own row is only read, for the balance that its transactions tell.
 * An account is never in one batch in both ways.
 *
 * Lock order, the same for every committer: accounts by id, leases by id,
 * sessions, then earnings by id. The updates take their rows sorted from
 * their side of the join. The committer's sessions scan no table in its own
 * order (`Postgres.ts`), so that every plan meets the other side sorted too, or
 * looks it up row by row.
 *
 * What every paid call needs (accounts, transactions, usage) comes as one text
 * a section, an array of a type of its own; the rest as one JSON array a section.
 */

import { meterSql } from "./usageSql.ts"

/** Sections in statement order; `accounts` is always there. */
export const sections = ["finished", "transactions", "calls", "paidSettlements", "orders", "sessions", "turns", "lateCancels", "budgets", "keys", "revoked", "agents", "idempotency", "answers", "deliveries", "audit"] as const
export type Section = typeof sections[number]

const recordset = (parameter: number, columns: string): string => `json_to_recordset($${parameter}::text::json) as r(${columns})`

/**
 * 1 when both have as many rows, else a division by zero, which aborts the batch: an order that is not pending any more,
 * an earner without an earnings row, a turn of a session that is closed or another node's, or a change of an agent whose
 * row has that version already, must take the rest of its request with it.
 */
const allOrNothing = (done: string, wanted: string): string =>
  `1 / (case when (select count(*) from ${done}) = (select count(*) from ${wanted}) then 1 else 0 end)`

const joinLive = "join live on live.id = r.account_id"

const sectionSql: { readonly [S in Section]: (parameter: number) => string } = {
  finished: (n) => `
finished as (
  update orders o set status = r.status, fee = r.fee, output_hash = r.output_hash, output_text = r.output_text, error = r.error, completed_at = r.completed_at
  from ${recordset(n, "id uuid, account_id uuid, status text, fee bigint, output_hash text, output_text text, error text, completed_at timestamptz")} ${joinLive}
  where o.id = r.id and o.account_id = live.id and o.status = 'pending' and o.token = live.token
  returning o.id
), finished_all as (
  select ${allOrNothing("finished", `${recordset(n, "account_id uuid")} ${joinLive}`)} as ok
)`,
  transactions: (n) => `
moving as (
  select r.*, live.available - r.later as balance_after from unnest($${n}::text::batch_transaction[]) r ${joinLive}
), moved as (
  insert into transactions (id, batch_id, account_id, type, available, reserved, earner_id, earned, fee, buyback, deposits, withdrawals,
                            balance_after, agent_id, order_id, subject_id, reference, created_at, lease_id)
  select id, $1::uuid, account_id, type, available, reserved, earner_id, earned, fee, buyback, deposits, withdrawals,
         balance_after, agent_id, order_id, subject_id, reference, created_at, lease_id from moving
), sums as (
  select earner_id, sum(earned) as earned, sum(fee) as fee, sum(buyback) as buyback, sum(deposits) as deposits, sum(withdrawals) as withdrawals
  from moving group by earner_id
), earned as (
  select earner_id, earned from sums where earned <> 0 order by earner_id
), credited as (
  update earnings e set posted = e.posted + earned.earned from earned where e.account_id = earned.earner_id returning e.account_id
), credited_all as (
  select ${allOrNothing("credited", "earned")} as ok
)`,
  calls: (n) => `
called as (
  select r.* from unnest($${n}::text::batch_usage[]) r ${joinLive}
)`,
  paidSettlements: (n) => `
paid as (
  update settlements s set status = 'completed', payment_tx = r.payment_tx, paid_at = r.paid_at
  from ${recordset(n, "id uuid, account_id uuid, payment_tx text, paid_at timestamptz")} ${joinLive}
  where s.id = r.id and s.status in ('pending', 'processing')
  returning s.id
), paid_all as (
  select ${allOrNothing("paid", `${recordset(n, "account_id uuid")} ${joinLive}`)} as ok
)`,
  orders: (n) => `
ordered as (
  insert into orders (id, account_id, subject_id, agent_id, token, status, prompt, payment_method, amount, fee, created_at)
  select r.id, r.account_id, r.subject_id, r.agent_id, live.token, 'pending', r.prompt, r.payment_method, r.amount, r.fee, r.created_at
  from ${recordset(n, "id uuid, account_id uuid, subject_id uuid, agent_id uuid, prompt text, payment_method text, amount bigint, fee bigint, created_at timestamptz")} ${joinLive}
)`,
  sessions: (n) => `
opened as (
  insert into sessions (id, account_id, subject_id, agent_id, node_id, price, started_at)
  select r.id, r.account_id, r.subject_id, r.agent_id, r.node_id, r.price, r.started_at
  from ${recordset(n, "id text, account_id uuid, subject_id uuid, agent_id uuid, node_id uuid, price bigint, started_at timestamptz")} ${joinLive}
)`,
  turns: (n) => `
ended as (
  select r.*, live.token from ${recordset(n, "id uuid, account_id uuid, session_id text, term bigint, subject_id uuid, agent_id uuid, message_id text, message_index int, prompt text, amount bigint, fee bigint, output_hash text, output_text text, created_at timestamptz, completed_at timestamptz")} ${joinLive} order by r.session_id
), counted as (
  update sessions s set message_count = e.message_index, consumed = s.consumed + e.amount
  from ended e
  where s.id = e.session_id and s.account_id = e.account_id and s.status = 'active' and s.term = e.term and s.message_count = e.message_index - 1
  returning s.id
), counted_all as (
  select ${allOrNothing("counted", "ended")} as ok
), turned as (
  insert into orders (id, account_id, subject_id, agent_id, token, status, prompt, payment_method, amount, fee, output_hash, output_text, created_at, completed_at, session_id, message_id, message_index)
  select id, account_id, subject_id, agent_id, token, 'completed', prompt, 'credits', amount, fee, output_hash, output_text, created_at, completed_at, session_id, message_id, message_index
  from ended
)`,
  lateCancels: (n) => `
cancelled as (
  insert into late_cancels (account_id, agent_id, day, cancels)
  select r.account_id, r.agent_id, r.day, count(*) from ${recordset(n, "account_id uuid, agent_id uuid, day date")} ${joinLive}
  group by 1, 2, 3 order by 1, 2, 3
  on conflict (account_id, agent_id, day) do update set cancels = late_cancels.cancels + excluded.cancels
)`,
  // Two periods of one window in one batch: the later one stands, the earlier is over.
  budgets: (n) => `
budgeted as (
  update budgets b set period_start = s.period_start, spent = case when b.period_start = s.period_start then b.spent + s.amount else s.amount end
  from (
    select distinct on (r.key_id, r.budget_window) r.key_id, r.budget_window, r.period_start, sum(r.amount) as amount
    from ${recordset(n, "account_id uuid, key_id uuid, budget_window text, period_start timestamptz, amount bigint")} ${joinLive}
    group by r.key_id, r.budget_window, r.period_start order by r.key_id, r.budget_window, r.period_start desc
  ) s
  where b.key_id = s.key_id and b.budget_window = s.budget_window and s.period_start >= b.period_start
)`,
  keys: (n) => `
keyed as (
  insert into api_keys (id, account_id, dialect, name, key_hash, key_prefix, scopes, rate_limit, wallet_address, expires_at, created_at)
  select r.id, r.account_id, r.dialect, r.name, decode(r.key_hash, 'hex'), r.key_prefix, array(select json_array_elements_text(r.scopes)), r.rate_limit, r.wallet_address, r.expires_at, r.created_at
  from ${recordset(n, "id uuid, account_id uuid, dialect text, name text, key_hash text, key_prefix text, scopes json, rate_limit int, wallet_address text, expires_at timestamptz, created_at timestamptz, budgets json")} ${joinLive}
), budget_opened as (
  insert into budgets (key_id, budget_window, amount, period_start)
  select r.id, b.budget_window, b.amount, b.period_start
  from ${recordset(n, "id uuid, account_id uuid, budgets json")} ${joinLive},
       json_to_recordset(r.budgets) as b(budget_window text, amount bigint, period_start timestamptz)
)`,
  revoked: (n) => `
revoked as (
  update api_keys k set status = 'revoked', revoked_at = r.revoked_at
  from ${recordset(n, "id uuid, account_id uuid, revoked_at timestamptz")} ${joinLive}
  where k.id = r.id and k.account_id = live.id and k.status = 'active'
)`,
  // Of two changes of one agent in a batch the later was made of the earlier.
  agents: (n) => `
listed as (
  insert into agents as a (id, owner_id, dialect, ticker, name, description, category, endpoint_url, price, free_tier_calls, auth_tier, status, manifest, provider, provider_key, version, created_at, tags, payment_method, provider_since, updated_at)
  select distinct on (r.id) r.id, r.account_id, r.dialect, r.ticker, r.name, r.description, r.category, r.endpoint_url, r.price, r.free_tier_calls, r.auth_tier, r.status, r.manifest, r.provider, decode(r.provider_key, 'hex'), r.version, r.created_at, r.tags, r.payment_method, r.provider_since, r.updated_at
  from ${recordset(n, "id uuid, account_id uuid, dialect text, ticker text, name text, description text, category text, endpoint_url text, price bigint, free_tier_calls int, auth_tier text, status text, manifest jsonb, provider text, provider_key text, version bigint, created_at timestamptz, tags text[], payment_method text, provider_since timestamptz, updated_at timestamptz")} ${joinLive}
  order by r.id, r.version desc
  on conflict (id) do update set
    name = excluded.name, description = excluded.description, category = excluded.category, endpoint_url = excluded.endpoint_url,
    price = excluded.price, free_tier_calls = excluded.free_tier_calls, auth_tier = excluded.auth_tier, status = excluded.status,
    manifest = excluded.manifest, provider = excluded.provider, provider_key = excluded.provider_key, version = excluded.version,
    tags = excluded.tags, updated_at = excluded.updated_at
  where a.owner_id = excluded.owner_id and a.version < excluded.version
  returning a.id
), listed_all as (
  select ${allOrNothing("listed", `(select distinct r.id from ${recordset(n, "id uuid, account_id uuid")} ${joinLive}) wanted`)} as ok
)`,
  idempotency: (n) => `
remembered as (
  insert into idempotency_keys (account_id, key, fingerprint, result_id, created_at)
  select r.account_id, r.key, r.fingerprint, r.result_id, r.created_at
  from ${recordset(n, "account_id uuid, key text, fingerprint text, result_id text, created_at timestamptz")} ${joinLive}
)`,
  answers: (n) => `
answered as (
  insert into idempotency_answers (account_id, key, status, headers, body, created_at)
  select r.account_id, r.key, r.status, r.headers, decode(r.body, 'base64'), r.created_at
  from ${recordset(n, "account_id uuid, key text, status int, headers jsonb, body text, created_at timestamptz")} ${joinLive}
)`,
  deliveries: (n) => `
told as (
  insert into deliveries (id, webhook_id, event, facts, created_at, next_attempt_at)
  select r.id, r.webhook_id, r.event, r.facts, r.created_at, r.created_at
  from ${recordset(n, "id uuid, account_id uuid, webhook_id uuid, event text, facts jsonb, created_at timestamptz")} ${joinLive}
  join webhooks w on w.id = r.webhook_id
)`,
  audit: (n) => `
audited as (
  insert into audit_log (id, account_id, actor, action, target, details, created_at)
  select r.id, r.account_id, r.actor, r.action, r.target, r.details, r.created_at
  from ${recordset(n, "id uuid, account_id uuid, actor text, action text, target text, details jsonb, created_at timestamptz")} ${joinLive}
)`
}

const callColumns = "id, account_id, subject_id, agent_id, call, status, cost, latency_ms, created_at, fee"

/** The calls of a batch, whether credits moved for them or not. */
const meteredSql = (present: ReadonlySet<Section>): string => {
  const sources = [
    ...(present.has("transactions") ? [`select ${callColumns}, false as recorded, due from moving where call is not null`] : []),
    ...(present.has("calls") ? [`select ${callColumns}, recorded, due from called`] : [])
  ]
  return sources.length === 0 ? "" : `, metered as materialized (${sources.join(" union all ")}), ${meterSql("metered")}`
}

const statements = new Map<string, string>()

const ownedSql = `update accounts a set available = a.available + p.available, reserved = a.reserved + p.reserved
  from presented p where a.id = p.id and a.token = p.token
  returning a.id, a.token, a.available`

/** Without leases among the batch's accounts. */
const shortFence = `live as (
  ${ownedSql}
)`

/** `rests` is what was left of leases when the statement began: the balances told are exact while no other node spends. */
const leaseFence = (n: number): string => `named as materialized (
  select * from unnest($${n}::text::batch_lease[])
), owned as (
  ${ownedSql}
), locked as materialized (
  select l.id, l.account_id, l.is_open, l.amount - l.spent as rest from leases l
  where l.id in (select id from named) and (select count(*) from owned) is not null
  order by l.id for update
), able as materialized (
  select n.account_id as id, sum(n.taken) as taken from named n left join locked l on l.id = n.id and l.account_id = n.account_id
  where n.taken is not null group by n.account_id having bool_and(coalesce(l.is_open and l.rest >= n.taken, false))
), spent as (
  update leases l set spent = l.spent + n.taken from named n join able on able.id = n.account_id where l.id = n.id and n.taken > 0
), granted as (
  insert into leases (id, account_id, subject_id, node_id, amount, granted_at)
  select n.id, n.account_id, n.subject_id, n.node_id, n.changed, n.granted_at from named n join owned on owned.id = n.account_id where n.is_new
  returning id
), changed as (
  update leases l set amount = l.amount + n.changed, granted_at = greatest(l.granted_at, n.granted_at)
  from named n join owned on owned.id = n.account_id where l.id = n.id and l.account_id = n.account_id and not n.is_new
  returning l.id
), leased_all as (
  select ${allOrNothing("(select id from granted union all select id from changed) done", "named n join owned on owned.id = n.account_id where n.taken is null")} as ok
), rests as (
  select account_id, sum(rest) as rest from (
    select l.account_id, l.amount - l.spent as rest from leases l where l.account_id in (select id from owned union all select id from able)
    union all select account_id, changed from named where taken is null
  ) r group by 1
), live as materialized (
  select o.id, o.token, o.available + coalesce(r.rest, 0) as available from owned o left join rests r on r.account_id = o.id
  where (select count(*) from locked) is not null
  union all
  select able.id, 0, a.available + r.rest - able.taken from able join accounts a on a.id = able.id join rests r on r.account_id = able.id
)`

/**
 * Parameters: $1 the batch's id, $2 the presented accounts, then with `leases` the named leases, then one for each present
 * section in statement order. Answers one row, `refused`.
 */
export const batchSql = (present: ReadonlySet<Section>, leases: boolean): string => {
  const used = sections.filter((section) => present.has(section))
  const name = `${leases ? "leases," : ""}${used.join()}`
  const known = statements.get(name)
  if (known !== undefined) return known
  const sums = present.has("transactions")
    ? "coalesce(sum(fee), 0) * (select ok from credited_all), coalesce(sum(buyback), 0), coalesce(sum(deposits), 0), coalesce(sum(withdrawals), 0)"
    : "0, 0, 0, 0"
  // Factors of the first sum, because a select list is evaluated even when no row moved. In this order they take their locks.
  const guards = [
    ...(leases ? ["leased_all"] : []), ...(present.has("finished") ? ["finished_all"] : []), ...(present.has("agents") ? ["listed_all"] : []),
    ...(present.has("turns") ? ["counted_all"] : []), ...(present.has("paidSettlements") ? ["paid_all"] : [])
  ]
  const first = leases ? 4 : 3
  const text = `with presented as (
  select id, token, available, reserved from unnest($2::text::batch_account[])
), ${leases ? leaseFence(3) : shortFence}${used.map((section, index) => `, ${sectionSql[section](index + first).trim()}`).join("")}${meteredSql(present)}
insert into batches (id, fee, buyback, deposits, withdrawals, refused)
select $1::uuid, ${guards.map((guard) => `(select ok from ${guard}) * `).join("")}${sums},
  array(select id from presented where id not in (select id from live)${leases ? " union select account_id from named where taken is not null and account_id not in (select id from live)" : ""}) ${present.has("transactions") ? "from sums" : ""}
returning refused`
  statements.set(name, text)
  return text
}
