/**
 * The sliding rate window: never more than `limit` calls in any 60 seconds.
 *
 * Calls are counted in one-second buckets. A call at any moment of second `s`
 * is counted until second `s + 60` is over, so the bound holds for every 60 s
 * span, at the price of letting a call age up to 61 s. A refused call does not
 * count. Cost: O(1) per call; a clock that jumps back counts into its last
 * second.
 */

/** The current second and the 60 before it. */
const buckets = 61

export interface RateWindow {
  readonly counts: Uint32Array
  /** The second (epoch) of the newest bucket; -1 before the first call. */
  second: number
  total: number
}

export const makeRateWindow = (): RateWindow => ({ counts: new Uint32Array(buckets), second: -1, total: 0 })

const advance = (window: RateWindow, nowMs: number): number => {
  const second = Math.floor(nowMs / 1000)
  if (second <= window.second) return window.second
  const steps = Math.min(second - window.second, buckets)
  if (window.total !== 0) {
    for (let step = 1; step <= steps; step++) {
      const index = (window.second + step) % buckets
      if (window.second + step < 0) continue
      window.total -= window.counts[index]!
      window.counts[index] = 0
    }
    if (steps === buckets) {
      window.counts.fill(0)
      window.total = 0
    }
  }
  return window.second = second
}

/** Counts the call and answers true, or answers false and counts nothing. */
export const takeCall = (window: RateWindow, limit: number, nowMs: number): boolean => {
  const second = advance(window, nowMs)
  if (window.total >= limit) return false
  window.counts[second % buckets]!++
  window.total++
  return true
}

/** Calls in the window now. */
export const callsInWindow = (window: RateWindow, nowMs: number): number => {
  advance(window, nowMs)
  return window.total
}

/** Milliseconds until a call is possible again under `limit`; 0 when one is possible now. */
export const untilNextCallMs = (window: RateWindow, limit: number, nowMs: number): number => {
  const newest = advance(window, nowMs)
  let over = window.total - limit + 1
  if (over <= 0) return 0
  for (let second = newest - buckets + 1; second <= newest; second++) {
    if (second < 0) continue
    over -= window.counts[second % buckets]!
    if (over <= 0) return Math.max(1, (second + buckets) * 1000 - nowMs)
  }
  return buckets * 1000
}

/** Milliseconds until the window is empty if no further call comes. */
export const untilEmptyMs = (window: RateWindow, nowMs: number): number => {
  const newest = advance(window, nowMs)
  if (window.total === 0) return 0
  for (let second = newest; second > newest - buckets && second >= 0; second--) {
    if (window.counts[second % buckets] !== 0) return Math.max(1, (second + buckets) * 1000 - nowMs)
  }
  return 0
}
