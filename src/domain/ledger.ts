/**
 * The ledger machine of one account: two-phase holds, durable order
 * reservations, leases to other nodes, deposits and withdrawals, double entry.
 *
 * `decide(account, command, nowMs)` checks, then changes the account, then
 * names what must be committed. Debits and holds are adopted here, at once.
 * Credits are not: a transaction that adds to `available` takes effect by
 * `adopt`, which the caller runs when the commit is durable. A refusal changes
 * nothing.
 *
 * A lease counts as a hold of its subject, whatever its node has spent of it:
 * that is told, and charged to the subject's budgets, when it is closed
 * (`closeLease`). Its node decides by the same machine, on an account that has
 * what is left of the lease, and no leases of its own.
 *
 * Guarantee: `available`, `reserved` and `held` are never negative; what is
 * held or leased never exceeds what is available; no budget of a key is exceeded
 * by what it spent plus what it holds; every transaction sums to zero.
 *
 * It knows no clock, no database and no ids but those it is given, so that the
 * model test and a replay call the same function.
 */
import type { Account, BudgetChange, Hold, Lease, LeaseChange, PendingOrder, Subject, SubjectId, Transaction, TransactionType } from "./account.ts"
import { enterPeriod, periodEndMs, periodStartMs, spend, spentAt, unspend } from "./budget.ts"
import type { Credits } from "./credits.ts"
import { BudgetExceeded, HoldLost, InsufficientCredits, NotFound } from "./errors.ts"
import type { AccountId, HoldId, KeyId, LeaseId, OrderId, TransactionId } from "./ids.ts"
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
  /** Adds to a lease, or begins it. Zero is no refusal: the lease is then a name that commits are accepted under. */
  | { readonly _tag: "Grant"; readonly lease: Pick<Lease, "id" | "subjectId" | "nodeId">; readonly amount: Credits }
  /** What a lease's node will not spend. Never on its way while the lease is being closed. */
  | { readonly _tag: "GiveBack"; readonly leaseId: LeaseId; readonly amount: Credits }

/** What must be committed; empty for holds and releases, which live in memory. */
export interface Decided {
  readonly transaction: Transaction | undefined
  readonly budgets: ReadonlyArray<BudgetChange>
  readonly lease: LeaseChange | undefined
}
export type Refusal = InsufficientCredits | BudgetExceeded | HoldLost | NotFound
export type Outcome = Decided | Refusal

const noChanges: ReadonlyArray<BudgetChange> = []
const nothing: Decided = { transaction: undefined, budgets: noChanges, lease: undefined }

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
    case "Deposit": return { transaction: transaction(command.transactionId, command.type, nowMs, { available: command.amount, deposits: -command.amount, reference: command.reference }), budgets: noChanges, lease: undefined }
    case "Withdraw": return debit(account, command.amount, transaction(command.transactionId, command.type, nowMs, { available: -command.amount, withdrawals: command.amount, reference: command.reference }))
    case "Fee": return debit(account, command.amount, transaction(command.transactionId, "fee", nowMs, { available: -command.amount, fee: command.amount, reference: command.reference }))
    case "Sweep": return { transaction: transaction(command.transactionId, "earning", nowMs, { available: command.amount, earned: -command.amount, earnerId: command.earnerId }), budgets: noChanges, lease: undefined }
    case "Grant": return grant(account, command, nowMs)
    case "GiveBack": return giveBack(account, command)
  }
}

/** Takes up what a decision credits, once it is durable: exactly once for each committed decision, on the activation that decided it. */
export const adopt = (account: Account, { transaction, budgets, lease }: Decided): void => {
  if (transaction !== undefined && transaction.available > 0n) account.available += transaction.available
  if (lease !== undefined && lease.amount < 0n) setAside(account, lease.subjectId, lease.amount)
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

const ofPeriod = (account: Account, hold: Hold): Hold => {
  const createdAtMs = periodWithRoom(account, hold.subjectId, hold.createdAtMs)
  return createdAtMs === hold.createdAtMs ? hold : { ...hold, createdAtMs }
}

/**
 * `atMs`, or a time in the later budget period that had room for what is set aside, which a clock that stepped back is
 * behind: by its time the next activation enters that period again, and what is spent of it is charged there.
 */
export const periodWithRoom = (account: Account, subjectId: SubjectId, atMs: number): number => {
  let latestMs = atMs
  for (const { periodStartMs } of account.subjects.get(subjectId)?.budgets ?? []) if (periodStartMs > latestMs) latestMs = periodStartMs
  return latestMs
}

/** Counts a hold that was granted before: to re-apply the node's hold table to a new activation. */
export const placeHold = (account: Account, hold: Hold): void => {
  account.holds.set(hold.id, hold)
  setAside(account, hold.subjectId, hold.amount)
  enterPeriods(account, hold.subjectId, hold.createdAtMs)
}

const removeHold = (account: Account, hold: Hold): void => {
  account.holds.delete(hold.id)
  setAside(account, hold.subjectId, -hold.amount)
}

const setAside = (account: Account, subjectId: SubjectId, amount: Credits): void => {
  account.held += amount
  const subject = account.subjects.get(subjectId)
  if (subject !== undefined) subject.held += amount
}

/** A clock that steps back over midnight must not charge what is set aside to the day before, which had no room for it. */
const enterPeriods = (account: Account, subjectId: SubjectId, atMs: number): void => {
  const subject = account.subjects.get(subjectId)
  if (subject !== undefined) for (const budget of subject.budgets) enterPeriod(budget, atMs)
}

const grant = (account: Account, { lease: { id, subjectId, nodeId }, amount }: Extract<Command, { _tag: "Grant" }>, nowMs: number): Outcome => {
  const refusal = refuseDebit(account, subjectId, amount, nowMs)
  if (refusal !== undefined) return refusal
  const known = account.leases.get(id)
  const grantedAtMs = periodWithRoom(account, subjectId, nowMs)
  if (known === undefined) account.leases.set(id, { id, subjectId, nodeId, amount, grantedAtMs })
  else {
    known.amount += amount
    known.grantedAtMs = grantedAtMs
  }
  setAside(account, subjectId, amount)
  enterPeriods(account, subjectId, grantedAtMs)
  return leaseChange({ id, subjectId, nodeId, isNew: known === undefined, amount, grantedAtMs })
}

/** The lease is smaller at once, so that nothing is given back twice; the money is the account's by `adopt`. */
const giveBack = (account: Account, { leaseId, amount }: Extract<Command, { _tag: "GiveBack" }>): Outcome => {
  const lease = account.leases.get(leaseId)
  if (lease === undefined || lease.amount < amount) return new NotFound({ what: "lease", id: leaseId })
  lease.amount -= amount
  const { id, subjectId, nodeId, grantedAtMs } = lease
  return leaseChange({ id, subjectId, nodeId, isNew: false, amount: -amount, grantedAtMs })
}

const leaseChange = (lease: LeaseChange): Decided => ({ transaction: undefined, budgets: noChanges, lease })

/** Counts a lease that was granted before: its row is not in the account's, which a new activation has read. */
export const placeLease = (account: Account, lease: Lease): void => {
  account.leases.set(lease.id, lease)
  account.available += lease.amount
  setAside(account, lease.subjectId, lease.amount)
  enterPeriods(account, lease.subjectId, lease.grantedAtMs)
}

/** Takes up that a lease was closed, on the activation that closed it: what was `spent` of it is gone, and charged to its subject's budgets; the rest is the account's again. */
export const closeLease = (account: Account, leaseId: LeaseId, spent: Credits, nowMs: number): void => {
  const lease = account.leases.get(leaseId)
  if (lease === undefined) return
  account.leases.delete(leaseId)
  account.available -= spent
  setAside(account, lease.subjectId, -lease.amount)
  if (spent > 0n) for (const budget of account.subjects.get(lease.subjectId)?.budgets ?? []) spend(budget, spent, nowMs)
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

/**
 * The hold, when it covers the amount. Re-activation may have found less than this node believed when it granted the hold;
 * what other nodes have is not there for it.
 */
const chargeable = (account: Account, holdId: HoldId, amount: Credits, nowMs: number): Hold | undefined => {
  const held = account.holds.get(holdId)
  if (held === undefined || held.amount < amount || account.available - lent(account) < amount) return undefined
  return isOverBudget(account.subjects.get(held.subjectId), amount + lent(account, held.subjectId), nowMs) ? undefined : held
}

const lent = ({ leases }: Account, subjectId?: SubjectId): Credits => {
  let sum = 0n
  if (leases.size > 0) for (const lease of leases.values()) if (subjectId === undefined || lease.subjectId === subjectId) sum += lease.amount
  return sum
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
    budgets: spendBudgets(account.subjects.get(held.subjectId), amount, nowMs),
    lease: undefined
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
    budgets: spendBudgets(account.subjects.get(order.subjectId), order.amount, nowMs),
    lease: undefined
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
    budgets: noChanges,
    lease: undefined
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
    budgets: returnToBudgets(account.subjects.get(order.subjectId), order),
    lease: undefined
  }
}

const debit = (account: Account, amount: Credits, transaction: Transaction): Outcome => {
  if (spendable(account) < amount) return short(account, amount)
  account.available -= amount
  return { transaction, budgets: noChanges, lease: undefined }
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
