/** Who may see the dashboard, and that neither the key nor the session is left lying about. The page itself is in test/browser. */
import { once } from "node:events"
import { type IncomingMessage, request } from "node:http"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Owner, owner } from "../../support/acf.ts"
import { type Reply, type World, makeWorld } from "../../support/World.ts"

let world: World
let admin: Owner
beforeAll(async () => {
  world = await makeWorld()
  admin = await owner(world, { role: "admin" })
})
afterAll(() => world.stop())

/** Callers are throttled by address: each test has its own. */
let addresses = 0
const address = (): string => `203.0.113.${++addresses}`

/** With any headers, also those that fetch keeps to itself. */
const cookiesFor = async (headers: Readonly<Record<string, string>>): Promise<ReadonlyArray<string>> => {
  const sent = request({ host: "127.0.0.1", port: world.port, path: "/admin/dashboard", headers }).end()
  const [answer] = await once(sent, "response") as [IncomingMessage]
  answer.resume()
  return answer.headers["set-cookie"] ?? []
}
const open = (headers: Readonly<Record<string, string>> = {}, path = "/admin/dashboard"): Promise<Reply> => world.call("GET", path, { headers })
const bearer = (key: string): Readonly<Record<string, string>> => ({ authorization: `Bearer ${key}`, "x-forwarded-for": address() })
const setCookie = (reply: Reply): string => reply.headers.get("set-cookie")!
/** As a browser sends it back. */
const cookieOf = (reply: Reply): { readonly cookie: string } => ({ cookie: `theme=dark; ${setCookie(reply).split(";")[0]}` })
const said = (reply: Reply): string => /<p role="alert">([^<]*)<\/p>/.exec(reply.text)![1]!

describe("an admin's key", () => {
  it.each([["in the address", true], ["as the Bearer token", false]])("%s is answered with a session and the address without the key, at each of the dashboard's places", async (_, isInAddress) => {
    for (const path of ["/admin/dashboard", "/acf/admin/dashboard", "/acf/admin/dashboard/"]) {
      const reply = isInAddress ? await open({}, `${path}?key=${encodeURIComponent(admin.token)}`) : await open(bearer(admin.token), path)
      expect([reply.status, reply.text, reply.headers.get("location")]).toEqual([303, "", path])
      expect(setCookie(reply)).toMatch(/^tollgate_admin=[\w.-]+; Path=\/; Max-Age=28800; HttpOnly; SameSite=Strict$/)
      expect(setCookie(reply)).not.toContain(admin.token.split(":")[1])
      expect([reply.headers.get("cache-control"), reply.headers.get("referrer-policy")]).toEqual(["no-store", "no-referrer"])
      const page = await open(cookieOf(reply), path)
      expect([page.status, page.headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"])
      expect(page.text).toContain("<h1>Dashboard</h1>")
    }
  })

  it("gets a cookie that only https gets back, where the browser came by https", async () => {
    const https = { "x-forwarded-proto": "https" }
    for (const headers of [https, { host: "gateway.test" }, { host: "gateway:8080" }]) {
      const [cookie] = await cookiesFor({ ...bearer(admin.token), ...headers })
      expect(cookie).toMatch(/^__Host-tollgate_admin=[\w.-]+; Path=\/; Max-Age=28800; HttpOnly; SameSite=Strict; Secure$/)
      const [pair] = cookie!.split(";")
      expect((await open({ ...https, cookie: pair! })).status).toBe(200)
      // What another host of the same site, or one without TLS, could have set.
      expect((await open({ ...https, cookie: pair!.replace("__Host-", "") })).status).toBe(401)
    }
    expect((await cookiesFor({ ...bearer(admin.token), host: "localhost:8080" }))[0]).toMatch(/^tollgate_admin=.*SameSite=Strict$/)
  })

  it("is not in the page, which nobody frames, keeps or learns the reader's address from", async () => {
    const page = await open(cookieOf(await open(bearer(admin.token))))
    expect(page.text).not.toContain(admin.keyId)
    expect(Object.fromEntries(["cache-control", "x-frame-options", "referrer-policy", "x-content-type-options"].map((name) => [name, page.headers.get(name)])))
      .toEqual({ "cache-control": "no-store", "x-frame-options": "DENY", "referrer-policy": "no-referrer", "x-content-type-options": "nosniff" })
    const policy = page.headers.get("content-security-policy")!
    expect(policy).toMatch(/^default-src 'none'; style-src 'sha256-[\w+/=]+'; script-src 'self';.* frame-ancestors 'none'$/)
  })
})

describe("anything else", () => {
  it("is answered with the form, and why", async () => {
    const buyer = await owner(world)
    const provider = await owner(world, { role: "provider" })
    const person = await world.user()
    const autx = await person.key()
    const [id] = admin.token.split(":")
    const cases: ReadonlyArray<readonly [headers: Readonly<Record<string, string>>, status: number, detail: RegExp]> = [
      [{}, 401, /^Missing API key/],
      [{ cookie: "tollgate_admin=" }, 401, /^Invalid API key$/],
      [{ cookie: `tollgate_admin=${person.accessToken}` }, 401, /^Invalid API key$/],
      [bearer(`${id}:sec_${"x".repeat(43)}`), 401, /^Invalid API key$/],
      [bearer("<script>alert(1)</script>"), 401, /^Invalid API key$/],
      [bearer(autx.key), 401, /another product/],
      [bearer(person.accessToken), 401, /another product|Invalid/],
      [bearer(buyer.token), 403, /^Insufficient permissions/],
      [bearer(provider.token), 403, /^Insufficient permissions/]
    ]
    for (const [headers, status, detail] of cases) {
      const reply = await open(headers)
      expect([reply.status, reply.headers.get("content-type"), reply.headers.get("set-cookie")], JSON.stringify(headers)).toEqual([status, "text/html; charset=utf-8", null])
      expect(said(reply)).toMatch(detail)
      expect(reply.text).toContain(`<input id="key" type="password"`)
      expect(reply.text).not.toContain("<h1>Dashboard</h1>\n<dl")
    }
  })

  it("is throttled after 5 keys that were no good, and a session of the same address is not", async () => {
    const headers = { "x-forwarded-for": address() }
    const session = cookieOf(await open({ ...headers, authorization: `Bearer ${admin.token}` }))
    for (let guess = 0; guess < 5; guess++) expect((await open({ ...headers, authorization: `Bearer acf_${guess}:sec_guess` })).status).toBe(401)
    const refused = await open({ ...headers, authorization: `Bearer ${admin.token}` })
    expect([refused.status, Number(refused.headers.get("retry-after")) > 0]).toEqual([429, true])
    expect(said(refused)).toBe("Rate limit exceeded. Try again later.")
    expect((await open({ ...headers, ...session })).status).toBe(200)
  })
})

describe("a session", () => {
  it("ends with its key", async () => {
    const other = await owner(world, { role: "admin" })
    const session = cookieOf(await open(bearer(other.token)))
    expect((await open(session)).status).toBe(200)
    expect((await other.call("DELETE", `/api/v1/provider/keys/${other.keyId}`)).status).toBe(200)
    const refused = await open(session)
    expect([refused.status, said(refused)]).toEqual([401, "Invalid API key"])
  })

  it("ends when the operator suspends its owner", async () => {
    const other = await owner(world, { role: "admin" })
    const session = cookieOf(await open(bearer(other.token)))
    await world.alter(other, (sql) => sql`update accounts set status = 'suspended' where id = ${other.accountId}`)
    expect((await open(session)).status).toBe(403)
  })

  it("reads the dashboard and nothing else", async () => {
    const reply = await open(bearer(admin.token))
    const token = setCookie(reply).split(";")[0]!.split("=")[1]!
    for (const path of ["/acf/api/v1/admin/stats", "/acf/api/v1/usage/me", "/v1/credits/balance"]) {
      expect([path, (await world.call("GET", path, { token })).status]).toEqual([path, 401])
      expect([path, (await world.call("GET", path, { headers: cookieOf(reply) })).status]).toEqual([path, 401])
    }
    const damaged = token.slice(0, -6) + (token.endsWith("AAAAAA") ? "BBBBBB" : "AAAAAA")
    expect((await open({ cookie: `tollgate_admin=${damaged}` })).status).toBe(401)
  })
})
