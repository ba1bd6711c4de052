/**
 * An account with its subjects (API keys and logins) as one activation knows
 * them. Only `domain/ledger.ts` and `domain/subject.ts` change it, and only
 * inside a decision.
 *
 * Three amounts, each with its own life: `available` is durable money less
 * every debit decided so far; `reserved` is durable and belongs to pending
 * orders; `held` is in memory only and belongs to calls in flight.
 */
import type { Budget, BudgetWindow } from "./budget.ts"
import type { Credits } from "./credits.ts"
import type { CallCounts } from "./freeTier.ts"
import type { AccountId, AgentId, HoldId, KeyId, OrderId, SessionId, Token, TransactionId, UserId } from "./ids.ts"
import type { RateWindow } from "./rateLimit.ts"

export type SubjectId = KeyId | UserId

/** One API key, or all logins of one person: what has a window. */
export interface Subject {
  readonly id: SubjectId
  readonly kind: "key" | "login"
  /** `undefined`: every scope. */
  readonly scopes: ReadonlySet<string> | undefined
  revoked: boolean
  readonly expiresAtMs: number
  /** Calls in any 60 s. */
  readonly limit: number
  readonly window: RateWindow
  readonly budgets: ReadonlyArray<Budget>
  /** Part of the account's `held` that this subject's calls hold. */
  held: Credits
}

export type CallKind = "proxy" | "order" | "chat"

/** Money set aside for one call in flight, or for a chat session. Lives in the node's hold table, outlives the activation, never a crash. */
export interface Hold {
  /** Of a call, also the id of the transaction that captures it: it can't be captured twice. A session's is billed turn by turn. */
  readonly id: HoldId
  readonly subjectId: SubjectId
  readonly amount: Credits
  readonly call: CallKind
  readonly agentId: AgentId
  readonly agent: string
  readonly sessionId?: SessionId
  readonly createdAtMs: number
  readonly expiresAtMs: number
}

/** An order whose price is reserved and whose agent has not answered yet. */
export interface PendingOrder {
  readonly id: OrderId
  readonly subjectId: SubjectId
  readonly agentId: AgentId
  readonly agent: string
  readonly amount: Credits
  readonly createdAtMs: number
}

export interface Account {
  readonly id: AccountId
  readonly token: Token
  readonly suspended: boolean
  readonly emailVerified: boolean
  available: Credits
  reserved: Credits
  held: Credits
  readonly holds: Map<HoldId, Hold>
  readonly orders: Map<OrderId, PendingOrder>
  readonly subjects: Map<SubjectId, Subject>
  /** Calls to agents with a free tier. Like `holds`, the node's own, which outlive the activation. */
  readonly calls: CallCounts
}

export type TransactionType = "deposit" | "withdrawal" | "charge" | "reserve" | "complete" | "refund" | "earning" | "fee" | "adjustment"

/** One movement of money with all its sides. They sum to zero. */
export interface Transaction {
  readonly id: TransactionId
  readonly type: TransactionType
  readonly available: Credits
  readonly reserved: Credits
  readonly earnerId: AccountId | undefined
  readonly earned: Credits
  readonly fee: Credits
  readonly buyback: Credits
  readonly deposits: Credits
  readonly withdrawals: Credits
  readonly agentId: AgentId | undefined
  readonly orderId: OrderId | undefined
  readonly subjectId: SubjectId | undefined
  readonly reference: string | undefined
  readonly atMs: number
}

/** What one decision adds to (or, by a refund, takes from) what a budget has spent in one period; written in the same commit. */
export interface BudgetChange {
  readonly keyId: KeyId
  readonly window: BudgetWindow
  readonly periodStartMs: number
  readonly amount: Credits
}
