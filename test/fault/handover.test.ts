/**
 * Accounts that move between two gateways on one database, or are lent by one
 * to the other. Who owns what is said by the test; nothing is lost by it,
 * nothing is done twice, and a planned move refuses nobody.
 */
import { Context, Effect, Fiber } from "effect"
import { randomUUID } from "node:crypto"
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest"
import type { Account } from "../../src/domain/account.ts"
import type { Agent } from "../../src/domain/agent.ts"
import type { AccountId, AgentId, HoldId, TransactionId } from "../../src/domain/ids.ts"
import { type Decided, decide, spendable } from "../../src/domain/ledger.ts"
import { callsInWindow, takeCall } from "../../src/domain/rateLimit.ts"
import type { Caller } from "../../src/kernel/Caller.ts"
import { hashOfKey } from "../../src/kernel/identity/Credentials.ts"
import { Holds } from "../../src/kernel/Holds.ts"
import { Deposits } from "../../src/kernel/market/Deposits.ts"
import { Keys } from "../../src/kernel/market/Keys.ts"
import { Links } from "../../src/kernel/market/Links.ts"
import { Settlements } from "../../src/kernel/market/Settlements.ts"
import { type Sql, connect } from "../../src/store/Postgres.ts"
import { registry } from "../../src/telemetry/Metrics.ts"
import { expectCleanBooks } from "../support/Stage.ts"
import { type KernelNode, newAgent, newPerson, refusalOf, startKernel } from "../support/kernelNode.ts"
import { LoopbackAgent } from "../support/LoopbackAgent.ts"
import { balanceOf } from "../support/ledgerRows.ts"
import { type TestDatabase, freshDatabase } from "../support/postgres.ts"
import { ScriptedRing } from "../support/ScriptedRing.ts"

const ring = new ScriptedRing()
const price = 100n
const secret = "the operator's own"
let database: TestDatabase
let sql: Sql
let one: KernelNode
let two: KernelNode
let upstream: LoopbackAgent
let agent: Agent

/** Owned by the first node unless said otherwise. */
const places = new Map<string, number>()
const placed = (accountId: string): number => places.get(accountId) ?? 0
const to = (accountId: string, index: number) => (id: string): number => id === accountId ? index : placed(id)
const move = (accountId: string, index: number): Promise<void> => ring.own(to(accountId, index)).then(() => { places.set(accountId, index) })
const seize = (accountId: string, index: number): void => {
  places.set(accountId, index)
  ring.seize(placed)
}

beforeAll(async () => {
  database = await freshDatabase()
  sql = connect(database.options, { max: 4, statementTimeoutMs: 30_000, name: "tollgate-test" })
  upstream = await new LoopbackAgent().listen()
  const settings = { acfAdminSecret: secret, keyRateLimitDefault: 1_000 }
  one = await startKernel(database.options, settings, ring.layer)
  two = await startKernel(database.options, settings, ring.layer)
  agent = await newAgent(one, await newPerson(sql), upstream.url, price)
})
afterAll(async () => {
  await one.stop()
  await two.stop()
  upstream.close()
  await sql.end()
  await database.drop()
})
afterEach(async () => {
  upstream.release()
  await expectCleanBooks(sql)
})

const nodeIdOf = (index: number): string => ring.members[index]!.peer.nodeId
const run = <A, E>(effect: Effect.Effect<A, E>): Promise<A> => Effect.runPromise(effect)
const decided = (outcome: ReturnType<typeof decide>): Decided => outcome as Decided
const fee = (node: KernelNode, id: AccountId, amount: bigint): Promise<void> => run(node.accounts.act(id, (account, nowMs) => {
  const outcome = decided(decide(account, { _tag: "Withdraw", transactionId: randomUUID() as string as TransactionId, amount, type: "withdrawal", reference: "test" }, nowMs))
  return node.accounts.commit(account, { transactions: [outcome.transaction!] }, outcome)
}))
const hold = ({ id, subjects }: Account, amount: bigint): { readonly holdId: HoldId; readonly command: Parameters<typeof decide>[1] } => {
  const holdId = randomUUID() as string as HoldId
  return { holdId, command: { _tag: "Hold", hold: { id: holdId, subjectId: [...subjects.keys()][0]!, amount, call: "proxy", agentId: id as string as AgentId, agent: "X", createdAtMs: Date.now(), expiresAtMs: Date.now() + 60_000 } } }
}
/** Runs `act` while nobody can commit anything of the account. */
const locked = async <A>(id: AccountId, act: () => Promise<A>): Promise<A> => sql.begin(async (tx) => {
  await tx`select from accounts where id = ${id} for update`
  return act()
}) as Promise<A>
const isWaiting = () => vi.waitFor(async () => expect(await sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`).not.toEqual([]))

/** An order of somebody else, from begin to end: what came before it at the node has ended too. */
const orderedAndEnded = async (node: KernelNode): Promise<void> => {
  const { id } = await run(node.orders.create(await newPerson(sql, price), { agent: agent.ticker, prompt: "hello", trace: [], paymentMethod: "credits" }, undefined))
  await vi.waitFor(async () => expect(await sql`select status from orders where id = ${id}`).toEqual([{ status: "completed" }]), { timeout: 5_000 })
}

describe("a planned move", () => {
  it("waits for the commits that are under way, so that none of them is refused, and the next owner knows them", async () => {
    const [{ accountId: id }, { accountId: neighbour }] = [await newPerson(sql, 1_000n), await newPerson(sql, 1_000n)]
    await Promise.all([one.turn(id, () => {}), one.turn(neighbour, () => {})])
    const told = await locked(neighbour, async () => {
      const first = fee(one, neighbour, 1n)
      await isWaiting()
      // Behind the batch that waits: they are not sent yet.
      const paid = Promise.all([first, fee(one, id, 1n), fee(one, id, 2n)])
      const moved = move(id, 1)
      expect(one.accounts.resident(id, Date.now())).toBeUndefined()
      return { paid, moved, seen: two.turn(id, spendable) }
    })
    await told.paid
    await told.moved
    expect(await told.seen).toBe(997n)
  })

  it("takes the rate windows along, there and back", async () => {
    const { accountId: id, subjectId } = await newPerson(sql)
    const call = (account: Account, nowMs: number) => takeCall(account.subjects.get(subjectId)!.window, 5, nowMs)
    const count = (account: Account, nowMs: number) => callsInWindow(account.subjects.get(subjectId)!.window, nowMs)
    for (let n = 0; n < 3; n++) expect(await one.turn(id, call)).toBe(true)
    await move(id, 1)
    expect(await two.turn(id, count)).toBe(3)
    expect([await two.turn(id, call), await two.turn(id, call), await two.turn(id, call)]).toEqual([true, true, false])
    await move(id, 0)
    expect([await one.turn(id, count), await one.turn(id, call)]).toEqual([5, false])
  })

  it("lets orders that run end first, and their end is charged once", async () => {
    const buyer = await newPerson(sql, 1_000n)
    upstream.keep()
    const before = upstream.asked.length
    const { id } = await run(one.orders.create(buyer, { agent: agent.ticker, prompt: "hello", trace: [], paymentMethod: "credits" }, undefined))
    await upstream.seen(before + 1)
    const moving = move(buyer.accountId, 1)
    const waiting = two.turn(buyer.accountId, spendable)
    upstream.release()
    await moving
    expect(await waiting).toBe(900n)
    expect(await sql`select status from orders where id = ${id}`).toEqual([{ status: "completed" }])
  })

  it("does not wait for ever: an order that goes on is refunded by the next owner, and its agent's answer changes nothing", async () => {
    const buyer = await newPerson(sql, 1_000n)
    seize(buyer.accountId, 1)
    upstream.keep()
    const before = upstream.asked.length
    const { id } = await run(two.orders.create(buyer, { agent: agent.ticker, prompt: "hello", trace: [], paymentMethod: "credits" }, undefined))
    await upstream.seen(before + 1)
    await move(buyer.accountId, 0)
    await vi.waitFor(async () => expect(await sql`select status from orders where id = ${id}`).toEqual([{ status: "failed" }]), { timeout: 5_000 })
    upstream.release()
    await vi.waitFor(async () => expect((await registry.getSingleMetric("tollgate_orders_running")!.get()).values[0]!.value).toBe(0), { timeout: 5_000 })
    expect(await balanceOf(sql, buyer.accountId)).toBe(1_000n)
    expect((await sql<Array<{ type: string }>>`select type from transactions where order_id = ${id} order by created_at`).map(({ type }) => type)).toEqual(["reserve", "refund"])
    expect(upstream.asked.filter((request) => request === id)).toHaveLength(1)
  })
})

describe("an account that changes hands without a word", () => {
  it("has its pending orders refunded by the new owner, unasked, and what the old one decides is refused", async () => {
    const buyer = await newPerson(sql, 1_000n)
    upstream.keep()
    const before = upstream.asked.length
    const { id } = await run(one.orders.create(buyer, { agent: agent.ticker, prompt: "hello", trace: [], paymentMethod: "credits" }, undefined))
    await upstream.seen(before + 1)
    const [stale, nowMs] = [one.accounts.resident(buyer.accountId, Date.now())!, Date.now()]
    seize(buyer.accountId, 1)
    await vi.waitFor(async () => expect(await sql`select status from orders where id = ${id}`).toEqual([{ status: "failed" }]), { timeout: 5_000 })
    const late = decided(decide(stale, { _tag: "Deposit", transactionId: randomUUID() as string as TransactionId, amount: 5n, type: "deposit", reference: "late" }, nowMs))
    expect((await refusalOf(one.accounts.commit(stale, { transactions: [late.transaction!] }, late)))._tag).toBe("NotCommitted")
    upstream.release()
    await orderedAndEnded(one)
    expect(await balanceOf(sql, buyer.accountId)).toBe(1_000n)
  })

  it("is not believed by a node that had it before, when it comes back to that", async () => {
    const { accountId: id } = await newPerson(sql, 1_000n)
    expect(await one.turn(id, spendable)).toBe(1_000n)
    seize(id, 1)
    await fee(two, id, 400n)
    seize(id, -1)
    const waiting = one.turn(id, spendable)
    seize(id, 0)
    expect(await waiting).toBe(600n)
  })

  it("has lost the holds that its calls placed: they are released without harm, and count again only where they were placed", async () => {
    const { accountId: id } = await newPerson(sql, 1_000n)
    const placed = await one.turn(id, (account, nowMs) => {
      const { holdId, command } = hold(account, 300n)
      decide(account, command, nowMs)
      return holdId
    })
    await move(id, 1)
    expect([one.accounts.resident(id, Date.now()), await two.turn(id, spendable)]).toEqual([undefined, 1_000n])
    await move(id, 0)
    expect(await one.turn(id, spendable)).toBe(700n)
    await move(id, 1)
    one.accounts.release(id, placed)
    expect(Context.get(one.services, Holds).holdsOf(id).size).toBe(0)
    await move(id, 0)
    expect(await one.turn(id, spendable)).toBe(1_000n)
  })
})

describe("an account on loan", () => {
  it("is changed by the borrower without touching what calls at its owner hold, and is its owner's again afterwards", async () => {
    const { accountId: id } = await newPerson(sql, 1_000n)
    const holdId = await one.turn(id, (account, nowMs) => {
      const wanted = hold(account, 300n)
      decide(account, wanted.command, nowMs)
      return wanted.holdId
    })
    const seen = await run(two.accounts.borrowed(id, Effect.gen(function*() {
      const seen = yield* two.accounts.ask(id, (account) => ({ spendable: spendable(account), holds: account.holds.size }))
      expect([one.accounts.resident(id, Date.now()), two.accounts.resident(id, Date.now())]).toEqual([undefined, undefined])
      yield* Effect.promise(() => fee(two, id, 600n))
      return seen
    })))
    expect(seen).toEqual({ spendable: 700n, holds: 0 })
    expect(await one.turn(id, (account, nowMs) => [spendable(account), account.holds.has(holdId), "tag" in decide(account, { _tag: "Release", holdId }, nowMs), spendable(account)])).toEqual([100n, true, false, 400n])
    expect((await refusalOf(two.accounts.ask(id, () => {})))._tag).toBe("Overloaded")
  })

  it("lets its owner's commands wait until it is back, and starts none of its orders' recoveries", async () => {
    const buyer = await newPerson(sql, 1_000n)
    upstream.keep()
    const before = upstream.asked.length
    const { id } = await run(one.orders.create(buyer, { agent: agent.ticker, prompt: "hello", trace: [], paymentMethod: "credits" }, undefined))
    await upstream.seen(before + 1)
    const done: Array<string> = []
    let waiting: Promise<unknown> | undefined
    await run(two.accounts.borrowed(buyer.accountId, Effect.gen(function*() {
      yield* two.accounts.ask(buyer.accountId, () => {})
      waiting = one.turn(buyer.accountId, () => done.push("owner"))
      yield* Effect.promise(() => fee(two, buyer.accountId, 1n))
      done.push("borrower")
    })))
    await waiting
    expect(done).toEqual(["borrower", "owner"])
    upstream.release()
    await vi.waitFor(async () => expect(await sql`select status from orders where id = ${id}`).toEqual([{ status: "completed" }]), { timeout: 5_000 })
    expect(await balanceOf(sql, buyer.accountId)).toBe(899n)
  })

  it("is shared by changes at the same time, also one within another", async () => {
    const { accountId: id } = await newPerson(sql, 1_000n)
    await Promise.all(Array.from({ length: 10 }, () => run(two.accounts.borrowed(id, two.accounts.borrowed(id, Effect.promise(() => fee(two, id, 7n)))))))
    expect(await one.turn(id, spendable)).toBe(930n)
    let isShortOver = (): void => {}
    const shortOver = new Promise<void>((resolve) => { isShortOver = resolve })
    const long = run(two.accounts.borrowed(id, Effect.promise(() => shortOver.then(() => fee(two, id, 3n)))))
    await run(two.accounts.borrowed(id, Effect.promise(() => fee(two, id, 4n))))
    isShortOver()
    await long
    expect(await one.turn(id, spendable)).toBe(923n)
  })

  it("is given back when the change fails or is interrupted", async () => {
    const { accountId: id } = await newPerson(sql, 1_000n)
    expect((await refusalOf(two.accounts.borrowed(id, Effect.fail({ _tag: "Broken" } as const))))._tag).toBe("Broken")
    expect(await one.turn(id, spendable)).toBe(1_000n)
    let begun = (): void => {}
    const hasBegun = new Promise<void>((resolve) => { begun = resolve })
    const fiber = Effect.runFork(two.accounts.borrowed(id, Effect.suspend(() => {
      begun()
      return Effect.never
    })))
    await hasBegun
    await run(Fiber.interrupt(fiber))
    expect(await one.turn(id, spendable)).toBe(1_000n)
  })

  it("is had by one at a time, and waited for while its owner is not known", async () => {
    const { accountId: id } = await newPerson(sql, 1_000n)
    expect(await run(one.accounts.lendOut(id, nodeIdOf(1)))).toBe(0n)
    expect(await run(one.accounts.lendOut(id, nodeIdOf(1)))).toBe(0n)
    expect((await refusalOf(one.accounts.lendOut(id, "another")))._tag).toBe("Overloaded")
    await run(one.accounts.takeBack(id, "another"))
    await run(one.accounts.takeBack(id, nodeIdOf(1)))
    await run(one.accounts.lendOut(id, "another"))
    expect((await refusalOf(two.accounts.borrowed(id, Effect.void)))._tag).toBe("Overloaded")
    const waiting = one.turn(id, spendable)
    await run(one.accounts.takeBack(id, "another"))
    expect(await waiting).toBe(1_000n)
    expect((await refusalOf(two.accounts.lendOut(id, "another")))._tag).toBe("Overloaded")
    seize(id, -1)
    const borrowed = run(two.accounts.borrowed(id, two.accounts.ask(id, spendable)))
    seize(id, 0)
    expect(await borrowed).toBe(1_000n)
  })

  it("that becomes the borrower's own meanwhile is an account like any other", async () => {
    const { accountId: id } = await newPerson(sql, 1_000n)
    await run(two.accounts.borrowed(id, Effect.gen(function*() {
      yield* two.accounts.ask(id, () => {})
      seize(id, 1)
      expect(two.accounts.resident(id, Date.now())).toBeUndefined()
      yield* Effect.promise(() => fee(two, id, 1n))
      const { holdId, command } = hold(two.accounts.resident(id, Date.now())!, 10n)
      decide(two.accounts.resident(id, Date.now())!, command, Date.now())
      expect(Context.get(two.services, Holds).holdsOf(id).has(holdId)).toBe(true)
    })))
    expect(await two.turn(id, spendable)).toBe(989n)
  })

  it("leaves its node when the change is over", async () => {
    const { accountId: id } = await newPerson(sql, 1_000n)
    await one.turn(id, () => {})
    let moving: Promise<void> | undefined
    await run(two.accounts.borrowed(id, Effect.gen(function*() {
      yield* two.accounts.ask(id, () => {})
      moving = move(id, 1)
      yield* Effect.promise(() => fee(two, id, 1n))
    })))
    await moving
    expect(await two.turn(id, spendable)).toBe(999n)
  })
})

describe("an account that somebody else's call decides on", () => {
  const service = <I, S>(node: KernelNode, tag: Context.Key<I, S>): S => Context.get(node.services as Context.Context<I>, tag)
  const named = async (node: KernelNode, role = "buyer", authorization = "") => {
    const owner = `o-${randomUUID().slice(0, 8)}`
    const { key } = await run(service(node, Keys).create({ owner, role, rateLimit: 100, walletAddress: undefined }, { authorization, remoteAddress: "127.0.0.1" }))
    const [row] = await sql<Array<{ account_id: AccountId; id: string }>>`select account_id, id from api_keys where key_hash = ${hashOfKey(key)}`
    return { owner, key, accountId: row!.account_id, caller: { accountId: row!.account_id, subjectId: row!.id, kind: "key", dialect: "acf", loginId: undefined, expiresAtMs: Infinity } as Caller }
  }

  it("gets its keys, its credits and its place in another through any node", async () => {
    // Whose first key is asked for, its account is new, and its place not known before.
    const buyer = await named(two)
    for (const node of [one, two]) {
      expect(await run(service(node, Keys).validate(buyer.key, "127.0.0.1"))).toMatchObject({ owner: buyer.owner, role: "buyer" })
      await run(service(node, Keys).create({ owner: buyer.owner, role: "buyer", rateLimit: 10, walletAddress: undefined }, { authorization: `Bearer ${buyer.key}`, remoteAddress: "127.0.0.1" }))
    }
    expect(await sql`select from api_keys where account_id = ${buyer.accountId}`).toHaveLength(3)
    await Promise.all([one, two].map((node) => run(service(node, Deposits).credit(secret, "127.0.0.1", buyer.owner, 5_000n))))
    expect(await one.turn(buyer.accountId, (account) => [spendable(account), account.subjects.size])).toEqual([10_000n, 3])
    const person = await newPerson(sql, 1n)
    expect(await run(service(two, Links).link(person, "acf", buyer.key, "127.0.0.1"))).toMatchObject({ owner: buyer.owner, available: 10_001n })
  })

  it("is paid its settlement once, by admins on both nodes", async () => {
    const provider = await named(one)
    const admin = await named(one)
    await run(service(two, Deposits).credit(secret, "127.0.0.1", provider.owner, 1_200n))
    const settlements = [randomUUID(), randomUUID()] as const
    for (const [days, id] of settlements.entries()) {
      await sql`insert into settlements (id, provider, account_id, period_start, period_end, total, fee, credited, calls, status, created_at)
        values (${id}, ${provider.owner}, ${provider.accountId}, now() - ${days + 2} * interval '1 day', now() - ${days + 1} * interval '1 day', 500, 0, 500, 1, 'pending', now())`
    }
    await run(service(two, Settlements).pay(admin.caller, settlements[0], "tx"))
    const paid = await Promise.all([one, two, one, two].map((node) => Effect.runPromiseExit(service(node, Settlements).pay(admin.caller, settlements[1], "tx"))))
    expect(paid.filter(({ _tag }) => _tag === "Success").length).toBe(1)
    expect(await one.turn(provider.accountId, spendable)).toBe(200n)
    // Of no calls: the audit would find it.
    await sql`delete from settlements where provider = ${provider.owner}`
  })
})
