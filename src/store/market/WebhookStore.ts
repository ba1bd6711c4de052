/**
 * Webhooks: who wants to be told of what, and where.
 *
 * A change is one transaction with its audit row, and tells every node. Those
 * of one owner are added one after the other, so that the bound on their number
 * holds. One that was removed is gone for everybody; `Upkeep.ts` deletes its row
 * and its deliveries later, because they may be millions.
 */
import { Effect } from "effect"
import type { StoreUnavailable } from "../../domain/errors.ts"
import { type AccountId, isUuid } from "../../domain/ids.ts"
import type { WebhookEvent } from "../../domain/webhook.ts"
import { insertAudit } from "../AuditStore.ts"
import { notifyChange } from "../Changes.ts"
import type { AuditRow } from "../Commit.ts"
import { Postgres, type Sql, begin } from "../Postgres.ts"

export interface Webhook {
  readonly id: string
  /** By the name it goes by. */
  readonly owner: string
  readonly url: string
  readonly events: ReadonlyArray<WebhookEvent>
  readonly createdAt: Date
}
export interface NewWebhook {
  readonly id: string
  readonly url: string
  readonly events: ReadonlyArray<WebhookEvent>
  readonly sealedSecret: Uint8Array
  readonly createdAtMs: number
}
/** What an account is told of, and where. */
export interface SubscribedWebhook {
  readonly accountId: AccountId
  readonly id: string
  readonly url: string
  readonly events: ReadonlyArray<WebhookEvent>
}

const lockOwner = (sql: Sql, accountId: AccountId) => sql`select pg_advisory_xact_lock(hashtextextended(${`webhooks of ${accountId}`}, 0))`

/** A statement of its own behind the lock: it counts what the one before it has added. */
const insertBelow = (sql: Sql, accountId: AccountId, { id, url, events, sealedSecret, createdAtMs }: NewWebhook, max: number) => sql<Array<{ owner: string }>>`
  insert into webhooks (id, account_id, url, events, secret, created_at)
  select ${id}, ${accountId}, ${url}, ${events as Array<string>}::text[], ${sealedSecret as Buffer}::bytea, ${new Date(createdAtMs)}::timestamptz
  where (select count(*) from webhooks where account_id = ${accountId} and deleted_at is null) < ${max}
  returning (select name from parties where account_id = ${accountId}) as owner`

/** Answers the owner's name; `undefined` when it has `max` of them already. */
export const insertWebhook = (accountId: AccountId, webhook: NewWebhook, max: number, audit: AuditRow): Effect.Effect<string | undefined, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => begin(sql, async (tx) => {
    await lockOwner(tx, accountId)
    const [inserted] = await insertBelow(tx, accountId, webhook, max)
    if (inserted === undefined) return undefined
    await insertAudit(tx, accountId, audit)
    await notifyChange(tx, "webhooks", accountId)
    return inserted.owner
  })))

/** False when it is not there, or another owner's. */
export const removeWebhook = (accountId: AccountId, id: string, audit: AuditRow): Effect.Effect<boolean, StoreUnavailable, Postgres> =>
  !isUuid(id) ? Effect.succeed(false) : Postgres.use(({ run }) => run((sql) => begin(sql, async (tx) => {
    const removed = await tx`
      update webhooks set deleted_at = now() where id = ${id} and deleted_at is null and account_id = ${accountId} returning id`
    if (removed.length === 0) return false
    await insertAudit(tx, accountId, audit)
    await notifyChange(tx, "webhooks", accountId)
    return true
  })))

const selectOwned = (sql: Sql, accountId: AccountId) => sql<Array<{ id: string; owner: string; url: string; events: Array<WebhookEvent>; created_at: Date }>>`
  select w.id, p.name as owner, w.url, w.events, w.created_at from webhooks w join parties p on p.account_id = w.account_id
  where w.account_id = ${accountId} and w.deleted_at is null
  order by w.id desc`

/** Newest first. */
export const listWebhooks = (accountId: AccountId): Effect.Effect<ReadonlyArray<Webhook>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectOwned(sql, accountId))).pipe(
    Effect.map((rows) => rows.map(({ created_at, ...row }) => ({ ...row, createdAt: created_at }))))

const selectSubscribed = (sql: Sql, accountId: AccountId | undefined) => sql<Array<{ account_id: AccountId; id: string; url: string; events: Array<WebhookEvent> }>>`
  select account_id, id, url, events from webhooks
  where deleted_at is null ${accountId === undefined ? sql`` : sql`and account_id = ${accountId}`}
  order by id`

/** Of one account, or of all. */
export const findSubscribed = (accountId: AccountId | undefined): Effect.Effect<ReadonlyArray<SubscribedWebhook>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectSubscribed(sql, accountId))).pipe(
    Effect.map((rows) => rows.map(({ account_id, ...row }) => ({ ...row, accountId: account_id }))))
