/**
 * What one decision asks to be made durable: the rows of one account's commit
 * request, and how its outcome is told.
 */
import type { BudgetChange, CallKind, LeaseChange, SubjectId, Transaction } from "../domain/account.ts"
import type { Agent } from "../domain/agent.ts"
import type { Credits } from "../domain/credits.ts"
import type { AccountId, AgentId, KeyId, LeaseId, OrderId, SessionId, Token } from "../domain/ids.ts"
import type { WebhookEvent } from "../domain/webhook.ts"

export interface UsageRow {
  /** Of a charged call, the id of its transaction. */
  readonly id: string
  readonly accountId: AccountId
  readonly subjectId: SubjectId
  readonly agentId: AgentId
  readonly call: CallKind
  readonly status: number
  /** Charged by the transaction with the row's id, or recorded. */
  readonly cost: Credits
  /** Present when the call counts in a settlement of its agent's owner. */
  readonly due?: Due | undefined
  readonly latencyMs: number
  readonly atMs: number
}

export interface Due {
  /** The platform's part of the cost. */
  readonly fee: Credits
  /** The cost is invoiced outside of the gateway: no credits move for it. */
  readonly recorded: boolean
}

/** One event for one subscription, to be told by `kernel/webhooks`. Dropped when the subscription is gone. */
export interface DeliveryRow {
  readonly id: string
  readonly webhookId: string
  readonly event: WebhookEvent
  /** What is known of the event; ids of accounts, not their names. */
  readonly facts: object
  readonly atMs: number
}

export interface PaidSettlementRow {
  readonly id: string
  readonly paymentTx: string
  readonly atMs: number
}

export interface OrderRow {
  readonly id: OrderId
  readonly subjectId: SubjectId
  readonly agentId: AgentId
  readonly prompt: string
  readonly paymentMethod: string
  readonly amount: Credits
  /** The platform's part if it completes. */
  readonly fee: Credits
  readonly createdAtMs: number
}

export interface OrderResult {
  readonly id: OrderId
  readonly status: "completed" | "failed"
  readonly fee: Credits
  readonly outputHash: string | undefined
  readonly outputText: string | undefined
  readonly error: string | undefined
  readonly completedAtMs: number
}

export interface SessionRow {
  readonly id: SessionId
  readonly subjectId: SubjectId
  readonly agentId: AgentId
  readonly nodeId: string
  /** Of each of its turns, until it is taken over by another node or start. */
  readonly price: Credits
  readonly startedAtMs: number
}

/** A chat turn that ended well: an order of its session, charged by a transaction of the same request unless it is free. */
export interface TurnRow {
  readonly id: OrderId
  readonly sessionId: SessionId
  /** Refused when the session is closed, or belongs to a later term. */
  readonly term: bigint
  readonly subjectId: SubjectId
  readonly agentId: AgentId
  readonly messageId: string | undefined
  /** 1 for the session's first. */
  readonly messageIndex: number
  readonly prompt: string
  readonly amount: Credits
  readonly fee: Credits
  readonly outputHash: string
  readonly outputText: string
  readonly createdAtMs: number
  readonly completedAtMs: number
}

export interface LateCancelRow {
  readonly agentId: AgentId
  readonly atMs: number
}

export interface KeyRow {
  readonly id: KeyId
  readonly dialect: string
  readonly name: string
  readonly hash: Uint8Array
  readonly prefix: string
  readonly walletAddress?: string | undefined
  readonly scopes: ReadonlyArray<string>
  readonly rateLimit: number | undefined
  readonly expiresAtMs: number | undefined
  readonly createdAtMs: number
  readonly budgets: ReadonlyArray<{ readonly window: string; readonly amount: Credits; readonly periodStartMs: number }>
}

export interface IdempotencyRow {
  readonly key: string
  readonly fingerprint: string
  /** Of what the call made: an order, a transaction, an agent, a key. */
  readonly resultId: string
  readonly answer: { readonly status: number; readonly headers: ReadonlyArray<readonly [string, string]>; readonly body: Uint8Array | string } | undefined
  readonly atMs: number
}

export interface AuditRow {
  readonly id: string
  /** `user:<id>`, `key:<id>` or `operator`. */
  readonly actor: string
  /** `<noun>.<verb>`, e.g. `api_key.create`. */
  readonly action: string
  readonly target: string
  readonly details: Readonly<Record<string, unknown>>
  readonly atMs: number
}

/** The rows of one request. They become durable together or not at all. */
export interface CommitRows {
  readonly transactions?: ReadonlyArray<Transaction>
  readonly budgets?: ReadonlyArray<BudgetChange>
  /** Of this account. Giving back what was spent takes the rest of the request with it, and so does changing a lease that was closed. */
  readonly leases?: ReadonlyArray<LeaseChange>
  /** Of calls that a transaction among these charges or refunds, which has the same id, account, subject and agent. */
  readonly usage?: ReadonlyArray<UsageRow>
  /** Calls that no credits move for. */
  readonly calls?: ReadonlyArray<UsageRow>
  readonly deliveries?: ReadonlyArray<DeliveryRow>
  /** One that is not pending or processing any more takes the rest of the request with it. */
  readonly paidSettlements?: ReadonlyArray<PaidSettlementRow>
  readonly orders?: ReadonlyArray<OrderRow>
  readonly finished?: ReadonlyArray<OrderResult>
  readonly sessions?: ReadonlyArray<SessionRow>
  readonly turns?: ReadonlyArray<TurnRow>
  readonly lateCancels?: ReadonlyArray<LateCancelRow>
  readonly keys?: ReadonlyArray<KeyRow>
  readonly revoked?: ReadonlyArray<{ readonly id: KeyId; readonly atMs: number }>
  readonly agents?: ReadonlyArray<Agent>
  readonly idempotency?: ReadonlyArray<IdempotencyRow>
  readonly audit?: ReadonlyArray<AuditRow>
}

/**
 * `committed`: durable.
 * `refused`: certainly not done (stale token, lease closed or short, outage before the send, a neighbour's failure); safe to retry.
 * `aborted`: certainly not done, the server refused these rows; `constraint` says why.
 * `unknown`: could not be learned in time; done entirely or not at all.
 */
export type CommitOutcome =
  | { readonly _tag: "committed" }
  | { readonly _tag: "refused" }
  | { readonly _tag: "aborted"; readonly constraint: string | undefined }
  | { readonly _tag: "unknown" }

export interface CommitRequest {
  readonly accountId: AccountId
  /** Of the activation that decided it; of no meaning with a lease. */
  readonly token: Token
  /**
   * Set by a node that does not own the account: the request is accepted while this lease is open and has what its
   * transactions, all of them charges, take. The account's own row is neither changed nor locked.
   */
  readonly lease?: LeaseId | undefined
  /** Other nodes have leases of the account: what they have left counts in the balances that its transactions tell. */
  readonly hasLeases?: boolean | undefined
  readonly rows: CommitRows
  /** Called exactly once, never from within `submit`. */
  readonly done: (outcome: CommitOutcome) => void
}
