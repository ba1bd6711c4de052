/** Accounts, their money, keys and agents on a real database that somebody else may change at any moment. */
import { Effect } from "effect"
import { randomUUID } from "node:crypto"
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest"
import type { Hold } from "../../src/domain/account.ts"
import type { AccountId, AgentId, HoldId, KeyId, TransactionId } from "../../src/domain/ids.ts"
import { type Outcome, type Refusal, decide, isRefusal, spendable } from "../../src/domain/ledger.ts"
import { admitSubject } from "../../src/domain/subject.ts"
import { autxSplit } from "../../src/domain/terms.ts"
import type { CommitError } from "../../src/kernel/AccountActor.ts"
import type { Caller } from "../../src/kernel/Caller.ts"
import { audit } from "../../src/store/Audit.ts"
import { type Sql, connect } from "../../src/store/Postgres.ts"
import { type KernelNode, newAgent, newPerson, refusalOf, startKernel } from "../support/kernelNode.ts"
import { balanceOf, newAccount, takeToken } from "../support/ledgerRows.ts"
import { type TestDatabase, freshDatabase } from "../support/postgres.ts"

let database: TestDatabase
let sql: Sql
let node: KernelNode

beforeAll(async () => {
  database = await freshDatabase()
  node = await startKernel(database.options)
  sql = connect(database.options, { max: 2, statementTimeoutMs: 30_000, name: "tollgate-test" })
})
afterAll(async () => {
  await node.stop()
  await sql.end()
  await database.drop()
})
afterEach(async () => {
  vi.useRealTimers()
  expect((await audit(sql)).filter(({ ok }) => !ok)).toEqual([])
})

const newHold = (caller: Caller, amount: bigint, more: Partial<Hold> = {}): Hold => ({
  id: randomUUID() as string as HoldId, subjectId: caller.subjectId, amount, call: "proxy", agentId: randomUUID() as string as AgentId, agent: "NONE",
  createdAtMs: Date.now(), expiresAtMs: Date.now() + 60_000, ...more
})
const hold = (caller: Caller, hold: Hold) => node.turn(caller.accountId, (account, nowMs) => decide(account, { _tag: "Hold", hold }, nowMs))

/** Captures a hold and commits the charge, with the usage row that every charge has. */
const capture = (caller: Caller, held: Hold, earnerId: AccountId) => node.accounts.act(caller.accountId, (account, nowMs): Effect.Effect<void, CommitError | Refusal> => {
  const outcome: Outcome = decide(account, { _tag: "Capture", holdId: held.id, amount: held.amount, earnerId, split: autxSplit }, nowMs)
  if (isRefusal(outcome)) return Effect.fail(outcome)
  return node.accounts.commit(account, {
    transactions: [outcome.transaction!], budgets: outcome.budgets,
    usage: [{ id: held.id, accountId: account.id, subjectId: held.subjectId, agentId: held.agentId, call: "proxy", status: 200, cost: held.amount, latencyMs: 1, atMs: nowMs }]
  }, outcome)
})

/** A fee of `amount`, decided and submitted in one turn. */
const pay = (caller: Caller, amount: bigint) => node.accounts.act(caller.accountId, (account, nowMs): Effect.Effect<void, CommitError | Refusal> => {
  const outcome = decide(account, { _tag: "Fee", transactionId: randomUUID() as string as TransactionId, amount, reference: "a test" }, nowMs)
  return isRefusal(outcome) ? Effect.fail(outcome) : node.accounts.commit(account, { transactions: [outcome.transaction!] }, outcome)
})

/** Locks the account's row, so that no commit of it ends before `release`. */
const stallCommits = async (id: AccountId): Promise<{ readonly release: () => Promise<void>; readonly oneWaits: () => Promise<void> }> => {
  const locker = await sql.reserve()
  await locker`begin`
  await locker`select from accounts where id = ${id} for update`
  return {
    release: async () => {
      await locker`commit`
      locker.release()
    },
    oneWaits: () => vi.waitFor(async () => {
      await locker`select pg_stat_clear_snapshot()`
      expect(await locker`select from pg_stat_activity where application_name = 'tollgate-committer' and datname = current_database() and wait_event_type = 'Lock'`).toHaveLength(1)
    }, { timeout: 10_000, interval: 5 })
  }
}

const postedOf = async (id: AccountId): Promise<bigint> => (await sql<Array<{ posted: bigint }>>`select posted from earnings where account_id = ${id}`)[0]!.posted

/** Pays `amount` to the earner through the ledger. */
const earn = async (earnerId: AccountId, amount: bigint): Promise<void> => {
  const buyer = await newPerson(sql, amount)
  const held = newHold(buyer, amount)
  await hold(buyer, held)
  await Effect.runPromise(capture(buyer, held, earnerId))
}

describe("an account that is activated again", () => {
  it("still holds what its calls in flight hold, and captures it", async () => {
    const [caller, earner] = [await newPerson(sql, 100n), await newAccount(sql)]
    const held = newHold(caller, 60n)
    await hold(caller, held)
    const before = await node.turn(caller.accountId, ({ token }) => token)
    node.accounts.forget(caller.accountId)
    expect(await hold(caller, newHold(caller, 60n))).toMatchObject({ _tag: "InsufficientCredits", available: 40n, held: 60n })
    expect(await node.turn(caller.accountId, ({ token }) => token)).toBe(before + 1n)
    await Effect.runPromise(capture(caller, held, earner))
    expect(await node.turn(caller.accountId, ({ available, held }) => [available, held])).toEqual([40n, 0n])
    expect([await balanceOf(sql, caller.accountId), await postedOf(earner)]).toEqual([40n, 43n])
  })

  it("does not hold what was released while it was absent", async () => {
    const caller = await newPerson(sql, 100n)
    const held = newHold(caller, 60n)
    await hold(caller, held)
    node.accounts.forget(caller.accountId)
    node.accounts.release(caller.accountId, held.id)
    expect(await node.turn(caller.accountId, (account) => [spendable(account), account.held])).toEqual([100n, 0n])
  })

  it("still counts the calls of the last minute", async () => {
    const caller = await newPerson(sql)
    const key = await node.newKey(caller, { rateLimit: 2 })
    const call = () => node.turn(caller.accountId, (account, nowMs) => admitSubject(account, account.subjects.get(key.id)!, { auth: "loginOrKey" }, nowMs)?._tag)
    expect(await call()).toBeUndefined()
    node.accounts.forget(caller.accountId)
    expect(await call()).toBeUndefined()
    node.accounts.forget(caller.accountId)
    expect(await call()).toBe("RateLimited")
  })

  it("has the same balance, holds and budgets after it left memory", async () => {
    const caller = await newPerson(sql, 100n)
    const key = await node.newKey(caller, { budgets: [{ window: "total", amount: 50n }] })
    const keyed: Caller = { ...caller, kind: "key", subjectId: key.id }
    const held = newHold(keyed, 30n)
    await hold(keyed, held)
    const later = Date.now() + 3_600_000
    node.accounts.passivateIdle(later)
    expect(node.accounts.resident(caller.accountId, later)).toBeDefined()
    await Effect.runPromise(capture(keyed, held, await newAccount(sql)))
    expect(node.accounts.passivateIdle(later + 3_600_000)).toBeGreaterThan(0)
    expect(node.accounts.resident(caller.accountId, later)).toBeUndefined()
    expect(await node.turn(caller.accountId, (account) => [account.available, account.held, account.subjects.get(key.id)!.budgets[0]!.spent])).toEqual([70n, 0n, 30n])
  })
})

describe("a hold that expired", () => {
  it("is released, and its capture charges nothing", async () => {
    const caller = await newPerson(sql, 100n)
    const held = newHold(caller, 100n, { expiresAtMs: Date.now() })
    await hold(caller, held)
    await vi.waitFor(async () => expect(await node.turn(caller.accountId, spendable)).toBe(100n), { timeout: 10_000, interval: 20 })
    expect(await refusalOf(capture(caller, held, await newAccount(sql)))).toMatchObject({ _tag: "HoldLost" })
    expect([await balanceOf(sql, caller.accountId), await node.turn(caller.accountId, ({ available }) => available)]).toEqual([100n, 100n])
  })
})

describe("commits that another term refuses", () => {
  it("fail everybody who waits for them, and the next command works", async () => {
    const caller = await newPerson(sql, 100n)
    await node.turn(caller.accountId, () => {})
    await takeToken(sql, caller.accountId)
    const refusals = await Promise.all(Array.from({ length: 5 }, () => refusalOf(pay(caller, 10n))))
    expect(refusals.map(({ _tag }) => _tag)).toEqual(Array(5).fill("NotCommitted"))
    expect(await balanceOf(sql, caller.accountId)).toBe(100n)
    await Effect.runPromise(pay(caller, 10n))
    expect([await balanceOf(sql, caller.accountId), await node.turn(caller.accountId, spendable)]).toEqual([90n, 90n])
  })

  it("are learned by those that are on their way behind them, and nothing is lost or doubled", async () => {
    const caller = await newPerson(sql, 1_000n)
    const takeover = (async () => {
      for (let round = 0; round < 10; round++) await takeToken(sql, caller.accountId)
    })()
    const told = await Promise.all(Array.from({ length: 100 }, async (_, index) => {
      await Promise.all(Array.from({ length: index % 10 }, () => sql`select 1`))
      return Effect.runPromise(pay(caller, 1n).pipe(Effect.as(1n), Effect.catchTag("NotCommitted", () => Effect.succeed(0n))))
    }))
    await takeover
    const paid = told.reduce((sum, amount) => sum + amount, 0n)
    expect(await balanceOf(sql, caller.accountId)).toBe(1_000n - paid)
    expect(await Effect.runPromise(node.ledger.balance(caller.accountId))).toEqual({ available: 1_000n - paid, reserved: 0n })
  })
})

describe("a deposit", () => {
  it("can be spent when it is durable, not before", async () => {
    const caller = await newPerson(sql)
    await node.turn(caller.accountId, () => {})
    const commits = await stallCommits(caller.accountId)
    const deposit = Effect.runPromise(node.ledger.depositTest(caller, 100n, undefined))
    await commits.oneWaits()
    expect(await hold(caller, newHold(caller, 1n))).toMatchObject({ _tag: "InsufficientCredits", available: 0n })
    await commits.release()
    expect(await deposit).toEqual({ available: 100n, reserved: 0n })
    expect(isRefusal(await hold(caller, newHold(caller, 100n)))).toBe(false)
  })
})

describe("a revoked key", () => {
  const answerTo = async (target: KernelNode, key: string): Promise<number> =>
    (await fetch(`${target.url}/v1/proxy/NOBODY`, { method: "POST", headers: { authorization: `Bearer ${key}` } })).status

  it("is refused from the turn that revokes it, before that is durable, and after a restart", async () => {
    const caller = await newPerson(sql)
    const { id, key } = await node.newKey(caller)
    expect(await answerTo(node, key)).toBe(404)
    const commits = await stallCommits(caller.accountId)
    const revoked = Effect.runPromise(node.keys.revoke(caller, id))
    await commits.oneWaits()
    expect(await answerTo(node, key)).toBe(401)
    await commits.release()
    await revoked
    expect(await answerTo(node, key)).toBe(401)
    const restarted = await startKernel(database.options)
    try {
      expect(await answerTo(restarted, key)).toBe(401)
    } finally {
      await restarted.stop()
    }
    expect(await refusalOf(node.keys.revoke(caller, id))).toMatchObject({ _tag: "NotFound" })
  })

  it("is good again when its revocation was not committed", async () => {
    const caller = await newPerson(sql)
    const { id, key } = await node.newKey(caller)
    await takeToken(sql, caller.accountId)
    expect(await refusalOf(node.keys.revoke(caller, id))).toMatchObject({ _tag: "NotCommitted" })
    expect(await answerTo(node, key)).toBe(404)
  })
})

describe("a key's budget", () => {
  it("is full again when its day is over, and not before, also after a re-activation", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: new Date("2031-03-31T23:59:59.000Z") })
    const [caller, earner] = [await newPerson(sql, 1_000n), await newAccount(sql)]
    const key = await node.newKey(caller, { budgets: [{ window: "day", amount: 100n }, { window: "total", amount: 250n }] })
    const keyed: Caller = { ...caller, kind: "key", subjectId: key.id }
    const spend = async (amount: bigint): Promise<string> => {
      const held = newHold(keyed, amount)
      const outcome = await hold(keyed, held)
      if (isRefusal(outcome)) return outcome._tag === "BudgetExceeded" ? `${outcome.window} exceeded` : outcome._tag
      await Effect.runPromise(capture(keyed, held, earner))
      return "spent"
    }
    expect([await spend(80n), await spend(21n), await spend(20n)]).toEqual(["spent", "day exceeded", "spent"])
    node.accounts.forget(caller.accountId)
    expect(await spend(1n)).toBe("day exceeded")
    vi.setSystemTime(new Date("2031-04-01T00:00:00.000Z"))
    expect([await spend(100n), await spend(1n)]).toEqual(["spent", "day exceeded"])
    node.accounts.forget(caller.accountId)
    expect(await spend(1n)).toBe("day exceeded")
    vi.setSystemTime(new Date("2031-04-02T12:00:00.000Z"))
    expect([await spend(51n), await spend(50n), await spend(1n)]).toEqual(["total exceeded", "spent", "total exceeded"])
    const rows = await sql`select budget_window, spent, period_start from budgets where key_id = ${key.id as KeyId} order by budget_window`
    expect(rows).toMatchObject([{ spent: 50n, period_start: new Date("2031-04-02T00:00:00.000Z") }, { spent: 250n, period_start: new Date(0) }])
  })
})

describe("earnings", () => {
  it("are moved to the balance exactly once by twenty sweeps at once", async () => {
    const owner = await newAccount(sql)
    await earn(owner, 1_000n)
    expect(await postedOf(owner)).toBe(720n)
    const moved = await Promise.all(Array.from({ length: 20 }, () => Effect.runPromise(node.ledger.sweep(owner))))
    // One moves them, all who came meanwhile hear of it: none is refused for money that is there.
    expect(new Set(moved)).toEqual(new Set([720n]))
    expect([await balanceOf(sql, owner), await postedOf(owner)]).toEqual([720n, 0n])
    expect(await node.turn(owner, spendable)).toBe(720n)
  })

  it("are moved exactly once by the sweeps of two nodes at once", async () => {
    const owner = await newAccount(sql)
    await earn(owner, 1_000n)
    const other = await startKernel(database.options)
    try {
      await Promise.all([node, other].map(({ ledger }) => Effect.runPromise(Effect.exit(ledger.sweep(owner)))))
      expect([await balanceOf(sql, owner), await postedOf(owner)]).toEqual([720n, 0n])
    } finally {
      await other.stop()
    }
  })

  it("are found by a balance that is asked for", async () => {
    const owner = await newAccount(sql)
    await earn(owner, 1_000n)
    expect(await Effect.runPromise(node.ledger.balance(owner))).toEqual({ available: 720n, reserved: 0n })
  })
})

describe("changes of one agent at the same time", () => {
  it("are all in its last version, whoever came first", async () => {
    const owner = await newPerson(sql)
    const agent = await newAgent(node, owner, "http://127.0.0.1:9/run", 0n)
    const patches = [{ name: "Renamed" }, { price: 5n }, { description: "Described" }, { category: "Other" }, { freeTierCalls: 3 }]
    for (const [round, patch] of patches.entries()) {
      await Promise.all([node.listings.patch(owner, agent.ticker, patch), node.listings.patch(owner, agent.ticker, { endpointUrl: `http://127.0.0.1:${9000 + round}/run` })].map((each) => Effect.runPromise(each)))
    }
    const { agent: last } = await Effect.runPromise(node.listings.get(agent.ticker))
    expect(last).toMatchObject({ version: 11n, name: "Renamed", price: 5n, description: "Described", category: "Other", freeTierCalls: 3, endpointUrl: "http://127.0.0.1:9004/run" })
  })

  it("lose none of them when each begins while another is being committed", async () => {
    const owner = await newPerson(sql)
    const agent = await newAgent(node, owner, "http://127.0.0.1:9/run", 0n)
    await Promise.all(Array.from({ length: 40 }, async (_, index) => {
      for (let wait = 0; wait < index % 8; wait++) await sql`select 1`
      await Effect.runPromise(node.listings.patch(owner, agent.ticker, { description: `change ${index}` }))
    }))
    const { agent: last } = await Effect.runPromise(node.listings.get(agent.ticker))
    expect(last.version).toBe(41n)
  })
})
