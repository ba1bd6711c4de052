/**
 * A request body on its way from a caller to an agent, as it comes.
 *
 * Until the call has its connection at most `aheadBytes` plus one chunk wait
 * here; then each chunk goes on at once, and what waits is the socket's. `write`
 * answers `false` when enough waits, and `onDrain` is called when the agent has
 * taken it. When the agent answers without reading the rest, or the call is
 * aborted, what is still written is dropped and `write` answers `true`, so that
 * the caller's upload can run out.
 */
const aheadBytes = 64 * 1024

/** Where the bytes go. `write` answers `false` when enough of them wait. */
export interface UploadSink {
  write(chunk: Uint8Array): boolean
  end(): void
}

export class UpstreamBody {
  /** What the caller announced; `undefined` sends it chunked. */
  readonly contentLength: number | undefined
  readonly #onDrain: () => void
  #sink: UploadSink | undefined
  #ahead: Array<Uint8Array> = []
  #waiting = 0
  #isFull = false
  #ended = false
  #destroyed = false

  constructor(contentLength: number | undefined, onDrain: () => void) {
    this.contentLength = contentLength
    this.#onDrain = onDrain
  }

  get destroyed(): boolean {
    return this.#destroyed
  }

  /** Bytes that wait here. */
  get waiting(): number {
    return this.#waiting
  }

  /** Takes one chunk, which must not change afterwards. `false`: wait for `onDrain`. */
  write(chunk: Uint8Array): boolean {
    if (this.#destroyed) return true
    if (this.#sink === undefined) {
      this.#ahead.push(chunk)
      this.#waiting += chunk.byteLength
      this.#isFull = this.#waiting >= aheadBytes
    } else this.#isFull = !this.#sink.write(chunk)
    return !this.#isFull
  }

  /** The body is complete. */
  end(): void {
    this.#ended = true
    if (!this.#destroyed) this.#sink?.end()
  }

  /** The call has its connection. */
  pour(sink: UploadSink): void {
    if (this.#destroyed) return
    this.#sink = sink
    const wasFull = this.#isFull
    const ahead = this.#ahead
    this.#ahead = []
    this.#waiting = 0
    this.#isFull = false
    for (const chunk of ahead) this.#isFull = !sink.write(chunk)
    if (this.#ended) sink.end()
    else if (wasFull && !this.#isFull) this.#onDrain()
  }

  /** The sink takes more. */
  drained(): void {
    if (!this.#isFull) return
    this.#isFull = false
    this.#onDrain()
  }

  destroy(): void {
    if (this.#destroyed) return
    this.#destroyed = true
    this.#sink = undefined
    this.#ahead = []
    this.#waiting = 0
    this.drained()
  }
}
