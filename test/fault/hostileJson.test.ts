/**
 * JSON that is made to break its reader: too deep, numbers beyond all numbers,
 * prices that are none, keys that would reach into every object, text that no
 * database can store. Against every row that takes a body, and every field of
 * it, as the rows' own schemas have them: refused in the documented words, and
 * nothing is left behind.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { autx } from "../../src/dialects/autx/index.ts"
import type { Endpoint } from "../../src/http/endpoint.ts"
import { settledOrder } from "../contract/Autx.ts"
import type { Request } from "../contract/Example.ts"
import { type Place, makeFields, withAt } from "../contract/Fields.ts"
import { bodies, neverTaken, noJson, noNumbers } from "../contract/HostileJson.ts"
import { agents } from "../contract/examples/agents.ts"
import { auth } from "../contract/examples/auth.ts"
import { money } from "../contract/examples/money.ts"
import { type Person, type Reply, type World, makeWorld } from "../support/World.ts"
import { tablePrints } from "../support/tablePrints.ts"

const examples = { ...auth, ...agents, ...money }
const rows = autx.rows.filter((row): row is Endpoint => row.kind === "endpoint" && row.payload !== undefined && row.upload === undefined)
const { bodyFields } = makeFields(autx)

let world: World
let caller: Person
beforeAll(async () => {
  world = await makeWorld()
  caller = await world.user()
  // What its first call writes belongs to no attack.
  await world.call("GET", "/v1/credits/balance", { token: caller.accessToken })
})
afterAll(async () => {
  expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])
  await world.stop()
})

const tokenFor = (row: Endpoint): string | undefined => row.auth === "public" ? undefined : caller.accessToken
const sendText = (row: Endpoint, body: string | Uint8Array, path = row.path.replace(/\{\w+\}/g, "nobody")): Promise<Reply> =>
  world.call(row.method, `/v1${path}`, { token: tokenFor(row), body, headers: { "content-type": "application/json" } })
const placesOf = (reply: Reply): ReadonlyArray<string> => reply.json.errors.map(({ loc }: { loc: ReadonlyArray<string> }) => loc.join("."))

const wordOf = (place: Place): string => ["body", ...place].join(".")
const mark = "put it here"

describe.each(rows.map((row) => [`${row.method} ${row.path}`, row] as const))("%s", (_, row) => {
  it("refuses bodies that no row takes", async () => {
    const before = await tablePrints(world.sql)
    for (const [name, body, statuses] of bodies) {
      const reply = await sendText(row, body)
      expect(statuses, `${name}: ${reply.text}`).toContain(reply.status)
      expect(reply.json, name).toEqual({ detail: expect.stringMatching(/^body/), errors: expect.any(Array) })
    }
    expect(await tablePrints(world.sql)).toEqual(before)
  })

  it("refuses in each field what no field takes, and leaves nothing behind", async () => {
    const { body, path }: Request = await examples[row.id]!.success.request(world, caller)
    const fields = bodyFields(row)
    expect(fields.length).toBeGreaterThan(0)
    const before = await tablePrints(world.sql)
    for (const { place, takesNumber } of fields) {
      const text = JSON.stringify(withAt(body, place, mark))
      const refused = async (value: string, statuses: ReadonlyArray<number>, where: string): Promise<void> => {
        const reply = await sendText(row, text.replace(JSON.stringify(mark), () => value), path)
        expect(statuses, `${wordOf(place)} ${value.slice(0, 40)} → ${reply.text.slice(0, 400)}`).toContain(reply.status)
        expect(placesOf(reply).some((each) => each.startsWith(where)), `${value.slice(0, 40)} → ${reply.text}`).toBe(true)
      }
      for (const value of neverTaken) await refused(value, [400, 422], "body")
      for (const value of noJson) await refused(value, [400], "body")
      if (takesNumber) for (const value of noNumbers) await refused(value, [422], wordOf(place))
    }
    expect(await tablePrints(world.sql)).toEqual(before)
  })
})

it("finds the fields that are known to be there", () => {
  const placed = (id: string) => bodyFields(rows.find((row) => row.id === id)!).map(({ place }) => place.join("."))
  expect(placed("autx.agents.create")).toEqual(expect.arrayContaining(["name", "service_price", "manifest.input.file_types.0", "manifest.output.max_size_bytes"]))
  expect(placed("autx.api_keys.create")).toEqual(expect.arrayContaining(["scopes", "scopes.0", "budgets.0.amount_usd", "expires_in_days"]))
})

describe("a key __proto__", () => {
  it.each(rows.map((row) => [`${row.method} ${row.path}`, row] as const))("brings no field into %s: a body of nothing else is an empty one", async (_, row) => {
    const all = Object.fromEntries(bodyFields(row).map(({ place }) => [String(place[0]), "x"]))
    const [withIt, empty] = [await sendText(row, `{"__proto__": ${JSON.stringify(all)}}`), await sendText(row, "{}")]
    expect([withIt.status, withIt.json]).toEqual([empty.status, empty.json])
    expect([404, 422]).toContain(withIt.status)
  })

  const evil = "\"__proto__\": {\"polluted\": true, \"payment_method\": \"evil\", \"amount\": \"9\", \"price\": 0}, \"constructor\": {\"prototype\": {\"polluted\": true}}"

  it("is a field that no row has: the order is what it says, and costs what it costs", async () => {
    const agent = await world.agent({ price: "0.50" })
    const person = await world.user()
    await person.fund("1.00")
    const reply = await world.call("POST", "/v1/orders", { token: person.accessToken, body: `{"agent_id": "${agent.id}", "prompt": "x", ${evil}}` })
    expect(reply.status, reply.text).toBe(201)
    expect(await settledOrder(world, person.accessToken, reply.json.id)).toMatchObject({ payment_method: "credits", amount_paid: 0.5 })
    expect(JSON.parse(agent.asked[0]!.body)).toEqual({ prompt: "x" })
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined()
  })

  it("reaches no object inside another, and is not stored", async () => {
    const body = `{"name": "An agent", "ticker": "PROTO", "endpoint_url": "${world.endpoint()}", "service_price": 0.5, "manifest": {"input": {"type": "json", ${evil}}, ${evil}}, ${evil}}`
    const reply = await world.call("POST", "/v1/agents", { token: caller.accessToken, body })
    expect([reply.status, reply.json.manifest]).toEqual([201, { input: { type: "json" } }])
    const [row] = await world.sql`select manifest::text as manifest from agents where ticker = 'PROTO'`
    expect(row!["manifest"]).not.toMatch(/proto|polluted/)
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined()
  })

  it.each(["__proto__", "constructor", "prototype", "toString", "hasOwnProperty"])("or value %s finds nothing that was not put there", async (word) => {
    const statusOf = async (method: string, path: string, body?: object): Promise<number> => (await world.call(method, `/v1${path}`, { token: caller.accessToken, body })).status
    expect(await statusOf("GET", `/agents/${word}`)).toBe(404)
    expect(await statusOf("GET", `/orders/${word}`)).toBe(404)
    expect(await statusOf("POST", `/proxy/${word}`, {})).toBe(404)
    expect(await statusOf("DELETE", `/api-keys/${word}`)).toBe(404)
    expect(await statusOf("POST", "/orders", { agent_id: word, prompt: "x" })).toBe(404)
    expect(await statusOf("GET", `/agents?sort=${word}`)).toBe(422)
    expect(await statusOf("GET", `/orders?status=${word}`)).toBe(422)
    expect(await statusOf("POST", "/api-keys", { name: "x", scopes: word })).toBe(422)
    expect(await statusOf("POST", "/api-keys", { name: "x", budgets: [{ amount_usd: 1, window: word }] })).toBe(422)
    expect(await statusOf("GET", `/agents?${word}=x&limit=1`)).toBe(200)
  })

  it("as an idempotency key is one like any other", async () => {
    const agent = await world.agent({ price: "0.50" })
    const person = await world.user()
    await person.fund("2.00")
    const order = (prompt: string): Promise<Reply> => world.call("POST", "/v1/orders", { token: person.accessToken, body: { agent_id: agent.id, prompt }, headers: { "idempotency-key": "__proto__" } })
    const [first, again, other] = [await order("x"), await order("x"), await order("y")]
    expect([first.status, again.json.id, other.status]).toEqual([201, first.json.id, 409])
  })
})
