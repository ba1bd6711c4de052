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
import type { AccountId, AgentId, HoldId, KeyId, LeaseId, OrderId, SessionId, Token, TransactionId, UserId } from "./ids.ts"
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

/** Money of an account that a node which does not own it may spend, for calls of one subject. Durable as a row, which every spending names; counted in the owner's `held`. */
export interface Lease {
  readonly id: LeaseId
  readonly subjectId: SubjectId
  readonly nodeId: string
  /** Granted less given back. What was spent of it is settled when it is closed. */
  amount: Credits
  /** Of the last grant, in whose budget periods there was room for it. */
  grantedAtMs: number
  /** Spent of it, as its node said last. For display. */
  spent?: Credits
}

/** What the owner of an account said to a node that decides for one of its subjects. Times are monotonic. */
export interface Slice {
  /** Calls of the subject's window that may still be made here. */
  calls: number
  /** After this nothing of it is believed: the subject may have been revoked. */
  untilMs: number
  /** What the account can spend besides the lease. For display. */
  elsewhere: Credits
}

export interface Account {
  readonly id: AccountId
  readonly token: Token
  /** Set on what a node knows of an account that it does not own: `available` is then the lease's, and commits name the lease instead of the token. */
  readonly lease?: LeaseId | undefined
  /** Set with it: what its owner said. */
  readonly slice?: Slice | undefined
  readonly suspended: boolean
  readonly emailVerified: boolean
  available: Credits
  reserved: Credits
  held: Credits
  readonly holds: Map<HoldId, Hold>
  readonly orders: Map<OrderId, PendingOrder>
  readonly subjects: Map<SubjectId, Subject>
  /** What other nodes have of it. Empty on a leased account. */
  readonly leases: Map<LeaseId, Lease>
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

/** What a decision changes of a lease; written in the same commit. */
export interface LeaseChange {
  readonly id: LeaseId
  readonly subjectId: SubjectId
  readonly nodeId: string
  /** It begins with this; any other change needs its row. */
  readonly isNew: boolean
  /** Added to it; less than zero: given back. */
  readonly amount: Credits
  readonly grantedAtMs: number
}
