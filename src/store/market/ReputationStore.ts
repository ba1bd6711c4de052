/**
 * What reputation is made of: sums of calls by owner, by agent and by month,
 * from the roll-ups that every call adds to; and the scores that subscribers
 * were told last. When accounts become one, their agents, identities and
 * webhooks are that one's, so owners are accounts here.
 */
import { Effect } from "effect"
import type { StoreUnavailable } from "../../domain/errors.ts"
import type { AccountId, AgentId } from "../../domain/ids.ts"
import type { CallSums, Period } from "../../domain/reputation.ts"
import type { DeliveryRow } from "../Commit.ts"
import { Postgres, type Sql } from "../Postgres.ts"

export interface SumColumns { calls: bigint; succeeded: bigint; errors: bigint; latency_ms: bigint }

export const sumsOf = ({ calls, succeeded, errors, latency_ms }: SumColumns): CallSums => ({ calls, succeeded, errors, latencyMs: latency_ms })

type Fragment = ReturnType<Sql>

/** Of the rows `s` of a roll-up. */
const sums = (sql: Sql) => sql`
  coalesce(sum(s.calls), 0)::bigint as calls, coalesce(sum(s.succeeded), 0)::bigint as succeeded,
  coalesce(sum(s.errors), 0)::bigint as errors, coalesce(sum(s.latency_ms), 0)::bigint as latency_ms`

/** The rows of a roll-up that a period has. */
const rollUp = (sql: Sql, period: Period) => period === "all-time" ? sql`agent_totals` : sql`(
  select * from usage_daily_by_agent
  where day >= ${`${period}-01`}::text::date and day < (${`${period}-01`}::text::date + interval '1 month')::date)`

/** One row: the sums over all agents of an owner. */
export const sumsOfOwner = (sql: Sql, ownerId: Fragment, period: Period = "all-time") => sql`
  select ${sums(sql)} from agents a join ${rollUp(sql, period)} s on s.agent_id = a.id where a.owner_id = ${ownerId}`

const selectSumsOfAgent = (sql: Sql, agentId: AgentId, period: Period) => sql<Array<SumColumns>>`
  select ${sums(sql)} from ${rollUp(sql, period)} s where s.agent_id = ${agentId}`

const selectProviderName = (sql: Sql, accountId: AccountId) => sql<Array<{ name: string }>>`
  select coalesce((
    select id::text from identities where account_id = p.account_id and status = 'active' order by id limit 1
  ), p.name) as name
  from parties p where p.account_id = ${accountId}`

/** The order of `scoresOf`, in hundredths: it must be the database's, which has all owners. */
const selectLeaders = (sql: Sql, limit: number) => sql<Array<SumColumns & { id: string; display_name: string; verified: boolean }>>`
  with totals as (
    select a.owner_id, ${sums(sql)} from agent_totals s join agents a on a.id = s.agent_id group by 1
  ), scored as (
    select *, (200 * (3 * greatest(10000 * calls - latency_ms, 0) + 40000 * succeeded + 30000 * (calls - errors)) + 10000 * calls) / (20000 * calls) as score
    from totals where calls > 0
  )
  select i.id, i.display_name, i.verified, coalesce(s.calls, 0) as calls, coalesce(s.succeeded, 0) as succeeded, coalesce(s.errors, 0) as errors, coalesce(s.latency_ms, 0) as latency_ms
  from identities i left join scored s on s.owner_id = i.account_id
  where i.status = 'active' order by coalesce(s.score, 0) desc, coalesce(s.calls, 0) desc, i.id limit ${limit}`

const selectSubscribed = (sql: Sql, after: string, limit: number) => sql<Array<SumColumns & { account_id: AccountId; webhooks: Array<string>; told: number }>>`
  select w.account_id, w.webhooks, coalesce(t.score, 0) as told, s.*
  from (
    select account_id, array_agg(id order by id) as webhooks from webhooks
    where 'reputation.updated' = any(events) and deleted_at is null and account_id > ${after} group by 1 order by 1 limit ${limit}
  ) w
  cross join lateral (${sumsOfOwner(sql, sql`w.account_id`)}) s
  left join told_scores t using (account_id)
  order by 1`

/** The condition is what makes one change be told once, whoever else looks at the same time. */
const insertTold = (sql: Sql, { accountId, score, told, deliveries }: ScoreNews) => sql`
  with told as (
    insert into told_scores as t (account_id, score) values (${accountId}, ${score})
    on conflict (account_id) do update set score = excluded.score where t.score = ${told}
    returning 1
  )
  insert into deliveries (id, webhook_id, event, facts, created_at, next_attempt_at)
  select d.id, w.id, d.event, d.facts, now(), now()
  from told, json_to_recordset(${JSON.stringify(deliveries)}::text::json) as d(id uuid, "webhookId" uuid, event text, facts jsonb)
  join webhooks w on w.id = d."webhookId" and w.deleted_at is null`

/** An owner who asked to be told of its score, and what it was told last; 0 when it never was. */
export interface Subscribed {
  readonly accountId: AccountId
  readonly webhookIds: ReadonlyArray<string>
  readonly told: number
  readonly sums: CallSums
}

export interface ScoreNews {
  readonly accountId: AccountId
  readonly score: number
  /** What was told last when it was looked at. */
  readonly told: number
  readonly deliveries: ReadonlyArray<DeliveryRow>
}

export interface Leader {
  readonly id: string
  readonly displayName: string
  readonly verified: boolean
  readonly sums: CallSums
}

export const sumOwner = (ownerId: AccountId, period: Period): Effect.Effect<CallSums, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => sumsOfOwner(sql, sql`${ownerId}`, period))).pipe(Effect.map(([row]) => sumsOf(row as unknown as SumColumns)))

export const sumAgent = (agentId: AgentId, period: Period): Effect.Effect<CallSums, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectSumsOfAgent(sql, agentId, period))).pipe(Effect.map(([row]) => sumsOf(row!)))

/** Who provides what this account listed: the id of its oldest active identity, or its name. */
export const findProviderName = (accountId: AccountId): Effect.Effect<string, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectProviderName(sql, accountId))).pipe(Effect.map(([row]) => row?.name ?? accountId))

/** Active identities by their owners' scores, then calls, then the older first. Walks over all owners. */
export const listLeaders = (limit: number): Effect.Effect<ReadonlyArray<Leader>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectLeaders(sql, limit))).pipe(
    Effect.map((rows) => rows.map((row) => ({ id: row.id, displayName: row.display_name, verified: row.verified, sums: sumsOf(row) })))
  )

/** At most so many owners with a subscription, by id, those behind `after`. */
export const listSubscribed = (after: string, limit: number): Effect.Effect<ReadonlyArray<Subscribed>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectSubscribed(sql, after, limit))).pipe(
    Effect.map((rows) => rows.map((row) => ({ accountId: row.account_id, webhookIds: row.webhooks, told: row.told, sums: sumsOf(row) })))
  )

/** The score is told, and its deliveries wait, in one statement; neither when it is not `told` any more that was told last. Answers whether there is something to deliver. */
export const tellScore = (news: ScoreNews): Effect.Effect<boolean, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => insertTold(sql, news))).pipe(Effect.map(({ count }) => count > 0))
