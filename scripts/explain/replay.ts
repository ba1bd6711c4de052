/**
 * Makes one decision of the ledger once more and compares it with the books.
 *
 * `replay` rebuilds the account as the decision found it and calls the same
 * `decide` with the same command. What the command said is taken from another
 * row than the transaction wherever there is one: the amount of a call from its
 * usage, of an order or a chat turn from the order, of an operator's adjustment from the audit
 * row; without one from the transaction's own main side, so that only its other
 * sides are proved. Sides, parties, the balance after it, the order and usage
 * rows written with it, and the agent's price then are compared line by line.
 *
 * What isn't stored can't change an amount: holds of other calls and what the
 * key's budgets had spent could only have refused. They are left out; that the
 * decision was granted shows that there was room. Pure.
 */
import type { Account, CallKind, SubjectId, Transaction, TransactionType } from "../../src/domain/account.ts"
import { splitOf } from "../../src/domain/terms.ts"
import { type Credits, formatUsd, parseUsd } from "../../src/domain/credits.ts"
import type { AccountId, AgentId, HoldId, Token } from "../../src/domain/ids.ts"
import { type Command, type Decided, adopt, decide, isRefusal } from "../../src/domain/ledger.ts"
import type { Evidence, Price, StoredOrder } from "../../src/store/Explain.ts"

export interface Line {
  readonly line: string
  readonly books: string
  readonly replayed: string
}
export interface Replayed {
  /** What the command was made of. */
  readonly from: string
  readonly lines: ReadonlyArray<Line>
  readonly differences: ReadonlyArray<Line>
}

/** The longest that a call may go on at a price that was changed meanwhile: its body, its agent and its hold have limits far below. */
const priceGraceMs = 600_000

interface Replay {
  readonly from: string
  readonly command: Command
  /** Of what the call, the order or the adjustment cost. */
  readonly amount: Credits
}

/** What is missing to decide again. */
interface Impossible { readonly missing: string }

export const replay = (evidence: Evidence): Replayed => {
  const made = replayOf(evidence)
  const lines = "missing" in made
    ? [{ line: made.missing, books: "missing", replayed: "needed" }]
    : [...compare(evidence, made), ...compareOrder(evidence), ...compareUsage(evidence, made), ...comparePrice(evidence, made), ...compareBalance(evidence)]
  return { from: "missing" in made ? "nothing" : made.from, lines, differences: lines.filter(({ books, replayed }) => books !== replayed) }
}

const replayOf = (evidence: Evidence): Replay | Impossible => {
  const { transaction: t, order } = evidence
  const own = (command: Command, amount: Credits): Replay => ({ from: "the transaction's own amount: no other row records it", command, amount })
  switch (t.type) {
    case "charge": return chargeOf(evidence)
    case "reserve": return order === undefined ? { missing: "order" }
      : { from: "the order", command: { _tag: "Reserve", transactionId: t.id, order: pendingOf(order) }, amount: order.amount }
    case "complete": return completeOf(evidence)
    case "refund": return order === undefined ? { missing: "order" }
      : { from: "the order", command: { _tag: "Refund", transactionId: t.id, orderId: order.id }, amount: order.amount }
    case "earning": return own({ _tag: "Sweep", transactionId: t.id, amount: t.available, earnerId: sweptFrom(evidence) }, t.available)
    case "fee": return own({ _tag: "Fee", transactionId: t.id, amount: t.fee, reference: t.reference ?? "" }, t.fee)
    case "deposit":
    case "withdrawal": {
      const amount = t.type === "deposit" ? -t.deposits : t.withdrawals
      return own(movement(evidence, t.type, amount, t.reference ?? ""), amount)
    }
    case "adjustment": return adjustmentOf(evidence)
  }
}

const movement = ({ transaction: { id } }: Evidence, type: "deposit" | "withdrawal" | "adjustment", amount: Credits, reference: string, takesBack = type === "withdrawal"): Command =>
  takesBack
    ? { _tag: "Withdraw", transactionId: id, amount, type: type as "withdrawal" | "adjustment", reference }
    : { _tag: "Deposit", transactionId: id, amount, type: type as "deposit" | "adjustment", reference }

/** Earnings are swept by their own account, or by the one that it was merged into. */
const sweptFrom = ({ transaction: t, earner }: Evidence): AccountId => earner?.mergedInto === t.accountId ? earner.accountId : t.accountId

const adjustmentOf = (evidence: Evidence): Replay => {
  const { transaction: t } = evidence
  const details = evidence.audit.find(({ action, details }) => action === "account.credit" && details["transaction_id"] === t.id)?.details
  const text = details === undefined ? formatUsd(t.available) : String(details["amount_usd"])
  const takesBack = text.startsWith("-")
  const amount = parseUsd(takesBack ? text.slice(1) : text) ?? 0n
  const reference = details === undefined ? t.reference ?? "" : String(details["reason"])
  return { from: details === undefined ? "the transaction's own amount: no other row records it" : "the operator's audit row", command: movement(evidence, "adjustment", amount, reference, takesBack), amount }
}

/** A charge that names an order is a chat turn's, billed to its session's hold; the others capture a call's own hold. */
const chargeOf = ({ transaction: t, agent, order, usage: [usage] }: Evidence): Replay | Impossible => {
  if (agent === undefined) return { missing: "agent" }
  if (t.orderId !== undefined) {
    return order === undefined ? { missing: "order" } : {
      from: "the turn's order",
      command: { _tag: "Bill", holdId: t.id as string as HoldId, transactionId: t.id, orderId: order.id, amount: order.amount, earnerId: agent.ownerId, split: splitOf(agent, t.atMs) },
      amount: order.amount
    }
  }
  const amount = usage?.cost ?? -t.available
  return {
    from: usage === undefined ? "the transaction's own amount: the call's usage row is gone" : "the call's usage row",
    command: { _tag: "Capture", holdId: t.id as string as HoldId, amount, earnerId: agent.ownerId, split: splitOf(agent, t.atMs) },
    amount
  }
}

const completeOf = ({ transaction: t, agent, order }: Evidence): Replay | Impossible => {
  if (order === undefined) return { missing: "order" }
  if (agent === undefined) return { missing: "agent" }
  return { from: "the order", command: { _tag: "Complete", transactionId: t.id, orderId: order.id, earnerId: agent.ownerId, split: splitOf(agent, t.atMs) }, amount: order.amount }
}

const pendingOf = (order: StoredOrder) => ({ id: order.id, subjectId: order.subjectId, agentId: order.agentId, agent: "", amount: order.amount, createdAtMs: order.createdAt.getTime() })

const balanceBefore = ({ transaction: t }: Evidence): Credits => t.balanceAfter - t.available

/** The account as the decision found it, less what other calls held. */
const accountOf = (evidence: Evidence, { command, amount }: Replay): Account => {
  const { transaction: t, order, usage: [usage] } = evidence
  const called = order ?? usage
  const account: Account = {
    id: t.accountId, token: 0n as Token, suspended: false, emailVerified: true,
    available: balanceBefore(evidence), reserved: 0n, held: 0n, holds: new Map(), orders: new Map(), subjects: new Map(), leases: new Map(), calls: new Map()
  }
  if (command._tag === "Capture" || command._tag === "Bill") {
    const heldAtMs = heldAt(evidence) ?? t.atMs
    decide(account, {
      _tag: "Hold",
      hold: {
        id: command.holdId, subjectId: called?.subjectId ?? t.subjectId ?? ("" as SubjectId), amount, call: callOf(t),
        agentId: called?.agentId ?? t.agentId ?? ("" as AgentId), agent: "", createdAtMs: heldAtMs, expiresAtMs: t.atMs
      }
    }, heldAtMs)
  }
  if ((command._tag === "Complete" || command._tag === "Refund") && order !== undefined) {
    account.orders.set(order.id, pendingOf(order))
    account.reserved = order.amount
  }
  return account
}

/** What the usage row of a charge, completion or refund is of. */
const callOf = ({ type, orderId }: Transaction): CallKind => type !== "charge" ? "order" : orderId === undefined ? "proxy" : "chat"

/** A call's charge has its hold's id, which tells when the hold was made (RFC 9562 §5.7). */
export const heldAt = ({ transaction: { type, orderId, id } }: Evidence): number | undefined =>
  type === "charge" && orderId === undefined && id[14] === "7" ? parseInt(id.slice(0, 8) + id.slice(9, 13), 16) : undefined

const decidedAgain = (evidence: Evidence, made: Replay): { readonly outcome: Decided; readonly balanceAfter: Credits } | string => {
  if (made.amount < 0n) return "refused: no amount is below zero"
  const account = accountOf(evidence, made)
  const outcome = decide(account, made.command, evidence.transaction.atMs)
  if (isRefusal(outcome)) return `refused: ${outcome._tag}`
  adopt(account, outcome)
  return { outcome, balanceAfter: account.available }
}

const usd = (amount: Credits): string => `${amount > 0n ? "+" : ""}${formatUsd(amount)}`
const named = (id: string | undefined): string => id ?? "none"

const compare = (evidence: Evidence, made: Replay): ReadonlyArray<Line> => {
  const { transaction: books } = evidence
  const again = decidedAgain(evidence, made)
  if (typeof again === "string") return [{ line: "outcome", books: books.type, replayed: again }]
  const replayed = again.outcome.transaction!
  const sides = ["available", "reserved", "earned", "fee", "buyback", "deposits", "withdrawals"] as const
  return [
    { line: "type", books: books.type, replayed: replayed.type },
    ...sides.map((side) => ({ line: side, books: usd(books[side]), replayed: usd(replayed[side]) })),
    { line: "balance after", books: formatUsd(books.balanceAfter), replayed: formatUsd(again.balanceAfter) },
    { line: "earner", books: named(books.earnerId), replayed: named(replayed.earnerId) },
    { line: "agent", books: named(books.agentId), replayed: named(replayed.agentId) },
    { line: "order", books: named(books.orderId), replayed: named(replayed.orderId) },
    { line: "key or login", books: named(books.subjectId), replayed: named(replayed.subjectId) },
    { line: "reference", books: named(books.reference), replayed: named(replayed.reference) }
  ]
}

/** How an order ends, and what of it the platform gets. */
const endings: Partial<Readonly<Record<TransactionType, string>>> = { charge: "completed", complete: "completed", refund: "failed" }

const transactionsOf = ({ session, status, amount }: StoredOrder): ReadonlyArray<TransactionType> =>
  session !== undefined ? amount === 0n ? [] : ["charge"]
    : status === "pending" ? ["reserve"] : ["reserve", status === "completed" ? "complete" : "refund"]

const compareOrder = ({ transaction: t, order }: Evidence): ReadonlyArray<Line> => {
  if (order === undefined) return []
  const ending = endings[t.type]
  const at = ending === undefined ? order.createdAt : order.completedAt
  return [
    { line: "time", books: at?.toISOString() ?? "none", replayed: new Date(t.atMs).toISOString() },
    { line: "order's account", books: order.accountId, replayed: t.accountId },
    { line: "order's transactions", books: order.transactions.map(({ type }) => type).join(", "), replayed: transactionsOf(order).join(", ") },
    ...(t.type === "charge" ? [{ line: "session's account", books: named(order.session?.accountId), replayed: t.accountId }, { line: "session's agent", books: named(order.session?.agentId), replayed: named(t.agentId) }] : []),
    ...(ending === undefined ? [] : [
      { line: "order's status", books: order.status, replayed: ending },
      { line: "order's fee", books: formatUsd(order.fee), replayed: formatUsd(t.fee) }
    ])
  ]
}

const compareUsage = ({ transaction: t, usage, usageSince }: Evidence, made: Replay): ReadonlyArray<Line> => {
  if (!["charge", "complete", "refund"].includes(t.type)) return []
  const [row] = usage
  // Past its time it is dropped; the two rows of a call may lie on both sides of that midnight.
  if (row === undefined && usageSince !== undefined && t.atMs < usageSince.getTime() + 3_600_000) return []
  return [
    { line: "usage rows", books: String(usage.length), replayed: "1" },
    ...(row === undefined ? [] : [
      { line: "usage's call", books: row.call, replayed: callOf(t) },
      { line: "usage's cost", books: formatUsd(row.cost), replayed: formatUsd(t.type === "refund" ? 0n : made.amount) },
      { line: "usage's agent", books: row.agentId, replayed: named(t.agentId) },
      { line: "usage's key or login", books: row.subjectId, replayed: named(t.subjectId) }
    ])
  ]
}

/** Those in force at some time from `fromMs` to `toMs`; `undefined` when one of them isn't recorded. */
export const pricesBetween = (prices: ReadonlyArray<Price>, fromMs: number, toMs: number): ReadonlyArray<Credits> | undefined => {
  const first = prices.findLastIndex(({ at }) => at.getTime() <= fromMs)
  const inForce = prices.slice(Math.max(0, first)).filter(({ at }) => at.getTime() <= toMs)
  const known = inForce.flatMap(({ price }) => price ?? [])
  return known.length === inForce.length && known.length > 0 ? known : undefined
}

/** A chat session keeps the price that it began with, or had when another node took it over. */
const comparePrice = ({ transaction: t, order, prices }: Evidence, { amount }: Replay): ReadonlyArray<Line> => {
  if (t.type !== "charge" && t.type !== "reserve") return []
  const inForce = pricesBetween(prices, Math.min(t.atMs, order?.session?.startedAt?.getTime() ?? t.atMs) - priceGraceMs, t.atMs)
  return inForce === undefined ? [] : [{
    line: "agent's price then", books: formatUsd(amount), replayed: inForce.includes(amount) ? formatUsd(amount) : inForce.map(formatUsd).join(" or ")
  }]
}

const compareBalance = (evidence: Evidence): ReadonlyArray<Line> => {
  const before = balanceBefore(evidence)
  const { predecessor, predecessorsAreAll } = evidence
  if (before === 0n || predecessor !== undefined) return [{ line: "balance before", books: formatUsd(before), replayed: formatUsd(before) }]
  return predecessorsAreAll ? [{ line: "balance before", books: formatUsd(before), replayed: "what no earlier transaction left" }] : []
}
