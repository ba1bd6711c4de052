/** Calls to agents as autx dresses them: what the agent sees, what the caller gets back, what it costs. */
import { createPublicKey, verify } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Person, type World, makeWorld } from "../support/World.ts"
import { settledOrder } from "./Autx.ts"
import { makeGate } from "./Example.ts"

let free: World
let paid: World
let caller: Person
beforeAll(async () => {
  free = await makeWorld()
  paid = await makeWorld({ settings: { proxyBilling: "paid" } })
  caller = await free.user()
})
afterAll(async () => {
  for (const world of [free, paid]) {
    expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])
    await world.stop()
  }
})

const balance = async (world: World, { accessToken }: Person) => (await world.call("GET", "/v1/credits/balance", { token: accessToken })).json

describe("a proxy call", () => {
  it("reaches the agent with its body and type unchanged, our protocol, and nothing of the caller's", async () => {
    const agent = await free.agent()
    const { key } = await caller.key("proxy")
    const body = Buffer.from([0, 255, 10, 13, 128])
    const reply = await free.call("POST", `/v1/proxy/${agent.ticker}?lang=en`, {
      token: key, body, headers: { "content-type": "application/x-own", cookie: "a=b", "x-autx-request-id": "forged", "x-autx-anything": "forged", "x-custom": "kept", "idempotency-key": "k" }
    })
    const [asked] = agent.asked
    expect(asked!.url.endsWith("?lang=en")).toBe(true)
    expect(asked!.headers).toMatchObject({ "content-type": "application/x-own", "x-autx-protocol": "1", "x-autx-request-id": reply.headers.get("x-autx-request-id"), "x-custom": "kept" })
    for (const name of ["cookie", "x-autx-anything", "idempotency-key", "x-forwarded-for"]) expect(asked!.headers, name).not.toHaveProperty(name)
    expect(JSON.stringify(asked!.headers)).not.toContain(key)
    expect(reply.headers.get("x-request-id")).toBe(reply.headers.get("x-autx-request-id"))
  })

  it("without a body and a type is an empty JSON object", async () => {
    const agent = await free.agent()
    await free.call("POST", `/v1/proxy/${agent.ticker}`, { token: caller.accessToken })
    expect([agent.asked[0]!.body, agent.asked[0]!.headers["content-type"]]).toEqual(["{}", "application/json"])
  })

  const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
  it.each([
    ["goes on at the agent", `00-${trace}-00f067aa0ba902b7-01`, [`00-${trace}-00f067aa0ba902b7-01`, "vendor=1"]],
    ["that is not valid ends here", `00-${"0".repeat(32)}-00f067aa0ba902b7-01`, [undefined, undefined]]
  ])("and an order with a trace context that %s", async (_what, traceparent, seen) => {
    const agent = await free.agent()
    const options = { token: caller.accessToken, headers: { traceparent, tracestate: "vendor=1" } }
    await free.call("POST", `/v1/proxy/${agent.ticker}`, { ...options, body: {} })
    const order = await free.call("POST", "/v1/orders/", { ...options, body: { agent_id: agent.ticker, prompt: "hello" } })
    await settledOrder(free, caller.accessToken, order.json.id)
    expect(agent.asked.map(({ headers }) => [headers["traceparent"], headers["tracestate"]])).toEqual([seen, seen])
  })

  it("carries a token for this agent that its key set proves, which is no login here", async () => {
    const agent = await free.agent()
    await free.call("POST", `/v1/proxy/${agent.id}`, { token: caller.accessToken, body: {} })
    const token = agent.asked[0]!.headers.authorization!.replace("Bearer ", "")
    const [head, claims, signature] = token.split(".") as [string, string, string]
    const { keys } = (await free.call("GET", "/.well-known/jwks.json")).json
    const { kid, typ } = JSON.parse(Buffer.from(head, "base64url").toString())
    const jwk = keys.find((key: { kid: string }) => key.kid === kid)
    expect(typ).toBe("agent+jwt")
    expect(verify(null, Buffer.from(`${head}.${claims}`), createPublicKey({ key: jwk, format: "jwk" }), Buffer.from(signature, "base64url"))).toBe(true)
    expect(JSON.parse(Buffer.from(claims, "base64url").toString())).toMatchObject({ iss: free.publicUrl, aud: agent.endpointUrl, sub: caller.accountId, agent: agent.id })
    expect((await free.call("GET", "/v1/auth/me", { token })).status).toBe(401)
  })

  it("carries the provider key of an agent that asks for it, as its provider takes keys", async () => {
    const agent = await free.agent({ more: { auth_tier: "buyer_key" } })
    const deposit = (body: object) => free.call("PUT", `/v1/agents/${agent.id}/provider-key`, { token: agent.owner.accessToken, body })
    const shown = await deposit({ provider_key: "sk-ant-secret", provider: "anthropic" })
    expect(shown.text).not.toContain("sk-ant-secret")
    await free.call("POST", `/v1/proxy/${agent.ticker}`, { token: caller.accessToken, body: {} })
    await deposit({ provider_key: "sk-other-secret" })
    await free.call("POST", `/v1/proxy/${agent.ticker}`, { token: caller.accessToken, body: {} })
    expect(agent.asked.map(({ headers }) => [headers["x-api-key"], headers.authorization])).toEqual([["sk-ant-secret", undefined], [undefined, "Bearer sk-other-secret"]])
  })

  it("brings the agent's status, type and body back, but nothing that speaks for the gateway", async () => {
    const agent = await free.agent({
      respond: () => ({
        status: 418, body: "<h1>short and stout</h1>",
        headers: {
          "content-type": "text/html", "x-autx-agent": "FORGED", "x-autx-cost-usd": "0.00", "set-cookie": "a=b", "content-security-policy": "default-src *",
          "content-security-policy-report-only": "report-uri /", "x-ratelimit-limit": "1", "x-request-id": "forged", "x-kept": "yes"
        }
      })
    })
    const reply = await free.call("POST", `/v1/proxy/${agent.ticker}`, { token: caller.accessToken, body: {} })
    expect([reply.status, reply.text]).toEqual([418, "<h1>short and stout</h1>"])
    const headers = Object.fromEntries(reply.headers)
    expect(headers).toMatchObject({ "content-type": "text/html", "x-autx-agent": agent.ticker, "content-security-policy": "sandbox", "x-kept": "yes", "x-ratelimit-limit": "100000" })
    for (const name of ["set-cookie", "x-autx-cost-usd", "x-autx-transaction-id", "content-security-policy-report-only"]) expect(headers).not.toHaveProperty(name)
    expect(headers["x-request-id"]).not.toBe("forged")
  })

  it("is free here, for a priced agent too", async () => {
    const agent = await free.agent({ price: "5.00" })
    const person = await free.user()
    expect((await free.call("POST", `/v1/proxy/${agent.ticker}`, { token: person.accessToken, body: {} })).status).toBe(200)
    expect((await balance(free, person)).balance_usd).toBe("0.00")
  })
})

describe("where proxy calls cost money", () => {
  it("has the final bill in the answer, and shares it with the agent's owner", async () => {
    const agent = await paid.agent({ price: "0.50" })
    const person = await paid.user()
    await person.fund("2.00")
    const reply = await paid.call("POST", `/v1/proxy/${agent.ticker}`, { token: person.accessToken, body: {} })
    expect([reply.status, reply.headers.get("x-autx-cost-usd"), reply.headers.get("x-autx-balance-usd")]).toEqual([200, "0.50", "1.50"])
    const [charge] = (await paid.call("GET", "/v1/credits/transactions", { token: person.accessToken })).json
    expect(charge).toMatchObject({ id: reply.headers.get("x-autx-transaction-id"), type: "charge", amount_usd: "-0.50", balance_after: "1.50", agent_ticker: agent.ticker })
    expect((await balance(paid, agent.owner)).balance_usd).toBe("0.36")
    const [earning] = (await paid.call("GET", "/v1/credits/transactions", { token: agent.owner.accessToken })).json
    expect(earning).toMatchObject({ type: "earning", amount_usd: "0.36" })
  })

  it("is free for the owner, for a $0 agent, and when the agent fails", async () => {
    const person = await paid.user()
    await person.fund("2.00")
    const own = await paid.agent({ price: "0.50", owner: person })
    const nothing = await paid.agent()
    const failing = await paid.agent({ price: "0.50", respond: () => ({ status: 500, body: "broken" }) })
    for (const { ticker } of [own, nothing, failing]) {
      const reply = await paid.call("POST", `/v1/proxy/${ticker}`, { token: person.accessToken, body: {} })
      expect([reply.status === 500 ? ticker : "", reply.headers.get("x-autx-cost-usd")]).toEqual([ticker === failing.ticker ? ticker : "", null])
    }
    expect(await balance(paid, person)).toMatchObject({ balance_usd: "2.00", reserved_usd: "0.00" })
  })

  it("holds the price while the agent works, and shows the hold", async () => {
    const { opened, open } = makeGate()
    const agent = await paid.agent({ price: "0.50", respond: async () => {
      await opened
      return { body: "done" }
    } })
    const person = await paid.user()
    await person.fund("0.60")
    const call = () => paid.call("POST", `/v1/proxy/${agent.ticker}`, { token: person.accessToken, body: {} })
    const first = call()
    await agent.askedTimes(1)
    expect(await balance(paid, person)).toMatchObject({ balance_usd: "0.10", reserved_usd: "0.50" })
    const { json: holds } = await paid.call("GET", "/v1/credits/holds", { token: person.accessToken })
    expect(holds).toEqual([{ id: expect.any(String), amount_usd: "0.50", call: "proxy", agent_ticker: agent.ticker, expires_at: expect.stringMatching(/Z$/) }])
    expect((await call()).json).toMatchObject({ detail: "Insufficient credits", required_usd: "0.50", available_usd: "0.10", held_usd: "0.50", hint: expect.stringContaining("in flight") })
    open()
    expect((await first).status).toBe(200)
    expect((await paid.call("GET", "/v1/credits/holds", { token: person.accessToken })).json).toEqual([])
  })

  it("is charged once for one Idempotency-Key, and repeats an answer whose length the agent had told", async () => {
    const body = "{\"output\":\"done\"}"
    const told = await paid.agent({ price: "0.50", respond: () => ({ body, headers: { "content-type": "application/json", "content-length": String(body.length) } }) })
    const streamed = await paid.agent({ price: "0.50" })
    const person = await paid.user()
    await person.fund("2.00")
    const call = ({ ticker }: { readonly ticker: string }) =>
      paid.call("POST", `/v1/proxy/${ticker}`, { token: person.accessToken, body: { prompt: "x" }, headers: { "idempotency-key": `once-${ticker}` } })
    const [first, again] = [await call(told), await call(told)]
    expect([again.status, again.text, again.headers.get("idempotent-replayed")]).toEqual([200, first.text, "true"])
    for (const name of ["x-autx-transaction-id", "x-autx-cost-usd", "x-autx-balance-usd"]) expect(again.headers.get(name), name).toBe(first.headers.get(name))
    for (let i = 0; i < 2; i++) await call(streamed)
    expect([told.asked.length, streamed.asked.length, (await balance(paid, person)).balance_usd]).toEqual([1, 1, "1.00"])
  })
})

describe("an order", () => {
  it.each([
    ["its response", { "content-type": "application/json" }, "{\"response\":\"text\"}", "text"],
    ["its output", { "content-type": "application/json" }, "{\"output\":\"text\"}", "text"],
    ["the whole of other JSON", { "content-type": "application/json" }, "[1]", "[1]"],
    ["the whole of a text", { "content-type": "text/plain" }, "plain", "plain"]
  ])("keeps %s", async (_, headers, body, output) => {
    const agent = await free.agent({ respond: () => ({ headers, body }) })
    const { json } = await free.call("POST", "/v1/orders", { token: caller.accessToken, body: { agent_id: agent.id, prompt: "p", payment_method: "stripe" } })
    expect(await settledOrder(free, caller.accessToken, json.id)).toMatchObject({ status: "completed", output_text: output, payment_method: "stripe" })
    expect(JSON.parse(agent.asked[0]!.body)).toEqual({ prompt: "p" })
  })

  it("that fails is refunded in full", async () => {
    const agent = await free.agent({ price: "0.50", respond: () => ({ status: 500, body: "broken" }) })
    const person = await free.user()
    await person.fund("2.00")
    const { json } = await free.call("POST", "/v1/orders", { token: person.accessToken, body: { agent_id: agent.id, prompt: "p" } })
    expect(await settledOrder(free, person.accessToken, json.id)).toMatchObject({ status: "failed", output_text: null, output_hash: null, error: expect.any(String), completed_at: expect.any(String) })
    expect(await balance(free, person)).toMatchObject({ balance_usd: "2.00", reserved_usd: "0.00" })
    const { json: movements } = await free.call("GET", "/v1/credits/transactions", { token: person.accessToken })
    expect(movements.map(({ type, amount_usd }: { type: string; amount_usd: string }) => [type, amount_usd])).toEqual([["refund", "0.50"], ["charge", "-0.50"], ["deposit", "2.00"]])
  })

  it("reserves its price until it ends", async () => {
    const { opened, open } = makeGate()
    const agent = await free.agent({ price: "0.50", respond: async () => {
      await opened
      return { body: "done" }
    } })
    const person = await free.user()
    await person.fund("2.00")
    const { json } = await free.call("POST", "/v1/orders", { token: person.accessToken, body: { agent_id: agent.id, prompt: "p" } })
    expect(await balance(free, person)).toEqual({ balance_usd: "1.50", reserved_usd: "0.50", available_usdc: "1.50", reserved_usdc: "0.50" })
    open()
    expect(await settledOrder(free, person.accessToken, json.id)).toMatchObject({ status: "completed", amount_paid: 0.5, platform_fee: 0.05 })
    expect(await balance(free, person)).toMatchObject({ balance_usd: "1.50", reserved_usd: "0.00" })
  })
})
