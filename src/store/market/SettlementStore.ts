/**
 * Settlements as rows: marking what a provider is owed for a period, and
 * listing what was marked. Paying one goes through the provider's commit.
 *
 * Guarantee: a due is marked by at most one settlement, whatever creations run
 * at once on however many nodes. `open` locks the dues that it finds, in the
 * order of their ids, so that creations that overlap wait for each other and
 * never in a circle; who waited finds them marked, and leaves them out. The sums
 * are made from the very rows that are locked, in the same statement.
 */
import { Effect } from "effect"
import { StoreUnavailable } from "../../domain/errors.ts"
import { type AccountId, isUuid } from "../../domain/ids.ts"
import type { SettlementStatus } from "../../domain/settlement.ts"
import { insertAudit } from "../AuditStore.ts"
import type { AuditRow } from "../Commit.ts"
import { Postgres, type Sql, begin, verdictOf } from "../Postgres.ts"

export interface Settlement {
  readonly id: string
  readonly provider: string
  /** Who is paid: of an account that was merged, the one that it became. `undefined`: nobody has the name. */
  readonly accountId: AccountId | undefined
  readonly periodStart: Date
  readonly periodEnd: Date
  readonly total: bigint
  readonly fee: bigint
  /** The part of the net amount that the provider has in credits already. */
  readonly credited: bigint
  readonly calls: bigint
  readonly status: SettlementStatus
  readonly paymentTx: string | undefined
}

export interface NewSettlement {
  readonly id: string
  readonly provider: string
  readonly accountId: AccountId | undefined
  readonly startMs: number
  readonly endMs: number
  readonly atMs: number
}

interface Row {
  id: string; provider: string; account_id: AccountId | null; period_start: Date; period_end: Date; total: bigint; fee: bigint; credited: bigint; calls: bigint
  status: SettlementStatus; payment_tx: string | null
}

const settlementOf = (row: Row): Settlement => ({
  id: row.id, provider: row.provider, accountId: row.account_id ?? undefined, periodStart: row.period_start, periodEnd: row.period_end,
  total: row.total, fee: row.fee, credited: row.credited, calls: row.calls, status: row.status, paymentTx: row.payment_tx ?? undefined
})

/** A settlement of some millions of calls, and the wait for others that overlap. */
const settleMs = 120_000
const settleMarginMs = 10_000

const insertSettlement = (sql: Sql, { id, provider, accountId, startMs, endMs, atMs }: NewSettlement, auditAccountId: AccountId, audit: AuditRow) => sql<Array<Row>>`
  with open as materialized (
    select d.usage_id, d.amount, d.fee, d.recorded from dues d join agents a on a.id = d.agent_id
    where a.owner_id = (select coalesce(merged_into, id) from accounts where id = ${accountId ?? null}::uuid) and d.settlement_id is null and d.called_at >= ${new Date(startMs)} and d.called_at < ${new Date(endMs)}
    order by d.usage_id for update of d
  ), marked as (
    update dues d set settlement_id = ${id} from open where d.usage_id = open.usage_id
  ), audited as (${insertAudit(sql, auditAccountId, audit)})
  insert into settlements (id, provider, account_id, period_start, period_end, total, fee, credited, calls, created_at)
  select ${id}::uuid, ${provider}, ${accountId ?? null}::uuid, ${new Date(startMs)}::timestamptz, ${new Date(endMs)}::timestamptz,
         coalesce(sum(amount), 0), coalesce(sum(fee), 0), coalesce(sum(amount - fee) filter (where not recorded), 0), count(*), ${new Date(atMs)}::timestamptz
  from open
  returning *`

const columns = (sql: Sql) => sql`
  s.id, s.provider, coalesce(a.merged_into, s.account_id) as account_id, s.period_start, s.period_end, s.total, s.fee, s.credited, s.calls, s.status, s.payment_tx`

const selectById = (sql: Sql, id: string) => sql<Array<Row>>`
  select ${columns(sql)} from settlements s left join accounts a on a.id = s.account_id where s.id = ${id}`

export interface SettlementQuery {
  /** Of this account alone, also from before it was merged. */
  readonly accountId: AccountId | undefined
  readonly provider: string | undefined
  readonly status: SettlementStatus | undefined
  readonly limit: number
}

const selectPage = (sql: Sql, { accountId, provider, status, limit }: SettlementQuery) => sql<Array<Row>>`
  select ${columns(sql)} from settlements s left join accounts a on a.id = s.account_id
  where true
    ${accountId === undefined ? sql`` : sql`and s.account_id in (select account_id from parties where party_id = ${accountId})`}
    ${provider === undefined ? sql`` : sql`and s.provider = ${provider}`}
    ${status === undefined ? sql`` : sql`and s.status = ${status}`}
  order by s.id desc limit ${limit}`

const isTaken = (error: unknown): boolean => (error as { readonly constraint_name?: string }).constraint_name === "settlements_period_once"

/**
 * Durable when answered. `undefined`, and nothing was done: the provider has a settlement of this very period. The audit row goes to the given account.
 * Costs some 30 µs a call, so it may take longer than a page's statements.
 */
export const createSettlement = (wanted: NewSettlement, auditAccountId: AccountId, audit: AuditRow): Effect.Effect<Settlement | undefined, StoreUnavailable, Postgres> => {
  const unavailable = new StoreUnavailable({ retryAfterMs: 1_000 })
  return Postgres.use(({ reads, heedReads }) => Effect.tryPromise({
    try: () => begin(reads, async (sql) => {
      await sql`select set_config('statement_timeout', ${String(settleMs)}, true)`
      return insertSettlement(sql, wanted, auditAccountId, audit)
    }),
    catch: (error) => {
      heedReads(error)
      return error
    }
  })).pipe(
    Effect.map(([row]): Settlement | undefined => settlementOf(row!)),
    Effect.catch((error) => isTaken(error) ? Effect.succeed(undefined) : verdictOf(error) === "aborted" ? Effect.die(error) : Effect.fail(unavailable)),
    // The server is gone without a word.
    Effect.timeoutOrElse({ duration: settleMs + settleMarginMs, orElse: () => Effect.fail(unavailable) })
  )
}

export const findSettlement = (id: string): Effect.Effect<Settlement | undefined, StoreUnavailable, Postgres> =>
  !isUuid(id) ? Effect.succeed(undefined)
    : Postgres.use(({ run }) => run((sql) => selectById(sql, id))).pipe(Effect.map(([row]) => row === undefined ? undefined : settlementOf(row)))

/** Newest first. */
export const listSettlements = (query: SettlementQuery): Effect.Effect<ReadonlyArray<Settlement>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectPage(sql, query))).pipe(Effect.map((rows) => rows.map(settlementOf)))
