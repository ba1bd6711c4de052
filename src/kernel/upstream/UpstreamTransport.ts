/**
 * The connections to agents, kept by origin.
 *
 * Idle connections of an origin are a stack (the warmest is used first) and end
 * with their socket, 4 s after their last call or before the agent's `Keep-Alive`
 * says so; an origin without connections is forgotten. Connections made for
 * trusted owners (see `UpstreamGuard`) are kept apart from all others.
 *
 * Guarantees: the guard judges every connect, literal addresses and resolved
 * ones; certificates are verified; redirects are answers; origins and sockets are
 * bounded, an idle one is closed to make room.
 */
import { type LookupFunction, type Socket, connect as connectTcp, isIP } from "node:net"
import { connect as connectTls } from "node:tls"
import { hostName, portOf } from "../../domain/upstreamAddress.ts"
import { type ConnectionOwner, type TransportHandler, type TransportRequest, UpstreamConnection } from "./UpstreamConnection.ts"
import type { UpstreamGuard } from "./UpstreamGuard.ts"

export interface TransportLimits {
  readonly connectMs: number
  readonly originsMax: number
  readonly connectionsMax: number
}

/** Below the 5 s after which common servers close an idle connection; an agent's own hint may lengthen it to a minute. */
const keepAliveMs = 4_000
const keepAliveMaxMs = 60_000
/** Of an agent's hint: a call may be on its way when the agent's time is over. */
const keepAliveMarginMs = 1_000
/** A peer that is gone without a word is noticed by the system. */
const tcpKeepAliveMs = 60_000

class Origin implements ConnectionOwner {
  readonly host: string
  readonly readyEvent: "connect" | "secureConnect"
  readonly url: URL
  readonly idle: Array<UpstreamConnection> = []
  connections = 0
  readonly #transport: UpstreamTransport
  readonly #guard: UpstreamGuard["Service"]
  readonly #trusted: boolean
  /** The newest TLS session: the next connection resumes it. */
  #session: Buffer | undefined

  constructor(transport: UpstreamTransport, guard: UpstreamGuard["Service"], origin: string, trusted: boolean) {
    this.url = new URL(origin)
    this.host = this.url.host
    this.readyEvent = this.url.protocol === "https:" ? "secureConnect" : "connect"
    this.#transport = transport
    this.#guard = guard
    this.#trusted = trusted
  }

  /** Asks the guard each time. */
  connect(onread: { readonly buffer: Buffer; readonly callback: (length: number, bytes: Buffer) => boolean }): Socket | undefined {
    const lookup: LookupFunction | undefined = this.#guard.lookupFor(this.url, this.#trusted)
    if (lookup === undefined) return undefined
    const host = hostName(this.url)
    const to = { host, port: portOf(this.url), lookup, onread, keepAlive: true, keepAliveInitialDelay: tcpKeepAliveMs }
    if (this.readyEvent === "connect") return connectTcp(to)
    const socket = connectTls({
      ...to, ALPNProtocols: ["http/1.1"], rejectUnauthorized: true,
      // A server name is a name (RFC 6066 §3); a literal address is verified as one.
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(this.#session === undefined ? {} : { session: this.#session })
    })
    return socket.on("session", (session: Buffer) => { this.#session = session })
  }

  connected(connection: UpstreamConnection): void {
    this.#transport.connecting.delete(connection)
  }

  rests(connection: UpstreamConnection, hintMs: number | undefined): void {
    const restMs = hintMs === undefined ? keepAliveMs : Math.min(hintMs - keepAliveMarginMs, keepAliveMaxMs)
    if (restMs <= 0) return connection.close()
    connection.deadlineMs = this.#transport.clockMs + restMs
    this.idle.push(connection)
  }

  forget(connection: UpstreamConnection): void {
    this.#transport.connecting.delete(connection)
    const at = this.idle.indexOf(connection)
    if (at !== -1) this.idle.splice(at, 1)
    this.connections--
    this.#transport.forgot(this, this.#trusted)
  }

  /** No call is under way: the origin may be dropped. */
  get isResting(): boolean {
    return this.idle.length === this.connections
  }
}

export class UpstreamTransport {
  readonly limits: TransportLimits
  /** The sweep's time. */
  clockMs = performance.now()
  readonly connecting = new Set<UpstreamConnection>()
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
  dispatch(originText: string, trusted: boolean, request: TransportRequest, handler: TransportHandler): UpstreamConnection | undefined {
    const origin = (trusted ? this.#trusted : this.#others).get(originText)
    const connection = origin?.idle.pop() ?? this.#open(origin, originText, trusted)
    connection?.start(request, handler)
    return connection
  }

  /** Ends what has connected or idled for too long. Called every now and then. */
  sweep(nowMs: number): void {
    this.clockMs = nowMs
    for (const connection of this.connecting) if (connection.deadlineMs <= nowMs) connection.fail(new Error("not connected in time"))
    for (const origin of this.#origins()) {
      for (let at = origin.idle.length - 1; at >= 0; at--) if (origin.idle[at]!.deadlineMs <= nowMs) origin.idle[at]!.close()
    }
  }

  /** Closes what is idle; calls under way are their owners' to abort. */
  closeIdle(): void {
    for (const origin of this.#origins()) this.#rest(origin)
  }

  forgot(origin: Origin, trusted: boolean): void {
    this.#connections--
    if (origin.connections === 0) (trusted ? this.#trusted : this.#others).delete(origin.url.origin)
  }

  #open(known: Origin | undefined, originText: string, trusted: boolean): UpstreamConnection | undefined {
    const { connectMs, connectionsMax, originsMax } = this.limits
    if (this.#connections >= connectionsMax && !this.#makeRoom((origin) => origin.idle.length > 0)) return undefined
    if (known === undefined && this.#trusted.size + this.#others.size >= originsMax && !this.#makeRoom((origin) => origin.isResting)) return undefined
    const origins = trusted ? this.#trusted : this.#others
    // Making room may have dropped the origin itself.
    const origin = origins.get(originText) ?? new Origin(this, this.#guard, originText, trusted)
    origins.set(originText, origin)
    origin.connections++
    this.#connections++
    const connection = new UpstreamConnection(origin)
    connection.deadlineMs = performance.now() + connectMs
    this.connecting.add(connection)
    return connection
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
