/// <reference lib="esnext.disposable" preserve="true" />
/**
 * A chat with one agent: a session at the gateway that lives on while sockets
 * come and go.
 *
 * Overview. The first `send` (or `open`) dials; the session stays open, with its
 * credits held, until `close`. One turn runs at a time.
 *
 *     idle ──▶ connecting ──▶ ready ──▶ waiting ──▶ connecting …
 *                   └────────────┴─────────┴──▶ closed
 *
 * Guarantee. When the socket ends with a code that asks for it (1001, 1006, 1011,
 * 1013, 4408, 4429, 4503), the session is resumed by itself for as long as the
 * gateway keeps it, 120 s, with full jitter between tries and never before the
 * gateway's own `retry_after`. Then the running answer goes on, or its message is
 * sent again with its id: what had finished is repeated, never charged twice.
 * After any other code nothing is tried again.
 *
 * Failure. What ends the session fails its running turn and every later `send`
 * with the same `AutxError`. A session that could not be opened at all gives up
 * after `maxRetries` further tries. A refusal that is not fatal fails its turn
 * alone. Callbacks are called last, so that they may throw without harm.
 */
import { type AutxError, chatError } from "./AutxError.ts"
import { backoffMs, reconnectMs } from "./backoff.ts"
import { type ChatTurn, Turn } from "./ChatTurn.ts"
import { Connection } from "./Connection.ts"
import { type BillingFrame, type ChatAgent, type ChunkFrame, type DoneFrame, type ErrorFrame, type NoticeFrame, type ServerFrame, type SessionFrame, asksToReconnect } from "./frames.ts"
import { type Http, path } from "./Http.ts"
import { newId } from "./newId.ts"
import type { WebSocketConstructor } from "./WebSocketLike.ts"

export interface SessionOptions {
  /** Of a session that was left within the last 120 s, to go on with it. */
  readonly sessionId?: string
  readonly onNotice?: (notice: NoticeFrame) => void
  /** The connection is gone; it is tried again after `delayMs`. */
  readonly onReconnecting?: (attempt: { readonly attempt: number; readonly delayMs: number; readonly error: AutxError }) => void
  /** It is back. `discontinuity`: something is gone for good, a turn that died with the gateway for instance. */
  readonly onResumed?: (resumed: { readonly discontinuity: boolean; readonly messageCount: number }) => void
  /** The end, told once. Without `error` it was asked for by `close`. */
  readonly onClosed?: (error: AutxError | undefined) => void
}

/** @internal */
export interface SessionHome {
  readonly url: string
  readonly token: string
  readonly maxRetries: number
  readonly webSocket: WebSocketConstructor | undefined
  /** For closing a session whose socket is gone: one short try. */
  readonly lastHttp: Http
}

const turnInProgress = (): AutxError => chatError("turn_in_progress", "The turn before has not ended: read it to its end, or cancel it")

const resumeMs = 120_000
/** Who opens a session does not wait longer between two tries: an agent that is paused, for one, is told at once. */
const openingWaitMsMax = 10_000
/** The gateway answers `close` by closing the socket; one that does not is left. */
const closeMs = 5_000

interface Opening {
  readonly opened: () => void
  readonly failed: (error: AutxError) => void
}

export class ChatSession {
  sessionId: string | undefined
  agent: ChatAgent | undefined
  messageCount = 0
  /** US dollars as decimal text; `undefined` until the gateway has told. */
  creditsRemaining: string | undefined
  creditsReserved: string | undefined
  sessionTotal = "0.00"
  readonly #home: SessionHome
  readonly #options: SessionOptions
  #phase: "idle" | "connecting" | "ready" | "waiting" | "closed" = "idle"
  #connection: Connection | undefined
  #turn: Turn | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  /** Tries since the socket was lost, or since the start. */
  #attempt = 0
  #lostAtMs: number | undefined
  #error: AutxError | undefined
  #openings: Array<Opening> = []
  #closing: Promise<void> | undefined
  #closed = (): void => {}

  /** @internal */
  constructor(home: SessionHome, options: SessionOptions) {
    this.#home = home
    this.#options = options
    this.sessionId = options.sessionId
  }

  /** Resolves when the session is open; `send` does not need it. */
  open(): Promise<this> {
    return new Promise((resolve, reject) => {
      if (this.#phase === "closed") return reject(this.#isClosed())
      if (this.#phase === "ready") return resolve(this)
      this.#openings.push({ opened: () => resolve(this), failed: reject })
      if (this.#phase === "idle") this.#connect()
    })
  }

  /** The turn that runs: also one that was running when the session was resumed by its id. */
  get turn(): ChatTurn | undefined {
    return this.#turn
  }

  /** Sends a message, as soon as the session is open. Throws when a turn runs, or the session is closed. */
  send(prompt: string, { id = newId() }: { readonly id?: string } = {}): ChatTurn {
    if (this.#phase === "closed" || this.#closing !== undefined) throw this.#isClosed()
    if (this.#turn !== undefined) throw turnInProgress()
    const turn = this.#turn = this.#makeTurn(id, prompt)
    if (this.#phase === "idle") this.#connect()
    else if (this.#phase === "ready") this.#say(turn)
    return turn
  }

  /** Cancels the turn that runs, if one does. Resolves when it is over. */
  async cancel(): Promise<void> {
    await this.#turn?.cancel()
  }

  /** Ends the session and frees what it holds; a turn that runs is cancelled. Never rejects, and may be called again. */
  close(): Promise<void> {
    return this.#closing ??= this.#close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    if (this.#phase === "closed") return
    if (this.#phase === "ready") {
      const over = new Promise<void>((closed) => { this.#closed = closed })
      this.#timer = setTimeout(() => this.#finish(undefined), closeMs)
      this.#connection!.send({ type: "close" })
      return over
    }
    const { sessionId } = this
    const isKnown = this.#phase !== "idle" && sessionId !== undefined
    this.#finish(undefined)
    // Should this fail too, the gateway closes the session when nobody resumes it.
    if (isKnown) await this.#home.lastHttp.send({ method: "DELETE", path: path`/sessions/${sessionId}` }).catch(() => {})
  }

  #connect(): void {
    this.#phase = "connecting"
    const { url, token, webSocket } = this.#home
    const auth = { type: "auth", token, ...(this.sessionId === undefined ? {} : { session_id: this.sessionId }) }
    this.#connection = new Connection(url, auth, webSocket, { frame: (frame) => this.#hear(frame), ended: (error) => this.#lost(error) })
  }

  #hear(frame: ServerFrame): void {
    switch (frame.type) {
      case "session": return this.#opened(frame as SessionFrame)
      case "chunk": return this.#turnOf((frame as ChunkFrame).id)?.chunk((frame as ChunkFrame).data)
      case "done": return this.#turnOf((frame as DoneFrame).id)?.done(frame as DoneFrame)
      case "billing": return this.#billed(frame as BillingFrame)
      case "error": return this.#refused(frame as ErrorFrame)
      case "notice": return this.#noticed(frame as NoticeFrame)
    }
  }

  #opened(frame: SessionFrame): void {
    this.sessionId = frame.session_id
    this.agent = frame.agent
    this.creditsReserved = frame.credits_reserved
    this.messageCount = frame.message_count
    this.sessionTotal = frame.session_total ?? "0.00"
    this.#phase = "ready"
    this.#attempt = 0
    this.#lostAtMs = undefined
    if (frame.replayed_from !== undefined) {
      // The turn runs for whoever had the session before.
      if (this.#turn?.isSent === false) this.#endTurn((turn) => turn.failed(turnInProgress()))
      this.#turn ??= this.#makeTurn(undefined, undefined)
      this.#turn.isSent = true
      this.#turn.tellFrom(frame.replayed_from)
      if (this.#turn.isCancelled) this.#connection!.send({ type: "cancel" })
    } else if (this.#turn !== undefined) this.#say(this.#turn)
    for (const { opened } of this.#openings.splice(0)) opened()
    if (frame.resumed) this.#options.onResumed?.({ discontinuity: frame.discontinuity ?? false, messageCount: frame.message_count })
  }

  /** For the first time, or again: the gateway tells a message that it knows by its id. */
  #say(turn: Turn): void {
    const { id, prompt, isCancelled } = turn
    if (isCancelled || prompt === undefined) return this.#endTurn((turn) => turn.stopped())
    turn.isSent = true
    turn.tellFrom(0)
    this.#connection!.send({ type: "message", prompt, id })
  }

  #billed(frame: BillingFrame): void {
    this.creditsRemaining = frame.credits_remaining
    this.creditsReserved = frame.credits_reserved
    this.sessionTotal = frame.session_total
    this.#ended(frame.id, (turn) => turn.billed(frame))
  }

  #refused({ code, detail, retry_after: retryAfter, id }: ErrorFrame): void {
    this.#ended(id, (turn) => turn.failed(chatError(code, detail, { retryAfter })))
  }

  #noticed(notice: NoticeFrame): void {
    if (notice.code === "turn_cancelled") this.#ended(notice.id, (turn) => turn.stopped())
    else if (this.#closing === undefined) this.#options.onNotice?.(notice)
  }

  /** A turn is over: ours, or the one before it, whose end was told once more and which ours had to wait for. */
  #ended(id: string | undefined, end: (turn: Turn) => void): void {
    const turn = this.#turn
    if (this.#turnOf(id) !== undefined) this.#endTurn(end)
    else if (turn?.isHeard === false) this.#say(turn)
  }

  /** The running turn, when a frame with this id is about it. */
  #turnOf(id: string | undefined): Turn | undefined {
    const turn = this.#turn
    return id === undefined || turn?.id === undefined || turn.id === id ? turn : undefined
  }

  #makeTurn(id: string | undefined, prompt: string | undefined): Turn {
    const turn = new Turn(id, prompt, () => {
      if (this.#phase === "ready") this.#connection!.send({ type: "cancel" })
      else if (!turn.isSent) this.#endTurn((turn) => turn.stopped())
    })
    return turn
  }

  #endTurn(end: (turn: Turn) => void): void {
    const turn = this.#turn
    this.#turn = undefined
    if (turn !== undefined) end(turn)
  }

  #lost(error: AutxError): void {
    this.#connection = undefined
    if (this.#closing !== undefined) return this.#finish(undefined)
    const wasOpen = this.sessionId !== undefined
    if (wasOpen) this.#lostAtMs ??= Date.now()
    const delayMs = Math.max((error.retryAfter ?? 0) * 1000, wasOpen ? reconnectMs(this.#attempt) : backoffMs(this.#attempt))
    const isLate = wasOpen ? Date.now() + delayMs > this.#lostAtMs! + resumeMs : delayMs > openingWaitMsMax || this.#attempt >= this.#home.maxRetries
    if (isLate || !asksToReconnect(error.closeCode!)) return this.#finish(error)
    this.#phase = "waiting"
    const attempt = ++this.#attempt
    this.#timer = setTimeout(() => this.#connect(), delayMs)
    this.#options.onReconnecting?.({ attempt, delayMs, error })
  }

  #finish(error: AutxError | undefined): void {
    if (this.#phase === "closed") return
    this.#phase = "closed"
    this.#error = error
    clearTimeout(this.#timer)
    this.#connection?.abandon()
    this.#connection = undefined
    this.#endTurn((turn) => error === undefined ? turn.stopped() : turn.failed(error))
    for (const { failed } of this.#openings.splice(0)) failed(this.#isClosed())
    this.#closed()
    this.#options.onClosed?.(error)
  }

  #isClosed(): AutxError {
    return this.#error ?? chatError("session_closed", "The session is closed")
  }
}
