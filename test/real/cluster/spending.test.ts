/** Two gateways as one: calls spend, on the node that they come to, what the owner of their account has leased to it. */
import { Context, Effect } from "effect"
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { Caller } from "../../../src/kernel/Caller.ts"
import { Server } from "../../../src/http/Server.ts"
import type { LeaseAsk } from "../../../src/cluster/AccountRpc.ts"
import { Cluster } from "../../../src/cluster/Cluster.ts"
import { Grants } from "../../../src/kernel/lease/Grants.ts"
import { Spending } from "../../../src/kernel/lease/Spending.ts"
import { type Sql, connect } from "../../../src/store/Postgres.ts"
import { expectCleanBooks } from "../../support/Stage.ts"
import { metrics } from "../../../src/telemetry/Metrics.ts"
import { type KernelNode, newAgent, newPerson, startKernel } from "../../support/kernelNode.ts"
import { LoopbackAgent } from "../../support/LoopbackAgent.ts"
import { type TestDatabase, freshDatabase } from "../../support/postgres.ts"
import { leaseAsk } from "../../support/RingNode.ts"
import { ScriptedRing } from "../../support/ScriptedRing.ts"

const ring = new ScriptedRing()
let database: TestDatabase
let sql: Sql
let agent: LoopbackAgent
let nodes: ReadonlyArray<KernelNode>
let seller: Caller
let ticker: string
let free: string
const price = 30_000n

beforeAll(async () => {
  database = await freshDatabase()
  sql = connect(database.options, { max: 2, statementTimeoutMs: 30_000, name: "tollgate-test" })
  agent = await new LoopbackAgent().listen()
  const started: Array<KernelNode> = []
  for (let n = 0; n < 2; n++) {
    const node = await startKernel(database.options, { proxyBilling: "paid", keyRateLimitDefault: 1_000_000 }, ring.layer)
    await Effect.runPromise(Context.get(node.services, Cluster).join(Context.get(node.services, Server).hopPort!))
    started.push(node)
  }
  nodes = started
  seller = await newPerson(sql)
  ticker = (await newAgent(nodes[0]!, seller, agent.url, price)).ticker
  free = (await newAgent(nodes[0]!, seller, agent.url, 0n)).ticker
})
afterAll(async () => {
  for (const node of nodes ?? []) await node.stop()
  agent?.close()
  await sql?.end()
  await database?.drop()
})

const call = async (node: number, key: string, name = ticker, headers: Record<string, string> = {}) => {
  const response = await fetch(`${nodes[node]!.url}/v1/proxy/${name}`, { method: "POST", headers: { authorization: `Bearer ${key}`, "content-type": "application/json", ...headers }, body: "{}" })
  return { status: response.status, headers: response.headers, body: await response.text() }
}
const buyer = async (available: bigint, more: Parameters<KernelNode["newKey"]>[1] = {}) => {
  const person = await newPerson(sql, available)
  return { person, ...await nodes[0]!.newKey(person, more) }
}
const counts = (replies: ReadonlyArray<{ status: number }>) => {
  const found: Record<number, number> = {}
  for (const { status } of replies) found[status] = (found[status] ?? 0) + 1
  return found
}
const until = async (holds: () => Promise<boolean>): Promise<void> => {
  for (let tries = 0; tries < 400; tries++) {
    if (await holds()) return
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  throw new Error("it did not come about")
}
/** Calls until the second node decides of the key by itself; answers how many calls that took. */
const leasedAtSecond = async ({ accountId }: Caller, subjectId: Caller["subjectId"], key: string): Promise<number> => {
  const spending = Context.get(nodes[1]!.services, Spending)
  let calls = 0
  await until(async () => {
    expect((await call(1, key, free)).status).toBe(200)
    calls++
    return spending.admitNow({ accountId, subjectId }) !== undefined
  })
  return calls + 1
}
const granted = async (): Promise<number> => (await metrics.leasesGranted.get()).values[0]?.value ?? 0
const leases = async (person: Caller): Promise<number> => (await sql`select from leases where account_id = ${person.accountId}`).length
const balance = (person: Caller) => Effect.runPromise(nodes[0]!.ledger.balance(person.accountId))

describe("two nodes", () => {
  it("charge each call once, whichever it comes to, and the rest of a lease returns when it is not used", async () => {
    const { person, key } = await buyer(100_000_000n)
    const before = await granted()
    for (let round = 0; round < 10; round++) {
      const replies = await Promise.all(Array.from({ length: 20 }, (_, n) => call(n % 2, key)))
      expect(counts(replies)).toEqual({ 200: 20 })
      await new Promise((resolve) => setTimeout(resolve, 60))
    }
    expect(await granted()).toBeGreaterThan(before)
    await until(async () => await leases(person) === 0)
    expect(await balance(person)).toEqual({ available: 100_000_000n - 200n * price, reserved: 0n })
    await expectCleanBooks(sql)
  }, 30_000)

  it("let exactly as many calls pass as the credits are worth, however they race, and only the owner says that they are gone", async () => {
    const { person, key } = await buyer(5_000_000n)
    const replies = (await Promise.all(Array.from({ length: 16 }, async (_, lane) => {
      const own = []
      for (let n = 0; n < 25; n++) own.push(await call((lane + n) % 2, key))
      return own
    }))).flat()
    const { 200: passed, 402: short = 0, 503: again = 0, ...others } = counts(replies)
    expect(others).toEqual({})
    for (let n = 0; n < 200 && (await call(n % 2, key)).status !== 402; n++);
    await until(async () => await leases(person) === 0)
    expect((await sql`select from transactions where account_id = ${person.accountId} and type = 'charge'`).length).toBe(166)
    expect(await balance(person)).toEqual({ available: 20_000n, reserved: 0n })
    expect(passed! + short + again).toBe(400)
    await expectCleanBooks(sql)
  }, 60_000)

  it("never let more calls pass than the window of a key has", async () => {
    const { key } = await buyer(0n, { rateLimit: 40 })
    const replies = []
    for (let round = 0; round < 12; round++) {
      replies.push(...await Promise.all(Array.from({ length: 10 }, (_, n) => call(n % 2, key, free))))
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    expect(counts(replies)).toEqual({ 200: 40, 429: 80 })
    expect(Number(replies.find(({ status }) => status === 429)!.headers.get("retry-after"))).toBeGreaterThan(0)
  }, 30_000)

  it("never let more calls pass than that when they are granted some and all come at once", async () => {
    const { person, id, key } = await buyer(0n, { rateLimit: 300 })
    let passed = await leasedAtSecond(person, id, key)
    for (let round = 0; round < 4; round++) passed += counts(await Promise.all(Array.from({ length: 100 }, (_, n) => call(n % 4 === 0 ? 0 : 1, key, free))))[200] ?? 0
    expect(passed).toBe(300)
  }, 30_000)

  it("refuse a key on either of them once its revocation is answered", async () => {
    const { person, id, key } = await buyer(1_000_000n)
    await leasedAtSecond(person, id, key)
    await Effect.runPromise(nodes[0]!.keys.revoke(person, id))
    expect([(await call(0, key, free)).status, (await call(1, key, free)).status]).toEqual([401, 401])
    const deaf = await buyer(1_000_000n)
    await leasedAtSecond(deaf.person, deaf.id, deaf.key)
    ring.isDeaf = true
    const within = await Effect.runPromise(nodes[0]!.keys.revoke(deaf.person, deaf.id))
    expect([(await call(0, deaf.key, free)).status, (await call(1, deaf.key, free)).status]).toEqual([401, 401])
    ring.isDeaf = false
    expect(within).toBeLessThanOrEqual(1_100)
  }, 30_000)

  it("get back what the other has before a call is refused for money", async () => {
    const { person, key } = await buyer(1_000_000n)
    for (let n = 0; n < 20; n++) expect((await call(1, key)).status).toBe(200)
    await until(async () => await leases(person) > 0 || (await call(1, key)).status === 402)
    const left = 1_000_000n - BigInt((await sql`select from transactions where account_id = ${person.accountId} and type = 'charge'`).length) * price
    const dear = (await newAgent(nodes[0]!, seller, agent.url, left)).ticker
    expect((await call(0, key, dear)).status).toBe(200)
    expect(await balance(person)).toEqual({ available: 0n, reserved: 0n })
  }, 30_000)

  it("have a recall answered by what gives everything back, not by an ask that was on its way", async () => {
    const { person, id: subjectId } = await buyer(1_000_000n)
    const nodeId = randomUUID()
    // It lives, and hears nothing.
    ring.members.push({ peer: { nodeId, host: "127.0.0.1", port: 1, hopPort: 0 }, handlers: undefined, hears: [], moved: [], leaving: [] })
    const grants = Context.get(nodes[0]!.services, Grants)
    const ask = (seq: number, leaseId: string | null, more: Partial<LeaseAsk>) => Effect.runPromise(grants.lease(person.accountId, { ...leaseAsk, nodeId, subjectId, seq, leaseId, credits: 0n, ...more }))
    // Its answer is lost: the next ask does not name it, and it is closed.
    await ask(0, null, { credits: 400_000n, row: true })
    await ask(1, null, {})
    expect(await leases(person)).toBe(0)
    const { leaseId, credits } = await ask(2, null, { credits: 400_000n, row: true })
    expect(credits).toBe(400_000n)
    let isOver = false
    const recalled = Effect.runPromise(grants.recall(person.accountId)).finally(() => { isOver = true })
    expect(await ask(3, leaseId, { spent: 10n })).toMatchObject({ leaseId, credits: 0n, refusal: null })
    expect(isOver).toBe(false)
    await ask(4, leaseId, { gives: true, calls: 0, unusedCredits: 399_990n })
    expect(await recalled).toBe(true)
    await ask(5, leaseId, { gives: true, isOver: true, calls: 0 })
    ring.members.pop()
    expect(await leases(person)).toBe(0)
    expect(await balance(person)).toEqual({ available: 1_000_000n, reserved: 0n })
  })

  it("go on with the calls of an account that moves, and with its leases", async () => {
    const { person, key } = await buyer(50_000_000n)
    const replies: Array<{ status: number }> = []
    const lanes = Promise.all(Array.from({ length: 8 }, async (_, lane) => {
      for (let n = 0; n < 60; n++) replies.push(await call((lane + n) % 2, key))
    }))
    for (let n = 1; n <= 6; n++) {
      await new Promise((resolve) => setTimeout(resolve, 150))
      await ring.own((id) => id === person.accountId ? n % 2 : 0)
    }
    await lanes
    await ring.own(() => 0)
    const { 200: passed, 503: again = 0, ...others } = counts(replies)
    expect([passed! + again, others]).toEqual([480, {}])
    await until(async () => await leases(person) === 0)
    expect((await sql`select from transactions where account_id = ${person.accountId} and type = 'charge'`).length).toBe(passed)
    await expectCleanBooks(sql)
  }, 60_000)
})
