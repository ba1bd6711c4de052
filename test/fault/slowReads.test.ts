/**
 * Pages of spending that take for ever, asked for by many at once: they are cut
 * off by the database after their time, and meanwhile calls are charged as ever.
 */
import { expect, it } from "vitest"
import { limits } from "../../src/config.ts"
import { storm, tally, until } from "../support/GatewayProcess.ts"
import { expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage()

it("reads that don't end are cut off with 503 and Retry-After, on connections of their own, while paid calls go on and the node stays ready", async () => {
  const { env, sql } = await stage.database()
  const [gateway, agent] = await Promise.all([stage.gateway(env), stage.agent()])
  const [buyer, seller] = await Promise.all([gateway.person("10.00"), gateway.person()])
  const { ticker } = await gateway.list(seller, agent.url, "0.01")
  const token = await gateway.key(buyer)
  const call = () => gateway.call("POST", `/v1/proxy/${ticker}`, { token, body: {} })
  expect((await call()).status).toBe(200)

  const { pages } = await sql.begin(async (locked) => {
    // No charge writes here, every page of the log reads here.
    await locked`lock table audit_log in access exclusive mode`
    const pages = Array.from({ length: 20 }, () => gateway.call("GET", "/v1/audit", { token: buyer.token }))
    const waiting = async (): Promise<number> => (await sql`
      select from pg_stat_activity where datname = current_database() and application_name = 'tollgate' and wait_event_type = 'Lock'`).length
    await until(async () => await waiting() === limits.readConnections)
    expect(tally(await storm(100, 8, call))).toEqual({ 200: 100 })
    expect((await gateway.call("GET", "/ready")).status).toBe(200)
    expect(await waiting()).toBe(limits.readConnections)
    const cut = await Promise.race(pages)
    expect(cut.status).toBe(503)
    expect(Number(cut.headers["retry-after"])).toBeGreaterThanOrEqual(1)
    return { pages }
  })
  // Who waited behind the first ones is served, now that nothing is in the way.
  const { 200: served = 0, 503: cut = 0, ...others } = tally(await Promise.all(pages))
  expect([served + cut, others]).toEqual([20, {}])
  expect(served).toBeGreaterThan(0)
  expect((await gateway.call("GET", "/v1/audit", { token: buyer.token })).status).toBe(200)
  await gateway.stop()
  await expectCleanBooks(sql)
})
