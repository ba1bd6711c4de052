/** Discovery: finding services among those of everybody. */
import { Effect } from "effect"
import { endpoint } from "../../http/endpoint.ts"
import { Discovery } from "../../kernel/market/Discovery.ts"
import { serviceView } from "./services.ts"
import * as wire from "./wire/discovery.ts"

const tag = "Discovery"

export const discovery = [
  endpoint({
    id: "acf.discovery.search", method: "GET", path: "/api/v1/discover", auth: "public",
    docs: { summary: "Search services", tag },
    query: wire.DiscoveryQuery, success: wire.Found, errors: ["RuleBroken", "StoreUnavailable"],
    handle: ({ query: { limit, offset, ...query } }) => Discovery.use((discovery) => discovery.search({
      text: query.q, category: query.category, tags: query.tags, priceMin: query.min_price, priceMax: query.max_price,
      paymentMethod: query.payment_method, isFreeAtFirst: query.has_free_tier, sort: query.sort_by, limit, offset
    })).pipe(Effect.map((found) => ({ ...found, offset, limit }))),
    view: ({ services, ...page }) => ({ services: services.map(serviceView), ...page })
  }),
  endpoint({
    id: "acf.discovery.categories", method: "GET", path: "/api/v1/discover/categories", auth: "public",
    docs: { summary: "List categories", description: "With the number of their active services, the largest first.", tag },
    success: wire.Categories, errors: ["StoreUnavailable"],
    handle: () => Discovery.use((discovery) => discovery.categories),
    view: (categories) => ({ categories })
  }),
  endpoint({
    id: "acf.discovery.trending", method: "GET", path: "/api/v1/discover/trending", auth: "public",
    docs: { summary: "Trending services", description: "By their calls of the last 7 days.", tag },
    query: wire.TrendingQuery, success: wire.Trending, errors: ["StoreUnavailable"],
    handle: ({ query }) => Discovery.use((discovery) => discovery.trending(query.limit)),
    view: (services) => ({
      trending: services.map((service) => ({ service: serviceView(service), call_count: service.calls, avg_latency_ms: service.averageLatencyMs })),
      count: services.length
    })
  }),
  endpoint({
    id: "acf.discovery.recommendations", method: "GET", path: "/api/v1/discover/recommendations/{agent_id}", auth: "public",
    docs: { summary: "Recommended services", description: "In the categories that the agent's owner calls most, without those that it has called. The newest ones for an agent without calls.", tag },
    params: wire.WithAgent, query: wire.RecommendationsQuery, success: wire.Recommendations, errors: ["StoreUnavailable"],
    handle: ({ params, query }) => Discovery.use((discovery) => discovery.recommendations(params.agent_id, query.limit)),
    view: (services) => ({ recommendations: services.map(serviceView), count: services.length })
  })
]
