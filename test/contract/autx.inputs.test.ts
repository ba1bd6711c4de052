/** What autx takes and refuses, field by field, and how lists are paged. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { settledOrder } from "./Autx.ts"
import { type Person, type Reply, type World, makeWorld } from "../support/World.ts"

let world: World
let caller: Person
beforeAll(async () => {
  world = await makeWorld()
  caller = await world.user()
})
afterAll(() => world.stop())

const post = (path: string, body: unknown): Promise<Reply> => world.call("POST", `/v1${path}`, { token: caller.accessToken, body })
const get = (path: string): Promise<Reply> => world.call("GET", `/v1${path}`, { token: caller.accessToken })
const places = (reply: Reply): ReadonlyArray<string> => (reply.json.errors ?? []).map((issue: { loc: ReadonlyArray<string> }) => issue.loc.join("."))

/** Sends a body as it is written, so that numbers keep their digits. */
const postText = (path: string, body: string): Promise<Reply> =>
  world.call("POST", `/v1${path}`, { token: caller.accessToken, body, headers: { "content-type": "application/json" } })

describe("a new agent", () => {
  let count = 0
  const agentWith = (more: object) => ({ name: "An agent", ticker: `IN${++count}`, endpoint_url: world.endpoint(), service_price: 0, ...more })

  it.each([
    ["name", ""], ["name", "x".repeat(201)], ["name", true], ["description", "x".repeat(10_001)], ["category", "x".repeat(101)],
    ["ticker", "summ"], ["ticker", "S"], ["ticker", "1SUM"], ["ticker", "ABCDEFGHIJK"], ["ticker", "SÜMM"], ["ticker", "SUMM\n"],
    ["endpoint_url", "agent.example.com"], ["endpoint_url", "ftp://agent.example.com"], ["endpoint_url", `https://a.example/${"x".repeat(2048)}`],
    ["service_price", -1], ["service_price", "-0.5"], ["service_price", "0.0000001"], ["service_price", "1e3"], ["service_price", ""], ["service_price", "1000000000.01"], ["service_price", null],
    ["auth_tier", "none"], ["free_tier_calls", -1], ["free_tier_calls", 1.5], ["free_tier_calls", 1_000_001],
    ["manifest.input.type", { input: { type: "xml" } }], ["manifest.input.max_size_bytes", { input: { max_size_bytes: 0 } }],
    ["manifest.output.content_types", { output: { content_types: "text/plain" } }], ["manifest.supports_sessions", { supports_sessions: "yes" }]
  ])("is refused for its %s: %j", async (place, value) => {
    const reply = await post("/agents/", agentWith({ [place.split(".")[0]!]: value }))
    expect([reply.status, places(reply)], reply.text).toEqual([422, [`body.${place}`]])
  })

  it.each([["0.1", "0.100000"], ["0.000001", "\"0.000001\""], ["999999999.999999", "999999999.999999"], ["0", "0.0000000"]])("costs exactly $%s when %s is written", async (usd, written) => {
    const { service_price: _, ...rest } = agentWith({})
    const reply = await postText("/agents/", `${JSON.stringify(rest).slice(0, -1)},"service_price":${written}}`)
    expect([reply.status, reply.json.service_price]).toEqual([201, Number(usd)])
    const [row] = await world.sql<Array<{ price: bigint }>>`select price from agents where id = ${reply.json.id}`
    expect(row!.price).toBe(BigInt(Math.round(Number(usd) * 1e6)))
  })

  it("may leave out what has a default, and its manifest's every field", async () => {
    const reply = await post("/agents/", agentWith({ manifest: {} }))
    expect(reply.json).toMatchObject({ description: "", category: "", auth_tier: "jwt_default", manifest: {}, free_tier_calls: 0, status: "active" })
    const cleared = await world.call("PATCH", `/v1/agents/${reply.json.id}`, { token: caller.accessToken, body: { manifest: null } })
    expect([cleared.status, cleared.json.manifest]).toEqual([200, null])
    const untouched = await world.call("PATCH", `/v1/agents/${reply.json.id}`, { token: caller.accessToken, body: {} })
    expect(untouched.json).toEqual(cleared.json)
  })

  it("tells every problem at once", async () => {
    expect(places(await post("/agents/", { ticker: "summ", manifest: 5 })).toSorted()).toEqual(["body.endpoint_url", "body.manifest", "body.name", "body.service_price", "body.ticker"])
  })
})

describe("a new API key", () => {
  it.each([["proxy,orders", "proxy,orders"], [["orders", "proxy"], "orders,proxy"], [" proxy , proxy ", "proxy"], ["*", "*"], [undefined, "proxy,orders"]])("takes the scopes %j as %s", async (scopes, shown) => {
    const reply = await post("/api-keys/", { name: "a key", scopes })
    expect([reply.status, reply.json.scopes]).toEqual([201, shown])
  })

  it.each([
    ["scopes", "admin"], ["scopes", "proxy,"], ["scopes", ""], ["scopes", []], ["scopes", ["proxy", "admin"]], ["name", ""], ["name", "x".repeat(201)],
    ["expires_in_days", 0], ["expires_in_days", 3651], ["expires_in_days", 1.5], ["expires_in_days", "soon"],
    ["budgets.0.window", [{ amount_usd: 1, window: "week" }]], ["budgets.0.amount_usd", [{ amount_usd: -1, window: "day" }]],
    ["budgets", [{ amount_usd: 1, window: "day" }, { amount_usd: 2, window: "day" }]]
  ])("is refused for its %s: %j", async (place, value) => {
    const reply = await post("/api-keys/", { name: "a key", [place.split(".")[0]!]: value })
    expect([reply.status, places(reply)], reply.text).toEqual([422, [`body.${place}`]])
  })

  it("ends after the days it was given", async () => {
    const { json } = await post("/api-keys/", { name: "a key", expires_in_days: 90 })
    expect(Date.parse(json.expires_at) - Date.parse(json.created_at)).toBe(90 * 86_400_000)
    expect((await post("/api-keys/", { name: "a key", expires_in_days: null })).json.expires_at).toBeNull()
  })

  it("shows what its budgets have spent in the windows of now, and nothing of windows that are over", async () => {
    const person = await world.user()
    await person.fund("5.00")
    const { id, key } = await person.key("orders", { budgets: [{ amount_usd: "1.00", window: "day" }, { amount_usd: "9.00", window: "total" }] })
    await world.call("POST", "/v1/orders", { token: key, body: { agent_id: (await world.agent({ price: "0.25" })).id, prompt: "x" } })
    const budgets = async () => (await world.call("GET", "/v1/api-keys", { token: person.accessToken })).json[0].budgets
    expect(await budgets()).toEqual([{ amount_usd: "1.00", window: "day", spent_usd: "0.25" }, { amount_usd: "9.00", window: "total", spent_usd: "0.25" }])
    await world.sql`update budgets set period_start = period_start - interval '1 day' where key_id = ${id} and budget_window = 'day'`
    expect(await budgets()).toEqual([{ amount_usd: "1.00", window: "day", spent_usd: "0.00" }, { amount_usd: "9.00", window: "total", spent_usd: "0.25" }])
  })

  it("is known to nobody once it is revoked", async () => {
    const { id, key } = await caller.key("*")
    expect((await world.call("GET", "/v1/credits/balance", { token: key })).status).toBe(200)
    const revoked = await world.call("DELETE", `/v1/api-keys/${id}`, { token: caller.accessToken })
    expect([revoked.status, revoked.text]).toEqual([204, ""])
    expect((await world.call("GET", "/v1/credits/balance", { token: key })).status).toBe(401)
    expect((await world.call("DELETE", `/v1/api-keys/${id}`, { token: caller.accessToken })).status).toBe(404)
  })
})

describe("other inputs", () => {
  it.each([
    ["/orders/", { agent_id: "SUMM" }, "body.prompt"], ["/orders/", { agent_id: "SUMM", prompt: "x".repeat(100_001) }, "body.prompt"], ["/orders/", { agent_id: "", prompt: "x" }, "body.agent_id"],
    ["/credits/deposit-test", { amount: "0" }, "body.amount"], ["/credits/deposit-test", { amount: 10_000.01 }, "body.amount"], ["/credits/deposit-test", { amount: "ten" }, "body.amount"],
    ["/auth/register", { email: "nobody", password: "long enough" }, "body.email"], ["/auth/register", { email: "a@example.com", password: "short" }, "body.password"],
    ["/auth/password/reset", { token: "unknown", new_password: "long enough" }, "body.token"]
  ])("POST %s refuses %j", async (path, body, place) => {
    const reply = await post(path, body)
    expect([reply.status, places(reply)], reply.text).toEqual([422, [place]])
  })

  it.each([
    ["/agents/?sort=best", "query.sort"], ["/agents/?owner=you", "query.owner"], ["/agents/?limit=0", "query.limit"], ["/agents/?limit=101", "query.limit"], ["/agents/?limit=ten", "query.limit"],
    ["/agents/?cursor=garbage", "query.cursor"], ["/orders/?cursor=", "query.cursor"], ["/orders/?status=lost", "query.status"],
    [`/orders/?cursor=${Buffer.from("' or true --").toString("base64url")}`, "query.cursor"], ["/credits/transactions?cursor=%00", "query"], ["/audit?limit=-1", "query.limit"],
    ["/auth/verify?token=unknown", "query.token"], ["/auth/verify", "query.token"]
  ])("GET %s is refused", async (path, place) => {
    const reply = await get(path)
    expect([reply.status, places(reply)], reply.text).toEqual([422, [place]])
  })
})

describe("a list", () => {
  const agents: Array<string> = []
  beforeAll(async () => {
    const owner = await world.user()
    for (let i = 0; i < 5; i++) agents.push((await world.agent({ owner, more: { category: "Paged" } })).id)
    for (let i = 1; i <= 5; i++) await caller.fund(`${i}.00`)
    const free = await world.agent()
    for (let i = 0; i < 5; i++) await settledOrder(world, caller.accessToken, (await post("/orders/", { agent_id: free.id, prompt: `${i}` })).json.id)
  })

  /** Follows the links to the end. */
  const pages = async (path: string): Promise<ReadonlyArray<ReadonlyArray<{ readonly id: string }>>> => {
    const seen: Array<ReadonlyArray<{ readonly id: string }>> = []
    for (let next: string | undefined = path; next !== undefined;) {
      const reply = await get(next)
      expect(reply.status, reply.text).toBe(200)
      seen.push(reply.json)
      expect(seen.length, "pages without an end").toBeLessThan(100)
      const link: string | undefined = /^<(.*)>; rel="next"$/.exec(reply.headers.get("link") ?? "")?.[1]
      if (link !== undefined) expect(link.startsWith(`${world.publicUrl}/v1/`)).toBe(true)
      next = link?.slice(`${world.publicUrl}/v1`.length)
    }
    return seen
  }

  it.each(["/agents/?category=Paged&sort=new", "/agents/?category=Paged&sort=trending", "/agents/?category=Paged&sort=mcap", "/orders/?status=completed", "/credits/transactions?", "/audit?"])("%s pages through every row once, in the order of the whole", async (path) => {
    const whole = (await get(`${path}&limit=100`)).json.map(({ id }: { id: string }) => id)
    expect(whole.length).toBeGreaterThanOrEqual(5)
    expect(new Set(whole).size).toBe(whole.length)
    const inTwos = await pages(`${path}&limit=2`)
    expect(inTwos.flat().map(({ id }) => id)).toEqual(whole)
    expect(inTwos.slice(0, -1).every((page) => page.length === 2)).toBe(true)
    expect(inTwos.at(-1)!.length).toBeGreaterThan(0)
    expect(await pages(`${path}&limit=${whole.length}`)).toHaveLength(1)
  })

  it("has 50 rows on a page unless asked for another number", async () => {
    const owner = await world.user()
    for (let i = 0; i < 51; i++) await world.agent({ owner, more: { category: "Many" } })
    expect((await pages("/agents/?category=Many")).map((page) => page.length)).toEqual([50, 1])
  })

  it("of agents has the newest first, and those of others that are active", async () => {
    const newest = (await get("/agents/?category=Paged&sort=new")).json.map(({ id }: { id: string }) => id)
    expect(newest).toEqual(agents.toReversed())
    const agent = await world.agent({ more: { category: "Alone" } })
    await world.call("PATCH", `/v1/agents/${agent.id}`, { token: agent.owner.accessToken, body: { status: "paused" } })
    expect((await get("/agents/?category=Alone")).json).toEqual([])
  })

  it("of agents has the caller's own with owner=me, paused ones too", async () => {
    const agent = await world.agent()
    const { key } = await agent.owner.key("agents")
    await world.call("PATCH", `/v1/agents/${agent.id}`, { token: key, body: { status: "paused" } })
    for (const token of [key, agent.owner.accessToken]) {
      const { json } = await world.call("GET", "/v1/agents?owner=me", { token })
      expect(json.map(({ id, status }: { id: string; status: string }) => [id, status])).toEqual([[agent.id, "paused"]])
    }
  })

  it("of agents takes a text literally", async () => {
    await world.agent({ more: { category: "Text", description: "100% of_it" } })
    await world.agent({ more: { category: "Text", description: "1000 ofXit" } })
    for (const q of ["100%", "OF_IT"]) expect((await get(`/agents/?category=Text&q=${encodeURIComponent(q)}`)).json, q).toHaveLength(1)
  })
})
