import { Registry } from "prom-client"
import { describe, expect, it } from "vitest"
import { PlainHistogram } from "../../../src/telemetry/PlainHistogram.ts"

describe("a plain histogram", () => {
  it("is printed by the registry as Prometheus prescribes: cumulative buckets, sum, count", async () => {
    const registry = new Registry()
    const histogram = new PlainHistogram("call_seconds", "How long", [0.1, 1], "row")
    registry.registerMetric(histogram as never)
    for (const value of [0.05, 0.1, 0.5, 7]) histogram.labels("a").observe(value)
    expect((await registry.metrics()).trim().split("\n")).toEqual([
      "# HELP call_seconds How long",
      "# TYPE call_seconds histogram",
      `call_seconds_bucket{row="a",le="0.1"} 2`,
      `call_seconds_bucket{row="a",le="1"} 3`,
      `call_seconds_bucket{row="a",le="+Inf"} 4`,
      `call_seconds_sum{row="a"} 7.65`,
      `call_seconds_count{row="a"} 4`
    ])
  })
})
