/**
 * What one relayed call costs its caller, and how it gets into the books.
 *
 *   terms ─▶ agreed: free │ within the free tier │ recorded │ held ─▶ charged, or recorded as a call that cost nothing
 *
 * Guarantee. A call is charged at most once, and only when its agent answered
 * below 500. A call of the free tier is claimed before it is forwarded, in one
 * step with the count, so that no more than `freeTierCalls` are free at any
 * concurrency; one that was never sent gives its claim back. A recorded cost is
 * as durable as a charged one. Whoever subscribed to calls of buyer or provider
 * is told by rows of the same commit.
 *
 * Failure cases. Commit refused: nothing is charged and nobody is told. Free
 * calls are telemetry: after a crash those of the last moment are free again.
 */
import { Effect } from "effect"
import { limits } from "../../config.ts"
import type { Account } from "../../domain/account.ts"
import type { Agent } from "../../domain/agent.ts"
import type { Credits } from "../../domain/credits.ts"
import { type GatewayError, HoldLost, NotCommitted, OutcomeUnknown, Unauthenticated } from "../../domain/errors.ts"
import { claimFreeCall, countCall, giveBackFreeCall } from "../../domain/freeTier.ts"
import type { AccountId, HoldId } from "../../domain/ids.ts"
import { shownSpendable } from "../../domain/lease.ts"
import { type Decided, decide, isRefusal } from "../../domain/ledger.ts"
import { type ProxyTerms, isDue, share, splitOf } from "../../domain/terms.ts"
import type { CommitOutcome, DeliveryRow, Due, IdempotencyRow, UsageRow } from "../../store/Commit.ts"
import type { UsageBuffer } from "../../store/UsageBuffer.ts"
import { metrics } from "../../telemetry/Metrics.ts"
import { attempt } from "../attempt.ts"
import type { Caller } from "../Caller.ts"
import type { FreeCalls } from "../market/FreeCalls.ts"
import type { Webhooks } from "../webhooks/Webhooks.ts"
import { newId } from "../Ids.ts"
import type { Spending } from "../lease/Spending.ts"
import type { CallFacts } from "../Relay.ts"

export interface BillParts {
  readonly freeCalls: FreeCalls["Service"]
  readonly spending: Spending["Service"]
  readonly usage: UsageBuffer["Service"]
  readonly webhooks: Webhooks["Service"]
}

/** The rows that make a call's answer repeatable, once its facts are known. */
export type Repeatable = (resultId: string, nowMs: number) => ReadonlyArray<IdempotencyRow>
/** Called once: without an error the charge is durable. */
export type Charged = (error: GatewayError | undefined) => void

export class CallBill implements CallFacts {
  readonly #parts: BillParts
  readonly #caller: Caller
  readonly #agent: Agent
  readonly #receivedAtMs: number
  readonly #recorded: boolean
  #price: Credits
  #isFreeTier = false
  #isCounted = false
  #holdId: HoldId | undefined
  #usageId: string | undefined
  #cost: Credits = 0n
  #charged: CallFacts["charged"]

  constructor(parts: BillParts, caller: Caller, agent: Agent, { price, recorded }: ProxyTerms, receivedAtMs: number) {
    this.#parts = parts
    this.#caller = caller
    this.#agent = agent
    this.#price = price
    this.#recorded = recorded
    this.#receivedAtMs = receivedAtMs
  }

  /** Whether an answer below 500 will be charged or recorded at a cost. */
  get isCharged(): boolean {
    return this.#price > 0n
  }

  /** Whether another node owns the caller's account. */
  get isElsewhere(): boolean {
    return this.#parts.spending.peerOf(this.#caller) !== undefined
  }

  /** Whether only the owner of the caller's account can tell what the call costs. */
  get isOwners(): boolean {
    return this.#price > 0n && this.#agent.freeTierCalls > 0
  }

  /** The owner of the account answers the call: here it was short of its price. */
  passedOn(): void {
    this.#parts.spending.passedOn(this.#caller, this.#recorded ? 0n : this.#price, this.#price > 0n)
  }

  get usageId(): string {
    return this.#usageId ??= newId()
  }

  get cost(): Credits {
    return this.#cost
  }

  get isFreeTier(): boolean {
    return this.#isFreeTier
  }

  get charged(): CallFacts["charged"] {
    return this.#charged
  }

  /** Claims a free call or sets the price aside, if that needs no waiting; `undefined` when it does. */
  agreeNow(nowMs: number): true | GatewayError | undefined {
    const mayBeFree = this.#agent.freeTierCalls > 0
    if (this.#price === 0n) return true
    const account = this.#parts.spending.resident(this.#caller, nowMs)
    if (this.#recorded && !mayBeFree) return account === undefined && this.isElsewhere ? undefined : true
    if (account === undefined || mayBeFree && !this.#parts.freeCalls.isKnown(account, this.#agent.id)) return undefined
    const refusal = this.#agree(account, nowMs)
    // Posted earnings may still cover it, or what other nodes have of it.
    return refusal === undefined ? true : refusal._tag === "InsufficientCredits" || this.#parts.spending.areOut(account) ? undefined : refusal
  }

  agreeLater(): Effect.Effect<void, GatewayError> {
    if (this.#price === 0n) return Effect.void
    const { freeCalls, spending } = this.#parts
    const agreed = spending.act(this.#caller, (account, nowMs): Effect.Effect<void, GatewayError> => {
      const refusal = this.#agree(account, nowMs)
      return refusal === undefined ? Effect.void : Effect.fail(refusal)
    })
    return Effect.andThen(
      this.#agent.freeTierCalls > 0 ? freeCalls.load(this.#caller.accountId, this.#agent.id) : Effect.void,
      this.#recorded ? agreed : spending.withMoney(this.#caller, this.#price, agreed)
    ).pipe(
      // Of a key that was revoked since it was admitted its owner knows nothing.
      Effect.catchTag("NotFound", () => Effect.fail(new Unauthenticated({ reason: "revoked" })))
    )
  }

  #agree(account: Account, nowMs: number): GatewayError | undefined {
    this.release()
    if (claimFreeCall(account.calls, this.#agent)) {
      this.#price = 0n
      this.#isFreeTier = true
      this.#isCounted = true
      return undefined
    }
    if (this.#recorded) return undefined
    const id = newId<HoldId>()
    const outcome = decide(account, {
      _tag: "Hold",
      hold: {
        id, subjectId: this.#caller.subjectId, amount: this.#price, call: "proxy", agentId: this.#agent.id, agent: this.#agent.ticker,
        createdAtMs: nowMs, expiresAtMs: nowMs + limits.proxyHoldMs
      }
    }, nowMs)
    if (isRefusal(outcome)) return outcome
    this.#holdId = id
    return undefined
  }

  /** The call goes out: it counts against the free tier, whatever comes of it. */
  forwarded(): void {
    if (this.#isCounted) return
    const account = this.#parts.spending.resident(this.#caller, this.#receivedAtMs)
    this.#isCounted = account !== undefined && countCall(account.calls, this.#agent.id)
  }

  /** The call never left the gateway. */
  neverSent(): void {
    if (!this.#isCounted) return
    this.#isCounted = false
    const account = this.#parts.spending.resident(this.#caller, this.#receivedAtMs)
    if (account !== undefined) giveBackFreeCall(account.calls, this.#agent.id)
  }

  release(): void {
    if (this.#holdId === undefined) return
    this.#parts.spending.release(this.#caller, this.#holdId)
    this.#holdId = undefined
  }

  /**
   * Charges the call, or records its cost, and calls `done` when that is durable, or with why it is not.
   */
  charge(status: number, repeatable: Repeatable, done: Charged): void {
    const act = (account: Account, nowMs: number) => this.#recorded ? this.#recordCost(account, status, nowMs, repeatable, done) : this.#capture(account, status, nowMs, repeatable, done)
    const nowMs = Date.now()
    const account = this.#parts.spending.resident(this.#caller, nowMs)
    if (account !== undefined) return act(account, nowMs)
    attempt(this.#parts.spending.ask(this.#caller, act), () => {}, done)
  }

  #recordCost(account: Account, status: number, nowMs: number, repeatable: Repeatable, done: Charged): void {
    const fee = share(this.#price, splitOf(this.#agent, nowMs)).fee
    const usage = this.#usage(this.usageId, status, this.#price, nowMs, { fee, recorded: true })
    this.#cost = this.#price
    const deliveries = this.#told(usage, undefined)
    this.#parts.spending.submit(account, { calls: [usage], deliveries, idempotency: repeatable(usage.id, nowMs) }, undefined,
      (outcome) => this.#settled(outcome, deliveries, done))
  }

  #capture(account: Account, status: number, nowMs: number, repeatable: Repeatable, done: Charged): void {
    const split = splitOf(this.#agent, nowMs)
    const outcome = this.#holdId === undefined ? new HoldLost({ retryAfterMs: 1_000 })
      : decide(account, { _tag: "Capture", holdId: this.#holdId, amount: this.#price, earnerId: this.#agent.ownerId, split }, nowMs)
    if (isRefusal(outcome)) {
      metrics.callsLostToCrash.inc()
      return done(outcome)
    }
    this.#holdId = undefined
    const transaction = (outcome as Decided).transaction!
    this.#usageId = transaction.id
    this.#cost = this.#price
    this.#charged = { cost: this.#price, balance: shownSpendable(account), transactionId: transaction.id }
    const usage = this.#usage(transaction.id, status, this.#price, nowMs, isDue(this.#agent, status) ? { fee: transaction.fee, recorded: false } : undefined)
    const deliveries = this.#told(usage, transaction.id)
    this.#parts.spending.submit(account, {
      transactions: [transaction], budgets: outcome.budgets, usage: [usage], deliveries, idempotency: repeatable(transaction.id, nowMs)
    }, outcome, (committed) => this.#settled(committed, deliveries, done))
  }

  #settled(outcome: CommitOutcome, deliveries: ReadonlyArray<DeliveryRow>, done: Charged): void {
    if (outcome._tag === "committed") {
      if (deliveries.length > 0) this.#parts.webhooks.wake(deliveries)
      return done(undefined)
    }
    this.#cost = 0n
    this.#charged = undefined
    // What may be in the books under this id is not what the caller gets.
    this.#usageId = undefined
    if (outcome._tag !== "unknown") metrics.callsLostToCrash.inc()
    done(outcome._tag === "unknown" ? new OutcomeUnknown({ retryAfterMs: 5_000 }) : new NotCommitted({ retryAfterMs: 1_000 }))
  }

  /** A call that costs nothing. Nobody waits for its row. */
  record(status: number): void {
    const nowMs = Date.now()
    const usage = this.#usage(this.usageId, status, 0n, nowMs, isDue(this.#agent, status) ? freeDue : undefined)
    const deliveries = this.#told(usage, undefined)
    if (deliveries.length === 0) return this.#parts.usage.add(usage)
    // Who is told of the call is told by the commit that counts it.
    const submit = (account: Account) => this.#parts.spending.submit(account, { calls: [usage], deliveries }, undefined, (outcome) => {
      if (outcome._tag === "committed") this.#parts.webhooks.wake(deliveries)
      else metrics.usageDropped.inc()
    })
    attempt(this.#parts.spending.ask(this.#caller, submit), () => {}, () => metrics.usageDropped.inc())
  }

  #usage(id: string, status: number, cost: Credits, nowMs: number, due: Due | undefined): UsageRow {
    return {
      id, accountId: this.#caller.accountId, subjectId: this.#caller.subjectId, agentId: this.#agent.id, call: "proxy",
      status, cost, latencyMs: nowMs - this.#receivedAtMs, atMs: nowMs, due
    }
  }

  #isTold(accountId: AccountId): boolean {
    const { webhooks } = this.#parts
    return webhooks.subscriptions(accountId, "service.called").length > 0 || webhooks.subscriptions(accountId, "payment.completed").length > 0
  }

  /** What buyer and provider asked to be told of. */
  #told({ id, status, cost, latencyMs, atMs }: UsageRow, transactionId: string | undefined): ReadonlyArray<DeliveryRow> {
    const { webhooks } = this.#parts
    const buyer = this.#caller.accountId
    const provider = this.#agent.ownerId
    if (!this.#isTold(buyer) && !this.#isTold(provider)) return nobody
    const facts = {
      usage_id: id, service_id: this.#agent.id, buyer, provider, amount: String(cost), payment_method: this.#agent.paymentMethod,
      status_code: status, latency_ms: latencyMs
    }
    const called = webhooks.deliveriesOf("service.called", [buyer, provider], facts, atMs)
    if (transactionId === undefined) return called
    return [...called, ...webhooks.deliveriesOf("payment.completed", [buyer, provider], { ...facts, transaction_id: transactionId }, atMs)]
  }
}

const nobody: ReadonlyArray<DeliveryRow> = []
const freeDue: Due = { fee: 0n, recorded: false }
