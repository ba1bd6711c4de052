/**
 * One socket of a chat, from dialling to its end: authenticates in its first
 * frame, hands over every frame after it, and says once how it ended. A
 * connection that has been silent for 20 s is asked for a sign of life, and one
 * that gives none in the next 20 s has ended. It knows nothing of turns and
 * never dials twice. Nothing of it runs after its end: no timer, no callback.
 */
import { type AutxError, chatError } from "./AutxError.ts"
import type { ErrorFrame, ServerFrame } from "./frames.ts"
import { type WebSocketConstructor, type WebSocketLike, loadWebSocket } from "./WebSocketLike.ts"

export interface Listener {
  readonly frame: (frame: ServerFrame) => void
  /** The error tells why; its `closeCode` is always there. */
  readonly ended: (error: AutxError) => void
}

/** To be authenticated; a gateway that does not answer at all is given up. */
const openMs = 15_000
const silenceMs = 20_000
const connectionLost = 1006

export class Connection {
  readonly #listener: Listener
  #socket: WebSocketLike | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #fatal: ErrorFrame | undefined
  #isOver = false
  #heardAt = 0

  constructor(url: string, auth: object, webSocket: WebSocketConstructor | undefined, listener: Listener) {
    this.#listener = listener
    this.#timer = setTimeout(() => this.#end(connectionLost, "The gateway did not answer in time"), openMs)
    loadWebSocket(webSocket).then((Socket) => {
      if (!this.#isOver) this.#listen(new Socket(url), auth)
    }).catch((cause: unknown) => this.#end(1002, `No WebSocket can be opened: ${String(cause)}`))
  }

  send(frame: object): void {
    this.#socket?.send(JSON.stringify(frame))
  }

  /** Lets go of the socket; the listener hears nothing more. */
  abandon(): void {
    if (this.#isOver) return
    this.#isOver = true
    clearTimeout(this.#timer)
    const socket = this.#socket
    if (socket === undefined) return
    socket.onopen = socket.onmessage = socket.onclose = null
    socket.onerror = () => {}
    socket.close()
  }

  #listen(socket: WebSocketLike, auth: object): void {
    this.#socket = socket
    socket.onopen = () => socket.send(JSON.stringify(auth))
    socket.onmessage = ({ data }: { readonly data: unknown }) => this.#hear(data)
    // An error is always followed by the close, which says more.
    socket.onerror = () => {}
    socket.onclose = ({ code, reason }: { readonly code: number; readonly reason: string }) => this.#end(code, reason)
  }

  #hear(data: unknown): void {
    this.#heardAt = performance.now()
    let frame: ServerFrame
    try {
      frame = JSON.parse(String(data)) as ServerFrame
    } catch {
      return this.#end(1002, "The gateway sent a frame that is not JSON")
    }
    if (frame.type === "session") {
      clearTimeout(this.#timer)
      this.#keepAlive()
    }
    if (frame.type === "error" && (frame as ErrorFrame).fatal) this.#fatal = frame as ErrorFrame
    else if (frame.type !== "pong") this.#listener.frame(frame)
  }

  /** Every frame is a sign of life, and a ping asks for one. */
  #keepAlive(): void {
    const silentMs = performance.now() - this.#heardAt
    if (silentMs >= 2 * silenceMs) return this.#end(connectionLost, "The gateway has gone silent")
    if (silentMs >= silenceMs) this.send({ type: "ping" })
    this.#timer = setTimeout(() => this.#keepAlive(), silentMs >= silenceMs ? silenceMs : silenceMs - silentMs)
  }

  #end(closeCode: number, reason: string): void {
    if (this.#isOver) return
    this.abandon()
    const { code, detail, retry_after: retryAfter }: Pick<ErrorFrame, "code" | "detail" | "retry_after"> = this.#fatal ?? { code: closeCode === connectionLost ? "connection_lost" : "connection_closed", detail: reason || `The connection ended with ${closeCode}` }
    this.#listener.ended(chatError(code, detail, { retryAfter, closeCode }))
  }
}
