/**
 * One relayed call, from the caller's head to the last byte of the answer.
 *
 *   agent ─▶ body ─▶ credential, hold ─▶ forwarding ─▶ answering ─▶ done
 *
 * Guarantee. A paid call is charged once, when the agent has answered below 500,
 * and its answer's head leaves only when the charge is durable. An answer of at
 * most `copyOnceBytesMax` announced bytes is charged when it is complete, any
 * other at its first byte. Every other end (agent failed, caller gone, refusal)
 * releases the hold. A free call waits for nothing but its agent.
 *
 * Failure cases. Commit refused: 503, nothing charged. Outcome unknown: 503;
 * with an idempotency key a retry learns what happened. The caller goes away
 * after the capture was submitted: the charge stands, the agent did answer.
 */
import { createHash } from "node:crypto"
import { Effect } from "effect"
import { limits } from "../config.ts"
import type { Account } from "../domain/account.ts"
import { type Agent, isCallable, proxyPrice, splitOf } from "../domain/agent.ts"
import type { Credits } from "../domain/credits.ts"
import { AgentPaused, type AgentUnavailable, type GatewayError, HoldLost, NotCommitted, OutcomeUnknown, StoreUnavailable } from "../domain/errors.ts"
import type { HoldId } from "../domain/ids.ts"
import { type Outcome, type Refusal, decide, isRefusal, spendable } from "../domain/ledger.ts"
import type { CommitOutcome, UsageRow } from "../store/Commit.ts"
import type { UsageBuffer } from "../store/UsageBuffer.ts"
import { metrics } from "../telemetry/Metrics.ts"
import type { Accounts } from "./AccountActor.ts"
import type { Agents } from "./AgentActor.ts"
import { attempt } from "./attempt.ts"
import type { AgentCredential } from "./upstream/AgentCredential.ts"
import type { Caller } from "./Caller.ts"
import { newId } from "./Ids.ts"
import { type Idempotency, type IdempotentCall, idempotencyRows, refuseIdempotencyKey } from "./Idempotency.ts"
import { KeptBytes } from "./KeptBytes.ts"
import type { Ledger } from "./Ledger.ts"
import type { Downstream, Header, RelayDress, RelayFacts } from "./Relay.ts"
import type { Exchange, Upstream, UpstreamHandler } from "./upstream/Upstream.ts"
import { UpstreamBody } from "./upstream/UpstreamBody.ts"
import { targetOf } from "./upstream/agentTarget.ts"
import { requestHeaders } from "./upstream/hopByHop.ts"

export interface RelayParts {
  readonly accounts: Accounts["Service"]
  readonly agents: Agents["Service"]
  readonly credential: AgentCredential["Service"]
  readonly idempotency: Idempotency["Service"]
  readonly ledger: Ledger["Service"]
  readonly upstream: Upstream["Service"]
  readonly usage: UsageBuffer["Service"]
  readonly billing: "free" | "paid"
}

type Bill = NonNullable<RelayFacts["bill"]>

/** Caller gone before the answer was complete: nginx's status, which no server sends. */
const callerGone = 499

export class RelayedCall implements UpstreamHandler {
  readonly #parts: RelayParts
  readonly #caller: Caller
  readonly #dress: RelayDress
  readonly #downstream: Downstream
  #agent!: Agent
  #price: Credits = 0n
  #holdId: HoldId | undefined
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

  constructor(parts: RelayParts, caller: Caller, dress: RelayDress, downstream: Downstream) {
    this.#parts = parts
    this.#caller = caller
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
    this.#agent = agent
    this.#price = proxyPrice(agent, this.#caller.accountId, this.#parts.billing)
    if (this.#price > 0n && !this.#parts.accounts.writable()) return this.#refuse(new StoreUnavailable({ retryAfterMs: 1_000 }))
    const { headers, contentLength } = this.#downstream.request
    let chunked = false
    let key: string | undefined
    for (const [name, value] of headers) {
      if (name === "transfer-encoding") chunked = true
      else if (name === "idempotency-key") key = value
    }
    const bytesMax = Math.min(limits.relayBodyBytesMax, agent.manifest?.input?.max_size_bytes ?? Infinity)
    const failed = (error: GatewayError) => this.#refuse(error)
    if (key !== undefined && this.#price > 0n) {
      const refusal = refuseIdempotencyKey(key)
      if (refusal !== undefined) return this.#refuse(refusal)
      const idempotencyKey = key
      return this.#downstream.collect(Math.min(bytesMax, limits.idempotentBodyBytesMax), (body) => this.#once(idempotencyKey, body), failed)
    }
    if (!chunked && (contentLength ?? 0) <= limits.copyOnceBytesMax) return this.#downstream.collect(bytesMax, (body) => this.#prepare(body), failed)
    this.#prepare(undefined, bytesMax)
  }

  /** A paid call with an idempotency key: only the first goes on. */
  #once(key: string, body: Uint8Array): void {
    const fingerprint = createHash("sha256")
      .update(`relay\n${this.#agent.id}\n${this.#downstream.request.method}\n${this.#downstream.request.query}\n`).update(body).digest("hex")
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

  /** Gets the credential and the hold, at once if possible, and forwards. `body` undefined: it streams. */
  #prepare(body: Uint8Array | undefined, bytesMax = 0): void {
    if (this.#phase !== "deciding") return
    const nowMs = Date.now()
    const credential = this.#parts.credential.now(this.#agent, this.#caller, nowMs)
    if (credential !== undefined) {
      const held = this.#price === 0n ? true : this.#holdNow(nowMs)
      if (held === true) return this.#forward(credential, body, bytesMax)
      if (held !== undefined) return this.#refuse(held)
    }
    const prepared = Effect.gen({ self: this }, function*() {
      const credential = yield* this.#parts.credential.get(this.#agent, this.#caller.accountId)
      if (this.#price > 0n) yield* this.#holdLater()
      return credential
    })
    this.#run(prepared, (headers) => {
      if (this.#phase === "deciding") this.#forward(headers, body, bytesMax)
      else this.#release()
    })
  }

  /** True when held; `undefined` when that needs waiting. */
  #holdNow(nowMs: number): true | Refusal | undefined {
    const account = this.#parts.accounts.resident(this.#caller.accountId, nowMs)
    if (account === undefined) return undefined
    const outcome = this.#hold(account, nowMs)
    if (!isRefusal(outcome)) return true
    // Posted earnings may still cover it.
    return outcome._tag === "InsufficientCredits" ? undefined : outcome
  }

  #holdLater(): Effect.Effect<void, GatewayError> {
    return this.#parts.ledger.withEarnings(this.#caller.accountId, this.#parts.accounts.act(this.#caller.accountId, (account, nowMs): Effect.Effect<void, GatewayError> => {
      const outcome = this.#hold(account, nowMs)
      return isRefusal(outcome) ? Effect.fail(outcome) : Effect.void
    }))
  }

  #hold(account: Account, nowMs: number): Outcome {
    if (this.#holdId !== undefined) this.#release()
    const id = newId<HoldId>()
    const outcome = decide(account, {
      _tag: "Hold",
      hold: {
        id, subjectId: this.#caller.subjectId, amount: this.#price, call: "proxy", agentId: this.#agent.id, agent: this.#agent.ticker,
        createdAtMs: nowMs, expiresAtMs: nowMs + limits.proxyHoldMs
      }
    }, nowMs)
    if (!isRefusal(outcome)) this.#holdId = id
    return outcome
  }

  #forward(credential: ReadonlyArray<Header>, body: Uint8Array | undefined, bytesMax: number): void {
    const { request } = this.#downstream
    const agent = this.#agent
    this.#phase = "forwarding"
    let own: ReadonlyArray<Header> = [...this.#dress.requestHeaders(request), ...credential]
    let sent: Uint8Array | UpstreamBody | null = body ?? null
    if (body !== undefined && body.byteLength === 0) {
      const typed = request.headers.some(([name]) => name === "content-type")
      sent = typed || this.#dress.emptyBody === undefined ? null : Buffer.from(this.#dress.emptyBody.body)
      if (sent !== null) own = [...own, ["content-type", this.#dress.emptyBody!.contentType]]
    }
    if (body === undefined) sent = this.#upload(bytesMax)
    this.#exchange = this.#parts.upstream.send({
      agentId: agent.id, agent: agent.ticker, ownerId: agent.ownerId, target: targetOf(agent), query: request.query, method: request.method,
      headers: requestHeaders(request.headers, own, this.#dress.reservedPrefix), body: sent, answer: this.#dress.answer
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
    this.#headers = headers
    this.#length = contentLength
    this.#phase = "answering"
    const charged = this.#price > 0n && status < 500
    if (!charged && this.#price > 0n) this.#release()
    // One that must be repeatable is kept too while it may still turn out to be small. A head alone is no answer to be charged for.
    const isSmall = contentLength === undefined ? charged && this.#idempotency !== undefined : contentLength <= limits.copyOnceBytesMax
    this.#keepBytesMax = isSmall ? limits.copyOnceBytesMax : 0
    this.#keeps = isSmall || charged
    if (!this.#keeps) this.#beginStream(undefined)
  }

  chunk(bytes: Uint8Array): boolean {
    if (this.#keeps || this.#phase === "charging") {
      this.#kept.add(bytes)
      if (!this.#keeps || this.#kept.size <= this.#keepBytesMax) return this.#keeps
      this.#keeps = false
      this.#charge((bill) => this.#beginStream(bill))
      return false
    }
    return this.#phase === "answering" ? this.#downstream.write(bytes) : true
  }

  end(): void {
    this.#ended = true
    if (this.#phase === "charging" || this.#phase === "done") return
    if (!this.#keeps) return this.#endStream()
    if (this.#price > 0n && this.#status < 500) return this.#charge((bill) => this.#reply(bill))
    this.#reply(undefined)
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

  /** Captures the hold and waits until that is durable. */
  #charge(next: (bill: Bill) => void): void {
    this.#phase = "charging"
    const nowMs = Date.now()
    const account = this.#parts.accounts.resident(this.#caller.accountId, nowMs)
    if (account !== undefined) return this.#capture(account, nowMs, next)
    this.#run(this.#parts.accounts.ask(this.#caller.accountId, (account, atMs) => this.#capture(account, atMs, next)), () => {})
  }

  #capture(account: Account, nowMs: number, next: (bill: Bill) => void): void {
    const holdId = this.#holdId
    const outcome: Outcome = holdId === undefined ? new HoldLost({ retryAfterMs: 1_000 })
      : decide(account, { _tag: "Capture", holdId, amount: this.#price, earnerId: this.#agent.ownerId, split: splitOf(this.#agent) }, nowMs)
    if (isRefusal(outcome)) {
      metrics.callsLostToCrash.inc()
      return this.#refuse(outcome)
    }
    this.#holdId = undefined
    const transaction = outcome.transaction!
    const bill: Bill = { cost: this.#price, balance: spendable(account), transactionId: transaction.id }
    const idempotency = this.#idempotency === undefined ? [] : idempotencyRows({ ...this.#idempotency, answer: () => this.#storable(bill) }, transaction.id, undefined, nowMs)
    this.#parts.accounts.submit(account, {
      transactions: [transaction],
      budgets: outcome.budgets,
      usage: [this.#usage(transaction.id, this.#status, this.#price)],
      idempotency
    }, outcome, (committed) => this.#committed(committed, bill, next))
  }

  #committed(outcome: CommitOutcome, bill: Bill, next: (bill: Bill) => void): void {
    if (outcome._tag === "committed") {
      if (this.#callerGone) return void this.#finish()
      this.#phase = "answering"
      return next(bill)
    }
    if (outcome._tag !== "unknown") metrics.callsLostToCrash.inc()
    this.#refuse(outcome._tag === "unknown" ? new OutcomeUnknown({ retryAfterMs: 5_000 }) : new NotCommitted({ retryAfterMs: 1_000 }))
  }

  /** What a replay repeats: a complete answer only. */
  #storable(bill: Bill) {
    if (!this.#keeps) return undefined
    return { status: this.#status, headers: this.#answerHeaders(bill), body: this.#kept.bytes() }
  }

  #reply(bill: Bill | undefined): void {
    const body = this.#kept.bytes()
    const headers = this.#answerHeaders(bill)
    if (bill === undefined) this.#record(this.#status)
    if (this.#finish()) this.#downstream.reply(this.#status, headers, body)
  }

  #beginStream(bill: Bill | undefined): void {
    this.#downstream.onDrain(() => this.#exchange?.resume())
    this.#downstream.head(this.#status, this.#answerHeaders(bill), this.#length)
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

  #answerHeaders(bill: Bill | undefined): ReadonlyArray<Header> {
    const { request } = this.#downstream
    const own = this.#dress.answerHeaders({ requestId: request.requestId, agent: this.#agent, latencyMs: Date.now() - request.receivedAtMs, bill })
    return this.#headers.length === 0 ? own : [...this.#headers, ...own]
  }

  #gone(): void {
    this.#exchange?.abort()
    this.#callerGone = true
    // A charge that was submitted goes on, and the call ends with its outcome.
    if (this.#phase === "charging") return
    if (this.#phase === "forwarding" || this.#phase === "answering") this.#record(callerGone)
    this.#release()
    this.#finish()
  }

  #refuse(error: GatewayError): void {
    this.#exchange?.abort()
    this.#release()
    if (this.#phase !== "deciding" && this.#phase !== "done") this.#record(503)
    if (this.#finish()) this.#downstream.fail(error)
  }

  #release(): void {
    if (this.#holdId === undefined) return
    this.#parts.accounts.release(this.#caller.accountId, this.#holdId)
    this.#holdId = undefined
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
    if (this.#price === 0n || this.#status >= 500) this.#record(this.#status)
  }

  #record(status: number): void {
    this.#parts.usage.add(this.#usage(newId(), status, 0n))
  }

  #usage(id: string, status: number, cost: Credits): UsageRow {
    const nowMs = Date.now()
    return {
      id, accountId: this.#caller.accountId, subjectId: this.#caller.subjectId, agentId: this.#agent.id, call: "proxy",
      status, cost, latencyMs: nowMs - this.#downstream.request.receivedAtMs, atMs: nowMs
    }
  }
}
