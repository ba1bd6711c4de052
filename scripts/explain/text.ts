/**
 * One transaction as an operator reads it: what moved, between whom, for which
 * call or order, at which terms, and whether the decision comes out the same
 * when it is made again. Pure.
 *
 * Names, references and messages were written by strangers: what could steer a
 * terminal or turn its text around is shown as an escape.
 */
import { splitOf } from "../../src/domain/terms.ts"
import { type Credits, formatUsd } from "../../src/domain/credits.ts"
import type { Evidence, Party, StoredOrder } from "../../src/store/Explain.ts"
import { type Replayed, heldAt } from "./replay.ts"

const titles = {
  charge: "a call was paid", reserve: "an order's price was set aside", complete: "an order was completed and paid out", refund: "a failed order was refunded",
  deposit: "credits were added", withdrawal: "credits were taken out", adjustment: "an operator's adjustment", earning: "earnings became credits", fee: "a fee was paid to the platform"
} as const

const plain = (text: string): string => text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`)

const usd = (amount: Credits): string => `$${formatUsd(amount)}`.replace("$-", "-$")
const moment = (at: Date | number): string => new Date(at).toISOString().replace("T", " ").replace("Z", " UTC")
const party = (party: Party | undefined, id: string): string =>
  party === undefined ? `account ${id}, which is not there` : `${plain(party.emails)} (account ${id}${party.status === "active" ? "" : `, ${party.status}`})`

const entries = ({ transaction: t, account, earner }: Evidence): ReadonlyArray<string> => {
  const sides: ReadonlyArray<readonly [name: string, amount: Credits, whose: string]> = [
    ["available", t.available, party(account, t.accountId)],
    ["reserved", t.reserved, party(account, t.accountId)],
    ["earnings", t.earned, t.earnerId === undefined ? "nobody" : party(earner, t.earnerId)],
    ["platform fee", t.fee, "the platform"],
    ["buyback", t.buyback, "the buyback account"],
    ["deposits", t.deposits, "outside: minus is what came in"],
    ["withdrawals", t.withdrawals, "outside: what went out"]
  ]
  const sum = t.available + t.reserved + t.earned + t.fee + t.buyback + t.deposits + t.withdrawals
  const moved = sides.filter(([, amount]) => amount !== 0n)
  return [
    ...moved.map(([name, amount, whose]) => `  ${name.padEnd(14)}${usd(amount).padStart(14)}   ${whose}`),
    `  ${"sum".padEnd(14)}${usd(sum).padStart(14)}`
  ]
}

const balance = ({ transaction: t, predecessor }: Evidence): string =>
  `${usd(t.balanceAfter - t.available)} before, ${usd(t.balanceAfter)} after${predecessor === undefined ? "" : `; before it came ${predecessor}`}`

const call = ({ transaction: t, usage, usageSince }: Evidence): ReadonlyArray<string> => {
  if (!["charge", "complete", "refund"].includes(t.type)) return []
  if (usage.length === 0) return [usageSince === undefined ? "no usage row" : `no usage row; they are kept since ${moment(usageSince)}`]
  return usage.map((row) => `${row.call}, answered ${row.status} after ${row.latencyMs} ms, cost ${usd(row.cost)}, at ${moment(row.at)}`)
}

const payer = ({ payer, transaction: t }: Evidence): ReadonlyArray<string> => {
  if (t.subjectId === undefined) return []
  if (payer === undefined) return [`${t.subjectId}, which is not there`]
  const budgets = payer.budgets.map(({ window, amount, spent }) => `${window} budget ${usd(amount)}, of which ${usd(spent)} is spent now`)
  return [`${payer.kind === "key" ? "API key" : "login of"} ${plain(payer.name)}, ${payer.id}, ${payer.status}`, ...budgets]
}

const agent = ({ agent, prices, transaction: t }: Evidence): ReadonlyArray<string> => {
  if (t.agentId === undefined) return []
  if (agent === undefined) return [`${t.agentId}, which is not there`]
  const { creator, buyback } = splitOf(agent, t.atMs)
  const then = prices.findLast(({ at }) => at.getTime() <= t.atMs)
  return [
    `${agent.ticker} (${plain(agent.name)}), ${agent.id}, owned by account ${agent.ownerId}`,
    `terms of ${agent.dialect}: ${creator} % to the owner, ${buyback} % to the buyback account, the rest to the platform`,
    `price then ${then === undefined ? "not recorded" : `${then.price === undefined ? "not recorded" : usd(then.price)}, since ${moment(then.at)}`}; now ${usd(agent.price)}`
  ]
}

const order = (order: StoredOrder | undefined): ReadonlyArray<string> => order === undefined ? [] : [
  `${order.id}, ${order.status}, ${usd(order.amount)} by ${plain(order.paymentMethod)}`,
  `created ${moment(order.createdAt)}${order.completedAt === undefined ? "" : `, ended ${moment(order.completedAt)}`}`,
  ...(order.error === undefined ? [] : [`failed: ${plain(order.error)}`]),
  `transactions: ${order.transactions.map(({ id, type }) => `${type} ${id}`).join(", ")}`
]

const titleOf = ({ type, orderId }: Evidence["transaction"]): string => type === "charge" && orderId !== undefined ? "a chat turn was paid" : titles[type]

const session = (order: StoredOrder | undefined): ReadonlyArray<string> => order?.session === undefined ? [] : [
  `${order.session.id}, its turn ${order.session.messageIndex}${order.session.startedAt === undefined ? ", which is not there" : `, begun ${moment(order.session.startedAt)}`}`
]

const hold = (evidence: Evidence): ReadonlyArray<string> => {
  const atMs = heldAt(evidence)
  return atMs === undefined ? [] : [`made at ${moment(atMs)}, captured by this transaction`]
}

const section = (name: string, lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.map((line, at) => `${(at === 0 ? name : "").padEnd(13)}${line}`)

const verdict = ({ from, lines, differences }: Replayed): ReadonlyArray<string> => differences.length === 0
  ? [`replayed: equal in ${lines.length} lines, from ${from}`]
  : [`replayed: differs in ${differences.length} of ${lines.length} lines, from ${from}`, ...differences.map(({ line, books, replayed }) => `  ${line}: books ${plain(books)}, replayed ${plain(replayed)}`)]

export const textOf = (evidence: Evidence, replayed: Replayed): string => {
  const { transaction: t, audit, idempotency, batchIsKept } = evidence
  return [
    `transaction ${t.id}: ${t.type}, ${titleOf(t)}, ${moment(t.atMs)}`,
    ...entries(evidence),
    ...section("balance", [balance(evidence)]),
    ...section("call", call(evidence)),
    ...section("by", payer(evidence)),
    ...section("agent", agent(evidence)),
    ...section("order", order(evidence.order)),
    ...section("session", session(evidence.order)),
    ...section("hold", hold(evidence)),
    ...section("reference", t.reference === undefined ? [] : [plain(t.reference)]),
    ...section("idempotency", idempotency.map(({ key, at }) => `key ${plain(key)}, used first at ${moment(at)}`)),
    ...section("audit", audit.map(({ at, actor, action, target, details }) => `${moment(at)} ${plain(actor)} ${action} ${plain(target)} ${plain(JSON.stringify(details))}`)),
    ...section("batch", [`${t.batchId}${batchIsKept ? "" : ", folded into the books"}`]),
    ...verdict(replayed)
  ].join("\n")
}
