import { randomUUID } from "node:crypto"
import { Effect, Layer, ManagedRuntime } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { limits } from "../../src/config.ts"
import type { UsageRow } from "../../src/store/Commit.ts"
import { Postgres } from "../../src/store/Postgres.ts"
import { UsageBuffer } from "../../src/store/UsageBuffer.ts"
import { log } from "../../src/telemetry/log.ts"
import { metrics, registry } from "../../src/telemetry/Metrics.ts"
import { type CutProxy, startCutProxy } from "../support/CutProxy.ts"
import { type TestDatabase, freshDatabase } from "../support/postgres.ts"

const dropped = async (): Promise<number> => (await metrics.usageDropped.get()).values[0]?.value ?? 0
const buffered = async (): Promise<number> => Number(/^tollgate_usage_buffered_rows (\d+)$/m.exec(await registry.getSingleMetricAsString("tollgate_usage_buffered_rows"))?.[1])

const [accountId, subjectId, agentId] = [randomUUID(), randomUUID(), randomUUID()] as unknown as [UsageRow["accountId"], UsageRow["subjectId"], UsageRow["agentId"]]
const freeCall = (): UsageRow => ({ id: randomUUID(), accountId, subjectId, agentId, call: "proxy", status: 200, cost: 0n, latencyMs: 1, atMs: Date.now() })

describe("the usage of free calls, while the database is away,", () => {
  let database: TestDatabase
  let proxy: CutProxy
  const open = (options: TestDatabase["options"]) => ManagedRuntime.make(UsageBuffer.layer.pipe(Layer.provideMerge(Postgres.layer(options))))
  let node: ReturnType<typeof open>

  beforeAll(async () => {
    log.level = "silent"
    database = await freshDatabase()
    proxy = await startCutProxy(database.options)
    node = open(proxy.options)
  })
  afterAll(async () => {
    await node.dispose()
    await proxy.close()
    await database.drop()
  })

  it("is kept up to 200,000 rows, and every row above is counted as dropped", async () => {
    const { add, flush } = await node.runPromise(UsageBuffer.use((buffer) => Effect.succeed(buffer)))
    proxy.sever()
    const before = await dropped()
    const half = limits.usageBufferRows / 2
    for (let i = 0; i < half; i++) add(freeCall())
    // What is on its way when the connection ends may have been written: it is not sent again, but counted.
    await node.runPromise(flush)
    const unknown = await dropped() - before
    expect(unknown).toBeLessThanOrEqual(limits.usagePageBytes / 150)
    expect(await buffered()).toBe(half - unknown)
    for (let i = 0; i < half + unknown + 7; i++) add(freeCall())
    expect([await buffered(), await dropped() - before]).toEqual([200_000, unknown + 7])
  })
})
