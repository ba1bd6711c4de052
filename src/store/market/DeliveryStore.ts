/**
 * What is to be told, one row for each event and webhook. Written by the commit
 * of the event (`batchSql.ts`), sent by `kernel/webhooks/Sender.ts`.
 *
 * Who sends for a webhook has its row's lease: nobody else is given one of its
 * deliveries before the lease ends, and it is given only the oldest one that is
 * pending. An attempt is counted when it is claimed; its outcome is written only
 * if no other attempt was counted since. Both take the webhook's row first. Times
 * are the database's, so nodes need not agree about the clock.
 */
import { Effect } from "effect"
import type { StoreUnavailable } from "../../domain/errors.ts"
import type { AccountId } from "../../domain/ids.ts"
import type { WebhookEvent } from "../../domain/webhook.ts"
import { Postgres, type Sql } from "../Postgres.ts"

export interface ClaimedDelivery {
  readonly id: string
  readonly webhookId: string
  /** The webhook's owner. */
  readonly accountId: AccountId
  readonly url: string
  readonly sealedSecret: Uint8Array
  readonly event: WebhookEvent
  /** Those of the event in `WebhookFacts`. */
  readonly facts: object
  /** Of the accounts among the facts. */
  readonly names: Readonly<Record<string, string>>
  readonly createdAt: Date
  /** This one included. */
  readonly attempts: number
}

export interface Outcome {
  /** Absent when no answer came. */
  readonly status: number | undefined
  /** `undefined`: it is delivered. */
  readonly error: string | undefined
  /** After an error: due again then; `undefined`: it is given up. */
  readonly retryMs: number | undefined
}

export interface LoggedDelivery {
  readonly id: string
  readonly event: WebhookEvent
  readonly createdAt: Date
  readonly attempts: number
  readonly status: "pending" | "delivered" | "failed"
  /** While it is pending. */
  readonly nextAttemptAt: Date | undefined
  readonly lastStatus: number | undefined
  readonly lastError: string | undefined
  readonly deliveredAt: Date | undefined
}

/** A webhook with pending deliveries. */
export interface WaitingWebhook {
  readonly webhookId: string
  readonly url: string
  /** The oldest may be sent now. */
  readonly isDue: boolean
  /** They don't go out as fast as they come. */
  readonly isLate: boolean
}

const pending = (sql: Sql) => sql`delivered_at is null and failed_at is null`

const lateAfter = "10 seconds"

const claimHeads = (sql: Sql, webhookIds: ReadonlyArray<string>, leaseMs: number) => sql<Array<{
  id: string; webhook_id: string; account_id: AccountId; url: string; secret: Buffer; event: WebhookEvent
  facts: object; names: Record<string, string> | null; created_at: Date; attempts: number
}>>`
  with free as (
    select id, account_id, url, secret from webhooks
    where id = any(${webhookIds as Array<string>}::uuid[]) and deleted_at is null and coalesce(busy_until, '-infinity') <= now()
    for no key update skip locked
  ), heads as (
    select h.id from free cross join lateral (
      select id, next_attempt_at from deliveries where webhook_id = free.id and ${pending(sql)} order by id limit 1) h
    where h.next_attempt_at <= now()
  ), claimed as (
    update deliveries d set attempts = d.attempts + 1 from heads
    where d.id = heads.id and d.next_attempt_at <= now() and ${pending(sql)}
    returning d.id, d.webhook_id, d.event, d.facts, d.created_at, d.attempts
  ), leased as (
    update webhooks w set busy_until = now() + ${leaseMs} * interval '1 millisecond' from claimed where w.id = claimed.webhook_id
  )
  select c.*, free.account_id, free.url, free.secret, (
    select json_object_agg(p.account_id, p.name) from parties p
    where p.account_id in ((c.facts->>'buyer')::uuid, (c.facts->>'provider')::uuid, (c.facts->>'account')::uuid)) as names
  from claimed c join free on free.id = c.webhook_id`

/** The next of the due webhooks, at most so many of them, each once. Those that another one sends for are left out. */
export const claimDeliveries = (webhookIds: ReadonlyArray<string>, leaseMs: number): Effect.Effect<ReadonlyArray<ClaimedDelivery>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => claimHeads(sql, webhookIds, leaseMs))).pipe(Effect.map((rows) =>
    rows.map(({ webhook_id, account_id, secret, names, created_at, ...row }) =>
      ({ ...row, webhookId: webhook_id, accountId: account_id, sealedSecret: secret, names: names ?? {}, createdAt: created_at }))))

const settle = (sql: Sql, { id, webhookId, attempts }: ClaimedDelivery, { status, error, retryMs }: Outcome) => sql`
  with webhook as (
    select id from webhooks where id = ${webhookId} for no key update
  ), settled as (
    update deliveries d set last_status = ${status ?? null}, last_error = ${error ?? null},
      delivered_at = case when ${error === undefined} then now() end,
      failed_at = case when ${error !== undefined && retryMs === undefined} then now() end,
      next_attempt_at = now() + ${retryMs ?? 0} * interval '1 millisecond'
    from webhook where d.id = ${id} and d.attempts = ${attempts} and ${pending(sql)}
    returning d.webhook_id
  )
  update webhooks w set busy_until = null from settled where w.id = settled.webhook_id`

/** Writes how the attempt ended, and gives the webhook free. */
export const settleDelivery = (delivery: ClaimedDelivery, outcome: Outcome): Effect.Effect<void, StoreUnavailable, Postgres> =>
  Effect.asVoid(Postgres.use(({ run }) => run((sql) => settle(sql, delivery, outcome))))

/** From webhook to webhook by the index, however many deliveries each has. */
const selectWaiting = (sql: Sql, after: string, max: number) => sql<Array<{ webhook_id: string; url: string | null; is_due: boolean; is_late: boolean }>>`
  with recursive heads as (
    (select webhook_id, created_at, next_attempt_at, 1 as n from deliveries where ${pending(sql)} and webhook_id > ${after} order by webhook_id, id limit 1)
    union all
    select h.webhook_id, h.created_at, h.next_attempt_at, heads.n + 1 from heads cross join lateral (
      select webhook_id, created_at, next_attempt_at from deliveries where ${pending(sql)} and webhook_id > heads.webhook_id order by webhook_id, id limit 1) h
    where heads.n < ${max}
  )
  select h.webhook_id, w.url, h.next_attempt_at <= now() and coalesce(w.busy_until, '-infinity') <= now() as is_due, h.created_at < now() - ${lateAfter}::interval as is_late
  from heads h left join webhooks w on w.id = h.webhook_id and w.deleted_at is null order by h.webhook_id`

const firstId = "00000000-0000-0000-0000-000000000000"

/** At most so many webhooks, in the order of their ids; `next` is where to go on, `undefined` at the end. */
export const waitingWebhooks = (after: string | undefined, max: number): Effect.Effect<{ readonly webhooks: ReadonlyArray<WaitingWebhook>; readonly next: string | undefined }, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectWaiting(sql, after ?? firstId, max))).pipe(Effect.map((rows) => ({
    webhooks: rows.flatMap(({ webhook_id, url, is_due, is_late }) => url === null ? [] : [{ webhookId: webhook_id, url, isDue: is_due, isLate: is_late }]),
    next: rows.length < max ? undefined : rows.at(-1)?.webhook_id
  })))

const selectNewestOver = (sql: Sql, webhookId: string, max: number) => sql<Array<{ id: string }>>`
  select id from deliveries where webhook_id = ${webhookId} and ${pending(sql)} order by id desc offset ${max} limit 1`

/** One that was tried is left: it may be under way. */
const failUpTo = (sql: Sql, webhookId: string, newestId: string, max: number) => sql`
  update deliveries set failed_at = now(), last_error = 'backlog' where id = any (array(
    select id from deliveries where webhook_id = ${webhookId} and ${pending(sql)} and id <= ${newestId} and attempts = 0
    order by id limit ${max} for update skip locked))`

/** Gives the oldest of a webhook up above `max` that are pending, and answers how many. Costs a look at so many rows. */
export const failBacklog = (webhookId: string, max: number): Effect.Effect<number, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run(async (sql) => {
    const [newestOver] = await selectNewestOver(sql, webhookId, max)
    return newestOver === undefined ? 0 : (await failUpTo(sql, webhookId, newestOver.id, max)).count
  }))

/** Of all nodes, counted up to `max`. */
export const deliveriesWaiting = (max: number): Effect.Effect<number, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => sql<Array<{ count: number }>>`
    select count(*)::int as count from (select from deliveries where ${pending(sql)} limit ${max}) waiting`)).pipe(Effect.map(([row]) => row?.count ?? 0))

const selectLog = (sql: Sql, webhookId: string, limit: number) => sql<Array<{
  id: string; event: WebhookEvent; created_at: Date; attempts: number; next_attempt_at: Date
  delivered_at: Date | null; failed_at: Date | null; last_status: number | null; last_error: string | null
}>>`
  select id, event, created_at, attempts, next_attempt_at, delivered_at, failed_at, last_status, last_error
  from deliveries where webhook_id = ${webhookId} order by id desc limit ${limit}`

/** Newest first. */
export const listDeliveries = (webhookId: string, limit: number): Effect.Effect<ReadonlyArray<LoggedDelivery>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectLog(sql, webhookId, limit))).pipe(Effect.map((rows) => rows.map((row): LoggedDelivery => {
    const status = row.delivered_at !== null ? "delivered" : row.failed_at !== null ? "failed" : "pending"
    return {
      id: row.id, event: row.event, createdAt: row.created_at, attempts: row.attempts, status,
      nextAttemptAt: status === "pending" ? row.next_attempt_at : undefined,
      lastStatus: row.last_status ?? undefined, lastError: row.last_error ?? undefined, deliveredAt: row.delivered_at ?? undefined
    }
  })))
