/**
 * The sliding rate window: never more than `limit` calls in any 60 seconds.
 *
 * Calls are counted in one-second buckets. A call at any moment of second `s`
 * is counted until second `s + 60` is over, so the bound holds for every 60 s
 * span, at the price of letting a call age up to 61 s. A refused call does not
 * count. Cost: O(1) per call; a clock that jumps back counts into its last
 * second.
 *
 * Calls that were granted to another node are counted at once, and as calls of
 * the second after their grant: they are made at most `sliceMsMax` later, and
 * are counted as long as if they were made then. What was not made is taken out
 * of the very second it was counted in.
 */

/** How long after its grant a call may be made elsewhere. */
export const sliceMsMax = 1_000

/** The current second and the 60 before it. */
const buckets = 61

export interface RateWindow {
  readonly counts: Uint32Array
  /** The second (epoch) of the newest bucket; -1 before the first call. */
  second: number
  /** All counted calls, the granted ones included. */
  total: number
  /** Calls granted in the newest second: they enter the next one's bucket. */
  granted: number
}

export const makeRateWindow = (): RateWindow => ({ counts: new Uint32Array(buckets), second: -1, total: 0, granted: 0 })

const advance = (window: RateWindow, nowMs: number): number => {
  const second = Math.floor(nowMs / 1000)
  if (second <= window.second) return window.second
  const steps = Math.min(second - window.second, buckets)
  if (window.total !== 0) {
    const { granted } = window
    window.granted = 0
    for (let step = 1; step <= steps; step++) {
      const index = (window.second + step) % buckets
      if (window.second + step < 0) continue
      window.total -= window.counts[index]!
      window.counts[index] = step === 1 ? granted : 0
    }
    // What was granted before is still counted when the window has moved by exactly its length.
    if (second - window.second > buckets) {
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

/** Counts calls that another node may make within `sliceMsMax`: as many as are wanted and possible. Answers how many, and the second to name when they come back. */
export const grantCalls = (window: RateWindow, limit: number, wanted: number, nowMs: number): { readonly calls: number; readonly second: number } => {
  const second = advance(window, nowMs)
  const calls = Math.max(0, Math.min(wanted, limit - window.total))
  window.granted += calls
  window.total += calls
  return { calls, second }
}

/** Takes back calls that were granted in that second and never made; nothing when they are out of the window already. */
export const returnCalls = (window: RateWindow, calls: number, second: number, nowMs: number): void => {
  const newest = advance(window, nowMs)
  if (second >= newest) {
    const back = Math.min(calls, window.granted)
    window.granted -= back
    window.total -= back
    return
  }
  const counted = second + 1
  if (counted <= newest - buckets) return
  const index = counted % buckets
  const back = Math.min(calls, window.counts[index]!)
  window.counts[index] = window.counts[index]! - back
  window.total -= back
}

/** A window of another node as its owner told it: so many calls, the newest now. For display only. */
export const tellWindow = (window: RateWindow, calls: number, nowMs: number): void => {
  window.second = Math.floor(nowMs / 1000)
  window.counts.fill(0)
  window.counts[window.second % buckets] = calls
  window.total = calls
  window.granted = 0
}

/** Calls in the window now. */
export const callsInWindow = (window: RateWindow, nowMs: number): number => {
  advance(window, nowMs)
  return window.total
}

/** Its seconds and the calls of each, for a node that goes on with it. */
export const callsBySecond = (window: RateWindow, nowMs: number): ReadonlyArray<readonly [second: number, calls: number]> => {
  const newest = advance(window, nowMs)
  const found: Array<readonly [number, number]> = []
  for (let second = Math.max(0, newest - buckets + 1); second <= newest; second++) {
    const calls = window.counts[second % buckets]!
    if (calls > 0) found.push([second, calls])
  }
  if (window.granted > 0) found.push([newest + 1, window.granted])
  return found
}

/** Goes on with a window of another node: of each second the larger count holds. Seconds ahead of this node's clock count as granted. */
export const goOnWith = (window: RateWindow, seconds: ReadonlyArray<readonly [second: number, calls: number]>, nowMs: number): void => {
  const newest = advance(window, nowMs)
  let ahead = 0
  for (const [second, calls] of seconds) {
    if (second > newest) ahead += calls
    else if (second > newest - buckets) {
      const index = second % buckets
      const more = calls - window.counts[index]!
      if (more <= 0) continue
      window.counts[index] = calls
      window.total += more
    }
  }
  if (ahead <= window.granted) return
  window.total += ahead - window.granted
  window.granted = ahead
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
  return Math.max(1, (newest + 1 + buckets) * 1000 - nowMs)
}

/** Milliseconds until the window is empty if no further call comes. */
export const untilEmptyMs = (window: RateWindow, nowMs: number): number => {
  const newest = advance(window, nowMs)
  if (window.total === 0) return 0
  if (window.granted > 0) return Math.max(1, (newest + 1 + buckets) * 1000 - nowMs)
  for (let second = newest; second > newest - buckets && second >= 0; second--) {
    if (window.counts[second % buckets] !== 0) return Math.max(1, (second + buckets) * 1000 - nowMs)
  }
  return 0
}
