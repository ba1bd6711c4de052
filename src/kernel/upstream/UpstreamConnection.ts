/**
 * One socket to an agent's origin, and the call that it carries: HTTP/1.1, one
 * request at a time, never pipelined.
 *
 *   connecting ──▶ busy ⇄ idle ──▶ closed
 *
 * Guarantee: a call ends by exactly one of `end` and `failed` unless it was
 * aborted. A connection is used again only when the request was written whole and
 * the answer ended where it said, with nothing behind it.
 *
 * All sockets read into one buffer, which is copied once, into what the call
 * gets: a read, its parsing and its delivery are one synchronous step.
 * Backpressure stops the reading of the socket: its buffer fills, TCP's window
 * closes, the end waits its turn.
 *
 * Time limits belong to others: connecting and idling to `UpstreamTransport`, the
 * rest to `UpstreamExchange`.
 */
import type { Socket } from "node:net"
import type { AgentUnavailable } from "../../domain/errors.ts"
import { AnswerReader, type AnswerSink, BrokenAnswer } from "./AnswerReader.ts"
import { UpstreamBody, type UploadSink } from "./UpstreamBody.ts"
import { ForbiddenAddress } from "./UpstreamGuard.ts"

/** `agentAtFault`: whether it says something about the agent. */
export interface TransportFailure {
  readonly reason: AgentUnavailable["reason"]
  readonly agentAtFault: boolean
}

/** Only `failed` and `sent` may be called before `dispatch` has returned. */
export interface TransportHandler {
  /** The agent takes no more of the upload for now, or takes it again. */
  uploadWaits(waits: boolean): void
  /** The request, body included, has been written. */
  sent(): void
  /** Status ≥ 200; names in lower case and values, in turn. `contentLength` when the agent announced one. */
  head(status: number, fields: ReadonlyArray<string>, contentLength: number | undefined): void
  /** The bytes may be kept: nothing writes to them again. */
  data(chunk: Buffer): void
  end(): void
  failed(failure: TransportFailure): void
}

export interface TransportRequest {
  readonly path: string
  readonly method: string
  /** Flat, without framing headers; each is a token and a value without control characters. */
  readonly headers: ReadonlyArray<string>
  readonly body: Uint8Array | UpstreamBody | null
}

/** Where a connection belongs. */
export interface ConnectionOwner {
  /** As the `host` header has it. */
  readonly host: string
  /** A socket that is still connecting, and reads into `onread`; `undefined`: its address is forbidden. */
  connect(onread: { readonly buffer: Buffer; readonly callback: (length: number, bytes: Buffer) => boolean }): Socket | undefined
  /** What emitted says that the socket can be written to. */
  readonly readyEvent: "connect" | "secureConnect"
  connected(connection: UpstreamConnection): void
  rests(connection: UpstreamConnection, keepAliveMs: number | undefined): void
  forget(connection: UpstreamConnection): void
}

const readBuffer = Buffer.allocUnsafeSlow(64 * 1024)
/** Up to here head and body leave as one string: cheaper than two pieces. */
const oneWriteBytesMax = 16 * 1024
/** A request with one of these methods has a body, if an empty one (RFC 9110 §8.6). */
const bodied = new Set(["POST", "PUT", "PATCH"])

/** This machine has no more of something. */
const exhausted = new Set(["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL"])

const failureOf = (error: NodeJS.ErrnoException, written: boolean): TransportFailure => {
  if (error instanceof ForbiddenAddress) return { reason: "address_forbidden", agentAtFault: false }
  if (exhausted.has(error.code ?? "")) return { reason: "busy", agentAtFault: false }
  return { reason: written ? "broken_answer" : "unreachable", agentAtFault: true }
}

export class UpstreamConnection implements AnswerSink, UploadSink {
  /** When it has idled, or tried to connect, for too long. */
  deadlineMs = Infinity
  readonly #owner: ConnectionOwner
  readonly #reader = new AnswerReader(this)
  #socket: Socket | undefined
  #handler: TransportHandler | undefined
  #request: TransportRequest | undefined
  #connected = false
  #written = false
  #sent = false
  #uploaded = 0
  #paused = false
  #closed = false

  constructor(owner: ConnectionOwner) {
    this.#owner = owner
  }

  start(request: TransportRequest, handler: TransportHandler): void {
    this.#request = request
    this.#handler = handler
    this.#written = false
    this.#sent = false
    if (this.#connected) this.#write()
    else this.#connect()
  }

  /** What this read brought is delivered, then nothing until `resume`. */
  pause(): void {
    this.#paused = true
  }

  /** Must not be called from within one of the handler's methods. */
  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#socket?.resume()
  }

  /** Ends the call without a word to its handler, and the socket with it. */
  abort(): void {
    this.#handler = undefined
    this.close()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#reader.stop()
    this.#owner.forget(this)
    this.#socket?.destroy()
  }

  /** Ends the call, if there is one, and the socket. */
  fail(error: Error): void {
    const handler = this.#handler
    this.#handler = undefined
    this.close()
    handler?.failed(failureOf(error, this.#written))
  }

  #connect(): void {
    const socket = this.#owner.connect({ buffer: readBuffer, callback: (length, bytes) => this.#read(length, bytes) })
    if (socket === undefined) return queueMicrotask(() => this.fail(new ForbiddenAddress(this.#owner.host)))
    this.#socket = socket
    socket.setNoDelay(true)
    socket.on("error", (error) => this.fail(error))
    socket.on("end", () => this.#ended())
    socket.on("close", () => this.fail(new Error("closed")))
    socket.on("drain", () => this.#drained())
    socket.once(this.#owner.readyEvent, () => {
      this.#connected = true
      this.#owner.connected(this)
      if (this.#handler !== undefined) this.#write()
    })
  }

  #write(): void {
    const { body, headers, method, path } = this.#request!
    const socket = this.#socket!
    let head = `${method} ${path} HTTP/1.1\r\nhost: ${this.#owner.host}\r\n`
    for (let i = 0; i < headers.length; i += 2) head += `${headers[i]!}: ${headers[i + 1]!}\r\n`
    this.#written = true
    this.#reader.expect(method)
    if (body instanceof UpstreamBody) {
      this.#uploaded = 0
      socket.write(`${head}${body.contentLength === undefined ? "transfer-encoding: chunked" : `content-length: ${body.contentLength}`}\r\n\r\n`, "latin1")
      return body.pour(this)
    }
    if (body === null) {
      socket.write(bodied.has(method) ? `${head}content-length: 0\r\n\r\n` : `${head}\r\n`, "latin1")
    } else {
      const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
      head += `content-length: ${bytes.length}\r\n\r\n`
      if (bytes.length <= oneWriteBytesMax) socket.write(head + bytes.toString("latin1"), "latin1")
      else {
        socket.cork()
        socket.write(head, "latin1")
        socket.write(bytes)
        socket.uncork()
      }
    }
    this.#flushed()
  }

  /** Tells the handler once the system has taken everything; most often it has already. */
  #flushed(): void {
    const socket = this.#socket!
    if (socket.writableLength === 0) return this.#told()
    const request = this.#request
    socket.write("", () => { if (this.#request === request) this.#told() })
  }

  #told(): void {
    this.#sent = true
    this.#handler?.sent()
  }

  #read(length: number, bytes: Buffer): boolean {
    try {
      this.#reader.read(bytes, length)
    } catch (error) {
      if (!(error instanceof BrokenAnswer)) throw error
      this.fail(error)
    }
    return !this.#paused
  }

  #ended(): void {
    try {
      this.#reader.close()
      this.close()
    } catch (error) {
      this.fail(error as BrokenAnswer)
    }
  }

  #drained(): void {
    const { body } = this.#request!
    if (!(body instanceof UpstreamBody) || this.#handler === undefined) return
    this.#handler.uploadWaits(false)
    body.drained()
  }

  // The upload's side.

  write(chunk: Uint8Array): boolean {
    const taken = chunk.byteLength === 0 || this.#writeChunk(chunk)
    if (!taken) this.#handler?.uploadWaits(true)
    return taken
  }

  #writeChunk(chunk: Uint8Array): boolean {
    const length = (this.#request!.body as UpstreamBody).contentLength
    const socket = this.#socket!
    if (length !== undefined) {
      this.#uploaded += chunk.byteLength
      if (this.#uploaded > length) {
        this.fail(new Error("an upload longer than announced"))
        return true
      }
      return socket.write(chunk)
    }
    socket.cork()
    socket.write(`${chunk.byteLength.toString(16)}\r\n`, "latin1")
    socket.write(chunk)
    const taken = socket.write("\r\n", "latin1")
    socket.uncork()
    return taken
  }

  end(): void {
    const length = (this.#request!.body as UpstreamBody).contentLength
    if (length === undefined) this.#socket!.write("0\r\n\r\n", "latin1")
    else if (this.#uploaded < length) return this.fail(new Error("an upload shorter than announced"))
    this.#flushed()
  }

  // The answer's side.

  onHead(status: number, fields: ReadonlyArray<string>, contentLength: number | undefined): void {
    this.#handler?.head(status, fields, contentLength)
  }

  onData(bytes: Buffer): void {
    this.#handler?.data(bytes)
  }

  onEnd(keepAliveMs: number | undefined): void {
    const handler = this.#handler
    this.#handler = undefined
    this.#paused = false
    // An upload that is still under way, or waits in the socket, would run into the next request.
    if (this.#sent) this.#owner.rests(this, keepAliveMs)
    else this.close()
    handler?.end()
  }
}
