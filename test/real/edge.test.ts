/** The edge over real sockets, with a fixture dialect and a kernel made of plain objects: what a call gets for an answer. */
import { describe, expect, it } from "vitest"
import { key, signal, useEdge } from "../support/EdgeClient.ts"

const client = useEdge()
const { call, callHost, connect } = client

describe("an endpoint row", () => {
  it("answers its view with the request id, and drops a header that would end the head", async () => {
    const { status, headers, json } = await call("GET", "/v9/things?limit=5&limit=7&unknown=1")
    expect(status).toBe(200)
    expect(json).toEqual([{ id: "1", name: "one" }])
    expect(headers.get("x-request-id")).toMatch(/^[\w-]{13,}$/)
    expect(headers.get("link")).toBe("</next>; rel=\"next\"")
    expect(headers.get("cache-control")).toBe("no-store")
    expect(headers.has("evil")).toBe(false)
    expect(client.edge.fixture.calls[0]!.input).toMatchObject({ query: { limit: 7 } })
    expect(client.edge.fixture.calls[0]!.remoteAddress).toBe("127.0.0.1")
  })

  it("is the same with and without the trailing slash, under each mount, and at its host", async () => {
    for (const path of ["/v9/things", "/v9/things/", "/fixture/v9/things"]) expect((await call("GET", path)).status).toBe(200)
    for (const host of ["fixture.localhost:80", "FIXTURE.example", "api.example:8080"]) {
      expect((await callHost(host, "/things")).status).toBe(200)
      expect((await callHost(host, "/v9/things")).status).toBe(200)
      expect((await callHost(host, "/health")).status).toBe(200)
    }
    expect((await callHost("other.example", "/things")).status).toBe(404)
  })

  it("decodes path parameters and refuses those that can't be decoded", async () => {
    expect((await call("GET", "/v9/things/a%20b", { headers: key })).json).toEqual({ id: "a b", name: "it" })
    expect((await call("GET", "/v9/things/%ff", { headers: key })).status).toBe(400)
    expect((await call("GET", "/v9/files/a/b%2Fc")).json).toEqual({ path: "a/b%2Fc" })
  })

  it("explains what doesn't fit, without repeating a password", async () => {
    const { status, json, text } = await call("POST", "/v9/things", { headers: key, body: JSON.stringify({ name: "UPPER", password: "hunter2" }) })
    expect(status).toBe(422)
    expect(json.issues.map((issue: { loc: unknown }) => issue.loc)).toEqual([["body", "name"], ["body", "password"]])
    expect(text).not.toContain("hunter2")
    expect((await call("GET", "/v9/things?limit=many")).json.issues[0].loc).toEqual(["query", "limit"])
    expect((await call("POST", "/v9/things", { headers: key })).status).toBe(422)
    expect((await call("GET", "/v9/things?q=%00")).status).toBe(422)
  })

  it("refuses what isn't JSON, and what Postgres can't store", async () => {
    expect((await call("POST", "/v9/things", { headers: key, body: "{" })).status).toBe(400)
    expect((await call("POST", "/v9/things", { headers: key, body: "{\"name\":\"a\\u0000\"}" })).status).toBe(422)
    expect(client.edge.fixture.calls).toEqual([])
  })

  it("hands money over as text", async () => {
    const { json } = await call("POST", "/v9/amounts", { body: "{\"amount\": 0.30000000000000004, \"parts\": [1, \"2\"], \"ignored\": {}}" })
    expect(json).toEqual({ amount: "0.30000000000000004", parts: ["1", "2"] })
  })

  it("takes a body in chunks and an empty one", async () => {
    const connection = await connect()
    connection.send("POST /v9/things HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer resident\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"name\":\r\n")
    connection.send("6\r\n\"abc\"}\r\n0\r\n\r\n")
    await connection.until(({ text }) => text.includes("\"abc\""))
    expect(connection.text).toMatch(/^HTTP\/1.1 201 Created\r\n/)
    expect((await call("DELETE", "/v9/things/1", { headers: key })).status).toBe(204)
  })

  it("answers 204 without a body or a length", async () => {
    const connection = await connect()
    connection.send("DELETE /v9/things/1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer resident\r\n\r\n")
    await connection.until(({ text }) => text.includes("\r\n\r\n"))
    expect(connection.text).toMatch(/^HTTP\/1.1 204 No Content\r\n/)
    expect(connection.text.toLowerCase()).not.toContain("content-length")
  })

  it("answers HEAD like GET without the body, and keeps the connection", async () => {
    const connection = await connect()
    connection.send("HEAD /v9/things HTTP/1.1\r\nHost: a\r\n\r\n")
    await connection.until(({ text }) => text.endsWith("\r\n\r\n"))
    expect(connection.text).toMatch(/content-length: 25\r\n/i)
    connection.send("GET /v9/things HTTP/1.1\r\nHost: a\r\n\r\n")
    await connection.until(({ text }) => text.includes("\"one\""))
    expect(connection.text.match(/HTTP\/1.1 200 OK/g)).toHaveLength(2)
  })

  it("turns a defect into the dialect's 500 and keeps its internals to itself", async () => {
    for (const path of ["/v9/defect", "/v9/broken"]) {
      const { status, json, headers, text } = await call("GET", path)
      expect(status).toBe(500)
      expect(json).toEqual({ error: "Internal", request_id: headers.get("x-request-id") })
      expect(text).not.toContain("secret")
    }
  })
})

describe("admission", () => {
  it("puts the rate headers on successes and refusals alike, once the credential is good", async () => {
    const good = await call("GET", "/v9/things/1", { headers: key })
    expect(good.headers.get("x-ratelimit-remaining")).toBe("59")
    const missing = await call("GET", "/v9/things/none", { headers: key })
    expect(missing.status).toBe(404)
    expect(missing.headers.get("x-ratelimit-limit")).toBe("60")
    const limited = await call("GET", "/v9/things/1", { headers: { authorization: "Bearer limited" } })
    expect(limited.status).toBe(429)
    expect(limited.headers.get("retry-after")).toBe("2")
    expect(limited.headers.get("x-ratelimit-remaining")).toBe("0")
    const nobody = await call("GET", "/v9/things/1")
    expect(nobody.status).toBe(401)
    expect(nobody.headers.has("x-ratelimit-limit")).toBe(false)
  })

  it("loses no byte of a body that comes while the account is loaded", async () => {
    const gate = signal()
    client.edge.admitted = gate.promise
    const connection = await connect()
    const name = "a".repeat(300)
    connection.send(`POST /v9/things HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer elsewhere\r\nContent-Length: ${name.length + 11}\r\n\r\n{"name":`)
    connection.send(`"${name}"}`)
    // Another call's answer proves that the bytes above have been read.
    await call("GET", "/v9/things")
    expect(connection.text).toBe("")
    gate.fire()
    await connection.until(({ text }) => text.includes(name))
    expect(connection.text).toMatch(/^HTTP\/1.1 201/)
  })

  it("runs nothing for a caller who left meanwhile", async () => {
    const gate = signal()
    client.edge.admitted = gate.promise
    const connection = await connect()
    connection.send("GET /v9/things/1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer elsewhere\r\n\r\n")
    await call("GET", "/v9/wait")
    connection.destroy()
    await expect.poll(async () => (await call("GET", "/metrics")).text).toContain("tollgate_calls_under_way 2")
    gate.fire()
    await expect.poll(async () => (await call("GET", "/metrics")).text).toContain("tollgate_calls_under_way 1")
    expect(client.edge.fixture.calls).toEqual([])
  })
})

describe("paths that lead nowhere", () => {
  it("are 404 in the dialect's words below its mounts and plain elsewhere", async () => {
    expect((await call("GET", "/v9/nothing")).json).toEqual({ error: "NotFound" })
    expect((await call("GET", "/v99")).json).toEqual({ detail: "Not found" })
    expect((await callHost("fixture.localhost", "/nothing")).text).toContain("{\"error\":\"NotFound\"}")
  })

  it("are 405 with the methods that would do", async () => {
    const refused = await call("PATCH", "/v9/things/1")
    expect(refused.status).toBe(405)
    expect(refused.headers.get("allow")).toBe("DELETE, GET, HEAD")
    expect((await call("POST", "/health")).json).toEqual({ detail: "Method not allowed" })
    expect((await call("HEAD", "/v9/events")).status).toBe(405)
  })
})

describe("CORS", () => {
  const preflight = (origin: string) => call("OPTIONS", "/v9/things", { headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": "x-custom" } })

  it("lets an allowed origin ask before it calls", async () => {
    const { status, headers } = await preflight("https://app.example")
    expect(status).toBe(204)
    expect(headers.get("access-control-allow-origin")).toBe("https://app.example")
    expect(headers.get("access-control-allow-methods")).toBe("GET, HEAD, POST")
    expect(headers.get("access-control-allow-headers")).toBe("x-custom")
    expect(headers.has("x-request-id")).toBe(true)
  })

  it("tells a stranger's page nothing", async () => {
    expect((await preflight("https://evil.example")).headers.has("access-control-allow-origin")).toBe(false)
    expect((await call("GET", "/v9/things", { headers: { origin: "https://evil.example" } })).headers.has("access-control-allow-origin")).toBe(false)
  })

  it("exposes what a page needs, on errors too", async () => {
    const { headers } = await call("GET", "/v9/things/1", { headers: { origin: "http://localhost:3000" } })
    expect(headers.get("access-control-allow-origin")).toBe("http://localhost:3000")
    for (const name of ["x-ratelimit-remaining", "x-request-id", "retry-after", "x-autx-cost-usd", "link", "idempotent-replayed"]) {
      expect(headers.get("access-control-expose-headers")).toContain(name)
    }
  })
})

describe("an idempotency key", () => {
  const create = (idempotencyKey: string, name = "abc") =>
    call("POST", "/v9/things", { headers: { ...key, "idempotency-key": idempotencyKey }, body: JSON.stringify({ name }) })

  it("repeats a stored answer without running the handler", async () => {
    // The kernel would store this with the commit.
    let fingerprinted = ""
    client.edge.stored.get = (entry) => {
      fingerprinted = entry
      return { status: 201, headers: [["x-first", "1"]], body: "{\"id\":\"first\"}" }
    }
    const replayed = await create("k1")
    expect(replayed.status).toBe(201)
    expect(replayed.json).toEqual({ id: "first" })
    expect(replayed.headers.get("idempotent-replayed")).toBe("true")
    expect(replayed.headers.get("x-first")).toBe("1")
    expect(client.edge.fixture.calls).toEqual([])
    const first = fingerprinted
    await create("k1", "other")
    expect(fingerprinted).not.toBe(first)
    await create("k1")
    expect(fingerprinted).toBe(first)
  })

  it("is let go after a success and after an error, but not by the call that it refuses", async () => {
    expect((await create("k2")).status).toBe(201)
    expect((await create("k2", "poor")).status).toBe(402)
    expect(client.edge.inFlight.size).toBe(0)
    client.edge.inFlight.add("busy")
    expect((await create("busy")).status).toBe(409)
    expect(client.edge.inFlight.has("busy")).toBe(true)
  })

  it("must be visible ASCII of at most 255 characters", async () => {
    for (const bad of ["", "a b", "a".repeat(256)]) expect((await create(bad)).json.issues[0].loc).toEqual(["header", "idempotency-key"])
    expect((await create("~".repeat(255))).status).toBe(201)
  })
})

describe("the gateway's own pages", () => {
  it("say what runs here, load nothing from elsewhere, and run no inline script", async () => {
    const { text, headers } = await call("GET", "/")
    expect(headers.get("content-security-policy")).toContain("default-src 'none'")
    expect(text).toContain("A dialect for &lt;tests&gt;")
    expect(text).toContain("/fixture/openapi.json")
    expect(text).not.toMatch(/<script(?! src="\/)|(src|href)="https?:/)
    const docs = await call("GET", "/docs")
    expect(docs.headers.get("content-security-policy")).toContain("script-src 'self'")
    for (const [, path] of docs.text.matchAll(/(?:src|href)="(\/docs\/[^"]+)"/g)) {
      const asset = await call("GET", path!)
      expect([path, asset.status, asset.text.length > 100]).toEqual([path, 200, true])
    }
    expect(docs.text).not.toMatch(/<script>|https?:\/\//)
  })

  it("tell health, readiness with reasons, metrics and each dialect's OpenAPI", async () => {
    expect((await call("GET", "/health")).json).toEqual({ status: "ok" })
    expect((await call("GET", "/ready")).status).toBe(200)
    client.edge.readiness = { ready: false, reasons: ["database"] }
    const unready = await call("GET", "/ready")
    expect([unready.status, unready.json]).toEqual([503, { ready: false, reasons: ["database"] }])
    await call("GET", "/v9/things")
    expect((await call("GET", "/metrics")).text).toMatch(/tollgate_requests_total\{row="fixture.things.list",status="2xx"\} [1-9]/)
    expect((await call("GET", "/fixture/openapi.json")).json.openapi).toBe("3.1.0")
    const keys = await call("GET", "/.well-known/fixture.json")
    expect([keys.json, keys.headers.get("cache-control")]).toEqual([{ keys: [] }, "max-age=60"])
  })
})
