/** Scores on the wire: JSON numbers of two decimals. */
import { Schema } from "effect"
import { points } from "../../../domain/reputation.ts"
import { orElse, read, text } from "../../../http/rows/fields.ts"
import { Limit, PathId } from "./fields.ts"

/** In hundredths in the kernel. */
export const Score = Schema.Finite.annotate({ description: "0 to 10, two decimals", examples: [8.72] }).pipe(
  Schema.decodeTo(Schema.Int, read<number, number>((score) => Math.round(score * 100), "Expected a score", points))
)
const Period = text(50).annotate({ description: "`all-time`, or a month (UTC) as `YYYY-MM`", examples: ["2026-03"] })
const Calls = Schema.Int.annotate({ description: "Calls that the scores are made of" })

export const WithAgent = Schema.Struct({ agent_id: PathId.annotate({ description: "An agent's id, or an owner's name" }) })
export const WithService = Schema.Struct({ service_id: PathId })
export const AgentReputationQuery = Schema.Struct({
  period: Period.pipe(orElse("all-time")),
  compute: Schema.optionalKey(text(50).annotate({ description: "Accepted, and without effect: scores are always live" }))
})
export const ServiceReputationQuery = Schema.Struct({ period: Period.pipe(orElse("all-time")) })
export const LeaderboardQuery = Schema.Struct({ limit: Limit(20) })

const scores = { overall_score: Score, latency_score: Score, reliability_score: Score, response_quality: Score, call_count: Calls }

export const AgentReputation = Schema.Struct({
  agent_id: Schema.String.annotate({ description: "As it was asked for" }), service_id: Schema.Literal("").annotate({ description: "Of all services" }),
  ...scores, period: Schema.String
}).annotate({ identifier: "AcfAgentReputation" })

export const ServiceReputation = Schema.Struct({
  service_id: Schema.String, period: Schema.String,
  records: Schema.Array(Schema.Struct({
    agent_id: Schema.String.annotate({ description: "The provider: its oldest active agent's id, or its name when it has none" }), ...scores
  }).annotate({ identifier: "AcfReputationRecord" }))
}).annotate({ identifier: "AcfServiceReputation" })

export const Leaderboard = Schema.Struct({
  leaderboard: Schema.Array(Schema.Struct({
    agent_id: Schema.String, display_name: Schema.String, reputation_score: Score, verified: Schema.Boolean
  }).annotate({ identifier: "AcfLeader" })),
  count: Schema.Int
}).annotate({ identifier: "AcfLeaderboard" })
