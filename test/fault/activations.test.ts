/**
 * An account that is taken from its node again and again while it pays: its
 * decisions are lost with each activation, its money never.
 */
import { describe, expect, it } from "vitest"
import { storm, tally, until } from "../support/GatewayProcess.ts"
import { booked, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage()

const [calls, takeovers] = process.env["TOLLGATE_FULL"] === "1" ? [5_000, 1_000] : [200, 50]

describe("an account taken over from outside", () => {
  it(`${takeovers} times during ${calls} paid calls pays once for each that was answered, and for no other`, { timeout: 120_000 }, async () => {
    const { env, sql } = await stage.database()
    const [gateway, agent] = await Promise.all([stage.gateway(env), stage.agent()])
    const [buyer, seller] = await Promise.all([gateway.person("100.00"), gateway.person()])
    const { ticker } = await gateway.list(seller, agent.url, "0.01")
    const token = await gateway.key(buyer, { amount_usd: "100.00", window: "total" })

    let done = 0
    const replies = await storm(calls, 16, async () => {
      // Spread over the whole storm, and never waiting for it.
      if (done++ % (calls / takeovers) === 0) await sql`update accounts set token = token + 1 where id = ${buyer.accountId}`
      return gateway.call("POST", `/v1/proxy/${ticker}`, { token, body: { prompt: "work" } })
    })

    const { 200: passed = 0, 503: refused = 0, ...others } = tally(replies)
    expect(others).toEqual({})
    expect(refused).toBeGreaterThan(0)
    expect(await gateway.metric("tollgate_holds_open")).toBe(0)
    expect(await gateway.ask(200, "GET", "/v1/credits/holds", { token })).toEqual([])
    const answered = replies.flatMap((reply) => reply?.status === 200 ? [reply.headers["x-autx-transaction-id"] as string] : [])
    const charged = await sql<Array<{ id: string }>>`select id from transactions where type = 'charge'`
    expect(charged.map(({ id }) => id).sort()).toEqual(answered.sort())
    await until(async () => (await gateway.call("POST", `/v1/proxy/${ticker}`, { token, body: { prompt: "work" } })).status === 200)
    await gateway.stop()
    expect(await booked(sql, buyer.accountId)).toEqual({ available: 100_000_000n - 10_000n * BigInt(passed + 1), reserved: 0n })
    await expectCleanBooks(sql)
  })
})
