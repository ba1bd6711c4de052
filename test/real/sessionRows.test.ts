/** Sessions as rows, on a real PostgreSQL: closing, taking over, and looking after many in one statement. */
import { randomBytes, randomUUID } from "node:crypto"
import { Effect, Layer, ManagedRuntime } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { SubjectId } from "../../src/domain/account.ts"
import type { AccountId, SessionId } from "../../src/domain/ids.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { Postgres, type Sql, connect } from "../../src/store/Postgres.ts"
import { type OwnedSession, type SessionEnd, adoptSessions, beatAndFindOrphans, closeSessions, standingSessions } from "../../src/store/SessionStore.ts"
import { newAccount } from "../support/ledgerRows.ts"
import { type TestDatabase, freshDatabase } from "../support/postgres.ts"

let database: TestDatabase
let sql: Sql
let runtime: ManagedRuntime.ManagedRuntime<Postgres, unknown>
beforeAll(async () => {
  database = await freshDatabase()
  sql = connect(database.options, { max: 4, statementTimeoutMs: 10_000, name: "tollgate-test" })
  await migrate(sql)
  runtime = ManagedRuntime.make(Postgres.layer(database.options).pipe(Layer.orDie))
})
afterAll(async () => {
  await runtime.dispose()
  await sql.end({ timeout: 1 })
  await database.drop()
})

const run = <A, E>(effect: Effect.Effect<A, E, Postgres>): Promise<A> => runtime.runPromise(effect)

const newSession = async ({ nodeId = randomUUID() as string, consumed = 0n, subjectId = randomUUID() as string } = {}): Promise<OwnedSession & { readonly nodeId: string; readonly subjectId: SubjectId }> => {
  const accountId = await newAccount(sql)
  const id = `ses_${randomUUID().replaceAll("-", "")}` as SessionId
  await sql`insert into sessions (id, account_id, subject_id, agent_id, node_id, price, consumed, started_at) values (${id}, ${accountId}, ${subjectId}, ${randomUUID()}, ${nodeId}, 10, ${consumed}, now())`
  return { id, accountId, nodeId, subjectId: subjectId as SubjectId }
}

const endOf = ({ id, accountId }: OwnedSession, more: Partial<SessionEnd> = {}): SessionEnd => ({ id, accountId, term: undefined, reason: "closed by its owner", letterId: undefined, ...more })
const receiptFrom = 1_000n
const close = async (...ends: ReadonlyArray<SessionEnd>) => [...(await run(closeSessions(ends, receiptFrom))).values()]
const statusOf = async ({ id }: OwnedSession) => (await sql<Array<{ status: string; close_reason: string | null }>>`select status, close_reason from sessions where id = ${id}`)[0]

describe("closing", () => {
  it("is done once, and says what it closed, under which term", async () => {
    const [session, other] = [await newSession(), await newSession()]
    await sql`update sessions set term = 4 where id = ${session.id}`
    expect(await close(endOf(session), endOf(other), endOf(session))).toEqual(expect.arrayContaining([
      { id: session.id, accountId: session.accountId, term: 4n }, { id: other.id, accountId: other.accountId, term: 1n }
    ]))
    expect(await close(endOf(session, { reason: "again" }))).toEqual([])
    expect(await statusOf(session)).toEqual({ status: "closed", close_reason: "closed by its owner" })
  })

  it("leaves a session alone that has another term by now, or is another account's", async () => {
    const [taken, foreign] = [await newSession(), await newSession()]
    await sql`update sessions set term = 2 where id = ${taken.id}`
    expect(await close(endOf(taken, { term: 1n }), { ...endOf(foreign), accountId: taken.accountId })).toEqual([])
    expect([await statusOf(taken), await statusOf(foreign)]).toMatchObject([{ status: "active" }, { status: "active" }])
    expect(await close(endOf(taken, { term: 2n }))).toHaveLength(1)
  })

  it("brings one letter to whom it cost enough, if letters are sent", async () => {
    const [dear, cheap, silent] = [await newSession({ consumed: receiptFrom }), await newSession({ consumed: receiptFrom - 1n }), await newSession({ consumed: receiptFrom })]
    const letterId = randomUUID()
    await close(endOf(dear, { letterId }), endOf(dear, { letterId }), endOf(cheap, { letterId: randomUUID() }), endOf(silent))
    await close(endOf(dear, { letterId: randomUUID() }))
    expect(await sql`select id, kind, session_id, attempts, sent_at from letters where session_id in (${dear.id}, ${cheap.id}, ${silent.id})`)
      .toEqual([{ id: letterId, kind: "receipt", session_id: dear.id, attempts: 0, sent_at: null }])
  })

  it("from many sides at once deadlocks nobody, and closes each session for one of them", async () => {
    const sessions = await Promise.all(Array.from({ length: 20 }, () => newSession()))
    const closed = (await Promise.all(Array.from({ length: 6 }, (_, turn) => close(...(turn % 2 === 0 ? sessions : sessions.toReversed()).map((session) => endOf(session)))))).flat()
    expect(closed.map(({ id }) => id).sort()).toEqual(sessions.map(({ id }) => id).sort())
  })
})

describe("taking over", () => {
  it("says whether the node before may know nothing of it, and whether it left in good order", async () => {
    const [live, parked, own, cut] = [await newSession(), await newSession(), await newSession({ nodeId: "00000000-0000-4000-8000-000000000001" }), await newSession()]
    await sql`update sessions set parked_at = now(), interrupted = id = ${cut.id} where id in (${parked.id}, ${cut.id})`
    const adopted = await run(adoptSessions(own.nodeId, [live, parked, own, cut, live]))
    expect([live, parked, own, cut].map(({ id }) => adopted.get(id))).toMatchObject([
      { term: 2n, isTaken: true, leftWhole: false }, { term: 2n, isTaken: false, leftWhole: true },
      { term: 1n, isTaken: false, leftWhole: false }, { term: 2n, isTaken: false, leftWhole: false }
    ])
  })
})

describe("looking after sessions", () => {
  it("tells what is closed, what has another term, and whose key was revoked", async () => {
    const [closed, taken, sound, revoked] = [await newSession(), await newSession(), await newSession(), await newSession()]
    await close(endOf(closed))
    await sql`update sessions set term = 2 where id = ${taken.id}`
    for (const [session, status] of [[sound, "active"], [revoked, "revoked"]] as const) {
      await sql`insert into api_keys (id, account_id, dialect, name, key_hash, key_prefix, scopes, status, revoked_at)
                values (${session.subjectId}, ${session.accountId}, 'autx', 'k', ${randomBytes(32)}, 'p', '{}', ${status}, ${status === "revoked" ? new Date() : null})`
    }
    const unknown = { id: `ses_${"0".repeat(32)}` as SessionId, accountId: randomUUID() as string as AccountId, subjectId: randomUUID() as string as SubjectId }
    const rows = await run(standingSessions([closed, taken, sound, revoked, unknown]))
    expect([closed, taken, sound, revoked, unknown].map(({ id }) => rows.get(id))).toEqual([
      { isActive: false, term: 1n, isRevoked: false }, { isActive: true, term: 2n, isRevoked: false },
      { isActive: true, term: 1n, isRevoked: false }, { isActive: true, term: 1n, isRevoked: true }, undefined
    ])
  })

  it("finds those of nodes that stopped saying that they live, with their terms", async () => {
    const [dead, live] = [await newSession(), await newSession()]
    await sql`insert into chat_nodes (id, seen_at) values (${dead.nodeId}, now() - interval '1 hour'), (${live.nodeId}, now())`
    const orphans = await run(beatAndFindOrphans(randomUUID(), 60_000))
    expect(orphans).toContainEqual({ id: dead.id, accountId: dead.accountId, term: 1n })
    expect(orphans.map(({ id }) => id)).not.toContain(live.id)
  })
})
