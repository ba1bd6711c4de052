/** The operator's figures, for keys of the role admin. */
import { Effect } from "effect"
import { endpoint } from "../../http/endpoint.ts"
import { Analytics } from "../../kernel/market/Analytics.ts"
import * as wire from "./wire/admin.ts"

const tag = "Admin"

const row = { auth: "key", scope: "admin", uncounted: true } as const

type Of<Read extends "stats" | "payments"> = Effect.Success<Analytics["Service"][Read]>
type Listed<Read extends "daily" | "ranking" | "health" | "trends" | "topServices"> = Effect.Success<ReturnType<Analytics["Service"][Read]>>

const statsView = ({ services, agents, teams, calls, cost, settlements, webhooks }: Of<"stats">) => ({
  total_services: services, total_agents: agents, total_teams: teams, total_usage_records: calls, total_revenue_usd: cost,
  total_settlements: settlements, active_webhooks: webhooks
})
const dayView = ({ date, calls, cost, buyers, services }: Listed<"daily">[number]) =>
  ({ date, call_count: calls, revenue_usd: cost, unique_buyers: buyers, unique_services: services })
const providerView = ({ provider, displayName, calls, cost, averageLatencyMs, successRate }: Listed<"ranking">[number]) =>
  ({ provider_id: provider, display_name: displayName, total_calls: calls, total_revenue: cost, avg_latency_ms: averageLatencyMs, success_rate: successRate })
const healthView = ({ id, name, provider, status, averageLatencyMs, errorRate, lastAt }: Listed<"health">[number]) =>
  ({ service_id: id, name, provider_id: provider, status, avg_latency_ms: averageLatencyMs, error_rate: errorRate, last_called: lastAt })
const trendView = ({ period, calls, cost, buyers, services, averageLatencyMs, successRate }: Listed<"trends">[number]) =>
  ({ period, calls, revenue: cost, unique_buyers: buyers, active_services: services, avg_latency_ms: averageLatencyMs, success_rate: successRate })
const topServiceView = ({ id, name, provider, category, calls, cost, averageLatencyMs, buyers, successRate }: Listed<"topServices">[number]) => ({
  service_id: id, service_name: name, provider_id: provider, category, total_calls: calls, total_revenue: cost,
  avg_latency_ms: averageLatencyMs, unique_buyers: buyers, success_rate: successRate
})

export const admin = [
  endpoint({
    ...row, id: "acf.admin.stats", method: "GET", path: "/api/v1/admin/stats",
    docs: { summary: "Platform statistics", description: "Active services, agents and teams; settlements and webhooks; calls and what they cost since the beginning.", tag },
    success: wire.Stats,
    handle: () => Analytics.use((analytics) => analytics.stats),
    view: statsView
  }),
  endpoint({
    ...row, id: "acf.admin.daily", method: "GET", path: "/api/v1/admin/usage/daily",
    docs: { summary: "Usage by day", description: "UTC days, today and those before it, the latest first; days without calls are left out.", tag },
    query: wire.DaysQuery, success: wire.DailyUsage,
    handle: ({ query: { days } }) => Analytics.use((analytics) => analytics.daily(days)).pipe(Effect.map((data) => ({ days, data }))),
    view: ({ days, data }) => ({ days, data: data.map(dayView) })
  }),
  endpoint({
    ...row, id: "acf.admin.ranking", method: "GET", path: "/api/v1/admin/providers/ranking",
    docs: { summary: "Rank providers", description: "Those with calls in the period, by revenue, then by calls.", tag },
    query: wire.RankingQuery, success: wire.Ranking, errors: ["RuleBroken"],
    handle: ({ query: { period, limit } }) => Analytics.use((analytics) => analytics.ranking(period, limit)).pipe(Effect.map((providers) => ({ period, providers }))),
    view: ({ period, providers }) => ({ period, providers: providers.map(providerView) })
  }),
  endpoint({
    ...row, id: "acf.admin.health", method: "GET", path: "/api/v1/admin/services/health",
    docs: { summary: "Health of active services", description: "Since the beginning, the highest error rate first; at most a thousand services.", tag },
    success: wire.Health,
    handle: () => Analytics.use((analytics) => analytics.health()),
    view: (services) => ({ services: services.map(healthView) })
  }),
  endpoint({
    ...row, id: "acf.admin.payments", method: "GET", path: "/api/v1/admin/payments/summary",
    docs: { summary: "Usage by payment method", description: "Since the beginning, by the methods of the services that were called.", tag },
    success: wire.Payments,
    handle: () => Analytics.use((analytics) => analytics.payments),
    view: (methods) => ({ methods: Object.fromEntries(methods.map(({ method, calls, cost }) => [method, { count: calls, total_usd: cost }])) })
  }),
  endpoint({
    ...row, id: "acf.admin.trends", method: "GET", path: "/api/v1/admin/analytics/trends",
    docs: { summary: "Trends", description: "The last days, ISO weeks or months (UTC) with the current one, the latest first; periods without calls are left out.", tag },
    query: wire.TrendsQuery, success: wire.Trends, errors: ["RuleBroken"],
    handle: ({ query: { granularity, periods } }) => Analytics.use((analytics) => analytics.trends(granularity, periods)).pipe(Effect.map((data) => ({ granularity, data }))),
    view: ({ granularity, data }) => ({ granularity, data: data.map(trendView) })
  }),
  endpoint({
    ...row, id: "acf.admin.top_services", method: "GET", path: "/api/v1/admin/analytics/top-services",
    docs: { summary: "Top services", description: "Those with calls in the last days (UTC), today's among them.", tag },
    query: wire.TopServicesQuery, success: wire.TopServices, errors: ["RuleBroken"],
    handle: ({ query: { sort_by, days, limit } }) => Analytics.use((analytics) => analytics.topServices(sort_by, days, limit)).pipe(Effect.map((services) => ({ sort_by, days, services }))),
    view: ({ services, ...asked }) => ({ ...asked, services: services.map(topServiceView) })
  }),
  endpoint({
    ...row, id: "acf.admin.buyers", method: "GET", path: "/api/v1/admin/analytics/buyers",
    docs: { summary: "Buyers", description: "Of the last days (UTC), today's among them, with the ten who spent the most.", tag },
    query: wire.BuyersQuery, success: wire.Buyers,
    handle: ({ query: { days } }) => Analytics.use((analytics) => analytics.buyers(days)).pipe(Effect.map((buyers) => ({ days, buyers }))),
    view: ({ days, buyers }) => ({
      days, total_buyers_all_time: buyers.everyone, active_buyers: buyers.active, repeat_buyers: buyers.repeated, repeat_rate: buyers.repeatRate,
      avg_calls_per_buyer: buyers.averageCalls,
      top_spenders: buyers.topSpenders.map(({ buyer, calls, cost, services }) => ({ buyer_id: buyer, calls, total_spent: cost, services_used: services }))
    })
  })
]
