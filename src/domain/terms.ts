/**
 * Billing terms: what a call costs, whether credits move for it, and how the
 * cost is shared. They belong to the agent and were fixed by the dialect that
 * listed it; whichever dialect carries the call, these apply.
 *
 *   autx  a relayed call costs its price while the operator charges for those,
 *         and nothing for the agent's owner. 72 % creator, 18 % buyback, 10 % platform.
 *   acf   every relayed call costs its price, taken from credits (`prepaid`) or
 *         recorded, to be invoiced outside of the gateway. The platform's
 *         commission is by the provider's month (`commission.ts`).
 *
 * The first `freeTierCalls` calls of an account are free under both. Orders and
 * chat turns are always paid from credits.
 */
import type { Agent } from "./agent.ts"
import { commissionAt } from "./commission.ts"
import type { Credits } from "./credits.ts"
import type { AccountId } from "./ids.ts"

/** How a service wants to be paid; in credits when the gateway charges itself. */
export const paymentMethods = ["x402", "paypal", "nowpayments", "stripe", "both", "credits"] as const
export type PaymentMethod = typeof paymentMethods[number]

/** Parts per hundred; the platform takes what they leave, also the remainder of rounding. */
export interface Split {
  readonly creator: bigint
  readonly buyback: bigint
}

/** autx: 10 % platform, 72 % creator, 18 % buyback (contracts/autx.md, Orders). */
export const autxSplit: Split = { creator: 72n, buyback: 18n }

export interface Shares {
  readonly earned: Credits
  readonly fee: Credits
  readonly buyback: Credits
}

/** Shares a whole amount without losing or inventing a unit. */
export const share = (amount: Credits, split: Split): Shares => {
  const earned = (amount * split.creator) / 100n
  const buyback = (amount * split.buyback) / 100n
  return { earned, buyback, fee: amount - earned - buyback }
}

/** One object for each rate: a split is known again by its identity. */
const commissionSplits = new Map<bigint, Split>()
const commissionSplit = (percent: bigint): Split => {
  const known = commissionSplits.get(percent) ?? { creator: 100n - percent, buyback: 0n }
  commissionSplits.set(percent, known)
  return known
}

/** How the cost of a call at this time is shared. */
export const splitOf = (agent: Pick<Agent, "dialect" | "providerSinceMs" | "createdAtMs">, nowMs: number): Split =>
  agent.dialect === "acf" ? commissionSplit(commissionAt(agent.providerSinceMs ?? agent.createdAtMs, nowMs).percent) : autxSplit

/** What the operator has set: `PROXY_BILLING` and `ACF_SETTLEMENT`. */
export interface Billing {
  readonly autx: "free" | "paid"
  readonly acf: "record" | "prepaid"
}

/** Of a relayed call beyond the free tier. */
export interface ProxyTerms {
  readonly price: Credits
  /** The price is recorded, and no credits move. */
  readonly recorded: boolean
}

const free: ProxyTerms = { price: 0n, recorded: false }

export const proxyTerms = (agent: Agent, callerId: AccountId, billing: Billing): ProxyTerms => {
  if (agent.price === 0n) return free
  if (agent.dialect === "acf") return { price: agent.price, recorded: billing.acf === "record" }
  return billing.autx === "free" || agent.ownerId === callerId ? free : { price: agent.price, recorded: false }
}

/** Whether a call that the agent answered so counts in a settlement of its owner. */
export const isDue = (agent: Agent, status: number): boolean => agent.dialect === "acf" && status < 500
