/**
 * Calls to agents, as the kernel sees them: one call in, one answer out, as it
 * comes. Relay, orders and chat all reach their agents through `send`.
 *
 * Guarantees, for every call: exactly one of `end` and `failed` is called, or
 * neither after `abort`; no method of the handler is called before `send` has
 * returned; the agent's slot is free again by then; memory held is bounded by
 * one socket read and the socket's buffer, each way. A call is never sent twice.
 *
 * The way of a call: the agent's circuit (`domain/breaker.ts`) → one of its
 * slots or a bounded wait for one (`UpstreamLanes`) → the guarded transport →
 * time limits and backpressure while it lives (`UpstreamExchange`).
 *
 * What this node knows of an agent's health is its own; nodes do not share it.
 */
import { Context, Effect, Layer } from "effect"
import { Config, limits, type Settings } from "../../config.ts"
import type { AgentUnavailable } from "../../domain/errors.ts"
import { gauge } from "../../telemetry/Metrics.ts"
import type { Header } from "../Relay.ts"
import type { UpstreamBody } from "./UpstreamBody.ts"
import { UpstreamGuard } from "./UpstreamGuard.ts"
import { UpstreamLanes } from "./UpstreamLanes.ts"
import type { AnswerFilter } from "./hopByHop.ts"

/** An endpoint URL taken apart once per agent version. */
export interface UpstreamTarget {
  readonly origin: string
  /** Path and the URL's own query. */
  readonly path: string
}

/** The URL has passed `UpstreamGuard.check`; its fragment is dropped. */
export const parseTarget = (endpointUrl: string): UpstreamTarget => {
  const { origin, pathname, search } = new URL(endpointUrl)
  return { origin, path: pathname + search }
}

export interface UpstreamCall {
  readonly agentId: string
  /** The ticker, for errors. */
  readonly agent: string
  readonly ownerId: string
  readonly target: UpstreamTarget
  /** Goes behind the target's path, as it was written; "": nothing. */
  readonly tail?: string | undefined
  /** Silence that is waited for, before the answer and in it, when it is less than the limits say. */
  readonly silenceMs?: number | undefined
  /** The caller's query without `?`, or "". Added to the target's own. */
  readonly query: string
  readonly method: string
  /** Flat, as `requestHeaders` makes them. */
  readonly headers: ReadonlyArray<string>
  readonly body: Uint8Array | UpstreamBody | null
  readonly answer: AnswerFilter
}

/** A method that throws is a defect: it is logged, and the call fails. */
export interface UpstreamHandler {
  /** The answer's head, filtered. `contentLength` when the agent announced one. */
  head(status: number, headers: ReadonlyArray<Header>, contentLength: number | undefined): void
  /** The bytes may be kept. `false`: nothing more until `resume`. */
  chunk(bytes: Uint8Array): boolean
  end(): void
  /** Also after the head: what was passed on is then incomplete. */
  failed(error: AgentUnavailable): void
}

export interface Exchange {
  /** After a `chunk` that answered `false`, and after that method has returned. */
  resume(): void
  /** Closes the connection to the agent and frees the slot. Says nothing about the agent. Idempotent. */
  abort(): void
}

export interface UpstreamLimits {
  readonly concurrency: number
  readonly queueMax: number
  readonly queueMs: number
  readonly connectMs: number
  readonly firstByteMs: number
  readonly idleMs: number
  /** From dispatch to the end of the answer, pauses included: below the life of a hold (`limits.proxyHoldMs`). */
  readonly totalMs: number
  readonly originsMax: number
  /** Of all agents; callers need the other file descriptors. */
  readonly connectionsMax: number
  readonly agentsMax: number
  /** The grain of every time limit but connecting. */
  readonly tickMs: number
}

export const upstreamLimits = (settings: Pick<Settings, "agentConcurrency">): UpstreamLimits => ({
  concurrency: settings.agentConcurrency,
  queueMax: limits.upstreamQueueMax,
  queueMs: limits.upstreamQueueMs,
  connectMs: limits.upstreamConnectMs,
  firstByteMs: limits.upstreamFirstByteMs,
  idleMs: limits.upstreamIdleMs,
  totalMs: limits.proxyHoldMs - 10_000,
  originsMax: limits.upstreamOriginsMax,
  connectionsMax: 2 * limits.upstreamOriginsMax,
  agentsMax: limits.agentCacheEntries,
  tickMs: 250
})

export class Upstream extends Context.Service<Upstream, {
  readonly send: (call: UpstreamCall, handler: UpstreamHandler) => Exchange
}>()("tollgate/kernel/upstream/Upstream") {
  /** At the end calls still under way fail as unreachable and every connection is closed. */
  static readonly layer: Layer.Layer<Upstream, never, Config | UpstreamGuard> = Layer.effect(Upstream, Effect.gen(function*() {
    const settings = yield* Config
    const guard = yield* UpstreamGuard
    const lanes = yield* Effect.acquireRelease(
      Effect.sync(() => new UpstreamLanes(guard, upstreamLimits(settings))),
      (lanes) => Effect.sync(() => lanes.close())
    )
    gauge("tollgate_upstream_calls_running", "Calls that agents are working on", () => lanes.running)
    gauge("tollgate_upstream_calls_waiting", "Calls that wait for one of their agent's slots", () => lanes.waiting)
    gauge("tollgate_upstream_connections_open", "Sockets to agents, idle ones included", () => lanes.connections)
    return { send: (call, handler) => lanes.send(call, handler) }
  }))
}
