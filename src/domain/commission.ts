/**
 * The commission of an acf provider, by the months since its first service was
 * registered: month 1 is free, months 2 and 3 cost 5 %, all later ones 10 %
 * (contracts/acf.md, Commission). Months are the calendar's in UTC and begin at
 * midnight; a day that a month does not have is its last one.
 */

export interface CommissionTier {
  readonly firstMonth: number
  readonly name: string
  readonly percent: bigint
}

/** In order; the last one has no end. */
export const commissionTiers = [
  { firstMonth: 1, name: "Month 1 (Free)", percent: 0n },
  { firstMonth: 2, name: "Months 2-3 (Growth)", percent: 5n },
  { firstMonth: 4, name: "Standard", percent: 10n }
] as const satisfies ReadonlyArray<CommissionTier>

/** Of a provider without a service, too: it has no months that cost less. */
export const standardTier: CommissionTier = commissionTiers[2]

export interface Commission {
  /** 1 in the first month. */
  readonly month: number
  readonly tier: CommissionTier
  readonly percent: bigint
}

/** When month `number` begins: midnight of the registration's day, so many months on. */
export const monthStartMs = (sinceMs: number, number: number): number => {
  const since = new Date(sinceMs)
  const [year, month] = [since.getUTCFullYear(), since.getUTCMonth() + number - 1]
  const lastDay = new Date(Date.UTC(year, month + 1, 0)).getUTCDate()
  return Date.UTC(year, month, Math.min(since.getUTCDate(), lastDay))
}

/** A clock that is behind the registration is in its first month. */
export const commissionAt = (sinceMs: number, nowMs: number): Commission => {
  const since = new Date(sinceMs)
  const now = new Date(nowMs)
  let month = Math.max(1, (now.getUTCFullYear() - since.getUTCFullYear()) * 12 + now.getUTCMonth() - since.getUTCMonth() + 1)
  if (month > 1 && nowMs < monthStartMs(sinceMs, month)) month--
  const tier = commissionTiers.findLast(({ firstMonth }) => firstMonth <= month)!
  return { month, tier, percent: tier.percent }
}

/** The tier after this one and when it begins; `undefined` in the last. */
export const nextTier = (sinceMs: number, { month }: Commission): { readonly tier: CommissionTier; readonly atMs: number } | undefined => {
  const tier = commissionTiers.find(({ firstMonth }) => firstMonth > month)
  return tier === undefined ? undefined : { tier, atMs: monthStartMs(sinceMs, tier.firstMonth) }
}
