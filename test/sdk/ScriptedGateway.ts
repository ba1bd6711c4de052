/**
 * A gateway that says what a test tells it to: for what the real one can't be
 * made to do at will. HTTP answers come from `answer`; chat sockets are handed
 * to the test, which reads the client's frames and writes its own. It knows RFC
 * 6455 from the server's side, independently of the client under test.
 */
import { createHash } from "node:crypto"
import { once } from "node:events"
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http"
import type { AddressInfo, Socket } from "node:net"

/** Values for which somebody waits, or that wait for somebody. */
class Arrivals<A> {
  readonly #values: Array<A> = []
  readonly #takers: Array<(value: A) => void> = []

  push(value: A): void {
    const taker = this.#takers.shift()
    if (taker === undefined) this.#values.push(value)
    else taker(value)
  }

  next(): Promise<A> {
    const value = this.#values.shift()
    return value === undefined ? new Promise((take) => this.#takers.push(take)) : Promise.resolve(value)
  }

  get waiting(): number {
    return this.#values.length
  }
}

export const serverFrame = (payload: string | Uint8Array, first = 0x81): Buffer => {
  const bytes = Buffer.from(payload)
  const head = bytes.length < 126 ? Buffer.of(first, bytes.length) : bytes.length < 65_536 ? Buffer.of(first, 126, 0, 0) : Buffer.of(first, 127, 0, 0, 0, 0, 0, 0, 0, 0)
  if (head.length === 4) head.writeUInt16BE(bytes.length, 2)
  if (head.length === 10) head.writeBigUInt64BE(BigInt(bytes.length), 2)
  return Buffer.concat([head, bytes])
}

export const closeFrame = (code: number, reason = ""): Buffer => {
  const payload = Buffer.alloc(2 + Buffer.byteLength(reason))
  payload.writeUInt16BE(code)
  payload.write(reason, 2)
  return serverFrame(payload, 0x88)
}

interface ClientFrame {
  readonly opcode: number
  readonly payload: Buffer
}

/** The gateway's end of one chat socket. */
export class ScriptedSocket {
  readonly path: string
  readonly closed: Promise<void>
  readonly #socket: Socket
  readonly #frames = new Arrivals<ClientFrame>()
  #bytes = Buffer.alloc(0)

  constructor(socket: Socket, path: string) {
    this.#socket = socket.setNoDelay(true)
    this.path = path
    this.closed = new Promise((done) => void socket.once("close", () => done()))
    socket.on("error", () => {}).on("end", () => socket.end()).on("data", (bytes) => this.#read(bytes))
  }

  /** The client's next frame, whatever it is. Fails when it is not masked. */
  raw(): Promise<ClientFrame> {
    return this.#frames.next()
  }

  /** The client's next message. */
  async frame(): Promise<any> {
    const { opcode, payload } = await this.raw()
    if (opcode !== 1) throw new Error(`expected text, got opcode ${opcode} ${payload.toString("hex")}`)
    return JSON.parse(payload.toString())
  }

  get unread(): number {
    return this.#frames.waiting
  }

  send(...frames: ReadonlyArray<object>): void {
    this.write(Buffer.concat(frames.map((frame) => serverFrame(JSON.stringify(frame)))))
  }

  write(bytes: Uint8Array): void {
    this.#socket.write(bytes)
  }

  close(code: number, reason = ""): void {
    this.#socket.end(closeFrame(code, reason))
  }

  cut(): void {
    this.#socket.destroy()
  }

  #read(bytes: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes])
    for (;;) {
      const [first = 0, second = 0] = this.#bytes
      const head = (second & 0x7f) === 127 ? 10 : (second & 0x7f) === 126 ? 4 : 2
      if (this.#bytes.length < head + 4) return
      if ((second & 0x80) === 0) throw new Error("a client's frame is not masked")
      const length = head === 10 ? Number(this.#bytes.readBigUInt64BE(2)) : head === 4 ? this.#bytes.readUInt16BE(2) : second & 0x7f
      if (this.#bytes.length < head + 4 + length) return
      const mask = this.#bytes.subarray(head, head + 4)
      const payload = Buffer.from(this.#bytes.subarray(head + 4, head + 4 + length).map((byte, at) => byte ^ mask[at & 3]!))
      this.#bytes = this.#bytes.subarray(head + 4 + length)
      this.#frames.push({ opcode: first & 0x0f, payload })
    }
  }
}

export class ScriptedGateway {
  /** Every HTTP request, as "METHOD path". */
  readonly asked: Array<string> = []
  answer: (request: IncomingMessage, response: ServerResponse, body: string) => void = (_, response) => void response.writeHead(404).end()
  /** Instead of taking the upgrade. */
  refuse: ((socket: Socket, request: IncomingMessage) => void) | undefined
  readonly #server: Server = createServer()
  #port = 0
  readonly #sockets = new Arrivals<ScriptedSocket>()
  readonly #open = new Set<Socket>()

  async listen(): Promise<this> {
    this.#server.on("request", (request, response) => {
      let body = ""
      request.setEncoding("latin1").on("data", (part) => { body += part }).on("end", () => {
        this.asked.push(`${request.method} ${request.url}`)
        this.answer(request, response, body)
      })
    }).on("connection", (socket) => {
      this.#open.add(socket)
      socket.once("close", () => this.#open.delete(socket))
    }).on("upgrade", (request, socket: Socket) => {
      if (this.refuse !== undefined) return this.refuse(socket, request)
      const accept = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64")
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`)
      this.#sockets.push(new ScriptedSocket(socket, request.url!))
    })
    this.#server.listen(0, "127.0.0.1")
    await once(this.#server, "listening")
    this.#port = (this.#server.address() as AddressInfo).port
    return this
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  /** The next chat socket, its upgrade taken. */
  socket(): Promise<ScriptedSocket> {
    return this.#sockets.next()
  }

  get unclaimed(): number {
    return this.#sockets.waiting
  }

  close(): void {
    this.#server.close()
    for (const socket of this.#open) socket.destroy()
  }
}
