import { createServer as createTlsServer } from "node:tls"
import { once } from "node:events"
import type { AddressInfo, Socket } from "node:net"
import { afterEach, describe, expect, it } from "vitest"
import { parseTarget } from "../../src/kernel/upstream/Upstream.ts"
import { UpstreamBody } from "../../src/kernel/upstream/UpstreamBody.ts"
import { AnswerFilter } from "../../src/kernel/upstream/hopByHop.ts"
import { selfSigned, selfSignedKey } from "../support/selfSigned.ts"
import { Gateway, RawAgent, type RawRequest, RecordingHandler, answer } from "../support/RawAgent.ts"

const opened: Array<() => void> = []
afterEach(() => { for (const close of opened.splice(0)) close() })

const agentThat = async (behave: (request: RawRequest) => void): Promise<RawAgent> => {
  const agent = await new RawAgent(behave).listen()
  opened.push(() => agent.close())
  return agent
}
const gateway = (options: ConstructorParameters<typeof Gateway>[0] = {}): Gateway => {
  const made = new Gateway(options)
  opened.push(() => made.lanes.close())
  return made
}

describe("an answer", () => {
  it("comes back with status, filtered headers, announced length and bytes", async () => {
    const agent = await agentThat(({ socket }) =>
      socket.write("HTTP/1.1 418 Teapot\r\nContent-Type: text/plain\r\nX-Secret: 1\r\nServer-Timing: a;dur=1\r\nContent-Length: 5\r\n\r\nhello"))
    const outcome = await gateway().call(agent.url, { answer: new AnswerFilter(["x-secret"]) }).done
    expect(outcome).toMatchObject({ status: 418, contentLength: 5, body: "hello", error: undefined })
    expect(outcome.headers).toEqual([["content-type", "text/plain"], ["server-timing", "a;dur=1"]])
  })

  it("that is a redirect is passed back, not followed", async () => {
    const agent = await agentThat(({ socket }) => socket.write("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"))
    const outcome = await gateway().call(agent.url).done
    expect(outcome).toMatchObject({ status: 302, headers: [["location", "/elsewhere"]], error: undefined })
    expect(agent.requests).toHaveLength(1)
  })

  it("with a hundred headers passes whole", async () => {
    const lines = Array.from({ length: 100 }, (_, i) => `x-h-${i}: ${i}\r\n`).join("")
    const agent = await agentThat(({ socket }) => socket.write(answer("ok", lines)))
    expect((await gateway().call(agent.url).done).headers).toHaveLength(100)
  })

  it("without a length ends with the connection", async () => {
    const agent = await agentThat(({ socket }) => socket.end("HTTP/1.1 200 OK\r\n\r\nuntil the end"))
    expect(await gateway().call(agent.url).done).toMatchObject({ body: "until the end", contentLength: undefined, error: undefined })
  })

  it("after informational ones is the only one passed on", async () => {
    const agent = await agentThat(({ socket }) => socket.write(`HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n${answer("real")}`))
    expect(await gateway().call(agent.url).done).toMatchObject({ status: 200, body: "real" })
  })

  it("304 that announces the length it would have had is complete", async () => {
    const agent = await agentThat(({ socket }) => socket.write("HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n"))
    expect(await gateway().call(agent.url, { method: "GET", body: null }).done).toMatchObject({ status: 304, contentLength: 0, error: undefined })
  })

  it("before the upload has ended is passed on, the rest of the upload is dropped, and the connection is not used again", async () => {
    const agent = await agentThat(({ socket }) => socket.write(answer("too much")))
    const body = new UpstreamBody(undefined, () => {})
    const { call, lanes } = bound(gateway())
    const handler = call(agent.url, { body })
    body.write(Buffer.alloc(1024))
    expect(await handler.done).toMatchObject({ body: "too much", error: undefined })
    expect(body.write(Buffer.alloc(10_000_000))).toBe(true)
    expect([body.waiting, lanes.connections]).toEqual([0, 0])
  })
})

describe("a request", () => {
  it("reaches the agent with its own host, path, query and headers, and the body's length", async () => {
    const agent = await agentThat(({ socket }) => socket.write(answer("ok")))
    await gateway().call(`${agent.url}?a=1#part`, { query: "b=2 #é", headers: ["x-one", "1"] }).done
    expect(agent.requests[0]).toBe(
      `POST /run?a=1&b=2%20%23%c3%a9 HTTP/1.1\r\nhost: 127.0.0.1:${agent.port}\r\nx-one: 1\r\ncontent-length: 2\r\n\r\nhi`
    )
  })

  it("body streams with a length when one was announced, chunked otherwise", async () => {
    const agent = await agentThat(({ socket, text }) => {
      let received = text
      const look = (): void => { if (received.includes("world")) socket.write(answer(received.includes("content-length: 10\r\n") ? "length" : "chunks")) }
      socket.on("data", (more) => { received += more.toString("latin1"); look() })
    })
    for (const [index, length, framing] of [[1, 10, "length"], [2, undefined, "chunks"]] as const) {
      const body = new UpstreamBody(length, () => {})
      const handler = gateway().call(agent.url, { body })
      body.write(Buffer.from("hello"))
      await agent.seen(index)
      body.write(Buffer.from("world"))
      body.end()
      expect((await handler.done).body).toBe(framing)
    }
    expect(agent.requests[1]).toContain("transfer-encoding: chunked\r\n\r\n5\r\nhello")
  })

  it("body waits for a slow agent and goes on when it drains", async () => {
    const total = 64 * 1024 * 1024
    let socket: Socket | undefined
    let received = 0
    const agent = await agentThat((request) => {
      socket = request.socket.pause()
      received = request.text.length - request.text.indexOf("\r\n\r\n") - 4
      socket.on("data", (bytes) => { received += bytes.length; if (received >= total) socket!.write(answer("ok")) })
    })
    const chunk = Buffer.alloc(256 * 1024)
    let sent = 0
    let stalled!: () => void
    const stall = new Promise<void>((resolve) => { stalled = resolve })
    const pump = (): void => {
      while (sent < total) {
        sent += chunk.length
        if (!body.write(chunk)) return void stalledSoon()
      }
      body.end()
    }
    let quiet: NodeJS.Immediate | undefined
    let turns = 0
    // Stalled: many turns of the loop without a drain while the agent does not read.
    const stalledSoon = (): void => {
      turns = 0
      clearImmediate(quiet)
      const look = (): void => { if (++turns > 20_000) stalled(); else quiet = setImmediate(look) }
      quiet = setImmediate(look)
    }
    const body = new UpstreamBody(total, () => { clearImmediate(quiet); pump() })
    const handler = gateway().call(agent.url, { body })
    pump()
    await stall
    expect(sent).toBeLessThan(total / 2)
    socket!.resume()
    expect((await handler.done).error).toBeUndefined()
    expect(sent).toBe(total)
  })
})

describe("connections", () => {
  it("are kept and used again, one call at a time", async () => {
    const agent = await agentThat(({ socket }) => socket.write(answer("ok")))
    const { call, lanes } = bound(gateway())
    for (let i = 0; i < 20; i++) expect((await call(agent.url).done).body).toBe("ok")
    expect(agent.sockets).toHaveLength(1)
    await Promise.all(Array.from({ length: 8 }, () => call(agent.url).done))
    expect(agent.sockets).toHaveLength(8)
    expect(lanes.connections).toBe(8)
  })

  it("that the agent closes after each answer are made anew", async () => {
    const agent = await agentThat(({ socket }) => socket.end(answer("ok", "connection: close\r\n")))
    const { call } = bound(gateway())
    for (let i = 0; i < 5; i++) expect(await call(agent.url).done).toMatchObject({ body: "ok", error: undefined })
    expect(agent.sockets).toHaveLength(5)
  })

  it("end with their socket, and the origin with its last connection", async () => {
    const agent = await agentThat(({ socket }) => socket.write(answer("ok")))
    const { call, lanes } = bound(gateway())
    await call(agent.url).done
    expect(lanes.connections).toBe(1)
    const socket = agent.sockets[0]!
    socket.end()
    await once(socket, "close")
    expect((await call(agent.url).done).body).toBe("ok")
    expect(lanes.connections).toBe(1)
  })

  it("of resting origins make room for new ones; without any the call is busy", async () => {
    const agents = await Promise.all([1, 2, 3].map(() => agentThat(({ socket, text }) => { if (!text.includes("/hang")) socket.write(answer("ok")) })))
    const { call, lanes } = bound(gateway({ originsMax: 2, connectionsMax: 2 }))
    for (const agent of agents) expect((await call(agent.url).done).body).toBe("ok")
    expect(lanes.connections).toBe(2)
    const hanging = agents.slice(1).map((agent) => call(agent.url.replace("/run", "/hang")))
    await Promise.all(agents.slice(1).map((agent) => agent.seen(2)))
    expect((await call(agents[0]!.url).done).error).toMatchObject({ reason: "busy" })
    for (const each of hanging) each.exchange.abort()
    expect((await call(agents[0]!.url).done).body).toBe("ok")
  })

  it("of trusted owners are not shared with others", async () => {
    const agent = await agentThat(({ socket }) => socket.write(answer("ok")))
    const made = gateway()
    const owners = { ...made.lanes.guard, trusts: (ownerId: string) => ownerId === "friend" }
    const { UpstreamLanes } = await import("../../src/kernel/upstream/UpstreamLanes.ts")
    const lanes = new UpstreamLanes(owners, made.lanes.limits)
    opened.push(() => lanes.close())
    const call = (ownerId: string) => {
      const handler = new RecordingHandler()
      lanes.send({
        agentId: ownerId, agent: "ECHO", ownerId, target: parseTarget(agent.url), query: "", method: "GET", headers: [], body: null, answer: new AnswerFilter([])
      }, handler)
      return handler.done
    }
    expect((await call("friend")).body).toBe("ok")
    expect((await call("stranger")).error).toMatchObject({ reason: "address_forbidden" })
    expect(agent.requests).toHaveLength(1)
  })

  it("over TLS are refused when the certificate does not verify, before a byte of the call is sent", async () => {
    let bytes = 0
    const server = createTlsServer({ key: selfSignedKey, cert: selfSigned }, (socket) => socket.on("data", (data) => { bytes += data.length }).on("error", () => {}))
    server.on("tlsClientError", () => {}).listen(0, "127.0.0.1")
    await once(server, "listening")
    opened.push(() => server.close())
    const outcome = await gateway().call(`https://127.0.0.1:${(server.address() as AddressInfo).port}/`).done
    expect(outcome.error).toMatchObject({ reason: "unreachable" })
    expect(bytes).toBe(0)
  })
})

const bound = (made: Gateway) => ({ call: made.call.bind(made), lanes: made.lanes })
