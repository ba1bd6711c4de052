/** What is asked of many sessions' rows at once, without a database. */
import { Effect, Fiber } from "effect"
import { describe, expect, it } from "vitest"
import { StoreUnavailable } from "../../../../src/domain/errors.ts"
import type { AccountId, SessionId } from "../../../../src/domain/ids.ts"
import type { ChatSession } from "../../../../src/kernel/chat/ChatSession.ts"
import { InBulk } from "../../../../src/kernel/chat/InBulk.ts"
import { SessionCheck } from "../../../../src/kernel/chat/SessionCheck.ts"
import type { OwnedSession, StandingSession } from "../../../../src/store/SessionStore.ts"
import { log } from "../../../../src/telemetry/log.ts"

const one = (id: string, accountId = "owner"): OwnedSession => ({ id: id as SessionId, accountId: accountId as AccountId })

describe("asking in bulk", () => {
  it("is one statement for many, and everybody who asks is answered", async () => {
    const batches: Array<ReadonlyArray<OwnedSession>> = []
    const bulk = new InBulk((all: ReadonlyArray<OwnedSession>) => {
      batches.push(all)
      return Effect.succeed(new Map(all.map((session) => [session.id, session])))
    })
    const asked = Array.from({ length: 600 }, (_, n) => one(`s${n}`))
    const answers = await Promise.all([...asked, asked[0]!, asked[599]!].map((session) => Effect.runPromise(bulk.ask(session))))
    expect(answers).toEqual([...asked, asked[0], asked[599]])
    expect(batches.map(({ length }) => length)).toEqual([500, 102])
  })

  it("tells nobody of a session that is another account's, though its owner asks in the same statement", async () => {
    const bulk = new InBulk(() => Effect.succeed(new Map([["s" as SessionId, one("s")]])))
    expect(await Promise.all([one("s"), one("s", "thief")].map((session) => Effect.runPromise(bulk.ask(session))))).toEqual([one("s"), undefined])
  })

  it("fails all of a statement, and asks again for who comes after", async () => {
    let fails = true
    const bulk = new InBulk((all: ReadonlyArray<OwnedSession>) => fails
      ? Effect.fail(new StoreUnavailable({ retryAfterMs: 1 })) : Effect.succeed(new Map(all.map((session) => [session.id, session]))))
    await Promise.all([one("a"), one("b")].map((session) => expect(Effect.runPromise(bulk.ask(session))).rejects.toThrow()))
    fails = false
    expect(await Effect.runPromise(bulk.ask(one("a")))).toEqual(one("a"))
  })
})

describe("looking after sessions in memory", () => {
  /** A session that remembers what it was told. */
  const sessionOf = (id: string, isOpen = true) => {
    const told: Array<unknown> = []
    const session = { id, subjectId: `key of ${id}`, isOpen, stands: (row: unknown) => told.push(row), revoked: (subjectId: unknown) => told.push(subjectId) }
    return { told, session: session as unknown as ChatSession }
  }

  const checked = async (rows: ReadonlyMap<string, StandingSession>, failures: number, sessions: ReadonlyArray<ChatSession>, isDone: () => boolean): Promise<number> => {
    let reads = 0
    const read = (): Effect.Effect<never, StoreUnavailable> => reads++ < failures ? Effect.fail(new StoreUnavailable({ retryAfterMs: 1 })) : Effect.succeed(rows as never)
    const check = new SessionCheck(read as never)
    for (const session of sessions) check.look(session)
    const running = Effect.runFork(check.run)
    while (!isDone()) await new Promise((later) => setImmediate(later))
    await Effect.runPromise(Fiber.interrupt(running))
    return reads
  }

  it("tells each how its row stands, and of its revoked key, in one look; those that are over are not looked at", async () => {
    const row: StandingSession = { isActive: true, term: 2n, isRevoked: false }
    const [moved, revoked, gone, over] = [sessionOf("moved"), sessionOf("revoked"), sessionOf("gone"), sessionOf("over", false)]
    const rows = new Map([["moved", row], ["revoked", { ...row, isRevoked: true }]])
    expect(await checked(rows, 0, [moved, revoked, gone, over].map(({ session }) => session), () => gone.told.length > 0)).toBe(1)
    expect([moved.told, revoked.told, gone.told, over.told]).toEqual([[row], [{ ...row, isRevoked: true }, "key of revoked"], [undefined], []])
  })

  it("lets none go unseen while the database does not answer, and looks again", async () => {
    log.level = "silent"
    const session = sessionOf("s")
    expect(await checked(new Map(), 1, [session.session], () => session.told.length > 0)).toBe(2)
    expect(session.told).toEqual([undefined])
  })
})
