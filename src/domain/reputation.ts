/**
 * Reputation: what an owner's services are worth to those who call them, from
 * the calls alone (contracts/acf.md, Reputation). Nobody votes.
 *
 *   latency       10 less a point a second of the average answer    30 %
 *   reliability   the part of calls answered below 400, in tenths   40 %
 *   quality       the part of calls not answered with 500 or above  30 %
 *
 * Each is from 0 to 10. Computed exactly, from sums; each score, and the overall
 * one of the unrounded three, is then rounded half up to hundredths. Without
 * calls all are 0.
 */

/** Of any set of calls. `succeeded`: answered below 400. `errors`: with 500 or above. */
export interface CallSums {
  readonly calls: bigint
  readonly succeeded: bigint
  readonly errors: bigint
  readonly latencyMs: bigint
}

/** In hundredths of a point, 0 to 1,000. */
export interface Scores {
  readonly calls: bigint
  readonly overall: number
  readonly latency: number
  readonly reliability: number
  readonly quality: number
}

/** Ten points, in thousandths. */
const top = 10_000n

const hundredths = (thousandths: bigint, divisor: bigint): number =>
  Number((thousandths * 2n + divisor * 10n) / (divisor * 20n))

export const scoresOf = ({ calls, succeeded, errors, latencyMs }: CallSums): Scores => {
  if (calls === 0n) return { calls, overall: 0, latency: 0, reliability: 0, quality: 0 }
  const latency = top * calls > latencyMs ? top * calls - latencyMs : 0n
  const reliability = top * succeeded
  const quality = top * (calls - errors)
  return {
    calls,
    overall: hundredths(3n * latency + 4n * reliability + 3n * quality, 10n * calls),
    latency: hundredths(latency, calls),
    reliability: hundredths(reliability, calls),
    quality: hundredths(quality, calls)
  }
}

/** A score as people read it. */
export const points = (score: number): number => score / 100

/** All calls ever, or those of a month in UTC. */
export type Period = "all-time" | `${number}-${number}`

export const isPeriod = (text: string): text is Period => text === "all-time" || /^(?!0000)\d{4}-(?:0[1-9]|1[0-2])$/.test(text)
