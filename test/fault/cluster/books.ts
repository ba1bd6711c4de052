/** The final books of some accounts, as plain rows. Read with SQL of its own: nothing here is the gateway's. */
import type { Sql } from "../../../src/store/Postgres.ts"

export interface MoneyRow {
  readonly id: string
  readonly account_id: string
  readonly type: string
  readonly available: bigint
  readonly reserved: bigint
  readonly earner_id: string | null
  readonly earned: bigint
  readonly agent_id: string | null
  readonly order_id: string | null
  readonly subject_id: string | null
}
export interface OrderRow {
  readonly id: string
  readonly account_id: string
  readonly status: string
  readonly prompt: string
  readonly message_id: string | null
  readonly amount: bigint
}
export interface AccountRow {
  readonly id: string
  readonly available: bigint
  readonly reserved: bigint
  readonly posted: bigint
}
export interface Books {
  readonly accounts: ReadonlyArray<AccountRow>
  readonly transactions: ReadonlyArray<MoneyRow>
  readonly orders: ReadonlyArray<OrderRow>
  /** What an idempotency key made: its transaction, or its order. */
  readonly named: ReadonlyArray<{ readonly account_id: string; readonly key: string; readonly result_id: string }>
  readonly budgets: ReadonlyArray<{ readonly key_id: string; readonly amount: bigint; readonly spent: bigint }>
}

export const readBooks = (sql: Sql, accountIds: ReadonlyArray<string>): Promise<Books> =>
  sql.begin("isolation level repeatable read read only", async (sql) => ({
    accounts: await sql<Array<AccountRow>>`
      select a.id, a.available, a.reserved, coalesce(e.posted, 0)::bigint as posted from accounts a left join earnings e on e.account_id = a.id where a.id = any(${accountIds}::uuid[])`,
    transactions: await sql<Array<MoneyRow>>`
      select id, account_id, type, available, reserved, earner_id, earned, agent_id, order_id, subject_id from transactions where account_id = any(${accountIds}::uuid[]) order by id`,
    orders: await sql<Array<OrderRow>>`select id, account_id, status, prompt, message_id, amount from orders where account_id = any(${accountIds}::uuid[])`,
    named: await sql<Array<{ account_id: string; key: string; result_id: string }>>`select account_id, key, result_id from idempotency_keys where account_id = any(${accountIds}::uuid[])`,
    budgets: await sql<Array<{ key_id: string; amount: bigint; spent: bigint }>>`
      select b.key_id, b.amount, b.spent from budgets b join api_keys k on k.id = b.key_id where k.account_id = any(${accountIds}::uuid[])`
  }))
