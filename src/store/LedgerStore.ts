/** Reading the ledger: an account's transactions, its posted earnings, and whether the books balance. */
import { Effect } from "effect"
import type { TransactionType } from "../domain/account.ts"
import type { StoreUnavailable } from "../domain/errors.ts"
import type { AccountId, OrderId, SessionId, TransactionId } from "../domain/ids.ts"
import { Postgres, type Sql } from "./Postgres.ts"

export interface ListedTransaction {
  readonly id: TransactionId
  readonly type: TransactionType
  readonly amount: bigint
  readonly balanceAfter: bigint
  readonly ticker: string | undefined
  readonly orderId: OrderId | undefined
  /** Of the chat turn that it charges. */
  readonly sessionId: SessionId | undefined
  readonly reference: string | undefined
  readonly createdAt: Date
}

const selectTransactions = (sql: Sql, accountId: AccountId, limit: number, after: string | undefined) => sql<Array<{
  id: TransactionId; type: TransactionType; available: bigint; balance_after: bigint; ticker: string | null; order_id: OrderId | null; session_id: SessionId | null; reference: string | null; created_at: Date
}>>`
  select t.id, t.type, t.available, t.balance_after, a.ticker, t.order_id, o.session_id, t.reference, t.created_at
  from transactions t left join agents a on a.id = t.agent_id left join orders o on o.id = t.order_id
  where t.account_id = ${accountId} and t.available <> 0 ${after === undefined ? sql`` : sql`and t.id < ${after}`}
  order by t.id desc limit ${limit}`

const selectEarnings = (sql: Sql, accountId: AccountId) => sql<Array<{ account_id: AccountId; posted: bigint }>>`
  select account_id, posted from earnings
  where account_id in (select id from accounts where id = ${accountId} or merged_into = ${accountId}) and posted > 0 order by account_id`

/** Accounts, leases, earnings and system sides at one instant: what they sum to is what was lost or invented. */
const selectImbalance = (sql: Sql) => sql<Array<{ imbalance: bigint }>>`
  select ((select coalesce(sum(available + reserved), 0) from accounts)
        + (select coalesce(sum(amount - spent), 0) from leases)
        + (select coalesce(sum(posted), 0) from earnings)
        + (select coalesce(sum(fee + buyback + deposits + withdrawals), 0) from batches)
        + (select coalesce(sum(amount), 0) from books))::bigint as imbalance`

/** Movements of the spendable balance, newest first. */
export const listTransactions = (accountId: AccountId, limit: number, after: string | undefined): Effect.Effect<ReadonlyArray<ListedTransaction>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectTransactions(sql, accountId, limit, after))).pipe(
    Effect.map((rows) => rows.map((row): ListedTransaction => ({
      id: row.id, type: row.type, amount: row.available, balanceAfter: row.balance_after, ticker: row.ticker ?? undefined,
      orderId: row.order_id ?? undefined, sessionId: row.session_id ?? undefined, reference: row.reference ?? undefined, createdAt: row.created_at
    })))
  )

/** What the account may sweep: its own posted earnings, and those of accounts that were merged into it. */
export const postedEarnings = (accountId: AccountId): Effect.Effect<ReadonlyArray<{ readonly earnerId: AccountId; readonly amount: bigint }>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectEarnings(sql, accountId))).pipe(Effect.map((rows) => rows.map(({ account_id, posted }) => ({ earnerId: account_id, amount: posted }))))

/** Zero, or the books don't balance. */
export const imbalance: Effect.Effect<bigint, StoreUnavailable, Postgres> =
  Postgres.use(({ run }) => run(selectImbalance)).pipe(Effect.map(([row]) => row!.imbalance))
