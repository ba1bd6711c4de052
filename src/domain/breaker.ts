/**
 * The circuit breaker of one agent on one node: when to stop sending calls that
 * will fail anyway, and how to find out that the agent is back.
 *
 *   closed ──(failures in a row, or failure share of the window)──▶ open
 *   open ──(its time is over; one call is let through)──▶ half-open
 *   half-open ──(that call succeeds)──▶ closed     ──(it fails)──▶ open, twice as long
 *
 * A failure is an agent that could not be reached, did not answer in time, was
 * reset or broke HTTP. An answer is an answer: an agent's own 5xx passes to the
 * caller and counts as a success here. What the caller or the gateway caused
 * (caller gone, queue full, address refused) counts as nothing: `abandoned`.
 *
 * Guarantees: at most one probe at a time; a call admitted before the circuit
 * opened says nothing about the half-open state; an agent that was healthy for a
 * whole window starts again with the shortest open time. Every function is pure
 * in `(breaker, nowMs)` and does at most one mutation of the breaker it is given.
 */

export const breakerLimits = {
  /** Opens after this many failures with no success between. */
  failuresInARow: 5,
  /** Opens when at least `callsMin` calls ended in the window and this share of them failed. */
  failureShare: 0.5,
  callsMin: 20,
  /** The rolling window: the current half and the one before it. */
  windowMs: 10_000,
  /** The first open time; it doubles with every opening up to the cap. */
  openMs: 1_000,
  openMsMax: 30_000
} as const

const halfMs = breakerLimits.windowMs / 2

export interface Breaker {
  phase: "closed" | "open" | "half_open"
  failuresInARow: number
  /** Index of the current half window, counted from the clock's zero. */
  half: number
  calls: number
  failures: number
  callsBefore: number
  failuresBefore: number
  openUntilMs: number
  /** Openings with no healthy window between them. */
  openings: number
  closedAtMs: number
}

/** How a call was let through; its end is reported with it. */
export type Admitted = "pass" | "probe"

export const newBreaker = (): Breaker => ({
  phase: "closed",
  failuresInARow: 0,
  half: 0,
  calls: 0,
  failures: 0,
  callsBefore: 0,
  failuresBefore: 0,
  openUntilMs: 0,
  openings: 0,
  closedAtMs: -Infinity
})

/** Lets a call through, or says how long to stay away. A `probe` must be reported by exactly one of the three functions below. */
export const admit = (breaker: Breaker, nowMs: number): Admitted | { readonly openForMs: number } => {
  if (breaker.phase === "closed") return "pass"
  if (breaker.phase === "half_open") return { openForMs: breakerLimits.openMs }
  if (nowMs < breaker.openUntilMs) return { openForMs: Math.ceil(breaker.openUntilMs - nowMs) }
  breaker.phase = "half_open"
  return "probe"
}

/** The agent answered. A probe closes the circuit. */
export const succeeded = (breaker: Breaker, admitted: Admitted, nowMs: number): void => {
  if (admitted === "probe") return close(breaker, nowMs)
  if (breaker.phase !== "closed") return
  roll(breaker, nowMs)
  breaker.calls++
  breaker.failuresInARow = 0
}

/** The agent failed. A probe opens the circuit again; another call opens it when a limit is reached. */
export const failed = (breaker: Breaker, admitted: Admitted, nowMs: number): void => {
  if (admitted === "probe") return open(breaker, nowMs)
  if (breaker.phase !== "closed") return
  roll(breaker, nowMs)
  breaker.calls++
  breaker.failures++
  breaker.failuresInARow++
  const calls = breaker.calls + breaker.callsBefore
  const failures = breaker.failures + breaker.failuresBefore
  if (
    breaker.failuresInARow >= breakerLimits.failuresInARow ||
    calls >= breakerLimits.callsMin && failures >= calls * breakerLimits.failureShare
  ) open(breaker, nowMs)
}

/** The call ended without saying anything about the agent. The next call may be the probe. */
export const abandoned = (breaker: Breaker, admitted: Admitted): void => {
  if (admitted === "probe") breaker.phase = "open"
}

const roll = (breaker: Breaker, nowMs: number): void => {
  const half = Math.floor(nowMs / halfMs)
  // Also when a caller's clock lags a little: time does not run backwards here.
  if (half <= breaker.half) return
  const adjacent = half === breaker.half + 1
  breaker.callsBefore = adjacent ? breaker.calls : 0
  breaker.failuresBefore = adjacent ? breaker.failures : 0
  breaker.calls = 0
  breaker.failures = 0
  breaker.half = half
}

const open = (breaker: Breaker, nowMs: number): void => {
  const relapsed = breaker.phase === "half_open" || nowMs - breaker.closedAtMs < breakerLimits.windowMs
  breaker.openings = relapsed ? breaker.openings + 1 : 1
  breaker.phase = "open"
  breaker.openUntilMs = nowMs + Math.min(breakerLimits.openMsMax, breakerLimits.openMs * 2 ** (breaker.openings - 1))
}

const close = (breaker: Breaker, nowMs: number): void => {
  breaker.phase = "closed"
  breaker.closedAtMs = nowMs
  breaker.failuresInARow = 0
  breaker.calls = breaker.failures = breaker.callsBefore = breaker.failuresBefore = 0
}
