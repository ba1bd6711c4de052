/**
 * `socket` rows: WebSockets (RFC 6455).
 *
 * Pages of other origins are refused before the upgrade, as a browser asks nobody
 * else; then the row's `accept` decides. Their errors are plain HTTP answers in
 * the dialect's words. After the upgrade one `SocketSession` hears one socket, on
 * the event loop's own turn, and nothing after `closed`.
 *
 * Bounds: a frame above `socketMessageBytesMax` closes the socket (1009; one of
 * twice that size cuts it), binary frames are refused (1003), every peer is
 * pinged each `socketPingSeconds`, and one silent for `socketIdleSeconds` is gone.
 * `send` never blocks: `false` means that bytes wait, and `drained` tells when
 * they don't; a socket with more than `socketBacklogBytesMax` waiting is closed
 * (1013). A session that throws ends its socket (1011) and is logged.
 */
import { Cause, Effect, Exit, Result } from "effect"
import type { WebSocket, WebSocketBehavior } from "uWebSockets.js"
import { InvalidRequest, OriginForbidden } from "../../domain/errors.ts"
import { log } from "../../telemetry/log.ts"
import type { Dialect } from "../dialect.ts"
import type { Edge } from "../Edge.ts"
import type { Socket, SocketRow, SocketSession } from "../endpoint.ts"
import type { Exchange } from "../Exchange.ts"
import { decoder } from "./codecs.ts"
import { RowMeter } from "./RowMeter.ts"
import type { Target, Upgrade } from "./Target.ts"

/** What uWS keeps for one socket between the upgrade and its end. */
export interface SocketData {
  readonly requestId: string
  readonly remoteAddress: string
  readonly row: string
  readonly join: (socket: Socket) => SocketSession
  session: SocketSession | undefined
  open: LiveSocket | undefined
  /** Which part of all sockets it is pinged with. */
  part: number
}

const dropped = 2

class LiveSocket implements Socket {
  readonly requestId: string
  readonly remoteAddress: string
  isOpen = true
  readonly #raw: WebSocket<SocketData>

  constructor(raw: WebSocket<SocketData>, data: SocketData) {
    this.#raw = raw
    this.requestId = data.requestId
    this.remoteAddress = data.remoteAddress
  }

  send(text: string): boolean {
    if (!this.isOpen) return false
    const status = this.#raw.send(text, false)
    if (status === dropped) this.close(1013, "slow_consumer")
    return status === 1
  }

  ping(): void {
    if (this.isOpen) this.#raw.ping()
  }

  /** Nothing is sent after it. */
  close(code: number, reason: string): void {
    if (!this.isOpen) return
    this.isOpen = false
    this.#raw.end(code, reason)
  }
}

/** Every live socket of a server, and how uWS reports on them. */
export class WebSocketHub {
  readonly #live = new Map<LiveSocket, SocketData>()
  /** As many parts as there are seconds between two pings: one part is pinged each second. */
  readonly #parts: ReadonlyArray<Set<LiveSocket>>
  #opened = 0
  #ticks = 0
  #onEmpty: (() => void) | undefined

  constructor(pingSeconds: number) {
    this.#parts = Array.from({ length: pingSeconds }, () => new Set<LiveSocket>())
  }

  get size(): number {
    return this.#live.size
  }

  /** Once a second. */
  pingSome(): void {
    for (const socket of this.#parts[this.#ticks++ % this.#parts.length]!) socket.ping()
  }

  /** Asks every session to end its socket; completes when none is left. */
  readonly stopped: Effect.Effect<void> = Effect.callback((resume) => {
    this.#onEmpty = () => resume(Effect.void)
    for (const data of [...this.#live.values()]) guard(data, () => data.session?.stopping())
    if (this.#live.size === 0) resume(Effect.void)
  })

  closeAll(code: number, reason: string): void {
    for (const socket of [...this.#live.keys()]) socket.close(code, reason)
  }

  behavior(edge: Edge): WebSocketBehavior<SocketData> {
    const { socketBacklogBytesMax, socketIdleSeconds, socketMessageBytesMax } = edge.limits
    return {
      // Above it uWS cuts the connection without a word.
      maxPayloadLength: 2 * socketMessageBytesMax,
      maxBackpressure: socketBacklogBytesMax,
      idleTimeout: socketIdleSeconds,
      sendPingsAutomatically: false,
      open: (raw) => {
        const data = raw.getUserData()
        const socket = new LiveSocket(raw, data)
        data.open = socket
        data.part = this.#opened++ % this.#parts.length
        this.#live.set(socket, data)
        this.#parts[data.part]!.add(socket)
        guard(data, () => {
          data.session = data.join(socket)
        })
      },
      message: (raw, message, isBinary) => {
        const data = raw.getUserData()
        if (isBinary) return data.open?.close(1003, "text only")
        if (message.byteLength > socketMessageBytesMax) return data.open?.close(1009, "frame too large")
        const text = Buffer.from(message).toString("utf8")
        guard(data, () => data.session?.message(text, message.byteLength))
      },
      drain: (raw) => {
        const data = raw.getUserData()
        if (raw.getBufferedAmount() === 0) guard(data, () => data.session?.drained())
      },
      close: (raw, code) => {
        const data = raw.getUserData()
        const socket = data.open
        if (socket === undefined) return
        socket.isOpen = false
        this.#live.delete(socket)
        this.#parts[data.part]!.delete(socket)
        if (this.#live.size === 0) this.#onEmpty?.()
        const session = data.session
        data.session = undefined
        guard(data, () => session?.closed(code))
      }
    }
  }
}

const guard = (data: SocketData, act: () => void): void => {
  try {
    act()
  } catch (error) {
    log.error({ requestId: data.requestId, row: data.row, err: error }, "defect")
    data.open?.close(1011, "internal_error")
  }
}

const upgraded = (exchange: Exchange, upgrade: Upgrade, row: SocketRow, join: SocketData["join"]): void => {
  if (exchange.isDone) return
  const { requestId, remoteAddress, response } = exchange
  const data: SocketData = { requestId, remoteAddress, row: row.id, join, session: undefined, open: undefined, part: 0 }
  exchange.finish(101)
  response.cork(() => {
    response.writeStatus("101 Switching Protocols").writeHeader("x-request-id", requestId)
    // No subprotocol and no compression is ever agreed on.
    response.upgrade(data, upgrade.key, "", "", upgrade.context)
  })
}

/** 426 in the dialect's shape: this path speaks WebSocket only (RFC 9110 §15.5.22). */
const upgradeRequired = (exchange: Exchange, header: string, msg: string, headers: ReadonlyArray<readonly [string, string]>): void => {
  const { body } = exchange.rendered(new InvalidRequest({ malformed: true, issues: [{ loc: ["header", header], msg }] }))
  exchange.sendRendered({ status: 426, headers, body })
}

/** Programs name no origin. A page of the very host that it connects to is our own, whatever `PUBLIC_URL` calls us. */
const isAllowed = ({ head: { origin, host }, edge }: Exchange): boolean =>
  origin === "" || origin === `http://${host}` || origin === `https://${host}` || edge.cors.allows(origin)

export const socketTarget = (dialect: Dialect, row: SocketRow): Target => {
  const decodeParams = decoder(row.params, "path")
  return {
    dialect,
    meter: new RowMeter(row.id),
    serve: (exchange, raw, upgrade) => {
      if (upgrade === undefined) return upgradeRequired(exchange, "upgrade", "This path speaks WebSocket", [["upgrade", "websocket"], ["connection", "upgrade"]])
      if (exchange.head.header("sec-websocket-version") !== "13") {
        return upgradeRequired(exchange, "sec-websocket-version", "Must be 13", [["sec-websocket-version", "13"]])
      }
      const params = decodeParams(raw)
      if (params instanceof InvalidRequest) return exchange.fail(params)
      if (!isAllowed(exchange)) return exchange.fail(new OriginForbidden())
      const fiber = exchange.edge.run(Effect.suspend(() => row.accept({ params: params.value })), (exit) => {
        if (Exit.isSuccess(exit)) return upgraded(exchange, upgrade, row, exit.value)
        if (exchange.isDone) return
        const error = Cause.findError(exit.cause)
        if (Result.isSuccess(error)) exchange.fail(error.success)
        else exchange.defect(Cause.squash(exit.cause))
      })
      if (!exchange.isDone) exchange.listener = { gone: () => fiber.interruptUnsafe() }
    }
  }
}
