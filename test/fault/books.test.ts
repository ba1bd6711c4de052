/**
 * Where the money goes, to the last micro-dollar: the owner's share, the fee's
 * remainder, and the figure by which an operator sees that the books balance.
 */
import { describe, expect, it } from "vitest"
import { formatUsd, parseUsd } from "../../src/domain/credits.ts"
import { storm, tally, until } from "../support/GatewayProcess.ts"
import { expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage()

describe("an agent's owner", () => {
  it("can spend 72 % of completed orders, rounded down for each; the platform has the remainder", async () => {
    const { env, sql } = await stage.database()
    const [gateway, agent] = await Promise.all([stage.gateway(env), stage.agent()])
    const [buyer, seller] = await Promise.all([gateway.person("1.00"), gateway.person()])
    let [earned, buyback, fee] = [0n, 0n, 0n]
    for (const price of ["0.000007", "0.000001", "0.000099", "0.01", "0.333333"]) {
      const { id } = await gateway.list(seller, agent.url, price)
      const orders = await storm(2, 2, () => gateway.call("POST", "/v1/orders", { token: buyer.token, body: { agent_id: id, prompt: "work" } }))
      expect(tally(orders)).toEqual({ 201: 2 })
      const amount = parseUsd(price)!
      earned += 2n * (amount * 72n / 100n)
      buyback += 2n * (amount * 18n / 100n)
      fee += 2n * (amount - amount * 72n / 100n - amount * 18n / 100n)
    }
    await until(async () => (await sql`select from orders where status = 'completed'`).length === 10)
    // Earnings are moved when the balance is looked at, at most once a second.
    await until(async () => (await gateway.balance(seller)).balance_usd === formatUsd(earned))
    const [sums] = await sql`select sum(fee)::bigint as fee, sum(buyback)::bigint as buyback, sum(earned)::bigint as earned from transactions`
    expect(sums).toEqual({ fee, buyback, earned: 0n })
    expect(await sql`select posted from earnings where account_id = ${seller.accountId}`).toEqual([{ posted: 0n }])

    // What was earned is as good as what was paid in: spent whole, and not a micro-dollar more.
    const whole = await gateway.list(buyer, agent.url, formatUsd(earned))
    const order = { token: seller.token, body: { agent_id: whole.id, prompt: "work" } }
    await gateway.ask(201, "POST", "/v1/orders", order)
    await gateway.ask(402, "POST", "/v1/orders", order)
    await gateway.stop()
    await expectCleanBooks(sql)
  })
})

describe("the books' imbalance", () => {
  it("is unknown until it is proved, 0 after calls, orders, refunds and a crash, and what is wrong when something is", async () => {
    const { env, sql } = await stage.database()
    const [first, agent] = await Promise.all([stage.gateway(env), stage.agent()])
    const [buyer, seller] = await Promise.all([first.person("1.00"), first.person()])
    const { id, ticker } = await first.list(seller, agent.url, "0.03")
    const { token } = buyer
    await first.ask(201, "POST", "/v1/orders", { token, body: { agent_id: id, prompt: "work" } })
    expect((await first.call("POST", `/v1/proxy/${ticker}`, { token, body: { prompt: "work" } })).status).toBe(200)
    agent.keep()
    await first.ask(201, "POST", "/v1/orders", { token, body: { agent_id: id, prompt: "work" } })
    await first.kill9()

    const second = await stage.gateway(env)
    await until(async () => (await sql`select from orders where status = 'pending'`).length === 0)
    await second.stop()
    const third = await stage.gateway(env)
    await until(async () => !Number.isNaN(await third.metric("tollgate_ledger_imbalance_microusd")))
    expect(await third.metric("tollgate_ledger_imbalance_microusd")).toBe(0)
    await third.stop()
    await expectCleanBooks(sql)

    await sql`update accounts set available = available + 5 where id = ${buyer.accountId}`
    const fourth = await stage.gateway(env)
    await until(async () => await fourth.metric("tollgate_ledger_imbalance_microusd") === 5)
    expect(fourth.stderr()).toContain("the books don't balance")
  })
})
