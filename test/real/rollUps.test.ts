import { randomUUID } from "node:crypto"
import { Effect, Layer, ManagedRuntime } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { audit } from "../../src/store/Audit.ts"
import type { UsageRow } from "../../src/store/Commit.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { type Sql, Postgres, connect } from "../../src/store/Postgres.ts"
import { keepUp } from "../../src/store/Upkeep.ts"
import { UsageBuffer } from "../../src/store/UsageBuffer.ts"
import { rollUpSql } from "../../src/store/usageSql.ts"
import { log } from "../../src/telemetry/log.ts"
import { type CutProxy, startCutProxy } from "../support/CutProxy.ts"
import { type TestDatabase, freshDatabase } from "../support/postgres.ts"
import { Random } from "../support/Random.ts"

const random = new Random()
console.log(`rollUps: SEED=${random.seed}`)

const ids = <Id>(count: number): ReadonlyArray<Id> => Array.from({ length: count }, () => randomUUID() as Id)
const accounts = ids<UsageRow["accountId"]>(7)
const agents = ids<UsageRow["agentId"]>(5)
/** Of these three days, so that hours, days, weeks and months differ. */
const call = (): UsageRow => ({
  id: randomUUID(), accountId: random.of(accounts), subjectId: random.of(accounts) as never, agentId: random.of(agents), call: "proxy",
  status: random.of([200, 204, 404, 499, 500, 503]), cost: 0n, latencyMs: random.below(500), atMs: Date.now() - random.below(3 * 86_400_000)
})

let database: TestDatabase
let proxy: CutProxy
let sql: Sql
const open = (options: TestDatabase["options"]) => ManagedRuntime.make(UsageBuffer.layer.pipe(Layer.provideMerge(Postgres.layer(options))))
let nodes: ReadonlyArray<ReturnType<typeof open>>

beforeAll(async () => {
  log.level = "silent"
  database = await freshDatabase()
  proxy = await startCutProxy(database.options)
  sql = connect(database.options, { max: 4, statementTimeoutMs: 30_000, name: "tollgate-test" })
  await migrate(sql)
  await keepUp(sql, Date.now())
  nodes = [open(database.options), open(proxy.options)]
})
afterAll(async () => {
  await Promise.all(nodes.map((node) => node.dispose()))
  await sql.end()
  await proxy.close()
  await database.drop()
})

const broken = async () => (await audit(sql)).filter(({ ok }) => !ok)
const counted = async () => {
  const [row] = await sql<Array<{ usage: number; totals: number; pending: number }>>`
    select (select count(*) from usage)::int as usage, (select coalesce(sum(calls), 0) from agent_totals)::int as totals, (select count(*) from usage_pending)::int as pending`
  return row!
}

describe("calls", () => {
  it("are added to the roll-ups exactly once, however many nodes roll up at once, and the audit holds at any moment of it", async () => {
    const buffers = await Promise.all(nodes.map((node) => node.runPromise(UsageBuffer.use((buffer) => Effect.succeed(buffer)))))
    for (let round = 0; round < 12; round++) {
      for (const { add } of buffers) for (let i = 0; i < 60; i++) add(call())
      const [, , found] = await Promise.all([Effect.runPromise(buffers[0]!.flush), Effect.runPromise(buffers[1]!.flush), broken(), sql.unsafe(rollUpSql)])
      expect(found).toEqual([])
    }
    expect(await counted()).toEqual({ usage: 12 * 120, totals: 12 * 120, pending: 0 })
    expect(await broken()).toEqual([])
  })

  it("that were answered before are in the figures of whoever flushes first", async () => {
    const { add, flush } = await nodes[0]!.runPromise(UsageBuffer.use((buffer) => Effect.succeed(buffer)))
    const before = await counted()
    for (let i = 1; i <= 20; i++) {
      add(call())
      await Effect.runPromise(flush)
      expect((await counted()).totals).toBe(before.totals + i)
    }
  })

  it("are not added twice when the connection is cut while they are", async () => {
    const { add, flush } = await nodes[1]!.runPromise(UsageBuffer.use((buffer) => Effect.succeed(buffer)))
    for (let i = 0; i < 10; i++) {
      for (let j = 0; j < 50; j++) add(call())
      const flushed = Effect.runPromise(flush)
      await new Promise((turn) => setImmediate(turn))
      proxy.sever()
      await flushed
      proxy.restore()
    }
    await expect.poll(async () => {
      await Effect.runPromise(flush)
      const { usage, totals, pending } = await counted()
      return pending === 0 && usage === totals
    }, { timeout: 20_000 }).toBe(true)
    expect(await broken()).toEqual([])
  })
})
