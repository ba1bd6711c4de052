/** Reading orders. Writes go through the Committer. */
import { Effect } from "effect"
import type { Credits } from "../domain/credits.ts"
import type { StoreUnavailable } from "../domain/errors.ts"
import { type AccountId, type AgentId, type OrderId, isUuid } from "../domain/ids.ts"
import { Postgres, type Sql } from "./Postgres.ts"

export type OrderStatus = "pending" | "completed" | "failed"

export interface StoredOrder {
  readonly id: OrderId
  readonly agentId: AgentId
  readonly status: OrderStatus
  readonly prompt: string
  readonly paymentMethod: string
  readonly amount: Credits
  readonly fee: Credits
  readonly outputHash: string | undefined
  readonly outputText: string | undefined
  readonly error: string | undefined
  readonly createdAt: Date
  readonly completedAt: Date | undefined
}

interface Row {
  id: OrderId; agent_id: AgentId; status: OrderStatus; prompt: string; payment_method: string; amount: bigint; fee: bigint
  output_hash: string | null; output_text: string | null; error: string | null; created_at: Date; completed_at: Date | null
}

const columns = (sql: Sql) => sql`id, agent_id, status, prompt, payment_method, amount, fee, output_hash, output_text, error, created_at, completed_at`

const selectOrder = (sql: Sql, accountId: AccountId, id: string) => sql<Array<Row>>`
  select ${columns(sql)} from orders where id = ${id} and account_id = ${accountId}`

const selectOrders = (sql: Sql, accountId: AccountId, status: OrderStatus | undefined, limit: number, after: string | undefined) => sql<Array<Row>>`
  select ${columns(sql)} from orders
  where account_id = ${accountId} ${status === undefined ? sql`` : sql`and status = ${status}`} ${after === undefined ? sql`` : sql`and id < ${after}`}
  order by id desc limit ${limit}`

const orderOf = (row: Row): StoredOrder => ({
  id: row.id, agentId: row.agent_id, status: row.status, prompt: row.prompt, paymentMethod: row.payment_method, amount: row.amount, fee: row.fee,
  outputHash: row.output_hash ?? undefined, outputText: row.output_text ?? undefined, error: row.error ?? undefined,
  createdAt: row.created_at, completedAt: row.completed_at ?? undefined
})

/** `undefined` when it doesn't exist or is another account's. */
export const findOrder = (accountId: AccountId, id: string): Effect.Effect<StoredOrder | undefined, StoreUnavailable, Postgres> =>
  isUuid(id)
    ? Postgres.use(({ run }) => run((sql) => selectOrder(sql, accountId, id))).pipe(Effect.map(([row]) => row === undefined ? undefined : orderOf(row)))
    : Effect.void as Effect.Effect<undefined>

/** Newest first. */
export const listOrders = (accountId: AccountId, status: OrderStatus | undefined, limit: number, after: string | undefined): Effect.Effect<ReadonlyArray<StoredOrder>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectOrders(sql, accountId, status, limit, after))).pipe(Effect.map((rows) => rows.map(orderOf)))
