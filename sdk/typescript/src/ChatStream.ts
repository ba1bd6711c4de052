/// <reference lib="esnext.disposable" preserve="true" />
/**
 * One prompt and its answer, in a session of its own that is opened when reading
 * begins and closed when it ends. Leaving the loop early cancels the answer:
 * nothing is charged unless it had ended already. Read it once.
 */
import type { ChatSession } from "./ChatSession.ts"
import type { ChatChunk, ChatTurn } from "./ChatTurn.ts"

export class ChatStream implements AsyncIterable<ChatChunk> {
  readonly #session: ChatSession
  readonly #prompt: string
  #turn: ChatTurn | undefined

  /** @internal */
  constructor(session: ChatSession, prompt: string) {
    this.#session = session
    this.#prompt = prompt
  }

  /** US dollars; 0 until the loop has ended, and when nothing was charged. */
  get costUsd(): number {
    return this.#turn?.costUsd ?? 0
  }

  /** The same as exact decimal text. */
  get amountCharged(): string {
    return this.#turn?.amountCharged ?? "0.00"
  }

  get orderId(): string | undefined {
    return this.#turn?.orderId
  }

  get sessionId(): string | undefined {
    return this.#session.sessionId
  }

  /** What has come so far; at the end the whole answer. */
  text(): string {
    return this.#turn?.text() ?? ""
  }

  /** Stops the answer, which ends the loop. */
  async cancel(): Promise<void> {
    await this.#session.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.cancel()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ChatChunk, void, undefined> {
    try {
      this.#turn = this.#session.send(this.#prompt)
      yield* this.#turn
    } finally {
      await this.#session.close()
    }
  }
}
