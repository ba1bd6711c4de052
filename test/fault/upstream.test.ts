import { once } from "node:events"
import type { Socket } from "node:net"
import { afterEach, describe, expect, it } from "vitest"
import { breakerLimits } from "../../src/domain/breaker.ts"
import { Gateway, RawAgent, type RawRequest, RecordingHandler, answer } from "../support/RawAgent.ts"
import { UpstreamBody } from "../../src/kernel/upstream/UpstreamBody.ts"
import { metrics } from "../../src/telemetry/Metrics.ts"

const opened: Array<() => void> = []
afterEach(() => { for (const close of opened.splice(0)) close() })

const agentThat = async (behave: (request: RawRequest) => void): Promise<RawAgent> => {
  const agent = await new RawAgent(behave).listen()
  opened.push(() => agent.close())
  return agent
}
const gateway = (options: ConstructorParameters<typeof Gateway>[0] = {}) => {
  const made = new Gateway(options)
  opened.push(() => made.lanes.close())
  return { call: made.call.bind(made), lanes: made.lanes }
}
const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise((next) => setImmediate(next))
}
const refusedPort = async (): Promise<string> => {
  const agent = await new RawAgent(() => {}).listen()
  const { url } = agent
  agent.close()
  return url
}

describe("an agent that misbehaves", () => {
  const cases: ReadonlyArray<readonly [string, (request: RawRequest) => void]> = [
    ["closes before an answer", ({ socket }) => socket.end()],
    ["resets before an answer", ({ socket }) => socket.resetAndDestroy()],
    ["closes in the middle of a body", ({ socket }) => socket.end("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")],
    ["closes in the middle of a chunked body", ({ socket }) => socket.end("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")],
    ["announces less than it sends and more than it means", ({ socket }) => socket.end("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\nhalf")],
    ["speaks no HTTP", ({ socket }) => socket.write("SSH-2.0-OpenSSH_9.6\r\n\r\n")],
    ["sends two lengths", ({ socket }) => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!")],
    ["sends a length and chunks", ({ socket }) => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")],
    ["sends a head without end", ({ socket }) => { for (let i = 0; i < 64; i++) socket.write(`${i === 0 ? "HTTP/1.1 200 OK\r\n" : ""}x-${i}: ${"y".repeat(1024)}\r\n`) }],
    ["switches protocols unasked", ({ socket }) => socket.write("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")]
  ]
  it.each(cases)("%s: broken_answer, once, and the slot is free", async (_title, behave) => {
    const agent = await agentThat(behave)
    const { call, lanes } = gateway()
    const handler = call(agent.url)
    const { error } = await handler.done
    await turns(10)
    expect(error).toMatchObject({ _tag: "AgentUnavailable", agent: "ECHO", reason: "broken_answer", retryAfterMs: 1_000 })
    expect([handler.endings, lanes.running, lanes.waiting, lanes.connections]).toEqual([1, 0, 0, 0])
  })

  it("never answers: timeout, and its connection is closed", async () => {
    const agent = await agentThat(() => {})
    const { call, lanes } = gateway({ firstByteMs: 30 })
    const handler = call(agent.url)
    await agent.seen(1)
    const closed = once(agent.sockets[0]!, "close")
    expect((await handler.done).error).toMatchObject({ reason: "timeout" })
    await closed
    expect(lanes.running).toBe(0)
  })

  it("goes on with informational answers for ever: the total limit ends it", async () => {
    let sending: NodeJS.Timeout | undefined
    const agent = await agentThat(({ socket }) => { sending = setInterval(() => socket.write("HTTP/1.1 102 Processing\r\n\r\n"), 5) })
    opened.push(() => clearInterval(sending))
    expect((await gateway({ totalMs: 60 }).call(agent.url).done).error).toMatchObject({ reason: "timeout" })
  })

  it("falls silent in the middle of a body: timeout after what came was delivered", async () => {
    const agent = await agentThat(({ socket }) => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"))
    expect(await gateway({ idleMs: 40 }).call(agent.url).done).toMatchObject({ status: 200, body: "half", error: { reason: "timeout" } })
  })

  it("sends byte by byte, each within the silence limit: the answer passes though it takes longer than that limit", async () => {
    const text = "slowly but surely, one by one."
    const agent = await agentThat(({ socket }) => {
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${text.length}\r\n\r\n`)
      let sent = 0
      const next = (): void => { if (sent < text.length) { socket.write(text[sent++]!); setTimeout(next, 40) } }
      next()
    })
    expect(await gateway({ idleMs: 1_000, firstByteMs: 1_000 }).call(agent.url).done).toMatchObject({ body: text, error: undefined })
  })

  it("can't be reached: unreachable", async () => {
    expect((await gateway().call(await refusedPort()).done).error).toMatchObject({ reason: "unreachable" })
  })

  it("is gone after its answer, with the connection still warm here: the next call goes to a new connection", async () => {
    const agent = await agentThat(({ socket, nth }) => { socket.write(answer(String(nth))); if (nth === 1) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged") })
    const { call } = gateway()
    expect((await call(agent.url).done).body).toBe("1")
    const second = await call(agent.url).done
    expect(second.body === "2" || second.error !== undefined).toBe(true)
    expect(second.body).not.toBe("forged")
  })
})

describe("a caller that reads slowly", () => {
  const total = 64 * 1024 * 1024

  it("stalls the agent, gets every byte, and costs one read and the socket's buffer", async () => {
    let socket: Socket | undefined
    const agent = await agentThat((request) => {
      socket = request.socket
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${total}\r\n\r\n`)
      const block = Buffer.alloc(1024 * 1024, 120)
      for (let sent = 0; sent < total; sent += block.length) socket.write(block)
    })
    const handler = new RecordingHandler()
    handler.takes = () => false
    gateway().call(agent.url, {}, handler)
    await handler.headed
    await turns(3_000)
    expect(handler.chunks).toHaveLength(1)
    expect(handler.bytes).toBeLessThanOrEqual(128 * 1024)
    expect(socket!.writableLength).toBeGreaterThan(total / 2)
    handler.takes = () => true
    handler.exchange.resume()
    expect((await handler.done).error).toBeUndefined()
    expect(handler.bytes).toBe(total)
  })

  it("is given nothing between a refusal and its resume, piece by piece", async () => {
    const pieces = Array.from({ length: 50 }, (_, i) => `piece ${i}`)
    const agent = await agentThat(({ socket }) => {
      socket.write(`HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n${pieces.map((piece) => `${piece.length.toString(16)}\r\n${piece}\r\n`).join("")}0\r\n\r\n`)
    })
    const handler = new RecordingHandler()
    const overlaps: Array<number> = []
    let resting = false
    handler.takes = () => {
      if (resting) overlaps.push(handler.chunks.length)
      resting = true
      setImmediate(() => { resting = false; handler.exchange.resume() })
      return false
    }
    const outcome = await gateway().call(agent.url, {}, handler).done
    expect(overlaps).toEqual([])
    expect(outcome).toMatchObject({ body: pieces.join(""), error: undefined })
    expect(handler.endings).toBe(1)
  })

  it.each([["with", "content-length: 300000\r\n"], ["without", ""]])("gets a whole body %s a length although the agent has closed meanwhile", async (_, length) => {
    const agent = await agentThat(({ socket }) => socket.end(`HTTP/1.1 200 OK\r\nconnection: close\r\n${length}\r\n${"x".repeat(300_000)}`))
    const handler = new RecordingHandler()
    handler.takes = () => false
    gateway().call(agent.url, {}, handler)
    await handler.headed
    await turns(200)
    handler.takes = () => true
    handler.exchange.resume()
    const outcome = await handler.done
    expect([outcome.error, outcome.body.length, handler.endings]).toEqual([undefined, 300_000, 1])
  })

  it.each([["with", "content-length: 300000\r\n"], ["without", ""]])("of a body %s a length is told at its next read that the agent has reset", async (_, length) => {
    const agent = await agentThat(({ socket }) => socket.write(`HTTP/1.1 200 OK\r\nconnection: close\r\n${length}\r\n${"x".repeat(1_000)}`))
    const handler = new RecordingHandler()
    handler.takes = () => false
    gateway().call(agent.url, {}, handler)
    await handler.headed
    await turns(20)
    agent.sockets[0]!.resetAndDestroy()
    await turns(20)
    handler.takes = () => true
    handler.exchange.resume()
    expect((await handler.done).error).toMatchObject({ reason: "broken_answer" })
  })

  it("does not make the agent look silent", async () => {
    const agent = await agentThat(({ socket }) => { socket.write(`HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab`); setTimeout(() => socket.write("cd"), 10) })
    const handler = new RecordingHandler()
    handler.takes = () => { setTimeout(() => handler.exchange.resume(), 150); return false }
    expect(await gateway({ idleMs: 60 }).call(agent.url, {}, handler).done).toMatchObject({ body: "abcd", error: undefined })
  })
})

describe("abort", () => {
  it("in the middle of a body closes the agent's connection, frees the slot and calls nothing more", async () => {
    const agent = await agentThat(({ socket }) => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"))
    const { call, lanes } = gateway()
    const handler = call(agent.url)
    await handler.headed
    const closed = once(agent.sockets[0]!, "close")
    handler.exchange.abort()
    handler.exchange.abort()
    expect([lanes.running, lanes.connections]).toEqual([0, 0])
    await closed
    await turns(20)
    expect(handler.endings).toBe(0)
  })

  it("while connecting ends the attempt", async () => {
    const { call, lanes } = gateway({ resolve: () => {}, allow: [] })
    const handler = call("http://agent.example/")
    handler.exchange.abort()
    await turns(5)
    expect([lanes.running, lanes.connections, handler.endings]).toEqual([0, 0, 0])
  })

  it("while waiting for a slot gives the place to the next", async () => {
    const waiting: Array<Socket> = []
    const agent = await agentThat(({ socket }) => waiting.push(socket))
    const { call, lanes } = gateway({ concurrency: 1 })
    const first = call(agent.url)
    const second = call(agent.url)
    const third = call(agent.url)
    expect([lanes.running, lanes.waiting]).toEqual([1, 2])
    second.exchange.abort()
    await agent.seen(1)
    waiting[0]!.write(answer("first"))
    expect((await first.done).body).toBe("first")
    await agent.seen(2)
    waiting[1]!.write(answer("third"))
    expect((await third.done).body).toBe("third")
    expect(second.endings).toBe(0)
  })

  it("comes by itself when the agent takes nothing of an upload, as no caller's end would be noticed", async () => {
    const agent = await agentThat(({ socket }) => socket.pause())
    const pump = (): void => { while (!body.destroyed && body.write(Buffer.alloc(64 * 1024))); }
    const body = new UpstreamBody(undefined, pump)
    const { call, lanes } = gateway({ idleMs: 50 })
    const handler = call(agent.url, { body })
    pump()
    expect((await handler.done).error).toMatchObject({ reason: "timeout" })
    expect([body.destroyed, body.write(Buffer.alloc(1)), lanes.running, lanes.connections]).toEqual([true, true, 0, 0])
  })

  it("of a streamed upload destroys the body, whose writer is let go", async () => {
    const agent = await agentThat(() => {})
    let drained = 0
    const body = new UpstreamBody(undefined, () => { drained++ })
    const handler = gateway().call(agent.url, { body })
    while (body.write(Buffer.alloc(64 * 1024))) await turns(1)
    const before = drained
    handler.exchange.abort()
    await turns(5)
    expect([body.destroyed, drained - before, body.write(Buffer.alloc(1))]).toEqual([true, 1, true])
  })
})

describe("too many calls for one agent", () => {
  it("wait in order, above the queue's bound are busy at once, and after the queue's time are busy too", async () => {
    const agent = await agentThat(() => {})
    const { call, lanes } = gateway({ concurrency: 2, queueMax: 3, queueMs: 50 })
    const running = [call(agent.url), call(agent.url)]
    const queued = [call(agent.url), call(agent.url), call(agent.url)]
    const refused = call(agent.url)
    expect(refused.endings).toBe(0)
    expect((await refused.done).error).toMatchObject({ reason: "busy", retryAfterMs: 50 })
    expect([lanes.running, lanes.waiting]).toEqual([2, 3])
    for (const each of queued) expect((await each.done).error).toMatchObject({ reason: "busy" })
    expect([lanes.running, lanes.waiting]).toEqual([2, 0])
    for (const each of running) each.exchange.abort()
  })

  it("do not concern another agent", async () => {
    const agent = await agentThat(({ socket, nth }) => { if (nth > 1) socket.write(answer("ok")) })
    const { call } = gateway({ concurrency: 1, queueMax: 0 })
    const stuck = call(agent.url)
    await agent.seen(1)
    expect((await call(agent.url, { agentId: "agent-2" }).done).body).toBe("ok")
    stuck.exchange.abort()
  })

  it("leave nothing behind: lanes of agents without calls are dropped", async () => {
    const agent = await agentThat(({ socket }) => socket.write(answer("ok")))
    const { call, lanes } = gateway({ agentsMax: 5 })
    for (let i = 0; i < 20; i++) await call(agent.url, { agentId: `agent-${i}` }).done
    expect(lanes.agents).toBe(5)
  })
})

describe("the circuit", () => {
  it("opens after failures in a row, refuses without a connection, and closes when its probe is answered", async () => {
    let well = false
    const agent = await agentThat(({ socket }) => well ? socket.write(answer("well")) : socket.end())
    const { call } = gateway()
    for (let i = 0; i < breakerLimits.failuresInARow; i++) expect((await call(agent.url).done).error).toMatchObject({ reason: "broken_answer" })
    const { error } = await call(agent.url).done
    expect(error).toMatchObject({ reason: "circuit_open" })
    expect(error!.retryAfterMs).toBeGreaterThan(0)
    expect(error!.retryAfterMs).toBeLessThanOrEqual(breakerLimits.openMs)
    expect(agent.requests).toHaveLength(breakerLimits.failuresInARow)
    well = true
    let refusals = 0
    for (;;) {
      const outcome = await call(agent.url).done
      if (outcome.body === "well") break
      expect(outcome.error).toMatchObject({ reason: "circuit_open" })
      refusals++
      await new Promise((later) => setTimeout(later, outcome.error!.retryAfterMs))
    }
    expect(refusals).toBeGreaterThan(0)
    expect((await call(agent.url).done).body).toBe("well")
  })

  it("stays closed for an agent's own 500s, for callers that go away, and for uploads that the agent cuts", async () => {
    const agent = await agentThat(({ socket, text }) => {
      if (text.startsWith("PUT")) socket.write("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n")
      if (text.includes("chunked")) socket.end()
    })
    const { call } = gateway()
    const many = breakerLimits.callsMin
    for (let i = 0; i < many; i++) expect((await call(agent.url, { method: "PUT" }).done).status).toBe(500)
    for (let i = 0; i < many; i++) {
      const handler = call(agent.url)
      await agent.seen(many + i + 1)
      handler.exchange.abort()
    }
    for (let i = 0; i < many; i++) {
      const body = new UpstreamBody(undefined, () => {})
      body.write(Buffer.from("part"))
      expect((await call(agent.url, { body }).done).error).toMatchObject({ reason: "broken_answer" })
    }
    expect((await call(agent.url, { method: "PUT" }).done).status).toBe(500)
  })
})

describe("the gateway", () => {
  it("refuses a name that resolves inside at the moment of connecting, also when it looked public before", async () => {
    const agent = await agentThat(({ socket }) => socket.write(answer("inside")))
    const { call } = gateway({ allow: [], resolve: (_host, _system, done) => done(null, [{ address: "127.0.0.1", family: 4 }, { address: "::1", family: 6 }]) })
    const { error } = await call(`http://agent.example:${agent.port}/`).done
    expect(error).toMatchObject({ reason: "address_forbidden" })
    expect(agent.sockets).toHaveLength(0)
  })

  it("connects only to those addresses of a name that are allowed", async () => {
    const agent = await agentThat(({ socket }) => socket.write(answer("ok")))
    const { call } = gateway({ allow: ["127.0.0.1"], resolve: (_host, _system, done) => done(null, [{ address: "10.0.0.1", family: 4 }, { address: "127.0.0.1", family: 4 }]) })
    expect((await call(`http://agent.example:${agent.port}/`).done).body).toBe("ok")
  })

  it("fails calls under way when it closes, and closes their connections", async () => {
    const agent = await agentThat(() => {})
    const { call, lanes } = gateway()
    const handler = call(agent.url)
    await agent.seen(1)
    lanes.close()
    expect((await handler.done).error).toMatchObject({ reason: "unreachable" })
    expect([lanes.running, lanes.connections]).toEqual([0, 0])
  })

  it("survives a handler that throws: the call fails, the slot is free", async () => {
    const agent = await agentThat(({ socket }) => socket.write(answer("ok")))
    const { call, lanes } = gateway()
    const handler = new RecordingHandler()
    handler.takes = () => { throw new Error("defect") }
    expect((await call(agent.url, {}, handler).done).error).toMatchObject({ reason: "broken_answer" })
    expect(lanes.running).toBe(0)
    expect((await call(agent.url).done).body).toBe("ok")
  })

  it("counts failures by reason", async () => {
    const count = async () => (await metrics.upstreamFailures.get()).values.find((value) => value.labels["reason"] === "unreachable")?.value ?? 0
    const before = await count()
    await gateway().call(await refusedPort()).done
    expect(await count()).toBe(before + 1)
  })
})
