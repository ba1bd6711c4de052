import { randomUUID } from "node:crypto"
import { Effect, Layer, ManagedRuntime } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { AccountId, AgentId, KeyId, OrderId, SessionId, Token } from "../../src/domain/ids.ts"
import type { CommitOutcome, CommitRows, TurnRow } from "../../src/store/Commit.ts"
import { Committer } from "../../src/store/Committer.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { Postgres, type Sql } from "../../src/store/Postgres.ts"
import { audit } from "../../src/store/Audit.ts"
import { metrics } from "../../src/telemetry/Metrics.ts"
import { type CutProxy, startCutProxy } from "../support/CutProxy.ts"
import { until } from "../support/GatewayProcess.ts"
import { balanceOf, debit, newAccount, submitted, takeToken, transaction } from "../support/ledgerRows.ts"
import { type TestDatabase, freshDatabase } from "../support/postgres.ts"

/** Stands in the parameters of a batch, not in its text: what is cut is its execution, not its preparation. */
const boundBatch = `{"(`

const open = async (options: TestDatabase["options"]) => {
  const runtime = ManagedRuntime.make(Committer.layer.pipe(Layer.provideMerge(Postgres.layer(options))))
  const lost: Array<readonly [AccountId, Token]> = []
  const { committer, sql } = await runtime.runPromise(Effect.gen(function*() {
    const committer = yield* Committer
    committer.onLost((id, token) => lost.push([id, token]))
    return { committer, sql: (yield* Postgres).reads }
  }))
  return { committer, sql, lost, submit: committer.submit, close: () => runtime.dispose() }
}

describe("the committer", () => {
  let database: TestDatabase
  let proxy: CutProxy
  let sql: Sql
  let node: Awaited<ReturnType<typeof open>>

  beforeAll(async () => {
    database = await freshDatabase()
    proxy = await startCutProxy(database.options)
    node = await open(proxy.options)
    const direct = await open(database.options)
    sql = direct.sql
    await migrate(sql)
  })
  afterAll(async () => {
    await node.close()
    await proxy.close()
    await database.drop()
  })

  const refusedBatches = async (): Promise<number> =>
    (await metrics.batches.get()).values.find(({ labels }) => labels["outcome"] === "refused")?.value ?? 0
  const outcomes = async (requests: ReadonlyArray<Promise<CommitOutcome>>) => (await Promise.all(requests)).map((outcome) => outcome._tag)

  it("makes many decisions of many accounts durable in few batches", async () => {
    const ids = await Promise.all(Array.from({ length: 20 }, () => newAccount(sql, 1_000n)))
    const tokens = await Promise.all(ids.map((id) => takeToken(sql, id)))
    const [before] = await sql<Array<{ count: bigint }>>`select count(*) from batches`
    const told = await outcomes(ids.flatMap((id, index) => Array.from({ length: 10 }, () => submitted(node.submit, id, tokens[index]!, { transactions: [debit(7n)] }))))
    expect(told).toEqual(Array(200).fill("committed"))
    for (const id of ids) expect(await balanceOf(sql, id)).toBe(930n)
    const [after] = await sql<Array<{ count: bigint }>>`select count(*) from batches`
    expect(after!.count - before!.count).toBeLessThanOrEqual(2n)
    const rows = await sql<Array<{ balance_after: bigint }>>`select balance_after from transactions where account_id = ${ids[0]!} and type = 'fee' order by balance_after desc`
    expect(rows.map((row) => row.balance_after)).toEqual(Array.from({ length: 10 }, (_, i) => 993n - 7n * BigInt(i)))
  })

  it("refuses a stale token, tells who is lost, and lets the neighbours in the batch through", async () => {
    const [stale, current] = [await newAccount(sql, 100n), await newAccount(sql, 100n)]
    const old = await takeToken(sql, stale)
    await takeToken(sql, stale)
    const token = await takeToken(sql, current)
    const told = await outcomes([
      submitted(node.submit, stale, old, { transactions: [debit(10n)] }),
      submitted(node.submit, current, token, { transactions: [debit(10n)] })
    ])
    expect(told).toEqual(["refused", "committed"])
    expect([await balanceOf(sql, stale), await balanceOf(sql, current)]).toEqual([100n, 90n])
    expect(node.lost).toContainEqual([stale, old])
  })

  it("aborts only the account whose rows the database refuses", async () => {
    const [poor, rich] = [await newAccount(sql, 5n), await newAccount(sql, 100n)]
    const tokens = [await takeToken(sql, poor), await takeToken(sql, rich)] as const
    const [bad, good] = await Promise.all([
      submitted(node.submit, poor, tokens[0], { transactions: [debit(10n)] }),
      submitted(node.submit, rich, tokens[1], { transactions: [debit(10n)] })
    ])
    expect(bad).toEqual({ _tag: "aborted", constraint: "accounts_available_not_negative" })
    expect(good).toEqual({ _tag: "committed" })
    expect([await balanceOf(sql, poor), await balanceOf(sql, rich)]).toEqual([5n, 90n])
  })

  it("refuses an account whose token is raised while the batch waits for its row", async () => {
    const [raised, kept] = [await newAccount(sql, 100n), await newAccount(sql, 100n)]
    const tokens = [await takeToken(sql, raised), await takeToken(sql, kept)] as const
    let told: ReadonlyArray<Promise<CommitOutcome>> = []
    await sql.begin(async (other) => {
      await other`update accounts set token = token + 1 where id = ${raised}`
      told = [
        submitted(node.submit, raised, tokens[0], { transactions: [debit(10n)] }),
        submitted(node.submit, kept, tokens[1], { transactions: [debit(10n)] })
      ]
      await until(async () => (await sql`select from pg_stat_activity where datname = current_database() and application_name = 'tollgate-committer' and wait_event_type = 'Lock'`).length === 1)
    })
    expect(await outcomes(told)).toEqual(["refused", "committed"])
    expect([await balanceOf(sql, raised), await balanceOf(sql, kept)]).toEqual([100n, 90n])
  })

  it("never waits in a circle with another committer, whatever the order of their requests", async () => {
    const ids = await Promise.all(Array.from({ length: 100 }, () => newAccount(sql, 1_000n)))
    const tokens = await Promise.all(ids.map((id) => takeToken(sql, id)))
    const other = await open(database.options)
    const refusedBefore = await refusedBatches()
    const pay = (submit: typeof node.submit, at: number) => submitted(submit, ids[at]!, tokens[at]!, { transactions: [debit(1n)] })
    const rounds = 20
    for (let round = 0; round < rounds; round++) {
      const forth = ids.map((_, at) => pay(node.submit, at))
      const back = ids.map((_, at) => pay(other.submit, ids.length - 1 - at))
      expect(await outcomes([...forth, ...back])).toEqual(Array(2 * ids.length).fill("committed"))
    }
    await other.close()
    // A deadlock would have been one: the server ends it by aborting a batch, which is then sent again.
    expect(await refusedBatches() - refusedBefore).toBe(0)
    for (const id of ids) expect(await balanceOf(sql, id)).toBe(1_000n - 2n * BigInt(rounds))
  })

  it("writes a reference down character by character", async () => {
    const id = await newAccount(sql, 1_000n)
    const token = await takeToken(sql, id)
    const references = ["", " ", "null", `"`, "\\", `\\"`, `a,b`, "(1)", "{2}", `"),(`, `")","(`, "\n\t", "ünï ✓ 😀", `'; drop table accounts; --`, undefined]
    const rows = references.map((reference) => transaction({ type: "fee", available: -1n, fee: 1n, reference }))
    expect(await submitted(node.submit, id, token, { transactions: rows })).toEqual({ _tag: "committed" })
    const kept = await sql<Array<{ id: string; reference: string | null }>>`select id, reference from transactions where account_id = ${id} and type = 'fee'`
    const byId = new Map(kept.map((row) => [row.id, row.reference]))
    expect(rows.map((row) => byId.get(row.id))).toEqual(references.map((reference) => reference ?? null))
  })

  it("never sends an order's money without its end, nor a call without its transaction", async () => {
    const id = await newAccount(sql, 100n)
    const token = await takeToken(sql, id)
    const refund = transaction({ type: "refund", available: 10n, reserved: -10n, orderId: randomUUID() as string as OrderId })
    const usage = { id: randomUUID(), accountId: id, subjectId: id as never, agentId: id as never, call: "proxy" as const, status: 200, cost: 1n, latencyMs: 1, atMs: Date.now() }
    expect(await outcomes([submitted(node.submit, id, token, { transactions: [refund] })])).toEqual(["refused"])
    expect(await outcomes([submitted(node.submit, id, await takeToken(sql, id), { transactions: [debit(1n)], usage: [usage] })])).toEqual(["refused"])
    expect([await balanceOf(sql, id), (await sql`select from usage`).length]).toEqual([100n, 0])
  })

  it("never sends a transaction whose sides don't sum to zero", async () => {
    const id = await newAccount(sql, 100n)
    const token = await takeToken(sql, id)
    expect(await outcomes([submitted(node.submit, id, token, { transactions: [transaction({ available: -10n, fee: 9n })] })])).toEqual(["refused"])
    expect(await balanceOf(sql, id)).toBe(100n)
  })

  it("credits earnings of another account as a delta, without its token", async () => {
    const [buyer, seller] = [await newAccount(sql, 100n), await newAccount(sql)]
    const token = await takeToken(sql, buyer)
    await submitted(node.submit, buyer, token, { transactions: [transaction({ type: "fee", available: -100n, earned: 72n, earnerId: seller, fee: 10n, buyback: 18n })] })
    expect(await sql`select posted from earnings where account_id = ${seller}`).toMatchObject([{ posted: 72n }])
  })

  it("takes a whole request back when its order is no longer pending, or its earner has no earnings", async () => {
    const id = await newAccount(sql, 100n)
    const orderId = randomUUID() as string as OrderId
    const refund = transaction({ type: "refund", available: 10n, reserved: -10n, orderId })
    const finished = [{ id: orderId, status: "failed" as const, fee: 0n, outputHash: undefined, outputText: undefined, error: "x", completedAtMs: Date.now() }]
    expect(await submitted(node.submit, id, await takeToken(sql, id), { transactions: [refund, debit(1n)], finished })).toMatchObject({ _tag: "aborted" })
    const nobody = transaction({ type: "fee", available: -10n, earned: 10n, earnerId: randomUUID() as string as AccountId })
    expect(await submitted(node.submit, id, await takeToken(sql, id), { transactions: [nobody] })).toMatchObject({ _tag: "aborted" })
    expect(await balanceOf(sql, id)).toBe(100n)
  })

  describe("of a chat session", () => {
    const agentId = randomUUID() as string as AgentId
    const subjectId = randomUUID() as string as KeyId

    /** A buyer with 100 and a session, as it is after it was opened. */
    const newSession = async () => {
      const id = await newAccount(sql, 100n)
      const token = await takeToken(sql, id)
      const sessionId = `ses_${randomUUID().replaceAll("-", "")}` as SessionId
      const commit = (rows: CommitRows) => submitted(node.submit, id, token, rows)
      expect(await commit({ sessions: [{ id: sessionId, subjectId, agentId, nodeId: randomUUID(), price: 10n, startedAtMs: Date.now() }] })).toEqual({ _tag: "committed" })
      return { id, token, sessionId, commit }
    }
    type Session = Awaited<ReturnType<typeof newSession>>

    /** A turn with its charge and its call. */
    const turnOf = ({ id, sessionId }: Session, messageIndex: number, more: Partial<TurnRow> = {}): CommitRows => {
      const orderId = randomUUID() as string as OrderId
      const charge = transaction({ available: -10n, fee: 10n, orderId, agentId, subjectId })
      return {
        transactions: [charge],
        usage: [{ id: charge.id, accountId: id, subjectId, agentId, call: "chat", status: 200, cost: 10n, latencyMs: 1, atMs: charge.atMs }],
        turns: [{
          id: orderId, sessionId, term: 1n, subjectId, agentId, messageId: undefined, messageIndex, prompt: "say \"hi\"\\", amount: 10n, fee: 10n,
          outputHash: "sha256:00", outputText: "hi ✓", createdAtMs: charge.atMs - 5, completedAtMs: charge.atMs, ...more
        }]
      }
    }
    const chatOf = async ({ id, sessionId }: Session) => ({
      balance: await balanceOf(sql, id),
      session: (await sql`select status, message_count, consumed from sessions where id = ${sessionId}`)[0],
      turns: (await sql<Array<{ message_index: number }>>`select message_index from orders where session_id = ${sessionId} order by 1`).map((row) => row.message_index),
      calls: (await sql`select from usage where account_id = ${id}`).length
    })
    const soundBooks = async () => expect((await audit(sql)).filter((check) => !check.ok)).toEqual([])

    it("makes a turn durable with its charge, its call, and what the session has come to", async () => {
      const session = await newSession()
      expect(await session.commit(turnOf(session, 1, { messageId: "m" }))).toEqual({ _tag: "committed" })
      expect(await session.commit({ turns: turnOf(session, 2, { amount: 0n, fee: 0n }).turns! })).toEqual({ _tag: "committed" })
      expect(await chatOf(session)).toEqual({ balance: 90n, session: { status: "active", message_count: 2, consumed: 10n }, turns: [1, 2], calls: 1 })
      expect(await sql`select status, prompt, payment_method, output_text, message_id, token from orders where session_id = ${session.sessionId} and message_index = 1`)
        .toEqual([{ status: "completed", prompt: "say \"hi\"\\", payment_method: "credits", output_text: "hi ✓", message_id: "m", token: session.token }])
      await soundBooks()
    })

    it("takes back the whole request of a turn that comes after the close, of an earlier term, or out of turn, and its neighbours don't notice", async () => {
      const [closed, taken, skipped, repeated, foreign, good] = await Promise.all([newSession(), newSession(), newSession(), newSession(), newSession(), newSession()])
      await sql`update sessions set status = 'closed', closed_at = now() where id = ${closed.sessionId}`
      await sql`update sessions set term = term + 1 where id = ${taken.sessionId}`
      await repeated.commit(turnOf(repeated, 1))
      const told = await Promise.all([
        closed.commit(turnOf(closed, 1)), taken.commit(turnOf(taken, 1)), skipped.commit(turnOf(skipped, 2)), repeated.commit(turnOf(repeated, 1)),
        foreign.commit(turnOf(foreign, 1, { sessionId: good.sessionId })), good.commit(turnOf(good, 1))
      ])
      expect(told.map(({ _tag }) => _tag)).toEqual(["aborted", "aborted", "aborted", "aborted", "aborted", "committed"])
      for (const session of [closed, taken, skipped, foreign]) {
        expect(await chatOf(session)).toEqual({ balance: 100n, session: { status: session === closed ? "closed" : "active", message_count: 0, consumed: 0n }, turns: [], calls: 0 })
      }
      const one = { balance: 90n, session: { status: "active", message_count: 1, consumed: 10n }, turns: [1], calls: 1 }
      expect([await chatOf(repeated), await chatOf(good)]).toEqual([one, one])
      await soundBooks()
    })

    it("has one turn for each of a client's message ids, and no bound on those without", async () => {
      const [session, other] = [await newSession(), await newSession()]
      await session.commit(turnOf(session, 1, { messageId: "first" }))
      expect(await session.commit(turnOf(session, 2, { messageId: "first" }))).toEqual({ _tag: "aborted", constraint: "orders_message_once" })
      const again = { ...session, token: await takeToken(sql, session.id) }
      for (const [at, messageId] of ["second", undefined, undefined].entries()) {
        expect(await submitted(node.submit, again.id, again.token, turnOf(session, 2 + at, { messageId }))).toEqual({ _tag: "committed" })
      }
      expect(await other.commit(turnOf(other, 1, { messageId: "first" }))).toEqual({ _tag: "committed" })
      expect(await chatOf(session)).toEqual({ balance: 60n, session: { status: "active", message_count: 4, consumed: 40n }, turns: [1, 2, 3, 4], calls: 4 })
    })

    it("counts the late cancels of a buyer with an agent and a UTC day, in one batch and over several", async () => {
      const { id, commit } = await newSession()
      const day = Date.parse("2026-03-01T23:59:59.999Z")
      const cancel = (atMs: number, agent = agentId) => commit({ lateCancels: [{ agentId: agent, atMs }] })
      const other = randomUUID() as string as AgentId
      await Promise.all([cancel(day), cancel(day - 5), cancel(day + 1), cancel(day, other)])
      await cancel(day)
      expect(await sql`select agent_id, day::text as day, cancels from late_cancels where account_id = ${id} order by day, cancels`).toEqual([
        { agent_id: other, day: "2026-03-01", cancels: 1 }, { agent_id: agentId, day: "2026-03-01", cancels: 3 }, { agent_id: agentId, day: "2026-03-02", cancels: 1 }
      ])
    })
  })

  it("drops what still waits of an account that was lost, before it is sent", async () => {
    const id = await newAccount(sql, 100n)
    const old = await takeToken(sql, id)
    await takeToken(sql, id)
    const first = submitted(node.submit, id, old, { transactions: [debit(1n)] })
    // The first batch is in flight when the second request is submitted.
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
    const second = submitted(node.submit, id, old, { transactions: [debit(1n)] })
    expect(await outcomes([first, second])).toEqual(["refused", "refused"])
    expect(await balanceOf(sql, id)).toBe(100n)
  })

  it("tells the true outcome when the connection is cut after the send", async () => {
    const id = await newAccount(sql, 100n)
    const token = await takeToken(sql, id)
    const cut = proxy.arm("beforeAnswer", boundBatch)
    const outcome = submitted(node.submit, id, token, { transactions: [debit(10n)] })
    await cut
    expect((await outcome)._tag).toBe("committed")
    expect(await balanceOf(sql, id)).toBe(90n)
    expect(node.lost).toContainEqual([id, token])
  })

  it("tells the true outcome when the connection is cut before the statement arrives", async () => {
    const id = await newAccount(sql, 100n)
    const token = await takeToken(sql, id)
    const cut = proxy.arm("beforeSend", boundBatch)
    const outcome = submitted(node.submit, id, token, { transactions: [debit(10n)] })
    await cut
    expect((await outcome)._tag).toBe("refused")
    expect(await balanceOf(sql, id)).toBe(100n)
  })

  it("keeps balance and entries equal over a thousand cuts at random places", async () => {
    const rounds = 1_000
    const ids = await Promise.all(Array.from({ length: 4 }, () => newAccount(sql, 1_000_000n)))
    const expected = new Map(ids.map((id) => [id, 1_000_000n]))
    const before = proxy.cuts()
    for (let round = 0; round < rounds; round++) {
      const tokens = await Promise.all(ids.map((id) => takeToken(sql, id)))
      const cut = proxy.arm(round % 3 === 0 ? "beforeSend" : "beforeAnswer", boundBatch)
      const told = await Promise.all(ids.map((id, index) => submitted(node.submit, id, tokens[index]!, { transactions: [debit(BigInt(1 + round % 5))] })))
      await cut
      told.forEach((outcome, index) => {
        expect(outcome._tag).not.toBe("unknown")
        if (outcome._tag === "committed") expected.set(ids[index]!, expected.get(ids[index]!)! - BigInt(1 + round % 5))
      })
    }
    expect(proxy.cuts() - before).toBe(rounds)
    for (const id of ids) expect(await balanceOf(sql, id)).toBe(expected.get(id))
    expect((await audit(sql)).filter((check) => !check.ok)).toEqual([])
  }, 240_000)

  it("refuses at once while the database is away, and goes on when it is back", async () => {
    const id = await newAccount(sql, 100n)
    const token = await takeToken(sql, id)
    proxy.sever()
    const first = submitted(node.submit, id, token, { transactions: [debit(10n)] })
    while (node.committer.available()) await new Promise((resolve) => setTimeout(resolve, 5))
    expect((await submitted(node.submit, id, token, { transactions: [debit(10n)] }))._tag).toBe("refused")
    proxy.restore()
    expect((await first)._tag).toBe("refused")
    while (!node.committer.available()) await new Promise((resolve) => setTimeout(resolve, 20))
    const again = await takeToken(sql, id)
    expect((await submitted(node.submit, id, again, { transactions: [debit(10n)] }))._tag).toBe("committed")
    expect(await balanceOf(sql, id)).toBe(90n)
  })
})
