/**
 * What a session still has to tell its socket: text in order, then the end of
 * its turn, then perhaps the last word. Text that the socket does not take waits
 * here, and above `chatPendingCharsMax` its agent is paused. Without a socket
 * nothing waits: who attaches is told again from the turn's beginning.
 *
 * A turn's end counts as told when the socket has taken it; until then it is
 * kept, with its text, for the next socket.
 */
import { limits } from "../../config.ts"
import type { ChatClient, ChatError, FinishedTurn } from "./ChatClient.ts"

export class ChatOutlet {
  #client: ChatClient | undefined
  /** The client has been told that the session is its own. */
  #hasBegun = false
  #messageId: string | undefined
  #pending = ""
  /** Since when the socket takes nothing more; `undefined` while it does. */
  #blockedAtMs: number | undefined
  #finished: { readonly turn: FinishedTurn; readonly text: string; sent: boolean } | undefined
  #lastWord: ChatError | undefined

  get client(): ChatClient | undefined {
    return this.#client
  }

  /** The end of a turn has not reached a socket yet. */
  get owesAnEnd(): boolean {
    return this.#finished !== undefined
  }

  get takesMore(): boolean {
    return this.#pending.length < limits.chatPendingCharsMax
  }

  /** Answers the client before. Nothing is told until `begin`. */
  attach(client: ChatClient): ChatClient | undefined {
    const before = this.#client
    this.#client = client
    this.#hasBegun = false
    this.#blockedAtMs = undefined
    this.#pending = ""
    return before
  }

  /** True when it was this client that was attached. */
  detach(client: ChatClient): boolean {
    if (client !== this.#client) return false
    this.#client = undefined
    this.#blockedAtMs = undefined
    this.#pending = ""
    this.#lastWord = undefined
    return true
  }

  /** Begins with what the socket before may not have got: the running turn's text, or the turn that ended meanwhile. */
  begin(running: { readonly told: string; readonly messageId: string | undefined } | undefined): void {
    this.#hasBegun = true
    if (this.#finished !== undefined) {
      this.#messageId = this.#finished.turn.messageId
      this.#pending = this.#finished.text
      this.#finished.sent = false
    } else if (running !== undefined) {
      this.#messageId = running.messageId
      this.#pending = running.told
    }
    this.#pump()
  }

  /** `false`: enough waits. */
  text(text: string, messageId: string | undefined): boolean {
    if (this.#client === undefined || !this.#hasBegun) return true
    this.#messageId = messageId
    if (this.#blockedAtMs === undefined && this.#pending === "") this.#send(text)
    else this.#pending += text
    return this.takesMore
  }

  /** The turn's end comes after what still waits. `rest`: what was not told of `text`. */
  finish(turn: FinishedTurn, text: string, rest: string): void {
    this.#finished = { turn, text, sent: false }
    if (this.#client === undefined || !this.#hasBegun) return
    this.#messageId = turn.messageId
    this.#pending += rest
    this.#pump()
  }

  /** The turn came to nothing: what waits of it is not worth telling. */
  drop(): void {
    this.#pending = ""
  }

  /** Ends the socket, if there is one, once everything is told; at once when nothing is under way. */
  lastWord(error: ChatError, nothingUnderWay: boolean): void {
    if (this.#client === undefined) return
    this.#lastWord = error
    if (nothingUnderWay) this.#pump()
  }

  /** After a turn that came to nothing. */
  settle(): void {
    this.#pump()
  }

  drained(): void {
    this.#blockedAtMs = undefined
    if (this.#finished?.sent === true) this.#finished = undefined
    this.#pump()
  }

  isStalled(nowMs: number): boolean {
    return this.#blockedAtMs !== undefined && nowMs - this.#blockedAtMs >= limits.chatStallMs
  }

  #send(text: string): void {
    if (!this.#client!.chunk(text, this.#messageId)) this.#blockedAtMs = Date.now()
  }

  #pump(): void {
    if (this.#client === undefined || !this.#hasBegun) return
    while (this.#blockedAtMs === undefined && this.#pending !== "") {
      const text = this.#pending.slice(0, limits.chatChunkCharsMax)
      this.#pending = this.#pending.slice(text.length)
      this.#send(text)
    }
    if (this.#blockedAtMs !== undefined || this.#pending !== "") return
    if (this.#finished !== undefined && !this.#finished.sent) {
      this.#finished.sent = true
      if (this.#client.finished(this.#finished.turn)) this.#finished = undefined
      else this.#blockedAtMs = Date.now()
    }
    if (this.#lastWord !== undefined) this.#client.end(this.#lastWord)
  }
}
