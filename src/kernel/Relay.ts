/**
 * The relay: a caller's request to an agent and the agent's answer back, both
 * as they come, metered on the way. The hot path: with a resident account and a
 * known agent a free call runs without a fiber and without waiting for the
 * database.
 *
 * Here is what the edge and the dialects see of it; one call's life is in
 * `relay/RelayedCall.ts`, the way to the agent in `Upstream.ts`.
 */
import { Context, Effect, Layer } from "effect"
import { Config } from "../config.ts"
import type { Caller } from "./Caller.ts"
import type { Agent } from "../domain/agent.ts"
import type { GatewayError, InsufficientCredits } from "../domain/errors.ts"
import type { Credits } from "../domain/credits.ts"
import { UsageBuffer } from "../store/UsageBuffer.ts"
import type { Peer } from "../cluster/Cluster.ts"
import { Agents } from "./AgentActor.ts"
import { AgentCredential } from "./upstream/AgentCredential.ts"
import { Idempotency } from "./Idempotency.ts"
import { Spending } from "./lease/Spending.ts"
import { FreeCalls } from "./market/FreeCalls.ts"
import { RelayedCall, type RelayParts } from "./relay/RelayedCall.ts"
import { Webhooks } from "./webhooks/Webhooks.ts"
import { Upstream } from "./upstream/Upstream.ts"
import type { AnswerFilter } from "./upstream/hopByHop.ts"

export type Header = readonly [name: string, value: string]

/** What a call costs, as its answer's head says it. */
export interface CallFacts {
  /** Of the call's usage record. */
  readonly usageId: string
  /** Durable by the time the head is written; 0 for a free call, and one that its agent failed. */
  readonly cost: Credits
  readonly isFreeTier: boolean
  /** Present when the cost was taken from credits. */
  readonly charged: { readonly cost: Credits; readonly balance: Credits; readonly transactionId: string } | undefined
}

/** What is known about a relayed call when its answer's head is written. */
export interface RelayFacts {
  readonly requestId: string
  readonly agent: { readonly id: string; readonly ticker: string }
  readonly latencyMs: number
  readonly bill: CallFacts
}

/** How one dialect dresses a call and its answer. Made once for a row. */
export interface RelayDress {
  /** Sent when the caller sent neither a body nor a content type. */
  readonly emptyBody: { readonly contentType: string; readonly body: string } | undefined
  readonly requestHeaders: (request: RelayRequest) => ReadonlyArray<Header>
  readonly answerHeaders: (facts: RelayFacts) => ReadonlyArray<Header>
  /** Of a refusal that comes after the call was sent. */
  readonly refusalHeaders?: (facts: RelayFacts) => ReadonlyArray<Header>
  /** Of a refusal for want of credits. */
  readonly shortHeaders?: (agent: Pick<Agent, "id" | "paymentMethod">, short: InsufficientCredits) => ReadonlyArray<Header>
  /** Names starting with this are the gateway's own on the way to the agent: the caller's are dropped. */
  readonly reservedPrefix: string
  /** Which of the agent's answer headers pass. */
  readonly answer: AnswerFilter
  /** Which of those pass by their value too. */
  readonly passes?: (header: Header) => boolean
  /** How long an agent may be silent, if less than the gateway's own limits. */
  readonly silenceMs?: number
}

/** The caller's request as the edge hands it over: already copied out of the server's memory. */
export interface RelayRequest {
  readonly method: string
  readonly query: string
  /** As the caller addressed the gateway. */
  readonly host: string
  /** Names in lower case, as received, repeated names kept. */
  readonly headers: ReadonlyArray<Header>
  readonly contentLength: number | undefined
  readonly remoteAddress: string
  readonly requestId: string
  readonly receivedAtMs: number
}

/**
 * The caller's side of a relayed call, implemented by the edge. Every method is
 * safe to call after the caller has gone: it does nothing.
 */
export interface Downstream {
  readonly request: RelayRequest
  /**
   * Collects the whole body. Exactly one of `done` and `failed` is called: too long, too slow,
   * or never when the caller goes away (then only `onGone`).
   */
  collect(bytesMax: number, done: (body: Uint8Array) => void, failed: (error: GatewayError) => void): void
  /** Takes the body as it comes; `pause` and `resume` steer the caller. `failed` when it exceeds `bytesMax` or stalls. */
  stream(bytesMax: number, sink: {
    chunk(bytes: Uint8Array, last: boolean): void
    failed(error: GatewayError): void
  }): { pause(): void; resume(): void }
  /** Called at most once, when the caller goes away before the answer was complete. */
  onGone(handler: () => void): void
  /** Whether another node may answer the call instead. */
  readonly canPassOn: boolean
  /** The call is another node's to answer: it is passed on with what is left of it. `body`: what was collected; `undefined`: it was not touched. */
  passOn(peer: Peer, body: Uint8Array | undefined): void
  /** A complete answer in one write. */
  reply(status: number, headers: ReadonlyArray<Header>, body: Uint8Array | string): void
  /** The head of a streamed answer. `contentLength` when the agent announced one. */
  head(status: number, headers: ReadonlyArray<Header>, contentLength: number | undefined): void
  /** `false`: the caller reads too slowly; write nothing more until `onDrain` is called. */
  write(chunk: Uint8Array): boolean
  onDrain(handler: () => void): void
  end(): void
  /** The answer can't be completed: the connection is closed so that the caller notices. */
  abort(): void
  /** An answer in the dialect's error shape (with the rate headers of the call), and these headers. */
  fail(error: GatewayError, headers?: ReadonlyArray<Header>): void
}

/** One relayed call, after authentication, scope and window, to an agent by its id or ticker; `tail` goes behind its path. Never throws, never blocks. */
export type RelayCall = (caller: Caller, agent: string, dress: RelayDress, downstream: Downstream, tail?: string) => void

export class Relay extends Context.Service<Relay, { readonly call: RelayCall }>()("tollgate/kernel/Relay") {
  static readonly layer = Layer.effect(Relay, Effect.gen(function*() {
    const settings = yield* Config
    const parts: RelayParts = {
      agents: yield* Agents,
      credential: yield* AgentCredential,
      idempotency: yield* Idempotency,
      freeCalls: yield* FreeCalls,
      spending: yield* Spending,
      upstream: yield* Upstream,
      usage: yield* UsageBuffer,
      webhooks: yield* Webhooks,
      billing: { autx: settings.proxyBilling, acf: settings.acfSettlement }
    }
    return Relay.of({ call: (caller, agent, dress, downstream, tail = "") => new RelayedCall(parts, caller, dress, downstream, tail).start(agent) })
  }))
}
