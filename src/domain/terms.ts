/**
 * Billing terms: how the price of a call is shared. They belong to the agent
 * and were fixed by the dialect that listed it; whichever dialect carries the
 * call, these apply (DESIGN §3).
 */
import type { Credits } from "./credits.ts"

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
