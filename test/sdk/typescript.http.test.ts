/** Requests of the TypeScript SDK against a scripted gateway: what is retried, when, and what an error says. */
import type { IncomingMessage, ServerResponse } from "node:http"
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { AutxClient, AutxError } from "../../sdk/typescript/src/AutxClient.ts"
import { ScriptedGateway } from "./ScriptedGateway.ts"

let gateway: ScriptedGateway
let client: AutxClient

beforeEach(async () => {
  vi.spyOn(Math, "random").mockReturnValue(0)
  gateway = await new ScriptedGateway().listen()
  client = new AutxClient({ apiKey: "autx_live_test", baseUrl: `${gateway.url}/v1` })
})

afterEach(() => {
  vi.restoreAllMocks()
  vi.useRealTimers()
  gateway.close()
})

type Reply = (response: ServerResponse, request: IncomingMessage) => void

const says = (status: number, body: unknown, headers: Record<string, string> = {}): Reply => (response) =>
  void response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body))
const cuts: Reply = (_, request) => void request.socket.destroy()

/** One after the other; the last one goes on. Answers every request's headers and body. */
const script = (...replies: ReadonlyArray<Reply>): ReadonlyArray<{ readonly headers: IncomingMessage["headers"]; readonly body: string }> => {
  const requests: Array<{ readonly headers: IncomingMessage["headers"]; readonly body: string }> = []
  gateway.answer = (request, response, body) => {
    requests.push({ headers: request.headers, body })
    replies[Math.min(requests.length, replies.length) - 1]!(response, request)
  }
  return requests
}

const order = { id: "o1", agent_id: "a1", status: "pending", amount_paid: 0.5, platform_fee: 0.05, created_at: "2026-03-13T09:26:53.589Z" }

describe("a request", () => {
  it("carries the key, and only JSON where it has a body", async () => {
    const requests = script(says(200, { balance_usd: "9.95", reserved_usd: "0.05" }), says(201, order))
    await client.getCreditBalance()
    expect(requests[0]!.headers).toMatchObject({ authorization: "Bearer autx_live_test" })
    expect(requests[0]!.headers).not.toHaveProperty("content-type")
    await client.order("a1", "Analyze this data")
    expect(requests[1]!.headers["content-type"]).toBe("application/json")
    expect(JSON.parse(requests[1]!.body)).toEqual({ agent_id: "a1", prompt: "Analyze this data", payment_method: "credits" })
  })

  it("can't lead elsewhere by an id", async () => {
    script(says(200, {}))
    await client.getOrder("../credits/balance?x=1#")
    expect(gateway.asked).toEqual(["GET /v1/orders/..%2Fcredits%2Fbalance%3Fx%3D1%23"])
  })

  it("leaves out of the query what is not given", async () => {
    script(says(200, []))
    await client.listAgents()
    await client.listAgents({ category: "Data & more", sort: "new", limit: 5 })
    expect(gateway.asked).toEqual(["GET /v1/agents/?sort=revenue", "GET /v1/agents/?sort=new&category=Data+%26+more&limit=5"])
  })

  it("of a list tells where the next page begins, beside the plain rows", async () => {
    script(says(200, [order], { link: `<http://elsewhere.test/v1/orders/?limit=1&cursor=abc>; rel="next"` }), says(200, []))
    const first = await client.listOrders({ limit: 1 })
    expect(first).toEqual([order])
    expect(first.nextCursor).toBe("abc")
    expect((await client.listOrders({ limit: 1, cursor: "abc" })).nextCursor).toBeUndefined()
    expect(gateway.asked[1]).toBe("GET /v1/orders/?limit=1&cursor=abc")
  })

  it("is not made without a key", () => {
    expect(() => new AutxClient({ apiKey: "" })).toThrow("apiKey is required")
  })

  it("never shows the key when its client is printed", async () => {
    const { inspect } = await import("node:util")
    expect(inspect(client, { depth: 10, showHidden: true })).not.toContain("autx_live_test")
    expect(inspect(client.session("SUMM"), { depth: 10, showHidden: true })).not.toContain("autx_live_test")
  })
})

describe("a refusal", () => {
  it.each([
    ["Proxy error: 429", () => client.proxy("SUMM", { prompt: "test" }), 429],
    ["Order error: 402", () => client.order("a1", "x"), 402],
    ["Agent error: 404", () => client.getAgentByTicker("NONE"), 404],
    ["Credit error: 401", () => client.credits.balance(), 401],
    ["Session error: 400", () => client.getSessionReceipt("ses_1"), 400]
  ])("is %s", async (message, call, status) => {
    script(says(status, { detail: "Insufficient credits", required_usd: "0.50" }))
    const error = await call().catch((error: unknown) => error) as AutxError
    expect(error).toBeInstanceOf(AutxError)
    expect(error).toMatchObject({ name: "AutxError", message, status, code: "http", detail: "Insufficient credits", body: { required_usd: "0.50" } })
    expect(gateway.asked).toHaveLength(1)
  })

  it("that is not JSON has its text as detail", async () => {
    script((response) => void response.writeHead(500).end("<html>oops"))
    await expect(client.credits.balance()).rejects.toMatchObject({ status: 500, detail: "<html>oops", body: "<html>oops" })
  })

  it("is also a good status whose body is not JSON", async () => {
    script((response) => void response.writeHead(200).end("<html>a login page"))
    await expect(client.credits.balance()).rejects.toMatchObject({ code: "invalid_answer", status: 200 })
  })

  it("is a redirect, which is not followed", async () => {
    script((response) => void response.writeHead(302, { location: "/v1/elsewhere" }).end())
    await expect(client.proxy("SUMM")).rejects.toMatchObject({ message: "Proxy error: 302" })
    expect(gateway.asked).toEqual(["POST /v1/proxy/SUMM"])
  })
})

describe("a retry", () => {
  const fine = says(200, { balance_usd: "1.00" })

  it.each([
    [429, says(429, {})], [502, says(502, {})], [503, says(503, {})], [504, says(504, {})], ["a cut connection", cuts],
    ["a cut answer", ((response, request) => void response.writeHead(200, { "content-length": "50" }).write("half", () => request.socket.destroy())) satisfies Reply]
  ])("follows %s, at most three times", async (_, fails) => {
    script(fails, fails, fails, fine)
    expect(await client.credits.balance()).toEqual({ balance_usd: "1.00" })
    expect(gateway.asked).toHaveLength(4)
    script(fails)
    await expect(client.credits.balance()).rejects.toBeInstanceOf(AutxError)
    expect(gateway.asked).toHaveLength(8)
  })

  it("is made as often as maxRetries says", async () => {
    script(says(503, {}))
    await expect(new AutxClient({ apiKey: "k", baseUrl: gateway.url, maxRetries: 0 }).credits.balance()).rejects.toThrow("Credit error: 503")
    expect(gateway.asked).toHaveLength(1)
  })

  it("of an order has the same key, so that it is one order", async () => {
    const requests = script(cuts, says(503, {}), says(201, order))
    expect(await client.order("a1", "x")).toEqual(order)
    const keys = requests.map(({ headers }) => headers["idempotency-key"])
    expect(keys[0]).toMatch(/^.{16,}$/)
    expect(new Set(keys).size).toBe(1)
    await client.order("a1", "x", { idempotencyKey: "mine" })
    expect(requests.at(-1)!.headers["idempotency-key"]).toBe("mine")
  })

  it("of an order waits for its first try, when that still runs", async () => {
    script(cuts, says(409, {}, { "retry-after": "0" }), says(201, order))
    expect(await client.order("a1", "x")).toEqual(order)
    script(says(409, {}, { "retry-after": "0" }))
    await expect(client.order("a1", "x", { idempotencyKey: "of another call" })).rejects.toThrow("Order error: 409")
    expect(gateway.asked).toHaveLength(4)
  })

  it("of a call is made only with a key", async () => {
    script(says(503, {}))
    await expect(client.proxy("SUMM", { prompt: "x" })).rejects.toThrow("Proxy error: 503")
    expect(gateway.asked).toHaveLength(1)
    await expect(client.proxy("SUMM", { prompt: "x", idempotencyKey: "mine" })).rejects.toThrow("Proxy error: 503")
    expect(gateway.asked).toHaveLength(5)
  })

  it("of an order with files is made when the form is small enough to be repeated", async () => {
    const requests = script(says(503, {}), says(201, order))
    await client.order("a1", "x", { files: [["a.txt", "small"]] })
    expect(requests).toHaveLength(2)
    expect(requests[0]!.body).toMatch(/name="agent_id"[^]*name="prompt"[^]*name="payment_method"[^]*name="files"; filename="a\.txt"[^]*small/)
    script(says(503, {}))
    await expect(client.order("a1", "x", { files: [["a.bin", new Uint8Array(1024 * 1024)]] })).rejects.toThrow("Order error: 503")
    expect(gateway.asked).toHaveLength(3)
  })

  it("does not follow a refusal that another try would meet again", async () => {
    for (const status of [400, 401, 402, 403, 404, 409, 422, 500]) {
      const before = gateway.asked.length
      script(says(status, {}, { "retry-after": "0" }))
      await expect(client.credits.balance()).rejects.toMatchObject({ status })
      expect(gateway.asked.length - before, String(status)).toBe(1)
    }
  })

  it.each([["seconds", () => "3"], ["a date", () => new Date(Date.now() + 3_000).toUTCString()]])("waits as long as Retry-After says in %s", async (_, header) => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"], now: 1_700_000_000_000 })
    script((response, request) => says(429, {}, { "retry-after": header() })(response, request), fine)
    const waits = vi.spyOn(globalThis, "setTimeout")
    const answer = client.credits.balance()
    await vi.waitUntil(() => waits.mock.calls.some(([, ms]) => ms === 3_000))
    expect(gateway.asked).toHaveLength(1)
    vi.advanceTimersByTime(3_000)
    expect(await answer).toEqual({ balance_usd: "1.00" })
  })

  it("is not made when Retry-After is longer than a request may take", async () => {
    script(says(503, {}, { "retry-after": "300" }), fine)
    await expect(client.credits.balance()).rejects.toMatchObject({ status: 503, retryAfter: 300 })
    expect(gateway.asked).toHaveLength(1)
  })

  it("waits ever longer, with full jitter", async () => {
    vi.mocked(Math.random).mockReturnValue(0.01)
    const waits = vi.spyOn(globalThis, "setTimeout")
    script(says(503, {}))
    await expect(client.credits.balance()).rejects.toThrow()
    expect(waits.mock.calls.map(([, ms]) => ms).filter((ms) => ms !== undefined && ms > 0 && ms < 100)).toEqual([5, 10, 20])
  })
})

describe("a call without an answer", () => {
  it("fails as timeout, and is not tried again", async () => {
    script(() => {})
    const hasty = new AutxClient({ apiKey: "k", baseUrl: gateway.url, timeout: 50 })
    await expect(hasty.proxy("SUMM")).rejects.toMatchObject({ message: "Proxy error: timeout", code: "timeout", status: undefined })
    await expect(hasty.credits.balance()).rejects.toMatchObject({ code: "timeout" })
    expect(gateway.asked).toHaveLength(2)
  })

  it("fails as network when nobody listens, and says where", async () => {
    const { url } = gateway
    gateway.close()
    await expect(client.credits.balance()).rejects.toMatchObject({ message: "Credit error: connection failed", code: "network", detail: `${url}/v1 can't be reached: ECONNREFUSED` })
  })
})

describe("a call's body", () => {
  const sent = async (options: Parameters<AutxClient["proxy"]>[1]) => {
    const requests = script(says(200, {}))
    await client.proxy("SUMM", options)
    return [requests[0]!.headers["content-type"], requests[0]!.body]
  }

  it("is the prompt, an object, text or bytes, or nothing", async () => {
    expect(await sent({ prompt: "hi" })).toEqual(["application/json", `{"prompt":"hi"}`])
    expect(await sent({ body: { rows: [1, 2] }, prompt: "ignored" })).toEqual(["application/json", `{"rows":[1,2]}`])
    expect(await sent({ body: `{"raw":true}` })).toEqual(["application/json", `{"raw":true}`])
    expect(await sent({ body: "a,b", contentType: "text/csv" })).toEqual(["text/csv", "a,b"])
    expect(await sent({ body: Uint8Array.of(0, 255), contentType: "image/png" })).toEqual(["image/png", "\x00\xff"])
    expect(await sent({})).toEqual([undefined, ""])
  })
})
