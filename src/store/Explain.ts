/**
 * Everything that is stored about one transaction: who paid, who earned, the
 * call or order behind it, the agent's terms, what else was written with it.
 * What an operator needs to explain a bill, and what a replay of the decision
 * starts from (`scripts/explain/`).
 *
 * Guarantee: all of it is of one moment, and nothing is changed: one REPEATABLE
 * READ, READ ONLY transaction, safe beside a gateway under load. Every query
 * uses an index; the longest reads `predecessorsMax` rows. No secret is read,
 * nor what was asked and answered.
 */
import type { SubjectId, Transaction, TransactionType } from "../domain/account.ts"
import type { Agent } from "../domain/agent.ts"
import type { Credits } from "../domain/credits.ts"
import { type AccountId, type AgentId, type OrderId, type SessionId, type TransactionId, isUuid } from "../domain/ids.ts"
import type { Sql } from "./Postgres.ts"

export interface Booked extends Transaction {
  readonly accountId: AccountId
  readonly batchId: string
  readonly balanceAfter: Credits
}
export interface Party {
  readonly accountId: AccountId
  readonly emails: string
  readonly status: string
  /** The account that it became, by a link. */
  readonly mergedInto: AccountId | null
}
export interface Payer {
  readonly kind: "key" | "login"
  readonly id: SubjectId
  /** A key's name and prefix, or a person's email. */
  readonly name: string
  readonly status: string
  readonly budgets: ReadonlyArray<{ readonly window: string; readonly amount: Credits; readonly spent: Credits; readonly since: Date }>
}
export type Terms = Pick<Agent, "id" | "ownerId" | "dialect" | "ticker" | "name" | "price" | "status" | "suspended" | "createdAtMs" | "providerSinceMs">
/** `price` is undefined where it was changed and not recorded. */
export interface Price { readonly at: Date; readonly price: Credits | undefined }
/** Of a chat turn. Without a row of its session there is neither account nor agent nor time. */
export interface TurnOf {
  readonly id: SessionId; readonly messageIndex: number; readonly accountId: AccountId | undefined; readonly agentId: AgentId | undefined; readonly startedAt: Date | undefined
}
export interface StoredOrder {
  readonly id: OrderId; readonly accountId: AccountId; readonly subjectId: SubjectId; readonly agentId: AgentId; readonly status: string; readonly paymentMethod: string
  readonly amount: Credits; readonly fee: Credits; readonly error: string | undefined; readonly createdAt: Date; readonly completedAt: Date | undefined
  readonly session: TurnOf | undefined
  readonly transactions: ReadonlyArray<{ readonly id: TransactionId; readonly type: TransactionType }>
}
export interface StoredUsage {
  readonly call: string; readonly subjectId: SubjectId; readonly agentId: AgentId; readonly status: number; readonly cost: Credits; readonly latencyMs: number; readonly at: Date
}
export interface StoredAudit { readonly id: string; readonly actor: string; readonly action: string; readonly target: string; readonly details: Readonly<Record<string, unknown>>; readonly at: Date }

export interface Evidence {
  readonly transaction: Booked
  /** Of younger transactions, until it is folded into the books. */
  readonly batchIsKept: boolean
  readonly account: Party | undefined
  readonly earner: Party | undefined
  readonly payer: Payer | undefined
  readonly agent: Terms | undefined
  /** Of the agent, from its listing on. */
  readonly prices: ReadonlyArray<Price>
  readonly order: StoredOrder | undefined
  /** More than one is wrong. */
  readonly usage: ReadonlyArray<StoredUsage>
  /** The rows of single calls are kept from then on; `undefined`: none was dropped. */
  readonly usageSince: Date | undefined
  readonly idempotency: ReadonlyArray<{ readonly key: string; readonly resultId: string; readonly at: Date }>
  /** Written in the same commit. */
  readonly audit: ReadonlyArray<StoredAudit>
  /** A transaction of the account that left the balance that this one began with. */
  readonly predecessor: TransactionId | undefined
  /** All earlier ones were looked at, and no other node spent from a lease at that time: then the balances told are a moment old. */
  readonly predecessorsAreAll: boolean
}

/** Rows are looked through for the one before; an account that has paid more often in the time that a hold may last can't be told. */
const predecessorsMax = 2_000

interface TransactionRow {
  id: TransactionId; batch_id: string; account_id: AccountId; type: TransactionType; available: bigint; reserved: bigint; earner_id: AccountId | null; earned: bigint
  fee: bigint; buyback: bigint; deposits: bigint; withdrawals: bigint; balance_after: bigint; agent_id: AgentId | null; order_id: OrderId | null
  subject_id: SubjectId | null; reference: string | null; created_at: Date; lease_id: string | null
}

const selectTransactions = (sql: Sql, id: string) => sql<Array<TransactionRow>>`
  select * from transactions where id = ${id} union select * from transactions where order_id = ${id} order by created_at, id`

const selectParty = (sql: Sql, id: AccountId) => sql<Array<Party>>`
  select a.id as "accountId", a.status, a.merged_into as "mergedInto", coalesce(string_agg(u.email, ', ' order by u.email), 'nobody') as emails
  from accounts a left join users u on u.account_id = a.id where a.id = ${id} group by a.id`

const selectPayer = (sql: Sql, id: SubjectId) => sql<Array<Omit<Payer, "budgets">>>`
  select 'key' as kind, id, '"' || name || '" (' || key_prefix || '…)' as name, status from api_keys where id = ${id}
  union all select 'login', id, email, 'active' from users where id = ${id}`

const selectBudgets = (sql: Sql, id: SubjectId) => sql<Array<Payer["budgets"][number]>>`
  select budget_window as window, amount, spent, period_start as since from budgets where key_id = ${id} order by 1`

const selectAgent = (sql: Sql, id: AgentId) => sql<Array<Terms>>`
  select id, owner_id as "ownerId", dialect, ticker, name, price, status, suspended, extract(epoch from created_at)::float8 * 1000 as "createdAtMs",
    extract(epoch from provider_since)::float8 * 1000 as "providerSinceMs" from agents where id = ${id}`

const selectPrices = (sql: Sql, { id, ownerId }: Terms) => sql<Array<{ at: Date; price: string | null }>>`
  select created_at as at, details ->> 'price' as price from audit_log
  where account_id = ${ownerId} and target = ${id} and (action = 'agent.create' or action = 'agent.update' and details -> 'fields' ? 'price')
  order by created_at, id`

const selectOrder = (sql: Sql, id: OrderId) => sql<Array<Omit<StoredOrder, "transactions" | "session">>>`
  select id, account_id as "accountId", subject_id as "subjectId", agent_id as "agentId", status, payment_method as "paymentMethod", amount, fee, error,
         created_at as "createdAt", completed_at as "completedAt"
  from orders where id = ${id}`

const selectSessionOf = (sql: Sql, id: OrderId) => sql<Array<{ id: SessionId; message_index: number; account_id: AccountId | null; agent_id: AgentId | null; started_at: Date | null }>>`
  select o.session_id as id, o.message_index, s.account_id, s.agent_id, s.started_at
  from orders o left join sessions s on s.id = o.session_id where o.id = ${id} and o.session_id is not null`

const selectOrderTransactions = (sql: Sql, id: OrderId) => sql<Array<{ id: TransactionId; type: TransactionType }>>`
  select id, type from transactions where order_id = ${id} order by created_at, id`

/** A call's two rows are dated one after the other, by one clock. */
const selectUsage = (sql: Sql, { id, account_id, created_at }: TransactionRow) => sql<Array<StoredUsage>>`
  select call, subject_id as "subjectId", agent_id as "agentId", status, cost, latency_ms as "latencyMs", created_at as at from usage
  where account_id = ${account_id} and id = ${id} and created_at between ${created_at}::timestamptz - interval '10 minutes' and ${created_at}::timestamptz + interval '10 minutes'`

/** Of one that was dropped since this moment began there is a row, but no bound. */
const selectUsageSince = (sql: Sql) => sql<Array<{ since: string | null }>>`
  select min(right(c.relname, 8)) as since from pg_inherits i join pg_class c on c.oid = i.inhrelid
  where i.inhparent = 'usage'::regclass and c.relname ~ '^usage_[0-9]{8}$' and pg_get_expr(c.relpartbound, c.oid) is not null`

const selectAudit = (sql: Sql, { id, account_id, created_at }: TransactionRow) => sql<Array<StoredAudit>>`
  select id, actor, action, target, details, created_at as at from audit_log
  where account_id = ${account_id} and (created_at = ${created_at} or details ->> 'transaction_id' = ${id}) order by id`

const selectIdempotency = (sql: Sql, accountId: AccountId, results: ReadonlyArray<string>) => sql<Array<Evidence["idempotency"][number]>>`
  select key, result_id as "resultId", created_at as at from idempotency_keys where account_id = ${accountId} and result_id = any(${results as Array<string>}::text[])`

/** The last id that could be made in that millisecond (RFC 9562 §5.7). */
const lastIdAt = (ms: number): string => {
  const hex = ms.toString(16).padStart(12, "0")
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7fff-bfff-ffffffffffff`
}

/** A minute of grace for the other clocks that write transactions; what is dated before is taken first. */
const selectBefore = (sql: Sql, row: TransactionRow) => sql<Array<{ predecessor: TransactionId | null; count: number; shared: boolean }>>`
  select (array_agg(id order by created_at <= ${row.created_at} desc, created_at desc, id desc) filter (where balance_after = ${row.balance_after - row.available}::bigint))[1] as predecessor,
         count(*)::int as count,
         coalesce(max(created_at) filter (where lease_id is not null) > max(created_at) filter (where created_at <= ${row.created_at}) - interval '1 minute', false) as shared
  from (
    select id, balance_after, created_at, lease_id from transactions
    where account_id = ${row.account_id} and id <> ${row.id} and id < ${lastIdAt(row.created_at.getTime() + 60_000)}
    order by id desc limit ${predecessorsMax}
  ) before`

const bookedOf = (row: TransactionRow): Booked => ({
  id: row.id, type: row.type, accountId: row.account_id, batchId: row.batch_id, available: row.available, reserved: row.reserved, earnerId: row.earner_id ?? undefined,
  earned: row.earned, fee: row.fee, buyback: row.buyback, deposits: row.deposits, withdrawals: row.withdrawals, balanceAfter: row.balance_after,
  agentId: row.agent_id ?? undefined, orderId: row.order_id ?? undefined, subjectId: row.subject_id ?? undefined, reference: row.reference ?? undefined,
  atMs: row.created_at.getTime()
})

const readSessionOf = async (sql: Sql, id: OrderId): Promise<TurnOf | undefined> => {
  const [row] = await selectSessionOf(sql, id)
  return row && {
    id: row.id, messageIndex: row.message_index, accountId: row.account_id ?? undefined, agentId: row.agent_id ?? undefined, startedAt: row.started_at ?? undefined
  }
}

const readOrder = async (sql: Sql, id: OrderId): Promise<StoredOrder | undefined> => {
  const [order] = await selectOrder(sql, id)
  return order && {
    ...order, error: order.error ?? undefined, completedAt: order.completedAt ?? undefined,
    session: await readSessionOf(sql, id), transactions: await selectOrderTransactions(sql, id)
  }
}

const readPayer = async (sql: Sql, id: SubjectId): Promise<Payer | undefined> => {
  const [payer] = await selectPayer(sql, id)
  return payer && { ...payer, budgets: await selectBudgets(sql, id) }
}

const evidenceOf = async (sql: Sql, row: TransactionRow): Promise<Evidence> => {
  const transaction = bookedOf(row)
  const [batch] = await sql`select from batches where id = ${row.batch_id}`
  const [account] = await selectParty(sql, row.account_id)
  const [earner] = row.earner_id === null ? [] : await selectParty(sql, row.earner_id)
  const [agent] = row.agent_id === null ? [] : await selectAgent(sql, row.agent_id)
  const [since] = await selectUsageSince(sql)
  const [before] = await selectBefore(sql, row)
  const audit = await selectAudit(sql, row)
  return {
    transaction,
    batchIsKept: batch !== undefined,
    account,
    earner,
    payer: row.subject_id === null ? undefined : await readPayer(sql, row.subject_id),
    agent,
    prices: agent === undefined ? [] : (await selectPrices(sql, agent)).map(({ at, price }) => ({ at, price: price === null ? undefined : BigInt(price) })),
    order: row.order_id === null ? undefined : await readOrder(sql, row.order_id),
    usage: await selectUsage(sql, row),
    usageSince: since?.since == null ? undefined : new Date(since.since.replace(/(....)(..)(..)/, "$1-$2-$3")),
    idempotency: await selectIdempotency(sql, row.account_id, [row.id, ...(row.order_id === null ? [] : [row.order_id]), ...audit.map(({ target }) => target)]),
    audit,
    predecessor: before!.predecessor ?? undefined,
    predecessorsAreAll: before!.count < predecessorsMax && row.lease_id === null && !before!.shared
  }
}

/** By the id of a transaction, or of an order: then all of its transactions, in their order. Empty when there is none. */
export const readEvidence = async (sql: Sql, id: string): Promise<ReadonlyArray<Evidence>> => {
  if (!isUuid(id)) return []
  return sql.begin("isolation level repeatable read read only", async (transaction) => {
    const read = transaction as unknown as Sql
    const found: Array<Evidence> = []
    for (const row of await selectTransactions(read, id)) found.push(await evidenceOf(read, row))
    return found
  }) as Promise<ReadonlyArray<Evidence>>
}
