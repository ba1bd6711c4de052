/**
 * A market that has been in use for as long as usage is kept, written as rows:
 * owners with keys, services, a million recorded calls with what is due for
 * them, and the roll-ups made from the calls. Calls are spread evenly over days,
 * buyers and services, which makes the most rows of roll-ups: people who have
 * favourites make fewer.
 *
 * The rows are those that the gateway leaves itself, so that its audit holds.
 */
import { createHash, randomBytes } from "node:crypto"
import type postgres from "postgres"

export const calls = 1_000_000
/** What `USAGE_RETENTION_DAYS` leaves of usage. */
export const days = 90
export const buyers = 1_000
export const services = 100
export const providers = 20

export interface Keys {
  readonly admin: string
  /** Of an owner with a twentieth of the services. */
  readonly provider: string
  readonly buyer: string
}

const roles = { admin: ["buyer", "provider", "admin"], provider: ["buyer", "provider"], buyer: ["buyer"] } as const

export const fillMarket = async (sql: postgres.Sql): Promise<Keys> => {
  await addOwners(sql)
  await addServices(sql)
  await addCalls(sql)
  await addRollUps(sql)
  // What autovacuum comes to by itself, in its own time.
  await sql`vacuum (analyze)`
  return {
    admin: await addKey(sql, "buyer-1", "admin"),
    provider: await addKey(sql, "provider-1", "provider"),
    buyer: await addKey(sql, "buyer-2", "buyer")
  }
}

/** Everything that is sold becomes this provider's. */
export const giveAllTo = async (sql: postgres.Sql, name: string): Promise<void> => {
  await sql`update agents set owner_id = (select account_id from owners where name = ${name}) where dialect = 'acf'`
}

const addKey = async (sql: postgres.Sql, name: string, role: keyof typeof roles): Promise<string> => {
  const keyId = `acf_${randomBytes(8).toString("hex")}`
  const token = `${keyId}:sec_${randomBytes(32).toString("base64url")}`
  await sql`
    insert into api_keys (id, account_id, dialect, name, key_hash, key_prefix, scopes, rate_limit, expires_at)
    select gen_random_uuid(), account_id, 'acf', ${keyId}, ${createHash("sha256").update(token).digest()}, ${keyId}, string_to_array(${roles[role].join()}, ','), 1000000000, now() + interval '1 day'
    from owners where dialect = 'acf' and name = ${name}`
  return token
}

/** Each with an identity, and a team. */
const addOwners = (sql: postgres.Sql): Promise<unknown> => sql`
  with owner as materialized (
    select gen_random_uuid() as id, 'buyer-' || n as name from generate_series(1, ${buyers}::int) n
    union all select gen_random_uuid(), 'provider-' || n from generate_series(1, ${providers}::int) n
  ), account as (
    insert into accounts (id) select id from owner
  ), earning as (
    insert into earnings (account_id) select id from owner
  ), named as (
    insert into owners (dialect, name, account_id, created_at) select 'acf', name, id, now() - make_interval(days => ${days}::int) from owner
  ), identity as (
    insert into identities (id, account_id, display_name, identity_type, capabilities, metadata, created_at, updated_at)
    select gen_random_uuid(), id, initcap(name), 'api_key_only', array['nlp'], '{}', now(), now() from owner
  )
  insert into teams (id, account_id, name, description, config, created_at, updated_at)
  select gen_random_uuid(), id, 'Team of ' || name, '', '{}', now(), now() from owner`

const addServices = (sql: postgres.Sql): Promise<unknown> => sql`
  insert into agents (id, owner_id, dialect, ticker, name, description, category, endpoint_url, price, auth_tier, tags, payment_method, provider_since, created_at, updated_at)
  select gen_random_uuid(), o.account_id, 'acf', 'S' || n, 'Service ' || n, 'Answers the question number ' || n, (array['ai', 'data', 'content', 'search'])[n % 4 + 1],
         'https://service-' || n || '.example.com', 1000 * n, 'jwt_default', array['tag-' || n % 7], (array['x402', 'paypal', 'nowpayments', 'stripe'])[n % 4 + 1],
         o.created_at, o.created_at, o.created_at
  from generate_series(1, ${services}::int) n join owners o on o.name = 'provider-' || n % ${providers}::int + 1`

/** From the first moment of the oldest day until now, each day in a partition of its own. */
const addCalls = async (sql: postgres.Sql): Promise<void> => {
  const [row] = await sql<Array<{ first: string }>>`select (now() at time zone 'utc')::date - ${days - 1}::int || '' as first`
  for (let day = 0; day < days; day++) {
    const at = (offset: number): string => new Date(Date.parse(row!.first) + (day + offset) * 86_400_000).toISOString()
    await sql.unsafe(`create table if not exists usage_${at(0).slice(0, 10).replaceAll("-", "")} partition of usage for values from ('${at(0)}') to ('${at(1)}')`)
  }
  await sql`select setseed(0.5)`
  await sql`
    with buyer as materialized (
      select o.account_id, k.id as key_id, row_number() over (order by o.name) as n
      from owners o cross join lateral (select gen_random_uuid() as id where o.name is not null) k where o.name like 'buyer-%'
    ), service as materialized (
      select id, price, row_number() over (order by ticker) as n from agents where dialect = 'acf'
    ), made as materialized (
      select ${row!.first}::timestamptz + (now() - ${row!.first}::timestamptz) * (n / ${calls}::float8) as created_at,
             floor(random() * ${buyers}::int)::int + 1 as buyer, floor(random() * ${services}::int)::int + 1 as service,
             (array[200, 200, 200, 200, 200, 200, 200, 200, 201, 404, 422, 500, 503])[floor(random() * 13)::int + 1] as status, (20 + random() * 400)::int as latency_ms
      from generate_series(0, ${calls - 1}::int) n
    )
    insert into usage (id, account_id, subject_id, agent_id, call, status, cost, recorded, latency_ms, created_at)
    select gen_random_uuid(), b.account_id, b.key_id, s.id, 'proxy', m.status, case when m.status < 500 then s.price else 0 end, m.status < 500, m.latency_ms, m.created_at
    from made m join buyer b on b.n = m.buyer join service s on s.n = m.service`
  await sql`
    insert into dues (usage_id, agent_id, amount, fee, recorded, called_at)
    select id, agent_id, cost, cost / 10, recorded, created_at from usage where status < 500`
}

/** Each from the calls themselves, rows in the order of their days as calls leave them; the audit compares them again. */
const addRollUps = async (sql: postgres.Sql): Promise<void> => {
  const succeeded = "count(*) filter (where status < 400)"
  const errors = "count(*) filter (where status >= 500)"
  const day = "(created_at at time zone 'utc')::date"
  for (const [table, columns, query] of [
    ["usage_hourly_by_agent", "hour, agent_id, calls, errors, cost, latency_ms", `select date_trunc('hour', created_at, 'utc'), agent_id, count(*), ${errors}, sum(cost), sum(latency_ms) from usage group by 1, 2`],
    ["usage_daily_by_agent", "day, agent_id, calls, succeeded, errors, cost, latency_ms", `select ${day}, agent_id, count(*), ${succeeded}, ${errors}, sum(cost), sum(latency_ms) from usage group by 1, 2 order by 1`],
    ["usage_daily_by_account", "day, account_id, calls, succeeded, errors, cost, recorded, latency_ms",
      `select ${day}, account_id, count(*), ${succeeded}, ${errors}, sum(cost), sum(cost), sum(latency_ms) from usage group by 1, 2 order by 1`],
    ["usage_weekly_by_account", "week, account_id, calls, cost", "select date_trunc('week', day::timestamp)::date, account_id, sum(calls), sum(cost) from usage_daily_by_account group by 1, 2 order by 1"],
    ["usage_months_by_account", "month, account_id", "select distinct date_trunc('month', day::timestamp)::date, account_id from usage_daily_by_account order by 1"],
    ["usage_by_pair", "account_id, agent_id, calls, cost, last_day", `select account_id, agent_id, count(*), sum(cost), max(${day}) from usage group by 1, 2`],
    ["agent_totals", "agent_id, calls, succeeded, errors, cost, latency_ms, first_at, last_at",
      `select agent_id, count(*), ${succeeded}, ${errors}, sum(cost), sum(latency_ms), min(created_at), max(created_at) from usage group by 1`]
  ] as const) await sql.unsafe(`insert into ${table} (${columns}) ${query}`)
}
