/**
 * One WebSocket as cheaply as Node can hold it: a bare socket, and frames made
 * and read by hand (RFC 6455). Fifteen thousand of them in one process must not
 * cost more than the server that is measured.
 *
 * All sockets read into one buffer; only what is left of a frame that came in
 * part is kept. Frames are masked, as a client's must be, with zeros, which the
 * server unmasks like any others. Pings are answered. It trusts its server: no
 * extension, no continuation frames, no check of the handshake's key.
 */
import { type Socket, connect } from "node:net"

export interface WebSocketListener {
  opened(): void
  text(payload: string): void
  /** Once, unless `drop` was called. A code when the server sent one. */
  closed(code: number | undefined, reason: string): void
}

const opcodes = { text: 0x1, close: 0x8, ping: 0x9, pong: 0xa } as const
const readBuffer = Buffer.allocUnsafeSlow(64 * 1024)
const headEnd = "\r\n\r\n"

/** One whole frame of a client. */
const frameOf = (opcode: number, payload: Buffer): Buffer => {
  const length = payload.length
  if (length > 0xffff) throw new Error(`a payload of ${length} bytes is more than a load sends`)
  const extended = length > 125 ? 2 : 0
  const frame = Buffer.alloc(6 + extended + length)
  frame[0] = 0x80 | opcode
  frame[1] = 0x80 | (extended > 0 ? 126 : length)
  if (extended > 0) frame.writeUInt16BE(length, 2)
  payload.copy(frame, 6 + extended)
  return frame
}

export class WebSocketClient {
  readonly #socket: Socket
  readonly #listener: WebSocketListener
  /** The head of the server's answer, or a frame, of which the rest is still to come. */
  #rest: Buffer | undefined
  #isOpen = false
  #isOver = false

  constructor(port: number, path: string, listener: WebSocketListener) {
    this.#listener = listener
    this.#socket = connect({
      port, host: "127.0.0.1", noDelay: true,
      onread: { buffer: readBuffer, callback: (length) => this.#read(readBuffer.subarray(0, length)) }
    })
    this.#socket.on("error", (cause) => this.#end(undefined, cause.message)).on("close", () => this.#end(undefined, "the connection ended"))
    this.#socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dG9sbGdhdGUgYmVuY2ggIQ==${headEnd}`)
  }

  send(text: string): void {
    this.#socket.write(frameOf(opcodes.text, Buffer.from(text)))
  }

  /** As a cut cable does it: no close frame, no FIN. */
  drop(): void {
    this.#isOver = true
    this.#socket.resetAndDestroy()
  }

  #read(bytes: Buffer): boolean {
    if (this.#isOver) return true
    const all = this.#rest === undefined ? bytes : Buffer.concat([this.#rest, bytes])
    this.#rest = undefined
    let at = this.#isOpen ? 0 : this.#readHead(all)
    while (at < all.length && !this.#isOver) {
      const next = this.#readFrame(all, at)
      if (next < 0) break
      at = next
    }
    if (at < all.length && !this.#isOver) this.#rest = Buffer.from(all.subarray(at))
    return true
  }

  /** Answers where the frames begin. */
  #readHead(bytes: Buffer): number {
    const end = bytes.indexOf(headEnd)
    if (end < 0) return 0
    const status = bytes.toString("latin1", 9, 12)
    if (status !== "101") {
      this.#end(undefined, `the server answered ${status}`)
      return bytes.length
    }
    this.#isOpen = true
    this.#listener.opened()
    return end + headEnd.length
  }

  /** Answers where the next frame begins; below 0 when this one is not whole. */
  #readFrame(bytes: Buffer, at: number): number {
    if (!this.#isOpen || bytes.length < at + 2) return -1
    const short = bytes[at + 1]!
    const begin = at + (short < 126 ? 2 : short === 126 ? 4 : 10)
    if (bytes.length < begin) return -1
    const length = short < 126 ? short : short === 126 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2))
    const end = begin + length
    if (bytes.length < end) return -1
    switch (bytes[at]) {
      case 0x80 | opcodes.text:
        this.#listener.text(bytes.toString("utf8", begin, end))
        break
      case 0x80 | opcodes.ping:
        this.#socket.write(frameOf(opcodes.pong, bytes.subarray(begin, end)))
        break
      case 0x80 | opcodes.close:
        this.#end(length >= 2 ? bytes.readUInt16BE(begin) : undefined, bytes.toString("utf8", begin + 2, end))
        break
      default:
        this.#end(undefined, `a frame that begins with ${bytes[at]}`)
    }
    return end
  }

  #end(code: number | undefined, reason: string): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#socket.destroy()
    this.#listener.closed(code, reason)
  }
}
