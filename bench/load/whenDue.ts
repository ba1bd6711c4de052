/**
 * An open loop: things are sent when they are due, whether or not earlier ones
 * were answered. It looks about every 0.1 ms and sleeps in between, because a
 * loop that spun would take its core from others, and Node's own timers know
 * only milliseconds.
 */
export interface DueLoop {
  readonly total: number
  readonly gapMs: number
  readonly send: (dueMs: number) => void
  readonly isOver: () => boolean
  /** It ends this long after the last was due, over or not. */
  readonly lateMs: number
}

export interface Percentiles {
  readonly p50Ms: number
  readonly p99Ms: number
}

const napMs = 0.05

export const whenDue = ({ total, gapMs, send, isOver, lateMs }: DueLoop): Promise<void> => {
  const nap = new Int32Array(new SharedArrayBuffer(4))
  const beganMs = performance.now()
  let due = 0
  return new Promise((done) => {
    const look = (): void => {
      const nowMs = performance.now()
      while (due < total && beganMs + due * gapMs <= nowMs) send(beganMs + due++ * gapMs)
      if (isOver() || nowMs > beganMs + total * gapMs + lateMs) return done()
      Atomics.wait(nap, 0, 0, napMs)
      setImmediate(look)
    }
    look()
  })
}

export const percentilesOf = (times: Float64Array): Percentiles => {
  const sorted = times.slice().sort()
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN
  return { p50Ms: at(0.5), p99Ms: at(0.99) }
}
