/** Calls that another node must answer: what the caller gets is the owner's answer, and what the owner gets is the caller's call. */
import { Effect, Stream } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { WebSocket } from "undici"
import { describe, expect, it } from "vitest"
import type { Settings } from "../../src/config.ts"
import type { Downstream, RelayCall } from "../../src/kernel/Relay.ts"
import { signal } from "../support/EdgeClient.ts"
import { type EdgeServer, startEdge } from "../support/EdgeServer.ts"
import { ScriptedCluster, secret, useHop } from "../support/HopScene.ts"

const scene = useHop()
const { connect, raw, restart } = scene

const placed = "Host: a\r\nAuthorization: Bearer placed\r\n"
const closing = `${placed}Connection: close\r\n`
const MiB = 1024 * 1024

/** Without what differs from one answer to the next. */
const timeless = (text: string): string => text.replace(/^Date: .*\r$/m, "").replace(/^x-request-id: [^\r]*/m, "")

/** Where a figure stops to rise while other calls pass. */
const standing = async (read: () => number): Promise<number> => {
  for (let last = -1; ;) {
    const now = read()
    if (now === last) return now
    last = now
    for (let i = 0; i < 30; i++) await scene.fetch("/health")
  }
}

/** Every byte of a body, sent back with or without its length. */
const echo = (announced: boolean): RelayCall => (_caller, _agent, _dress, downstream) => {
  const parts: Array<Uint8Array> = []
  downstream.stream(100 * MiB, {
    chunk: (bytes, last) => {
      parts.push(bytes)
      if (!last) return
      const body = Buffer.concat(parts)
      let at = 0
      const push = (): void => {
        while (at < body.byteLength) {
          const piece = body.subarray(at, at += 128 * 1024)
          if (!downstream.write(piece)) return
        }
        if (!announced || body.byteLength === 0) downstream.end()
      }
      downstream.onDrain(push)
      downstream.head(200, [], announced ? body.byteLength : undefined)
      push()
    },
    failed: (error) => downstream.fail(error)
  })
}

describe("an answer of another node", () => {
  it.each([
    ["a value", `GET /v9/things/7 HTTP/1.1\r\n${closing}Origin: https://app.example\r\n\r\n`, /^HTTP\/1.1 200 /],
    ["a value's head", `HEAD /v9/things/7 HTTP/1.1\r\n${closing}\r\n`, /^HTTP\/1.1 200 /],
    ["nothing", `DELETE /v9/things/7 HTTP/1.1\r\n${closing}\r\n`, /^HTTP\/1.1 204 /],
    ["a new thing", `POST /v9/things HTTP/1.1\r\n${closing}Content-Length: 14\r\n\r\n{"name":"one"}`, /^HTTP\/1.1 201 /],
    ["a refusal", `GET /v9/things/none HTTP/1.1\r\n${closing}\r\n`, /^HTTP\/1.1 404 /],
    ["a refused body", `POST /v9/things HTTP/1.1\r\n${closing}Content-Length: 12\r\n\r\n{"name":"9"}`, /^HTTP\/1.1 422 /],
    ["an event stream", `GET /v9/events/mine HTTP/1.1\r\n${closing}\r\n`, /^HTTP\/1.1 200 [^]*"n":2/],
    ["an agent's small answer", `POST /v9/relay/small HTTP/1.1\r\n${closing}Content-Length: 2\r\n\r\nhi`, /^HTTP\/1.1 299 [^]*x-agent: caf\xc3\xa9\r\n[^]*hello$/],
    ["an agent's answer of unknown length", `POST /v9/relay/chunks HTTP/1.1\r\n${closing}\r\n`, /^HTTP\/1.1 200 [^]*5\r\nhello\r\n0\r\n\r\n$/],
    ["an agent's empty answer", `GET /v9/relay/empty HTTP/1.1\r\n${closing}\r\n`, /^HTTP\/1.1 200 [^]*\r\n\r\n$/],
    ["an agent's 304", `GET /v9/relay/same HTTP/1.1\r\n${closing}\r\n`, /^HTTP\/1.1 304 /]
  ])("of %s is the very same", async (_, request, expected) => {
    for (const edge of [scene.first, scene.owner]) {
      edge.relay = (_caller, agent, _dress, downstream) => {
        if (agent === "small") return downstream.reply(299, [["x-agent", "café"], ["X-Twice", "1"], ["X-Twice", "2"]], "hello")
        downstream.head(agent === "same" ? 304 : 200, [["etag", "\"1\""]], agent === "empty" ? 0 : undefined)
        if (agent === "chunks") downstream.write(Buffer.from("hello"))
        downstream.end()
      }
    }
    const passed = await raw(request)
    expect(scene.first.fixture.calls).toEqual([])
    scene.owner.fixture.calls.length = 0
    const direct = await raw(request, scene.owner.port)
    expect(timeless(passed)).toBe(timeless(direct))
    expect(passed).toMatch(expected)
    expect(passed.match(/^(?:date|x-request-id|uwebsockets): /gim)).toHaveLength(3)
  })

  it("names the request as the first node knows it, once, and counts where it was answered", async () => {
    const counted = async (): Promise<number> => {
      // Both nodes of this process count in the same registry; each hands its own counts over when it is asked.
      await scene.fetch("/metrics")
      const text = await (await fetch(`${scene.owner.url}/metrics`)).text()
      return Number(/tollgate_requests_total\{row="fixture.things.get",status="2xx"\} (\d+)/.exec(text)?.[1] ?? 0)
    }
    const before = await counted()
    const answer = await scene.fetch("/v9/things/1", { headers: { origin: "https://app.example" } })
    expect(answer.headers.get("x-request-id")).toMatch(/^[\w-]{13}$/)
    expect(answer.headers.get("access-control-allow-origin")).toBe("https://app.example")
    expect(answer.headers.get("x-ratelimit-limit")).toBe("60")
    expect(await answer.json()).toEqual({ id: "1", name: "it" })
    expect(await counted()).toBe(before + 1)
    expect(await (await scene.fetch("/metrics")).text()).toMatch(/tollgate_calls_passed_on_total\{outcome="answered"\} [1-9]/)
  })

  it("is a stored one when its idempotency key came before", async () => {
    scene.owner.stored.get = () => ({ status: 201, headers: [], body: "{\"id\":\"first\"}" })
    const answer = await scene.fetch("/v9/things", { method: "POST", headers: { "idempotency-key": "k" }, body: "{\"name\":\"one\"}" })
    expect([answer.status, answer.headers.get("idempotent-replayed"), await answer.text()]).toEqual([201, "true", "{\"id\":\"first\"}"])
    expect(scene.owner.fixture.calls).toEqual([])
  })

  it("reaches each of a hundred callers at once", async () => {
    const answers = await Promise.all(Array.from({ length: 100 }, async (_, i) => (await scene.fetch(`/v9/things/${i}`)).json()))
    expect(answers.map((answer) => (answer as { id: string }).id)).toEqual(Array.from({ length: 100 }, (_, i) => String(i)))
  })

  it.each([
    ["a page of its own", "GET /health", /"status":"ok"/],
    ["a public row", "GET /v9/things", /"one"/],
    ["a path that it does not know", "GET /v9/nowhere", /^HTTP\/1.1 404 /]
  ])("is not asked for %s", async (_, line, expected) => {
    expect(await raw(`${line} HTTP/1.1\r\n${closing}\r\n`)).toMatch(expected)
    expect(scene.owner.fixture.calls).toEqual([])
  })

  it("is not asked for a socket", async () => {
    const joined = signal()
    const silent = scene.first.fixture.session
    scene.first.fixture.session = (socket, room) => {
      joined.fire()
      return silent(socket, room)
    }
    const socket = new WebSocket(`ws://127.0.0.1:${scene.first.port}/v9/ws/den`, { headers: { authorization: "Bearer placed" } })
    await joined.promise
    socket.close()
  })
})

describe("a call that is passed on", () => {
  const seenBy = async (request: string): Promise<Downstream["request"]> => {
    const seen = signal<Downstream["request"]>()
    scene.owner.relay = (_caller, _agent, _dress, downstream) => {
      const { method, query, host, headers, contentLength, remoteAddress, requestId, receivedAtMs } = downstream.request
      seen.fire({ method, query, host, headers: [...headers], contentLength, remoteAddress, requestId, receivedAtMs })
      downstream.reply(200, [], "ok")
    }
    const connection = await connect()
    connection.send(request)
    await connection.until(({ text }) => text.endsWith("\r\n\r\nok"))
    return seen.promise
  }

  it("is the caller's, with host, path, query, headers and address, and nothing of the nodes' own", async () => {
    const { method, query, host, headers, contentLength, remoteAddress } = await seenBy(
      "POST /v9/relay/caf%C3%A9?a=%20&b=\xc3\xa9 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer placed\r\nX-Two: 1\r\nX-Two: 2\r\nX-Word: caf\xc3\xa9s\r\nX-Mine: 1\r\nConnection: x-mine\r\nExpect: 100-continue\r\nTE: trailers\r\nContent-Length: 2\r\n\r\nhi"
    )
    expect({ method, query, host, contentLength, remoteAddress }).toEqual({ method: "POST", query: "a=%20&b=\xc3\xa9", host: "a", contentLength: 2, remoteAddress: "127.0.0.1" })
    expect(headers).toEqual(expect.arrayContaining([["x-two", "1"], ["x-two", "2"], ["x-word", "caf\xc3\xa9s"], ["x-mine", "1"], ["connection", "x-mine"], ["content-length", "2"]]))
    expect(headers.map(([name]) => name).filter((name) => /^(?:x-tollgate|expect|te$)/.test(name))).toEqual([])
  })

  it("gets no say in who it comes from by headers that nodes write", async () => {
    const lines = `X-Tollgate-Hop: ${secret}\r\nX-Tollgate-Hop-Address: 10.9.9.9\r\nX-Tollgate-Hop-Request-Id: forged\r\nX-Tollgate-Hop-Not-Mine: 1\r\nx-tollgate-hopper: 1\r\n`
    const { headers, remoteAddress, requestId } = await seenBy(`POST /v9/relay/a HTTP/1.1\r\n${placed}${lines}Connection: x-tollgate-hop, x-tollgate-hop-address, authorization\r\n\r\n`)
    expect([remoteAddress, requestId]).toEqual(["127.0.0.1", expect.not.stringMatching("forged")])
    expect(headers.filter(([name]) => name.startsWith("x-tollgate"))).toEqual([])
    scene.first.owner = undefined
    scene.first.relay = (_caller, _agent, _dress, downstream) => downstream.reply(200, [], JSON.stringify([downstream.request.remoteAddress, downstream.request.requestId, downstream.canPassOn, downstream.request.headers]))
    const here = await raw(`POST /v9/relay/a HTTP/1.1\r\n${closing}${lines}\r\n`)
    expect(here).toContain("[\"127.0.0.1\"")
    expect(here).not.toMatch(/x-tollgate|forged/)
  })

  it.each([
    ["two lengths", "Content-Length: 2\r\nContent-Length: 3\r\n", "{}"],
    ["a length and chunks", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"],
    ["an encoding before chunks", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"]
  ])("with %s is refused before", async (_, lines, body) => {
    expect(await raw(`POST /v9/things HTTP/1.1\r\n${placed}${lines}\r\n${body}`)).toMatch(/^HTTP\/1.1 400 /)
    expect(scene.owner.fixture.calls).toEqual([])
  })

  it("with a header that can't be written is refused, not shortened", async () => {
    expect(await raw(`POST /v9/things HTTP/1.1\r\n${closing}Idempotency-Key: a\x7fb\r\nContent-Length: 14\r\n\r\n{"name":"one"}`)).toMatch(/^HTTP\/1.1 400 [^]*control character/)
    expect(scene.owner.fixture.calls).toEqual([])
  })

  it("may have a long head, which came in pieces", async () => {
    const connection = await connect()
    connection.send(`GET /v9/things/7?q=${"q".repeat(8_000)} HTTP/1.1\r\n${closing}`)
    await scene.fetch("/health")
    connection.send(`${Array.from({ length: 30 }, (_, i) => `x-long-${i}: ${"v".repeat(500)}\r\n`).join("")}\r\n`)
    expect(await connection.closed()).toMatch(/^HTTP\/1.1 200 /)
  })

  it("with too much of a body is refused by whoever notices, before all of it is sent", async () => {
    const connection = await connect()
    connection.send(`POST /v9/things HTTP/1.1\r\n${placed}Content-Length: 90000000\r\n\r\n${"a".repeat(100_000)}`)
    expect(await connection.closed()).toMatch(/^HTTP\/1.1 413 [^]*connection: close\r\n/i)
    await restart({ relayBodyBytesMax: 10 })
    expect((await scene.fetch("/v9/relay/a", { method: "POST", body: "a".repeat(11) })).status).toBe(413)
  })

  it.each([0, 1, 70_000, 20 * MiB])("brings a body of %i bytes there and back, with its length and in chunks", async (size) => {
    const body = randomBytes(size)
    const print = createHash("sha256").update(body).digest("hex")
    for (const announced of [true, false]) {
      scene.owner.relay = echo(announced)
      const init = announced ? { body } : { body: new Blob([body]).stream(), duplex: "half" as const }
      const answer = await scene.fetch("/v9/relay/a", { method: "POST", ...init })
      expect(answer.headers.get("content-length")).toBe(announced || size === 0 ? String(size) : null)
      expect(createHash("sha256").update(Buffer.from(await answer.arrayBuffer())).digest("hex")).toBe(print)
    }
  })

  it("is stopped while the owner takes no more, and loses nothing", async () => {
    const total = 48 * MiB
    const begun = signal<() => void>()
    let received = 0
    scene.owner.relay = (_caller, _agent, _dress, downstream) => {
      const body = downstream.stream(total, {
        chunk: (bytes, last) => {
          if (received === 0) {
            body.pause()
            begun.fire(() => body.resume())
          }
          received += bytes.byteLength
          if (last) downstream.reply(200, [], String(received))
        },
        failed: (error) => downstream.fail(error)
      })
    }
    const body = Buffer.alloc(total, 97)
    const before = process.memoryUsage().arrayBuffers
    const connection = await connect()
    connection.send(`POST /v9/relay/a HTTP/1.1\r\n${placed}Content-Length: ${total}\r\n\r\n`)
    connection.send(body)
    const resume = await begun.promise
    for (let i = 0; i < 200; i++) await scene.fetch("/health")
    // Sender and nodes are all in this process: what one of them keeps is seen here.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(total / 2)
    expect(received).toBeLessThan(8 * MiB)
    resume()
    await connection.until(({ text }) => text.endsWith(String(total)))
  })

  it.each([["with a length", true], ["in chunks", false]])("stops the owner while the caller doesn't read (%s)", async (_, announced) => {
    const piece = Buffer.alloc(256 * 1024, 98)
    const pieces = 256
    let written = 0
    const blocked = signal()
    scene.owner.relay = (_caller, _agent, _dress, downstream) => {
      const push = (): void => {
        while (written < pieces) {
          written++
          if (!downstream.write(piece)) return blocked.fire()
        }
        downstream.end()
      }
      downstream.onDrain(push)
      downstream.head(200, [], announced ? pieces * piece.byteLength : undefined)
      push()
    }
    const connection = await connect()
    connection.countOnly()
    connection.socket.pause()
    connection.send(`POST /v9/relay/a HTTP/1.1\r\n${placed}\r\n`)
    await blocked.promise
    expect(await standing(() => written)).toBeLessThan(pieces / 2)
    connection.socket.resume()
    await connection.until(({ bytes }) => bytes > pieces * piece.byteLength)
    // The connection is still good for another call.
    connection.send(`GET /v9/things/1 HTTP/1.1\r\n${closing}\r\n`)
    await connection.closed()
    expect(scene.owner.fixture.calls).toHaveLength(1)
  })

  it("may be answered before its body was read, and the caller's connection goes on", async () => {
    scene.owner.relay = (_caller, _agent, _dress, downstream) => {
      downstream.stream(MiB, { chunk: () => undefined, failed: () => undefined }).pause()
      downstream.head(200, [], 2)
      downstream.write(Buffer.from("ok"))
    }
    const connection = await connect()
    connection.send(`POST /v9/relay/a HTTP/1.1\r\n${placed}Content-Length: 4\r\n\r\nab`)
    await connection.until(({ text }) => text.endsWith("ok"))
    connection.send(`cdGET /v9/things/1 HTTP/1.1\r\n${placed}\r\n`)
    await connection.until(({ text }) => text.includes("\"it\""))
  })

  it.each([["unread", false], ["collected", true]])("by the kernel takes its body with it (%s)", async (_, collected) => {
    scene.first.owner = undefined
    const owner = { nodeId: "owner", host: "127.0.0.1", port: 0, hopPort: scene.owner.hopPort! }
    let canPassOn: boolean | undefined
    scene.first.relay = (_caller, _agent, _dress, downstream) => {
      canPassOn = downstream.canPassOn
      if (collected) downstream.collect(MiB, (body) => downstream.passOn(owner, body), (error) => downstream.fail(error))
      else downstream.passOn(owner, undefined)
    }
    const there: Array<boolean> = []
    scene.owner.relay = (...parts) => {
      there.push(parts[3].canPassOn)
      echo(true)(...parts)
    }
    for (const init of [{ body: "hello" }, { body: new Blob(["hello"]).stream(), duplex: "half" as const }]) {
      expect(await (await scene.fetch("/v9/relay/a", { method: "POST", ...init })).text()).toBe("hello")
    }
    expect([canPassOn, ...there]).toEqual([true, false, false])
  })

  it("by the kernel comes back with its body when that node did nothing", async () => {
    scene.owner.owner = { nodeId: "third", host: "127.0.0.1", port: 0, hopPort: 9 }
    const owner = scene.first.owner!
    scene.first.owner = undefined
    let times = 0
    scene.first.relay = (_caller, _agent, _dress, downstream) => downstream.collect(MiB, (body) => {
      if (++times > 1) return downstream.reply(200, [], body)
      scene.cluster.move()
      downstream.passOn(owner, body)
    }, (error) => downstream.fail(error))
    const answered = scene.fetch("/v9/relay/a", { method: "POST", body: "hello" })
    await expect.poll(() => {
      scene.cluster.move()
      return times
    }, { timeout: 20_000 }).toBe(2)
    expect(await (await answered).text()).toBe("hello")
  })
})

describe("the port for other nodes", () => {
  const head = (lines: string): string => `POST /v9/wait HTTP/1.1\r\nHost: a\r\n${lines}\r\n`
  const told = "X-Tollgate-Hop-Address: 10.1.2.3\r\nX-Tollgate-Hop-Request-Id: told\r\n"

  it.each([
    ["no secret", told],
    ["a wrong secret", `X-Tollgate-Hop: ${secret.slice(1)}x\r\n${told}`],
    ["a part of the secret", `X-Tollgate-Hop: ${secret.slice(1)}\r\n${told}`],
    ["nobody told of", `X-Tollgate-Hop: ${secret}\r\n`]
  ])("closes a connection with %s, without a word", async (_, lines) => {
    let ran = false
    scene.owner.fixture.wait = Effect.sync(() => {
      ran = true
      return "ran"
    })
    expect(await raw(head(lines), scene.owner.hopPort!)).toBe("")
    const upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    expect(await raw(`GET /v9/ws/den HTTP/1.1\r\nHost: a\r\n${lines}${upgrade}\r\n`, scene.owner.hopPort!)).toBe("")
    expect(ran).toBe(false)
  })

  it("believes who knows the secret", async () => {
    const connection = await connect(scene.owner.hopPort!)
    connection.send(`GET /v9/things/1 HTTP/1.1\r\n${placed}X-Tollgate-Hop: ${secret}\r\n${told}\r\n`)
    await connection.until(({ text }) => text.includes("\"it\""))
    expect(connection.text).toContain("x-request-id: told\r\n")
    expect(scene.owner.fixture.calls).toMatchObject([{ row: "get", remoteAddress: "10.1.2.3" }])
  })
})

describe("a connection of another node", () => {
  it("is left open with its answer, for that node reads the answer before it ends it", async () => {
    const lines = `${placed}X-Tollgate-Hop: ${secret}\r\nX-Tollgate-Hop-Address: 10.1.2.3\r\nX-Tollgate-Hop-Request-Id: told\r\n`
    const connection = await connect(scene.owner.hopPort!)
    connection.send(`POST /v9/things HTTP/1.1\r\n${lines}Content-Length: 100000\r\n\r\n`)
    await connection.until(({ text }) => text.includes("BodyTooLarge"))
    connection.send(`${"a".repeat(100_000)}GET /v9/things/1 HTTP/1.1\r\n${lines}\r\n`)
    await connection.until(({ text }) => text.includes("\"it\""))
  })
})

describe("the public port", () => {
  const portOf = (edge: EdgeServer): Partial<Settings> => ({ port: edge.port })

  it("is shared by nodes of one gateway, each with a port of its own for the others", async () => {
    const free = await startEdge()
    await free.stop()
    const nodes = [await startEdge({ settings: portOf(free), cluster: new ScriptedCluster().service }), await startEdge({ settings: portOf(free), cluster: new ScriptedCluster().service })]
    expect(nodes.map(({ port }) => port)).toEqual([free.port, free.port])
    expect(new Set([free.port, ...nodes.map(({ hopPort }) => hopPort)]).size).toBe(3)
    await expect(startEdge({ settings: portOf(free) })).rejects.toThrow(/can't be listened on/)
    for (const node of nodes) await node.stop()
  })

  it("is never shared with another program, nor by a gateway that is alone", async () => {
    const alone = await startEdge()
    expect(alone.hopPort).toBeUndefined()
    const inUse = new RegExp(`HOST=127.0.0.1 PORT=${alone.port} can't be listened on`)
    await expect(startEdge({ settings: portOf(alone), cluster: new ScriptedCluster().service })).rejects.toThrow(inUse)
    await expect(startEdge({ settings: portOf(alone) })).rejects.toThrow(inUse)
    await alone.stop()
    await expect(startEdge({ settings: { clusterHost: "192.0.2.1" }, cluster: new ScriptedCluster().service })).rejects.toThrow(/CLUSTER_HOST=192.0.2.1 can't be listened on/)
  })
})

describe("an event stream of another node", () => {
  it("comes as it happens, and is interrupted there when its reader leaves", async () => {
    const interrupted = signal()
    scene.owner.fixture.events = Stream.concat(Stream.succeed({ n: 1 }), Stream.never).pipe(Stream.ensuring(Effect.sync(() => interrupted.fire())))
    const connection = await connect()
    connection.send(`GET /v9/events/mine HTTP/1.1\r\n${placed}\r\n`)
    await connection.until(({ text }) => text.includes("\"n\":1"))
    connection.destroy()
    await interrupted.promise
  })

  it.each([["first", "first"], ["owner", "owner"]] as const)("ends when the %s node stops", async (_, stopping) => {
    scene.owner.fixture.events = Stream.concat(Stream.succeed({ n: 1 }), Stream.never)
    const connection = await connect()
    connection.send(`GET /v9/events/mine HTTP/1.1\r\n${placed}\r\n`)
    await connection.until(({ text }) => text.includes("\"n\":1"))
    await scene[stopping].drain()
    await connection.until(({ text }) => text.endsWith("\r\n0\r\n\r\n"))
  })
})
