/**
 * One relayed call, from the caller's head to the last byte of the answer.
 *
 *   agent ─▶ body ─▶ credential, bill agreed ─▶ forwarding ─▶ answering ─▶ done
 *
 * Guarantee. A paid call is charged once, when the agent has answered below 500,
 * and its answer's head leaves only when the charge is durable. An answer of at
 * most `copyOnceBytesMax` announced bytes is charged when it is complete, any
 * other at its first byte. Every other end (agent failed, caller gone, refusal)
 * releases the hold. A free call waits for nothing but its agent.
 *
 * Failure cases. Commit refused: 503, nothing charged. Outcome unknown: 503;
 * with an idempotency key a retry learns what happened. The caller goes away
 * after the charge was submitted: it stands, the agent did answer.
 *
 * What the call costs, and its rows, are `CallBill`'s.
 */
import { createHash } from "node:crypto"
import { Effect } from "effect"
import { limits } from "../../config.ts"
import { type Agent, isCallable } from "../../domain/agent.ts"
import { AgentPaused, type AgentUnavailable, type GatewayError, StoreUnavailable } from "../../domain/errors.ts"
import { type Billing, proxyTerms } from "../../domain/terms.ts"
import type { Peer } from "../../cluster/Cluster.ts"
import type { Agents } from "../AgentActor.ts"
import { attempt } from "../attempt.ts"
import type { Caller } from "../Caller.ts"
import { type Idempotency, type IdempotentCall, idempotencyRows, refuseIdempotencyKey } from "../Idempotency.ts"
import type { Downstream, Header, RelayDress } from "../Relay.ts"
import type { AgentCredential } from "../upstream/AgentCredential.ts"
import { targetOf } from "../upstream/agentTarget.ts"
import { requestHeaders } from "../upstream/hopByHop.ts"
import type { Exchange, Upstream, UpstreamHandler } from "../upstream/Upstream.ts"
import { UpstreamBody } from "../upstream/UpstreamBody.ts"
import { type BillParts, CallBill } from "./CallBill.ts"
import { KeptBytes } from "./KeptBytes.ts"

export interface RelayParts extends BillParts {
  readonly agents: Agents["Service"]
  readonly credential: AgentCredential["Service"]
  readonly idempotency: Idempotency["Service"]
  readonly upstream: Upstream["Service"]
  readonly billing: Billing
}

/** Caller gone before the answer was complete: nginx's status, which no server sends. */
const callerGone = 499

/** What a call counts as whose agent gave no usable answer; `undefined`: it was never sent, and is no call. A caller's own fault is not its agent's. */
const statusOf = (error: GatewayError): number | undefined => {
  if (error._tag === "BodyTooLarge") return 413
  if (error._tag === "BodyTimeout") return 408
  if (error._tag !== "AgentUnavailable") return 503
  if (error.reason === "timeout") return 504
  return error.reason === "unreachable" || error.reason === "broken_answer" ? 502 : undefined
}

export class RelayedCall implements UpstreamHandler {
  readonly #parts: RelayParts
  readonly #caller: Caller
  readonly #tail: string
  readonly #dress: RelayDress
  readonly #downstream: Downstream
  #agent!: Agent
  #bill!: CallBill
  #idempotency: Pick<IdempotentCall, "key" | "fingerprint"> | undefined
  #exchange: Exchange | undefined
  #status = 0
  #headers: ReadonlyArray<Header> = []
  #length: number | undefined
  /** The answer so far: of a small one, or what came while the charge was on its way. */
  #kept = new KeptBytes()
  #keeps = false
  #keepBytesMax = 0
  #ended = false
  #broken = false
  #callerGone = false
  #phase: "deciding" | "forwarding" | "charging" | "answering" | "done" = "deciding"

  constructor(parts: RelayParts, caller: Caller, dress: RelayDress, downstream: Downstream, tail: string) {
    this.#parts = parts
    this.#caller = caller
    this.#tail = tail
    this.#dress = dress
    this.#downstream = downstream
  }

  /** `name`: the agent's id or ticker. */
  start(name: string): void {
    this.#downstream.onGone(() => this.#gone())
    const agent = this.#parts.agents.resident(name)
    if (agent !== undefined) return this.#meet(agent)
    this.#run(this.#parts.agents.find(name), (found) => this.#meet(found))
  }

  /** Runs what needs waiting for; a failure ends the call. */
  #run<A>(effect: Effect.Effect<A, GatewayError>, next: (value: A) => void): void {
    attempt(effect, next, (error) => this.#refuse(error))
  }

  #meet(agent: Agent): void {
    if (this.#phase !== "deciding") return
    if (!isCallable(agent)) return this.#refuse(new AgentPaused({ agent: agent.ticker }))
    const { headers, contentLength, receivedAtMs } = this.#downstream.request
    this.#agent = agent
    this.#bill = new CallBill(this.#parts, this.#caller, agent, proxyTerms(agent, this.#caller.accountId, this.#parts.billing), receivedAtMs)
    if (this.#bill.isCharged && !this.#parts.spending.writable()) return this.#refuse(new StoreUnavailable({ retryAfterMs: 1_000 }))
    let chunked = false
    let key: string | undefined
    for (const [name, value] of headers) {
      if (name === "transfer-encoding") chunked = true
      else if (name === "idempotency-key") key = value
    }
    const peer = this.#passable()
    if (peer !== undefined && (this.#bill.isOwners || key !== undefined && this.#bill.isCharged)) return this.#passOn(peer, undefined)
    const bytesMax = Math.min(limits.relayBodyBytesMax, agent.manifest?.input?.max_size_bytes ?? Infinity)
    const failed = (error: GatewayError) => this.#refuse(error)
    if (key !== undefined && this.#bill.isCharged) {
      const refusal = refuseIdempotencyKey(key)
      if (refusal !== undefined) return this.#refuse(refusal)
      const idempotencyKey = key
      return this.#downstream.collect(Math.min(bytesMax, limits.idempotentBodyBytesMax), (body) => this.#once(idempotencyKey, body), failed)
    }
    if (!chunked && (contentLength ?? 0) <= limits.copyOnceBytesMax) return this.#downstream.collect(bytesMax, (body) => this.#prepare(body), failed)
    this.#prepare(undefined, bytesMax)
  }

  /** Who owns the caller's account, when that node may answer instead. */
  #passable(): Peer | undefined {
    return this.#downstream.canPassOn ? this.#parts.spending.peerOf(this.#caller) : undefined
  }

  /** What was leased to this node does not do for the call: only the owner can say yes or no. */
  #passOn(peer: Peer, body: Uint8Array | undefined): void {
    this.#bill.passedOn()
    if (this.#finish()) this.#downstream.passOn(peer, body)
  }

  /** A paid call with an idempotency key: only the first goes on. */
  #once(key: string, body: Uint8Array): void {
    const { method, query } = this.#downstream.request
    const fingerprint = createHash("sha256")
      .update(`relay\n${this.#agent.id}\n${method}\n${this.#tail === "" ? "" : `${this.#tail}\n`}${query}\n`).update(body).digest("hex")
    const call = { key, fingerprint }
    this.#run(this.#parts.idempotency.begin(this.#caller, call), (stored) => {
      if (stored !== undefined) {
        this.#parts.idempotency.end(this.#caller, call)
        if (!this.#finish()) return
        return this.#downstream.reply(stored.status, [...stored.headers, ["idempotent-replayed", "true"]], stored.body)
      }
      this.#idempotency = call
      if (this.#phase === "done") return this.#parts.idempotency.end(this.#caller, call)
      this.#prepare(body)
    })
  }

  /** Gets the credential and agrees on the bill, at once if possible, and forwards. `body` undefined: it streams. */
  #prepare(body: Uint8Array | undefined, bytesMax = 0): void {
    if (this.#phase !== "deciding") return
    const nowMs = Date.now()
    const credential = this.#parts.credential.now(this.#agent, this.#caller, nowMs)
    if (credential !== undefined) {
      const agreed = this.#bill.agreeNow(nowMs)
      if (agreed === true) return this.#forward(credential, body, bytesMax)
      if (agreed !== undefined) return this.#refuse(agreed)
    }
    const peer = this.#passable()
    if (peer !== undefined) {
      if (credential !== undefined) return this.#passOn(peer, body)
      return this.#run(this.#parts.credential.get(this.#agent, this.#caller.accountId), () => this.#prepare(body, bytesMax))
    }
    const prepared = Effect.gen({ self: this }, function*() {
      const credential = yield* this.#parts.credential.get(this.#agent, this.#caller.accountId)
      yield* this.#bill.agreeLater()
      return credential
    })
    this.#run(prepared, (headers) => {
      if (this.#phase === "deciding") return this.#forward(headers, body, bytesMax)
      this.#bill.neverSent()
      this.#bill.release()
    })
  }

  #forward(credential: ReadonlyArray<Header>, body: Uint8Array | undefined, bytesMax: number): void {
    const { request } = this.#downstream
    const agent = this.#agent
    this.#phase = "forwarding"
    this.#bill.forwarded()
    let own: ReadonlyArray<Header> = [...this.#dress.requestHeaders(request), ...credential]
    let sent: Uint8Array | UpstreamBody | null = body ?? null
    if (body !== undefined && body.byteLength === 0) {
      const typed = request.headers.some(([name]) => name === "content-type")
      sent = typed || this.#dress.emptyBody === undefined ? null : Buffer.from(this.#dress.emptyBody.body)
      if (sent !== null) own = [...own, ["content-type", this.#dress.emptyBody!.contentType]]
    }
    if (body === undefined) sent = this.#upload(bytesMax)
    this.#exchange = this.#parts.upstream.send({
      agentId: agent.id, agent: agent.ticker, ownerId: agent.ownerId, target: targetOf(agent), tail: this.#tail, query: request.query, method: request.method,
      headers: requestHeaders(request.headers, own, this.#dress.reservedPrefix), body: sent, answer: this.#dress.answer, silenceMs: this.#dress.silenceMs
    }, this)
  }

  /** The caller's body as a stream to the agent, with backpressure. */
  #upload(bytesMax: number): UpstreamBody {
    const body: UpstreamBody = new UpstreamBody(this.#downstream.request.contentLength, () => flow.resume())
    const flow = this.#downstream.stream(bytesMax, {
      chunk: (bytes, last) => {
        if (bytes.byteLength > 0 && !body.write(bytes)) flow.pause()
        if (last) body.end()
      },
      failed: (error) => this.#refuse(error)
    })
    return body
  }

  head(status: number, headers: ReadonlyArray<Header>, contentLength: number | undefined): void {
    if (this.#phase !== "forwarding") return
    this.#status = status
    this.#headers = this.#dress.passes === undefined ? headers : headers.filter(this.#dress.passes)
    this.#length = contentLength
    this.#phase = "answering"
    const charged = this.#isToBeCharged
    if (!charged) this.#bill.release()
    // One that must be repeatable is kept too while it may still turn out to be small. A head alone is no answer to be charged for.
    const isSmall = contentLength === undefined ? charged && this.#idempotency !== undefined : contentLength <= limits.copyOnceBytesMax
    this.#keepBytesMax = isSmall ? limits.copyOnceBytesMax : 0
    this.#keeps = isSmall || charged
    if (!this.#keeps) this.#beginStream()
  }

  get #isToBeCharged(): boolean {
    return this.#bill.isCharged && this.#status < 500
  }

  chunk(bytes: Uint8Array): boolean {
    if (this.#keeps || this.#phase === "charging") {
      this.#kept.add(bytes)
      if (!this.#keeps || this.#kept.size <= this.#keepBytesMax) return this.#keeps
      this.#keeps = false
      this.#charge(() => this.#beginStream())
      return false
    }
    return this.#phase === "answering" ? this.#downstream.write(bytes) : true
  }

  end(): void {
    this.#ended = true
    if (this.#phase === "charging" || this.#phase === "done") return
    if (!this.#keeps) return this.#endStream()
    if (this.#isToBeCharged) return this.#charge(() => this.#reply())
    this.#reply()
  }

  failed(error: AgentUnavailable): void {
    if (this.#phase === "done") return
    // A charge on its way is for an answer that then broke off: it stands, as it would a moment later.
    if (this.#phase === "charging") {
      this.#ended = true
      this.#broken = true
      return
    }
    if (this.#phase !== "answering" || this.#keeps) return this.#refuse(error)
    this.#recordUncharged()
    if (this.#finish()) this.#downstream.fail(error)
  }

  /** Waits until the charge is durable. */
  #charge(next: () => void): void {
    this.#phase = "charging"
    const idempotency = this.#idempotency
    this.#bill.charge(this.#status, (resultId, nowMs) => idempotency === undefined ? [] : idempotencyRows({ ...idempotency, answer: () => this.#storable() }, resultId, undefined, nowMs), (error) => {
      if (error !== undefined) return this.#refuse(error)
      if (this.#callerGone) return void this.#finish()
      this.#phase = "answering"
      next()
    })
  }

  /** What a replay repeats: a complete answer only. */
  #storable() {
    if (!this.#keeps) return undefined
    return { status: this.#status, headers: this.#answerHeaders(), body: this.#kept.bytes() }
  }

  #reply(): void {
    const body = this.#kept.bytes()
    const headers = this.#answerHeaders()
    this.#recordUncharged()
    if (this.#finish()) this.#downstream.reply(this.#status, headers, body)
  }

  #beginStream(): void {
    this.#downstream.onDrain(() => this.#exchange?.resume())
    this.#downstream.head(this.#status, this.#answerHeaders(), this.#length)
    const kept = this.#kept.take()
    let writable = true
    for (const chunk of kept) writable = this.#downstream.write(chunk)
    if (this.#broken) {
      if (this.#finish()) this.#downstream.abort()
    } else if (this.#ended) this.#endStream()
    else if (kept.length > 0 && writable) this.#exchange?.resume()
  }

  #endStream(): void {
    this.#recordUncharged()
    if (this.#finish()) this.#downstream.end()
  }

  #answerHeaders(): ReadonlyArray<Header> {
    const own = this.#dress.answerHeaders(this.#facts())
    return this.#headers.length === 0 ? own : [...this.#headers, ...own]
  }

  #facts() {
    const { requestId, receivedAtMs } = this.#downstream.request
    return { requestId, agent: this.#agent, latencyMs: Date.now() - receivedAtMs, bill: this.#bill }
  }

  #gone(): void {
    this.#exchange?.abort()
    this.#callerGone = true
    // A charge that was submitted goes on, and the call ends with its outcome.
    if (this.#phase === "charging") return
    if (this.#phase === "forwarding" || this.#phase === "answering") this.#bill.record(callerGone)
    if (this.#phase !== "done") this.#bill?.release()
    this.#finish()
  }

  #refuse(error: GatewayError): void {
    this.#exchange?.abort()
    const wasSent = this.#phase !== "deciding" && this.#phase !== "done"
    const headers = wasSent ? this.#refused(error) : error._tag === "InsufficientCredits" ? this.#dress.shortHeaders?.(this.#agent, error) : undefined
    if (this.#phase !== "done") this.#bill?.release()
    if (this.#finish()) this.#downstream.fail(error, headers)
  }

  /** Records a call that was forwarded and has no usable answer; answers the headers that its refusal carries. */
  #refused(error: GatewayError): ReadonlyArray<Header> | undefined {
    const status = statusOf(error)
    if (status === undefined) {
      this.#bill.neverSent()
      return undefined
    }
    const headers = this.#dress.refusalHeaders?.(this.#facts())
    // One of unknown outcome may be in the books already.
    if (error._tag !== "OutcomeUnknown") this.#bill.record(status)
    return headers
  }

  /** True the first time. */
  #finish(): boolean {
    if (this.#phase === "done") return false
    this.#phase = "done"
    if (this.#idempotency !== undefined) this.#parts.idempotency.end(this.#caller, this.#idempotency)
    return true
  }

  /** A charged call's usage row is part of its commit. */
  #recordUncharged(): void {
    if (!this.#isToBeCharged) this.#bill.record(this.#status)
  }
}
