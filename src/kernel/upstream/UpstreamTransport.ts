/**
 * HTTP/1.1 to agents; the home of undici.
 *
 * A `Connection` is one undici client with one socket. It carries one call at a
 * time and is itself the handler that undici calls, so that a call on a warm
 * connection allocates nothing here. Idle connections of an origin are a stack
 * (the warmest is used first) and end with their socket, ≈ 4 s after their last
 * call or when the agent's `Keep-Alive` says so; an origin without connections
 * is forgotten. Connections made for trusted owners (see `UpstreamGuard`) are
 * kept apart from all others.
 *
 * Guarantees: the guard judges every connect, literal addresses and resolved
 * ones; certificates are verified; redirects are answers; a call ends by exactly
 * one of `end` and `failed` unless it was aborted; origins and sockets are
 * bounded, an idle one is closed to make room.
 *
 * Backpressure is applied to the socket, not by undici's own pause: an undici 7
 * parser that is paused when the agent closes throws from the socket's event
 * (nodejs/undici#5360, fixed in 8, which needs Node 22), which would let any
 * agent end the process. While paused, `read` of the socket answers nothing, so
 * its buffer fills, TCP's window closes and the end waits its turn. Chunks of the
 * read under way are still delivered: at most one read, 128 KiB.
 *
 * Time limits other than connecting belong to the caller (`UpstreamExchange`).
 */
import { Client, type Dispatcher, buildConnector } from "undici"
import type { LookupFunction, Socket } from "node:net"
import type { AgentUnavailable } from "../../domain/errors.ts"
import type { UpstreamBody } from "./UpstreamBody.ts"
import { ForbiddenAddress, type UpstreamGuard } from "./UpstreamGuard.ts"

/** `agentAtFault`: whether it says something about the agent. */
export interface TransportFailure {
  readonly reason: AgentUnavailable["reason"]
  readonly agentAtFault: boolean
}

/** Only `failed` may be called before `dispatch` has returned. */
export interface TransportHandler {
  /** The request, body included, has been written. */
  sent(): void
  /** Status ≥ 200 and the raw names and values. */
  head(status: number, raw: ReadonlyArray<Buffer>): void
  /** The bytes may be kept: nothing writes to them again. */
  data(chunk: Buffer): void
  end(): void
  failed(failure: TransportFailure): void
}

export interface TransportRequest {
  readonly path: string
  readonly method: string
  /** Flat, validated, without framing headers. */
  readonly headers: Array<string>
  readonly body: Uint8Array | UpstreamBody | null
}

export interface TransportLimits {
  readonly connectMs: number
  readonly originsMax: number
  readonly connectionsMax: number
}

/** The whole head of an agent's answer, names and values. */
const answerHeadBytesMax = 32 * 1024
/** Below the 5 s after which common servers close an idle connection; an agent's own hint may lengthen it to a minute. */
const keepAliveMs = 4_000
const keepAliveMaxMs = 60_000
const tlsSessionsPerOrigin = 4

/** The gateway's own doing: it stops, or the request could not be written as it was given. */
const ownErrors = new Set([
  "UND_ERR_DESTROYED", "UND_ERR_CLOSED", "UND_ERR_INVALID_ARG", "UND_ERR_NOT_SUPPORTED", "UND_ERR_REQ_CONTENT_LENGTH_MISMATCH", "ERR_ASSERTION"
])
/** This machine has no more of something. */
const exhausted = new Set(["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL"])

interface Failure extends Error {
  readonly code?: string
}

const failureOf = (error: Failure, written: boolean): TransportFailure => {
  const code = error.code ?? ""
  if (error instanceof ForbiddenAddress) return { reason: "address_forbidden", agentAtFault: false }
  if (exhausted.has(code)) return { reason: "busy", agentAtFault: false }
  if (ownErrors.has(code)) return { reason: "unreachable", agentAtFault: false }
  return { reason: written ? "broken_answer" : "unreachable", agentAtFault: true }
}

const readNothing = (): null => null

/** One socket to an origin, and the call that it carries. Idle ones are in their origin's stack. */
export class Connection implements Dispatcher.DispatchHandler {
  readonly #origin: Origin
  readonly #client: Client
  #socket: Socket | undefined
  #handler: TransportHandler | undefined
  #abortRequest: (() => void) | undefined
  #status = 0
  #written = false
  #paused = false
  #closed = false

  constructor(origin: Origin) {
    this.#origin = origin
    this.#client = new Client(origin.url, {
      connect: (options: buildConnector.Options, callback: buildConnector.Callback) => this.#connect(options, callback),
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: keepAliveMs,
      keepAliveMaxTimeout: keepAliveMaxMs,
      maxHeaderSize: answerHeadBytesMax
    })
    // undici reconnects a client that has a call waiting; without one the connection is over.
    const gone = (): void => { if (this.#handler === undefined) this.close() }
    this.#client.on("disconnect", gone)
    this.#client.on("connectionError", gone)
  }

  start(request: TransportRequest, handler: TransportHandler): void {
    this.#handler = handler
    this.#written = false
    this.#abortRequest = undefined
    this.#client.dispatch(request as Dispatcher.DispatchOptions, this)
  }

  /** Delivers what has been read, then nothing until `resume`. */
  pause(): void {
    if (this.#socket === undefined) return
    this.#paused = true
    this.#socket.read = readNothing
  }

  /** Must not be called from within one of the handler's methods. */
  resume(): void {
    if (this.#unpause()) this.#socket!.emit("readable")
  }

  /** Ends the call without a word to its handler, and the socket with it. */
  abort(): void {
    this.#handler = undefined
    this.#abortRequest?.()
    this.close()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#origin.forget(this)
    void this.#client.destroy()
    // The client leaves a socket that is still connecting alone.
    this.#socket?.destroy(new Error("closed"))
  }

  // undici's side.

  onConnect(abort: () => void): void {
    this.#written = true
    this.#abortRequest = abort
  }

  onRequestSent(): void {
    this.#handler?.sent()
  }

  onHeaders(status: number, raw: ReadonlyArray<Buffer>): boolean {
    if (status < 200) return true
    this.#status = status
    this.#handler?.head(status, raw)
    return true
  }

  onData(chunk: Buffer): boolean {
    this.#handler?.data(chunk)
    return true
  }

  onComplete(): void {
    const handler = this.#handler
    if (handler === undefined) return
    this.#handler = undefined
    this.#unpause()
    this.#origin.idle.push(this)
    handler.end()
  }

  onError(error: Failure): void {
    const handler = this.#handler
    if (handler === undefined) return
    this.#handler = undefined
    this.close()
    // RFC 9110 §8.6: these have no body whatever length they announce; undici waits for it.
    const bodiless = this.#status === 304 || this.#status === 204
    if (bodiless && error.code === "UND_ERR_RES_CONTENT_LENGTH_MISMATCH") handler.end()
    else handler.failed(failureOf(error, this.#written))
  }

  #unpause(): boolean {
    if (!this.#paused) return false
    this.#paused = false
    delete (this.#socket as { read?: unknown }).read
    return true
  }

  #connect(options: buildConnector.Options, callback: buildConnector.Callback): void {
    const socket = this.#origin.connect(options, callback)
    if (socket === undefined) return
    this.#socket = socket
    // Before undici's own listener, which takes a reset in a body without a length for its end: the answer would pass as complete.
    socket.on("error", (error: Failure) => {
      if (socket === this.#socket && this.#written && error.code !== "UND_ERR_INFO") this.onError(error)
    })
  }
}

/** What undici's connector really does: its declared type forgets the socket. */
type Connector = (options: buildConnector.Options, callback: buildConnector.Callback) => Socket

class Origin {
  readonly url: URL
  readonly idle: Array<Connection> = []
  connections = 0
  readonly #transport: UpstreamTransport
  readonly #guard: UpstreamGuard["Service"]
  readonly #trusted: boolean
  readonly #connector: Connector
  #lookup: LookupFunction | undefined

  constructor(transport: UpstreamTransport, guard: UpstreamGuard["Service"], origin: string, trusted: boolean) {
    this.url = new URL(origin)
    this.#transport = transport
    this.#guard = guard
    this.#trusted = trusted
    // One for the origin's life: it keeps the TLS sessions.
    this.#connector = buildConnector({
      timeout: transport.limits.connectMs,
      maxCachedSessions: tlsSessionsPerOrigin,
      rejectUnauthorized: true,
      lookup: (host: string, options: Parameters<LookupFunction>[1], callback: Parameters<LookupFunction>[2]) =>
        this.#lookup!(host, options, callback)
    } as buildConnector.BuildOptions) as unknown as Connector
  }

  /** Asks the guard each time; a socket that is still connecting, or nothing when it is forbidden. */
  connect(options: buildConnector.Options, callback: buildConnector.Callback): Socket | undefined {
    this.#lookup = this.#guard.lookupFor(this.url, this.#trusted)
    if (this.#lookup !== undefined) return this.#connector(options, callback)
    queueMicrotask(() => callback(new ForbiddenAddress(options.hostname), null))
    return undefined
  }

  /** No call is under way: the origin may be dropped. */
  get resting(): boolean {
    return this.idle.length === this.connections
  }

  forget(connection: Connection): void {
    const at = this.idle.indexOf(connection)
    if (at !== -1) this.idle.splice(at, 1)
    this.connections--
    this.#transport.forgot(this, this.#trusted)
  }
}

export class UpstreamTransport {
  readonly limits: TransportLimits
  readonly #guard: UpstreamGuard["Service"]
  readonly #trusted = new Map<string, Origin>()
  readonly #others = new Map<string, Origin>()
  #connections = 0

  constructor(guard: UpstreamGuard["Service"], limits: TransportLimits) {
    this.#guard = guard
    this.limits = limits
  }

  /** Open and connecting sockets. */
  get connections(): number {
    return this.#connections
  }

  /** Sends one call on a warm connection or a new one; `undefined` when there is no room for it. */
  dispatch(originText: string, trusted: boolean, request: TransportRequest, handler: TransportHandler): Connection | undefined {
    const origin = (trusted ? this.#trusted : this.#others).get(originText)
    const connection = origin?.idle.pop() ?? this.#open(origin, originText, trusted)
    connection?.start(request, handler)
    return connection
  }

  /** Closes what is idle; calls under way are their owners' to abort. */
  closeIdle(): void {
    for (const origin of this.#origins()) this.#rest(origin)
  }

  forgot(origin: Origin, trusted: boolean): void {
    this.#connections--
    if (origin.connections === 0) (trusted ? this.#trusted : this.#others).delete(origin.url.origin)
  }

  #open(known: Origin | undefined, originText: string, trusted: boolean): Connection | undefined {
    const { connectionsMax, originsMax } = this.limits
    if (this.#connections >= connectionsMax && !this.#makeRoom((origin) => origin.idle.length > 0)) return undefined
    if (known === undefined && this.#trusted.size + this.#others.size >= originsMax && !this.#makeRoom((origin) => origin.resting)) return undefined
    const origins = trusted ? this.#trusted : this.#others
    // Making room may have dropped the origin itself.
    const origin = origins.get(originText) ?? new Origin(this, this.#guard, originText, trusted)
    origins.set(originText, origin)
    origin.connections++
    this.#connections++
    return new Connection(origin)
  }

  /** Closes the idle connections of the longest known origin that fits. */
  #makeRoom(fits: (origin: Origin) => boolean): boolean {
    for (const origin of this.#origins()) {
      if (!fits(origin)) continue
      this.#rest(origin)
      return true
    }
    return false
  }

  #rest(origin: Origin): void {
    for (const connection of [...origin.idle]) connection.close()
  }

  *#origins(): Generator<Origin> {
    yield* this.#others.values()
    yield* this.#trusted.values()
  }
}
