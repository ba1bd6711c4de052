/** What is erased and forgotten of chats that are over, on a real PostgreSQL. */
import { Layer, ManagedRuntime } from "effect"
import { randomUUID } from "node:crypto"
import { beforeEach, describe, expect, it } from "vitest"
import type { AgentId, KeyId, OrderId, SessionId } from "../../src/domain/ids.ts"
import { audit } from "../../src/store/Audit.ts"
import { Committer } from "../../src/store/Committer.ts"
import type { CommitRows } from "../../src/store/Commit.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { Postgres, type Sql, connect } from "../../src/store/Postgres.ts"
import { keepUp } from "../../src/store/Upkeep.ts"
import { closedChat, isErased, textsOf } from "../support/closedSession.ts"
import { newAccount, submitted, takeToken, transaction } from "../support/ledgerRows.ts"
import { type TestDatabase, freshDatabase } from "../support/postgres.ts"

const dayMs = 86_400_000
/** Of a day that nothing else is about, and that has been by every clock. */
const now = Date.parse("2021-05-17T10:15:00.000Z")
const at = (ms: number): Date => new Date(ms)

let database: TestDatabase
let sql: Sql
beforeEach(async () => {
  database = await freshDatabase()
  sql = connect(database.options, { max: 6, statementTimeoutMs: 10_000, name: "tollgate-test" })
  await migrate(sql)
  return async () => {
    await sql.end({ timeout: 1 })
    await database.drop()
  }
})

const cleanBooks = async (): Promise<void> => expect((await audit(sql)).filter(({ ok }) => !ok)).toEqual([])

describe("retention of chats", () => {
  /** Turn after turn until there is no backlog. Answers how many it took. */
  const erase = async (nowMs: number, chatRetentionDays: number): Promise<number> => {
    let turns = 1
    while (await keepUp(sql, nowMs, { usageRetentionDays: 3_650, chatRetentionDays })) turns++
    return turns
  }

  it("erases what was said in sessions that were closed before, and keeps what they cost, when, and what was proved of it", async () => {
    const buyer = await newAccount(sql, 1_000n)
    const token = await takeToken(sql, buyer)
    const runtime = ManagedRuntime.make(Committer.layer.pipe(Layer.provideMerge(Postgres.layer(database.options))))
    const { submit } = await runtime.runPromise(Committer)
    const commit = async (rows: CommitRows): Promise<void> => expect(await submitted(submit, buyer, token, rows)).toEqual({ _tag: "committed" })
    const [agentId, subjectId] = [randomUUID() as string as AgentId, randomUUID() as string as KeyId]
    const chat = async (startedAtMs: number, closedAtMs: number | undefined): Promise<SessionId> => {
      const id = `ses_${randomUUID().replaceAll("-", "")}` as SessionId
      const orderId = randomUUID() as string as OrderId
      const charge = transaction({ available: -100n, fee: 100n, orderId, agentId, subjectId, atMs: startedAtMs })
      await commit({ sessions: [{ id, subjectId, agentId, nodeId: randomUUID(), price: 100n, startedAtMs }] })
      await commit({
        transactions: [charge],
        usage: [{ id: charge.id, accountId: buyer, subjectId, agentId, call: "chat", status: 200, cost: 100n, latencyMs: 5, atMs: startedAtMs }],
        turns: [{
          id: orderId, sessionId: id, term: 1n, subjectId, agentId, messageId: "m", messageIndex: 1, prompt: "a secret", amount: 100n, fee: 100n,
          outputHash: "sha256:abcd", outputText: "kept well", createdAtMs: startedAtMs, completedAtMs: startedAtMs
        }]
      })
      if (closedAtMs !== undefined) await sql`update sessions set status = 'closed', closed_at = ${at(closedAtMs)}, close_reason = 'dropped' where id = ${id}`
      return id
    }
    const money = async () => [
      await sql`select * from transactions order by id`, await sql`select * from accounts`, await sql`select * from usage order by id`,
      await sql`select id, status, amount, fee, output_hash, created_at, completed_at, session_id, message_id, message_index from orders order by id`,
      await sql`select id, status, message_count, consumed, started_at, closed_at, close_reason from sessions order by id`
    ]
    try {
      const old = await chat(now - 9 * dayMs, now - 3 * dayMs - 1)
      const others = [await chat(now - 9 * dayMs, now - 3 * dayMs), await chat(now - 9 * dayMs, now - dayMs), await chat(now - 9 * dayMs, undefined)]
      const before = await money()
      await erase(now, 3)
      expect(await sql`select session_id, prompt, output_text from orders where prompt = '' or output_text = ''`).toEqual([{ session_id: old, prompt: "", output_text: "" }])
      expect(await sql`select id from sessions where erased_at is not null`).toEqual([{ id: old }])
      expect(await money()).toEqual(before)
      await cleanBooks()
      await erase(now + 30 * dayMs, 3)
      expect(await Promise.all(others.map((id) => textsOf(sql, id)))).toEqual([0, 0, 1])
      await cleanBooks()
    } finally {
      await runtime.dispose()
    }
  })

  it("takes a long session in turns that each stay short, and calls it erased when all of it is", async () => {
    const [long, short] = [await closedChat(sql, now - 9 * dayMs, 250), await closedChat(sql, now - 8 * dayMs, 3)]
    expect(await keepUp(sql, now, { usageRetentionDays: 3_650, chatRetentionDays: 3 })).toBe(true)
    expect(await textsOf(sql, long)).toBeGreaterThan(0)
    expect(await isErased(sql, long)).toBe(false)
    expect(await erase(now, 3)).toBeLessThan(4)
    expect([await textsOf(sql, long), await isErased(sql, long), await textsOf(sql, short), await isErased(sql, short)]).toEqual([0, true, 0, true])
  })

  it("counts a session in which nothing was said as erased, and a backlog of them as one", async () => {
    await Promise.all(Array.from({ length: 101 }, () => closedChat(sql, now - 9 * dayMs, 0)))
    expect(await erase(now, 3)).toBe(2)
    expect(await sql`select from sessions where erased_at is null`).toHaveLength(0)
  })

  it("waits for nobody: a session that is written is erased later", async () => {
    const [busy, free] = [await closedChat(sql, now - 9 * dayMs, 1), await closedChat(sql, now - 8 * dayMs, 1)]
    const writer = await sql.reserve()
    await writer`begin`
    await writer`update sessions set parked_at = now() where id = ${busy}`
    await erase(now, 3)
    expect([await isErased(sql, busy), await isErased(sql, free)]).toEqual([false, true])
    await writer`commit`
    writer.release()
    await erase(now, 3)
    expect([await textsOf(sql, busy), await isErased(sql, busy)]).toEqual([0, true])
  })

  it("is done by many nodes at once", async () => {
    const chats = await Promise.all(Array.from({ length: 20 }, () => closedChat(sql, now - 9 * dayMs, 15)))
    await Promise.all(Array.from({ length: 5 }, () => erase(now, 3)))
    await erase(now, 3)
    for (const chat of chats) expect([await textsOf(sql, chat), await isErased(sql, chat)]).toEqual([0, true])
  })

  it("erases nothing that is past its time only by a clock that runs ahead, nor without a setting", async () => {
    const [young, old] = [await closedChat(sql, Date.now() - 2 * dayMs, 1), await closedChat(sql, now, 1)]
    await keepUp(sql, now + 1_000 * dayMs)
    expect(await textsOf(sql, old)).toBe(1)
    await erase(Date.now() + 1_000 * dayMs, 3)
    expect([await textsOf(sql, young), await textsOf(sql, old)]).toEqual([1, 0])
  })

  it("forgets late cancels of days past, letters long sent or given up, and nodes that are gone, and nothing that still counts", async () => {
    const [account, agent] = [randomUUID(), randomUUID()]
    for (const days of [4, 3, 2, 1, 0]) await sql`insert into late_cancels values (${account}, ${agent}, ${at(now - days * dayMs).toISOString().slice(0, 10)}, 1)`
    const letter = (name: string, ended: { sent_at?: Date; failed_at?: Date }) => sql`
      insert into letters ${sql({ id: randomUUID(), kind: "receipt", account_id: account, session_id: name, created_at: at(now - 99 * dayMs), next_attempt_at: at(now), ...ended })}`
    await letter("sent long ago", { sent_at: at(now - 30 * dayMs - 1) })
    await letter("sent", { sent_at: at(now - 30 * dayMs) })
    await letter("given up long ago", { failed_at: at(now - 30 * dayMs - 1) })
    await letter("given up", { failed_at: at(now - 30 * dayMs) })
    await letter("waiting", {})
    const nodes = [randomUUID(), randomUUID()] as const
    await sql`insert into chat_nodes values (${nodes[0]}, ${at(now - dayMs - 1)}), (${nodes[1]}, ${at(now - dayMs)})`
    await keepUp(sql, now)
    expect(await sql`select day::text as day from late_cancels order by 1`).toEqual(["2021-05-15", "2021-05-16", "2021-05-17"].map((day) => ({ day })))
    expect(await sql`select session_id as name from letters order by 1`).toEqual(["given up", "sent", "waiting"].map((name) => ({ name })))
    expect(await sql`select id from chat_nodes`).toEqual([{ id: nodes[1] }])
  })
})
