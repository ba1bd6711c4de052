/**
 * One chat session as a client sees it, in the words of the gateway, of the `ws`
 * peer, or of Socket.IO: opened, given one turn at a time, dropped and resumed.
 *
 * A turn ends when its text is whole and, of the gateway, when its bill came.
 * Whatever else comes (another text, an error frame, a turn that nobody asked
 * for) is told to `failed`: a load that had failures measured something else.
 */
import type { Turn } from "./Turn.ts"
import { WebSocketClient } from "./WebSocketClient.ts"

export type Words = "gateway" | "ws" | "Socket.IO"

/** Where sessions are opened. */
export interface Place {
  readonly words: Words
  readonly port: number
  readonly path: string
}

/** Not now: an opening that failed, and when the server said to try again. */
export interface Refusal {
  readonly reason: string
  readonly retryAfterMs: number | undefined
}

export interface Told {
  failed(reason: string): void
  billed(orderId: string): void
}

/** What all servers say, in the gateway's words. */
interface Frame {
  readonly type: string
  readonly data?: string
  readonly session_id?: string
  readonly resumed?: boolean
  readonly discontinuity?: boolean
  readonly order_id?: string
  readonly code?: string
  readonly detail?: string
  readonly fatal?: boolean
  readonly retry_after?: number
}

interface Dialect {
  /** The first that the client says; `undefined`: nothing, it may speak at once. */
  readonly greeting: ((key: string, sessionId: string | undefined) => string) | undefined
  readonly message: (prompt: string) => string
  readonly read: (text: string) => Frame
  /** A turn is over when this came. */
  readonly last: "done" | "billing"
  /** What ends the session for good; `undefined`: the socket's end does. */
  readonly farewell: string | undefined
}

const dialects: Readonly<Record<Words, Dialect>> = {
  gateway: {
    greeting: (token, session_id) => JSON.stringify({ type: "auth", token, session_id }),
    message: (prompt) => `{"type":"message","prompt":"${prompt}"}`,
    read: (text) => JSON.parse(text) as Frame,
    last: "billing",
    farewell: `{"type":"close"}`
  },
  ws: {
    greeting: undefined,
    message: (prompt) => `{"prompt":"${prompt}"}`,
    read: (text) => JSON.parse(text) as Frame,
    last: "done",
    farewell: undefined
  },
  "Socket.IO": {
    // Engine.IO's packet 4 is a message, in it Socket.IO's packets: 0 connects to a namespace, 2 is an event.
    greeting: () => "40",
    message: (prompt) => `42["message",{"prompt":"${prompt}"}]`,
    read: (text) => {
      if (text.startsWith("42")) {
        const [type, fields] = JSON.parse(text.slice(2)) as readonly [string, { readonly data?: string }]
        return { ...fields, type }
      }
      return { type: text.startsWith("40") ? "session" : text === "2" ? "heartbeat" : text.startsWith("0") ? "notice" : text }
    },
    last: "done",
    farewell: undefined
  }
}

export class ChatSession {
  readonly #place: Place
  readonly #dialect: Dialect
  readonly #key: string
  readonly #told: Told
  #socket: WebSocketClient | undefined
  /** The gateway's name for it, to resume it. */
  #id: string | undefined
  #opening: { readonly done: () => void; readonly refused: (refusal: Refusal) => void } | undefined
  #refusal: Refusal | undefined
  #closing: (() => void) | undefined
  #turn: Turn | undefined
  #orderId: string | undefined

  constructor(place: Place, key: string, told: Told) {
    this.#place = place
    this.#dialect = dialects[place.words]
    this.#key = key
    this.#told = told
  }

  /** Opens it, or resumes the one that was dropped; rejects with a `Refusal`. */
  open(): Promise<void> {
    return new Promise((done, refused) => {
      this.#opening = { done, refused }
      this.#refusal = undefined
      this.#socket = new WebSocketClient(this.#place.port, this.#place.path, {
        opened: () => this.#greet(),
        text: (text) => this.#hear(text),
        closed: (code, reason) => this.#closed(`${code ?? ""} ${reason}`.trim())
      })
    })
  }

  say(turn: Turn): void {
    this.#turn = turn
    this.#socket!.send(this.#dialect.message(turn.prompt))
  }

  /** As a cut cable does it. */
  drop(): void {
    this.#socket?.drop()
    if (this.#turn !== undefined) this.#told.failed("dropped in the middle of a turn")
  }

  /** For good; answers when the server has closed. */
  close(): Promise<void> {
    const { farewell } = this.#dialect
    if (farewell === undefined) return Promise.resolve(this.drop())
    return new Promise((done) => {
      this.#closing = done
      this.#socket!.send(farewell)
    })
  }

  #greet(): void {
    if (this.#dialect.greeting === undefined) this.#opened()
    else this.#socket!.send(this.#dialect.greeting(this.#key, this.#id))
  }

  #opened(): void {
    this.#opening?.done()
    this.#opening = undefined
  }

  #closed(reason: string): void {
    const opening = this.#opening
    this.#opening = undefined
    if (this.#closing !== undefined) return this.#closing()
    if (opening === undefined) this.#told.failed(`closed: ${this.#refusal?.reason ?? reason}`)
    else opening.refused(this.#refusal ?? { reason, retryAfterMs: undefined })
  }

  #hear(text: string): void {
    const frame = this.#dialect.read(text)
    switch (frame.type) {
      case "chunk": return this.#turn?.heard(frame.data ?? "")
      case "done": return this.#done(frame)
      case "billing": return this.#billed(frame)
      case "session": return this.#welcomed(frame)
      case "error": return this.#failed(frame)
      case "heartbeat": return this.#socket!.send("3")
      case "notice": return
      default: this.#told.failed(`an unknown frame: ${text.slice(0, 200)}`)
    }
  }

  #welcomed({ session_id, resumed, discontinuity }: Frame): void {
    if (this.#id !== undefined && (session_id !== this.#id || resumed !== true || discontinuity === true)) this.#told.failed(`resumed as another session, or with something missing: ${session_id}`)
    if (this.#place.words === "gateway") this.#id = session_id
    this.#opened()
  }

  #done({ order_id }: Frame): void {
    this.#orderId = order_id
    if (this.#dialect.last === "done") this.#ended()
  }

  #billed({ order_id }: Frame): void {
    if (order_id === undefined || order_id !== this.#orderId) return this.#told.failed(`billed for ${order_id}, done was ${this.#orderId}`)
    this.#told.billed(order_id)
    this.#ended()
  }

  #ended(): void {
    const turn = this.#turn
    this.#turn = undefined
    this.#orderId = undefined
    if (turn === undefined) return this.#told.failed("the end of a turn that nobody asked for")
    turn.ended()
  }

  /** A fatal one says why the socket is about to close. */
  #failed({ code, detail, fatal, retry_after }: Frame): void {
    const reason = `${code}: ${detail}`
    if (fatal === true) this.#refusal = { reason, retryAfterMs: retry_after === undefined ? undefined : retry_after * 1_000 }
    else this.#told.failed(reason)
  }
}
