/**
 * What acf takes and refuses: in every field of every row what no field takes,
 * found in the rows' own schemas, and by hand what its contract says of prices,
 * names, months, pages and searches. Refused in the documented words, never with
 * a 500, and nothing is left behind.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { acf } from "../../src/dialects/acf/index.ts"
import type { Endpoint } from "../../src/http/endpoint.ts"
import { type Owner, owner, service } from "../support/acf.ts"
import { tablePrints } from "../support/tablePrints.ts"
import { type Reply, type World, makeWorld } from "../support/World.ts"
import { acfProduct, adminSecret, send } from "./Acf.ts"
import { calls } from "./acf/examples/calls.ts"
import { identities } from "./acf/examples/identities.ts"
import { keys } from "./acf/examples/keys.ts"
import { portal } from "./acf/examples/portal.ts"
import { services } from "./acf/examples/services.ts"
import { teams } from "./acf/examples/teams.ts"
import { webhooks } from "./acf/examples/webhooks.ts"
import type { Examples } from "./Example.ts"
import { makeFields, withAt } from "./Fields.ts"
import { bodies, neverTaken, noJson, noNumbers } from "./HostileJson.ts"

const examples: Examples<Owner> = { ...keys, ...services, ...calls, ...identities, ...portal, ...teams, ...webhooks }
const { bodyFields, queryNames } = makeFields(acf)
const withBody = acf.rows.filter((row): row is Endpoint => row.kind === "endpoint" && row.payload !== undefined)

let world: World
let provider: Owner
let admin: Owner
beforeAll(async () => {
  world = await makeWorld({ settings: { acfAdminSecret: adminSecret } })
  ;[provider, admin] = await Promise.all([owner(world, { role: "provider" }), owner(world, { role: "admin" })])
})
afterAll(async () => {
  expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])
  await world.stop()
})

const places = (reply: Reply): ReadonlyArray<string> => (reply.json.errors ?? []).map(({ loc }: { loc: ReadonlyArray<string> }) => loc.join("."))
const mark = "put it here"
/** Anything but what the field is for. */
const wrongTypes = ["null", "true", "0", "-1", "1.5", "\"\"", "\"x\"", "[]", "[null]", "[\"x\"]", "{}", "{\"a\": 1}", "\"' or 1=1 --\"", "\"%_\\\\\"", `"${"x".repeat(10_000)}"`]

describe.each(withBody.map((row) => [`${row.method} ${row.path}`, row] as const))("%s", (_, row) => {
  it("refuses bodies that no row takes, and in each field what no field takes, and leaves nothing behind", async () => {
    const caller = await acfProduct.caller(world, row)
    const { path, body } = await examples[row.id]!.success.request(world, caller)
    const sent = (text: string | Uint8Array): Promise<Reply> => send(world, row, caller, { ...(path === undefined ? {} : { path }), body: text, headers: { "content-type": "application/json" } })
    // What its first call writes belongs to no attack.
    await caller.call("GET", "/api/v1/webhooks")
    const before = await tablePrints(world.sql)
    // To a patch an object of fields that no row has is one without fields.
    for (const [name, text] of bodies.filter(([name]) => row.method !== "PATCH" || !name.startsWith("objects"))) {
      const reply = await sent(text)
      expect([reply.status, reply.json], name).toEqual([422, { detail: expect.stringMatching(/^body/), errors: expect.any(Array) }])
    }
    const fields = bodyFields(row)
    expect(fields.length).toBeGreaterThan(0)
    for (const { place, takesNumber } of fields) {
      const written = (value: string) => JSON.stringify(withAt(body, place, mark)).replace(JSON.stringify(mark), () => value)
      // Without `decimals` a number is what JavaScript reads: one that is too small is 0.
      const numbers = takesNumber ? noNumbers.filter((value) => row.decimals || value !== "1e-400") : []
      await Promise.all([...neverTaken, ...noJson, ...numbers].map(async (value) => {
        const reply = await sent(written(value))
        expect([reply.status, places(reply).every((each) => each.startsWith("body"))], `${place.join(".")} ${value.slice(0, 40)} → ${reply.text.slice(0, 200)}`).toEqual([422, true])
      }))
    }
    expect(await tablePrints(world.sql)).toEqual(before)
  })

  it("answers any other value in any field as documented", async () => {
    const caller = await acfProduct.caller(world, row)
    const { path, body } = await examples[row.id]!.success.request(world, caller)
    for (const { place } of bodyFields(row)) {
      await Promise.all(wrongTypes.map(async (value) => {
        const text = JSON.stringify(withAt(body, place, mark)).replace(JSON.stringify(mark), () => value)
        const { status, json } = await send(world, row, caller, { ...(path === undefined ? {} : { path }), body: text, headers: { "content-type": "application/json" } })
        expect([200, 201, 400, 401, 403, 404, 409, 422], `${place.join(".")} ${value.slice(0, 40)}`).toContain(status)
        if (status >= 400) expect(typeof json.detail).toBe("string")
      }))
    }
  })
})

it("answers any value in any query as documented", async () => {
  const values = ["", " ", "x", "-1", "0", "1.5", "1e9", "NaN", "99999999999999999999", "null", "%", "_", "'", "\"", "\\", "' or 1=1 --", "%00", "%ff", "%ed%a0%80", "é", "x".repeat(10_000)]
  for (const row of acf.rows.filter((row) => row.kind === "endpoint" && row.id !== "acf.dashboard.read" && queryNames(row).length > 0)) {
    for (const name of queryNames(row)) {
      const replies = await Promise.all(values.map((value) => send(world, row, admin, {
        path: `${row.path.replace(/\{\w+\}/g, "nobody")}?${name}=${value.startsWith("%") && value.length > 1 ? value : encodeURIComponent(value)}`, headers: { "x-admin-key": adminSecret }
      })))
      for (const [at, { status, json }] of replies.entries()) {
        expect([200, 400, 404, 422], `${row.id} ${name}=${values[at]!.slice(0, 30)}`).toContain(status)
        if (status >= 400) expect(typeof json.detail).toBe("string")
      }
    }
  }
})

describe("a new service", () => {
  const create = (fields: string): Promise<Reply> => world.call("POST", "/acf/api/v1/services", {
    token: provider.token, headers: { "content-type": "application/json" }, body: `{"name": "A service", "endpoint": "${world.endpoint()}", "price_per_call": "0.05", ${fields}}`
  })
  const long = "x".repeat(10_000)

  it.each([
    ["price_per_call", "-1", 422], ["price_per_call", "\"-0.01\"", 422], ["price_per_call", "\"NaN\"", 422], ["price_per_call", "\"\"", 422], ["price_per_call", "null", 422],
    ["price_per_call", "0.0000001", 422], ["price_per_call", "\"0.0000001\"", 422], ["price_per_call", "1e9", 422], ["price_per_call", "1000000000", 400], ["price_per_call", "\"100.000001\"", 400],
    ["name", `"${long}"`, 422], ["name", "\" \"", 400], ["name", "\"\"", 400], ["description", `"${long}x"`, 422], ["category", `"${long}"`, 422],
    ["tags", JSON.stringify(Array.from({ length: 1_000 }, (_, i) => `tag ${i}`)), 422], ["tags", `["${long}"]`, 422], ["tags", "\"nlp\"", 422], ["tags", "[null]", 422],
    ["payment_method", "\"cash\"", 400], ["payment_method", "\"X402\"", 400],
    ["free_tier_calls", "-1", 422], ["free_tier_calls", "1.5", 422], ["free_tier_calls", "1e9", 422], ["free_tier_calls", "\"many\"", 422],
    ["endpoint", "\"ftp://example.com/\"", 400], ["endpoint", "\"not an address\"", 400], ["endpoint", "\"http://10.0.0.1/\"", 400], ["endpoint", "\"\"", 422], ["endpoint", `"https://example.com/${long}"`, 422]
  ])("is refused for its %s: %.60s", async (field, value, status) => {
    const reply = await create(`"${field}": ${value}`)
    expect([reply.status, reply.json.detail], reply.text).toEqual([status, expect.stringMatching(new RegExp(`^(?:body\\.)?${field}`))])
  })

  it.each([["0.1", "0.10"], ["\"0.000001\"", "0.000001"], ["100", "100.00"], ["\"99.999999\"", "99.999999"], ["0", "0"], ["\"0.00\"", "0"], ["0.30000000", "0.30"]])("at the price %s costs exactly %s", async (written, shown) => {
    const reply = await create(`"price_per_call": ${written}`)
    expect([reply.status, reply.json.price_per_call, reply.json.pricing.price_per_call]).toEqual([201, shown, shown])
  })

  it("may have a host that does not resolve", async () => {
    expect((await create("\"endpoint\": \"https://nowhere.invalid/v1\"")).status).toBe(201)
  })
})

describe("a search", () => {
  const found = async (path: string, query: string) => {
    const { status, json } = await world.call("GET", `/acf/api/v1/${path}${query}`)
    expect(status, JSON.stringify(json)).toBe(200)
    return json.services.map(({ name }: { name: string }) => name).toSorted()
  }

  it("takes a text literally", async () => {
    for (const name of ["100% of_it", "1000 ofXit", "it's \"quoted\"", "back\\slash"]) await service(world, provider, { name, category: "literal", description: "" })
    for (const [path, name] of [["services", "query"], ["discover", "q"]] as const) {
      for (const [text, names] of [["100%", ["100% of_it"]], ["OF_IT", ["100% of_it"]], ["%", ["100% of_it"]], ["_", ["100% of_it"]], ["it's", ["it's \"quoted\""]], ["\"QUOTED\"", ["it's \"quoted\""]], ["k\\s", ["back\\slash"]], ["100 ofXit", ["1000 ofXit"]], ["' or 1=1 --", []]] as const) {
        expect(await found(path, `?category=literal&${name}=${encodeURIComponent(text)}`), `${path} ${text}`).toEqual(names)
      }
    }
  })

  it("takes pages into their bounds, and refuses what is no number", async () => {
    for (const path of ["services", "discover"]) {
      const page = async (query: string) => {
        const { status, json } = await world.call("GET", `/acf/api/v1/${path}?${query}`)
        return status === 200 ? [json.limit, json.offset] : status
      }
      expect([await page(""), await page("limit=0"), await page("limit=-5"), await page("limit=1000&offset=-3"), await page("limit=7&offset=2")]).toEqual([[50, 0], [1, 0], [1, 0], [100, 0], [7, 2]])
      for (const query of ["limit=ten", "limit=1.5", "limit=", "offset=x", "offset=1e3"]) expect(await page(query), query).toBe(422)
    }
  })

  it.each([
    ["min_price=abc", 400], ["max_price=-1", 400], ["min_price=0.0000001", 400], ["sort_by=price;drop", 400], ["payment_method=cash", 400], ["has_free_tier=perhaps", 422], [`q=${"x".repeat(201)}`, 422]
  ])("is refused for %s", async (query, status) => {
    const reply = await world.call("GET", `/acf/api/v1/discover?${query}`)
    expect([reply.status, reply.json.detail]).toEqual([status, expect.any(String)])
  })
})

describe("other inputs", () => {
  it.each(["2026-13", "2026-00", "2026-3", "26-03", "2026-03-01", "March", "all", "2026/03", " ", "20260-3", "2026-03'"])("the month %j is none", async (period) => {
    for (const path of [`/api/v1/agents/${provider.name}/reputation`, `/api/v1/services/${(await service(world, provider)).id}/reputation`]) {
      const reply = await provider.call("GET", `${path}?period=${encodeURIComponent(period)}`)
      expect([reply.status, reply.json.detail]).toEqual([400, "period: must be all-time or a month as YYYY-MM"])
    }
  })

  it.each([
    ["/api/v1/keys", { owner_id: "x", rate_limit: 0 }, 400], ["/api/v1/keys", { owner_id: "x", rate_limit: 301 }, 400], ["/api/v1/keys", { owner_id: "x", rate_limit: 1e9 }, 400], ["/api/v1/keys", { owner_id: "x", rate_limit: 1.5 }, 422],
    ["/api/v1/keys", { owner_id: " " }, 400], ["/api/v1/keys", { owner_id: "x".repeat(10_000) }, 422], ["/api/v1/keys", { owner_id: "019afe00-0000-7000-8000-000000000000" }, 400], ["/api/v1/keys", {}, 422], ["/api/v1/keys/validate", { key_id: "x" }, 422],
    ["/api/v1/agents", { display_name: "x".repeat(10_000) }, 422], ["/api/v1/agents", { display_name: "x", identity_type: "passport" }, 400], ["/api/v1/agents", { display_name: "x", capabilities: Array.from({ length: 1_000 }, String) }, 422],
    ["/api/v1/agents", { display_name: "x", metadata: { a: "x".repeat(17_000) } }, 422],
    ["/api/v1/settlements", { provider_id: "x", period_start: "2026-02-30", period_end: "2026-03-01" }, 422], ["/api/v1/settlements", { provider_id: "x", period_start: "2026-03-02", period_end: "2026-03-01" }, 400],
    ["/api/v1/settlements", { provider_id: "x", period_start: "yesterday", period_end: "2026-03-01" }, 422], ["/api/v1/settlements", { provider_id: "", period_start: "2026-03-01", period_end: "2026-03-02" }, 422],
    ["/api/v1/teams", { name: "x".repeat(201) }, 422], ["/api/v1/teams", { name: "x", description: "x".repeat(10_001) }, 422],
    ["/api/v1/webhooks", { url: "http://example.com/", events: ["service.called"], secret: "s" }, 400], ["/api/v1/webhooks", { url: "https://127.0.0.2:9/", events: ["service.called"], secret: "s" }, 400],
    ["/api/v1/webhooks", { url: "https://example.com/", events: [], secret: "s" }, 400], ["/api/v1/webhooks", { url: "https://example.com/", events: ["everything"], secret: "s" }, 400], ["/api/v1/webhooks", { url: "https://example.com/", events: ["service.called"], secret: "" }, 422]
  ])("POST %s of %.80j is answered %i", async (path, body, status) => {
    const reply = await admin.call("POST", path, body)
    expect([reply.status, typeof reply.json.detail], reply.text).toEqual([status, "string"])
  })

  it.each(["-1", "0", "10000.01", "1e3", "NaN", "0.0000001", ""])("no amount of %j is deposited or credited", async (amount) => {
    const deposit = await provider.call("POST", "/api/v1/deposits", { buyer_id: provider.name, amount })
    const credit = await world.call("POST", `/acf/api/v1/admin/credit?buyer_id=${provider.name}&amount=${amount}`, { headers: { "x-admin-key": adminSecret } })
    expect([400, 422]).toContain(deposit.status)
    expect([400, 422]).toContain(credit.status)
    expect((await provider.call("GET", `/api/v1/balance/${provider.name}`)).json.balance).toBe(0)
  })

  it.each([
    "usage/daily?days=0", "usage/daily?days=91", "usage/daily?days=soon", "providers/ranking?limit=0", "providers/ranking?limit=101", "analytics/trends?periods=0", "analytics/trends?periods=53",
    "analytics/top-services?limit=51", "analytics/top-services?days=366", "analytics/buyers?days=0", "analytics/buyers?days=-1"
  ])("GET /api/v1/admin/%s is outside its range", async (path) => {
    const reply = await admin.call("GET", `/api/v1/admin/${path}`)
    expect([reply.status, places(reply)]).toEqual([422, [`query.${/\?(\w+)/.exec(path)![1]}`]])
  })
})
