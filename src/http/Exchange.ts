/**
 * One request and its answer: the only code that writes to a uWS response.
 *
 * Guarantee: at most one answer; nothing is touched after the answer is complete
 * or the caller has gone (uWS would throw); every answer carries `x-request-id`,
 * the CORS headers of an allowed origin, and the rate headers once the caller is
 * known. Errors are worded by the dialect that the path belongs to. A defect is
 * logged once, here, with the request id, and answered without internals.
 */
import type { HttpResponse } from "uWebSockets.js"
import type { Draining, GatewayError, Overloaded } from "../domain/errors.ts"
import { requestId } from "../kernel/Ids.ts"
import type { Rate } from "../kernel/Admission.ts"
import type { Header, RelayRequest } from "../kernel/Relay.ts"
import { log } from "../telemetry/log.ts"
import { metrics } from "../telemetry/Metrics.ts"
import type { Dialect, Rendered } from "./dialect.ts"
import type { Edge } from "./Edge.ts"
import { addressText } from "./address/remoteAddress.ts"
import { isSafeValue, type RequestHead, statusLine } from "./headers.ts"
import { notMine, type Told } from "./hop/hopHead.ts"
import { RequestBody } from "./RequestBody.ts"
import type { Target } from "./rows/Target.ts"

/** A gateway that is full or stopping says so to many at once: they are counted, not logged one by one. */
const shedding: ReadonlySet<string> = new Set(["Overloaded", "MailboxFull", "Draining"])

/** Errors after which the rest of the request can't be told from the next one, or isn't worth reading. */
const closing: ReadonlySet<string> = new Set(["BodyTooLarge", "BodyTimeout", "Draining"])

/** Wording where no dialect is mounted. */
const plain = (error: GatewayError): Rendered => {
  switch (error._tag) {
    case "NotFound":
      return { status: 404, body: { detail: "Not found" } }
    case "MethodNotAllowed":
      return { status: 405, headers: [["allow", error.allow.join(", ")]], body: { detail: "Method not allowed" } }
    case "InvalidRequest":
      return { status: 400, body: { detail: "Invalid request", errors: error.issues } }
    case "Draining":
      return { status: 503, headers: [["retry-after", String(Math.max(1, Math.ceil(error.retryAfterMs / 1000)))]], body: { detail: "Stopping" } }
    default:
      return { status: 500, body: { detail: "Internal error" } }
  }
}

/** Each as a line of its own behind another. */
const linesOf = (headers: ReadonlyArray<Header>): string => {
  let lines = ""
  for (let i = 0; i < headers.length; i++) lines += "\r\n" + headers[i]![0] + ": " + headers[i]![1]
  return lines
}

/** The same of headers that others made: one whose value would end its line is left out. */
const safeLinesOf = (headers: ReadonlyArray<Header>): string => {
  for (let i = 0; i < headers.length; i++) if (!isSafeValue(headers[i]![1])) return linesOf(headers.filter((header) => isSafeValue(header[1])))
  return linesOf(headers)
}

/** Who wants to know that the caller left before the answer was complete; told at most once. */
export interface GoneListener {
  gone(): void
}

export class Exchange implements RelayRequest {
  readonly edge: Edge
  readonly response: HttpResponse
  readonly head: RequestHead
  readonly requestId: string
  /** Another node passed the call on to this one, and passes the answer back. */
  readonly isHopped: boolean
  readonly receivedAtMs = Date.now()
  readonly body: RequestBody
  /** Whose wording errors get; set as soon as the path is known. */
  dialect: Dialect | undefined = undefined
  target: Target | undefined = undefined
  /** When the call was first passed on to another node; 0: it was not. */
  passedAtMs = 0
  /** The answer's head is another node's and complete: nothing is added to it. */
  isVerbatim = false
  rate: Rate | undefined = undefined
  /** The framing of what follows can't be trusted: the connection ends with this answer. */
  isUntrusted = false
  listener: GoneListener | undefined = undefined
  readonly #startedAt = performance.now()
  readonly #origin: string
  #remoteAddress = ""
  #done = false

  constructor(edge: Edge, response: HttpResponse, head: RequestHead, told: Told | undefined) {
    this.edge = edge
    this.response = response
    this.head = head
    this.requestId = told?.requestId ?? requestId()
    this.#remoteAddress = told?.address ?? ""
    this.isHopped = told !== undefined
    this.#origin = head.origin !== "" && edge.cors.allows(head.origin) ? head.origin : ""
    edge.enter()
    response.onAborted(() => this.#aborted())
    this.body = new RequestBody(edge, response, head.contentLength, this)
  }

  get method(): string {
    return this.head.method
  }

  get host(): string {
    return this.head.host
  }

  get query(): string {
    return this.head.query
  }

  get headers(): ReadonlyArray<Header> {
    return this.head.headers
  }

  get contentLength(): number | undefined {
    return this.head.contentLength
  }

  /** The answer is complete, or the caller has gone: nothing can be written any more. */
  get isDone(): boolean {
    return this.#done
  }

  /** Asked of uWS at the first look, which must come before the exchange is done: most calls never look, and it costs as much as routing. */
  get remoteAddress(): string {
    if (this.#remoteAddress === "" && !this.#done) {
      this.#remoteAddress = this.edge.remoteAddress(addressText(this.response.getRemoteAddress()), this.head.forwardedFor)
    }
    return this.#remoteAddress
  }

  /** Whether the connection ends with this answer. Another node ends its own: it must have read the answer first. */
  get closes(): boolean {
    return !this.isHopped && (this.isUntrusted || this.edge.draining)
  }

  /** A complete answer in one write. `null`: without a body, and without a content length where the status forbids one. */
  send(status: number, headers: ReadonlyArray<Header>, body: string | Uint8Array | null): void {
    if (this.#done) return
    const closes = this.closes || !this.isHopped && this.body.isCostlyToFinish
    this.finish(status)
    const response = this.response
    response.cork(() => {
      this.writeHead(status, headers)
      if (status === 204 || status === 304) return response.endWithoutBody()
      if (this.head.method === "HEAD" && !closes) {
        // endWithoutBody(length) would leave the response pending: uWS waits for that many bytes.
        response.writeHeader("content-length", String(body === null ? 0 : Buffer.byteLength(body)))
        return response.endWithoutBody()
      }
      response.end(this.head.method === "HEAD" ? "" : body ?? "", closes)
    })
  }

  /** The whole answer to a HEAD, as another node gave it. */
  sendHead(status: number, headers: ReadonlyArray<Header>, contentLength: string | undefined): void {
    if (this.#done) return
    this.finish(status)
    const response = this.response
    response.cork(() => {
      this.writeHead(status, headers)
      if (contentLength !== undefined) response.writeHeader("content-length", contentLength)
      response.endWithoutBody()
    })
  }

  /**
   * Status line and headers; the caller is inside a cork and has checked `isDone`.
   * All lines go to uWS as the value of the first: it writes a value as it is, and a call for each header costs a tenth of a relayed call.
   */
  writeHead(status: number, headers: ReadonlyArray<Header>): void {
    if (this.isVerbatim) return this.#writeVerbatim(status, headers)
    let lines: string = this.requestId
    if (this.dialect !== undefined) {
      if (this.rate !== undefined) lines += linesOf(this.dialect.rateHeaders(this.rate))
      lines += this.edge.answerLines.get(this.dialect) ?? ""
    }
    if (this.#origin !== "") lines += linesOf(this.edge.cors.answerHeaders(this.#origin))
    this.response.writeStatus(statusLine(status)).writeHeader("x-request-id", lines + safeLinesOf(headers))
  }

  #writeVerbatim(status: number, headers: ReadonlyArray<Header>): void {
    this.response.writeStatus(statusLine(status))
    const [first, ...others] = headers
    if (first !== undefined) this.response.writeHeader(first[0], first[1] + linesOf(others))
  }

  sendRendered(rendered: Rendered, extra: ReadonlyArray<Header> = []): void {
    const headers: Array<Header> = [["content-type", "application/json"], ["cache-control", "no-store"], ...extra]
    if (rendered.headers !== undefined) headers.push(...rendered.headers)
    this.send(rendered.status, headers, JSON.stringify(rendered.body))
  }

  /** Answers an error in the dialect's words. */
  fail(error: GatewayError, headers: ReadonlyArray<Header> = []): void {
    if (this.#done) return
    metrics.refusals.labels(error._tag).inc()
    if (closing.has(error._tag)) this.isUntrusted = true
    const rendered = this.rendered(error)
    if (rendered.status >= 500) log[shedding.has(error._tag) ? "debug" : "warn"]({ requestId: this.requestId, traceId: this.head.traceId, row: this.target?.meter.id, error: error._tag, status: rendered.status }, "call failed")
    this.sendRendered(rendered, headers)
  }

  /** The same before anything was done: a node that passed the call on may decide anew who answers. */
  failHere(error: Draining | Overloaded): void {
    this.fail(error, this.isHopped ? [notMine] : [])
  }

  /** The dialect's wording. Its table is total, which the compiler can't see through the index. */
  rendered(error: GatewayError): Rendered {
    if (this.dialect === undefined) return plain(error)
    return (this.dialect.errors[error._tag] as (error: GatewayError) => Rendered)(error)
  }

  /** Something that can't happen did. Logged once; the caller learns the request id and nothing else. */
  defect(error: unknown): void {
    log.error({ requestId: this.requestId, traceId: this.head.traceId, row: this.target?.meter.id, err: error }, "defect")
    if (this.#done) return
    this.sendRendered(this.dialect?.internalError(this.requestId) ?? { status: 500, body: { detail: "Internal error", request_id: this.requestId } })
  }

  /** Marks the answer complete. Whoever writes the last byte itself calls this just before. */
  finish(status: number): void {
    this.#done = true
    this.listener = undefined
    this.body.close(false)
    // One that another node answered counts there.
    if (!this.isVerbatim) this.target?.meter.answered(status, (performance.now() - this.#startedAt) / 1000)
    if (this.edge.logsAccess) log.debug({ requestId: this.requestId, traceId: this.head.traceId, row: this.target?.meter.id, method: this.head.method, status }, "answered")
    this.edge.leave()
  }

  /** The answer can't be completed: the caller sees its connection end early. */
  abort(): void {
    if (this.#done) return
    this.#leave()
    this.response.close()
  }

  #aborted(): void {
    if (this.#done) return
    const { listener } = this
    this.#leave()
    listener?.gone()
  }

  #leave(): void {
    this.#done = true
    this.listener = undefined
    this.body.close(true)
    this.target?.meter.gone()
    this.edge.leave()
  }
}
