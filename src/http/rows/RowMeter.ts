/**
 * Counts the answers of one row. Plain numbers while calls pass; `flush` hands
 * them to the metrics when somebody scrapes.
 */
import { metrics } from "../../telemetry/Metrics.ts"

/** Index 0: the caller left before the answer was complete. */
const classes = ["gone", "1xx", "2xx", "3xx", "4xx", "5xx"] as const

export class RowMeter {
  readonly id: string
  readonly #counts = new Float64Array(classes.length)
  readonly #seconds: { observe(seconds: number): void }

  constructor(id: string) {
    this.id = id
    this.#seconds = metrics.requestSeconds.labels(id)
  }

  answered(status: number, seconds: number): void {
    this.#counts[Math.min(5, Math.floor(status / 100))]!++
    this.#seconds.observe(seconds)
  }

  gone(): void {
    this.#counts[0]!++
  }

  flush(): void {
    for (const [index, label] of classes.entries()) {
      const count = this.#counts[index]!
      if (count === 0) continue
      this.#counts[index] = 0
      metrics.requests.labels(this.id, label).inc(count)
    }
  }
}
