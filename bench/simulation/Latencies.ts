/** Times by their order of magnitude, 40 steps for each power of ten from 1 µs to 100 s: percentiles within 3 %. */
const steps = 40
const decades = 8

export class Latencies {
  readonly #counts = new Float64Array(steps * decades + 1)
  #total = 0

  add(seconds: number): void {
    const at = Math.floor(Math.log10(Math.max(seconds, 1e-6) * 1e6) * steps)
    this.#counts[Math.min(at, steps * decades)]!++
    this.#total++
  }

  /** Seconds; NaN when there is none. */
  percentile(share: number): number {
    let left = Math.ceil(this.#total * share)
    if (left === 0) return NaN
    for (let at = 0; at < this.#counts.length; at++) {
      left -= this.#counts[at]!
      if (left <= 0) return 10 ** ((at + 0.5) / steps) / 1e6
    }
    return NaN
  }
}
