/**
 * The payment proxy on the wire: what reaches the provider and what comes back,
 * byte for byte, and what is refused, in which order and in whose words.
 */
import { once } from "node:events"
import { type IncomingHttpHeaders, type RequestListener, createServer, request } from "node:http"
import type { AddressInfo } from "node:net"
import { brotliCompressSync, gzipSync } from "node:zlib"
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest"
import { type Owner, type ScriptedService, type ServiceOptions, adminSecret, credit, owner, service } from "../../support/acf.ts"
import { type World, makeWorld } from "../../support/World.ts"

interface Seen {
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}
interface Taken {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  readonly json: any
}
type Script = (response: Parameters<RequestListener>[1]) => void

/** A provider that sees bytes as they came, and answers as it is told. */
const startProvider = async () => {
  const seen: Array<Seen> = []
  let script: Script = (response) => response.end("done")
  const server = createServer((asked, response) => {
    const chunks: Array<Buffer> = []
    asked.on("data", (chunk: Buffer) => chunks.push(chunk)).on("end", () => {
      seen.push({ method: asked.method!, url: asked.url!, headers: asked.headers, body: Buffer.concat(chunks) })
      script(response)
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    last: () => seen.at(-1)!,
    count: () => seen.length,
    script: (next: Script) => { script = next },
    stop: () => {
      server.closeAllConnections()
      server.close()
    }
  }
}

let world: World
let upstream: Awaited<ReturnType<typeof startProvider>>
let provider: Owner
let buyer: Owner
let echo: ScriptedService

beforeAll(async () => {
  [world, upstream] = await Promise.all([makeWorld({ settings: { acfSettlement: "prepaid", acfAdminSecret: adminSecret, allowedOrigins: ["https://shop.test"] } }), startProvider()])
  ;[provider, buyer] = await Promise.all([owner(world, { role: "provider" }), owner(world)])
  echo = await listed({ price: "0" })
})
afterAll(async () => {
  upstream.stop()
  await world.stop()
})

const listed = (options: ServiceOptions): Promise<ScriptedService> => service(world, provider, { endpoint: `${upstream.origin}/v1`, ...options })

/** Sends the path as it is: a URL parser would tidy it. */
const ask = (method: string, path: string, headers: Readonly<Record<string, string | ReadonlyArray<string>>> = {}, body?: string | Buffer): Promise<Taken> =>
  new Promise((done, fail) => {
    const length = body === undefined ? {} : { "content-length": String(Buffer.byteLength(body)) }
    const sent = { authorization: `Bearer ${buyer.token}`, ...length, ...headers } as Record<string, string | Array<string>>
    request({ host: "127.0.0.1", port: world.port, method, path: `/acf/api/v1/proxy/${path}`, headers: sent }, async (answer) => {
      const chunks: Array<Buffer> = []
      for await (const chunk of answer as AsyncIterable<Buffer>) chunks.push(chunk)
      const all = Buffer.concat(chunks)
      done({ status: answer.statusCode!, headers: answer.headers, body: all, json: /^\{/.test(all.toString()) ? JSON.parse(all.toString()) : undefined })
    }).on("error", fail).end(body)
  })

const billOf = ({ headers }: Taken) => Object.fromEntries(["x-acf-usage-id", "x-acf-amount", "x-acf-free-tier", "x-acf-latency-ms"].map((name) => [name, headers[name]]))
const someBill = { "x-acf-usage-id": expect.stringMatching(/^[0-9a-f-]{36}$/), "x-acf-free-tier": "false", "x-acf-latency-ms": expect.stringMatching(/^\d+$/) }

describe("what reaches the provider", () => {
  it.each(["GET", "POST", "PUT", "PATCH", "DELETE"])("is a %s with its body, and the answer comes back with what it cost", async (method) => {
    upstream.script((response) => response.writeHead(207, "", { "content-type": "text/plain", "x-own": "yes" }).end("the answer"))
    const body = method === "GET" ? undefined : "{\"text\": \"é\"}"
    const reply = await ask(method, `${echo.id}/analyze`, body === undefined ? {} : { "content-type": "application/json" }, body)
    expect(upstream.last()).toMatchObject({ method, url: "/v1/analyze", body: Buffer.from(body ?? "") })
    expect(reply).toMatchObject({ status: 207, headers: { "content-type": "text/plain", "x-own": "yes" }, body: Buffer.from("the answer") })
    expect(billOf(reply)).toEqual({ ...someBill, "x-acf-amount": "0" })
  })

  it("is the endpoint itself when no path follows the id, with and without a slash", async () => {
    upstream.script((response) => response.end())
    const [rooted, slashed, queried] = await Promise.all([
      listed({ price: "0", endpoint: upstream.origin }), listed({ price: "0", endpoint: `${upstream.origin}/deep/v2/` }), listed({ price: "0", endpoint: `${upstream.origin}/run?key=a%20b` })
    ])
    const urls: Array<string> = []
    for (const path of [echo.id, `${echo.id}/`, `${rooted.id}/`, slashed.id, `${slashed.id}/`, `${slashed.id}/x`, `${queried.id}?b=1`, `${queried.id}/?b=1`, `${queried.id}/x/?b=1`]) {
      expect((await ask("GET", path)).status).toBe(200)
      urls.push(upstream.last().url)
    }
    expect(urls).toEqual(["/v1", "/v1", "/", "/deep/v2/", "/deep/v2/", "/deep/v2/x", "/run?key=a%20b&b=1", "/run?key=a%20b&b=1", "/run/x/?key=a%20b&b=1"])
  })

  it("has the path and the query byte for byte, as the caller wrote them", async () => {
    upstream.script((response) => response.end())
    const tails = [
      "a/b", "a/", "a//b", "/a", "a%20b", "a%2Fb%2f", "%E2%82%AC", "%e2%82%ac", "a;v=1,2", "a+b", "...", "..a/b..", "%25", "a:b@c", "~'()*!$&=",
      "x?a=1&a=2&a=", "x?", "x?b=%20&c&=&&d=%C3%A9", "x?a[]=1&q=a?b/../c", "x?next=https://else.test/%2e%2e", "?only=query"
    ]
    for (const tail of tails) {
      expect((await ask("GET", `${echo.id}/${tail}`)).status).toBe(200)
      // An empty path goes to the endpoint itself; a lone `?` is no query.
      expect(upstream.last().url).toBe(tail.startsWith("?") ? `/v1${tail}` : `/v1/${tail === "x?" ? "x" : tail}`)
    }
  })

  it("never leaves the endpoint's path: dot segments are refused in any spelling", async () => {
    const before = upstream.count()
    for (const tail of ["..", "../x", "a/../x", "a/..", ".", "./a", "a/./b", "%2e%2e/x", "%2E%2e/x", ".%2e/x", "a/%2e./b", "%2e", "a/..?b", "a/..%2fb", "a%2f..%2fb", "a/..%5cb", "..\\b"]) {
      const reply = await ask("GET", `${echo.id}/${tail}`)
      expect([tail, reply.status, typeof reply.json?.detail]).toEqual([tail, expect.toSatisfy((status) => status >= 400 && status < 500), "string"])
    }
    expect(upstream.count()).toBe(before)
  })

  it("has the caller's headers but its credentials, its connection's, and what it says of the gateway or of its own address", async () => {
    upstream.script((response) => response.end())
    await ask("POST", echo.id, {
      authorization: `Bearer ${buyer.token}`, cookie: "session=1", "x-api-key": "secret", "proxy-authorization": "Basic eA==",
      connection: "keep-alive, x-hop", "x-hop": "1", te: "trailers", "keep-alive": "timeout=5", "proxy-connection": "keep-alive",
      "x-acf-usage-id": "mine", "X-ACF-Amount": "-1", "x-forwarded-for": "203.0.113.9", "x-forwarded-host": "evil.test", "x-forwarded-proto": "gopher", forwarded: "for=1.2.3.4", "x-real-ip": "1.2.3.4",
      accept: "text/plain", "accept-encoding": "br;q=1, gzip", "user-agent": "client/1", "x-custom": ["one", "two"], "content-type": "text/x"
    }, "body")
    const { headers } = upstream.last()
    expect(headers).toMatchObject({
      accept: "text/plain", "accept-encoding": "br;q=1, gzip", "user-agent": "client/1", "x-custom": "one, two", "content-type": "text/x",
      // The peer is a proxy that this world trusts, so the address is the one that it names.
      host: new URL(upstream.origin).host, "x-forwarded-for": "203.0.113.9", "x-forwarded-host": `127.0.0.1:${world.port}`
    })
    for (const name of Object.keys(headers)) {
      expect(name).not.toMatch(/^(authorization|cookie|x-api-key|proxy-.*|x-hop|te|keep-alive|x-acf-.*|x-forwarded-proto|forwarded|x-real-ip)$/)
    }
    expect(JSON.stringify(headers)).not.toMatch(/evil|1\.2\.3\.4|secret/)
  })

  it("is an encoded body untouched, and so is what comes back", async () => {
    const text = "the same bytes, whoever could read them ".repeat(50)
    for (const [encoding, bytes] of [["gzip", gzipSync(text)], ["br", brotliCompressSync(text)]] as const) {
      upstream.script((response) => response.writeHead(200, { "content-encoding": encoding, "content-type": "text/plain", etag: "\"1\"" }).end(bytes))
      const reply = await ask("POST", echo.id, { "content-encoding": encoding, "content-type": "text/plain" }, bytes)
      expect(upstream.last()).toMatchObject({ headers: { "content-encoding": encoding }, body: bytes })
      expect(reply).toMatchObject({ status: 200, headers: { "content-encoding": encoding, etag: "\"1\"" }, body: bytes })
    }
  })
})

describe("what comes back", () => {
  it("has each cookie by itself, but none that is named like the gateway's own, and nothing that speaks for the gateway", async () => {
    upstream.script((response) => response.writeHead(200, {
      "set-cookie": ["a=1; Path=/", "tollgate_admin=stolen; Path=/", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "__Host-tollgate_admin=x", " ToLLgate_x=1", "__Secure-Tollgate=1"],
      "x-acf-amount": "-5", "x-acf-anything": "1", "content-security-policy": "default-src *", "access-control-allow-origin": "*", "strict-transport-security": "max-age=1",
      "x-request-id": "the provider's", connection: "close"
    }).end("x"))
    const { headers } = await ask("GET", echo.id)
    expect(headers["set-cookie"]).toEqual(["a=1; Path=/", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT"])
    expect(headers).toMatchObject({ "x-acf-amount": "0", "content-security-policy": "sandbox", "x-content-type-options": "nosniff", "strict-transport-security": "max-age=31536000" })
    for (const name of ["x-acf-anything", "access-control-allow-origin"]) expect(headers).not.toHaveProperty(name)
    expect(headers["x-request-id"]).not.toBe("the provider's")
  })

  it("is a redirect as it is, which is not followed", async () => {
    upstream.script((response) => response.writeHead(302, { location: `${upstream.origin}/elsewhere` }).end())
    const before = upstream.count()
    expect(await ask("GET", `${echo.id}/moved`)).toMatchObject({ status: 302, headers: { location: `${upstream.origin}/elsewhere` } })
    expect(upstream.count()).toBe(before + 1)
  })

  it("is 405 with the five methods for HEAD and OPTIONS, without asking the provider; a page of an allowed origin may call, and read the bill", async () => {
    const before = upstream.count()
    for (const method of ["HEAD", "OPTIONS"]) {
      const { status, headers } = await ask(method, `${echo.id}/x`)
      expect(status).toBe(405)
      expect(headers.allow!.split(", ").sort()).toEqual(["DELETE", "GET", "PATCH", "POST", "PUT"])
    }
    const preflight = await ask("OPTIONS", `${echo.id}/x`, { origin: "https://shop.test", "access-control-request-method": "PATCH", "access-control-request-headers": "authorization" })
    expect(preflight).toMatchObject({ status: 204, headers: { "access-control-allow-origin": "https://shop.test", "access-control-allow-headers": "authorization" } })
    expect(preflight.headers["access-control-allow-methods"]).toMatch(/PATCH/)
    expect(upstream.count()).toBe(before)
    upstream.script((response) => response.end("x"))
    const { headers } = await ask("GET", echo.id, { origin: "https://shop.test" })
    for (const name of ["x-acf-usage-id", "x-acf-amount", "x-acf-free-tier", "x-acf-latency-ms"]) expect(headers["access-control-expose-headers"]).toContain(name)
  })
})

describe("a call is refused", () => {
  const details = (replies: ReadonlyArray<Taken>) => replies.map(({ status, json }) => [status, json.detail])

  it("for its key, its window, its service, the service's state, its owner's credits, and then the provider's circuit: in this order", async () => {
    const [poor, rich] = await Promise.all([owner(world, { rateLimit: 6 }), owner(world)])
    await credit(world, rich, "1")
    const [paused, gone, dear, broken] = await Promise.all([listed({}), listed({}), listed({ price: "0.05", paymentMethod: "both" }), listed({ price: "0.05", endpoint: "http://127.0.0.1:1", paymentMethod: "paypal" })])
    await provider.call("PATCH", `/api/v1/services/${paused.id}`, { status: "paused" })
    await provider.call("DELETE", `/api/v1/services/${gone.id}`)
    const by = ({ token }: Pick<Owner, "token">) => (id: string) => ask("GET", id, { authorization: `Bearer ${token}` })
    const asPoor = by(poor)
    const nobody = "00000000-0000-4000-8000-000000000000"

    expect(details([await ask("GET", nobody, { authorization: "" }), await by({ token: `${poor.keyId}:sec_wrong` })(nobody)]).map(([status]) => status)).toEqual([401, 401])
    expect(details([await asPoor(nobody), await asPoor("not-an-id"), await asPoor(paused.id), await asPoor(gone.id)])).toEqual([
      [404, "Service not found"], [404, "Service not found"], [400, "Service is not active"], [400, "Service is not active"]
    ])
    const short = await asPoor(dear.id)
    expect(short).toMatchObject({ status: 402, json: { detail: expect.stringContaining("0.05") } })
    const challenge = JSON.parse(Buffer.from(String(short.headers["payment-required"]), "base64").toString()) as object
    expect(challenge).toMatchObject({ x402Version: 2, resource: { url: `/api/v1/proxy/${dear.id}` } })
    const unpayable = await asPoor(broken.id)
    expect([unpayable.status, unpayable.headers["payment-required"]]).toEqual([402, undefined])
    // The sixth call of a minute was the last.
    const limited = await asPoor(nobody)
    expect(limited).toMatchObject({ status: 429, json: { detail: "Rate limit exceeded. Try again later." } })
    expect(Number(limited.headers["retry-after"])).toBeGreaterThanOrEqual(1)

    const asRich = by(rich)
    for (let n = 0; n < 5; n++) expect(await asRich(broken.id)).toMatchObject({ status: 502, json: { detail: "Provider unreachable" } })
    const open = await asRich(broken.id)
    expect(open).toMatchObject({ status: 400, json: { detail: expect.any(String) } })
    expect(Number(open.headers["retry-after"])).toBeGreaterThanOrEqual(1)
    expect(open.headers).not.toHaveProperty("x-acf-usage-id")
    expect((await rich.call("GET", "/api/v1/usage/me")).json).toMatchObject({ total_calls: 5, total_spent_usd: "0" })
    expect((await rich.call("GET", `/api/v1/balance/${rich.name}`)).json).toMatchObject({ balance: 1 })
  })

  it("with 400 when its provider's name leads to an address that is not called; nothing is charged or counted", async () => {
    const inside = await service(world, provider, { price: "0", freeTierCalls: 1, endpoint: "http://10.1.2.3:8080" }).catch((error: Error) => error)
    expect(String(inside)).toContain("400")
    const moved = await listed({ price: "0.05", freeTierCalls: 1 })
    // As when its name had another address at registration.
    await world.sql`update agents set endpoint_url = 'http://10.1.2.3:8080/v1', version = version + 1 where id = ${moved.id}`
    await provider.call("PATCH", `/api/v1/services/${moved.id}`, { description: "as it was changed" })
    const reply = await ask("GET", moved.id)
    expect(reply).toMatchObject({ status: 400, json: { detail: expect.stringContaining("address") } })
    await provider.call("PATCH", `/api/v1/services/${moved.id}`, { endpoint: `${upstream.origin}/v1` })
    upstream.script((response) => response.end("free"))
    expect(billOf(await ask("GET", moved.id))).toMatchObject({ "x-acf-free-tier": "true", "x-acf-amount": "0" })
  })
})

describe("a provider that fails", () => {
  it("costs nothing: 502 when it is not there or hangs up, its own 5xx as it is, both with the whole bill", async () => {
    const rich = await owner(world)
    await credit(world, rich, "0.05")
    const [absent, fragile] = await Promise.all([listed({ endpoint: "http://127.0.0.1:1" }), listed({})])
    const call = (id: string) => ask("POST", id, { authorization: `Bearer ${rich.token}` }, "x")
    expect(await call(absent.id)).toMatchObject({ status: 502, json: { detail: "Provider unreachable" } })
    upstream.script((response) => void response.destroy())
    const dropped = await call(fragile.id)
    upstream.script((response) => response.writeHead(503, { "content-type": "text/plain", "retry-after": "7" }).end("its own words"))
    const failed = await call(fragile.id)
    expect(dropped).toMatchObject({ status: 502, json: { detail: expect.any(String) } })
    expect(failed).toMatchObject({ status: 503, headers: { "retry-after": "7" }, body: Buffer.from("its own words") })
    for (const reply of [dropped, failed]) expect(billOf(reply)).toEqual({ ...someBill, "x-acf-amount": "0" })
    // The one price that the owner has was given back each time.
    upstream.script((response) => response.writeHead(404).end("not this"))
    expect(billOf(await call(fragile.id))).toEqual({ ...someBill, "x-acf-amount": "0.05" })
    expect((await call(fragile.id)).status).toBe(402)
    expect((await rich.call("GET", "/api/v1/usage/me")).json).toMatchObject({ total_calls: 4, total_spent_usd: "0.05" })
  })

  it("is waited for 30 s, and then it is 504 with the whole bill", async () => {
    const clock = performance.now.bind(performance)
    let ahead = 0
    const now = vi.spyOn(performance, "now").mockImplementation(() => clock() + ahead)
    const arrived = new Promise<void>((resolve) => upstream.script(() => resolve()))
    const reply = ask("GET", (await listed({ price: "0" })).id)
    await arrived
    ahead = 31_000
    expect(await reply).toMatchObject({ status: 504, json: { detail: "Provider timeout" } })
    expect(billOf(await reply)).toEqual({ ...someBill, "x-acf-amount": "0" })
    now.mockRestore()
  })

  it("is not blamed for a caller's upload that is too large", async () => {
    upstream.script((response) => response.end("never"))
    const victim = await listed({ price: "0" })
    await new Promise<void>((done) => {
      const upload = request({ host: "127.0.0.1", port: world.port, method: "POST", path: `/acf/api/v1/proxy/${victim.id}`, headers: { authorization: `Bearer ${buyer.token}`, "transfer-encoding": "chunked" } }, (answer) => {
        expect(answer.statusCode).toBe(413)
        answer.resume()
      })
      upload.on("error", () => {}).on("close", done)
      const chunk = Buffer.alloc(1 << 20)
      const push = (): void => { while (!upload.destroyed && upload.write(chunk)) continue }
      upload.on("drain", push)
      push()
    })
    // Asks for figures, which writes what waits to be written.
    expect((await buyer.call("GET", "/api/v1/usage/me")).status).toBe(200)
    const [row] = await world.sql<Array<{ calls: bigint; errors: bigint }>>`select calls, errors from usage_daily_by_agent where agent_id = ${victim.id}`
    expect(row).toEqual({ calls: 1n, errors: 0n })
  })
})

it("leaves clean books", async () => {
  expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])
})
