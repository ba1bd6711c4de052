/**
 * SQL and header injection in everything that a row takes: each text field of
 * its body, its path, its query, and the headers, found in the rows' own schemas
 * (`contract/Fields.ts`). A text is refused as documented or stays text: what
 * comes back is what was sent, no statement ran, no header appeared, and nobody
 * else's things changed.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { autx } from "../../src/dialects/autx/index.ts"
import type { Row } from "../../src/http/endpoint.ts"
import { send } from "../contract/Autx.ts"
import type { Request } from "../contract/Example.ts"
import { type Place, makeFields, withAt } from "../contract/Fields.ts"
import { agents } from "../contract/examples/agents.ts"
import { auth } from "../contract/examples/auth.ts"
import { money } from "../contract/examples/money.ts"
import { RawConnection } from "../support/RawConnection.ts"
import { type Person, type Reply, type World, makeWorld } from "../support/World.ts"

const examples = { ...auth, ...agents, ...money }
const rows = autx.rows.filter((row) => row.kind !== "socket")
const { bodyFields, queryNames } = makeFields(autx)
const titled = (some: ReadonlyArray<Row>) => some.map((row) => [`${row.method} ${row.path}`, row] as const)

/** The canary table is there for these to kill. */
const statements = [
  "'; drop table canary; --", "'); delete from canary; --", "\"; drop table canary; --", "\\'; drop table canary; --", "1; drop table canary",
  "%' or '1'='1' --", "' union select password_hash from users --"
]
/** What would begin a header, or end the head, if it reached one as it is. U+010D U+010A end in the bytes of CR LF. */
const lineEnds = [
  "x\r\nx-evil: 1\r\n\r\nx", "x\nx-evil: 1", "x\rx-evil: 1", "x\u010d\u010ax-evil: 1", "%0d%0ax-evil:%201", "x\u2028x-evil: 1\u0085x-evil: 1"
]
const texts = [...statements, ...lineEnds]

let world: World
let caller: Person
let bystander: Person
let bystandersThings: unknown
let schema: unknown

const thingsOf = (person: Person) => world.sql`
  select (select json_agg(k order by id) from api_keys k where account_id = ${person.accountId}) as keys,
         (select json_agg(t order by id) from transactions t where account_id = ${person.accountId}) as transactions,
         (select json_agg(a order by id) from agents a where owner_id = ${person.accountId}) as agents,
         (select json_agg(l order by id) from logins l where user_id = ${person.id}) as logins,
         (select json_agg(u) from users u where id = ${person.id}) as users,
         (select available || ' ' || reserved from accounts where id = ${person.accountId}) as balance`
const schemaNow = () => world.sql`select table_name, column_name, data_type from information_schema.columns where table_schema = 'public' order by 1, 2`

beforeAll(async () => {
  world = await makeWorld()
  caller = await world.user()
  await caller.fund("1000.00")
  bystander = await world.user()
  await bystander.fund("3.00")
  await bystander.key("*")
  await world.agent({ owner: bystander, price: "0.50" })
  await world.sql`create table canary as select 'alive' as state`
  bystandersThings = await thingsOf(bystander)
  schema = await schemaNow()
})
afterAll(() => world.stop())

const expectHarmless = (reply: Reply, about: string): void => {
  expect(reply.status < 500 || reply.status === 501, `${about} → ${reply.status} ${reply.text}`).toBe(true)
  expect([...reply.headers.keys()].filter((name) => name.includes("evil")), about).toEqual([])
  expect(reply.text, about).not.toContain("argon2")
}
const tokenFor = (row: Row, person: Person): { readonly token?: string } => row.auth === "public" || row.auth === "optional" ? {} : { token: person.accessToken }
/** Attempts are counted by address. */
let attempts = 0
const from = (): Readonly<Record<string, string>> => ({ "x-forwarded-for": `198.51.${++attempts >> 8 & 255}.${attempts & 255}` })

/** A good call of the row, by somebody whom it may leave with another password. */
const good = async (row: Row): Promise<{ readonly person: Person; readonly request: Request }> => {
  const person = row.id.startsWith("autx.auth.password.") ? await world.user() : caller
  return { person, request: await examples[row.id]!.success.request(world, person) }
}
/** The same call again, which may need another ticker. */
const anew = (request: Request): Request =>
  typeof request.body === "object" && "ticker" in request.body! ? { ...request, body: { ...request.body, ticker: `F${++attempts}` } } : request
/** What the row shows of a field that it took. */
const shown = (reply: Reply, place: Place): unknown => {
  let value: unknown = reply.json
  for (const step of place) value = (value as Readonly<Record<string | number, unknown>> | null | undefined)?.[step]
  return value
}

describe.each(titled(rows.filter((row) => queryNames(row).length > 0)))("each value of the query of %s", (_, row) => {
  it.each(queryNames(row))("%s finds nothing by an injected text", async (name) => {
    for (const text of name === "cursor" ? texts.flatMap((text) => [text, Buffer.from(text).toString("base64url")]) : texts) {
      const reply = await send(world, row, caller, { token: caller.accessToken, path: `${row.path}?${name}=${encodeURIComponent(text)}` })
      expectHarmless(reply, `${name}=${text}`)
      expect(reply.status === 200 ? reply.json : reply.status, `${name}=${text}`).toEqual(reply.status === 200 ? [] : 422)
    }
  })
})

describe.each(titled(rows.filter((row) => row.path.includes("{"))))("the path of %s", (_, row) => {
  it("names nothing by an injected text", async () => {
    for (const text of [...texts, "a\u0000b", "../../auth/me", "..\\..\\x", "%2e%2e%2f", "*"]) {
      const path = row.path.replace(/\{\w+\}/g, encodeURIComponent(text))
      const reply = await world.call(row.method, `/v1${path}`, { token: caller.accessToken, ...(row.method === "GET" ? {} : { body: { provider_key: "x" } }) })
      expectHarmless(reply, text)
      expect([400, 404, 422, 501], `${text} → ${reply.text}`).toContain(reply.status)
    }
  })
})

describe.each(titled(rows.filter((row) => bodyFields(row).length > 0)))("each text of the body of %s", (_, row) => {
  it.each(bodyFields(row).filter(({ takesText }) => takesText).map(({ place }) => [place.join("."), place] as const))("%s stays text, or is refused", async (name, place) => {
    const { person, request } = await good(row)
    for (const text of texts) {
      const reply = await send(world, row, person, { ...tokenFor(row, person), ...request, body: withAt(anew(request).body, place, text), headers: { ...request.headers, ...from() } })
      expectHarmless(reply, `${name} ${JSON.stringify(text)}`)
      const seen = shown(reply, place)
      if (reply.status < 300 && typeof seen === "string") expect(seen).toBe(text)
    }
  })
})

describe("a header", () => {
  const visible = statements.map((statement) => statement.replaceAll(" ", "/**/"))

  it("Idempotency-Key is the text that it is, on every row that honours it", async () => {
    for (const row of rows.filter((each) => each.kind === "endpoint" && each.idempotent)) {
      const { person, request } = await good(row)
      for (const text of visible) {
        expectHarmless(await send(world, row, person, { token: person.accessToken, ...anew(request), headers: { ...request.headers, "idempotency-key": `${row.id}${text}` } }), text)
      }
    }
    const [row] = await world.sql`select count(*)::int as count from idempotency_keys where key like '%canary%'`
    expect(row!["count"]).toBeGreaterThan(0)
  })

  it.each(["authorization", "x-forwarded-for", "user-agent", "content-type", "origin", "cookie", "accept", "traceparent", "access-control-request-headers", "x-custom"])("%s with an injected text is refused or stays text", async (name) => {
    const person = await world.user()
    for (const text of statements) {
      // A login writes its address down when it succeeds.
      const reply = name === "x-forwarded-for"
        ? await world.call("POST", "/v1/auth/login", { body: { email: person.email, password: person.password }, headers: { [name]: text } })
        : await world.call("POST", "/v1/auth/refresh", { body: { refresh_token: "x" }, headers: { [name]: text } })
      expectHarmless(reply, text)
      expect(reply.status).toBe(name === "x-forwarded-for" ? 200 : 401)
      expectHarmless(await world.call("OPTIONS", "/v1/agents", { headers: { origin: world.publicUrl, "access-control-request-method": "POST", [name]: text } }), text)
    }
  })

  it("whose bytes would be line ends elsewhere reaches the agent as it was, and no other with it", async () => {
    const agent = await world.agent()
    const { key } = await caller.key("proxy")
    const connection = await RawConnection.open(world.port)
    const value = Buffer.from("a\u010d\u010ax-evil: 1\u0085\u2028z", "utf8").toString("latin1")
    connection.send(Buffer.from(
      `POST /v1/proxy/${agent.ticker}?q=${value.replaceAll(" ", "")}%0d%0ax-evil:1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${key}\r\nX-Custom: ${value}\r\nContent-Type: ${value}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`, "latin1"
    ))
    expect(await connection.closed()).toMatch(/^HTTP\/1\.1 200 OK\r\n(?![^]*\r\nx-evil)/)
    expect(agent.asked).toHaveLength(1)
    const { headers, url, body } = agent.asked[0]!
    expect([headers["x-custom"], headers["content-type"], headers["x-evil"], body]).toEqual([value, value, undefined, "{}"])
    expect(url).toMatch(/^\/agent\/\d+\?[\x21-\x7e]+$/)
  })

  it("Link of a page has what was asked for in it, encoded", async () => {
    const owner = await world.user()
    for (const text of lineEnds) {
      for (let i = 0; i < 2; i++) await world.agent({ owner, more: { category: text } })
      const reply = await world.call("GET", `/v1/agents?limit=1&category=${encodeURIComponent(text)}`)
      expectHarmless(reply, text)
      const link = reply.headers.get("link")!
      expect(new URL(/^<(.*)>; rel="next"$/.exec(link)![1]!).searchParams.get("category")).toBe(text)
      expect(link).toMatch(/^[\x21-\x7e]+; rel="next"$/)
    }
  })

  it("of an agent's answer can't be ended by the agent's own text", async () => {
    const agent = await world.agent({ respond: () => ({ headers: { "x-text": "a\u00c4\u008d\u00c4\u008ax-evil: 1", "content-type": "text/plain" }, body: "x" }) })
    const reply = await world.call("POST", `/v1/proxy/${agent.ticker}`, { token: caller.accessToken, body: {} })
    expect(reply.status).toBe(200)
    expectHarmless(reply, "x-text")
  })
})

it("of all of these no statement ran, nobody else's things changed, the books are clean, and the gateway serves on", async () => {
  const [canary] = await world.sql`select count(*)::int as count, min(state) as state from canary`
  expect(canary).toEqual({ count: 1, state: "alive" })
  expect(await schemaNow()).toEqual(schema)
  expect(await thingsOf(bystander)).toEqual(bystandersThings)
  expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])
  expect((await world.call("GET", "/v1/credits/balance", { token: bystander.accessToken })).json.balance_usd).toBe("3.00")
})
