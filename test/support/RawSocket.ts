/**
 * A WebSocket over a bare TCP connection (RFC 6455), that does what no client
 * library would: it answers no ping, stops reading, or cuts its frames anywhere.
 */
import { RawConnection } from "./RawConnection.ts"

export interface RawFrame {
  readonly opcode: number
  readonly payload: Buffer
}

export const opcodes = { text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const

/** As a client sends it: masked, here with zeros. */
export const clientFrame = (opcode: number, payload: string | Uint8Array): Buffer => {
  const bytes = Buffer.from(payload as string)
  const head = Buffer.alloc(bytes.length < 126 ? 2 : bytes.length < 65_536 ? 4 : 10)
  head[0] = 0x80 | opcode
  head[1] = 0x80 | (head.length === 2 ? bytes.length : head.length === 4 ? 126 : 127)
  if (head.length === 4) head.writeUInt16BE(bytes.length, 2)
  if (head.length === 10) head.writeBigUInt64BE(BigInt(bytes.length), 2)
  return Buffer.concat([head, Buffer.alloc(4), bytes])
}

export class RawSocket {
  readonly connection: RawConnection

  private constructor(connection: RawConnection) {
    this.connection = connection
  }

  /** Answers when the handshake is done. `lines`: more header lines. */
  static async open(port: number, path: string, ...lines: ReadonlyArray<string>): Promise<RawSocket> {
    const connection = await RawConnection.open(port)
    const all = ["Host: gateway.test", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==", "Sec-WebSocket-Version: 13", ...lines]
    connection.send(`GET ${path} HTTP/1.1\r\n${all.map((line) => `${line}\r\n`).join("")}\r\n`)
    await connection.until(({ text }) => text.includes("\r\n\r\n"))
    return new RawSocket(connection)
  }

  /** What the handshake was answered with. */
  get head(): string {
    const { text } = this.connection
    return text.slice(0, text.indexOf("\r\n\r\n"))
  }

  send(frame: object, opcode: number = opcodes.text): void {
    this.connection.send(clientFrame(opcode, JSON.stringify(frame)))
  }

  pause(): void {
    this.connection.socket.pause()
  }

  resume(): void {
    this.connection.socket.resume()
  }

  /** All whole frames that came so far. */
  frames(): ReadonlyArray<RawFrame> {
    const bytes = Buffer.from(this.connection.text, "latin1").subarray(this.head.length + 4)
    const frames: Array<RawFrame> = []
    for (let at = 0; at + 2 <= bytes.length;) {
      const short = bytes[at + 1]! & 0x7f
      const start = at + (short === 126 ? 4 : short === 127 ? 10 : 2)
      if (start > bytes.length) break
      const length = short === 126 ? bytes.readUInt16BE(at + 2) : short === 127 ? Number(bytes.readBigUInt64BE(at + 2)) : short
      if (start + length > bytes.length) break
      frames.push({ opcode: bytes[at]! & 0x0f, payload: bytes.subarray(start, start + length) })
      at = start + length
    }
    return frames
  }

  /** The text frames among them. */
  messages(): ReadonlyArray<{ readonly type: string; readonly [field: string]: any }> {
    return this.frames().filter(({ opcode }) => opcode === opcodes.text).map(({ payload }) => JSON.parse(payload.toString("utf8")))
  }

  async until(type: string): Promise<void> {
    await this.connection.until(() => this.messages().some((frame) => frame.type === type))
  }

  /** The code of the close frame once the connection has ended; `undefined`: it ended without one. */
  async closeCode(): Promise<number | undefined> {
    await this.connection.closed()
    return this.frames().find(({ opcode }) => opcode === opcodes.close)?.payload.readUInt16BE(0)
  }
}
