/** The oldest PostgreSQL that is promised: everything that a gateway says to its database, once, on Debian's 15. */
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest"
import { audit } from "../../src/store/Audit.ts"
import { creditAccount, findSuspendable, suspend } from "../../src/store/OperatorStore.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { type Sql, connect } from "../../src/store/Postgres.ts"
import { keepUp } from "../../src/store/Upkeep.ts"
import type { TransactionId } from "../../src/domain/ids.ts"
import { newId } from "../../src/kernel/Ids.ts"
import { LoopbackAgent, answers } from "../support/LoopbackAgent.ts"
import { type KernelNode, startKernel } from "../support/kernelNode.ts"
import { type TestDatabase, type TestPostgres, testPostgres } from "../support/postgres.ts"

describe("a gateway on PostgreSQL 15", () => {
  let server: TestPostgres
  let database: TestDatabase
  let sql: Sql
  let node: KernelNode
  let upstream: LoopbackAgent

  beforeAll(async () => {
    server = await testPostgres({ major: 15 })
    database = await server.freshDatabase()
    sql = connect(database.options, { max: 2, statementTimeoutMs: 10_000, name: "tollgate-test" })
    upstream = await new LoopbackAgent().listen()
    node = await startKernel(database.options, { proxyBilling: "paid", autoVerifyEmail: true })
  })
  afterAll(async () => {
    await node.stop()
    upstream.close()
    await sql.end()
    await server.stop()
  })

  const call = async (method: string, path: string, token?: string, body?: unknown, headers: Record<string, string> = {}) => {
    const response = await fetch(`${node.url}/v1${path}`, {
      method,
      headers: { ...headers, ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    const text = await response.text()
    return { status: response.status, headers: response.headers, text, json: text.startsWith("{") || text.startsWith("[") ? JSON.parse(text) : undefined }
  }
  const register = async (email: string): Promise<string> => (await call("POST", "/auth/register", undefined, { email, password: "correct horse" })).json.access_token
  const balance = async (token: string): Promise<string> => (await call("GET", "/credits/balance", token)).json.balance_usd

  it("runs on that version, and its migrations are all applied", async () => {
    expect((await sql<Array<{ server_version: string }>>`show server_version`)[0]!.server_version).toMatch(/^15\./)
    const applied: Array<string> = []
    await migrate(sql, (name) => applied.push(name))
    expect(applied).toEqual([])
  })

  it("charges, pays out, refunds, replays and forgets, and its books are right", async () => {
    const [owner, buyer] = [await register("owner@example.com"), await register("buyer@example.com")]
    expect((await call("POST", "/credits/deposit-test", buyer, { amount: "1.00" }, { "idempotency-key": "first" })).status).toBe(201)
    expect((await call("POST", "/credits/deposit-test", buyer, { amount: "1.00" }, { "idempotency-key": "first" })).headers.get("idempotent-replayed")).toBe("true")
    const listing = { name: "Fifteen", ticker: "FIFTEEN", description: "On 15", category: "Test", endpoint_url: upstream.url, service_price: "0.10" }
    expect((await call("POST", "/agents/", owner, listing)).status).toBe(201)
    expect((await call("PATCH", "/agents/FIFTEEN", owner, { description: "Still on 15" })).status).toBe(200)
    const { json: created } = await call("POST", "/api-keys", buyer, { name: "budgeted", scopes: "*", budgets: [{ amount_usd: "0.50", window: "day" }] })

    const paid = await call("POST", "/proxy/FIFTEEN", created.key, { prompt: "hi" })
    expect([paid.status, paid.text, paid.headers.get("x-autx-cost-usd"), paid.headers.get("x-autx-balance-usd")]).toEqual([200, "done", "0.10", "0.90"])
    const order = async (): Promise<string> => (await call("POST", "/orders/", created.key, { agent_id: "FIFTEEN", prompt: "hi", payment_method: "credits" })).json.id
    const ended = (id: string, status: string) => vi.waitFor(async () => expect((await call("GET", `/orders/${id}`, created.key)).json).toMatchObject({ status }), { timeout: 10_000, interval: 10 })
    await ended(await order(), "completed")
    upstream.behave = answers("no", 500)
    await ended(await order(), "failed")
    await vi.waitFor(async () => expect(await balance(buyer)).toBe("0.80"))
    expect(await balance(owner)).toBe("0.144")

    for (const path of ["/agents/?sort=trending&q=fifteen", "/credits/transactions", "/audit", "/orders/", "/api-keys"]) {
      const { status, json } = await call("GET", path, buyer)
      expect([path, status, json.length > 0]).toEqual([path, 200, true])
    }
    expect((await call("DELETE", `/api-keys/${created.id}`, buyer)).status).toBe(204)
    expect((await call("POST", "/proxy/FIFTEEN", created.key, {})).status).toBe(401)
    expect((await audit(sql)).filter(({ ok }) => !ok)).toEqual([])
  })

  it("hears its operators", async () => {
    const person = await register("operated@example.com")
    const entry = () => ({ auditId: newId<string>(), atMs: Date.now() })
    expect(await creditAccount(sql, { ...entry(), transactionId: newId<TransactionId>(), batchId: newId<string>(), email: "operated@example.com", amount: 5_000_000n, reason: "a test" }))
      .toEqual({ _tag: "credited", available: 5_000_000n })
    await vi.waitFor(async () => expect(await balance(person)).toBe("5.00"))
    const target = (await findSuspendable(sql, "operated@example.com"))!
    expect(await suspend(sql, target, true, entry())).toBe(true)
    await vi.waitFor(async () => expect((await call("GET", "/credits/balance", person)).status).toBe(403))
    expect(await suspend(sql, target, true, entry())).toBe(false)
    expect((await audit(sql)).filter(({ ok }) => !ok)).toEqual([])
  })

  it("is kept up: partitions ahead, old batches folded", async () => {
    await sql`update batches set created_at = now() - interval '2 hours'`
    await sql`update transactions set created_at = now() - interval '2 hours'`
    await keepUp(sql, Date.now())
    expect(await sql`select from batches`).toHaveLength(0)
    const partitions = await sql`select from pg_inherits where inhparent in ('usage'::regclass, 'idempotency_answers'::regclass)`
    expect(partitions.length).toBeGreaterThanOrEqual(10)
    const { json } = await call("GET", "/agents/FIFTEEN")
    expect(json).toMatchObject({ ticker: "FIFTEEN" })
    expect((await audit(sql)).filter(({ ok }) => !ok)).toEqual([])
  })
})
