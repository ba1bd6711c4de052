/** Chat sessions over REST: what their owner sees of them and does with them, what their agent may read, and what nobody else may. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { echoes } from "../support/ChatAgent.ts"
import { type Buyer, ChatScene, type ListedAgent, expectNoHolds } from "../support/ChatScene.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)
const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
let scene: ChatScene
let listed: ListedAgent

beforeAll(async () => {
  scene = await ChatScene.set(stage)
  listed = await scene.list("0.40", echoes)
})
afterAll(async () => {
  scene.hangUp()
})

/** A session of its own, with these prompts, closed or not. */
const session = async (buyer: Buyer, prompts: ReadonlyArray<string>, isClosed: boolean, agent = listed): Promise<string> => {
  const chat = await scene.open(agent, buyer.key)
  for (const prompt of prompts) await chat.turn(prompt)
  if (isClosed) {
    chat.send({ type: "close" })
    await chat.closed
  }
  return chat.session["session_id"] as string
}
const get = (path: string, token: string) => scene.gateway.call("GET", `/v1${path}`, { token })
/** All pages of a list, by its links. */
const pages = async (path: string, token: string): Promise<ReadonlyArray<ReadonlyArray<any>>> => {
  const all = []
  for (let next: string | undefined = `/v1${path}`; next !== undefined;) {
    const { status, json, headers } = await scene.gateway.call("GET", next, { token })
    expect(status).toBe(200)
    all.push(json)
    next = /^<http:\/\/gateway\.test(\/[^>]+)>; rel="next"$/.exec(String(headers["link"] ?? ""))?.[1]
  }
  return all
}

describe("the owner of sessions", () => {
  it("lists them, newest first, all or by status, page by page", async () => {
    const buyer = await scene.buyer("10.00")
    const ids = [
      await session(buyer, ["one", "two"], true), await session(buyer, [], true), await session(buyer, ["three"], false), await session(buyer, [], false)
    ]
    const rows = [
      { id: ids[3], agent_ticker: listed.ticker, status: "active", message_count: 0, consumed_usd: "0.00", started_at: time, closed_at: null },
      { id: ids[2], agent_ticker: listed.ticker, status: "active", message_count: 1, consumed_usd: "0.40", started_at: time, closed_at: null },
      { id: ids[1], agent_ticker: listed.ticker, status: "closed", message_count: 0, consumed_usd: "0.00", started_at: time, closed_at: time },
      { id: ids[0], agent_ticker: listed.ticker, status: "closed", message_count: 2, consumed_usd: "0.80", started_at: time, closed_at: time }
    ]
    expect((await get("/sessions", buyer.token)).json).toEqual(rows)
    expect((await get("/sessions/?status=active", buyer.key)).json).toEqual(rows.slice(0, 2))
    expect((await get("/sessions?status=closed", buyer.key)).json).toEqual(rows.slice(2))
    expect(await pages("/sessions?limit=1", buyer.key)).toEqual(rows.map((row) => [row]))
    expect(await pages("/sessions?status=closed&limit=1", buyer.key)).toEqual(rows.slice(2).map((row) => [row]))
    for (const row of rows) expect((await get(`/sessions/${row.id}`, buyer.key)).json).toEqual(row)
    for (const query of ["status=open", "limit=0", "limit=101", "cursor=x"]) expect((await get(`/sessions?${query}`, buyer.key)).status, query).toBe(422)
    // A session's turns are orders, charges and part of the ledger like any other.
    const orders = (await get("/orders", buyer.key)).json as ReadonlyArray<{ readonly id: string; readonly status: string; readonly amount_paid: number }>
    expect(orders.map(({ status, amount_paid }) => [status, amount_paid])).toEqual(Array.from({ length: 3 }, () => ["completed", 0.4]))
    const charges = ((await get("/credits/transactions", buyer.key)).json as ReadonlyArray<any>).filter(({ type }) => type === "charge")
    expect(charges.map(({ amount_usd, agent_ticker, order_id, session_id }) => [amount_usd, agent_ticker, order_id, session_id])).toEqual(
      orders.map(({ id }, at) => ["-0.40", listed.ticker, id, ids[at === 0 ? 2 : 0]])
    )
  })

  it("reads their messages, oldest first, page by page", async () => {
    const buyer = await scene.buyer("10.00")
    const prompts = ["one", "two", "three"]
    const id = await session(buyer, prompts, false)
    const expected = prompts.flatMap((content) => [
      { role: "user", content, created_at: time }, { role: "assistant", content, order_id: expect.stringMatching(/^[0-9a-f-]{36}$/), created_at: time }
    ])
    expect((await get(`/sessions/${id}/messages`, buyer.key)).json).toEqual(expected)
    expect(await pages(`/sessions/${id}/messages?limit=1`, buyer.token)).toEqual([expected.slice(0, 2), expected.slice(2, 4), expected.slice(4)])
    expect((await get(`/sessions/${await session(buyer, [], true)}/messages`, buyer.key)).json).toEqual([])
  })

  it("closes them: 204 the first time, 200 with the session from then on, and what was held is free", async () => {
    const buyer = await scene.buyer("10.00")
    const id = await session(buyer, ["one"], false)
    expect(await scene.gateway.balance(buyer)).toEqual({ balance_usd: "8.00", reserved_usd: "1.60" })
    const [first, second] = [await scene.gateway.call("DELETE", `/v1/sessions/${id}`, { token: buyer.key }), await scene.gateway.call("DELETE", `/api/v1/sessions/${id}/`, { token: buyer.token })]
    expect([first.status, first.text]).toEqual([204, ""])
    expect([second.status, second.json]).toEqual([200, { id, agent_ticker: listed.ticker, status: "closed", message_count: 1, consumed_usd: "0.40", started_at: time, closed_at: time }])
    await scene.expectLeft(buyer, "9.60")
  })

  it("closes one once, however many ask at once", async () => {
    const buyer = await scene.buyer("10.00")
    const id = await session(buyer, ["one"], false)
    const statuses = await Promise.all(Array.from({ length: 10 }, async () => (await scene.gateway.call("DELETE", `/v1/sessions/${id}`, { token: buyer.key })).status))
    expect(statuses.filter((status) => status === 204).length).toBeGreaterThan(0)
    expect(statuses.filter((status) => status !== 204 && status !== 200)).toEqual([])
    await scene.expectLeft(buyer, "9.60")
  })

  it("gets a receipt of a closed session that cost something, as PDF, and is told why not of others", async () => {
    const buyer = await scene.buyer("10.00")
    const [paid, free, active] = [await session(buyer, ["one", "two"], true), await session(buyer, [], true), await session(buyer, ["one"], false)]
    const receipt = await get(`/sessions/${paid}/receipt`, buyer.key)
    expect([receipt.status, receipt.headers["content-type"], receipt.text.slice(0, 5)]).toEqual([200, "application/pdf", "%PDF-"])
    expect(await get(`/sessions/${active}/receipt`, buyer.key)).toMatchObject({ status: 400, json: { detail: expect.stringContaining("still active") } })
    expect(await get(`/sessions/${free}/receipt`, buyer.key)).toMatchObject({ status: 422, json: { detail: expect.stringContaining("cost nothing") } })
    expect((await get("/sessions/ses_00000000000000000000000000000000/receipt", buyer.key)).status).toBe(404)
  })
})

describe("nobody else", () => {
  it("finds a session, nor learns that it is there", async () => {
    const [buyer, other] = await Promise.all([scene.buyer("10.00"), scene.buyer("10.00")])
    const id = await session(buyer, ["one"], true)
    const open = await session(buyer, [], false)
    for (const token of [other.key, other.token, scene.seller.token]) {
      for (const name of [id, open]) {
        for (const path of ["", "/messages", "/receipt"]) expect(await get(`/sessions/${name}${path}`, token)).toMatchObject({ status: 404, json: { detail: "No such chat session among yours" } })
        expect((await scene.gateway.call("DELETE", `/v1/sessions/${name}`, { token })).status).toBe(404)
      }
      expect((await get("/sessions", token)).json).toEqual([])
    }
    expect((await get(`/sessions/${open}`, buyer.key)).json.status).toBe("active")
    for (const name of ["x", "ses_1", "ses_' or 1=1", "%00", "..", "__proto__"]) {
      expect((await get(`/sessions/${encodeURIComponent(name)}`, buyer.key)).status, name).toBe(404)
    }
    const scoped = await scene.gateway.ask(201, "POST", "/v1/api-keys", { token: buyer.token, body: { name: "proxy", scopes: "proxy,agents" } })
    expect((await get(`/sessions/${id}`, scoped.key)).status).toBe(403)
    expect((await scene.gateway.call("GET", `/v1/sessions/${id}`)).status).toBe(401)
  })
})

describe("the agent of a session", () => {
  const forwarded = async (agent: ListedAgent): Promise<string> => agent.agent.turns.at(-1)!.headers.authorization!.replace("Bearer ", "")

  it("reads its messages with the token that it was called with, and nothing else of anybody", async () => {
    const [agent, buyer] = await Promise.all([scene.list("0.01", echoes), scene.buyer("10.00")])
    const id = await session(buyer, ["one"], false, agent)
    const token = await forwarded(agent)
    const other = await session(buyer, ["two"], false, agent)
    expect((await get(`/sessions/${id}/messages`, token)).json.map(({ content }: { content: string }) => content)).toEqual(["one", "one"])
    expect((await get(`/sessions/${other}/messages`, token)).status).toBe(404)
    expect((await get(`/sessions/${other}/messages`, await forwarded(agent))).status).toBe(200)
    const others: ReadonlyArray<readonly ["GET" | "POST" | "DELETE", string]> = [
      ["GET", "/sessions"], ["GET", `/sessions/${id}`], ["GET", `/sessions/${id}/receipt`], ["DELETE", `/sessions/${id}`], ["GET", "/orders"], ["GET", "/credits/balance"],
      ["GET", "/credits/holds"], ["GET", "/credits/transactions"], ["GET", "/api-keys"], ["GET", "/auth/me"], ["GET", "/audit"], ["POST", `/proxy/${agent.ticker}`], ["POST", "/api-keys"],
      ["POST", "/orders"]
    ]
    for (const [method, path] of others) {
      expect((await scene.gateway.call(method, `/v1${path}`, { token, ...(method === "POST" ? { body: {} } : {}) })).status, `${method} ${path}`).toBe(401)
    }
    expect((await get(`/sessions/${id}`, buyer.key)).json.status).toBe("active")
  })

  it("reads nothing with a token that names no session, or is no longer its own", async () => {
    const [agent, buyer] = await Promise.all([scene.list("0.01", echoes), scene.buyer("10.00")])
    const id = await session(buyer, ["one"], false, agent)
    const token = await forwarded(agent)
    await scene.gateway.ask(200, "POST", `/v1/proxy/${agent.ticker}`, { token: buyer.key, body: { prompt: "x", history: [] } }).catch(() => {})
    const proxied = await forwarded(agent)
    expect(proxied).not.toBe(token)
    expect((await get(`/sessions/${id}/messages`, proxied)).status).toBeGreaterThanOrEqual(401)
    const [head, claims, signature] = token.split(".")
    const forged = Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(claims!, "base64url").toString()), session: await session(buyer, ["secret"], false, agent) })).toString("base64url")
    expect((await get(`/sessions/${id}/messages`, `${head}.${forged}.${signature}`)).status).toBe(401)
  })

  it("uses up nothing of its caller's window", async () => {
    const own = await ChatScene.set(stage, { KEY_RATE_LIMIT_DEFAULT: "20" })
    const [agent, buyer] = await Promise.all([own.list("0.01", echoes), own.buyer("10.00")])
    const chat = await own.open(agent, buyer.key)
    await chat.turn("one")
    const token = await forwarded(agent)
    const path = `/v1/sessions/${chat.session["session_id"]}/messages`
    for (let n = 0; n < 18; n++) await own.gateway.call("GET", path, { token })
    const { headers } = await own.gateway.call("GET", path, { token: buyer.key })
    expect(headers["x-ratelimit-remaining"]).toBe("18")
    chat.send({ type: "close" })
    await chat.closed
    await expectNoHolds(own.gateway)
  })
})
