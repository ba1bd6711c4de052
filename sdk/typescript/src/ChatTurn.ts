/**
 * One message and its answer. The reader takes chunks as they come; what it has
 * not taken yet waits, up to 4 Mi characters, above which the turn is cancelled
 * and reading fails with `slow_consumer`.
 *
 * Guarantee: no part of an answer is delivered twice or left out. After a
 * reconnect the gateway tells the running answer from its start: what was
 * delivered is compared and passed over. Should it be another answer, because
 * the gateway died and the agent was asked anew, the next chunk says so
 * (`restarted`) and holds the new answer from its beginning.
 *
 * Failure: the reader gets what came, then the error. A turn that nobody reads
 * fails in silence; it never makes an unhandled rejection.
 */
import { type AutxError, chatError } from "./AutxError.ts"
import type { BillingFrame, DoneFrame } from "./frames.ts"

export interface ChatChunk {
  readonly delta: string
  /** What came before was lost with the gateway; the answer begins anew with this chunk. */
  readonly restarted?: true
}

/** Read it with `for await`, once. Leaving the loop early cancels the turn. */
export interface ChatTurn extends AsyncIterable<ChatChunk> {
  /** The message's id. Sending it again in the same session repeats the finished turn and charges nothing. */
  readonly id: string | undefined
  /** What has come so far; at the end the whole answer. */
  text(): string
  /** Stops the answer; nothing is charged unless it had ended already. Resolves when the turn is over. */
  cancel(): Promise<void>
  readonly isCancelled: boolean
  /** From here on there at the end of the loop. US dollars; 0 before, and when nothing was charged. */
  readonly costUsd: number
  /** The same as exact decimal text. */
  readonly amountCharged: string
  readonly orderId: string | undefined
  readonly outputHash: string | undefined
  readonly messageIndex: number | undefined
}

const waitingCharsMax = 4 * 1024 * 1024

/** The session's side of a turn. */
export class Turn implements ChatTurn {
  readonly id: string | undefined
  /** `undefined`: sent by whoever had the session before. */
  readonly prompt: string | undefined
  /** Resolves when the turn is over, however it ended. */
  readonly over: Promise<void>
  isSent = false
  /** The gateway has told some of it on this connection, so it has it. */
  isHeard = false
  isOver = false
  isCancelled = false
  costUsd = 0
  amountCharged = "0.00"
  orderId: string | undefined
  outputHash: string | undefined
  messageIndex: number | undefined
  readonly #cancel: () => void
  #chunks: Array<ChatChunk> = []
  #waitingChars = 0
  #text = ""
  /** How much of `#text` the gateway has told on this connection. */
  #told = 0
  #error: AutxError | undefined
  #wake = (): void => {}
  #settle!: () => void

  constructor(id: string | undefined, prompt: string | undefined, cancel: () => void) {
    this.id = id
    this.prompt = prompt
    this.#cancel = cancel
    this.over = new Promise((settle) => { this.#settle = settle })
  }

  text(): string {
    return this.#text
  }

  cancel(): Promise<void> {
    if (!this.isOver && !this.isCancelled) {
      this.isCancelled = true
      this.#cancel()
    }
    return this.over
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ChatChunk, void, undefined> {
    try {
      for (;;) {
        const chunks = this.#chunks.splice(0)
        for (const chunk of chunks) {
          this.#waitingChars -= chunk.delta.length
          yield chunk
        }
        if (chunks.length > 0) continue
        if (this.#error !== undefined) throw this.#error
        if (this.isOver) return
        await new Promise<void>((wake) => { this.#wake = wake })
      }
    } finally {
      await this.cancel()
    }
  }

  /** The gateway tells the answer from here, perhaps once more. */
  tellFrom(position: number): void {
    this.isHeard = false
    this.#told = Math.min(position, this.#text.length)
  }

  chunk(data: string): void {
    this.isHeard = true
    const known = this.#told === this.#text.length ? "" : this.#text.slice(this.#told, this.#told + data.length)
    if (data.startsWith(known)) {
      this.#told += data.length
      if (known.length < data.length) this.#deliver({ delta: data.slice(known.length) })
    } else this.#restart(data)
  }

  done({ order_id, output_hash, message_index }: DoneFrame): void {
    this.isHeard = true
    if (this.#told < this.#text.length) this.#restart("")
    this.orderId = order_id
    this.outputHash = output_hash
    this.messageIndex = message_index
  }

  billed({ amount_charged }: BillingFrame): void {
    this.amountCharged = amount_charged
    this.costUsd = Number(amount_charged)
    this.isCancelled = false
    this.#end()
  }

  /** Over without a charge. */
  stopped(): void {
    this.isCancelled = true
    this.#end()
  }

  failed(error: AutxError): void {
    this.#error ??= error
    this.#end()
  }

  #restart(data: string): void {
    const delta = this.#text.slice(0, this.#told) + data
    this.#text = ""
    this.#told = delta.length
    this.#deliver({ delta, restarted: true })
  }

  #deliver(chunk: ChatChunk): void {
    this.#text += chunk.delta
    if (this.#error !== undefined) return
    this.#waitingChars += chunk.delta.length
    if (this.#waitingChars > waitingCharsMax) {
      this.#error = chatError("slow_consumer", `More than ${waitingCharsMax} characters of the answer waited to be read`)
      void this.cancel()
    } else this.#chunks.push(chunk)
    this.#wake()
  }

  #end(): void {
    if (this.isOver) return
    this.isOver = true
    this.#settle()
    this.#wake()
  }
}
