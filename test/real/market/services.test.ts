/** The registry of services: what a provider may list, what everybody sees of it, and that it is an agent of the one kernel. */
import { Effect, Layer } from "effect"
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { AlreadyExists } from "../../../src/domain/errors.ts"
import type { Caller } from "../../../src/kernel/Caller.ts"
import { Listings, type NewAgent } from "../../../src/kernel/Listings.ts"
import { Owners } from "../../../src/kernel/market/Owners.ts"
import { Services } from "../../../src/kernel/market/Services.ts"
import { Postgres } from "../../../src/store/Postgres.ts"
import { type Owner, owner, service } from "../../support/acf.ts"
import { type Person, type World, makeWorld } from "../../support/World.ts"

const path = "/api/v1/services"
const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?\+00:00$/)

let world: World
let provider: Owner
let other: Owner

beforeAll(async () => {
  // Listing an agent in autx costs something here.
  world = await makeWorld({ settings: { launchFee: 1_000_000n } })
  provider = await owner(world, { role: "provider" })
  other = await owner(world, { role: "provider" })
})
afterAll(() => world.stop())

const wanted = (more: object = {}) => ({ name: "Sentiment", endpoint: "https://my-api.example.com/v1", price_per_call: "0.05", ...more })
const register = async (more: object = {}, by = provider): Promise<any> => {
  const reply = await by.call("POST", path, wanted(more))
  expect(reply.status, reply.text).toBe(201)
  return reply.json
}
const read = (rest: string) => world.call("GET", `/acf${path}${rest}`)
const idsOf = async (rest: string): Promise<ReadonlyArray<string>> => (await read(rest)).json.services.map(({ id }: { id: string }) => id)

describe("a registered service", () => {
  it("is shown as the reference shows it, with its price at the top too, and without its endpoint", async () => {
    const reply = await provider.call("POST", path, {
      name: "Sentiment Analysis API", description: "Analyze text sentiment", endpoint: "https://my-api.example.com/v1", price_per_call: "0.05",
      category: "ai", tags: ["nlp", "sentiment"], payment_method: "x402", free_tier_calls: 50
    })
    expect(reply.status).toBe(201)
    expect(reply.json).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/), provider_id: provider.name, name: "Sentiment Analysis API", description: "Analyze text sentiment",
      price_per_call: "0.05", free_tier_calls: 50,
      pricing: { price_per_call: "0.05", currency: "USDC", payment_method: "x402", free_tier_calls: 50 },
      status: "active", category: "ai", tags: ["nlp", "sentiment"], created_at: time, updated_at: time
    })
    const got = await read(`/${reply.json.id}`)
    expect(got).toMatchObject({ status: 200, json: reply.json })
    const listed = await read("?limit=1")
    expect(listed).toMatchObject({ status: 200, json: { services: [reply.json], count: 1, offset: 0, limit: 1 } })
    for (const { text } of [reply, got, listed]) expect(text).not.toContain("my-api.example.com")
  })

  it("has an empty description and category, no tags, x402 and no free calls unless it says otherwise", async () => {
    expect(await register()).toMatchObject({
      description: "", category: "", tags: [], pricing: { price_per_call: "0.05", currency: "USDC", payment_method: "x402", free_tier_calls: 0 }
    })
  })

  it.each([["0", "0"], [0, "0"], [0.1, "0.10"], ["0.000001", "0.000001"], ["12.5", "12.50"], ["100", "100.00"], ["0.0500000", "0.05"]])("costs %j exactly, as plain text", async (price, shown) => {
    expect(await register({ price_per_call: price })).toMatchObject({ price_per_call: shown, pricing: { price_per_call: shown } })
  })

  it("keeps whatever characters its texts are made of", async () => {
    const texts = { name: `'; drop table agents; -- "\\ %_ 中文 🎉`, description: "line\nbreak\t{}<script>", category: "a,\"b\"\\", tags: ["a,b", "\"", "\\", "{}", "null", " "] }
    expect(await register(texts)).toMatchObject(texts)
  })

  it("may be at a host that does not resolve yet", async () => {
    await register({ endpoint: "https://not-there-yet.invalid/v1" })
  })

  it("costs nothing to list, and is in the owner's audit log", async () => {
    const poor = await owner(world, { role: "provider" })
    const { id } = await register({}, poor)
    const [account] = await world.sql`select available, (select count(*)::int from transactions where account_id = a.id) as moved from accounts a where id = ${poor.accountId}`
    expect(account).toEqual({ available: 0n, moved: 0 })
    expect(await world.sql`select action from audit_log where account_id = ${poor.accountId} and target = ${id}`).toEqual([{ action: "agent.create" }])
  })

  it("is registered once when the call is repeated with its idempotency key", async () => {
    const attempt = () => provider.call("POST", path, wanted({ name: "Once" }), { "idempotency-key": "once" })
    const first = await attempt()
    const again = await attempt()
    expect(again).toMatchObject({ status: 201, text: first.text })
    expect(again.headers.get("idempotent-replayed")).toBe("true")
    expect((await read("?query=Once")).json.count).toBe(1)
  })

  it("gets another ticker when the first ones are taken", async () => {
    const tickers: Array<string> = []
    const listings = Layer.mock(Listings)({
      create: (_, agent: NewAgent) => {
        tickers.push(agent.ticker)
        return Effect.suspend(() => tickers.length < 3 ? Effect.fail(new AlreadyExists({ what: "ticker", id: agent.ticker })) : Effect.succeed({ agent: agent as never, calls: 0n, revenue: 0n }))
      }
    })
    const layer = Services.layer.pipe(Layer.provide([
      listings, Layer.mock(Owners)({ nameOf: () => Effect.succeed("somebody") }), Layer.succeed(Postgres, {} as never)
    ]))
    const made = await Effect.runPromise(Services.use((services) => services.register({} as Caller, {
      name: "A", description: "", category: "", endpointUrl: "https://a.example.com", price: 0n, freeTierCalls: 0, tags: [], paymentMethod: "x402"
    }, undefined)).pipe(Effect.provide(layer)))
    expect(made.agent.ticker).toBe(tickers[2])
    expect(new Set(tickers).size).toBe(3)
    for (const ticker of tickers) expect(ticker).toMatch(/^S[0-9A-Z]{9}$/)
  })
})

describe("registering is refused", () => {
  it.each([
    ["-0.01"], [-1], ["NaN"], ["Infinity"], ["abc"], [""], ["0.0000001"], [0.0000001], ["1e9"], ["0,05"], ["٠٫٥"], [null], [true], [{}]
  ])("with 422 at the price %j", async (price) => {
    const reply = await provider.call("POST", path, wanted({ price_per_call: price }))
    expect(reply).toMatchObject({ status: 422, json: { detail: expect.stringContaining("price_per_call"), errors: [{ loc: ["body", "price_per_call"] }] } })
  })

  it.each([
    ["a long name", "name", "n".repeat(201)], ["no name", "name", undefined], ["a list of names", "name", ["a"]], ["a NUL in the name", "name", "a\0b"],
    ["half a character in the name", "name", "\ud800"], ["a long description", "description", "d".repeat(10_001)], ["a long category", "category", "c".repeat(101)],
    ["1,000 tags", "tags", Array.from({ length: 1_000 }, (_, index) => `t${index}`)], ["text as tags", "tags", "nlp"],
    ["no endpoint", "endpoint", undefined], ["an empty endpoint", "endpoint", ""], ["a long endpoint", "endpoint", `https://a.example.com/${"p".repeat(2_048)}`],
    ["negative free calls", "free_tier_calls", -1], ["half a free call", "free_tier_calls", 1.5], ["too many free calls", "free_tier_calls", 1_000_001],
    ["a null as payment method", "payment_method", null]
  ])("with 422 for %s", async (_, field, value) => {
    const reply = await provider.call("POST", path, wanted({ [field]: value }))
    expect(reply).toMatchObject({ status: 422, json: { detail: expect.any(String), errors: [{ loc: ["body", field] }] } })
  })

  it.each([["a long one", "t".repeat(101)], ["an empty one", ""]])("with 422 for %s among the tags", async (_, tag) => {
    expect(await provider.call("POST", path, wanted({ tags: ["nlp", tag] }))).toMatchObject({ status: 422, json: { errors: [{ loc: ["body", "tags", "1"] }] } })
  })

  it.each([
    ["name", "", "name: must not be blank"], ["name", " \t ", "name: must not be blank"],
    ["price_per_call", "100.000001", "price_per_call: must be at most 100.00"], ["price_per_call", 1e9, "price_per_call: must be at most 100.00"],
    ["payment_method", "cash", "payment_method: must be one of x402, paypal, nowpayments, stripe, both, credits"],
    ...["http://10.0.0.1/", "http://[::1]:8080/", "http://169.254.169.254/latest", "http://0x0a.1/", "ftp://a.example.com/", "a.example.com", "javascript:alert(1)", "http://localhost:1/"]
      .map((endpoint): [string, string, string] => ["endpoint", endpoint, "endpoint: the gateway does not call this address: it must be a public http or https address"])
  ])("with 400 for %s = %j", async (field, value, detail) => {
    expect(await provider.call("POST", path, wanted({ [field]: value }))).toMatchObject({ status: 400, json: { detail } })
  })

  it("without a key, with a buyer's, and with another dialect's", async () => {
    const buyer = await owner(world)
    const { key } = await (await world.user()).key()
    expect((await world.call("POST", `/acf${path}`, { body: wanted() })).status).toBe(401)
    expect((await world.call("POST", `/acf${path}`, { body: wanted(), token: key })).status).toBe(401)
    for (const [method, rest] of [["POST", ""], ["PATCH", `/${randomUUID()}`], ["DELETE", `/${randomUUID()}`]] as const) {
      expect((await buyer.call(method, `${path}${rest}`, wanted())).status).toBe(403)
    }
  })
})

describe("changing a service", () => {
  it("takes each field, leaves the others, and shows when", async () => {
    const { id, ...made } = await register({ tags: ["old"] })
    const changes = { name: "New", description: "Better", price_per_call: "0.07", status: "paused", category: "data", tags: ["new"], free_tier_calls: 3 }
    let shown: any = made
    for (const [field, value] of Object.entries(changes)) {
      const reply = await provider.call("PATCH", `${path}/${id}`, { [field]: value })
      shown = {
        ...shown, [field]: value, updated_at: time,
        ...(field === "price_per_call" || field === "free_tier_calls" ? { pricing: { ...shown.pricing, [field]: value } } : {})
      }
      expect(reply).toMatchObject({ status: 200, json: { id, ...shown } })
      shown = { ...shown, updated_at: reply.json.updated_at }
    }
    expect((await read(`/${id}`)).json).toEqual({ id, ...shown })
    expect(Date.parse(shown.updated_at)).toBeGreaterThanOrEqual(Date.parse(shown.created_at))
    const endpoint = "https://elsewhere.example.com/"
    expect((await provider.call("PATCH", `${path}/${id}`, { endpoint })).status).toBe(200)
    expect(await world.sql`select endpoint_url from agents where id = ${id}`).toEqual([{ endpoint_url: endpoint }])
  })

  it("is for its owner; whether it exists comes first, then whose it is, then what is asked", async () => {
    const { id } = await register()
    const bad = { name: " ", endpoint: "http://10.0.0.1/", status: "gone" }
    for (const unknown of [randomUUID(), "nothing", "%25", "S000000000"]) {
      expect(await other.call("PATCH", `${path}/${unknown}`, bad)).toMatchObject({ status: 404, json: { detail: "Service not found" } })
      expect(await other.call("DELETE", `${path}/${unknown}`)).toMatchObject({ status: 404, json: { detail: "Service not found" } })
    }
    expect(await other.call("PATCH", `${path}/${id}`, bad)).toMatchObject({ status: 403, json: { detail: "Not your service" } })
    expect(await other.call("DELETE", `${path}/${id}`)).toMatchObject({ status: 403, json: { detail: "Not your service" } })
    const admin = await owner(world, { role: "admin" })
    expect((await admin.call("DELETE", `${path}/${id}`)).status).toBe(403)
    expect(await provider.call("PATCH", `${path}/${id}`, bad)).toMatchObject({ status: 400, json: { detail: "name: must not be blank" } })
    expect((await provider.call("PATCH", `${path}/${id}`, { status: "gone" })).json.detail).toBe("status: must be one of active, paused, removed")
    expect((await provider.call("PATCH", `${path}/${id}`, { endpoint: "http://10.0.0.1/" })).json.detail).toMatch(/^endpoint: /)
    expect((await provider.call("PATCH", `${path}/${id}`, { price_per_call: "100.01" })).status).toBe(400)
    expect((await provider.call("PATCH", `${path}/${id}`, { price_per_call: "-1" })).status).toBe(422)
    expect((await read(`/${id}`)).json).toMatchObject({ name: "Sentiment", status: "active", price_per_call: "0.05" })
  })

  it("removes it from every list and not from its id, until its owner brings it back", async () => {
    const { id } = await register({ name: "Shortlived" })
    expect(await provider.call("DELETE", `${path}/${id}`)).toMatchObject({ status: 200, json: { status: "removed", id } })
    expect(await provider.call("DELETE", `${path}/${id}`)).toMatchObject({ status: 200, json: { status: "removed", id } })
    expect(await read(`/${id}`)).toMatchObject({ status: 200, json: { status: "removed" } })
    expect(await idsOf("?query=Shortlived")).toEqual([])
    expect(await idsOf("?query=Shortlived&status=removed")).toEqual([id])
    expect((await world.call("GET", "/acf/api/v1/discover?q=Shortlived")).json.total).toBe(0)
    expect((await provider.call("PATCH", `${path}/${id}`, { status: "active" })).status).toBe(200)
    expect(await idsOf("?query=Shortlived")).toEqual([id])
  })
})

describe("the list", () => {
  it("is newest first, in pages whose bounds are clamped", async () => {
    const made = [await register({ category: "pages" }), await register({ category: "pages" }), await register({ category: "pages" })].map(({ id }) => id).reverse()
    expect(await idsOf("?category=pages")).toEqual(made)
    expect((await read("?category=pages&limit=2")).json).toMatchObject({ count: 2, offset: 0, limit: 2 })
    expect(await idsOf("?category=pages&limit=2&offset=2")).toEqual(made.slice(2))
    expect((await read("?category=pages&limit=0&offset=-7")).json).toMatchObject({ services: [{ id: made[0] }], count: 1, offset: 0, limit: 1 })
    expect((await read("?category=pages&limit=1000&offset=3")).json).toEqual({ services: [], count: 0, offset: 3, limit: 100 })
  })

  it("has those of one status, and of one category or without any", async () => {
    const [named, blank, paused] = [await register({ name: "Cat here", category: "cats" }), await register({ name: "Cat blank", category: "  " }), await register({ name: "Cat paused", category: "cats" })]
    await provider.call("PATCH", `${path}/${paused.id}`, { status: "paused" })
    expect(await idsOf("?query=cat&category=cats")).toEqual([named.id])
    expect(await idsOf("?query=cat&category=cats&status=paused")).toEqual([paused.id])
    expect(await idsOf("?query=cat&category=uncategorized")).toEqual([blank.id])
    expect(await idsOf("?query=cat&category=&status=active")).toEqual([blank.id, named.id])
    expect(await idsOf("?query=cat&category=Cats")).toEqual([])
  })

  it.each([
    ["limit=abc", "limit=abc"], ["limit=1e3", "limit=1e3"], ["offset=x", "offset=x"], ["a long search", `query=${"q".repeat(201)}`],
    ["a long category", `category=${"c".repeat(101)}`], ["a NUL", "query=%00"]
  ])("is refused with 422 for %s", async (_, query) => {
    expect((await read(`?${query}`)).status).toBe(422)
  })

  it("is refused with 400 for a status that is none", async () => {
    for (const status of ["gone", "suspended", "ACTIVE", "active'--"]) expect((await read(`?status=${status}`)).status).toBe(400)
  })

  it("and everything else is without what an operator suspended", async () => {
    const { id } = await register({ name: "Suspect" })
    await world.sql`update agents set suspended = true where id = ${id}`
    expect(await idsOf("?query=Suspect")).toEqual([])
    expect((await world.call("GET", "/acf/api/v1/discover?q=Suspect")).json).toMatchObject({ services: [], total: 0 })
    expect((await read(`/${id}`)).status).toBe(404)
    expect((await provider.call("PATCH", `${path}/${id}`, { name: "Better" })).status).toBe(404)
  })
})

describe("one kernel", () => {
  let person: Person
  /** The same account, as acf calls it. */
  let alias: Owner

  beforeAll(async () => {
    person = await world.user()
    const name = `person-${randomUUID()}`
    await world.sql`insert into owners (dialect, name, account_id, created_at) values ('acf', ${name}, ${person.accountId}, now())`
    alias = await owner(world, { name, role: "provider" })
  })

  it("shows an agent of autx as a service, provided by its owner's name or id", async () => {
    const agent = await world.agent({ price: "250.00", more: { name: "From elsewhere", free_tier_calls: 2 } })
    expect((await read(`/${agent.id}`)).json).toEqual({
      id: agent.id, provider_id: agent.owner.accountId, name: "From elsewhere", description: "Scripted by a test", price_per_call: "250.00", free_tier_calls: 2,
      pricing: { price_per_call: "250.00", currency: "USDC", payment_method: "credits", free_tier_calls: 2 },
      status: "active", category: "Test", tags: [], created_at: time, updated_at: time
    })
    const own = await world.agent({ owner: person })
    expect((await read(`/${own.id}`)).json.provider_id).toBe(alias.name)
    expect((await world.call("GET", "/acf/api/v1/discover?q=elsewhere")).json.services.map(({ id }: any) => id)).toEqual([agent.id])
  })

  it("lets an agent's owner change it through either dialect", async () => {
    const agent = await world.agent({ owner: person, price: "250.00" })
    expect((await other.call("PATCH", `${path}/${agent.id}`, { name: "Mine" })).status).toBe(403)
    expect(await alias.call("PATCH", `${path}/${agent.id}`, { name: "Renamed", tags: ["both"], free_tier_calls: 9 })).toMatchObject({ status: 200, json: { name: "Renamed", price_per_call: "250.00", tags: ["both"] } })
    expect((await world.call("GET", `/v1/agents/${agent.ticker}`)).json).toMatchObject({ name: "Renamed", service_price: 250, free_tier_calls: 9 })
    expect((await alias.call("DELETE", `${path}/${agent.id}`)).status).toBe(200)
    expect((await world.call("GET", `/v1/agents/${agent.ticker}`)).json.status).toBe("removed")
  })

  it("shows a service as an agent of autx, and where it listens to its owner alone", async () => {
    const made = await service(world, alias, { name: "Hidden address" })
    const stranger = await world.user()
    const seen = async (rest: string, token?: string): Promise<any> => (await world.call("GET", `/v1/agents${rest}`, { token })).json
    expect(await seen(`/${made.id}`)).toMatchObject({ id: made.id, name: "Hidden address", service_price: 0.05, endpoint_url: "" })
    expect(await seen(`/${made.id}`, stranger.accessToken)).toMatchObject({ endpoint_url: "" })
    expect(await seen(`/${made.id}`, person.accessToken)).toMatchObject({ endpoint_url: made.endpoint })
    for (const token of [undefined, stranger.accessToken]) expect(await seen("/?q=Hidden", token)).toMatchObject([{ id: made.id, endpoint_url: "" }])
    expect(await seen("/?q=Hidden&owner=me", person.accessToken)).toMatchObject([{ id: made.id, endpoint_url: made.endpoint }])
    const agent = await world.agent({ owner: person })
    expect(await seen(`/${agent.id}`)).toMatchObject({ endpoint_url: agent.endpointUrl })
  })
})
