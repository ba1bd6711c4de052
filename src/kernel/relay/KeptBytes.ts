/** Chunks of a body that are kept for a while, in order. The owner bounds them by `size`. */
export class KeptBytes {
  #chunks: Array<Uint8Array> = []
  size = 0

  add(chunk: Uint8Array): void {
    this.#chunks.push(chunk)
    this.size += chunk.byteLength
  }

  /** All of them as one; a single chunk is not copied. */
  bytes(): Uint8Array {
    return this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks)
  }

  /** Hands the chunks over and forgets them. */
  take(): ReadonlyArray<Uint8Array> {
    const chunks = this.#chunks
    this.#chunks = []
    this.size = 0
    return chunks
  }
}
