/** The rows that a closed chat session leaves, and the letter with its receipt that waits to be sent. */
import { randomUUID } from "node:crypto"
import type { Sql } from "../../src/store/Postgres.ts"
import { newAccount } from "./ledgerRows.ts"

export interface ClosedSession {
  readonly letterId: string
  readonly sessionId: string
  readonly accountId: string
  readonly orderIds: ReadonlyArray<string>
  readonly email: string
  readonly ticker: string
}

export interface ClosedSessionOptions {
  readonly turns?: number
  readonly amount?: bigint
  readonly agentName?: string
  /** Without one nobody can be written to. */
  readonly email?: string | undefined
  /** How long ago it was closed. */
  readonly ageHours?: number
}

let sessions = 0

export const closedSession = async (sql: Sql, options: ClosedSessionOptions = {}): Promise<ClosedSession> => {
  const { turns = 2, amount = 750_000n, agentName = "A scripted agent", email = `${randomUUID()}@example.com`, ageHours = 0 } = options
  const accountId = await newAccount(sql)
  const [letterId, agentId, subjectId] = [randomUUID(), randomUUID(), randomUUID()]
  const sessionId = `ses_${randomUUID().replaceAll("-", "")}`
  const ticker = `R${(++sessions).toString(36).toUpperCase().padStart(4, "0")}`
  const closedAt = new Date(Date.now() - ageHours * 3_600_000)
  const startedAt = new Date(closedAt.getTime() - 60_000)
  if (!("email" in options && options.email === undefined)) {
    await sql`insert into users (id, account_id, email, password_hash, email_verified_at) values (${subjectId}, ${accountId}, ${email}, 'none', now())`
  }
  await sql`insert into agents (id, owner_id, dialect, ticker, name, description, category, endpoint_url, price, auth_tier)
            values (${agentId}, ${accountId}, 'autx', ${ticker}, ${agentName}, '', 'Test', 'http://127.0.0.1:1/', ${amount}, 'jwt_default')`
  await sql`insert into sessions (id, account_id, subject_id, agent_id, node_id, status, price, message_count, consumed, started_at, closed_at, close_reason)
            values (${sessionId}, ${accountId}, ${subjectId}, ${agentId}, ${randomUUID()}, 'closed', ${amount}, ${turns}, ${amount * BigInt(turns)}, ${startedAt}, ${closedAt}, 'client')`
  const orderIds = Array.from({ length: turns }, () => randomUUID() as string)
  await sql`insert into orders (id, account_id, subject_id, agent_id, token, status, prompt, payment_method, amount, fee, output_hash, output_text, created_at, completed_at, session_id, message_index)
            select turn.id::uuid, ${accountId}, ${subjectId}, ${agentId}, 0, 'completed', 'hi', 'credits', ${amount}, 0, '', 'hello', ${startedAt}, ${startedAt}, ${sessionId}, turn.at
            from json_array_elements_text(${JSON.stringify(orderIds)}::text::json) with ordinality as turn(id, at)`
  await sql`insert into letters (id, kind, account_id, session_id, created_at, next_attempt_at) values (${letterId}, 'receipt', ${accountId}, ${sessionId}, ${closedAt}, ${closedAt})`
  return { letterId, sessionId, accountId, orderIds, email, ticker }
}

/** The least that is left of a chat with so many turns, which was closed at that time: free, and of nobody. */
export const closedChat = async (sql: Sql, closedAtMs: number, turns: number): Promise<string> => {
  const id = `ses_${randomUUID().replaceAll("-", "")}`
  const [account, agent] = [randomUUID(), randomUUID()]
  await sql`
    insert into sessions (id, account_id, subject_id, agent_id, node_id, status, price, message_count, started_at, closed_at, close_reason)
    values (${id}, ${account}, ${account}, ${agent}, ${randomUUID()}, 'closed', 0, ${turns}, ${new Date(closedAtMs - 3_600_000)}, ${new Date(closedAtMs)}, 'dropped')`
  await sql`
    insert into orders (id, account_id, subject_id, agent_id, token, status, prompt, payment_method, amount, fee, output_hash, output_text, created_at, completed_at, session_id, message_index)
    select gen_random_uuid(), ${account}::uuid, ${account}::uuid, ${agent}::uuid, 1, 'completed', 'asked', 'credits', 0, 0, 'sha256:00', 'answered', ${new Date(closedAtMs)}, ${new Date(closedAtMs)}, ${id}, n
    from generate_series(1, ${turns}::int) n`
  return id
}
export const textsOf = async (sql: Sql, session: string): Promise<number> => (await sql`select from orders where session_id = ${session} and (prompt <> '' or output_text <> '')`).count
export const isErased = async (sql: Sql, session: string): Promise<boolean> => (await sql`select from sessions where id = ${session} and erased_at is not null`).count === 1
