/**
 * What the database needs done from time to time, by whichever node comes
 * first: partitions ahead of time, expired idempotency keys and answers, and
 * the folding of old batches into the books. Every step is safe to repeat and
 * to run on two nodes at once.
 */
import { limits } from "../config.ts"
import type { Sql } from "./Postgres.ts"

const dayMs = 86_400_000
const hourMs = 3_600_000

const iso = (ms: number): string => new Date(ms).toISOString()
const compact = (ms: number, digits: number): string => iso(ms).replace(/\D/g, "").slice(0, digits)

/** Duplicate table, or row of a catalog: another node makes it right now. Check violation: rows of its time are in the default partition. */
const bearable = new Set(["42P07", "23505", "23514"])

const createPartition = async (sql: Sql, table: string, name: string, fromMs: number, toMs: number): Promise<void> => {
  await sql.unsafe(`create table if not exists ${name} partition of ${table} for values from ('${iso(fromMs)}') to ('${iso(toMs)}')`).catch((cause: { readonly code?: string }) => {
    if (!bearable.has(cause.code ?? "")) throw cause
  })
}

/** Days of usage and hours of answers, today's and the next few. Where rows came before their partition it is never made: they and those that follow stay in the default one. */
const preparePartitions = async (sql: Sql, nowMs: number): Promise<void> => {
  const today = Math.floor(nowMs / dayMs) * dayMs
  for (let day = 0; day < 4; day++) {
    const from = today + day * dayMs
    await createPartition(sql, "usage", `usage_${compact(from, 8)}`, from, from + dayMs)
  }
  const hour = Math.floor(nowMs / hourMs) * hourMs
  for (let ahead = 0; ahead < 4; ahead++) {
    const from = hour + ahead * hourMs
    await createPartition(sql, "idempotency_answers", `idempotency_answers_${compact(from, 10)}`, from, from + hourMs)
  }
}

/** Answers go by whole hours, keys by row: they share their 24 hours. */
const forgetIdempotency = async (sql: Sql, nowMs: number): Promise<void> => {
  const tables = await sql<Array<{ name: string }>>`
    select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'idempotency_answers'::regclass and c.relname ~ '^idempotency_answers_[0-9]{10}$'`
  const newestOver = `idempotency_answers_${compact(nowMs - limits.idempotencyTtlMs - hourMs, 10)}`
  for (const { name } of tables) if (name <= newestOver) await sql.unsafe(`drop table if exists ${name}`)
  await sql`delete from idempotency_answers_default where created_at < ${iso(nowMs - limits.idempotencyTtlMs)}`
  await sql`delete from idempotency_keys where created_at < ${iso(nowMs - limits.idempotencyTtlMs)}`
}

/** One statement: a batch is counted in `batches` or in `books`, never in both or neither. */
const foldBatches = (sql: Sql, nowMs: number) => sql`
  with old as (
    delete from batches where created_at < ${iso(nowMs - hourMs)} returning fee, buyback, deposits, withdrawals
  ), sums as (
    select coalesce(sum(fee), 0) as fee, coalesce(sum(buyback), 0) as buyback, coalesce(sum(deposits), 0) as deposits, coalesce(sum(withdrawals), 0) as withdrawals from old
  )
  update books set amount = amount + case book when 'fee' then sums.fee when 'buyback' then sums.buyback when 'deposits' then sums.deposits else sums.withdrawals end
  from sums`

export const keepUp = async (sql: Sql, nowMs: number): Promise<void> => {
  await preparePartitions(sql, nowMs)
  await forgetIdempotency(sql, nowMs)
  await foldBatches(sql, nowMs)
}
