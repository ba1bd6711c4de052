/**
 * What every request of one server shares: its bounds, its services, and how
 * many calls are under way. Made by `Server.ts`, which also drains it.
 *
 * A call is *under way* from its head until its answer is complete **and** its
 * handler has ended: a POST whose caller left may still be moving money.
 */
import { type Context, Effect, type Exit, type Fiber } from "effect"
import { type Settings, limits } from "../config.ts"
import type { Cluster } from "../cluster/Cluster.ts"
import type { Admission } from "../kernel/Admission.ts"
import type { Idempotency } from "../kernel/Idempotency.ts"
import type { Relay } from "../kernel/Relay.ts"
import { log } from "../telemetry/log.ts"
import { AddressLimit } from "./address/AddressLimit.ts"
import type { Cors } from "./cors.ts"
import type { Dialect } from "./dialect.ts"
import { Hop } from "./hop/Hop.ts"
import { StallWatch } from "./StallWatch.ts"

/** Bounds of the edge; tests shrink the times. */
export const edgeLimits = {
  bodyIdleMs: limits.bodyIdleMs,
  relayBodyBytesMax: limits.relayBodyBytesMax,
  storedAnswerBytesMax: limits.storedAnswerBytesMax,
  idempotencyKeyCharsMax: limits.idempotencyKeyCharsMax,
  drainMs: limits.drainMs,
  /** Path and query together. uWS lets 20 kB pass. */
  urlBytesMax: 8 * 1024,
  /** Names and values of all headers. uWS refuses 16 KiB itself when they come in pieces, but takes 100 kB that come at once, which an agent's server would then refuse and the caller pay for. */
  headersBytesMax: 16 * 1024,
  /** Body bytes kept while a caller is looked up; then its socket is paused. Also what a finished exchange still swallows to keep its connection. */
  bodyAheadBytesMax: 64 * 1024,
  /** A reader that takes nothing for this long is cut off, so that it holds no agent's answer open. */
  readerStallMs: 30_000,
  /** Silence on an event stream after which a comment is sent. */
  streamKeepAliveMs: 15_000,
  /** How long an event stream may still become a plain error; then its head is sent. */
  streamOpenMs: 250,
  /** Frames above this close the socket. */
  socketMessageBytesMax: 1024 * 1024,
  /** Outbound bytes waiting for one socket; above it the socket is closed as a slow consumer. */
  socketBacklogBytesMax: 1024 * 1024,
  socketPingSeconds: 25,
  /** A peer silent for this long, who does not even answer pings, is gone. */
  socketIdleSeconds: 60,
  /** Calls under way at one other node, each with a connection of its own; more are refused at once. */
  hopCallsMax: 2_048,
  hopConnectMs: 1_000,
  /** How long the other node may be silent before its answer, which may be an agent's; longer than it lets an agent. */
  hopFirstByteMs: limits.upstreamFirstByteMs + 10_000,
  /** The same in the middle of an answer. */
  hopIdleMs: limits.upstreamIdleMs + 10_000,
  /** A connection to another node that waits for its next call, well before that node ends it (10 s). */
  hopRestMs: 4_000,
  /** A call that its account's owner did not take waits so long for the next owner. */
  hopMovedMs: limits.ownerAskMs
}
export type EdgeLimits = { readonly [K in keyof typeof edgeLimits]: number }

export interface EdgeParts {
  readonly limits: EdgeLimits
  readonly settings: Settings
  readonly dialects: ReadonlyArray<Dialect>
  readonly cluster: Cluster["Service"]
  readonly cors: Cors
  readonly admission: Admission["Service"]
  readonly idempotency: Idempotency["Service"]
  readonly relay: Relay["Service"]
  /** Everything the rows' handlers need. */
  readonly context: Context.Context<any>
  readonly remoteAddress: (peer: string, forwardedFor: string) => string
}

export class Edge {
  readonly limits: EdgeLimits
  readonly cors: Cors
  /** The way to the other nodes. */
  readonly hop: Hop
  readonly admission: Admission["Service"]
  readonly idempotency: Idempotency["Service"]
  readonly relay: Relay["Service"]
  readonly remoteAddress: EdgeParts["remoteAddress"]
  /** The buckets of the dialects that have some. */
  readonly addressLimits: ReadonlyMap<Dialect, AddressLimit>
  /** What the dialects put on every answer, as lines, each behind a line break. */
  readonly answerLines: ReadonlyMap<Dialect, string>
  /** Callers that should be sending a body, and callers that should be reading an answer. */
  readonly senders: StallWatch
  readonly readers: StallWatch
  readonly logsAccess = log.isLevelEnabled("debug")
  /** New calls are refused, and every answer closes its connection. */
  draining = false
  /** Streams end when the drain begins: they would never end by themselves. */
  readonly streams = new Set<() => void>()
  readonly #fork: (effect: Effect.Effect<any, any, any>) => Fiber.Fiber<any, any>
  #underWay = 0
  #onIdle: (() => void) | undefined = undefined

  constructor(parts: EdgeParts) {
    this.limits = parts.limits
    this.cors = parts.cors
    this.hop = new Hop(parts.cluster, parts.limits)
    this.admission = parts.admission
    this.idempotency = parts.idempotency
    this.relay = parts.relay
    this.remoteAddress = parts.remoteAddress
    this.addressLimits = new Map(parts.dialects.flatMap((dialect) =>
      dialect.addressLimit === undefined ? [] : [[dialect, new AddressLimit(dialect.addressLimit(parts.settings))] as const]))
    this.answerLines = new Map(parts.dialects.flatMap((dialect) => dialect.answerHeaders === undefined ? []
      : [[dialect, dialect.answerHeaders(parts.settings).map(([name, value]) => `\r\n${name}: ${value}`).join("")] as const]))
    this.senders = new StallWatch(parts.limits.bodyIdleMs)
    this.readers = new StallWatch(parts.limits.readerStallMs)
    this.#fork = Effect.runForkWith(parts.context)
  }

  get underWay(): number {
    return this.#underWay
  }

  enter(): void {
    this.#underWay++
  }

  leave(): void {
    if (--this.#underWay === 0) this.#onIdle?.()
  }

  /** Runs an effect with the rows' services; it counts as under way until it ends. `done` is called on its end, possibly at once. */
  run<A, E>(effect: Effect.Effect<A, E, any>, done: (exit: Exit.Exit<A, E>) => void): Fiber.Fiber<A, E> {
    this.enter()
    const fiber = this.#fork(effect) as Fiber.Fiber<A, E>
    fiber.addObserver((exit) => {
      try {
        done(exit)
      } finally {
        this.leave()
      }
    })
    return fiber
  }

  /** Completes when nothing is under way any more. */
  readonly idle: Effect.Effect<void> = Effect.callback((resume) => {
    if (this.#underWay === 0) return resume(Effect.void)
    this.#onIdle = () => resume(Effect.void)
  })

  close(): void {
    this.senders.close()
    this.readers.close()
    this.hop.close()
  }
}
