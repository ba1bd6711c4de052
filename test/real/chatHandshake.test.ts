/** A chat socket before its first word: who may connect, what a frame may weigh, and who is hung up on. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { echoes } from "../support/ChatAgent.ts"
import { ChatScene, type ListedAgent } from "../support/ChatScene.ts"
import { ChatSocket, handshake } from "../support/ChatSocket.ts"
import { startEdge } from "../support/EdgeServer.ts"
import { until } from "../support/GatewayProcess.ts"
import { RawSocket, clientFrame, opcodes } from "../support/RawSocket.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)
let scene: ChatScene
let listed: ListedAgent
let key: string
let url: string

beforeAll(async () => {
  scene = await ChatScene.set(stage, { ALLOWED_ORIGINS: "https://app.example", CHAT_UNAUTHENTICATED_MAX: "4" })
  listed = await scene.list("0", echoes)
  key = (await scene.buyer()).key
  url = `${scene.gateway.url}/v1/ws/agent/${listed.ticker}`
})

describe("a page of", () => {
  it.each([
    ["an allowed origin", "https://app.example"], ["the gateway's own origin", "http://gateway.test"]
  ])("%s may connect", async (_, origin) => {
    expect((await handshake(url, { origin })).status).toBe(101)
  })

  it.each([
    ["another origin", "https://evil.example"], ["a longer origin", "https://app.example.evil.example"], ["another port", "https://app.example:8443"],
    ["another scheme", "http://app.example"], ["no origin that it tells", "null"], ["two origins", "https://app.example, https://evil.example"]
  ])("%s is refused before the upgrade, in the dialect's words", async (_, origin) => {
    const { status, headers, body } = await handshake(url, { origin })
    expect([status, headers["content-type"], JSON.parse(body)]).toEqual([
      403, "application/json", { detail: "Pages of this origin may not connect: the operator allows origins with ALLOWED_ORIGINS" }
    ])
  })
})

describe("a handshake", () => {
  it("of no page needs no origin, and is agreed to without a subprotocol or an extension, whatever is offered", async () => {
    const { status, headers } = await handshake(url, {
      "sec-websocket-protocol": "chat, superchat", "sec-websocket-extensions": "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame"
    })
    expect([status, headers["sec-websocket-accept"]]).toEqual([101, "HSmrc0sMlYUkAGmm5OPpG2HaGWk="])
    expect(headers).not.toHaveProperty("sec-websocket-protocol")
    expect(headers).not.toHaveProperty("sec-websocket-extensions")
  })

  it("of another version, or none, is told what is spoken here", async () => {
    expect(await handshake(url, { "sec-websocket-version": "8" })).toMatchObject({ status: 426, headers: { "sec-websocket-version": "13" } })
    const plain = await scene.gateway.call("GET", `/v1/ws/agent/${listed.ticker}`)
    expect([plain.status, plain.json]).toEqual([426, { detail: "header.upgrade: This path speaks WebSocket", errors: [{ loc: ["header", "upgrade"], msg: "This path speaks WebSocket" }] }])
  })

  it("is refused while too many sockets have not said who they are, and one that has makes room", async () => {
    const waiting = await Promise.all(Array.from({ length: 4 }, () => ChatSocket.connect(url)))
    const { status, headers, body } = await handshake(url)
    expect([status, headers["retry-after"], JSON.parse(body)]).toEqual([503, "1", { detail: "The gateway is busy. Nothing was done; try again in a second", retry_after: 1 }])
    waiting[0]!.send({ type: "auth", token: key })
    await waiting[0]!.next("session")
    const fifth = await ChatSocket.connect(url)
    expect((await handshake(url)).status).toBe(503)
    // One that goes, and one that is refused, make room as well.
    waiting[1]!.close()
    waiting[2]!.send("{")
    await Promise.all([waiting[1]!.closed, waiting[2]!.closed])
    await until(async () => await scene.gateway.metric("tollgate_chat_newcomers") === 2)
    for (const chat of [...waiting, fifth]) chat.close()
    await Promise.all([...waiting, fifth].map(({ closed }) => closed))
    await until(async () => await scene.gateway.metric("tollgate_chat_newcomers") === 0)
  })
})

describe("a frame", () => {
  /** `{"type":"ping"}`, so long. */
  const ping = (bytes: number): string => `{"type":"ping"${" ".repeat(bytes - 15)}}`

  it("of 64 KiB is read before auth, and of 1 MiB after; a longer one ends the socket with 1009", async () => {
    const chat = await ChatSocket.connect(url)
    chat.send(ping(64 * 1024))
    await chat.next("pong")
    chat.send({ type: "auth", token: key })
    await chat.next("session")
    const from = chat.frames.length
    chat.send(ping(1024 * 1024))
    await chat.next("pong", from)
    chat.send(ping(1024 * 1024 + 1))
    expect((await chat.closed).code).toBe(1009)
    const fresh = await ChatSocket.connect(url)
    fresh.send(ping(64 * 1024 + 1))
    expect((await fresh.closed).code).toBe(1009)
  })

  it("that would never end is not gathered: its connection is cut", async () => {
    const raw = await RawSocket.open(scene.gateway.port, `/v1/ws/agent/${listed.ticker}`)
    const frame = clientFrame(opcodes.text, "x")
    // Of two exbibytes.
    raw.connection.send(Buffer.concat([Buffer.of(0x81, 0xff), Buffer.of(0x20, 0, 0, 0, 0, 0, 0, 0), frame.subarray(2)]))
    await raw.connection.closed()
  })

  it.each([
    ["bytes ends the socket with 1003", opcodes.binary, 1003], ["text that is no UTF-8 cuts the connection", opcodes.text, undefined]
  ])("of %s, before auth and after", async (_, opcode, code) => {
    for (const isAuthenticated of [false, true]) {
      const raw = await RawSocket.open(scene.gateway.port, `/v1/ws/agent/${listed.ticker}`)
      if (isAuthenticated) {
        raw.send({ type: "auth", token: key })
        await raw.until("session")
      }
      raw.connection.send(clientFrame(opcode, Uint8Array.of(0xff, 0xfe)))
      expect(await raw.closeCode()).toBe(code)
    }
  })

  it("may come in pieces, with a ping between them, which is answered", async () => {
    const raw = await RawSocket.open(scene.gateway.port, `/v1/ws/agent/${listed.ticker}`)
    const text = JSON.stringify({ type: "auth", token: key })
    const first = clientFrame(opcodes.text, text.slice(0, 20))
    first[0] = opcodes.text
    const rest = clientFrame(0, text.slice(20))
    for (const part of [first, clientFrame(opcodes.ping, "hi"), rest]) {
      for (const byte of part) raw.connection.send(Uint8Array.of(byte))
    }
    await raw.until("session")
    expect(raw.frames().find(({ opcode }) => opcode === opcodes.pong)?.payload.toString()).toBe("hi")
    raw.connection.destroy()
  })
})

describe("a peer that is silent", () => {
  it("is asked for a sign every now and then, and hung up on when it gives none", async () => {
    const edge = await startEdge({ limits: { socketPingSeconds: 2, socketIdleSeconds: 8 } })
    try {
      edge.fixture.session = () => ({ message: () => {}, drained: () => {}, stopping: () => {}, closed: () => {} })
      const [mute, alive] = await Promise.all([RawSocket.open(edge.port, "/v9/ws/den"), RawSocket.open(edge.port, "/v9/ws/den")])
      let answered = 0
      alive.connection.socket.on("data", () => {
        while (answered < alive.frames().filter(({ opcode }) => opcode === opcodes.ping).length) {
          answered++
          alive.connection.send(clientFrame(opcodes.pong, ""))
        }
      })
      await mute.connection.closed()
      expect(mute.frames().filter(({ opcode }) => opcode === opcodes.ping).length).toBeGreaterThan(1)
      const pings = answered
      await alive.connection.until(() => answered > pings + 1)
      alive.connection.destroy()
    } finally {
      await edge.stop()
    }
  })
})
