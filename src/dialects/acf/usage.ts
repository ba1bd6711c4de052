/** What the key's owner has called and spent. */
import { endpoint } from "../../http/endpoint.ts"
import { Analytics } from "../../kernel/market/Analytics.ts"
import * as wire from "./wire/usage.ts"

export const usage = [
  endpoint({
    id: "acf.usage.me", method: "GET", path: "/api/v1/usage/me", auth: "key",
    docs: { summary: "Get your usage", description: "Of all time and all keys of the owner: what calls cost, whether it was taken from credits or recorded.", tag: "Proxy" },
    success: wire.OwnUsage,
    handle: (_, { caller }) => Analytics.use((analytics) => analytics.own(caller)),
    view: ({ buyer, calls, cost, averageLatencyMs }) => ({ buyer_id: buyer, total_calls: calls, total_spent_usd: cost, avg_latency_ms: averageLatencyMs })
  })
]
