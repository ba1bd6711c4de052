/** The edge over real sockets: framing, bounds, connections, and relayed calls with backpressure both ways. */
import { Deferred, Effect } from "effect"
import { describe, expect, it } from "vitest"
import { AgentUnavailable } from "../../src/domain/errors.ts"
import type { Downstream } from "../../src/kernel/Relay.ts"
import { key, signal, useEdge } from "../support/EdgeClient.ts"

const client = useEdge()
const { call, connect, restart } = client

describe("a request that could be read in two ways", () => {
  it.each([
    ["two lengths", "Content-Length: 2\r\nContent-Length: 3\r\n", "{}"],
    ["a negative length", "Content-Length: -2\r\n", ""],
    ["an encoding that isn't chunked", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"],
    ["two hosts", "Host: b\r\n", ""],
    ["a length and chunks", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"]
  ])("with %s is refused, and nothing behind it is served", async (_, headers, body) => {
    const request = `POST /v9/amounts HTTP/1.1\r\nHost: a\r\n${headers}\r\n${body}`
    const alone = await connect()
    alone.send(request)
    expect(await alone.closed()).toMatch(/^HTTP\/1.1 400 /)
    const followed = await connect()
    followed.send(`${request}GET /v9/things HTTP/1.1\r\nHost: a\r\n\r\n`)
    expect((await followed.closed()).match(/HTTP\/1.1 200/)).toBeNull()
    expect(client.edge.fixture.calls).toEqual([])
  })

  it("with an empty host, or a URL of more than 8 KiB, is refused and its connection closed", async () => {
    for (const head of ["GET /v9/things HTTP/1.1\r\nHost:\r\n\r\n", `GET /v9/things?q=${"a".repeat(8_192)} HTTP/1.1\r\nHost: a\r\n\r\n`]) {
      const connection = await connect()
      connection.send(head)
      expect(await connection.closed()).toMatch(/^HTTP\/1.1 400 Bad Request\r\nx-request-id: /)
    }
  })

  it("without a host never reaches a handler and is closed", async () => {
    const connection = await connect()
    connection.send("GET /v9/things HTTP/1.1\r\n\r\n")
    expect(await connection.closed()).toBe("")
    expect(client.edge.fixture.calls).toEqual([])
  }, 30_000)
})

describe("a body's bounds", () => {
  it("refuse an announced length at once, without waiting for a byte", async () => {
    const connection = await connect()
    connection.send("POST /v9/things HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer resident\r\nContent-Length: 1001\r\n\r\n")
    expect(await connection.closed()).toMatch(/^HTTP\/1.1 413 /)
  })

  it("refuse chunks that add up to too much", async () => {
    const connection = await connect()
    connection.send("POST /v9/things HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer resident\r\nTransfer-Encoding: chunked\r\n\r\n")
    for (let i = 0; i < 3; i++) connection.send(`1f4\r\n${"a".repeat(500)}\r\n`)
    expect(await connection.closed()).toMatch(/^HTTP\/1.1 413 /)
  })

  it("answer a caller who stops sending 408 and close", async () => {
    await restart({ limits: { bodyIdleMs: 50 } })
    const connection = await connect()
    connection.send("POST /v9/things HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer resident\r\nContent-Length: 100\r\n\r\n{")
    expect(await connection.closed()).toMatch(/^HTTP\/1.1 408 Request Timeout\r\n/)
  })

  it("answer 413 to a relayed call above the relay's own", async () => {
    await restart({ limits: { relayBodyBytesMax: 10 } })
    expect((await call("POST", "/v9/relay/a", { headers: key, body: "a".repeat(11) })).status).toBe(413)
  })
})

describe("a connection", () => {
  it("serves one call after another", async () => {
    const connection = await connect()
    for (let i = 1; i <= 3; i++) {
      connection.send("POST /v9/amounts HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\n{\"amount\": 1, \"parts\": []}")
      await connection.until(({ text }) => (text.match(/"parts":\[\]/g) ?? []).length === i)
    }
    expect(connection.text.match(/HTTP\/1.1 200 OK/g)).toHaveLength(3)
  })

  it("with a call behind one that still runs ends, and mixes nothing up", async () => {
    const gate = Effect.runSync(Deferred.make<string>())
    client.edge.fixture.wait = Deferred.await(gate)
    const connection = await connect()
    connection.send("POST /v9/wait HTTP/1.1\r\nHost: a\r\n\r\nGET /v9/things HTTP/1.1\r\nHost: a\r\n\r\n")
    expect(await connection.closed()).toBe("")
    await Effect.runPromise(Deferred.succeed(gate, "late"))
    expect((await call("GET", "/health")).status).toBe(200)
  })

  it("that ends interrupts a GET, but never a POST", async () => {
    for (const [method, ending] of [["GET", "interrupted"], ["POST", "finished"]] as const) {
      const started = signal()
      const ended = signal<string>()
      const gate = Effect.runSync(Deferred.make<string>())
      client.edge.fixture.wait = Effect.suspend(() => {
        started.fire()
        return Deferred.await(gate)
      }).pipe(
        Effect.tap(() => Effect.sync(() => ended.fire("finished"))),
        Effect.onInterrupt(() => Effect.sync(() => ended.fire("interrupted")))
      )
      const connection = await connect()
      connection.send(`${method} /v9/wait HTTP/1.1\r\nHost: a\r\n\r\n`)
      await started.promise
      connection.destroy()
      if (method === "POST") {
        await expect.poll(async () => (await call("GET", "/metrics")).text).toContain("status=\"gone\"")
        await Effect.runPromise(Deferred.succeed(gate, "done"))
      }
      expect(await ended.promise).toBe(ending)
    }
  })
})

describe("a relayed call", () => {
  it("hands over the request as it came, and answers in one piece", async () => {
    const seen = signal<{ downstream: Downstream; address: string; body: string }>()
    client.edge.relay = (_caller, agent, dress, downstream) => {
      downstream.collect(1_000, (body) => {
        seen.fire({ downstream, address: downstream.request.remoteAddress, body: Buffer.from(body).toString() })
        downstream.reply(299, dress.answer.apply([
          "content-type", "text/plain", "content-length", "9999", "date", "yesterday", "x-ratelimit-limit", "1", "x-request-id", "forged",
          "uwebsockets", "0", "access-control-allow-origin", "*", "x-split", "a\r\nevil: 1", "x-agent", agent
        ]), "the answer")
      }, (error) => downstream.fail(error))
    }
    const connection = await connect()
    connection.send("POST /v9/relay/ECHO?a=1&a=%32 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer resident\r\nX-Two: 1\r\nx-two: 2\r\nContent-Length: 5\r\n\r\nhello")
    await connection.until(({ text }) => text.includes("the answer"))
    const { address, downstream, body } = await seen.promise
    expect(body).toBe("hello")
    const { method, query, contentLength } = downstream.request
    expect({ method, query, contentLength }).toEqual({ method: "POST", query: "a=1&a=%32", contentLength: 5 })
    expect(address).toBe("127.0.0.1")
    expect(downstream.request.headers.filter(([name]) => name === "x-two")).toEqual([["x-two", "1"], ["x-two", "2"]])
    expect(connection.text).toMatch(/^HTTP\/1.1 299 Unknown\r\n/)
    expect(connection.text.match(/^content-length: 10\r$/gim)).toHaveLength(1)
    expect(connection.text.match(/^(content-length|date|x-ratelimit-limit|x-request-id|uwebsockets):/gim)).toHaveLength(5)
    expect(connection.text).toContain("x-agent: ECHO\r\n")
    expect(connection.text).not.toMatch(/evil|access-control|yesterday|forged/)
  })

  it("without a body has an empty one", async () => {
    client.edge.relay = (_caller, _agent, _dress, downstream) => {
      downstream.collect(10, (body) => downstream.reply(200, [], `${downstream.request.contentLength} ${body.byteLength}`), (error) => downstream.fail(error))
    }
    expect((await call("POST", "/v9/relay/a", { headers: key })).text).toBe("0 0")
  })

  it("stops a caller who sends faster than the agent takes, and loses nothing", async () => {
    const total = 24 * 1024 * 1024
    const first = signal<{ resume: () => void; received: () => number }>()
    client.edge.relay = (_caller, _agent, _dress, downstream) => {
      let received = 0
      let paused = false
      const body = downstream.stream(total, {
        chunk: (bytes, last) => {
          received += bytes.byteLength
          if (!paused) {
            paused = true
            body.pause()
            first.fire({ resume: () => body.resume(), received: () => received })
          }
          if (last) downstream.reply(200, [], String(received))
        },
        failed: (error) => downstream.fail(error)
      })
    }
    const connection = await connect()
    connection.send(`POST /v9/relay/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer resident\r\nContent-Length: ${total}\r\n\r\n`)
    connection.send(Buffer.alloc(total, 97))
    const { resume, received } = await first.promise
    // The sender's kernel buffers are full now: other calls pass, this one stands still.
    for (let i = 0; i < 5; i++) await call("GET", "/health")
    const standing = received()
    for (let i = 0; i < 5; i++) await call("GET", "/health")
    expect(received()).toBe(standing)
    expect(standing).toBeLessThan(total / 4)
    resume()
    await connection.until(({ text }) => text.endsWith(String(total)))
  })

  it.each([["with a length", true], ["in chunks", false]])("stops the agent while the caller doesn't read (%s)", async (_, announced) => {
    const piece = Buffer.alloc(256 * 1024, 98)
    const pieces = 128
    let written = 0
    const blocked = signal()
    client.edge.relay = (_caller, _agent, _dress, downstream) => {
      const push = (): void => {
        while (written < pieces) {
          written++
          if (!downstream.write(piece)) return blocked.fire()
        }
        downstream.end()
      }
      downstream.onDrain(push)
      downstream.head(200, [["content-type", "text/plain"]], announced ? pieces * piece.byteLength : undefined)
      push()
    }
    const connection = await connect()
    connection.countOnly()
    connection.socket.pause()
    connection.send("POST /v9/relay/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer resident\r\n\r\n")
    await blocked.promise
    for (let i = 0; i < 5; i++) await call("GET", "/health")
    const standing = written
    for (let i = 0; i < 5; i++) await call("GET", "/health")
    expect(written).toBe(standing)
    expect(standing).toBeLessThan(pieces)
    connection.socket.resume()
    await connection.until(({ bytes }) => bytes > pieces * piece.byteLength)
    expect(written).toBe(pieces)
    // The connection is still good for another call.
    connection.send("GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    await connection.closed()
  })

  it("cuts off a caller who reads nothing, and says so upwards", async () => {
    await restart({ limits: { readerStallMs: 50 } })
    const gone = signal()
    client.edge.relay = (_caller, _agent, _dress, downstream) => {
      downstream.onGone(() => gone.fire())
      downstream.head(200, [], undefined)
      while (downstream.write(Buffer.alloc(1024 * 1024)));
    }
    const connection = await connect()
    connection.socket.pause()
    connection.send("POST /v9/relay/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer resident\r\n\r\n")
    await gone.promise
  })

  it("tells upwards that the caller has gone, once, and takes writes afterwards calmly", async () => {
    const seen = signal<Downstream>()
    const gone = signal()
    let times = 0
    client.edge.relay = (_caller, _agent, _dress, downstream) => {
      downstream.onGone(() => {
        times++
        gone.fire()
      })
      downstream.stream(100, { chunk: () => undefined, failed: () => undefined })
      seen.fire(downstream)
    }
    const connection = await connect()
    connection.send("POST /v9/relay/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer resident\r\nContent-Length: 5\r\n\r\nhe")
    const downstream = await seen.promise
    connection.destroy()
    await gone.promise
    downstream.head(200, [], undefined)
    downstream.write(Buffer.from("x"))
    downstream.end()
    downstream.reply(200, [], "x")
    downstream.fail(new AgentUnavailable({ agent: "a", reason: "timeout", retryAfterMs: 1 }))
    downstream.abort()
    expect(times).toBe(1)
    expect((await call("GET", "/health")).status).toBe(200)
  })

  it("that fails before its head is an error answer, and after it a cut", async () => {
    const failure = new AgentUnavailable({ agent: "a", reason: "unreachable", retryAfterMs: 1_000 })
    client.edge.relay = (_caller, _agent, _dress, downstream) => downstream.fail(failure)
    const refused = await call("POST", "/v9/relay/a", { headers: key })
    expect(refused.status).toBe(503)
    expect(refused.headers.get("x-ratelimit-limit")).toBe("60")
    for (const length of [10, undefined]) {
      client.edge.relay = (_caller, _agent, _dress, downstream) => {
        downstream.head(200, [], length)
        downstream.write(Buffer.from("half"))
        if (length === undefined) downstream.fail(failure)
        else downstream.end()
      }
      await expect(call("POST", "/v9/relay/a", { headers: key })).rejects.toThrow()
    }
  })

  it("with a 304, or no bytes at all, ends cleanly", async () => {
    for (const [status, length] of [[304, 100], [200, 0], [200, undefined]] as const) {
      client.edge.relay = (_caller, _agent, _dress, downstream) => {
        downstream.head(status, [["etag", "\"1\""]], length)
        downstream.end()
      }
      const { status: seen, text, headers } = await call("POST", "/v9/relay/a", { headers: key })
      expect([seen, text, headers.get("etag")]).toEqual([status, "", "\"1\""])
    }
  })

  it("may answer before it has read the body, and the connection goes on", async () => {
    client.edge.relay = (_caller, _agent, _dress, downstream) => {
      downstream.stream(1_000_000, { chunk: () => undefined, failed: () => undefined }).pause()
      downstream.head(200, [], 2)
      downstream.write(Buffer.from("ok"))
    }
    const connection = await connect()
    connection.send("POST /v9/relay/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer resident\r\nContent-Length: 4\r\n\r\nab")
    await connection.until(({ text }) => text.endsWith("ok"))
    connection.send("cdGET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    await connection.until(({ text }) => text.includes("\"status\":\"ok\""))
  })

  it("that throws is a defect, and the next call is served", async () => {
    client.edge.relay = () => {
      throw new Error("secret internals")
    }
    const { status, text } = await call("POST", "/v9/relay/a", { headers: key })
    expect(status).toBe(500)
    expect(text).not.toContain("secret")
    client.edge.relay = (_caller, _agent, _dress, downstream) => downstream.stream(10, { chunk: () => { throw new Error("secret") }, failed: () => undefined })
    expect((await call("POST", "/v9/relay/a", { headers: key, body: "x" })).status).toBe(500)
  })
})
