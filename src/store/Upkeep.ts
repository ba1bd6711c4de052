/**
 * What the database needs done from time to time, by whichever node comes
 * first: partitions ahead of time, what is past its time removed, old batches
 * folded into the books. Every step is safe to repeat and to run on two nodes
 * at once.
 *
 * Usage is kept for whole UTC days and goes by whole partitions, oldest first:
 * what is left has no hole, so its roll-ups can be proved from its oldest day
 * on. Of a chat that is over, what was asked and answered is erased; its turns
 * stay with their times, amounts and hashes. Deliveries to webhooks go 7 days
 * after they are over, or with their webhook. No roll-up, transaction or order
 * is ever removed. With settings that differ between nodes the shortest wins.
 *
 * Guarantee. No caller waits for it: a partition is made or dropped only when
 * its lock comes within `lockTimeoutMs` (whatever came behind the request waits
 * as long), else at the next turn; rows go at most `rowsMax` a statement. What
 * is removed is past its time by this node's clock and by the database's, so
 * one clock that runs ahead removes nothing.
 */
import { limits } from "../config.ts"
import { log } from "../telemetry/log.ts"
import type { Sql } from "./Postgres.ts"

const dayMs = 86_400_000
const hourMs = 3_600_000

/** Inserts queue behind a partition's lock request. A read of some minutes (the audit, a backup) must not stop them that long. */
const lockTimeoutMs = 100
/** Half a second at the worst, of the five that a statement may take. */
const rowsMax = 10_000
/** A turn may have a megabyte of text, which lies in hundreds of pieces: a second and a half at the worst. */
const turnsMax = 100
const lateCancelsKeptMs = 2 * dayMs
const lettersKeptMs = 30 * dayMs
const chatNodesKeptMs = dayMs
const deliveriesKeptMs = 7 * dayMs
/** No commit that still saw it runs any more. */
const deletedWebhooksKeptMs = hourMs

const iso = (ms: number): string => new Date(ms).toISOString()
const compact = (ms: number, digits: number): string => iso(ms).replace(/\D/g, "").slice(0, digits)

interface Partitioned {
  readonly table: "usage" | "idempotency_answers"
  readonly spanMs: number
  /** Of the time in a partition's name. */
  readonly digits: number
}
const usage: Partitioned = { table: "usage", spanMs: dayMs, digits: 8 }
const answers: Partitioned = { table: "idempotency_answers", spanMs: hourMs, digits: 10 }

const nameOf = ({ table, digits }: Partitioned, ms: number): string => `${table}_${compact(ms, digits)}`

const lockNotAvailable = "55P03"
/** Rows of its time are in the default partition. */
const checkViolation = "23514"

/** Any constant will do; every node must use the same. Two that drop one partition at once are more than the server can bear. */
const lockKey = 8_202_612

/** One transaction. Answers the code of a failure that may be borne. */
const define = (sql: Sql, statement: string): Promise<string | undefined> =>
  sql.unsafe(`set local lock_timeout = ${lockTimeoutMs}; select pg_advisory_xact_lock(${lockKey}); ${statement}`).then(() => undefined, (cause: { readonly code?: string }) => {
    if (cause.code !== lockNotAvailable && cause.code !== checkViolation) throw cause
    return cause.code
  })

/** Days of usage and hours of answers, today's and the next few. Where rows came before their partition it is never made: they and those that follow stay in the default one. */
const preparePartitions = async (sql: Sql, nowMs: number): Promise<void> => {
  for (const kind of [usage, answers]) {
    const current = Math.floor(nowMs / kind.spanMs) * kind.spanMs
    for (let ahead = 0; ahead < 4; ahead++) {
      const fromMs = current + ahead * kind.spanMs
      await define(sql, `create table if not exists ${nameOf(kind, fromMs)} partition of ${kind.table} for values from ('${iso(fromMs)}') to ('${iso(fromMs + kind.spanMs)}')`)
    }
  }
}

const selectPartitions = (sql: Sql, { table, digits }: Partitioned) => sql<Array<{ name: string }>>`
  select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
  where i.inhparent = ${table}::regclass and c.relname ~ ${`^${table}_[0-9]{${digits}}$`} order by 1`

/** `clear`: no partition is left that ends before. */
type Dropped = "clear" | "more" | "later"

/** Drops the oldest partition that ends before. One that can't be had now keeps the younger ones. */
const dropOldest = async (sql: Sql, kind: Partitioned, beforeMs: number): Promise<Dropped> => {
  const newestOver = nameOf(kind, beforeMs - kind.spanMs)
  const [oldest, ...others] = (await selectPartitions(sql, kind)).filter(({ name }) => name <= newestOver)
  if (oldest === undefined) return "clear"
  const failure = await define(sql, `drop table if exists ${oldest.name}`)
  if (failure === undefined) return others.length > 0 ? "more" : "clear"
  log.warn({ partition: oldest.name, code: failure }, "partition is in use, will be dropped later")
  return "later"
}

/** Answers whether there may be more. Rows that another node removes right now are left to it. */
const deleteBefore = async (sql: Sql, table: string, beforeMs: number, dated = "created_at"): Promise<boolean> => {
  const { count } = await sql.unsafe(`
    delete from ${table} where ctid = any (array(
      select ctid from ${table} where ${dated} < '${iso(beforeMs)}' limit ${rowsMax} for update skip locked))`)
  return count === rowsMax
}

/** Answers go by whole hours, keys by row: they share their 24 hours. */
const forgetIdempotency = async (sql: Sql, nowMs: number): Promise<boolean> => {
  const beforeMs = nowMs - limits.idempotencyTtlMs
  const dropped = await dropOldest(sql, answers, beforeMs)
  const moreAnswers = await deleteBefore(sql, "idempotency_answers_default", beforeMs)
  const moreKeys = await deleteBefore(sql, "idempotency_keys", beforeMs)
  return dropped === "more" || moreAnswers || moreKeys
}

/** Today and that many whole days before it stay. Rows that came without a partition go after all partitions of their time. */
const forgetUsage = async (sql: Sql, nowMs: number, retentionDays: number): Promise<boolean> => {
  const beforeMs = (Math.floor(nowMs / dayMs) - retentionDays) * dayMs
  const dropped = await dropOldest(sql, usage, beforeMs)
  return dropped === "clear" ? deleteBefore(sql, "usage_default", beforeMs) : dropped === "more"
}

const forgetChat = async (sql: Sql, nowMs: number): Promise<boolean> => {
  const moreCancels = await deleteBefore(sql, "late_cancels", nowMs - lateCancelsKeptMs, "day")
  const moreLetters = await deleteBefore(sql, "letters", nowMs - lettersKeptMs, "coalesce(sent_at, failed_at)")
  const moreNodes = await deleteBefore(sql, "chat_nodes", nowMs - chatNodesKeptMs, "seen_at")
  return moreCancels || moreLetters || moreNodes
}

/** Deliveries that are over, and the webhooks that were removed: each goes when none of its deliveries is left. */
const forgetDeliveries = async (sql: Sql, nowMs: number): Promise<boolean> => {
  const moreOver = await deleteBefore(sql, "deliveries", nowMs - deliveriesKeptMs, "coalesce(delivered_at, failed_at)")
  const gone = sql`select id from webhooks where deleted_at < ${iso(nowMs - deletedWebhooksKeptMs)}`
  const { count } = await sql`
    delete from deliveries where id = any (array(
      select d.id from (${gone} limit 100) w cross join lateral (select id from deliveries where webhook_id = w.id limit ${rowsMax}) d
      limit ${rowsMax}))`
  await sql`delete from webhooks w where id in (${gone}) and not exists (select from deliveries where webhook_id = w.id)`
  return moreOver || count === rowsMax
}

/** A session counts as erased once none of its turns has a text; a long one takes several statements. Sub-selects with a limit are looked up session by session, whatever the planner believes. */
const eraseChat = async (sql: Sql, beforeMs: number): Promise<boolean> => {
  const [erased] = await sql<Array<{ sessions: number; turns: number }>>`
    with due as (
      select id from sessions where closed_at < ${iso(beforeMs)} and erased_at is null order by closed_at limit ${turnsMax} for update skip locked
    ), turns as (
      update orders set prompt = '', output_text = '' where id = any (array(
        select o.id from due cross join lateral (
          select id from orders where session_id = due.id and (prompt <> '' or output_text <> '') limit ${turnsMax}) o
        limit ${turnsMax}))
      returning id
    ), done as (
      update sessions s set erased_at = now() from due
      where s.id = due.id and (
        select id from orders where session_id = due.id and (prompt <> '' or output_text <> '') and id not in (select id from turns) limit 1) is null
      returning s.id
    )
    select (select count(*) from done)::int as sessions, (select count(*) from turns)::int as turns`
  return erased!.sessions === turnsMax || erased!.turns === turnsMax
}

/** One statement: a batch is counted in `batches` or in `books`, never in both or neither. */
const foldBatches = async (sql: Sql, nowMs: number): Promise<boolean> => {
  const [folded] = await sql<Array<{ count: number }>>`
    with old as (
      delete from batches where ctid = any (array(
        select ctid from batches where created_at < ${iso(nowMs - hourMs)} limit ${rowsMax} for update skip locked))
      returning fee, buyback, deposits, withdrawals
    ), sums as (
      select count(*)::int as count, coalesce(sum(fee), 0) as fee, coalesce(sum(buyback), 0) as buyback, coalesce(sum(deposits), 0) as deposits, coalesce(sum(withdrawals), 0) as withdrawals from old
    ), booked as (
      update books set amount = amount + case book when 'fee' then sums.fee when 'buyback' then sums.buyback when 'deposits' then sums.deposits else sums.withdrawals end
      from sums where sums.count > 0
    )
    select count from sums`
  return folded!.count === rowsMax
}

const selectNow = (sql: Sql) => sql<Array<{ now: Date }>>`select now() as now`

export interface Retention {
  readonly usageRetentionDays: number
  readonly chatRetentionDays: number
}

/**
 * One bounded turn; answers whether a backlog is left that another turn at once
 * would shorten. Without a retention usage and chats are left alone.
 */
export const keepUp = async (sql: Sql, nowMs: number, retention?: Retention): Promise<boolean> => {
  await preparePartitions(sql, nowMs)
  const [database] = await selectNow(sql)
  const surelyMs = Math.min(nowMs, database!.now.getTime())
  const moreKeys = await forgetIdempotency(sql, surelyMs)
  const moreUsage = retention !== undefined && await forgetUsage(sql, surelyMs, retention.usageRetentionDays)
  const moreTexts = retention !== undefined && await eraseChat(sql, surelyMs - retention.chatRetentionDays * dayMs)
  const moreChat = await forgetChat(sql, surelyMs)
  const moreDeliveries = await forgetDeliveries(sql, surelyMs)
  const moreBatches = await foldBatches(sql, surelyMs)
  return moreKeys || moreDeliveries || moreUsage || moreTexts || moreChat || moreBatches
}
