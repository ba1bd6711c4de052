/**
 * A chat client by hand over a bare TCP connection, so light that a test can
 * have thousands: it ends its connection in every way there is, and says what no
 * client library would. It answers pings, and keeps the frames that come.
 */
import { type Socket, connect } from "node:net"
import type { Frame } from "./ChatSocket.ts"
import { clientFrame, opcodes } from "./RawSocket.ts"

const headEnd = "\r\n\r\n"
const handshake = (path: string): string =>
  `GET ${path} HTTP/1.1\r\nHost: gateway.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13${headEnd}`

/** In one string, as tests compare endings: "4410", or "cut" when the connection ended without a close frame. */
export type Ending = string

export class LightChat {
  readonly frames: Array<Frame> = []
  /** How the connection ended; `undefined` while it is there. */
  ending: Ending | undefined
  readonly #socket: Socket
  #rest: Buffer = Buffer.alloc(0)
  #isOpen = false
  #code: number | undefined
  #waiting: Array<() => void> = []

  private constructor(port: number, path: string) {
    this.#socket = connect({ port, host: "127.0.0.1", noDelay: true })
    this.#socket.on("data", (bytes) => this.#read(bytes)).on("error", () => {}).on("close", () => {
      this.ending = String(this.#code ?? "cut")
      this.#wake()
    })
    this.#socket.write(handshake(path))
  }

  /** Answers when the handshake is done; fails when it is refused. */
  static async connect(port: number, ticker: string): Promise<LightChat> {
    const chat = new LightChat(port, `/v1/ws/agent/${ticker}`)
    await chat.#holds(() => chat.#isOpen)
    return chat
  }

  /** Connects and authenticates; fails when the session is refused. */
  static async open(port: number, ticker: string, token: string, sessionId?: string): Promise<LightChat> {
    const chat = await LightChat.connect(port, ticker)
    chat.send({ type: "auth", token, session_id: sessionId })
    await chat.next("session")
    return chat
  }

  get sessionId(): string {
    return this.frames.find(({ type }) => type === "session")!["session_id"] as string
  }

  send(frame: object | string): void {
    this.sendRaw(clientFrame(opcodes.text, typeof frame === "string" ? frame : JSON.stringify(frame)))
  }

  /** Bytes as they are: perhaps frames. */
  sendRaw(bytes: Uint8Array): void {
    if (!this.#socket.destroyed) this.#socket.write(bytes)
  }

  /** Waits until the operating system has taken what was sent. */
  async flushed(): Promise<void> {
    if (this.#socket.writableNeedDrain) await new Promise<void>((done) => this.#socket.once("drain", done).once("close", done))
  }

  reset(): void {
    this.#socket.resetAndDestroy()
  }

  halfClose(): void {
    this.#socket.end()
  }

  /** A close frame, with a code or none. */
  hangUp(code?: number): void {
    const payload = Buffer.alloc(code === undefined ? 0 : 2)
    if (code !== undefined) payload.writeUInt16BE(code)
    this.sendRaw(clientFrame(opcodes.close, payload))
  }

  /** The first frame of the type at or after `from`; a refusal instead, or the connection's end, fails. */
  next(type: string, from = 0): Promise<Frame> {
    return this.until((frame) => {
      if (frame.type === "error" && type !== "error") throw new Error(`instead came ${JSON.stringify(frame)}`)
      return frame.type === type
    }, from)
  }

  async until(wanted: (frame: Frame) => boolean, from = 0): Promise<Frame> {
    for (let at = from;; at++) {
      await this.#holds(() => at < this.frames.length)
      if (wanted(this.frames[at]!)) return this.frames[at]!
    }
  }

  async closed(): Promise<Ending> {
    while (this.ending === undefined) await this.#event()
    return this.ending
  }

  /** What the chunks from there on say. */
  text(from = 0): string {
    return this.frames.slice(from).filter(({ type }) => type === "chunk").map(({ data }) => data as string).join("")
  }

  async #holds(so: () => boolean): Promise<void> {
    while (!so()) {
      if (this.ending !== undefined) throw new Error(`the connection ended (${this.ending}) after ${JSON.stringify(this.frames.slice(-3))}`)
      await this.#event()
    }
  }

  #event(): Promise<void> {
    return new Promise((happened) => { this.#waiting.push(happened) })
  }

  #wake(): void {
    for (const happened of this.#waiting.splice(0)) happened()
  }

  #read(bytes: Buffer): void {
    let all = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes])
    if (!this.#isOpen) {
      const end = all.indexOf(headEnd)
      this.#rest = all
      if (end < 0) return
      if (!all.toString("latin1", 0, 12).endsWith(" 101")) return void this.#socket.destroy()
      this.#isOpen = true
      all = all.subarray(end + headEnd.length)
    }
    let at = 0
    while (at < all.length) {
      const next = this.#frame(all, at)
      if (next === undefined) break
      at = next
    }
    this.#rest = all.subarray(at)
    this.#wake()
  }

  /** Where the next one begins; `undefined`: this one is not whole. */
  #frame(bytes: Buffer, at: number): number | undefined {
    if (bytes.length < at + 2) return undefined
    const short = bytes[at + 1]!
    const begin = at + (short < 126 ? 2 : short === 126 ? 4 : 10)
    if (bytes.length < begin) return undefined
    const end = begin + (short < 126 ? short : short === 126 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2)))
    if (bytes.length < end) return undefined
    const payload = bytes.subarray(begin, end)
    const opcode = bytes[at]! & 0x0f
    if (opcode === opcodes.text) this.frames.push(JSON.parse(payload.toString("utf8")) as Frame)
    else if (opcode === opcodes.ping) this.sendRaw(clientFrame(opcodes.pong, payload))
    else if (opcode === opcodes.close) this.#code = payload.length < 2 ? 1005 : payload.readUInt16BE(0)
    return end
  }
}
