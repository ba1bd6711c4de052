/** Orders on a real database: each ends once, by a charge or a refund, whoever takes its account over meanwhile, and its agent is asked at most once. */
import { Effect } from "effect"
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest"
import type { Agent } from "../../src/domain/agent.ts"
import type { Caller } from "../../src/kernel/Caller.ts"
import { newId } from "../../src/kernel/Ids.ts"
import { audit } from "../../src/store/Audit.ts"
import { type Sql, connect } from "../../src/store/Postgres.ts"
import { LoopbackAgent } from "../support/LoopbackAgent.ts"
import { type KernelNode, newAgent, newPerson, refusalOf, startKernel } from "../support/kernelNode.ts"
import { balanceOf, takeToken } from "../support/ledgerRows.ts"
import { type TestDatabase, freshDatabase } from "../support/postgres.ts"

const price = 100n

let database: TestDatabase
let sql: Sql
let node: KernelNode
let upstream: LoopbackAgent
let agent: Agent

beforeAll(async () => {
  database = await freshDatabase()
  node = await startKernel(database.options)
  sql = connect(database.options, { max: 4, statementTimeoutMs: 30_000, name: "tollgate-test" })
  upstream = await new LoopbackAgent().listen()
  agent = await newAgent(node, await newPerson(sql), upstream.url, price)
})
afterAll(async () => {
  upstream.close()
  await node.stop()
  await sql.end()
  await database.drop()
})
afterEach(async () => {
  upstream.release()
  expect((await audit(sql)).filter(({ ok }) => !ok)).toEqual([])
})

const order = (caller: Caller) => node.orders.create(caller, { agent: agent.ticker, prompt: "hello", trace: [], paymentMethod: "credits" }, undefined)
const ended = (id: string, status: "completed" | "failed") => vi.waitFor(async () => {
  expect(await sql`select status from orders where id = ${id}`).toEqual([{ status }])
}, { timeout: 15_000, interval: 10 })
const typesOf = async (id: string) => (await sql<Array<{ type: string }>>`select type from transactions where order_id = ${id} order by id`).map(({ type }) => type)

/** What a node leaves that died while an order of `caller` ran under `token`. */
const leavePending = async (caller: Caller, token: bigint): Promise<string> => {
  const [id, transaction, batch] = [newId<string>(), newId<string>(), newId<string>()]
  await sql.begin((tx) => [
    tx`update accounts set token = ${token}, available = available - ${price}, reserved = reserved + ${price} where id = ${caller.accountId}`,
    tx`insert into batches (id, fee, buyback, deposits, withdrawals, refused) values (${batch}, 0, 0, 0, 0, '{}')`,
    tx`insert into transactions (id, batch_id, account_id, type, available, reserved, earned, fee, buyback, deposits, withdrawals, balance_after, agent_id, order_id, subject_id, created_at)
       values (${transaction}, ${batch}, ${caller.accountId}, 'reserve', ${-price}, ${price}, 0, 0, 0, 0, 0, 0, ${agent.id}, ${id}, ${caller.subjectId}, now())`,
    tx`insert into orders (id, account_id, subject_id, agent_id, token, status, prompt, payment_method, amount, fee, created_at)
       values (${id}, ${caller.accountId}, ${caller.subjectId}, ${agent.id}, ${token}, 'pending', 'hello', 'credits', ${price}, 0, now())`
  ])
  return id
}

describe("an order that a crash left pending", () => {
  it("is failed and refunded once by the next activation of its account, and not sent again", async () => {
    const caller = await newPerson(sql, 250n)
    const id = await leavePending(caller, 5n)
    const asked = upstream.asked.length
    expect(await node.turn(caller.accountId, ({ token, available, reserved }) => [token, available, reserved])).toEqual([6n, 150n, 100n])
    await ended(id, "failed")
    expect(await typesOf(id)).toEqual(["reserve", "refund"])
    await vi.waitFor(async () => expect(await node.turn(caller.accountId, ({ available, reserved }) => [available, reserved])).toEqual([250n, 0n]))
    expect([await balanceOf(sql, caller.accountId), upstream.asked.length]).toEqual([250n, asked])
  })

  it("is found without anybody asking for its account", async () => {
    const callers = await Promise.all([newPerson(sql, price), newPerson(sql, price)])
    const ids = await Promise.all(callers.map((caller) => leavePending(caller, 3n)))
    expect(await Effect.runPromise(node.orders.recover)).toBe(2)
    for (const id of ids) await ended(id, "failed")
    expect(await Effect.runPromise(node.orders.recover)).toBe(0)
    for (const { accountId } of callers) expect(await balanceOf(sql, accountId)).toBe(price)
  })

  it("is refunded once by two nodes that find it at the same time", async () => {
    const caller = await newPerson(sql, price)
    const id = await leavePending(caller, 9n)
    const asked = upstream.asked.length
    const other = await startKernel(database.options)
    try {
      await Promise.all([node, other].map(({ orders }) => Effect.runPromise(orders.recover)))
      await ended(id, "failed")
      expect(await typesOf(id)).toEqual(["reserve", "refund"])
      expect([await balanceOf(sql, caller.accountId), upstream.asked.length]).toEqual([price, asked])
    } finally {
      await other.stop()
    }
  })
})

describe("an order whose agent is at work", () => {
  it("is completed once when its account is taken over and activated again on the same node", async () => {
    const caller = await newPerson(sql, 150n)
    const asked = upstream.asked.length
    upstream.keep()
    const { id } = await Effect.runPromise(order(caller))
    await upstream.seen(asked + 1)
    await takeToken(sql, caller.accountId)
    node.accounts.forget(caller.accountId)
    expect(await node.turn(caller.accountId, ({ available, reserved, orders }) => [available, reserved, orders.size])).toEqual([50n, 100n, 1])
    upstream.release()
    await ended(id, "completed")
    expect([await typesOf(id), upstream.asked.length, await balanceOf(sql, caller.accountId)]).toEqual([["reserve", "complete"], asked + 1, 50n])
  })

  it("is completed once when the takeover is noticed only by the commit that would complete it", async () => {
    const caller = await newPerson(sql, 150n)
    const asked = upstream.asked.length
    upstream.keep()
    const { id } = await Effect.runPromise(order(caller))
    await upstream.seen(asked + 1)
    await takeToken(sql, caller.accountId)
    upstream.release()
    await ended(id, "completed")
    expect([await typesOf(id), upstream.asked.length, await balanceOf(sql, caller.accountId)]).toEqual([["reserve", "complete"], asked + 1, 50n])
    await vi.waitFor(async () => expect(await node.turn(caller.accountId, ({ reserved, orders }) => [reserved, orders.size])).toEqual([0n, 0]))
  })

  it("does not leave memory with its account before it has ended", async () => {
    const caller = await newPerson(sql, price)
    const asked = upstream.asked.length
    upstream.keep()
    const { id } = await Effect.runPromise(order(caller))
    await upstream.seen(asked + 1)
    const later = Date.now() + 3_600_000
    node.accounts.passivateIdle(later)
    expect(node.accounts.resident(caller.accountId, later)?.orders.size).toBe(1)
    upstream.release()
    await ended(id, "completed")
  })
})

describe("an order whose price could not be committed", () => {
  it("is refused, its agent is not asked, and the money is there for the next", async () => {
    const caller = await newPerson(sql, price)
    const asked = upstream.asked.length
    await node.turn(caller.accountId, () => {})
    await takeToken(sql, caller.accountId)
    expect(await refusalOf(order(caller))).toMatchObject({ _tag: "NotCommitted" })
    expect([await balanceOf(sql, caller.accountId), upstream.asked.length]).toEqual([price, asked])
    const { id } = await Effect.runPromise(order(caller))
    await ended(id, "completed")
    expect([await balanceOf(sql, caller.accountId), upstream.asked.length]).toEqual([0n, asked + 1])
    expect(await refusalOf(order(caller))).toMatchObject({ _tag: "InsufficientCredits", required: price, available: 0n })
  })
})
