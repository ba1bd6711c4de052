/**
 * Chat over one WebSocket: the conversation between its frames and a session of
 * the kernel.
 *
 *     new ──auth──▶ proving ──▶ open ──▶ over
 *      └── nothing for 10 s, anything else ──▶ over
 *
 * Guarantee: every frame of a client is answered or acted on, or ends the socket
 * with an `error` frame that says why; none is kept for later, but messages that
 * come while the credential is proved end the socket too. After the socket's end
 * its session lives on as the kernel says. Bounds: a frame before `auth` has at
 * most 64 KiB, and at most `CHAT_UNAUTHENTICATED_MAX` sockets may be new.
 */
import { Effect, Schema } from "effect"
import { limits } from "../../config.ts"
import { AuthTimeout, InvalidFrame } from "../../domain/chat.ts"
import { Draining, Overloaded } from "../../domain/errors.ts"
import { type Socket, type SocketSession, socket } from "../../http/endpoint.ts"
import { Admission } from "../../kernel/Admission.ts"
import { attempt } from "../../kernel/attempt.ts"
import { Chat, type Opened } from "../../kernel/chat/Chat.ts"
import type { ChatClient, ChatError, ChatNotice, FinishedTurn } from "../../kernel/chat/ChatClient.ts"
import type { ChatSession } from "../../kernel/chat/ChatSession.ts"
import { type ClientFrame, billingFrame, chunkFrame, doneFrame, errorFrame, noticeFrame, pong, readFrame, sessionFrame } from "./frames.ts"

const newFrameBytesMax = 64 * 1024

interface Kernel {
  readonly admission: Admission["Service"]
  readonly chat: Chat["Service"]
}

class Conversation implements SocketSession, ChatClient {
  readonly #kernel: Kernel
  readonly #socket: Socket
  readonly #agent: string
  #phase: "new" | "proving" | "open" | "over" = "new"
  #session: ChatSession | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(kernel: Kernel, socket: Socket, agent: string) {
    this.#kernel = kernel
    this.#socket = socket
    this.#agent = agent
    this.#timer = setTimeout(() => this.end(new AuthTimeout()), limits.chatAuthMs)
    kernel.chat.newcomers.count++
  }

  // The socket's side.

  message(text: string, bytes: number): void {
    if (this.#phase === "over") return
    if (this.#phase !== "open" && bytes > newFrameBytesMax) return this.#close(1009, "frame too large")
    const frame = readFrame(text)
    if (frame instanceof InvalidFrame) return this.end(frame)
    if (frame.type === "ping") return void this.#socket.send(pong)
    if (this.#phase === "open") return this.#act(this.#session!, frame)
    if (this.#phase === "proving" || frame.type !== "auth") return this.end(new InvalidFrame({ malformed: false, msg: "Send auth first, and wait for session" }))
    this.#authenticate(frame.token, frame.session_id)
  }

  drained(): void {
    this.#session?.drained()
  }

  stopping(): void {
    // An open session ends its socket itself, at the end of its turn.
    if (this.#phase !== "open") this.end(new Draining({ retryAfterMs: 1_000 + Math.floor(Math.random() * limits.chatReturnMs) }))
  }

  closed(): void {
    this.#leave()
    this.#session?.detach(this)
  }

  // The session's side.

  chunk(text: string, messageId: string | undefined): boolean {
    return this.#socket.send(chunkFrame(text, messageId))
  }

  finished(turn: FinishedTurn): boolean {
    this.#socket.send(doneFrame(this.#session!.id, turn))
    return this.#socket.send(billingFrame(turn))
  }

  refuse(error: ChatError, messageId: string | undefined): void {
    this.#socket.send(errorFrame(error, false, messageId).frame)
  }

  notice(notice: ChatNotice): void {
    this.#socket.send(noticeFrame(notice))
  }

  end(error: ChatError): void {
    if (this.#phase === "over") return
    const { frame, code, close } = errorFrame(error, true)
    this.#socket.send(frame)
    this.#close(close, code)
  }

  // Its own.

  #close(code: number, reason: string): void {
    this.#leave()
    this.#socket.close(code, reason)
  }

  #goodbye(): void {
    this.notice({ _tag: "sessionClosed" })
    this.#close(1000, "session_closed")
  }

  #proved(): void {
    if (this.#timer === undefined) return
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#kernel.chat.newcomers.count--
  }

  #leave(): void {
    this.#proved()
    this.#phase = "over"
  }

  #authenticate(token: string, sessionId: string | undefined): void {
    const { admission, chat } = this.#kernel
    this.#phase = "proving"
    const opening = Effect.gen({ self: this }, function*(): Effect.fn.Return<Opened, ChatError> {
      const decision = yield* admission.admit(`Bearer ${token}`, { dialect: "autx", auth: "loginOrKey", scope: "orders", uncounted: true })
      if (decision.error !== undefined) return yield* Effect.fail(decision.error)
      this.#proved()
      const asked = { caller: decision.caller!, dialect: "autx", agent: this.#agent, client: this }
      return yield* (sessionId === undefined ? chat.open(asked) : chat.resume(asked, sessionId))
    })
    attempt(opening, (opened) => {
      // Who left meanwhile has never heard of a new session.
      if (this.#phase === "over") return opened.resumed ? opened.session.detach(this) : attempt(opened.session.close("never used"), () => {})
      this.#phase = "open"
      this.#session = opened.session
      this.#socket.send(sessionFrame(opened))
      opened.session.begin()
    }, (error) => this.end(error))
  }

  #act(session: ChatSession, frame: ClientFrame): void {
    switch (frame.type) {
      case "message": return session.message(frame.prompt, frame.id)
      case "cancel": return session.cancel()
      case "close": return attempt(session.close("closed by its client"), () => this.#goodbye(), (error) => this.refuse(error, undefined))
      case "auth": return this.end(new InvalidFrame({ malformed: false, msg: "The socket is authenticated already" }))
      case "ping": return
    }
  }
}

export const chat = socket({
  id: "autx.chat", method: "GET", path: "/ws/agent/{ticker}",
  docs: {
    summary: "Chat with an agent",
    description: "A WebSocket of JSON text frames. Send `{\"type\":\"auth\",\"token\":\"…\"}` first (with `session_id` to resume), then `message`, `cancel`, `ping` and `close`; `session`, `chunk`, `done`, `billing`, `error`, `notice` and `pong` come back. A message is charged when its `done` comes.",
    tag: "Sessions"
  },
  params: Schema.Struct({ ticker: Schema.String }), errors: ["Overloaded", "OriginForbidden"],
  accept: ({ params }) => Effect.gen(function*() {
    const chat = yield* Chat
    if (chat.newcomers.count >= chat.newcomers.max) return yield* new Overloaded({ what: "new sockets", retryAfterMs: 1_000 })
    const kernel: Kernel = { admission: yield* Admission, chat }
    return (socket: Socket) => new Conversation(kernel, socket, params.ticker)
  })
})
