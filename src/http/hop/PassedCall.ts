/**
 * One call on its way to the node that owns its caller's account, and the
 * owner's answer back, both as they come.
 *
 *   connecting ─▶ asking ─▶ answering ─▶ over
 *        └──────────┴─▶ put off ─▶ decided anew when accounts have moved
 *
 * Guarantee. The call reaches at most one owner that may act on it. It is put off
 * only when that was never reached, or said that it did nothing, or was asked what
 * can be asked twice (a GET that the gateway itself answers); and when its body is
 * all here: not read yet, for that begins when the owner is connected, or short
 * enough to be kept meanwhile.
 *
 * Failure cases. Owner never reached: 503, nothing was done. Connection broken,
 * or silent too long, before the answer's head: 503 `OutcomeUnknown`, as the owner
 * may have acted. Later: the caller's answer is cut, never completed. The caller
 * leaves: the connection to the owner is cut, which tells it so.
 *
 * Backpressure both ways: a caller is paused while the owner's socket is full, the
 * owner while the caller's is; the edge's rules for those who stall apply.
 */
import type { ClientRequest, IncomingMessage } from "node:http"
import { limits } from "../../config.ts"
import { type GatewayError, OutcomeUnknown, Overloaded } from "../../domain/errors.ts"
import { metrics } from "../../telemetry/Metrics.ts"
import { UwsDownstream } from "../Downstream.ts"
import type { Exchange } from "../Exchange.ts"
import { isNotMine, isSafe, toCaller } from "./hopHead.ts"
import type { PeerLine } from "./PeerLine.ts"

/** Of a body that is kept while its call is under way. */
const keptBytesMax = limits.copyOnceBytesMax

/** Whoever owns the account is not to be had now. Nothing was done. */
export const unplaced = (): Overloaded => new Overloaded({ what: "placement", retryAfterMs: 1_000 })

export type PassedOutcome = "answered" | "put_off" | "failed" | "unknown" | "refused" | "cut" | "gone"

export class PassedCall {
  readonly #exchange: Exchange
  readonly #downstream: UwsDownstream
  readonly #request: ClientRequest
  /** Decides the call anew, or fails it; absent: nobody may. */
  readonly #putOff: (() => void) | undefined
  /** Of silence: of the connection, then of the owner. */
  #timer: NodeJS.Timeout
  #answer: IncomingMessage | undefined
  #isConnected = false
  #isBodyRead = false
  /** All of the body, when it was in one piece. */
  #kept: Uint8Array | undefined
  #isSent = false
  #isOver = false
  readonly #stop = () => this.#stopStream()

  /** `body`: when it was read already. */
  constructor(exchange: Exchange, line: PeerLine, path: string, headers: Array<string>, body: Uint8Array | undefined, putOff: (() => void) | undefined) {
    this.#exchange = exchange
    this.#putOff = putOff
    this.#downstream = new UwsDownstream(exchange)
    this.#downstream.onGone(() => this.#gone())
    const request = line.request(exchange.method, path, headers)
    this.#request = request
    this.#timer = setTimeout(() => request.destroy(), exchange.edge.limits.hopConnectMs)
    request.once("socket", (socket) => {
      if (socket.connecting) socket.once("connect", () => this.#ask(body))
      else this.#ask(body)
    })
    request.once("response", (answer) => this.#answered(answer))
    // What happened is told by `close`, once, in every case.
    request.on("error", () => {})
    request.once("close", () => this.#closed())
  }

  #ask(body: Uint8Array | undefined): void {
    if (this.#isOver) return
    const { hopFirstByteMs, relayBodyBytesMax } = this.#exchange.edge.limits
    this.#isConnected = true
    this.#limitSilence(hopFirstByteMs)
    if (body === undefined && this.#exchange.contentLength === 0) return this.#send(undefined)
    this.#isBodyRead = true
    this.#kept = body
    if (body !== undefined) return this.#send(body)
    let isFirst = true
    const flow = this.#exchange.body
    this.#request.on("drain", () => {
      this.#timer.refresh()
      flow.resume()
    })
    this.#downstream.stream(relayBodyBytesMax, {
      chunk: (bytes, last) => {
        if (this.#isOver) return
        this.#timer.refresh()
        if (last && isFirst && bytes.byteLength <= keptBytesMax) this.#kept = bytes
        isFirst = false
        if (last) this.#send(bytes)
        else if (!this.#request.write(bytes)) flow.pause()
      },
      failed: (error) => this.#fail(error, "refused")
    })
  }

  #send(bytes: Uint8Array | undefined): void {
    this.#isSent = true
    this.#request.end(bytes)
  }

  #answered(answer: IncomingMessage): void {
    if (this.#isOver) return void answer.destroy()
    const { edge, target, method } = this.#exchange
    if (this.#mayBePutOff && isNotMine(answer)) {
      answer.resume()
      return this.#putItOff()
    }
    this.#answer = answer
    this.#limitSilence(edge.limits.hopIdleMs)
    const status = answer.statusCode!
    const headers = toCaller(answer)
    const announced = answer.headers["content-length"]
    const length = announced === undefined ? undefined : Number(announced)
    this.#exchange.isVerbatim = true
    // A head says everything about a body that does not come, its length too.
    if (method === "HEAD") {
      answer.once("end", () => {
        this.#end("answered")
        this.#exchange.sendHead(status, headers, announced)
      })
      return void answer.resume()
    }
    this.#downstream.head(status, headers, length)
    // An event stream of the gateway's own never ends by itself.
    if (target?.isStream === true) edge.streams.add(this.#stop)
    this.#downstream.onDrain(() => {
      this.#limitSilence(edge.limits.hopIdleMs)
      answer.resume()
    })
    answer.on("data", (bytes: Buffer) => {
      this.#timer.refresh()
      // One write; and it ends a connection on which too much of the caller's body would still come.
      if (bytes.byteLength === length) return this.#downstream.reply(status, headers, bytes)
      if (this.#downstream.write(bytes)) return
      // It is the caller who is silent now, and watched for it.
      clearTimeout(this.#timer)
      answer.pause()
    })
    answer.once("end", () => {
      this.#end("answered")
      this.#downstream.end()
    })
    answer.on("error", () => {})
  }

  /** The owner's connection is no more this call's, for whatever reason. */
  #closed(): void {
    if (this.#isOver) return
    if (this.#answer !== undefined) {
      // All of it is here, and waits for a slow reader.
      if (this.#answer.complete) return
      this.#end("cut")
      return this.#downstream.abort()
    }
    const wasAsked = this.#isConnected && !this.#isRepeatable
    if (!wasAsked && this.#mayBePutOff) return this.#putItOff()
    if (wasAsked) this.#fail(new OutcomeUnknown({ retryAfterMs: 1_000 }), "unknown")
    else this.#fail(unplaced(), "failed")
  }

  /** A GET may be an agent's, and cost money. */
  get #isRepeatable(): boolean {
    return isSafe(this.#exchange.method) && this.#exchange.target?.isRelayed !== true
  }

  get #mayBePutOff(): boolean {
    return this.#putOff !== undefined && (!this.#isBodyRead || this.#kept !== undefined)
  }

  #putItOff(): void {
    this.#end("put_off")
    if (this.#kept !== undefined) this.#exchange.body.giveBack(this.#kept)
    this.#putOff!()
  }

  #fail(error: GatewayError, outcome: PassedOutcome): void {
    if (this.#isOver) return
    this.#end(outcome)
    this.#downstream.fail(error)
  }

  #gone(): void {
    if (!this.#isOver) this.#end("gone")
  }

  #stopStream(): void {
    this.#end("answered")
    this.#downstream.end()
  }

  #limitSilence(ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#request.destroy(), ms)
  }

  #end(outcome: PassedOutcome): void {
    this.#isOver = true
    clearTimeout(this.#timer)
    this.#exchange.edge.streams.delete(this.#stop)
    metrics.callsPassedOn.labels(outcome).inc()
    // One that was answered whole is used again; the owner swallows no more of an upload that it has answered.
    if (!(this.#isSent && (outcome === "answered" || outcome === "put_off") && this.#answer?.complete !== false)) this.#request.destroy()
  }
}
