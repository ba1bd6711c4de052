/**
 * A key that is taken back while it is in use: once that is answered nobody gets
 * in with it any more, and no call that was in flight brings it back.
 */
import { expect, it } from "vitest"
import { storm, tally } from "../support/GatewayProcess.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage()

it("DELETE of a key in use answers within a second by its own header, after it no call gets in, and calls in flight end well without bringing the key back", async () => {
  const { env } = await stage.database()
  const [gateway, agent] = await Promise.all([stage.gateway(env), stage.agent()])
  const [owner, seller] = await Promise.all([gateway.person("10.00"), gateway.person()])
  const [{ ticker: free }, { ticker: paid }] = await Promise.all([gateway.list(seller, agent.url, "0"), gateway.list(seller, agent.url, "0.01")])
  const token = await gateway.key(owner)
  const [{ id }] = await gateway.ask(200, "GET", "/v1/api-keys", { token: owner.token })
  const call = (ticker: string) => gateway.call("POST", `/v1/proxy/${ticker}`, { token, body: {} })

  agent.keep()
  const inFlight = [free, paid, free, paid].map(call)
  await agent.seen(4)
  let revoked = false
  const late: Array<number> = []
  const using = storm(400, 16, async () => {
    const afterwards = revoked
    // Unknown agents: admission alone is at stake, and answers at once.
    const { status } = await call("NOBODY")
    if (afterwards) late.push(status)
  })
  const reply = await gateway.call("DELETE", `/v1/api-keys/${id}`, { token: owner.token })
  revoked = true
  expect(reply.status).toBe(204)
  expect(reply.headers["x-autx-revoked-within-ms"]).toMatch(/^\d{1,4}$/)
  expect(Number(reply.headers["x-autx-revoked-within-ms"])).toBeLessThanOrEqual(1_000)
  await using
  expect(late.length).toBeGreaterThan(0)
  expect(late.filter((status) => status !== 401)).toEqual([])

  agent.release()
  expect(tally(await Promise.all(inFlight))).toEqual({ 200: 4 })
  expect(tally(await Promise.all(Array.from({ length: 8 }, (_, nth) => call(nth % 2 === 0 ? free : paid))))).toEqual({ 401: 8 })
  expect(agent.asked).toHaveLength(4)
})
