/**
 * One call to an agent, from its lane to its end.
 *
 *   waiting ──slot──▶ running ──▶ done        refused: done at once
 *
 * Deadlines while running: the total from dispatch; the first byte from the
 * moment the request, body included, is written (until then only the total
 * counts, the caller may be slow); silence between two chunks, except while the
 * caller's side has paused; and as long for an agent that takes nothing of an
 * upload, because nobody notices meanwhile that its caller has gone.
 *
 * The agent is to blame, and its circuit hears of it, for not being reached, for
 * not answering in time and for broken answers. Not for what happens while the
 * caller still uploads or has stopped reading, nor for passing the total: a slow
 * caller must not take an agent away from everybody else.
 *
 * Failures are delivered on a turn of their own: they may come from inside the
 * HTTP parser or from `send` itself.
 */
import { abandoned, type Admitted, failed as breakerFailed, succeeded } from "../../domain/breaker.ts"
import { AgentUnavailable } from "../../domain/errors.ts"
import { log } from "../../telemetry/log.ts"
import { metrics } from "../../telemetry/Metrics.ts"
import type { Exchange, UpstreamCall, UpstreamHandler } from "./Upstream.ts"
import { UpstreamBody } from "./UpstreamBody.ts"
import type { Lane, UpstreamLanes } from "./UpstreamLanes.ts"
import type { TransportFailure, TransportHandler, UpstreamConnection } from "./UpstreamConnection.ts"

type Reason = AgentUnavailable["reason"]

/** When to try again after a failure that does not say so itself. */
const retryAfterMs = 1_000
/** A forbidden address takes its owner, or an operator. */
const forbiddenRetryAfterMs = 60_000

/** Everything that a request target may not hold as it is; `#` would end it. */
const unsafeInQuery = /[^\x21\x22\x24-\x7e]+/g
const percentEncoded = (text: string): string => Array.from(Buffer.from(text), (byte) => `%${byte.toString(16).padStart(2, "0")}`).join("")

/** Everything that a path may not hold as it is: `?` would end it. */
const unsafeInPath = /[^\x21\x22\x24-\x3e\x40-\x7e]+/g

/** The target's path with the tail behind it: one slash between them, the target's own query at the end. */
const joined = (path: string, tail: string): string => {
  const end = path.indexOf("?")
  const base = (end === -1 ? path : path.slice(0, end)).replace(/\/$/, "")
  return `${base}/${tail.replace(unsafeInPath, percentEncoded)}${end === -1 ? "" : path.slice(end)}`
}

const pathOf = ({ target, tail, query }: UpstreamCall): string => {
  const path = tail === undefined || tail === "" ? target.path : joined(target.path, tail)
  if (query === "") return path
  return path + (path.includes("?") ? "&" : "?") + query.replace(unsafeInQuery, percentEncoded)
}

export class UpstreamExchange implements Exchange, TransportHandler {
  readonly lane: Lane
  /** Past this on the lanes' clock, the sweep calls `expire`. */
  deadlineMs = 0
  /** Its place among the live exchanges. */
  at = 0
  readonly #lanes: UpstreamLanes
  readonly #call: UpstreamCall
  readonly #handler: UpstreamHandler
  #phase: "waiting" | "running" | "done" = "waiting"
  #admitted: Admitted = "pass"
  #connection: UpstreamConnection | undefined
  #beganMs = 0
  #sent = false
  #answered = false
  /** What was read after the caller's side paused; `undefined` while it takes everything. */
  #held: Array<Uint8Array> | undefined
  /** The agent is done while chunks are still held. */
  #complete = false
  #aborted = false

  constructor(lanes: UpstreamLanes, lane: Lane, call: UpstreamCall, handler: UpstreamHandler) {
    this.#lanes = lanes
    this.lane = lane
    this.#call = call
    this.#handler = handler
  }

  // The lane's side.

  /** Fails without having entered. */
  refuse(reason: Reason, retryMs: number): void {
    this.#phase = "done"
    this.#discardBody()
    this.#report(reason, retryMs)
  }

  wait(nowMs: number): void {
    this.deadlineMs = nowMs + this.#lanes.limits.queueMs
  }

  begin(admitted: Admitted, nowMs: number): void {
    const { body, headers, method, target, ownerId } = this.#call
    this.#phase = "running"
    this.#admitted = admitted
    this.#beganMs = nowMs
    this.deadlineMs = nowMs + this.#lanes.limits.totalMs
    const request = { path: pathOf(this.#call), method, headers, body }
    this.#connection = this.#lanes.transport.dispatch(target.origin, this.#lanes.guard.trusts(ownerId), request, this)
    if (this.#connection === undefined) this.failed({ reason: "busy", agentAtFault: false })
  }

  /** Fails while it waits. */
  giveUp(reason: Reason, retryMs: number): void {
    this.#leave()
    this.#report(reason, retryMs)
  }

  /** A deadline has passed. */
  expire(): void {
    if (this.#phase === "waiting") return this.giveUp("busy", this.#lanes.limits.queueMs)
    const inTotal = this.#lanes.clockMs - this.#beganMs < this.#lanes.limits.totalMs
    this.#hangUp()
    this.failed({ reason: "timeout", agentAtFault: inTotal })
  }

  /** The gateway ends. */
  stop(): void {
    this.#hangUp()
    this.failed({ reason: "unreachable", agentAtFault: false })
  }

  #silence(ms: number): number {
    const { silenceMs } = this.#call
    return silenceMs === undefined || silenceMs > ms ? ms : silenceMs
  }

  // The caller's side.

  resume(): void {
    // A turn later: another call's parser may be running.
    queueMicrotask(() => this.#flush())
  }

  abort(): void {
    this.#aborted = true
    if (this.#phase === "done") return
    if (this.#phase === "running") abandoned(this.lane.breaker, this.#admitted)
    this.#hangUp()
    this.#leave()
  }

  // The transport's side.

  uploadWaits(waits: boolean): void {
    if (this.#answered) return
    if (waits) this.#within(this.#silence(this.#lanes.limits.idleMs))
    else this.deadlineMs = this.#beganMs + this.#lanes.limits.totalMs
  }

  sent(): void {
    this.#sent = true
    if (!this.#answered) this.#within(this.#silence(this.#lanes.limits.firstByteMs))
  }

  head(status: number, fields: ReadonlyArray<string>, contentLength: number | undefined): void {
    const nowMs = performance.now()
    metrics.upstreamSeconds.observe((nowMs - this.#beganMs) / 1_000)
    this.#answered = true
    // The agent is back: others need not wait for the end of this answer, which may be a long stream.
    if (this.#admitted === "probe") {
      succeeded(this.lane.breaker, "probe", nowMs)
      this.#admitted = "pass"
    }
    this.#within(this.#silence(this.#lanes.limits.idleMs))
    try {
      this.#handler.head(status, this.#call.answer.apply(fields), status === 204 || status === 304 ? 0 : contentLength)
    } catch (cause) {
      this.#defect(cause)
    }
  }

  data(chunk: Uint8Array): void {
    if (this.#phase === "done") return
    if (this.#held !== undefined) return void this.#held.push(chunk)
    this.#within(this.#silence(this.#lanes.limits.idleMs))
    try {
      if (this.#handler.chunk(chunk) || this.#isDone()) return
    } catch (cause) {
      return this.#defect(cause)
    }
    this.#held = []
    this.deadlineMs = this.#beganMs + this.#lanes.limits.totalMs
    this.#connection?.pause()
  }

  end(): void {
    if (this.#phase === "done") return
    // The connection is another call's from here on.
    this.#connection = undefined
    if (this.#held !== undefined && this.#held.length > 0) {
      this.#complete = true
      return
    }
    this.#leave()
    succeeded(this.lane.breaker, this.#admitted, this.#lanes.clockMs)
    try {
      this.#handler.end()
    } catch (cause) {
      this.#defect(cause)
    }
  }

  failed({ reason, agentAtFault }: TransportFailure): void {
    if (this.#phase === "done") return
    const callersPart = this.#held !== undefined || reason !== "unreachable" && !this.#sent
    if (agentAtFault && !callersPart) breakerFailed(this.lane.breaker, this.#admitted, performance.now())
    else abandoned(this.lane.breaker, this.#admitted)
    this.#leave()
    this.#report(reason, reason === "address_forbidden" ? forbiddenRetryAfterMs : retryAfterMs)
  }

  // Its own.

  #flush(): void {
    const held = this.#held
    if (held === undefined || this.#phase === "done") return
    this.#held = undefined
    for (const chunk of held) this.data(chunk)
    if (this.#isDone() || this.#held !== undefined) return
    if (this.#complete) return this.end()
    this.#within(this.#silence(this.#lanes.limits.idleMs))
    this.#connection?.resume()
  }

  #within(ms: number): void {
    this.deadlineMs = Math.min(this.#lanes.clockMs + ms, this.#beganMs + this.#lanes.limits.totalMs)
  }

  /** A method, because the handler may have aborted behind the compiler's back. */
  #isDone(): boolean {
    return this.#phase === "done"
  }

  #hangUp(): void {
    this.#connection?.abort()
    this.#connection = undefined
  }

  #leave(): void {
    this.#phase = "done"
    this.#held = undefined
    this.#discardBody()
    this.#lanes.left(this)
  }

  #discardBody(): void {
    if (this.#call.body instanceof UpstreamBody) this.#call.body.destroy()
  }

  #report(reason: Reason, retryMs: number): void {
    metrics.upstreamFailures.inc({ reason })
    queueMicrotask(() => {
      if (this.#aborted) return
      try {
        this.#handler.failed(new AgentUnavailable({ agent: this.#call.agent, reason, retryAfterMs: retryMs }))
      } catch (cause) {
        log.error({ err: cause, agent: this.#call.agent }, "the handler of a failed agent call threw")
      }
    })
  }

  #defect(cause: unknown): void {
    log.error({ err: cause, agent: this.#call.agent }, "the handler of an agent call threw")
    if (this.#phase === "done") return
    this.#hangUp()
    this.failed({ reason: "broken_answer", agentAtFault: false })
  }
}
