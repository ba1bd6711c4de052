/**
 * Who may call which row of acf, and what reaches it: credentials, roles,
 * suspended owners, full windows and addresses, bodies that don't fit, a database
 * that is away, and every path that a row has. Derived from the rows alone.
 */
import { request } from "node:http"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { acf } from "../../src/dialects/acf/index.ts"
import { autx } from "../../src/dialects/autx/index.ts"
import { type Endpoint, type Row } from "../../src/http/endpoint.ts"
import { type Role, roles } from "../../src/kernel/market/Keys.ts"
import { type Owner, owner } from "../support/acf.ts"
import { type Person, type Reply, type World, makeWorld } from "../support/World.ts"
import { acfProduct, adminSecret, masked, roleFor } from "./Acf.ts"
import { anyAddress, operationsOf } from "./Product.ts"

const { rows } = acf
const authenticated = rows.filter((row) => row.auth === "key")
const titled = (some: ReadonlyArray<Row>) => some.map((row) => [`${row.method} ${row.path}`, row] as const)
const pathOf = (row: Row, mount = "/acf"): string => `${mount}${row.path.replace(/\{\w+\*?\}/g, "nobody")}`

let world: World
let person: Person
let autxKey: string
let owners: Readonly<Record<Role, Owner>>
beforeAll(async () => {
  world = await makeWorld({ settings: { acfAdminSecret: adminSecret, dialectHosts: new Map([["market.example", "acf"]]) } })
  person = await world.user()
  autxKey = (await person.key("*")).key
  const [buyer, provider, admin] = await Promise.all(roles.map((role) => owner(world, { role })))
  owners = { buyer: buyer!, provider: provider!, admin: admin! }
})
afterAll(() => world.stop())

const answerTo = (row: Row, token?: string, in_ = world, headers: Readonly<Record<string, string>> = anyAddress()): Promise<Reply> =>
  in_.call(row.method, pathOf(row), { token, ...(row.method === "GET" ? { headers } : { body: "{}", headers: { "content-type": "application/json", ...headers } }) })
const said = async (reply: Promise<Reply>) => {
  const { status, json } = await reply
  return [status, json?.detail]
}

describe.each(titled(authenticated))("%s", (_, row) => {
  it("refuses a caller without a key, with a bad one, and with another product's credential", async () => {
    const none = await answerTo(row)
    expect([none.status, none.json.detail]).toEqual([401, "Missing API key: send the header Authorization: Bearer {key_id}:{secret}"])
    expect(none.headers.get("www-authenticate")).toBe("Bearer")
    const { token, keyId } = owners[roleFor(row)]
    for (const bad of ["garbage", keyId, `${keyId}:`, `${token}x`, `${keyId}:sec_${"x".repeat(43)}`, `acf_${"0".repeat(16)}:${token.slice(token.indexOf(":") + 1)}`]) {
      expect(await said(answerTo(row, bad)), bad).toEqual([401, "Invalid API key"])
    }
    const another = "This credential belongs to another product: use an API key of this one (acf_...:sec_...)"
    for (const credential of [autxKey, person.accessToken]) expect(await said(answerTo(row, credential))).toEqual([401, another])
  })

  it("takes a key of its role and of those above it, and of no role below", async () => {
    const least = roles.indexOf(roleFor(row))
    for (const [at, role] of roles.entries()) {
      const [status, detail] = await said(answerTo(row, owners[role].token))
      if (at < least) expect([status, detail], role).toEqual([403, `Insufficient permissions: this needs a key of the role ${row.scope}`])
      // Some are another's, as nobody is.
      else if (status === 403) expect(detail, role).toMatch(/^Not your /)
      else expect([200, 201, 400, 404, 422], `${role} ${status} ${detail}`).toContain(status)
    }
  })
})

it("refuses every row to keys that were revoked, have expired, or are of a suspended owner", async () => {
  const [revoked, expired, suspended] = await Promise.all([0, 1, 2].map(() => owner(world, { role: "admin" }))) as [Owner, Owner, Owner]
  expect((await revoked.call("DELETE", `/api/v1/provider/keys/${revoked.keyId}`)).status).toBe(200)
  await world.alter(expired, (sql) => sql`update api_keys set expires_at = now() - interval '1 second' where key_prefix = ${expired.keyId}`)
  await world.alter(suspended, (sql) => sql`update accounts set status = 'suspended' where id = ${suspended.accountId}`)
  for (const row of authenticated) {
    expect(await said(answerTo(row, revoked.token)), row.id).toEqual([401, "Invalid API key"])
    expect(await said(answerTo(row, expired.token)), row.id).toEqual([401, "The API key has expired: create another one"])
    expect(await said(answerTo(row, suspended.token)), row.id).toEqual([403, "The account is suspended: contact the operator"])
  }
})

it.each(titled(rows.filter((row) => row.auth === "optional")))("%s takes callers with and without a key, but not with a bad one", async (_, row) => {
  const statuses = [await answerTo(row), await answerTo(row, owners.buyer.token), await answerTo(row, `${owners.buyer.keyId}:sec_wrong`), await answerTo(row, autxKey)]
  expect(statuses.map(({ status }) => status)).toEqual([200, 200, 401, 401])
})

it("has its keys refused by every row of the other product that takes a credential", async () => {
  for (const row of autx.rows.filter(({ auth, kind }) => auth !== "public" && kind !== "socket")) {
    const reply = await world.call(row.method, `/v1${row.path.replace(/\{\w+\}/g, "nobody")}`, { token: owners.admin.token, ...(row.method === "GET" ? {} : { body: "{}" }) })
    expect([reply.status, reply.json.detail], row.id).toEqual([401, "This API key belongs to another product"])
  }
})

it("counts in a key's window what the contract counts, and says when to come back", async () => {
  const narrow = await owner(world, { role: "admin", rateLimit: 1 })
  await narrow.call("GET", "/api/v1/usage/me")
  for (const row of authenticated.filter(({ id }) => id !== "acf.provider.revoke_key")) {
    const reply = await answerTo(row, narrow.token)
    if (row.uncounted === true) expect(reply.status, row.id).not.toBe(429)
    else {
      expect([reply.status, reply.json], row.id).toEqual([429, { detail: "Rate limit exceeded. Try again later." }])
      expect(reply.headers.get("retry-after")).toMatch(/^[1-9]\d*$/)
    }
  }
})

it("refuses every row to an address that has used up its calls, before anything else", async () => {
  const narrow = await makeWorld({ settings: { acfIpBurst: 1, acfIpRate: 1 } })
  try {
    for (const row of rows) {
      const headers = anyAddress()
      // The bucket fills by one in a second: of these at once the last finds it empty.
      const replies = await Promise.all(Array.from({ length: 3 }, () => answerTo(row, "garbage", narrow, headers)))
      const refused = replies.filter(({ status }) => status === 429)
      expect(refused.length, row.id).toBeGreaterThan(0)
      expect([refused[0]!.json, refused[0]!.headers.get("retry-after")], row.id).toEqual([{ detail: "Rate limit exceeded. Try again later." }, "1"])
    }
  } finally {
    await narrow.stop()
  }
})

it("answers 503 with Retry-After on every row that needs the database while it is away, and recovers by itself", async () => {
  // Nobody has called with these yet, so that their accounts are not in memory.
  const fresh = await owner(world, { role: "admin" })
  const needsNone = new Set(["acf.about.get", "acf.about.health", "acf.about.agents", "acf.templates.teams", "acf.templates.services"])
  const bodies: Readonly<Record<string, object>> = { "acf.keys.create": { owner_id: "away" }, "acf.keys.validate": { key_id: "acf_away", secret: "sec_away" } }
  const queries: Readonly<Record<string, string>> = { "acf.admin.credit": "?buyer_id=away&amount=1", "acf.agents.search": "?q=away", "acf.dashboard.read": `?key=${fresh.token}` }
  world.store.sever()
  try {
    for (const row of rows.filter(({ id }) => !needsNone.has(id))) {
      const reply = await world.call(row.method, `${pathOf(row).replace(/nobody/g, "019afe00-0000-7000-8000-000000000000")}${queries[row.id] ?? ""}`, {
        token: row.auth === "public" ? undefined : fresh.token, headers: { "x-admin-key": adminSecret, ...anyAddress() }, ...(row.method === "GET" ? {} : { body: bodies[row.id] ?? {} })
      })
      expect(reply.status, `${row.id} ${reply.text}`).toBe(503)
      expect(reply.headers.get("retry-after"), row.id).toBe("1")
      if (row.id !== "acf.dashboard.read") expect(reply.json, row.id).toEqual({ detail: "The gateway can't read its books. Nothing was done; try again in a second" })
    }
  } finally {
    world.store.restore()
  }
  expect((await fresh.call("GET", "/api/v1/usage/me")).status).toBe(200)
})

describe.each(titled(rows.filter((row) => row.kind === "endpoint" && row.payload !== undefined)))("the body of %s", (_, anyRow) => {
  const row = anyRow as Endpoint
  const token = () => row.auth === "key" ? owners[roleFor(row)].token : undefined

  it("must be JSON, and the object that is asked for", async () => {
    for (const body of ["{", "{\"a\": NaN}", "\u0000", Buffer.from([0xff, 0xfe]), "[".repeat(40_000), "[]", "null", "\"text\"", ""]) {
      const reply = await world.call(row.method, pathOf(row), { token: token(), body, headers: anyAddress() })
      expect([reply.status, reply.json.errors.length > 0, typeof reply.json.detail], String(body).slice(0, 20)).toEqual([422, true, "string"])
    }
  })

  it("has a bound", () => expect(statusOfAnnounced(row, token(), row.bodyBytesMax + 1)).resolves.toBe(413))
})

/** Announces a body and sends none of it. */
const statusOfAnnounced = (row: Row, token: string | undefined, bytes: number): Promise<number | undefined> => new Promise((done, fail) => {
  const headers = { "content-length": bytes, "content-type": "application/json", ...anyAddress(), ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) }
  const sent = request({ host: "127.0.0.1", port: world.port, method: row.method, path: pathOf(row), headers }, (response) => {
    done(response.resume().statusCode)
    sent.destroy()
  })
  sent.on("error", fail).flushHeaders()
})

/** As somebody who knows the gateway by another host name. */
const atHost = (host: string, method: string, path: string): Promise<{ readonly status: number; readonly text: string }> => new Promise((done, fail) => {
  const sent = request({ host: "127.0.0.1", port: world.port, method, path, headers: { host, ...anyAddress() } }, (response) => {
    const chunks: Array<Buffer> = []
    response.on("data", (chunk: Buffer) => chunks.push(chunk)).on("end", () => done({ status: response.statusCode!, text: Buffer.concat(chunks).toString() }))
  })
  sent.on("error", fail).end()
})

it.each(titled(rows))("%s is at its mount and at the root of its own hosts, with and without a slash at the end", async (_, row) => {
  const shown = ({ status, text }: { readonly status: number; readonly text: string }) => [status, text.startsWith("{") ? masked(JSON.parse(text)) : text.length]
  const first = shown(await world.call(row.method, pathOf(row), { headers: anyAddress() }))
  if (row.path !== "/api/v1/proxy/{service_id}/{path*}") expect(first[1]).not.toEqual({ detail: "Not Found" })
  expect(shown(await world.call(row.method, `${pathOf(row).replace(/\/$/, "")}/`, { headers: anyAddress() }))).toEqual(first)
  for (const host of ["acf.localhost", `acf.localhost:${world.port}`, "market.example"]) expect(shown(await atHost(host, row.method, pathOf(row, ""))), host).toEqual(first)
})

it("says what is wrong about a path and a method that it doesn't have", async () => {
  expect(await said(world.call("GET", "/acf/nowhere"))).toEqual([404, "Not Found"])
  const method = await world.call("PUT", "/acf/api/v1/teams")
  expect([method.status, method.json, method.headers.get("allow")?.split(", ").toSorted()]).toEqual([405, { detail: "Method Not Allowed" }, ["GET", "HEAD", "POST"]])
  for (const wrong of ["HEAD", "OPTIONS"]) {
    const reply = await world.call(wrong, "/acf/api/v1/proxy/nobody/x", { token: owners.buyer.token })
    expect([reply.status, reply.headers.get("allow")?.split(", ").toSorted()], wrong).toEqual([405, ["DELETE", "GET", "PATCH", "POST", "PUT"]])
  }
})

it("describes every row in the document that it serves, with its shapes and its errors", async () => {
  const { status, json } = await world.call("GET", "/acf/openapi.json")
  expect([status, json.openapi, json.info.title, json.servers]).toEqual([200, "3.1.0", "Agent Commerce Framework", [{ url: "/acf" }]])
  const served = Object.entries<Record<string, { operationId: string; responses: object }>>(json.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, { operationId, responses }]) => [operationId, `${method.toUpperCase()} ${path}`, Object.keys(responses)] as const))
  expect(served.map(([id]) => id).toSorted()).toEqual(rows.map(({ id }) => id).toSorted())
  const described = operationsOf<{ readonly responses: object }>(acfProduct.dialect)
  for (const [id, , statuses] of served) expect(statuses, id).toEqual(Object.keys(described.get(id)!.responses))
  const names = Object.keys(json.components.schemas)
  expect(names.filter((name) => name !== "Error" && !name.startsWith("Acf"))).toEqual([])
})
