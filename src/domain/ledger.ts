/**
 * The ledger machine of one account: two-phase holds, durable order
 * reservations, deposits and withdrawals, double entry.
 *
 * `decide(account, command, nowMs)` checks, then changes the account, then
 * names what must be committed. Debits and holds are adopted here, at once.
 * Credits are not: a transaction that adds to `available` takes effect by
 * `adopt`, which the caller runs when the commit is durable. A refusal changes
 * nothing.
 *
 * Guarantee: `available`, `reserved` and `held` are never negative; what is
 * held never exceeds what is available; no budget of a key is exceeded by what
 * it spent plus what it holds; every transaction sums to zero.
 *
 * It knows no clock, no database and no ids but those it is given, so that the
 * model test and a replay call the same function.
 */
import type { Account, BudgetChange, Hold, PendingOrder, Subject, SubjectId, Transaction, TransactionType } from "./account.ts"
import { enterPeriod, periodEndMs, periodStartMs, spend, spentAt, unspend } from "./budget.ts"
import type { Credits } from "./credits.ts"
import { BudgetExceeded, HoldLost, InsufficientCredits, NotFound } from "./errors.ts"
import type { AccountId, HoldId, KeyId, OrderId, TransactionId } from "./ids.ts"
import { type Shares, type Split, share } from "./terms.ts"

/** Amounts are never negative, ids are new. */
export type Command =
  | { readonly _tag: "Hold"; readonly hold: Hold }
  | { readonly _tag: "Release"; readonly holdId: HoldId }
  /** Charges a hold. `amount` ≤ the hold's; the rest returns. */
  | { readonly _tag: "Capture"; readonly holdId: HoldId; readonly amount: Credits; readonly earnerId: AccountId; readonly split: Split }
  /**
   * Makes a chat session's hold `units` times `unit` (more than 0), or as many whole units as credits and budgets allow, at least one.
   * What it holds already stays: it is never lowered, and belongs to the same key or login. Also moves its expiry. `hold.amount` is not read.
   */
  | { readonly _tag: "TopUp"; readonly hold: Hold; readonly unit: Credits; readonly units: number }
  /** Charges one turn to its session's hold, whose rest stays held. A turn without a price has no hold and is not billed. */
  | { readonly _tag: "Bill"; readonly holdId: HoldId; readonly transactionId: TransactionId; readonly orderId: OrderId; readonly amount: Credits; readonly earnerId: AccountId; readonly split: Split }
  /** Debits an order's price before its agent is asked. Its `createdAtMs` is this decision's time: a refund goes back to that period's budgets. */
  | { readonly _tag: "Reserve"; readonly transactionId: TransactionId; readonly order: PendingOrder }
  | { readonly _tag: "Complete"; readonly transactionId: TransactionId; readonly orderId: OrderId; readonly earnerId: AccountId; readonly split: Split }
  | { readonly _tag: "Refund"; readonly transactionId: TransactionId; readonly orderId: OrderId }
  | { readonly _tag: "Deposit"; readonly transactionId: TransactionId; readonly amount: Credits; readonly type: "deposit" | "adjustment"; readonly reference: string }
  | { readonly _tag: "Withdraw"; readonly transactionId: TransactionId; readonly amount: Credits; readonly type: "withdrawal" | "adjustment"; readonly reference: string }
  /** A fee to the platform, e.g. for listing an agent. */
  | { readonly _tag: "Fee"; readonly transactionId: TransactionId; readonly amount: Credits; readonly reference: string }
  /** Moves posted earnings of this account, or of one that was merged into it, to its available credits; `amount` must have been read as posted. */
  | { readonly _tag: "Sweep"; readonly transactionId: TransactionId; readonly amount: Credits; readonly earnerId: AccountId }

/** What must be committed; empty for holds and releases, which live in memory. */
export interface Decided {
  readonly transaction: Transaction | undefined
  readonly budgets: ReadonlyArray<BudgetChange>
}
export type Refusal = InsufficientCredits | BudgetExceeded | HoldLost | NotFound
export type Outcome = Decided | Refusal

const nothing: Decided = { transaction: undefined, budgets: [] }

export const isRefusal = (outcome: Outcome): outcome is Refusal => "_tag" in outcome

export const spendable = (account: Account): Credits => account.available - account.held

export const decide = (account: Account, command: Command, nowMs: number): Outcome => {
  switch (command._tag) {
    case "Hold": return hold(account, command.hold, nowMs)
    case "Release": return release(account, command.holdId)
    case "Capture": return capture(account, command, nowMs)
    case "TopUp": return topUp(account, command, nowMs)
    case "Bill": return bill(account, command, nowMs)
    case "Reserve": return reserve(account, command, nowMs)
    case "Complete": return complete(account, command, nowMs)
    case "Refund": return refund(account, command, nowMs)
    case "Deposit": return { transaction: transaction(command.transactionId, command.type, nowMs, { available: command.amount, deposits: -command.amount, reference: command.reference }), budgets: [] }
    case "Withdraw": return debit(account, command.amount, transaction(command.transactionId, command.type, nowMs, { available: -command.amount, withdrawals: command.amount, reference: command.reference }))
    case "Fee": return debit(account, command.amount, transaction(command.transactionId, "fee", nowMs, { available: -command.amount, fee: command.amount, reference: command.reference }))
    case "Sweep": return { transaction: transaction(command.transactionId, "earning", nowMs, { available: command.amount, earned: -command.amount, earnerId: command.earnerId }), budgets: [] }
  }
}

/** Takes up what a decision credits, once it is durable: exactly once for each committed decision, on the activation that decided it. */
export const adopt = (account: Account, { transaction, budgets }: Decided): void => {
  if (transaction !== undefined && transaction.available > 0n) account.available += transaction.available
  for (const change of budgets) {
    if (change.amount >= 0n) continue
    for (const budget of account.subjects.get(change.keyId)?.budgets ?? []) {
      if (budget.window === change.window) unspend(budget, -change.amount, change.periodStartMs)
    }
  }
}

const hold = (account: Account, hold: Hold, nowMs: number): Outcome => {
  const refusal = refuseDebit(account, hold.subjectId, hold.amount, nowMs)
  if (refusal !== undefined) return refusal
  placeHold(account, ofPeriod(account, hold))
  return nothing
}

/** Dates a hold into the period that had room for it, which a clock that stepped back is behind: by its time the next activation enters that period again. */
const ofPeriod = (account: Account, hold: Hold): Hold => {
  let { createdAtMs } = hold
  for (const { periodStartMs } of account.subjects.get(hold.subjectId)?.budgets ?? []) if (periodStartMs > createdAtMs) createdAtMs = periodStartMs
  return createdAtMs === hold.createdAtMs ? hold : { ...hold, createdAtMs }
}

/** Counts a hold that was granted before: to re-apply the node's hold table to a new activation. */
export const placeHold = (account: Account, hold: Hold): void => {
  account.holds.set(hold.id, hold)
  account.held += hold.amount
  const subject = account.subjects.get(hold.subjectId)
  if (subject === undefined) return
  subject.held += hold.amount
  // A clock that steps back over midnight must not charge this hold to the day before, which had no room for it.
  for (const budget of subject.budgets) enterPeriod(budget, hold.createdAtMs)
}

const removeHold = (account: Account, hold: Hold): void => {
  account.holds.delete(hold.id)
  account.held -= hold.amount
  const subject = account.subjects.get(hold.subjectId)
  if (subject !== undefined) subject.held -= hold.amount
}

const release = (account: Account, holdId: HoldId): Outcome => {
  const held = account.holds.get(holdId)
  if (held !== undefined) removeHold(account, held)
  return nothing
}

const topUp = (account: Account, { hold, unit, units }: Extract<Command, { _tag: "TopUp" }>, nowMs: number): Outcome => {
  const before = account.holds.get(hold.id)
  const has = before?.amount ?? 0n
  let refusal: InsufficientCredits | BudgetExceeded | undefined
  for (let wanted = units; wanted > 0; wanted--) {
    const missing = unit * BigInt(wanted) - has
    refusal = missing <= 0n ? undefined : refuseDebit(account, hold.subjectId, missing, nowMs)
    if (refusal !== undefined) continue
    if (before !== undefined) removeHold(account, before)
    placeHold(account, ofPeriod(account, { ...hold, amount: missing <= 0n ? has : has + missing }))
    return nothing
  }
  return refusal!
}

let shared: { readonly amount: Credits; readonly split: Split; readonly shares: Shares } | undefined

/** As `share`, and remembers the last answer: the calls of a busy agent cost the same, and dividing is a good part of a capture. */
const shareAgain = (amount: Credits, split: Split): Shares => {
  if (shared === undefined || shared.amount !== amount || shared.split !== split) shared = { amount, split, shares: share(amount, split) }
  return shared.shares
}

const capture = (account: Account, command: Extract<Command, { _tag: "Capture" }>, nowMs: number): Outcome => {
  const held = chargeable(account, command.holdId, command.amount, nowMs)
  if (held === undefined) return new HoldLost({ retryAfterMs: 1_000 })
  removeHold(account, held)
  return charge(account, held, command, held.id as string as TransactionId, undefined, nowMs)
}

const bill = (account: Account, command: Extract<Command, { _tag: "Bill" }>, nowMs: number): Outcome => {
  const held = chargeable(account, command.holdId, command.amount, nowMs)
  if (held === undefined) return new HoldLost({ retryAfterMs: 1_000 })
  removeHold(account, held)
  placeHold(account, { ...held, amount: held.amount - command.amount })
  return charge(account, held, command, command.transactionId, command.orderId, nowMs)
}

/** The hold, when it covers the amount. Re-activation may have found less than this node believed when it granted the hold. */
const chargeable = (account: Account, holdId: HoldId, amount: Credits, nowMs: number): Hold | undefined => {
  const held = account.holds.get(holdId)
  if (held === undefined || held.amount < amount || account.available < amount) return undefined
  return isOverBudget(account.subjects.get(held.subjectId), amount, nowMs) ? undefined : held
}

const charge = (
  account: Account, held: Hold, { amount, split, earnerId }: Extract<Command, { _tag: "Capture" | "Bill" }>, id: TransactionId, orderId: OrderId | undefined, nowMs: number
): Decided => {
  account.available -= amount
  const { earned, fee, buyback } = shareAgain(amount, split)
  return {
    transaction: transaction(id, "charge", nowMs, {
      available: -amount, earned, fee, buyback, earnerId, agentId: held.agentId, orderId, subjectId: held.subjectId
    }),
    budgets: spendBudgets(account.subjects.get(held.subjectId), amount, nowMs)
  }
}

const reserve = (account: Account, { order, transactionId }: Extract<Command, { _tag: "Reserve" }>, nowMs: number): Outcome => {
  const refusal = refuseDebit(account, order.subjectId, order.amount, nowMs)
  if (refusal !== undefined) return refusal
  account.orders.set(order.id, order)
  account.available -= order.amount
  account.reserved += order.amount
  return {
    transaction: transaction(transactionId, "reserve", nowMs, {
      available: -order.amount, reserved: order.amount, agentId: order.agentId, orderId: order.id, subjectId: order.subjectId
    }),
    budgets: spendBudgets(account.subjects.get(order.subjectId), order.amount, nowMs)
  }
}

const complete = (account: Account, command: Extract<Command, { _tag: "Complete" }>, nowMs: number): Outcome => {
  const order = account.orders.get(command.orderId)
  if (order === undefined) return new NotFound({ what: "order", id: command.orderId })
  account.orders.delete(order.id)
  account.reserved -= order.amount
  return {
    transaction: transaction(command.transactionId, "complete", nowMs, {
      reserved: -order.amount,
      ...share(order.amount, command.split),
      earnerId: command.earnerId,
      agentId: order.agentId, orderId: order.id, subjectId: order.subjectId
    }),
    budgets: []
  }
}

const refund = (account: Account, command: Extract<Command, { _tag: "Refund" }>, nowMs: number): Outcome => {
  const order = account.orders.get(command.orderId)
  if (order === undefined) return new NotFound({ what: "order", id: command.orderId })
  account.orders.delete(order.id)
  account.reserved -= order.amount
  return {
    transaction: transaction(command.transactionId, "refund", nowMs, {
      available: order.amount, reserved: -order.amount, agentId: order.agentId, orderId: order.id, subjectId: order.subjectId
    }),
    budgets: returnToBudgets(account.subjects.get(order.subjectId), order)
  }
}

const debit = (account: Account, amount: Credits, transaction: Transaction): Outcome => {
  if (spendable(account) < amount) return short(account, amount)
  account.available -= amount
  return { transaction, budgets: [] }
}

const short = (account: Account, required: Credits): InsufficientCredits =>
  new InsufficientCredits({ required, available: spendable(account) > 0n ? spendable(account) : 0n, held: account.held })

const refuseDebit = (account: Account, subjectId: SubjectId, amount: Credits, nowMs: number): InsufficientCredits | BudgetExceeded | undefined => {
  if (spendable(account) < amount) return short(account, amount)
  const subject = account.subjects.get(subjectId)
  if (subject === undefined) return undefined
  for (const budget of subject.budgets) {
    const spent = spentAt(budget, nowMs)
    if (spent + subject.held + amount <= budget.amount) continue
    const resetsAtMs = periodEndMs(budget.window, Math.max(nowMs, budget.periodStartMs))
    return new BudgetExceeded({
      window: budget.window, amount: budget.amount, spent, held: subject.held, required: amount,
      ...(resetsAtMs === undefined ? {} : { resetsAtMs })
    })
  }
  return undefined
}

const isOverBudget = (subject: Subject | undefined, amount: Credits, nowMs: number): boolean =>
  subject !== undefined && subject.budgets.some((budget) => spentAt(budget, nowMs) + amount > budget.amount)

const noChanges: ReadonlyArray<BudgetChange> = []

const spendBudgets = (subject: Subject | undefined, amount: Credits, nowMs: number): ReadonlyArray<BudgetChange> => {
  if (subject === undefined || subject.budgets.length === 0) return noChanges
  return subject.budgets.map((budget) => {
    spend(budget, amount, nowMs)
    return { keyId: subject.id as KeyId, window: budget.window, periodStartMs: budget.periodStartMs, amount }
  })
}

/** What a refund gives back to the budgets it was charged to; taken up by `adopt`. */
const returnToBudgets = (subject: Subject | undefined, order: PendingOrder): ReadonlyArray<BudgetChange> =>
  subject === undefined ? noChanges : subject.budgets.map((budget) => ({
    keyId: subject.id as KeyId, window: budget.window, periodStartMs: periodStartMs(budget.window, order.createdAtMs), amount: -order.amount
  }))

const transaction = (id: TransactionId, type: TransactionType, atMs: number, sides: Partial<Omit<Transaction, "id" | "type" | "atMs">>): Transaction => ({
  id,
  type,
  available: sides.available ?? 0n,
  reserved: sides.reserved ?? 0n,
  earnerId: sides.earnerId,
  earned: sides.earned ?? 0n,
  fee: sides.fee ?? 0n,
  buyback: sides.buyback ?? 0n,
  deposits: sides.deposits ?? 0n,
  withdrawals: sides.withdrawals ?? 0n,
  agentId: sides.agentId,
  orderId: sides.orderId,
  subjectId: sides.subjectId,
  reference: sides.reference,
  atMs
})
