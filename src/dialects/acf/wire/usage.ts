/** An owner's own usage on the wire. */
import { Schema } from "effect"
import { OwnerId, PlainUsd } from "./fields.ts"

export const OwnUsage = Schema.Struct({
  buyer_id: OwnerId,
  total_calls: Schema.Natural,
  total_spent_usd: PlainUsd,
  avg_latency_ms: Schema.Finite.annotate({ description: "Milliseconds, one decimal", examples: [205.3] })
}).annotate({ identifier: "AcfOwnUsage" })
