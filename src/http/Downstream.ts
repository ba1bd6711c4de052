/**
 * The caller's side of a relayed call, over uWS.
 *
 * Backpressure: with an announced length uWS takes what the socket takes
 * (`tryEnd`) and the rest of that one chunk waits here; without one uWS buffers
 * the chunk. Either way `write` answers `false` and nothing more may be written
 * until `onDrain`, so at most one chunk waits per call. A reader that takes
 * nothing for `readerStallMs` is cut off.
 *
 * The head leaves together with the first bytes of the body (uWS can't end a
 * head by itself). An answer that ends before its announced length is cut, never
 * padded: the caller must notice.
 */
import type { Peer } from "../cluster/Cluster.ts"
import type { GatewayError } from "../domain/errors.ts"
import type { Downstream, Header, RelayRequest } from "../kernel/Relay.ts"
import type { Exchange, GoneListener } from "./Exchange.ts"
import { collect } from "./RequestBody.ts"
import type { Stallable } from "./StallWatch.ts"

export class UwsDownstream implements Downstream, GoneListener, Stallable {
  idleTicks = 0
  watchedBefore: Stallable | undefined = undefined
  watchedAfter: Stallable | undefined = undefined
  readonly #exchange: Exchange
  readonly #again: (() => void) | undefined
  #status = 200
  #headers: ReadonlyArray<Header> = []
  /** `undefined`: in chunks. */
  #length: number | undefined = undefined
  #headWritten = false
  #sent = 0
  /** What uWS did not take of the last chunk, and the offset in the answer where it begins. */
  #rest: Uint8Array | undefined = undefined
  #restAt = 0
  #ending = false
  #waiting = false
  #writableHooked = false
  #onGone: (() => void) | undefined = undefined
  #onDrain: (() => void) | undefined = undefined

  /** `again`: decides anew who answers, when the one that the call was passed on to did nothing. */
  constructor(exchange: Exchange, again?: () => void) {
    this.#exchange = exchange
    this.#again = again
    exchange.listener = this
  }

  get request(): RelayRequest {
    return this.#exchange
  }

  collect(bytesMax: number, done: (body: Uint8Array) => void, failed: (error: GatewayError) => void): void {
    collect(this.#exchange.body, bytesMax, done, failed)
  }

  stream(bytesMax: number, sink: Parameters<Downstream["stream"]>[1]): ReturnType<Downstream["stream"]> {
    this.#exchange.body.consume(bytesMax, sink)
    return this.#exchange.body
  }

  onGone(handler: () => void): void {
    this.#onGone = handler
  }

  onDrain(handler: () => void): void {
    this.#onDrain = handler
  }

  reply(status: number, headers: ReadonlyArray<Header>, body: Uint8Array | string): void {
    this.#exchange.send(status, headers, body)
  }

  head(status: number, headers: ReadonlyArray<Header>, contentLength: number | undefined): void {
    this.#status = status
    this.#headers = headers
    // A 304 may announce the length of what it doesn't send (RFC 9110 §8.6).
    this.#length = status === 204 || status === 304 ? undefined : contentLength
  }

  write(chunk: Uint8Array): boolean {
    const exchange = this.#exchange
    if (exchange.isDone || chunk.byteLength === 0) return true
    const length = this.#length
    if (length !== undefined && this.#sent + chunk.byteLength > length) {
      this.abort()
      return true
    }
    this.#sent += chunk.byteLength
    if (this.#rest !== undefined) {
      this.#rest = Buffer.concat([this.#rest, chunk])
      return false
    }
    let taken = true
    exchange.response.cork(() => {
      this.#writeHead()
      if (length === undefined) taken = exchange.response.write(chunk)
      else taken = this.#tryEnd(chunk, this.#sent - chunk.byteLength, length)
    })
    if (!taken) this.#wait()
    return taken
  }

  end(): void {
    const exchange = this.#exchange
    if (exchange.isDone) return
    if (this.#length !== undefined && this.#length > 0) {
      // Complete answers are finished by their last byte; what is still here is short, or waits for the reader.
      if (this.#rest === undefined || this.#sent < this.#length) this.abort()
      return
    }
    if (!this.#headWritten) return exchange.send(this.#status, this.#headers, "")
    if (this.#waiting) {
      this.#ending = true
      return
    }
    this.#endChunks()
  }

  abort(): void {
    this.#exchange.edge.readers.delete(this)
    this.#exchange.abort()
  }

  fail(error: GatewayError, headers: ReadonlyArray<Header> = []): void {
    if (this.#headWritten) this.abort()
    else this.#exchange.fail(error, headers)
  }

  get canPassOn(): boolean {
    return this.#exchange.edge.hop.canPass(this.#exchange)
  }

  passOn(peer: Peer, body: Uint8Array | undefined): void {
    this.#exchange.edge.hop.pass(this.#exchange, peer, body, this.#again)
  }

  gone(): void {
    this.#exchange.edge.readers.delete(this)
    this.#onGone?.()
  }

  stalled(): void {
    const gone = this.#onGone
    this.abort()
    gone?.()
  }

  /** Inside a cork. `false`: the rest waits. */
  #tryEnd(chunk: Uint8Array, at: number, length: number): boolean {
    const { body, response } = this.#exchange
    // uWS takes the response away with its last byte: a paused request body must be let go before.
    if (at + chunk.byteLength === length) body.close(false)
    const [taken, complete] = response.tryEnd(chunk, length)
    if (complete) this.#finish()
    else if (!taken) {
      this.#rest = chunk
      this.#restAt = at
    }
    return taken
  }

  #wait(): void {
    this.#waiting = true
    this.#exchange.edge.readers.add(this)
    if (this.#writableHooked) return
    this.#writableHooked = true
    this.#exchange.response.onWritable((offset) => this.#writable(offset))
  }

  #writable(offset: number): boolean {
    if (this.#exchange.isDone) return true
    this.idleTicks = 0
    const rest = this.#rest
    if (rest !== undefined) {
      this.#rest = undefined
      const from = Math.max(0, offset - this.#restAt)
      if (!this.#tryEnd(from === 0 ? rest : rest.subarray(from), this.#restAt + from, this.#length!)) return false
    }
    this.#waiting = false
    this.#exchange.edge.readers.delete(this)
    if (this.#exchange.isDone) return true
    if (this.#ending) this.#endChunks()
    else this.#onDrain?.()
    return true
  }

  #endChunks(): void {
    const { response } = this.#exchange
    this.#finish()
    // Never with `closeConnection`: uWS would write that header into the chunked body.
    response.cork(() => response.end())
  }

  #writeHead(): void {
    if (this.#headWritten) return
    this.#headWritten = true
    this.#exchange.writeHead(this.#status, this.#headers)
    if (this.#exchange.closes) this.#exchange.response.writeHeader("connection", "close")
  }

  #finish(): void {
    this.#exchange.edge.readers.delete(this)
    this.#exchange.finish(this.#status)
  }
}
