/**
 * Chat sessions as rows: reading them, taking them over, closing them, and the
 * signs of life of the nodes that have some. Opening one and its turns, which
 * move money, go through their account's commits.
 *
 * A session's row is its fence: who takes it over raises its `term`, and a turn
 * that names an earlier one, or comes after the close, is refused by the
 * database. So whoever may close it can do so without asking the node that has
 * it, or the owner of its account.
 */
import { Effect } from "effect"
import type { SubjectId } from "../domain/account.ts"
import type { Exchanged, HistoryBounds } from "../domain/chat.ts"
import type { Credits } from "../domain/credits.ts"
import type { StoreUnavailable } from "../domain/errors.ts"
import type { AccountId, AgentId, OrderId, SessionId } from "../domain/ids.ts"
import { Postgres, type Sql } from "./Postgres.ts"

export interface StoredSession {
  readonly id: SessionId
  readonly accountId: AccountId
  readonly agentId: AgentId
  readonly ticker: string
  readonly status: "active" | "closed"
  readonly messageCount: number
  readonly consumed: Credits
  readonly startedAt: Date
  readonly closedAt: Date | undefined
}

export interface OwnedSession {
  readonly id: SessionId
  readonly accountId: AccountId
}

/** What a node needs to go on with a session. */
export interface AdoptedSession extends OwnedSession {
  readonly agentId: AgentId
  readonly subjectId: SubjectId
  readonly term: bigint
  readonly messageCount: number
  readonly consumed: Credits
  readonly startedAt: Date
  /** The node that had it stopped in good order and cut nothing off. */
  readonly leftWhole: boolean
  /** It was taken from a node that did not leave it: that one may live, and know nothing of it. */
  readonly isTaken: boolean
}

/** One with its term. */
export interface HeldSession extends OwnedSession {
  readonly term: bigint
}

export interface SessionEnd extends OwnedSession {
  /** With another term by now it stays open; `undefined`: it is closed whatever its term. */
  readonly term: bigint | undefined
  readonly reason: string
  /** Of the letter that brings its receipt, when it cost enough; `undefined`: none is sent. */
  readonly letterId: string | undefined
}

/** A session as its row has it by now. */
export interface StandingSession {
  readonly isActive: boolean
  readonly term: bigint
  /** The key that its socket came with is good no more. */
  readonly isRevoked: boolean
}

export interface StoredTurn {
  readonly orderId: OrderId
  readonly messageIndex: number
  readonly amount: Credits
  readonly outputHash: string
  readonly outputText: string
}

export interface StoredExchange extends Exchanged {
  readonly orderId: OrderId
  readonly messageIndex: number
  readonly amount: Credits
  readonly createdAt: Date
  readonly completedAt: Date
}

const form = /^ses_[0-9a-f]{32}$/

export const isSessionId = (id: string): id is SessionId => form.test(id)

interface SessionRow {
  id: SessionId; account_id: AccountId; agent_id: AgentId; ticker: string | null; status: "active" | "closed"; message_count: number; consumed: bigint; started_at: Date; closed_at: Date | null
}

const columns = (sql: Sql) => sql`s.id, s.account_id, s.agent_id, a.ticker, s.status, s.message_count, s.consumed, s.started_at, s.closed_at`

const selectSession = (sql: Sql, accountId: AccountId, id: string) => sql<Array<SessionRow>>`
  select ${columns(sql)} from sessions s left join agents a on a.id = s.agent_id where s.id = ${id} and s.account_id = ${accountId}`

const selectSessions = (sql: Sql, accountId: AccountId, status: StoredSession["status"] | undefined, limit: number, after: string | undefined) => sql<Array<SessionRow>>`
  select ${columns(sql)} from sessions s left join agents a on a.id = s.agent_id
  where s.account_id = ${accountId} ${status === undefined ? sql`` : sql`and s.status = ${status}`} ${after === undefined ? sql`` : sql`and s.id < ${after}`}
  order by s.id desc limit ${limit}`

const selectExchanges = (sql: Sql, id: string, limit: number, after: number) => sql<Array<{
  id: OrderId; message_index: number; amount: bigint; prompt: string; output_text: string; created_at: Date; completed_at: Date
}>>`
  select id, message_index, amount, prompt, output_text, created_at, completed_at from orders
  where session_id = ${id} and message_index > ${after} order by message_index limit ${limit}`

/** The latest turns whose texts fit together, latest first. */
const selectHistory = (sql: Sql, id: SessionId, { messagesMax, bytesMax }: HistoryBounds) => sql<Array<{ prompt: string; output_text: string }>>`
  select prompt, output_text from (
    select message_index, prompt, output_text, sum(octet_length(prompt) + octet_length(output_text)) over (order by message_index desc) as bytes
    from (select message_index, prompt, output_text from orders where session_id = ${id} order by message_index desc limit ${Math.floor(messagesMax / 2)}) latest
  ) sized where bytes <= ${bytesMax} order by message_index desc`

const selectTurn = (sql: Sql, id: SessionId, messageId: string) => sql<Array<{ id: OrderId; message_index: number; amount: bigint; output_hash: string; output_text: string }>>`
  select id, message_index, amount, output_hash, output_text from orders where session_id = ${id} and message_id = ${messageId}`

/** `is not distinct from`, because no index serves it: by the node's own, each batch would read all of its sessions. */
const takeOver = (sql: Sql, nodeId: string, ids: ReadonlyArray<string>, owners: ReadonlyArray<string>) => sql<Array<{
  id: SessionId; account_id: AccountId; agent_id: AgentId; subject_id: SubjectId; term: bigint; message_count: number; consumed: bigint; started_at: Date; whole: boolean; taken: boolean
}>>`
  with wanted as (select * from unnest(${ids as Array<string>}::text[], ${owners as Array<string>}::uuid[]) as w(id, account_id)),
  others as (
    select s.id, s.parked_at is not null and not s.interrupted as whole, s.parked_at is null as taken from sessions s join wanted w on w.id = s.id and w.account_id = s.account_id
    where s.status = 'active' and s.node_id <> ${nodeId} order by s.id for update of s
  ), taken as (
    update sessions s set term = s.term + 1, node_id = ${nodeId}, parked_at = null, interrupted = false from others
    where s.id = others.id
    returning s.id, s.account_id, s.agent_id, s.subject_id, s.term, s.message_count, s.consumed, s.started_at, others.whole, others.taken
  )
  select * from taken
  union all
  select s.id, s.account_id, s.agent_id, s.subject_id, s.term, s.message_count, s.consumed, s.started_at, false, false
  from sessions s join wanted w on w.id = s.id and w.account_id = s.account_id where s.status = 'active' and s.node_id is not distinct from ${nodeId}`

/** A turn that is being committed is waited for; who comes after it is refused. */
const closeAll = (sql: Sql, ends: string, receiptFrom: Credits) => sql<Array<{ id: SessionId; account_id: AccountId; term: bigint }>>`
  with closing as (
    select s.id, e.reason, e.letter_id
    from json_to_recordset(${ends}::text::json) as e(id text, account_id uuid, term bigint, reason text, letter_id uuid) join sessions s on s.id = e.id and s.account_id = e.account_id
    where s.status = 'active' and s.term = coalesce(e.term, s.term) order by s.id for update of s
  ), closed as (
    update sessions s set status = 'closed', closed_at = now(), close_reason = c.reason from closing c where s.id = c.id
    returning s.id, s.account_id, s.term, s.consumed, s.closed_at, c.letter_id
  ), lettered as (
    insert into letters (id, kind, account_id, session_id, created_at, next_attempt_at)
    select letter_id, 'receipt', account_id, id, closed_at, closed_at from closed where letter_id is not null and consumed >= ${receiptFrom}
  )
  select id, account_id, term from closed`

const selectStanding = (sql: Sql, ids: ReadonlyArray<string>, subjects: ReadonlyArray<string>) => sql<Array<{ id: SessionId; active: boolean; term: bigint; revoked: boolean }>>`
  select s.id, s.status = 'active' as active, s.term, exists (select from api_keys k where k.id = w.subject_id and k.status = 'revoked') as revoked
  from unnest(${ids as Array<string>}::text[], ${subjects as Array<string>}::uuid[]) as w(id, subject_id) join sessions s on s.id = w.id`

const upsertNode = (sql: Sql, nodeId: string) => sql`
  insert into chat_nodes (id, seen_at) values (${nodeId}, now()) on conflict (id) do update set seen_at = now()`

/** Of nodes that stopped, or stopped saying that they live, `afterMs` ago. */
const selectOrphans = (sql: Sql, nodeId: string, afterMs: number) => sql<Array<{ id: SessionId; account_id: AccountId; term: bigint }>>`
  select s.id, s.account_id, s.term from sessions s left join chat_nodes n on n.id = s.node_id
  where s.status = 'active' and s.node_id <> ${nodeId}
    and coalesce(s.parked_at, n.seen_at, s.started_at) < now() - ${afterMs} * interval '1 millisecond'
  order by s.id limit 1000`

const parkAll = (sql: Sql, nodeId: string, interrupted: ReadonlyArray<string>) => sql`
  with parked as (select id from sessions where node_id = ${nodeId} and status = 'active' order by id for update)
  update sessions s set parked_at = now(), interrupted = s.id = any(${interrupted as Array<string>}::text[]) from parked where s.id = parked.id`

const removeNode = (sql: Sql, nodeId: string) => sql`delete from chat_nodes where id = ${nodeId}`

const selectLateCancels = (sql: Sql, accountId: AccountId, agentId: AgentId, day: string) => sql<Array<{ cancels: number }>>`
  select cancels from late_cancels where account_id = ${accountId} and agent_id = ${agentId} and day = ${day}`

const sessionOf = (row: SessionRow): StoredSession => ({
  id: row.id, accountId: row.account_id, agentId: row.agent_id, ticker: row.ticker ?? "", status: row.status, messageCount: row.message_count,
  consumed: row.consumed, startedAt: row.started_at, closedAt: row.closed_at ?? undefined
})

/** `undefined` when it doesn't exist or is another account's. */
export const findSession = (accountId: AccountId, id: string): Effect.Effect<StoredSession | undefined, StoreUnavailable, Postgres> =>
  isSessionId(id)
    ? Postgres.use(({ run }) => run((sql) => selectSession(sql, accountId, id))).pipe(Effect.map(([row]) => row && sessionOf(row)))
    : Effect.void as Effect.Effect<undefined>

/** Newest first. */
export const listSessions = (accountId: AccountId, status: StoredSession["status"] | undefined, limit: number, after: string | undefined): Effect.Effect<ReadonlyArray<StoredSession>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectSessions(sql, accountId, status, limit, after))).pipe(Effect.map((rows) => rows.map(sessionOf)))

/** Finished turns after the one with this index, oldest first. */
export const listExchanges = (id: SessionId, limit: number, after: number): Effect.Effect<ReadonlyArray<StoredExchange>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectExchanges(sql, id, limit, after))).pipe(Effect.map((rows) => rows.map((row) => ({
    orderId: row.id, messageIndex: row.message_index, amount: row.amount, prompt: row.prompt, answer: row.output_text, createdAt: row.created_at, completedAt: row.completed_at
  }))))

/** What of the session's past goes to its agent, oldest first. */
export const readHistory = (id: SessionId, bounds: HistoryBounds): Effect.Effect<ReadonlyArray<Exchanged>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectHistory(sql, id, bounds))).pipe(
    Effect.map((rows) => rows.reverse().map(({ prompt, output_text }) => ({ prompt, answer: output_text })))
  )

/** The finished turn of a client's message. */
export const findTurn = (id: SessionId, messageId: string): Effect.Effect<StoredTurn | undefined, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectTurn(sql, id, messageId))).pipe(Effect.map(([row]) => row && {
    orderId: row.id, messageIndex: row.message_index, amount: row.amount, outputHash: row.output_hash, outputText: row.output_text
  }))

/** Takes active sessions of these accounts over for a node, in one statement: every turn of an earlier term is refused from then on. One that is the node's already keeps its term. Those that are closed, unknown or another account's are missing. */
export const adoptSessions = (nodeId: string, wanted: ReadonlyArray<OwnedSession>): Effect.Effect<ReadonlyMap<SessionId, AdoptedSession>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => takeOver(sql, nodeId, wanted.map(({ id }) => id), wanted.map(({ accountId }) => accountId)))).pipe(Effect.map((rows) => new Map(rows.map((row) => [row.id, {
    id: row.id, accountId: row.account_id, agentId: row.agent_id, subjectId: row.subject_id, term: row.term, messageCount: row.message_count,
    consumed: row.consumed, startedAt: row.started_at, leftWhole: row.whole, isTaken: row.taken
  }]))))

/** Closes active sessions in one statement, each with its letter when it cost at least `receiptFrom`. Answers those that it closed. */
export const closeSessions = (ends: ReadonlyArray<SessionEnd>, receiptFrom: Credits): Effect.Effect<ReadonlyMap<SessionId, HeldSession>, StoreUnavailable, Postgres> => {
  const rows = ends.map(({ id, accountId, term, reason, letterId }) => ({ id, account_id: accountId, term: term === undefined ? null : String(term), reason, letter_id: letterId ?? null }))
  return Postgres.use(({ run }) => run((sql) => closeAll(sql, JSON.stringify(rows), receiptFrom))).pipe(
    Effect.map((closed) => new Map(closed.map(({ id, account_id, term }) => [id, { id, accountId: account_id, term }])))
  )
}

/** How sessions stand, each with the key or login that its socket came with, in one statement. */
export const standingSessions = (asked: ReadonlyArray<{ readonly id: SessionId; readonly subjectId: SubjectId }>): Effect.Effect<ReadonlyMap<SessionId, StandingSession>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectStanding(sql, asked.map(({ id }) => id), asked.map(({ subjectId }) => subjectId)))).pipe(
    Effect.map((rows) => new Map(rows.map(({ id, active, term, revoked }) => [id, { isActive: active, term, isRevoked: revoked }])))
  )

/** Says that the node lives, and answers whose sessions nobody came back to. */
export const beatAndFindOrphans = (nodeId: string, afterMs: number): Effect.Effect<ReadonlyArray<HeldSession>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run(async (sql) => {
    await upsertNode(sql, nodeId)
    return (await selectOrphans(sql, nodeId, afterMs)).map(({ id, account_id, term }) => ({ id, accountId: account_id, term }))
  }))

/** Leaves all of a node's sessions to whoever they are resumed on. */
export const parkSessions = (nodeId: string, interrupted: ReadonlyArray<SessionId>): Effect.Effect<void, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run(async (sql) => {
    await parkAll(sql, nodeId, interrupted)
    await removeNode(sql, nodeId)
  }))

export const lateCancelsOn = (accountId: AccountId, agentId: AgentId, day: string): Effect.Effect<number, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectLateCancels(sql, accountId, agentId, day))).pipe(Effect.map(([row]) => row?.cancels ?? 0))
