/**
 * Who may call which row, and what reaches it: credentials, scopes, suspended
 * accounts, full windows, bodies that don't fit, a database that is away, and
 * every path that a row has. Derived from the rows alone.
 */
import { request } from "node:http"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { autx } from "../../src/dialects/autx/index.ts"
import type { Endpoint, Row } from "../../src/http/endpoint.ts"
import { type Person, type World, makeWorld } from "../support/World.ts"
import { credentialFor, masked } from "./Autx.ts"

const rows = autx.rows.filter((row) => row.kind !== "socket")
const authenticated = rows.filter((row) => row.auth !== "public" && row.auth !== "optional")
const pathOf = (row: Row, mount = "/v1"): string => `${mount}${row.path.replace(/\{\w+\}/g, "nobody")}`
const titled = (some: ReadonlyArray<Row>) => some.map((row) => [`${row.method} ${row.path}`, row] as const)

let world: World
let caller: Person
beforeAll(async () => {
  world = await makeWorld()
  caller = await world.user()
})
afterAll(() => world.stop())

const answerTo = async (row: Row, token?: string, in_ = world) => {
  const reply = await in_.call(row.method, pathOf(row), { token, ...(row.method === "GET" ? {} : { body: "{}", headers: { "content-type": "application/json" } }) })
  return { status: reply.status, detail: reply.json?.detail, reply }
}

describe.each(titled(authenticated))("%s", (_, row) => {
  it("refuses a caller without a credential, and one with a bad one", async () => {
    const none = await answerTo(row)
    expect([none.status, none.detail]).toEqual([401, expect.stringMatching(/^Authentication is required/)])
    expect(none.reply.headers.get("www-authenticate")).toBe("Bearer")
    const forged = `${caller.accessToken.slice(0, -8)}AAAAAAAA`
    for (const token of ["garbage", `autx_live_${"x".repeat(43)}`, forged, caller.refreshToken]) {
      const bad = await answerTo(row, token)
      expect([bad.status, bad.detail], token).toEqual([401, "The credential is not valid"])
    }
  })

  it("shows the rate window on every answer to a caller that it knows", async () => {
    const { reply } = await answerTo(row, await credentialFor(row, caller))
    expect(reply.headers.get("x-ratelimit-limit")).toBe("100000")
    expect(Number(reply.headers.get("x-ratelimit-remaining"))).toBeLessThan(100_000)
    expect(Number(reply.headers.get("x-ratelimit-reset"))).toBeGreaterThan(0)
  })
})

it.each(titled(rows.filter((row) => row.auth === "optional")))("%s takes callers with and without a credential, but not with a bad one", async (_, row) => {
  const statuses = [await answerTo(row), await answerTo(row, caller.accessToken), await answerTo(row, (await caller.key("proxy")).key), await answerTo(row, "garbage")]
  const answered = row.path.includes("{") ? 404 : 200 // Nobody has the id "nobody".
  expect(statuses.map(({ status }) => status)).toEqual([answered, answered, answered, 401])
})

it.each(titled(rows.filter((row) => row.auth === "login")))("%s takes no API key", async (_, row) => {
  const { status, detail } = await answerTo(row, (await caller.key("*")).key)
  expect([status, detail]).toEqual([403, "This needs a login: an API key can't do it"])
})

it.each(titled(rows.filter((row) => row.scope !== undefined)))("%s takes a key with its scope or with every scope, and no other", async (_, row) => {
  const others = ["proxy", "orders", "agents"].filter((scope) => scope !== row.scope).join(",")
  const lacking = await answerTo(row, (await caller.key(others)).key)
  expect([lacking.status, lacking.detail]).toEqual([403, `The API key lacks the scope ${row.scope}`])
  for (const scopes of [row.scope!, "*"]) expect((await answerTo(row, (await caller.key(scopes)).key)).status, scopes).not.toBe(403)
})

it.each(titled(rows.filter((row) => row.verified === true)))("%s asks for a verified email", async (_, row) => {
  const unverified = await world.user({ verified: false })
  const before = await answerTo(row, unverified.accessToken)
  expect([before.status, before.detail]).toEqual([403, "Verify your email"])
  await world.call("GET", `/v1/auth/verify?token=${await world.link(unverified, "verify")}`)
  expect((await answerTo(row, unverified.accessToken)).status).not.toBe(403)
})

it("refuses every row to a suspended account", async () => {
  const suspended = await world.user()
  await world.sql`update accounts set status = 'suspended' where id = ${suspended.accountId}`
  for (const row of authenticated) {
    const { status, detail } = await answerTo(row, suspended.accessToken)
    expect([status, detail], row.id).toEqual([403, "The account is suspended: contact the operator"])
  }
})

it("refuses every row once the window is full, and says when to come back", async () => {
  const narrow = await makeWorld({ settings: { keyRateLimitDefault: 1 } })
  try {
    const { accessToken } = await narrow.user()
    await narrow.call("GET", "/v1/auth/me", { token: accessToken })
    for (const row of authenticated) {
      const { reply } = await answerTo(row, accessToken, narrow)
      expect([reply.status, reply.json], row.id).toEqual([429, { detail: "Rate limit exceeded", limit: 1, window_seconds: 60, retry_after: expect.any(Number) }])
      expect(reply.headers.get("retry-after")).toBe(String(reply.json.retry_after))
      expect(reply.json.retry_after).toBeGreaterThanOrEqual(1)
      expect(reply.headers.get("x-ratelimit-remaining")).toBe("0")
    }
  } finally {
    await narrow.stop()
  }
})

it("answers 503 with Retry-After on every row that needs the database while it is away, and recovers by itself", async () => {
  // Nobody has called for this account yet, so that it is not in memory.
  const { accessToken } = await world.user()
  const needsNone = new Set(["autx.jwks", "autx.credits.stripe_webhook"])
  const bodies: Readonly<Record<string, object>> = {
    "autx.auth.register": { email: "away@example.com", password: "correct horse" },
    "autx.auth.login": { email: "away@example.com", password: "correct horse" },
    "autx.auth.refresh": { refresh_token: caller.refreshToken },
    "autx.auth.password.forgot": { email: "away@example.com" },
    "autx.auth.password.reset": { token: "x", new_password: "correct horse" }
  }
  world.store.sever()
  try {
    for (const row of rows.filter(({ id }) => !needsNone.has(id))) {
      const path = row.id === "autx.auth.verify" ? `${pathOf(row)}?token=x` : pathOf(row)
      const reply = await world.call(row.method, path, { token: row.auth === "public" ? undefined : accessToken, ...(row.method === "GET" ? {} : { body: bodies[row.id] ?? {} }) })
      expect([reply.status, reply.json], row.id).toEqual([503, { detail: "The gateway can't read its books. Nothing was done; try again in a second", retry_after: 1 }])
      expect(reply.headers.get("retry-after")).toBe("1")
    }
  } finally {
    world.store.restore()
  }
  expect((await world.call("GET", "/v1/credits/balance", { token: accessToken })).status).toBe(200)
})

describe.each(titled(rows.filter((row) => row.kind === "endpoint" && row.payload !== undefined)))("the body of %s", (_, anyRow) => {
  const row = anyRow as Endpoint

  if (row.upload === undefined) it("must be JSON, and the object that is asked for", async () => {
    const token = await credentialFor(row, caller)
    const answers: ReadonlyArray<readonly [body: string | Uint8Array, status: number]> = [
      ["{", 400], ["{\"a\": NaN}", 400], ["\u0000", 400], [Buffer.from([0xff, 0xfe]), 400], ["[".repeat(40_000), 400],
      ["[]", 422], ["null", 422], ["\"text\"", 422], ["", 422]
    ]
    for (const [body, status] of answers) {
      const reply = await world.call(row.method, pathOf(row), { token, body })
      expect([reply.status, reply.json.errors.length > 0], String(body).slice(0, 20)).toEqual([status, true])
      expect(reply.json.detail).toMatch(/^body/)
    }
  })

  if (row.upload !== undefined) it("must be a form that has a boundary, and keeps to it", async () => {
    const token = await credentialFor(row, caller)
    const answers: ReadonlyArray<readonly [type: string, body: string, status: number, place: string]> = [
      ["application/json", "{}", 400, "header.content-type"], ["multipart/form-data", "--a--", 400, "header.content-type"], ["multipart/mixed; boundary=a", "--a--", 400, "header.content-type"],
      ["multipart/form-data; boundary=a", "", 400, "body"], ["multipart/form-data; boundary=a", "--b--", 400, "body"], ["multipart/form-data; boundary=a", "--a", 400, "body"],
      ["multipart/form-data; boundary=a", "--a--", 422, "body.agent_id"]
    ]
    for (const [type, body, status, place] of answers) {
      const reply = await world.call(row.method, pathOf(row), { token, body, headers: { "content-type": type } })
      expect([reply.status, reply.json.errors[0].loc.join(".")], `${type} ${body}`).toEqual([status, place])
    }
  })

  it("has a bound", async () => {
    const token = await credentialFor(row, caller)
    expect(await statusOfAnnounced(row, token, row.bodyBytesMax + 1)).toBe(413)
  })
})

it("takes no body above 100 MiB to an agent", async () => {
  const row = rows.find(({ kind }) => kind === "relay")!
  expect(await statusOfAnnounced(row, await credentialFor(row, caller), 100 * 1024 * 1024 + 1)).toBe(413)
})

/** Announces a body and sends none of it. */
const statusOfAnnounced = (row: Row, token: string | undefined, bytes: number): Promise<number | undefined> => new Promise((done, fail) => {
  const headers = { "content-length": bytes, "content-type": "application/json", ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) }
  const sent = request({ host: "127.0.0.1", port: world.port, method: row.method, path: pathOf(row), headers }, (response) => {
    done(response.resume().statusCode)
    sent.destroy()
  })
  sent.on("error", fail).flushHeaders()
})

it.each(titled(autx.rows))("%s is at every mount, with and without a slash at the end", async (_, row) => {
  const shown = async (path: string) => {
    const { status, json } = await world.call(row.method, path)
    return { status, json: masked(json) }
  }
  const first = await shown(pathOf(row))
  expect(first.json).not.toEqual({ detail: "There is nothing at this path" })
  for (const mount of autx.mounts) {
    const path = pathOf(row, mount).replace(/\/$/, "")
    for (const form of [path, `${path}/`]) expect(await shown(form), form).toEqual(first)
  }
})

it("publishes its key set at the root, whatever the host", async () => {
  const atRoot = await world.call("GET", "/.well-known/jwks.json")
  expect([atRoot.status, atRoot.json]).toEqual([200, (await world.call("GET", "/v1/.well-known/jwks.json")).json])
})

it("says what is wrong about a path and a method that it doesn't have", async () => {
  const nowhere = await world.call("GET", "/v1/nowhere")
  expect([nowhere.status, nowhere.json]).toEqual([404, { detail: "There is nothing at this path" }])
  const method = await world.call("PUT", "/v1/orders/")
  expect([method.status, method.json.detail]).toEqual([405, expect.stringMatching(/^Method not allowed/)])
  expect(method.headers.get("allow")?.split(", ")).toEqual(expect.arrayContaining(["GET", "POST"]))
})
