/**
 * Letters that must arrive, and what the receipts among them say. A letter is
 * written by the statement that closes its session (`SessionStore.ts`), without
 * its text, and sent by `kernel/Outbox.ts`.
 *
 * Who sends a letter has claimed it for `leaseMs`: nobody else is given it
 * before that time is over. When its sender died it is due again then. Times
 * are the database's, so nodes need not agree about the clock.
 */
import { Effect } from "effect"
import type { StoreUnavailable } from "../domain/errors.ts"
import type { AccountId, SessionId } from "../domain/ids.ts"
import type { ReceiptData } from "../domain/receipt.ts"
import { Postgres, type Sql } from "./Postgres.ts"

export interface ClaimedLetter {
  readonly id: string
  readonly accountId: AccountId
  readonly sessionId: SessionId
  /** This one included. */
  readonly attempts: number
}

interface Failed {
  readonly why: string
  /** It is due again then, */
  readonly retryMs: number
  /** unless it is older than this. `undefined`: it is given up. */
  readonly keepMs: number | undefined
}

const claimDue = (sql: Sql, lettersMax: number, leaseMs: number) => sql<Array<{ id: string; account_id: AccountId; session_id: SessionId; attempts: number }>>`
  with due as (
    select id from letters where sent_at is null and failed_at is null and next_attempt_at <= now()
    order by next_attempt_at limit ${lettersMax} for update skip locked
  )
  update letters l set attempts = l.attempts + 1, next_attempt_at = now() + ${leaseMs} * interval '1 millisecond' from due
  where l.id = due.id returning l.id, l.account_id, l.session_id, l.attempts`

const setSent = (sql: Sql, id: string) => sql`update letters set sent_at = now(), last_error = null where id = ${id} and sent_at is null`

const setFailed = (sql: Sql, id: string, { why, retryMs, keepMs }: Failed) => sql<Array<{ is_lost: boolean }>>`
  update letters set last_error = ${why}, next_attempt_at = now() + ${retryMs} * interval '1 millisecond',
    failed_at = case when ${keepMs === undefined} or created_at < now() - ${keepMs ?? 0} * interval '1 millisecond' then now() end
  where id = ${id} and sent_at is null returning failed_at is not null as is_lost`

const countWaiting = (sql: Sql) => sql<Array<{ count: number }>>`select count(*)::int as count from letters where sent_at is null and failed_at is null`

const selectClosed = (sql: Sql, accountId: AccountId, sessionId: string) => sql<Array<{
  id: SessionId; started_at: Date; closed_at: Date; consumed: bigint; ticker: string | null; name: string | null; email: string | null
}>>`
  select s.id, s.started_at, s.closed_at, s.consumed, a.ticker, a.name,
    (select u.email from users u where u.account_id = s.account_id order by u.created_at, u.id limit 1) as email
  from sessions s left join agents a on a.id = s.agent_id
  where s.id = ${sessionId} and s.account_id = ${accountId} and s.status = 'closed'`

const selectTurns = (sql: Sql, sessionId: string, turnsMax: number) => sql<Array<{ id: string; message_index: number; amount: bigint; completed_at: Date }>>`
  select id, message_index, amount, completed_at from orders where session_id = ${sessionId} order by message_index limit ${turnsMax}`

/** At most so many letters that are due, for this caller alone until `leaseMs` from now. */
export const claimLetters = (lettersMax: number, leaseMs: number): Effect.Effect<ReadonlyArray<ClaimedLetter>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => claimDue(sql, lettersMax, leaseMs))).pipe(Effect.map((rows) =>
    rows.map(({ id, account_id, session_id, attempts }) => ({ id, accountId: account_id, sessionId: session_id, attempts }))))

export const markSent = (id: string): Effect.Effect<void, StoreUnavailable, Postgres> =>
  Effect.asVoid(Postgres.use(({ run }) => run((sql) => setSent(sql, id))))

/** Answers whether it was given up. */
export const markFailed = (id: string, failed: Failed): Effect.Effect<boolean, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => setFailed(sql, id, failed))).pipe(Effect.map(([row]) => row?.is_lost === true))

/** Of all nodes. */
export const lettersWaiting: Effect.Effect<number, StoreUnavailable, Postgres> =
  Postgres.use(({ run }) => run(countWaiting)).pipe(Effect.map(([row]) => row?.count ?? 0))

/** What a closed session's receipt says, with at most so many turns; `undefined` for one that is open, unknown or another account's. */
export const findReceipt = (accountId: AccountId, sessionId: string, turnsMax: number): Effect.Effect<Omit<ReceiptData, "issuer"> | undefined, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run(async (sql) => {
    const [session] = await selectClosed(sql, accountId, sessionId)
    if (session === undefined) return undefined
    const turns = await selectTurns(sql, sessionId, turnsMax)
    return {
      sessionId: session.id,
      agent: { ticker: session.ticker ?? "", name: session.name ?? "" },
      billedTo: session.email ?? "",
      startedAt: session.started_at,
      closedAt: session.closed_at,
      turns: turns.map(({ id, message_index, amount, completed_at }) => ({ index: message_index, orderId: id, at: completed_at, amount })),
      total: session.consumed
    }
  }))
