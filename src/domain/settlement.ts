/**
 * Settlements: which there are, and what their periods may be. A period is from
 * its start up to, and without, its end. Pure.
 */

export const settlementStatuses = ["pending", "processing", "completed", "failed"] as const
export type SettlementStatus = typeof settlementStatuses[number]

/** A date, or a date and a time as ISO 8601 and Python write them; without an offset it is UTC. */
const iso = /^(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?:([Zz])|([+-])(\d\d):?(\d\d)?)?)?$/

/** The first year of the clock, and the last one with four digits. */
const [firstMs, lastMs] = [0, Date.UTC(9999, 11, 31, 23, 59, 59, 999)]

/**
 * Reads an end of a period, in epoch milliseconds; `undefined` for what is no
 * time (30 February, 25 o'clock) or before 1970. Calls are dated to the
 * millisecond, so a finer time is rounded up: the same calls lie before it.
 */
export const instantOf = (text: string): number | undefined => {
  const match = iso.exec(text)
  if (match === null) return undefined
  const [, date, time = "00:00", seconds = "00", fraction = "", , sign, hours = "00", minutes = "00"] = match
  if (Number(hours) > 23 || Number(minutes) > 59) return undefined
  const written = `${date}T${time}:${seconds}.${fraction.slice(0, 3).padEnd(3, "0")}Z`
  const localMs = Date.parse(written)
  // A day or an hour that does not exist is taken for a later one, or for no number.
  if (Number.isNaN(localMs) || new Date(localMs).toISOString() !== written) return undefined
  const offsetMs = (Number(hours) * 60 + Number(minutes)) * 60_000 * (sign === "-" ? -1 : 1)
  const ms = localMs - offsetMs + (/[1-9]/.test(fraction.slice(3)) ? 1 : 0)
  return ms >= firstMs && ms <= lastMs ? ms : undefined
}
