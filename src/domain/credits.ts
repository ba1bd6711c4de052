/**
 * Credits: money as a whole number of micro-dollars in a `bigint`
 * (1 = 0.000001 USD = one base unit of USDC).
 *
 * Text in, text out: a wire amount is parsed from its decimal digits and never
 * passes through a float. What has more than six decimals, a sign, an exponent
 * or more than `usdMax` is refused rather than rounded.
 */

export type Credits = bigint

export const microPerUsd = 1_000_000n

/** The largest amount one field may carry: a billion dollars, far below 2^63 micro-dollars even when summed over a million rows. */
export const usdMax: Credits = 1_000_000_000n * microPerUsd

const decimal = /^(\d{1,10})(?:\.(\d{1,6})(0*))?$/

/** Reads "12", "12.5" or "0.000001"; `undefined` for anything else, also for more than six significant decimals. */
export const parseUsd = (text: string): Credits | undefined => {
  const match = decimal.exec(text)
  if (match === null) return undefined
  const amount = BigInt(match[1]!) * microPerUsd + BigInt((match[2] ?? "").padEnd(6, "0"))
  return amount <= usdMax ? amount : undefined
}

/** Writes an amount with at least two and at most six decimals: "9.95", "0.000001", "-0.01". */
export const formatUsd = (amount: Credits): string => {
  const digits = (amount < 0n ? -amount : amount).toString().padStart(7, "0")
  let end = digits.length
  const least = digits.length - 4
  while (end > least && digits.charCodeAt(end - 1) === 48) end--
  return `${amount < 0n ? "-" : ""}${digits.slice(0, -6)}.${digits.slice(digits.length - 6, end)}`
}

/** For wire shapes that publish a JSON number (autx `service_price`). Exact to six decimals up to `usdMax`. */
export const usdNumber = (amount: Credits): number => Number(amount) / 1_000_000
