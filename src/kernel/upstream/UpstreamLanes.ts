/**
 * One lane per agent: its circuit, its slots, and the calls that wait for one.
 *
 * At most `concurrency` calls of an agent run at once; up to `queueMax` more
 * wait in order for at most `queueMs`; whatever exceeds that is refused as busy.
 * Lanes without calls are dropped when there are more than `agentsMax`, the
 * longest known first; what the circuit knew goes with them.
 *
 * One sweep every `tickMs` ends whatever is past its deadline: a timer for each
 * call would cost a tenth of the call.
 */
import { type Breaker, abandoned, admit, newBreaker } from "../../domain/breaker.ts"
import type { Exchange, UpstreamCall, UpstreamHandler, UpstreamLimits } from "./Upstream.ts"
import { UpstreamExchange } from "./UpstreamExchange.ts"
import type { UpstreamGuard } from "./UpstreamGuard.ts"
import { UpstreamTransport } from "./UpstreamTransport.ts"

export interface Lane {
  readonly breaker: Breaker
  running: number
  readonly waiting: Set<UpstreamExchange>
}

export class UpstreamLanes {
  readonly limits: UpstreamLimits
  readonly guard: UpstreamGuard["Service"]
  readonly transport: UpstreamTransport
  /** The sweep's time: good enough for limits of seconds, and free to read. */
  clockMs = performance.now()
  readonly #lanes = new Map<string, Lane>()
  readonly #live: Array<UpstreamExchange> = []
  readonly #sweep: NodeJS.Timeout

  constructor(guard: UpstreamGuard["Service"], limits: UpstreamLimits) {
    this.guard = guard
    this.limits = limits
    this.transport = new UpstreamTransport(guard, limits)
    this.#sweep = setInterval(() => this.#expire(), limits.tickMs).unref()
  }

  get running(): number {
    let running = 0
    for (const lane of this.#lanes.values()) running += lane.running
    return running
  }
  get waiting(): number {
    return this.#live.length - this.running
  }
  get connections(): number {
    return this.transport.connections
  }
  get agents(): number {
    return this.#lanes.size
  }

  send(call: UpstreamCall, handler: UpstreamHandler): Exchange {
    const nowMs = performance.now()
    const lane = this.#lanes.get(call.agentId) ?? this.#open(call.agentId)
    const exchange = new UpstreamExchange(this, lane, call, handler)
    const admitted = admit(lane.breaker, nowMs)
    if (typeof admitted === "object") {
      exchange.refuse("circuit_open", admitted.openForMs)
    } else if (lane.running < this.limits.concurrency && lane.waiting.size === 0) {
      this.#enter(exchange)
      lane.running++
      exchange.begin(admitted, nowMs)
    } else {
      abandoned(lane.breaker, admitted)
      if (lane.waiting.size >= this.limits.queueMax) {
        exchange.refuse("busy", this.limits.queueMs)
      } else {
        this.#enter(exchange)
        lane.waiting.add(exchange)
        exchange.wait(nowMs)
      }
    }
    return exchange
  }

  /** The exchange has ended, however. Its slot goes to the next in line, on a turn of its own: this may run inside the parser. */
  left(exchange: UpstreamExchange): void {
    const last = this.#live.pop()!
    if (last !== exchange) {
      last.at = exchange.at
      this.#live[exchange.at] = last
    }
    const { lane } = exchange
    if (!lane.waiting.delete(exchange)) lane.running--
    if (lane.waiting.size > 0) queueMicrotask(() => this.#next(lane))
  }

  close(): void {
    clearInterval(this.#sweep)
    for (const exchange of [...this.#live]) exchange.stop()
    this.transport.closeIdle()
  }

  #enter(exchange: UpstreamExchange): void {
    exchange.at = this.#live.push(exchange) - 1
  }

  #next(lane: Lane): void {
    for (const exchange of lane.waiting) {
      if (lane.running >= this.limits.concurrency) return
      const nowMs = performance.now()
      const admitted = admit(lane.breaker, nowMs)
      if (typeof admitted === "object") {
        exchange.giveUp("circuit_open", admitted.openForMs)
      } else {
        lane.waiting.delete(exchange)
        lane.running++
        exchange.begin(admitted, nowMs)
      }
    }
  }

  #expire(): void {
    this.clockMs = performance.now()
    this.transport.sweep(this.clockMs)
    // Backwards: an exchange that leaves is replaced by the last, which has been looked at.
    for (let at = this.#live.length - 1; at >= 0; at--) {
      const exchange = this.#live[at]
      if (exchange !== undefined && exchange.deadlineMs <= this.clockMs) exchange.expire()
    }
  }

  #open(agentId: string): Lane {
    // When all have calls the map grows with the calls, which the edge bounds.
    if (this.#lanes.size >= this.limits.agentsMax) {
      for (const [id, lane] of this.#lanes) {
        if (lane.running > 0 || lane.waiting.size > 0) continue
        this.#lanes.delete(id)
        break
      }
    }
    const lane: Lane = { breaker: newBreaker(), running: 0, waiting: new Set() }
    this.#lanes.set(agentId, lane)
    return lane
  }
}
