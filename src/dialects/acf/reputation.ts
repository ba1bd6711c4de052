/** Reputation: scores of owners, services and the leaderboard, for anybody to read. */
import { Effect } from "effect"
import { type Scores, scoresOf } from "../../domain/reputation.ts"
import { endpoint } from "../../http/endpoint.ts"
import { Reputation } from "../../kernel/market/Reputation.ts"
import * as wire from "./wire/reputation.ts"

const tag = "Reputation"

const scoresView = ({ overall, latency, reliability, quality, calls }: Scores) => ({
  overall_score: overall, latency_score: latency, reliability_score: reliability, response_quality: quality, call_count: Number(calls)
})

export const reputation = [
  endpoint({
    id: "acf.reputation.agent", method: "GET", path: "/api/v1/agents/{agent_id}/reputation", auth: "public",
    docs: {
      summary: "Get an agent's reputation",
      description: "From the calls of all services of its owner: latency 30 %, reliability 40 %, quality 30 %. Zeros without calls, also for an id that nobody has.",
      tag
    },
    params: wire.WithAgent, query: wire.AgentReputationQuery, success: wire.AgentReputation, errors: ["RuleBroken", "StoreUnavailable"],
    handle: ({ params, query: { period } }) => Reputation.use((reputation) => reputation.ofAgent(params.agent_id, period)).pipe(
      Effect.map((scores) => ({ agentId: params.agent_id, period, scores }))),
    view: ({ agentId, period, scores }) => ({ agent_id: agentId, service_id: "", ...scoresView(scores), period })
  }),
  endpoint({
    id: "acf.reputation.service", method: "GET", path: "/api/v1/services/{service_id}/reputation", auth: "public",
    docs: { summary: "Get a service's reputation", description: "One record: its provider's, from the calls of this service alone.", tag },
    params: wire.WithService, query: wire.ServiceReputationQuery, success: wire.ServiceReputation, errors: ["RuleBroken", "NotFound", "StoreUnavailable"],
    handle: ({ params, query: { period } }) => Reputation.use((reputation) => reputation.ofService(params.service_id, period)).pipe(
      Effect.map((found) => ({ ...found, period }))),
    view: ({ serviceId, agentId, period, scores }) => ({ service_id: serviceId, period, records: [{ agent_id: agentId, ...scoresView(scores) }] })
  }),
  endpoint({
    id: "acf.reputation.leaderboard", method: "GET", path: "/api/v1/reputation/leaderboard", auth: "public",
    docs: { summary: "Leaderboard", description: "Active agents by their owners' scores, then by calls, then the older first.", tag },
    query: wire.LeaderboardQuery, success: wire.Leaderboard, errors: ["StoreUnavailable"],
    handle: ({ query }) => Reputation.use((reputation) => reputation.leaders(query.limit)),
    view: (leaders) => ({
      leaderboard: leaders.map(({ id, displayName, verified, sums }) => ({
        agent_id: id, display_name: displayName, reputation_score: scoresOf(sums).overall, verified
      })),
      count: leaders.length
    })
  })
]
