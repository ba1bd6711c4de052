/**
 * How large a lease should be, and what an account of another node looks like
 * to whoever spends from it here. Pure; the protocol is `kernel/lease`.
 *
 * A node asks for what it will need until it asks again, by how often it was
 * asked itself; the owner gives at most half of what there is while nobody
 * waits, so that several nodes can share a small rest, and never more than
 * credits, budgets and window have.
 */
import { sliceMsMax } from "./rateLimit.ts"
import { type Account, type SubjectId } from "./account.ts"
import { spentAt } from "./budget.ts"
import type { Credits } from "./credits.ts"
import { spendable } from "./ledger.ts"

/** Calls until the next ask, with a margin for bursts. */
const horizonS = 1.5 * sliceMsMax / 1_000
/** Credits are trusted until they come back, and adding some is a commit: they are for more time than calls. */
const creditsHorizonS = 4

/** How often a subject calls here in a second, over about the last one: a single call between two looks is no rate, and worth no lease. */
export const smoothedRate = (before: number, calls: number, elapsedMs: number): number =>
  before + (calls * 1_000 / Math.max(1, elapsedMs) - before) * Math.min(1, elapsedMs / 1_000)

export const callsWanted = (ratePerS: number): number => Math.ceil(ratePerS * horizonS) + 1

/** `pricesMin`: below so many calls' price no lease is worth its row. */
export const creditsWanted = (ratePerS: number, price: Credits, pricesMin: bigint): Credits => {
  const calls = BigInt(Math.ceil(ratePerS * creditsHorizonS) + 1)
  return price * (calls > pricesMin ? calls : pricesMin)
}

/** What could be granted to a subject now: what is spendable, within every budget. Never negative. */
export const grantable = (account: Account, subjectId: SubjectId, nowMs: number): Credits => {
  let most = spendable(account)
  const subject = account.subjects.get(subjectId)
  for (const budget of subject?.budgets ?? []) {
    const left = budget.amount - spentAt(budget, nowMs) - subject!.held
    if (left < most) most = left
  }
  return most > 0n ? most : 0n
}

/** What is granted of what is wanted: all that is needed, and of the rest no more than half of what there is, if that is worth it. */
export const creditsGranted = (most: Credits, wanted: { readonly credits: Credits; readonly needed: Credits; readonly min: Credits }): Credits => {
  if (most < wanted.needed) return 0n
  const fair = most / 2n < wanted.credits ? most / 2n : wanted.credits
  return fair >= wanted.min && fair >= wanted.needed ? fair : wanted.needed
}

/** The same for calls of a window that has `left`. */
export const callsGranted = (left: number, wanted: number, needed: number): number =>
  Math.max(Math.min(needed, left), Math.min(wanted, Math.floor(left / 2)))

/** What an account can spend, wherever it is, as far as this node knows. */
export const shownSpendable = (account: Account): Credits => {
  let shown = spendable(account) + (account.slice?.elsewhere ?? 0n)
  for (const lease of account.leases.values()) shown += lease.amount - (lease.spent ?? 0n)
  return shown > 0n ? shown : 0n
}
