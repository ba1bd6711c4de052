/**
 * A request's body on its way from uWS to whoever wants it.
 *
 * uWS hands over bytes only while the handler that got the request is listening,
 * so this listens from the first moment: bytes that come before a consumer does
 * (its account may have to be loaded first) are kept, up to `bodyAheadBytesMax`,
 * then the socket is paused. Each chunk is copied once; uWS takes its memory back.
 *
 * Guarantee: a consumer sees every byte once, in order, and then exactly one of
 * the end, a failure (too long, too slow), or nothing more because the caller
 * has gone. It is never called from inside `consume`. A pause stops the socket; bytes already
 * read from it still come.
 */
import type { HttpResponse } from "uWebSockets.js"
import { BodyTimeout, BodyTooLarge, type GatewayError } from "../domain/errors.ts"
import type { Edge } from "./Edge.ts"
import type { Stallable } from "./StallWatch.ts"

export interface BodySink {
  chunk(bytes: Uint8Array, last: boolean): void
  failed(error: GatewayError): void
}

const empty = new Uint8Array(0)

export class RequestBody implements Stallable {
  idleTicks = 0
  watchedBefore: Stallable | undefined = undefined
  watchedAfter: Stallable | undefined = undefined
  readonly #edge: Edge
  readonly #response: HttpResponse
  /** `undefined`: comes in chunks. */
  readonly #announced: number | undefined
  readonly #owner: { defect(error: unknown): void }
  #ahead: Array<Uint8Array> = []
  #aheadBytes = 0
  #received = 0
  #sink: BodySink | undefined = undefined
  #bytesMax = Number.MAX_SAFE_INTEGER
  #complete = false
  #closed = false
  #paused = false
  #held = false
  #failure: GatewayError | undefined = undefined

  /** `owner` hears what a consumer throws. */
  constructor(edge: Edge, response: HttpResponse, announced: number | undefined, owner: { defect(error: unknown): void }) {
    this.#edge = edge
    this.#response = response
    this.#announced = announced
    this.#owner = owner
    if (announced === 0) {
      this.#complete = true
      return
    }
    edge.senders.add(this)
    response.onData((chunk, last) => this.#take(chunk, last))
  }

  /** Bytes may still come that nobody wants, more than is worth swallowing: the connection can't be used again. */
  get isCostlyToFinish(): boolean {
    return !this.#complete && (this.#announced === undefined || this.#announced - this.#received > this.#edge.limits.bodyAheadBytesMax)
  }

  /** Hands the body to its one consumer. */
  consume(bytesMax: number, sink: BodySink): void {
    this.#sink = sink
    this.#bytesMax = bytesMax
    // What is already here is delivered on a turn of its own, so that the consumer can finish setting up.
    if (this.#complete || this.#aheadBytes > 0 || this.#failure !== undefined || (this.#announced ?? 0) > bytesMax) {
      this.#held = true
      queueMicrotask(() => this.#release())
    }
  }

  /** Takes back a whole body, as its consumer got it: the next one gets it again. */
  giveBack(bytes: Uint8Array): void {
    this.#sink = undefined
    this.#ahead = [bytes]
    this.#aheadBytes = bytes.byteLength
  }

  /** Steers the caller. A paused body doesn't count as stalled. */
  pause(): void {
    if (this.#closed || this.#complete || this.#paused) return
    this.#paused = true
    this.#edge.senders.delete(this)
    this.#response.pause()
  }

  resume(): void {
    if (this.#closed || !this.#paused) return
    this.#paused = false
    if (!this.#complete) this.#edge.senders.add(this)
    this.#response.resume()
  }

  /** No more is wanted. Call it while the response may still be touched, or say that it may not (`gone`). */
  close(gone: boolean): void {
    if (this.#closed) return
    if (!gone) this.resume()
    this.#closed = true
    this.#ahead = []
    this.#sink = undefined
    this.#edge.senders.delete(this)
  }

  stalled(): void {
    this.#fail(new BodyTimeout())
  }

  #take(chunk: ArrayBuffer, last: boolean): void {
    if (this.#closed) return
    this.idleTicks = 0
    this.#received += chunk.byteLength
    if (last) {
      this.#complete = true
      this.#edge.senders.delete(this)
    }
    if (this.#received > this.#bytesMax) return this.#fail(new BodyTooLarge({ bytesMax: this.#bytesMax }))
    if (this.#sink !== undefined && !this.#held) {
      if (chunk.byteLength > 0 || last) this.#deliver(Buffer.from(new Uint8Array(chunk)), last)
      return
    }
    if (chunk.byteLength === 0) return
    this.#ahead.push(Buffer.from(new Uint8Array(chunk)))
    this.#aheadBytes += chunk.byteLength
    if (this.#aheadBytes > this.#edge.limits.bodyAheadBytesMax) this.pause()
  }

  /** Delivers what came before the consumer did. */
  #release(): void {
    this.#held = false
    if (this.#closed) return
    if (this.#failure !== undefined) return this.#fail(this.#failure)
    if (this.#received > this.#bytesMax || (this.#announced ?? 0) > this.#bytesMax) {
      return this.#fail(new BodyTooLarge({ bytesMax: this.#bytesMax }))
    }
    const ahead = this.#ahead
    this.#ahead = []
    this.#aheadBytes = 0
    // Before delivering: the consumer may want to pause again.
    this.resume()
    for (let i = 0; i < ahead.length; i++) this.#deliver(ahead[i]!, this.#complete && i === ahead.length - 1)
    if (this.#complete && ahead.length === 0) this.#deliver(empty, true)
  }

  #deliver(bytes: Uint8Array, last: boolean): void {
    const sink = this.#sink
    if (this.#closed || sink === undefined) return
    try {
      sink.chunk(bytes, last)
    } catch (error) {
      this.#owner.defect(error)
    }
  }

  #fail(error: GatewayError): void {
    if (this.#closed) return
    const sink = this.#sink
    if (sink === undefined || this.#held) {
      this.#failure = error
      return
    }
    this.close(false)
    try {
      sink.failed(error)
    } catch (thrown) {
      this.#owner.defect(thrown)
    }
  }
}

/** Collects a whole body, then calls `done` once with it. */
export const collect = (body: RequestBody, bytesMax: number, done: (bytes: Uint8Array) => void, failed: (error: GatewayError) => void): void => {
  let parts: Array<Uint8Array> | undefined
  body.consume(bytesMax, {
    chunk: (bytes, last) => {
      if (last && parts === undefined) return done(bytes)
      parts ??= []
      parts.push(bytes)
      if (last) done(Buffer.concat(parts))
    },
    failed
  })
}
