/**
 * A request body on its way from a caller to an agent, as it comes.
 *
 * Holds at most `bufferBytes` plus one chunk: `write` answers `false` when that
 * is reached, and `onDrain` is called when the agent has taken it. When the
 * agent answers without reading the rest, or the call is aborted, what is still
 * written is dropped and `write` answers `true`, so that the caller's upload
 * can run out.
 */
import { Readable } from "node:stream"

const bufferBytes = 64 * 1024

export class UpstreamBody extends Readable {
  /** What the caller announced; `undefined` sends it chunked. */
  readonly contentLength: number | undefined
  readonly #drained: () => void
  #full = false

  constructor(contentLength: number | undefined, onDrain: () => void) {
    super({ highWaterMark: bufferBytes })
    this.contentLength = contentLength
    this.#drained = onDrain
  }

  /** Takes one chunk, which must not change afterwards. `false`: wait for `onDrain`. */
  write(chunk: Uint8Array): boolean {
    if (this.destroyed) return true
    this.#full = !this.push(chunk)
    return !this.#full
  }

  /** The body is complete. */
  end(): void {
    if (!this.destroyed) this.push(null)
  }

  override _read(): void {
    if (!this.#full) return
    this.#full = false
    this.#drained()
  }

  /** The reason is the transport's own and is reported by the call: a stream without listeners must not throw it. */
  override _destroy(_reason: Error | null, done: (error?: Error | null) => void): void {
    done(null)
    if (!this.#full) return
    this.#full = false
    this.#drained()
  }
}
