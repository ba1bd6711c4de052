/** The SDK's own WebSocket client for Node, against bytes of a server that a test makes. */
import { setImmediate as turnOfLoop } from "node:timers/promises"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { NodeWebSocket } from "../../sdk/typescript/src/nodeWebSocket.ts"
import { ScriptedGateway, type ScriptedSocket, closeFrame, serverFrame } from "./ScriptedGateway.ts"

let gateway: ScriptedGateway

beforeEach(async () => { gateway = await new ScriptedGateway().listen() })
afterEach(() => gateway.close())

interface Heard {
  readonly socket: NodeWebSocket
  readonly messages: Array<string>
  readonly opened: Promise<void>
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>
}

const dial = (): Heard => {
  const socket = new NodeWebSocket(gateway.url.replace("http", "ws"))
  const messages: Array<string> = []
  socket.onmessage = ({ data }) => messages.push(data)
  return {
    socket, messages,
    opened: new Promise((done) => { socket.onopen = () => done() }),
    closed: new Promise((done) => { socket.onclose = done })
  }
}

const met = async (): Promise<readonly [Heard, ScriptedSocket]> => {
  const client = dial()
  const server = await gateway.socket()
  await client.opened
  return [client, server]
}

describe("what the server says", () => {
  const frames = [
    serverFrame("short"), serverFrame("ü".repeat(100)), serverFrame("x".repeat(70_000)), serverFrame(""),
    // One message in three frames, a ping between them, and a pong that nobody asked for.
    serverFrame("one ", 0x01), serverFrame("two ", 0x00), serverFrame("are you there", 0x89), serverFrame("", 0x8a), serverFrame("three", 0x80)
  ]
  const expected = ["short", "ü".repeat(100), "x".repeat(70_000), "", "one two three"]

  it.each([["at once", Infinity], ["byte by byte", 1], ["in pieces of 3", 3], ["in pieces of 4096", 4_096]])("is heard whole when it comes %s", async (_, size) => {
    const [client, server] = await met()
    if (size === Infinity) server.write(Buffer.concat(frames))
    else for (const frame of frames) {
      for (let at = 0; at < frame.length;) {
        // The inside of the long one has no borders.
        const next = at + (at < 200 ? size : 4_096)
        server.write(frame.subarray(at, next))
        await turnOfLoop()
        at = next
      }
    }
    const pong = await server.raw()
    expect([pong.opcode, pong.payload.toString()]).toEqual([10, "are you there"])
    server.close(4_409, "elsewhere")
    expect(await client.closed).toMatchObject({ code: 4_409, reason: "elsewhere" })
    expect(client.messages).toEqual(expected)
  })

  it("is heard also when it comes with the upgrade itself", async () => {
    const client = dial()
    const server = await gateway.socket()
    server.write(Buffer.concat([serverFrame("early"), closeFrame(1000)]))
    expect(await client.closed).toMatchObject({ code: 1000 })
    expect(client.messages).toEqual(["early"])
  })
})

describe("a server", () => {
  it.each<[string, Buffer, number]>([
    ["that masks", Buffer.of(0x81, 0x80, 1, 2, 3, 4), 1002],
    ["that uses an extension nobody agreed on", Buffer.of(0xc1, 1, 65), 1002],
    ["that sends bytes", serverFrame("x", 0x82), 1003],
    ["that sends an unknown opcode", serverFrame("x", 0x83), 1002],
    ["that continues what it did not begin", serverFrame("x", 0x80), 1002],
    ["that begins a message within one", Buffer.concat([serverFrame("x", 0x01), serverFrame("y", 0x01)]), 1002],
    ["that fragments a ping", serverFrame("x", 0x09), 1002],
    ["that sends a long ping", serverFrame("x".repeat(126), 0x89), 1002],
    ["that announces more than 16 MiB", Buffer.of(0x81, 127, 0, 0, 0, 0, 1, 0, 0, 1), 1009],
    ["that announces more than any number", Buffer.of(0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255), 1009]
  ])("%s is left, and told why", async (_, bytes, code) => {
    const [client, server] = await met()
    server.write(bytes)
    expect(await client.closed).toMatchObject({ code })
    const { opcode, payload } = await server.raw()
    expect([opcode, payload.readUInt16BE()]).toEqual([8, code])
    await server.closed
    expect(client.messages).toEqual([])
  })

  it("that makes one message of many small frames is left above 16 MiB", async () => {
    const [client, server] = await met()
    server.write(serverFrame("", 0x01))
    const part = serverFrame(Buffer.alloc(1024 * 1024), 0x00)
    for (let count = 0; count < 17; count++) server.write(part)
    expect(await client.closed).toMatchObject({ code: 1009 })
  })

  it.each([
    ["another key", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: abc=\r\n\r\n", { code: 1002 }],
    ["503 and a reason", "HTTP/1.1 503 No\r\ncontent-length: 28\r\n\r\n{\"detail\":\"Gateway is full\"}", { code: 4_503, reason: "Gateway is full" }],
    ["403 and a page", "HTTP/1.1 403 No\r\ncontent-length: 6\r\n\r\n<html>", { code: 4_403, reason: "HTTP 403" }],
    ["404 and an endless page", `HTTP/1.1 404 No\r\ncontent-length: 999999\r\n\r\n${"x".repeat(10_000)}`, { code: 4_404 }],
    ["nothing", "", { code: 1006 }],
    ["no HTTP", "hello\r\n\r\n", { code: 1006 }]
  ])("that answers the upgrade with %s is left", async (_, answer, end) => {
    gateway.refuse = (socket) => void (answer === "" ? socket.destroy() : socket.write(answer))
    expect(await dial().closed).toMatchObject(end)
  })

  it("that goes away without a word is told as 1006", async () => {
    const [client, server] = await met()
    server.cut()
    expect(await client.closed).toMatchObject({ code: 1006 })
  })

  it("that is closed closes too, and nothing is heard in between", async () => {
    const [client, server] = await met()
    client.socket.close(1000, "bye")
    const { opcode, payload } = await server.raw()
    expect([opcode, payload.readUInt16BE(), payload.toString("utf8", 2)]).toEqual([8, 1000, "bye"])
    server.send({ late: true })
    server.close(1000)
    expect(await client.closed).toMatchObject({ code: 1000 })
    expect(client.messages).toEqual([])
  })

  it("that nobody listens at is told as 1006, also when its client lets go before", async () => {
    gateway.close()
    expect(await dial().closed).toMatchObject({ code: 1006 })
    const client = dial()
    client.socket.close()
    expect(await client.closed).toMatchObject({ code: 1006 })
  })
})

it("what the client says arrives masked and whole, whatever its length", async () => {
  const [client, server] = await met()
  for (const text of ["", "x", "ü🦊", "x".repeat(125), "x".repeat(126), "y".repeat(65_535), "z".repeat(65_536)]) {
    client.socket.send(text)
    const { opcode, payload } = await server.raw()
    expect([opcode, payload.toString()]).toEqual([1, text])
  }
  client.socket.close()
})
