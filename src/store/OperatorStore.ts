/**
 * What an operator does to accounts and agents, from a process of its own.
 *
 * Guarantee. Each function is one transaction: the row, the movement of money
 * with its batch, the audit row, and the news to the gateways that run. It is
 * durable when the promise resolves, and done entirely or not at all.
 *
 * The account's token is raised with the change, so that nothing is committed
 * on top of what an activation knew before it, and what other nodes have of the
 * account is closed: a call in flight whose charge comes too late is answered
 * 503 and costs nothing. An agent is decided by its owner's activation, so there
 * it is the owner's token.
 */
import { type Credits, formatUsd } from "../domain/credits.ts"
import { type AccountId, type AgentId, type TransactionId, isUuid } from "../domain/ids.ts"
import { notifyChange } from "./Changes.ts"
import { closeEveryLease, restOfLeases } from "./LeaseStore.ts"
import type { Sql } from "./Postgres.ts"

/** Ids and time of what is written. */
export interface Entry {
  readonly auditId: string
  readonly atMs: number
}

const inTransaction = <A>(sql: Sql, act: (tx: Sql) => Promise<A>): Promise<A> => sql.begin((tx) => act(tx as unknown as Sql)) as Promise<A>

export interface Credit extends Entry {
  readonly transactionId: TransactionId
  readonly batchId: string
  readonly email: string
  /** Negative: taken back. */
  readonly amount: Credits
  readonly reason: string
}

/** `short`: less than what was to be taken back is available; nothing was done. */
export type Credited =
  | { readonly _tag: "credited"; readonly available: Credits }
  | { readonly _tag: "short"; readonly available: Credits }
  | { readonly _tag: "unknownEmail" }

const lockAccount = (sql: Sql, email: string) => sql<Array<{ id: AccountId; available: bigint }>>`
  select a.id, a.available from accounts a join users u on u.account_id = a.id where u.email = ${email} for update of a`

/** The outside world's side of the movement is what came in (negative) or went out. */
const moveCredits = (sql: Sql, accountId: AccountId, credit: Credit) => {
  const at = new Date(credit.atMs)
  const details = { amount_usd: formatUsd(credit.amount), reason: credit.reason, transaction_id: credit.transactionId }
  const deposits = credit.amount > 0n ? -credit.amount : 0n
  const withdrawals = credit.amount < 0n ? -credit.amount : 0n
  return sql<Array<{ available: bigint }>>`
    with moved as (
      update accounts set token = token + 1, available = available + ${credit.amount}::bigint where id = ${accountId} returning id, available
    ), batched as (
      insert into batches (id, fee, buyback, deposits, withdrawals, refused) values (${credit.batchId}, 0, 0, ${deposits}, ${withdrawals}, '{}')
    ), entered as (
      insert into transactions (id, batch_id, account_id, type, available, reserved, earned, fee, buyback, deposits, withdrawals, balance_after, reference, created_at)
      select ${credit.transactionId}::uuid, ${credit.batchId}::uuid, id, 'adjustment', ${credit.amount}::bigint, 0, 0, 0, 0, ${deposits}::bigint, ${withdrawals}::bigint, available, ${credit.reason}, ${at}::timestamptz
      from moved
    ), audited as (
      insert into audit_log (id, account_id, actor, action, target, details, created_at)
      values (${credit.auditId}, ${accountId}, 'operator', 'account.credit', ${accountId}, ${sql.json(details)}, ${at})
    )
    select available from moved`
}

/** Adds to the available credits of the account with this email, or takes back from them what is there. */
export const creditAccount = (sql: Sql, credit: Credit): Promise<Credited> =>
  inTransaction(sql, async (tx): Promise<Credited> => {
    const [account] = await lockAccount(tx, credit.email)
    if (account === undefined) return { _tag: "unknownEmail" }
    const available = account.available + await restOfLeases(tx, account.id)
    if (available + credit.amount < 0n) return { _tag: "short", available }
    await closeEveryLease(tx, [account.id], credit.atMs)
    const [moved] = await moveCredits(tx, account.id, credit)
    await notifyChange(tx, "account", account.id)
    return { _tag: "credited", available: moved!.available }
  })

/** What can be suspended. */
export type Suspendable =
  | { readonly what: "account"; readonly id: AccountId; readonly name: string }
  | { readonly what: "agent"; readonly id: AgentId; readonly name: string }

const selectAccount = (sql: Sql, name: string) => sql<Array<{ id: AccountId; name: string }>>`
  select a.id, coalesce(string_agg(u.email, ', '), 'nobody') as name from accounts a left join users u on u.account_id = a.id
  where ${isUuid(name) ? sql`a.id = ${name}` : sql`u.email = ${name.toLowerCase()}`} group by a.id`

const selectAgent = (sql: Sql, name: string) => sql<Array<{ id: AgentId; name: string }>>`
  select id, ticker as name from agents where ${isUuid(name) ? sql`id = ${name}` : sql`ticker = ${name.toUpperCase()}`}`

/** By account id, email, agent id or ticker: no two of them can be the same text. */
export const findSuspendable = async (sql: Sql, name: string): Promise<Suspendable | undefined> => {
  const [account] = await selectAccount(sql, name)
  if (account !== undefined) return { what: "account", ...account }
  const [agent] = await selectAgent(sql, name)
  return agent === undefined ? undefined : { what: "agent", ...agent }
}

const setAccount = (sql: Sql, id: AccountId, suspended: boolean, { auditId, atMs }: Entry) => sql<Array<{ account_id: AccountId }>>`
  with changed as (
    update accounts set status = ${suspended ? "suspended" : "active"}, token = token + 1
    where id = ${id} and (status = 'suspended') <> ${suspended} returning id
  )
  insert into audit_log (id, account_id, actor, action, target, details, created_at)
  select ${auditId}::uuid, id, 'operator', ${suspended ? "account.suspend" : "account.reinstate"}, id, '{}', ${new Date(atMs)}::timestamptz from changed
  returning account_id`

/** The owner's row first: the order in which the Committer locks them. */
const setAgent = (sql: Sql, id: AgentId, suspended: boolean, { auditId, atMs }: Entry) => sql<Array<{ account_id: AccountId }>>`
  with owner as (
    update accounts set token = token + 1 from agents
    where agents.id = ${id} and agents.suspended <> ${suspended} and accounts.id = agents.owner_id returning accounts.id
  ), changed as (
    update agents set suspended = ${suspended}, version = version + 1 from owner
    where agents.id = ${id} and agents.suspended <> ${suspended} returning agents.id, agents.ticker, owner.id as owner_id
  )
  insert into audit_log (id, account_id, actor, action, target, details, created_at)
  select ${auditId}::uuid, owner_id, 'operator', ${suspended ? "agent.suspend" : "agent.reinstate"}, id, jsonb_build_object('ticker', ticker), ${new Date(atMs)}::timestamptz from changed
  returning account_id`

/** Suspends, or lifts the suspension; answers false when it was so already. */
export const suspend = (sql: Sql, { what, id }: Suspendable, suspended: boolean, entry: Entry): Promise<boolean> =>
  inTransaction(sql, async (tx) => {
    const [changed] = await (what === "account" ? setAccount(tx, id, suspended, entry) : setAgent(tx, id, suspended, entry))
    if (changed === undefined) return false
    if (what === "account") await closeEveryLease(tx, [id], entry.atMs)
    else await notifyChange(tx, "agent", id)
    await notifyChange(tx, "account", changed.account_id)
    return true
  })
