/**
 * Leases as rows: closing them, and finding those that nobody will close.
 *
 * Closing is the fence between the owner of an account and the nodes that spend
 * from it: the row is deleted under its lock, which waits for what is being
 * spent at that moment and leaves nothing to spend. In the same statement what
 * is left returns to the account, and what was spent is charged to the budgets
 * of the lease's key: in the period of the closing, or a later one that the
 * budget or the grant was in, where it was held all along.
 *
 * Lock order: accounts by id, then leases by id, as the Committer does
 * (`batchSql.ts`), whose connection the owner's closings use: no batch of this
 * node runs meanwhile, so that the balances its transactions tell are exact.
 *
 * Failure cases. The answer is lost: the leases are closed or not, and only a
 * new activation knows. A stale activation, and a second closing, close nothing.
 */
import { Effect } from "effect"
import type { SubjectId } from "../domain/account.ts"
import { StoreUnavailable } from "../domain/errors.ts"
import type { AccountId, LeaseId, Token } from "../domain/ids.ts"
import { Postgres, type Sql, verdictOf } from "./Postgres.ts"

export interface Closing {
  readonly accountId: AccountId
  readonly token: Token
  readonly leaseIds: ReadonlyArray<LeaseId>
  /** What was spent is charged to this time's budget periods, or to later ones. */
  readonly nowMs: number
}

export interface ClosedLease {
  readonly leaseId: LeaseId
  readonly spent: bigint
}

/** What is done with the rows that the CTE `locked` names by their ids. */
const closeSql = (at: string): string => `
closed as (
  delete from leases l using locked where l.id = locked.id returning l.id, l.account_id, l.subject_id, l.amount, l.spent, l.granted_at
), returned as (
  update accounts a set available = a.available + c.rest
  from (select account_id, sum(amount - spent) as rest from closed group by account_id) c where a.id = c.account_id
), charged as (
  update budgets b set
    spent = c.spent + case when period.start > b.period_start then 0 else b.spent end, period_start = greatest(b.period_start, period.start)
  from (select subject_id, sum(spent) as spent, greatest(max(granted_at), ${at}) as at from closed group by subject_id having sum(spent) > 0) c,
    lateral (values ('day', date_trunc('day', c.at, 'UTC')), ('month', date_trunc('month', c.at, 'UTC')), ('total', 'epoch')) period(budget_window, start)
  where b.key_id = c.subject_id and b.budget_window = period.budget_window
)`

const closeCurrent = `
with wanted as materialized (
  select * from json_to_recordset($1::text::json) as r(account_id uuid, token bigint, lease_id uuid)
), owned as materialized (
  select a.id from accounts a join (select distinct account_id, token from wanted) w on w.account_id = a.id and w.token = a.token order by a.id for update of a
), locked as materialized (
  select l.id from leases l join wanted w on w.lease_id = l.id and w.account_id = l.account_id join owned on owned.id = l.account_id order by l.id for update of l
), ${closeSql("$2::text::timestamptz")}
select id, spent from closed`

const closeAll = `
with locked as materialized (
  select id from leases where account_id = any($1::text::uuid[]) order by id for update
), ${closeSql("$2::text::timestamptz")}
select account_id, sum(amount - spent)::bigint as rest from closed group by account_id`

const lockRest = (sql: Sql, accountId: AccountId) => sql<Array<{ rest: bigint }>>`
  select coalesce(sum(rest), 0)::bigint as rest from (select amount - spent as rest from leases where account_id = ${accountId} order by id for update) l`

const selectOthers = (sql: Sql, nodeIds: ReadonlyArray<string>, max: number) => sql<Array<{ id: LeaseId; account_id: AccountId; node_id: string }>>`
  select id, account_id, node_id from leases where node_id <> all(${nodeIds}::uuid[]) order by granted_at limit ${max}`

const selectOwn = (sql: Sql, nodeId: string, afterId: LeaseId, max: number) => sql<Array<{ id: LeaseId; account_id: AccountId; subject_id: SubjectId }>>`
  select id, account_id, subject_id from leases where node_id = ${nodeId} and id > ${afterId} and granted_at < now() - interval '5 seconds' order by id limit ${max}`

/** Answers what was spent of those that are closed by this; the others were closed before, or their account has another token. All are closed when it has answered, or none. */
export const closeLeases = (closings: ReadonlyArray<Closing>): Effect.Effect<ReadonlyArray<ClosedLease>, StoreUnavailable, Postgres> =>
  Postgres.use(({ writes }) => Effect.tryPromise({
    try: () => {
      const wanted = closings.flatMap(({ accountId, token, leaseIds }) => leaseIds.map((id) => ({ account_id: accountId, token: String(token), lease_id: id })))
      const at = new Date(Math.max(0, ...closings.map(({ nowMs }) => nowMs))).toISOString()
      return writes.unsafe<Array<{ id: LeaseId; spent: bigint }>>(closeCurrent, [JSON.stringify(wanted), at], { prepare: true })
    },
    catch: (failure) => failure
  }).pipe(
    Effect.map((rows) => rows.map(({ id, spent }): ClosedLease => ({ leaseId: id, spent }))),
    Effect.catch((failure) => verdictOf(failure) === "aborted" ? Effect.die(failure) : Effect.fail(new StoreUnavailable({ retryAfterMs: 1_000 })))
  ))

/** A part of a transaction that has locked these accounts and raises their tokens. Answers what returned to each that had leases. */
export const closeEveryLease = async (sql: Sql, accountIds: ReadonlyArray<AccountId>, atMs: number): Promise<ReadonlyMap<AccountId, bigint>> => {
  const rows = await sql.unsafe<Array<{ account_id: AccountId; rest: bigint }>>(closeAll, [`{${accountIds.join()}}`, new Date(atMs).toISOString()])
  return new Map(rows.map(({ account_id, rest }) => [account_id, rest]))
}

/** What is left of the account's leases. A part of a transaction that has locked the account: nothing of them is spent until it ends. */
export const restOfLeases = async (sql: Sql, accountId: AccountId): Promise<bigint> => (await lockRest(sql, accountId))[0]!.rest

/** Leases of other nodes than these, at most `max`, those first that were not granted anything for the longest time. */
export const leasesOfOthers = (nodeIds: ReadonlyArray<string>, max: number): Effect.Effect<ReadonlyArray<{ readonly leaseId: LeaseId; readonly accountId: AccountId; readonly nodeId: string }>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectOthers(sql, nodeIds, max))).pipe(
    Effect.map((rows) => rows.map(({ id, account_id, node_id }) => ({ leaseId: id, accountId: account_id, nodeId: node_id })))
  )

/** Leases of one node that were not granted anything lately, by id, at most `max` after that one. */
export const leasesOf = (nodeId: string, afterId: LeaseId, max: number): Effect.Effect<ReadonlyArray<{ readonly leaseId: LeaseId; readonly accountId: AccountId; readonly subjectId: SubjectId }>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectOwn(sql, nodeId, afterId, max))).pipe(
    Effect.map((rows) => rows.map(({ id, account_id, subject_id }) => ({ leaseId: id, accountId: account_id, subjectId: subject_id })))
  )
