/**
 * A WebSocket client (RFC 6455) for Node without a global one, on top of its
 * HTTP client's upgrade. Loaded only there; a bundle for browsers leaves it out
 * (`browser` in package.json).
 *
 * It speaks what a chat needs: text frames, fragmented or not, pings, the closing
 * handshake; no extension and no subprotocol. A message may have 16 MiB. A peer
 * that breaks the protocol is left with 1002, one that sends bytes with 1003. An
 * upgrade that is answered with another status ends with close code 4000 + that
 * status (403: 4403), so that a refusal before the upgrade reads like one after.
 */
import type { ClientRequest, IncomingMessage } from "node:http"
import type { Socket } from "node:net"
import type { WebSocketLike } from "./WebSocketLike.ts"

const acceptGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
const messageBytesMax = 16 * 1024 * 1024
const refusalBytesMax = 4_096
/** For the peer's half of the closing handshake. */
const closeMs = 2_000
const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 }
const abnormal = 1006

export class NodeWebSocket implements WebSocketLike {
  onopen: WebSocketLike["onopen"] = null
  onmessage: WebSocketLike["onmessage"] = null
  onclose: WebSocketLike["onclose"] = null
  onerror: WebSocketLike["onerror"] = null
  #request: ClientRequest | undefined
  #socket: Socket | undefined
  #randomBytes!: (count: number) => Buffer
  #pending: Buffer = Buffer.alloc(0)
  #parts: Array<Buffer> = []
  #partsBytes = 0
  #isInMessage = false
  #isClosing = false
  #isOver = false
  #timer: NodeJS.Timeout | undefined

  constructor(url: string) {
    this.#dial(url).catch((cause: unknown) => this.#end(abnormal, String(cause)))
  }

  send(text: string): void {
    if (!this.#isClosing) this.#write(opcodes.text, Buffer.from(text))
  }

  close(code = 1000, reason = ""): void {
    if (this.#isOver || this.#isClosing) return
    this.#isClosing = true
    if (this.#socket === undefined) return this.#end(abnormal, "closed before it was open")
    const payload = Buffer.alloc(2 + Buffer.byteLength(reason))
    payload.writeUInt16BE(code)
    payload.write(reason, 2)
    this.#write(opcodes.close, payload)
    this.#timer = setTimeout(() => this.#end(abnormal, "the peer did not close"), closeMs)
  }

  async #dial(url: string): Promise<void> {
    const { protocol } = new URL(url)
    const [{ request }, { createHash, randomBytes }] = await Promise.all([protocol === "wss:" ? import("node:https") : import("node:http"), import("node:crypto")])
    if (this.#isOver) return
    this.#randomBytes = randomBytes
    const key = randomBytes(16).toString("base64")
    const headers = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": key }
    this.#request = request(url.replace(/^ws/, "http"), { headers, agent: false })
    this.#request.on("upgrade", (answer: IncomingMessage, socket: Socket, head: Buffer) => {
      const accept = createHash("sha1").update(key + acceptGuid).digest("base64")
      if (answer.headers["sec-websocket-accept"] === accept) this.#open(socket, head)
      else this.#end(1002, "the upgrade was answered with another key")
      if (this.#isOver) socket.destroy()
    })
    this.#request.on("response", (answer: IncomingMessage) => this.#refused(answer))
    this.#request.on("error", (error: NodeJS.ErrnoException) => this.#end(abnormal, error.message || error.code || "no connection"))
    this.#request.end()
  }

  /** The reason is the body's `detail`, when it comes and has one. */
  #refused(answer: IncomingMessage): void {
    let text = ""
    const end = (): void => {
      let detail: unknown
      try {
        detail = (JSON.parse(text) as { readonly detail?: unknown }).detail
      } catch {}
      this.#end(4000 + answer.statusCode!, typeof detail === "string" ? detail : `HTTP ${answer.statusCode}`)
    }
    answer.setEncoding("utf8").on("data", (part: string) => {
      text += part
      if (text.length > refusalBytesMax) end()
    }).on("end", end).on("error", end)
  }

  #open(socket: Socket, head: Buffer): void {
    if (this.#isOver) return
    this.#socket = socket
    socket.on("data", (bytes: Buffer) => this.#read(bytes))
    socket.on("error", (error) => this.#end(abnormal, error.message))
    socket.on("close", () => this.#end(abnormal, "the connection was lost"))
    this.onopen?.({ type: "open" })
    if (head.length > 0) this.#read(head)
  }

  #read(bytes: Buffer): void {
    this.#pending = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes])
    while (!this.#isOver) {
      const size = this.#frameSize()
      if (size === undefined || this.#pending.length < size.head + size.payload) return
      const first = this.#pending[0]!
      const payload = this.#pending.subarray(size.head, size.head + size.payload)
      this.#pending = this.#pending.subarray(size.head + size.payload)
      this.#frame((first & 0x80) !== 0, first & 0x0f, payload)
    }
  }

  /** Of the frame that `#pending` begins with; `undefined` when its head is not whole, or not allowed. */
  #frameSize(): { readonly head: number; readonly payload: number } | undefined {
    const bytes = this.#pending
    if (bytes.length < 2) return undefined
    const first = bytes[0]!
    const second = bytes[1]!
    const short = second & 0x7f
    const isControl = (first & 0x08) !== 0
    // Reserved bits belong to extensions; servers don't mask; control frames are short and whole.
    if ((first & 0x70) !== 0 || (second & 0x80) !== 0 || (isControl && (short > 125 || (first & 0x80) === 0))) return this.#fail(1002, "a frame breaks the protocol")
    const head = short === 126 ? 4 : short === 127 ? 10 : 2
    if (bytes.length < head) return undefined
    const payload = short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short
    if (this.#partsBytes + payload > messageBytesMax) return this.#fail(1009, "a message is too big")
    return { head, payload }
  }

  #frame(isFinal: boolean, opcode: number, payload: Buffer): void {
    switch (opcode) {
      case opcodes.ping: return this.#write(opcodes.pong, payload)
      case opcodes.pong: return
      case opcodes.close: return this.#closed(payload)
      case opcodes.text:
      case opcodes.continuation: {
        if (this.#isInMessage !== (opcode === opcodes.continuation)) return this.#fail(1002, "a message is not in order")
        this.#isInMessage = !isFinal
        this.#parts.push(payload)
        this.#partsBytes += payload.length
        if (isFinal) this.#message()
        return
      }
      default: return this.#fail(opcode === opcodes.binary ? 1003 : 1002, "a frame is not text")
    }
  }

  #message(): void {
    const data = Buffer.concat(this.#parts.splice(0)).toString("utf8")
    this.#partsBytes = 0
    if (!this.#isClosing) this.onmessage?.({ type: "message", data })
  }

  /** Echoes the code, as the closing handshake asks. */
  #closed(payload: Buffer): void {
    if (!this.#isClosing) this.#write(opcodes.close, payload.subarray(0, 2))
    if (payload.length < 2) this.#end(1005, "")
    else this.#end(payload.readUInt16BE(), payload.toString("utf8", 2))
  }

  #fail(code: number, reason: string): undefined {
    const payload = Buffer.alloc(2)
    payload.writeUInt16BE(code)
    this.#write(opcodes.close, payload)
    this.#end(code, reason)
    return undefined
  }

  #write(opcode: number, payload: Buffer): void {
    if (this.#socket === undefined || this.#isOver) return
    const head = payload.length < 126 ? Buffer.alloc(2) : payload.length < 65_536 ? Buffer.alloc(4) : Buffer.alloc(10)
    head[0] = 0x80 | opcode
    head[1] = 0x80 | (head.length === 2 ? payload.length : head.length === 4 ? 126 : 127)
    if (head.length === 4) head.writeUInt16BE(payload.length, 2)
    if (head.length === 10) head.writeBigUInt64BE(BigInt(payload.length), 2)
    const mask = this.#randomBytes(4)
    const masked = Buffer.alloc(payload.length)
    for (let at = 0; at < payload.length; at++) masked[at] = payload[at]! ^ mask[at & 3]!
    this.#socket.write(Buffer.concat([head, mask, masked]))
  }

  #end(code: number, reason: string): void {
    if (this.#isOver) return
    this.#isOver = true
    clearTimeout(this.#timer)
    if (this.#socket === undefined) this.#request?.destroy()
    else if (code === abnormal) this.#socket.destroy()
    // A closing frame of ours still leaves; a peer that does not take it keeps no process alive.
    else this.#socket.unref().destroySoon()
    this.onclose?.({ type: "close", code, reason })
  }
}
