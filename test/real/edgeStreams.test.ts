/** The edge over real sockets: event streams, WebSockets, and the drain that ends them. */
import { Deferred, Effect, Stream } from "effect"
import { WebSocket } from "undici"
import { describe, expect, it } from "vitest"
import { NotFound } from "../../src/domain/errors.ts"
import type { Socket, SocketSession } from "../../src/http/endpoint.ts"
import { signal, useEdge } from "../support/EdgeClient.ts"

const client = useEdge()
const { call, connect, restart } = client

describe("an event stream", () => {
  it("writes each value as one event and ends with the stream", async () => {
    const { status, headers, text } = await call("GET", "/v9/events")
    expect(status).toBe(200)
    expect(headers.get("content-type")).toBe("text/event-stream")
    expect(text).toBe("data: {\"n\":1}\n\ndata: {\"n\":2}\n\n")
  })

  it("that fails first is an ordinary error, and later an event", async () => {
    const failure = new NotFound({ what: "thing", id: "1" })
    client.edge.fixture.events = Stream.fail(failure)
    expect((await call("GET", "/v9/events")).status).toBe(404)
    client.edge.fixture.events = Stream.concat(Stream.succeed({ n: 1 }), Stream.fail(failure))
    expect((await call("GET", "/v9/events")).text).toBe("data: {\"n\":1}\n\nevent: error\ndata: {\"error\":\"NotFound\"}\n\n")
  })

  it("that is silent opens and is kept open by comments", async () => {
    await restart({ limits: { streamOpenMs: 5, streamKeepAliveMs: 5 } })
    client.edge.fixture.events = Stream.never
    const connection = await connect()
    connection.send("GET /v9/events HTTP/1.1\r\nHost: a\r\n\r\n")
    await connection.until(({ text }) => (text.match(/:\n\n/g) ?? []).length >= 3)
    expect(connection.text).toMatch(/^HTTP\/1.1 200 OK\r\n/)
  })

  it("is not pulled while nobody reads, and is interrupted when the reader leaves", async () => {
    const text = "x".repeat(64 * 1024)
    let pulled = 0
    const interrupted = signal()
    const blocked = signal()
    let last = 0
    const watch = setInterval(() => {
      if (pulled > 0 && pulled === last) blocked.fire()
      last = pulled
    }, 20)
    client.edge.fixture.events = Stream.forever(Stream.fromEffect(Effect.sync(() => ({ n: pulled++, text })))).pipe(
      Stream.ensuring(Effect.sync(() => interrupted.fire()))
    )
    const connection = await connect()
    connection.countOnly()
    connection.socket.pause()
    connection.send("GET /v9/events HTTP/1.1\r\nHost: a\r\n\r\n")
    await blocked.promise
    clearInterval(watch)
    const standing = pulled
    expect(standing * text.length).toBeLessThan(64 * 1024 * 1024)
    connection.socket.resume()
    await connection.until(({ bytes }) => bytes > (standing + 50) * text.length)
    expect(pulled).toBeGreaterThan(standing)
    connection.destroy()
    await interrupted.promise
  })
})

describe("a socket", () => {
  const opened = async (path: string): Promise<WebSocket> => {
    const socket = new WebSocket(`ws://127.0.0.1:${client.edge.port}${path}`)
    await new Promise((resolve, reject) => {
      socket.addEventListener("open", resolve)
      socket.addEventListener("error", reject)
    })
    return socket
  }
  const handshake = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

  it("talks to its session both ways, and tells it the end once", async () => {
    const closed = signal<number>()
    client.edge.fixture.session = (live: Socket, room): SocketSession => ({
      message: (text) => {
        if (text === "bye") live.close(4410, "closed")
        else live.send(`${room}: ${text}`)
      },
      drained: () => undefined,
      stopping: () => live.close(1001, "stopping"),
      closed: (code) => closed.fire(code)
    })
    const socket = await opened("/v9/ws/den")
    const answer = new Promise((resolve) => socket.addEventListener("message", ({ data }) => resolve(data)))
    socket.send("hello €")
    expect(await answer).toBe("den: hello €")
    const ended = new Promise<number>((resolve) => socket.addEventListener("close", ({ code }) => resolve(code)))
    socket.send("bye")
    expect(await ended).toBe(4410)
    expect(await closed.promise).toBe(4410)
  })

  it("is refused in plain HTTP when the row refuses it, and when it is no WebSocket", async () => {
    const refused = await connect()
    refused.send(`GET /v9/ws/closed HTTP/1.1\r\nHost: a\r\n${handshake}Sec-WebSocket-Version: 13\r\n\r\n`)
    await refused.until(({ text }) => text.includes("NotImplemented"))
    expect(refused.text).toMatch(/^HTTP\/1.1 501 /)
    expect(refused.text).toContain("x-request-id")
    const plain = await connect()
    plain.send("GET /v9/ws/den HTTP/1.1\r\nHost: a\r\n\r\n")
    await plain.until(({ text }) => text.includes("\r\n\r\n"))
    expect(plain.text).toMatch(/^HTTP\/1.1 426 Upgrade Required\r\n/)
    const old = await connect()
    old.send(`GET /v9/ws/den HTTP/1.1\r\nHost: a\r\n${handshake}Sec-WebSocket-Version: 8\r\n\r\n`)
    await old.until(({ text }) => text.includes("\r\n\r\n"))
    expect(old.text).toMatch(/^HTTP\/1.1 426 [^]*sec-websocket-version: 13\r\n/)
  })

  it("an upgrade asked of another row is an ordinary call", async () => {
    const connection = await connect()
    connection.send(`GET /v9/things HTTP/1.1\r\nHost: a\r\n${handshake}Sec-WebSocket-Version: 13\r\n\r\n`)
    await connection.until(({ text }) => text.includes("\"one\""))
    expect(connection.text).toMatch(/^HTTP\/1.1 200 /)
  })

  it("sends no binary frames, and a session that throws ends its own socket only", async () => {
    client.edge.fixture.session = () => ({ message: () => { throw new Error("secret") }, drained: () => undefined, stopping: () => undefined, closed: () => undefined })
    for (const [message, code] of [[new Uint8Array([1]), 1003], ["text", 1011]] as const) {
      const socket = await opened("/v9/ws/den")
      const ended = new Promise<number>((resolve) => socket.addEventListener("close", (event) => resolve(event.code)))
      socket.send(message)
      expect(await ended).toBe(code)
    }
  })

  it("that reads too slowly is told apart, and closed past its bound", async () => {
    await restart({ limits: { socketBacklogBytesMax: 256 * 1024 } })
    const waits = signal()
    const closed = signal<number>()
    client.edge.fixture.session = (live) => ({
      message: () => {
        while (live.send("x".repeat(64 * 1024)));
        waits.fire()
        for (let i = 0; i < 8; i++) live.send("x".repeat(64 * 1024))
      },
      drained: () => undefined,
      stopping: () => live.close(1001, "stopping"),
      closed: (code) => closed.fire(code)
    })
    const connection = await connect()
    connection.countOnly()
    connection.send(`GET /v9/ws/den HTTP/1.1\r\nHost: a\r\n${handshake}Sec-WebSocket-Version: 13\r\n\r\n`)
    await connection.until(({ bytes }) => bytes > 0)
    connection.socket.pause()
    // One masked text frame: "a" with a zero mask.
    connection.send(Uint8Array.of(0x81, 0x81, 0, 0, 0, 0, 97))
    await waits.promise
    expect(await closed.promise).toBe(1013)
  })
})

describe("a drain", () => {
  it("finishes what runs, refuses what comes, ends streams and sockets, and closes the port", async () => {
    const started = signal()
    const gate = Effect.runSync(Deferred.make<string>())
    client.edge.fixture.wait = Effect.suspend(() => {
      started.fire()
      return Deferred.await(gate)
    })
    client.edge.fixture.events = Stream.concat(Stream.succeed({ n: 1 }), Stream.never)
    const kept = await connect()
    kept.send("GET /v9/things HTTP/1.1\r\nHost: a\r\n\r\n")
    await kept.until(({ text }) => text.includes("\"one\""))
    const running = await connect()
    running.send("POST /v9/wait HTTP/1.1\r\nHost: a\r\n\r\n")
    await started.promise
    const events = await connect()
    events.send("GET /v9/events HTTP/1.1\r\nHost: a\r\n\r\n")
    await events.until(({ text }) => text.includes("\"n\":1"))
    const socket = new WebSocket(`ws://127.0.0.1:${client.edge.port}/v9/ws/den`)
    await new Promise((resolve) => socket.addEventListener("open", resolve))
    const socketEnded = new Promise<number>((resolve) => socket.addEventListener("close", ({ code }) => resolve(code)))

    const drained = client.edge.drain()
    expect(await socketEnded).toBe(1001)
    await events.until(({ text }) => text.endsWith("0\r\n\r\n"))
    kept.send("GET /v9/things HTTP/1.1\r\nHost: a\r\n\r\n")
    expect(await kept.closed()).toMatch(/503 Service Unavailable[^]*connection: close[^]*"Draining"/i)
    await expect(call("GET", "/health")).rejects.toThrow()

    await Effect.runPromise(Deferred.succeed(gate, "finished"))
    await drained
    expect(await running.closed()).toMatch(/200 OK[^]*"finished"$/)
  })

  it("waits no longer than its limit", async () => {
    await restart({ limits: { drainMs: 20 } })
    client.edge.fixture.wait = Effect.never
    const connection = await connect()
    connection.send("POST /v9/wait HTTP/1.1\r\nHost: a\r\n\r\n")
    await call("GET", "/health")
    await client.edge.drain()
    await client.edge.stop()
    expect(await connection.closed()).toBe("")
  })
})
