/** Where a turn's money is by the time its agent is done: still held, gone with a lease, or no longer there. */
import { Effect } from "effect"
import { beforeEach, describe, expect, it } from "vitest"
import type { Account, Hold, Subject, Transaction } from "../../../../src/domain/account.ts"
import type { Agent } from "../../../../src/domain/agent.ts"
import type { AccountId, AgentId, KeyId, OrderId, SessionId, Token } from "../../../../src/domain/ids.ts"
import { decide } from "../../../../src/domain/ledger.ts"
import { makeRateWindow } from "../../../../src/domain/rateLimit.ts"
import type { Caller } from "../../../../src/kernel/Caller.ts"
import type { ChatParts } from "../../../../src/kernel/chat/Chat.ts"
import type { ChatTurn } from "../../../../src/kernel/chat/ChatTurn.ts"
import { SessionHold } from "../../../../src/kernel/chat/SessionHold.ts"
import { type Charged, chargeTurn } from "../../../../src/kernel/chat/TurnCharge.ts"
import type { Spender } from "../../../../src/kernel/lease/Spending.ts"
import type { CommitOutcome, CommitRows } from "../../../../src/store/Commit.ts"

const accountId = "a" as AccountId
const callerOf = (subjectId: string): Caller => ({ accountId, kind: "key", dialect: "autx", subjectId: subjectId as KeyId, loginId: undefined, expiresAtMs: Infinity })
const agent = {
  id: "agent" as AgentId, ticker: "AGENT", price: 10n, ownerId: "seller" as AccountId, dialect: "autx", paymentMethod: "credits", providerSinceMs: undefined, createdAtMs: 0
} as unknown as Agent
const turn = { id: "order" as OrderId, messageId: "m", prompt: "p", text: "t", status: 200, startedAtMs: 0 } as unknown as ChatTurn

const accountWith = (available: bigint): Account => {
  const subjects = ["key", "other"].map((id): [KeyId, Subject] => [id as KeyId, {
    id: id as KeyId, kind: "key", scopes: undefined, revoked: false, expiresAtMs: Infinity, limit: 60, window: makeRateWindow(), budgets: [], held: 0n
  }])
  return {
    id: accountId, token: 1n as Token, suspended: false, emailVerified: true, available, reserved: 0n, held: 0n,
    holds: new Map(), orders: new Map(), subjects: new Map(subjects), leases: new Map(), calls: new Map()
  }
}

let account: Account
/** What was submitted, and how each submission ends; the rest is committed. */
let submitted: Array<Transaction>
let outcomes: Array<() => CommitOutcome>
let released: Array<string>

const parts = {
  agents: { resident: () => undefined },
  settings: { chatIdleSeconds: 60, chatResumeSeconds: 60 },
  spending: {
    resident: () => account,
    ask: (_: Spender, decideOn: (account: Account, nowMs: number) => unknown) => Effect.sync(() => decideOn(account, Date.now())),
    act: (_: Spender, decideOn: (account: Account, nowMs: number) => Effect.Effect<unknown, unknown>) => Effect.suspend(() => decideOn(account, Date.now())),
    submit: (_: Account, rows: CommitRows, __: unknown, done: (outcome: CommitOutcome) => void) => {
      submitted.push(...rows.transactions ?? [])
      done(outcomes.shift()?.() ?? { _tag: "committed" })
    },
    release: ({ subjectId }: Spender, holdId: Hold["id"]) => {
      released.push(subjectId)
      decide(account, { _tag: "Release", holdId }, 0)
    },
    withMoney: (_: Spender, __: bigint, attempt: unknown) => attempt
  }
} as unknown as ChatParts

const newHold = () => new SessionHold(parts, "ses" as SessionId, agent, callerOf("key"))
const charge = (hold: SessionHold): Promise<Charged> => new Promise((done) => chargeTurn(parts, { turn, hold, term: 1n, messageIndex: 1, consumed: 0n }, done))
const amountHeld = (hold: SessionHold): Promise<bigint> => Effect.runPromise(hold.held)
const topUp = (hold: SessionHold, caller?: Caller): Promise<bigint> => Effect.runPromise(hold.topUp(caller))

beforeEach(() => {
  account = accountWith(100n)
  submitted = []
  outcomes = []
  released = []
})

describe("a turn is charged", () => {
  it("to the session's hold, whose rest stays", async () => {
    const hold = newHold()
    expect(await topUp(hold)).toBe(50n)
    expect(await charge(hold)).toMatchObject({ _tag: "charged", finished: { charged: 10n, remaining: 50n, held: 40n, sessionTotal: 10n } })
    expect(submitted).toMatchObject([{ type: "charge", available: -10n, subjectId: "key" }])
  })

  it("after the money was held anew, when its account is decided elsewhere by then", async () => {
    const hold = newHold()
    await topUp(hold)
    account = accountWith(15n)
    expect(await charge(hold)).toMatchObject({ _tag: "charged", finished: { charged: 10n, remaining: 5n, held: 0n } })
    expect(submitted).toHaveLength(1)
    expect(account).toMatchObject({ available: 5n, held: 0n })
  })

  it("after the money was held anew, when more is held than there is", async () => {
    const hold = newHold()
    await topUp(hold)
    account.available = 12n
    expect((await charge(hold))._tag).toBe("charged")
    account.available = 0n
    expect(await charge(hold)).toMatchObject({ _tag: "failed", error: { _tag: "HoldLost" } })
    expect(account).toMatchObject({ available: 0n, held: 0n })
  })

  it("once, when its commit was refused and what was decided is lost", async () => {
    account = accountWith(10n)
    const hold = newHold()
    expect(await topUp(hold)).toBe(10n)
    outcomes = [() => {
      const { holds } = account
      account = { ...accountWith(10n), holds }
      return { _tag: "refused" }
    }]
    expect(await charge(hold)).toMatchObject({ _tag: "charged", finished: { charged: 10n, held: 0n } })
    expect(submitted).toHaveLength(2)
    expect(account).toMatchObject({ available: 0n, held: 0n })
  })
})

describe("a turn is free", () => {
  it("when its money is gone: nothing is submitted", async () => {
    const hold = newHold()
    await topUp(hold)
    account = accountWith(9n)
    expect(await charge(hold)).toMatchObject({ _tag: "failed", error: { _tag: "HoldLost" }, isRefused: false })
    expect(submitted).toEqual([])
    expect(account).toMatchObject({ available: 9n, held: 0n })
  })

  it("when the session's own row refuses it, which is not tried again", async () => {
    const hold = newHold()
    await topUp(hold)
    outcomes = [() => ({ _tag: "aborted", constraint: undefined })]
    expect(await charge(hold)).toMatchObject({ _tag: "failed", isRefused: true })
    expect(submitted).toHaveLength(1)
  })

  it("after some refusals", async () => {
    const hold = newHold()
    await topUp(hold)
    outcomes = Array.from({ length: 9 }, () => (): CommitOutcome => ({ _tag: "refused" }))
    expect(await charge(hold)).toMatchObject({ _tag: "failed", error: { _tag: "NotCommitted" }, isRefused: false })
    expect(submitted).toHaveLength(3)
  })
})

describe("the money of a session", () => {
  it("is held for who sent the last message, and no more for who sent the one before", async () => {
    const hold = newHold()
    await topUp(hold)
    expect(await topUp(hold, callerOf("other"))).toBe(50n)
    expect(released).toEqual(["key"])
    expect([account.subjects.get("key" as KeyId)!.held, account.subjects.get("other" as KeyId)!.held]).toEqual([0n, 50n])
    expect(hold.holder.subjectId).toBe("other")
  })

  it("is nothing for a free agent", async () => {
    const hold = new SessionHold(parts, "ses" as SessionId, { ...agent, price: 0n } as Agent, callerOf("key"))
    expect(await topUp(hold, callerOf("other"))).toBe(0n)
    hold.release()
    expect([released, await amountHeld(hold)]).toEqual([[], 0n])
    expect(hold.holder.subjectId).toBe("other")
  })
})
