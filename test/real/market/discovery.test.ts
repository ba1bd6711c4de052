/** Finding services: searches against a naive filter, and what others' calls say about services. */
import fc from "fast-check"
import { randomUUID } from "node:crypto"
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest"
import { type Owner, type ScriptedService, owner, service } from "../../support/acf.ts"
import { type World, makeWorld } from "../../support/World.ts"

const runs = { numRuns: process.env["TOLLGATE_FULL"] === "1" ? 3_000 : 150 }

let world: World
let provider: Owner

beforeAll(async () => {
  world = await makeWorld()
  provider = await owner(world, { role: "provider" })
})
afterAll(() => world.stop())
afterEach(() => world.sql`truncate agents, usage, usage_daily_by_agent, usage_by_pair, identities`)

const get = (rest: string) => world.call("GET", `/acf/api/v1${rest}`)
const discover = (query: Readonly<Record<string, string>>) => get(`/discover?${new URLSearchParams(query)}`)
const namesOf = (services: ReadonlyArray<{ readonly name: string }>): ReadonlyArray<string> => services.map(({ name }) => name)
const listed = (name: string, more: Parameters<typeof service>[2] = {}): Promise<ScriptedService> => service(world, provider, { name, ...more })
/** Calls of a day so many days ago, as the roll-ups count them. */
const called = (agentId: string, daysAgo: number, { calls, errors = 0, latencyMs = 0, by }: { calls: number; errors?: number; latencyMs?: number; by?: string }) => world.sql`
  with by_pair as (
    insert into usage_by_pair as p (account_id, agent_id, calls, cost, last_day)
    select ${by ?? null}::uuid, ${agentId}, ${calls}, 0, (now() at time zone 'utc')::date - ${daysAgo}::int where ${by !== undefined}
    on conflict (account_id, agent_id) do update set calls = p.calls + excluded.calls
  )
  insert into usage_daily_by_agent (day, agent_id, calls, succeeded, errors, cost, latency_ms)
  values ((now() at time zone 'utc')::date - ${daysAgo}::int, ${agentId}, ${calls}, ${calls - errors}, ${errors}, 0, ${latencyMs})`

interface Row {
  readonly id: string
  readonly name: string
  readonly description: string
  readonly category: string
  readonly tags: ReadonlyArray<string>
  readonly price: number
  readonly paymentMethod: string
  readonly free: number
  readonly status: string
  readonly suspended: boolean
  readonly createdAt: number
}

describe("a search", () => {
  const words = fc.constantFrom("a", "B", "ab", "ÉCOLE", "école", "Ж", "ж", "%", "_", "\\", "'", "\"", "100%", "a_b", "中文", "🎉", "--", "{}", "\\%")
  const texts = fc.array(words, { maxLength: 4 }).map((parts) => parts.join(" "))
  const categories = fc.constantFrom("", "  ", "ai", "AI", "data", "a'b")
  const tags: fc.Arbitrary<string> = fc.constantFrom("nlp", "NLP", "a b", "\"", "\\", "{}")
  const prices = fc.constantFrom(0, 1, 10_000, 50_000, 1_000_000)
  const methods = fc.constantFrom("x402", "paypal", "both", "credits")
  const row: fc.Arbitrary<Row> = fc.record({
    id: fc.uuid({ version: 4 }), name: fc.tuple(texts, words).map((parts) => parts.join("")), description: texts, category: categories, tags: fc.array(tags, { maxLength: 3 }), price: prices,
    paymentMethod: methods, free: fc.constantFrom(0, 0, 5), status: fc.constantFrom("active", "active", "active", "paused", "removed"), suspended: fc.constantFrom(false, false, false, true),
    createdAt: fc.integer({ min: 0, max: 9 })
  })
  const maybe = <A>(value: fc.Arbitrary<A>) => fc.option(value, { nil: undefined, freq: 1 })
  const query = fc.record({
    q: fc.array(fc.oneof(words, fc.constantFrom("A", "é", "\\\\", "%%")), { maxLength: 2 }).map((parts) => parts.join("  ")), category: fc.oneof(fc.constant(""), fc.constantFrom("ai", "data", "a'b", "uncategorized")),
    tags: fc.array(tags, { maxLength: 2 }), min: maybe(prices), max: maybe(prices), method: maybe(methods), free: fc.boolean(),
    sort: fc.constantFrom("created_at", "price", "name"), limit: fc.constantFrom(1, 3, 50), offset: fc.constantFrom(0, 0, 2, 500)
  })

  const newestFirst = (one: Row, two: Row): number => two.createdAt - one.createdAt
  const byId = (one: Row, two: Row): number => one.id < two.id ? 1 : -1
  const orders: Readonly<Record<string, (one: Row, two: Row) => number>> = {
    created_at: newestFirst, price: (one, two) => one.price - two.price, name: (one, two) => Buffer.compare(Buffer.from(one.name), Buffer.from(two.name))
  }
  const sorted = (rows: ReadonlyArray<Row>, sort: string): ReadonlyArray<Row> => [...rows].sort((one, two) => orders[sort]!(one, two) || byId(one, two))
  const has = (text: string) => (row: Row): boolean => text.split(" ").every((word) => row.name.toLowerCase().includes(word.toLowerCase()) || row.description.toLowerCase().includes(word.toLowerCase()))
  const isIn = (category: string) => (row: Row): boolean => category === "" || (row.category.trim() || "uncategorized") === category

  it("finds what a plain filter over all services finds, in its order, and counts all pages", async () => {
    const rows = fc.sample(fc.uniqueArray(row, { minLength: 150, maxLength: 150, selector: ({ id }) => id }), { numRuns: 1, seed: Number(process.env["SEED"] ?? 1) })[0]!
    for (const [index, each] of rows.entries()) {
      await world.sql`
        insert into agents (id, owner_id, dialect, ticker, name, description, category, endpoint_url, price, free_tier_calls, auth_tier, status, suspended, tags, payment_method, created_at, updated_at)
        values (${each.id}, ${provider.accountId}, 'acf', ${`R${index}`}, ${each.name}, ${each.description}, ${each.category}, 'https://a.example.com', ${each.price}, ${each.free},
                'none', ${each.status}, ${each.suspended}, ${each.tags as Array<string>}::text[], ${each.paymentMethod}, to_timestamp(${each.createdAt}), now())`
    }
    await fc.assert(fc.asyncProperty(query, async ({ q, category, tags, min, max, method, free, sort, limit, offset }) => {
      const matching = sorted(rows.filter((each) => each.status === "active" && !each.suspended && has(q)(each) && isIn(category)(each)
        && (tags.length === 0 || each.tags.some((tag) => tags.includes(tag))) && each.price >= (min ?? 0) && each.price <= (max ?? Infinity)
        && (method === undefined || each.paymentMethod === method) && (!free || each.free > 0)), sort)
      const found = await discover({
        q, category, tags: tags.join(","), min_price: min === undefined ? "" : (min / 1e6).toFixed(6), max_price: max === undefined ? "" : (max / 1e6).toFixed(6),
        payment_method: method ?? "", has_free_tier: String(free), sort_by: sort, limit: String(limit), offset: String(offset)
      })
      expect(found.status, found.text).toBe(200)
      expect(found.json).toMatchObject({ total: matching.length, limit, offset })
      expect(found.json.services.map(({ id }: any) => id)).toEqual(matching.slice(offset, offset + limit).map(({ id }) => id))
    }), runs)
    await fc.assert(fc.asyncProperty(query, fc.constantFrom("active", "paused", "removed"), async ({ q, category, limit, offset }, status) => {
      const matching = sorted(rows.filter((each) => each.status === status && !each.suspended && has(q)(each) && isIn(category)(each)), "created_at")
      const found = await get(`/services?${new URLSearchParams({ query: q, category, status, limit: String(limit), offset: String(offset) })}`)
      expect(found.json.services.map(({ id }: any) => id)).toEqual(matching.slice(offset, offset + limit).map(({ id }) => id))
      expect(found.json.count).toBe(found.json.services.length)
    }), { numRuns: runs.numRuns / 3 })
  })

  it("answers services as the registry shows them, with the page's bounds", async () => {
    const { id } = await listed("Only one", { tags: ["nlp"], freeTierCalls: 10, category: "ai" })
    const found = await discover({ q: "only ONE", category: "ai", tags: "x, nlp", has_free_tier: "true", sort_by: "price", limit: "10" })
    expect(found).toMatchObject({ status: 200, json: { services: [(await get(`/services/${id}`)).json], total: 1, offset: 0, limit: 10 } })
    expect(found.text).not.toContain("endpoint")
  })

  it("takes each character for itself", async () => {
    const texts = ["100% sure", "1000 sure", "snake_case", "snakeXcase", "back\\slash", "o'brien", "say \"hi\"", "a;drop table agents--", "Ünïcode ΣΊΣΥΦΟΣ", "$1 ${x}"]
    for (const text of texts) await listed("Plain", { description: text })
    for (const text of texts) {
      const { json } = await discover({ q: text.toLowerCase() })
      expect(json.services.map(({ description }: any) => description)).toEqual([text])
    }
    for (const text of ["%", "_", "\\", "'", "\""]) expect((await discover({ q: text })).json.total, text).toBe(1)
    expect((await discover({ q: "Plain%" })).json.total).toBe(0)
    // The name's end and the description's beginning are not one word.
    expect((await discover({ q: "plain100" })).json.total).toBe(0)
  })

  it("has every match on exactly one page", async () => {
    for (let index = 0; index < 7; index++) await listed(`Page ${index}`)
    const pages = await Promise.all([0, 3, 6, 9].map((offset) => discover({ q: "page", sort_by: "name", limit: "3", offset: String(offset) })))
    expect(pages.flatMap(({ json }) => namesOf(json.services))).toEqual(Array.from({ length: 7 }, (_, index) => `Page ${index}`))
    expect(pages.map(({ json }) => json.total)).toEqual([7, 7, 7, 7])
    expect((await discover({ limit: "0", offset: "-1" })).json).toMatchObject({ services: [{}], total: 7, offset: 0, limit: 1 })
  })

  it.each([
    ["sort_by", "popularity"], ["sort_by", ""], ["min_price", "cheap"], ["min_price", "-1"], ["min_price", "NaN"], ["max_price", "1e3"], ["max_price", "0.0000001"], ["payment_method", "cash"], ["payment_method", "x402'"]
  ])("is refused with 400 for %s = %j", async (field, value) => {
    expect(await discover({ [field]: value })).toMatchObject({ status: 400, json: { detail: expect.stringContaining(field) } })
  })

  it.each([
    ["a flag that is none", "has_free_tier", "perhaps"], ["a limit in words", "limit", "ten"], ["half an offset", "offset", "1.5"],
    ["a long search", "q", "q".repeat(201)], ["long tags", "tags", "t".repeat(1_001)], ["a NUL", "q", "\0"]
  ])("is refused with 422 for %s", async (_, field, value) => {
    expect((await discover({ [field]: value })).status).toBe(422)
  })
})

describe("categories", () => {
  it("are those of active services with their counts, the largest first, and a name for none", async () => {
    for (const category of ["ai", "data", "ai", "", "   ", "ai", "paused", "b"]) await listed("One", { category })
    await world.sql`update agents set status = 'paused' where category = 'paused'`
    await world.agent({ more: { category: "data" } })
    expect((await get("/discover/categories")).json).toEqual({
      categories: [{ category: "ai", count: 3 }, { category: "data", count: 2 }, { category: "uncategorized", count: 2 }, { category: "b", count: 1 }]
    })
  })
})

describe("trending", () => {
  it("is by the calls answered below 500, of today and the six days before, with the mean latency of all", async () => {
    const [most, fewer, old, failing, paused] = [await listed("Most"), await listed("Fewer"), await listed("Old"), await listed("Failing"), await listed("Paused")]
    await called(most.id, 0, { calls: 3, latencyMs: 100 })
    await called(most.id, 6, { calls: 4, errors: 1, latencyMs: 211 })
    await called(most.id, 7, { calls: 1_000, latencyMs: 1 })
    await called(fewer.id, 1, { calls: 6, errors: 1, latencyMs: 6 })
    await called(old.id, 7, { calls: 500 })
    await called(failing.id, 0, { calls: 9, errors: 9 })
    await called(paused.id, 0, { calls: 99 })
    await world.sql`update agents set status = 'paused' where id = ${paused.id}`
    const { json } = await get("/discover/trending")
    expect(json).toEqual({
      trending: [
        { service: (await get(`/services/${most.id}`)).json, call_count: 6, avg_latency_ms: 44.4 },
        { service: (await get(`/services/${fewer.id}`)).json, call_count: 5, avg_latency_ms: 1 }
      ],
      count: 2
    })
    expect((await get("/discover/trending?limit=1")).json).toMatchObject({ trending: [{ call_count: 6 }], count: 1 })
    expect((await get("/discover/trending?limit=-5")).json.count).toBe(1)
    expect((await get("/discover/trending?limit=many")).status).toBe(422)
  })

  it("has a call as soon as it is answered, whichever dialect carried it", async () => {
    const agent = await world.agent()
    const { key } = await (await world.user()).key()
    expect((await world.call("POST", `/v1/proxy/${agent.id}`, { token: key, body: { input: 1 } })).status).toBe(200)
    expect((await get("/discover/trending")).json).toMatchObject({ trending: [{ service: { id: agent.id }, call_count: 1 }], count: 1 })
  })
})

describe("recommendations", () => {
  let buyer: Owner
  beforeEach(async () => { buyer = await owner(world, { role: "provider" }) })
  const recommended = async (agent: string, limit = ""): Promise<ReadonlyArray<string>> => {
    const { status, json } = await get(`/discover/recommendations/${encodeURIComponent(agent)}${limit}`)
    expect(status).toBe(200)
    expect(json.count).toBe(json.recommendations.length)
    return namesOf(json.recommendations)
  }

  it("are of the categories called most, newest first, without what was called and what is one's own", async () => {
    const used = await listed("used ai", { category: "ai" })
    const usedData = await listed("used data", { category: "data" })
    await listed("ai 1", { category: "ai" })
    await listed("ai 2", { category: "ai" })
    await listed("data 1", { category: "data" })
    await listed("other", { category: "other" })
    const paused = await listed("ai paused", { category: "ai" })
    await world.sql`update agents set status = 'paused' where id = ${paused.id}`
    await service(world, buyer, { name: "own ai", category: "ai" })
    await called(used.id, 0, { calls: 2, by: buyer.accountId })
    await called(usedData.id, 400, { calls: 3, by: buyer.accountId })
    await called(used.id, 300, { calls: 2, by: buyer.accountId })
    expect(await recommended(buyer.name)).toEqual(["ai 2", "ai 1", "data 1"])
    expect(await recommended(buyer.name, "?limit=2")).toEqual(["ai 2", "ai 1"])
    expect(await recommended(buyer.accountId)).toEqual(["ai 2", "ai 1", "data 1"])
    const identity = randomUUID()
    await world.sql`insert into identities (id, account_id, display_name, identity_type, capabilities, metadata, created_at, updated_at) values (${identity}, ${buyer.accountId}, 'Me', 'api_key_only', '{}', '{}', now(), now())`
    expect(await recommended(identity)).toEqual(["ai 2", "ai 1", "data 1"])
  })

  it("count the calls of accounts that became one", async () => {
    const old = await owner(world)
    await world.sql`update accounts set merged_into = ${buyer.accountId} where id = ${old.accountId}`
    const used = await listed("used", { category: "data" })
    await listed("ai", { category: "ai" })
    await listed("data", { category: "data" })
    await called(used.id, 0, { calls: 1, by: old.accountId })
    for (const agent of [buyer.name, buyer.accountId, old.accountId]) expect(await recommended(agent)).toEqual(["data"])
  })

  it("are the newest for whom nobody knows and who called nothing", async () => {
    for (let index = 1; index <= 6; index++) await listed(`service ${index}`)
    const newest = ["service 6", "service 5", "service 4", "service 3", "service 2"]
    for (const agent of [buyer.name, "nobody", randomUUID(), "'; --", "%", "\\"]) expect(await recommended(agent)).toEqual(newest)
    expect(await recommended(provider.name)).toEqual([])
    expect((await get(`/discover/recommendations/${"n".repeat(201)}`)).status).toBe(422)
    expect((await get("/discover/recommendations/somebody?limit=few")).status).toBe(422)
  })

  it("are none when everything of the called categories is known already", async () => {
    const used = await listed("used", { category: "ai" })
    await listed("other", { category: "other" })
    await called(used.id, 0, { calls: 1, by: buyer.accountId })
    expect(await recommended(buyer.name)).toEqual([])
  })
})

describe("the API tells", () => {
  it("what it is, and that it is there", async () => {
    expect(await world.call("GET", "/acf/")).toMatchObject({ status: 200, json: { service: "Agent Commerce Framework", version: "0.6.0", docs: "/docs" } })
    expect(await world.call("GET", "/acf/health")).toMatchObject({ status: 200, json: { status: "ok", timestamp: expect.stringMatching(/^20.*\+00:00$/) } })
  })

  it("agents where everything is", async () => {
    const { status, json, headers } = await world.call("GET", "/acf/.well-known/agents.json")
    expect(status).toBe(200)
    expect(headers.get("cache-control")).toContain("max-age")
    for (const at of ["api", "openapi", "docs", "services", "discover"]) {
      expect(json[at]).toMatch(/^https:\/\/gateway\.test\//)
      expect((await world.call("GET", json[at].slice(world.publicUrl.length))).status, at).toBe(200)
    }
  })
})
