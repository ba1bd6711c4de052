/** The operator's figures on the wire: money as JSON numbers, exact to six decimals. */
import { Schema } from "effect"
import { Id, UsdNumber, orElse, text } from "../../../http/rows/fields.ts"
import { Between, Latency, Percent, Time } from "./fields.ts"

const Text = Schema.String

export const Stats = Schema.Struct({
  total_services: Schema.Natural, total_agents: Schema.Natural, total_teams: Schema.Natural, total_usage_records: Schema.Natural,
  total_revenue_usd: UsdNumber, total_settlements: Schema.Natural, active_webhooks: Schema.Natural
}).annotate({ identifier: "AcfStats" })

export const DaysQuery = Schema.Struct({ days: Between(1, 90, 30) })
export const DailyUsage = Schema.Struct({
  days: Schema.Natural,
  data: Schema.Array(Schema.Struct({
    date: Schema.String.annotate({ format: "date", examples: ["2026-03-19"] }),
    call_count: Schema.Natural, revenue_usd: UsdNumber, unique_buyers: Schema.Natural, unique_services: Schema.Natural
  }).annotate({ identifier: "AcfUsageOfDay" }))
}).annotate({ identifier: "AcfDailyUsage" })

export const RankingQuery = Schema.Struct({
  limit: Between(1, 100, 20),
  period: text(50).annotate({ description: "`all-time` or a number of days", examples: ["30"] }).pipe(orElse("all-time"))
})
export const Ranking = Schema.Struct({
  period: Text,
  providers: Schema.Array(Schema.Struct({
    provider_id: Text, display_name: Text, total_calls: Schema.Natural, total_revenue: UsdNumber, avg_latency_ms: Latency, success_rate: Percent
  }).annotate({ identifier: "AcfRankedProvider" }))
}).annotate({ identifier: "AcfRanking" })

export const Health = Schema.Struct({
  services: Schema.Array(Schema.Struct({
    service_id: Id, name: Text, provider_id: Text, status: Schema.Literals(["active", "paused", "removed"]), avg_latency_ms: Latency, error_rate: Percent, last_called: Schema.NullOr(Time)
  }).annotate({ identifier: "AcfServiceHealth" }))
}).annotate({ identifier: "AcfHealth" })

export const Payments = Schema.Struct({
  methods: Schema.Record(Schema.String, Schema.Struct({ count: Schema.Natural, total_usd: UsdNumber }))
}).annotate({ identifier: "AcfPayments" })

export const TrendsQuery = Schema.Struct({
  granularity: text(50).annotate({ description: "`daily`, `weekly` or `monthly`" }).pipe(orElse("weekly")),
  periods: Between(1, 52, 12)
})
export const Trends = Schema.Struct({
  granularity: Text,
  data: Schema.Array(Schema.Struct({
    period: Schema.String.annotate({ description: "A date, an ISO 8601 week or a month", examples: ["2026-03-19", "2026-W12", "2026-03"] }),
    calls: Schema.Natural, revenue: UsdNumber, unique_buyers: Schema.Natural, active_services: Schema.Natural, avg_latency_ms: Latency, success_rate: Percent
  }).annotate({ identifier: "AcfTrend" }))
}).annotate({ identifier: "AcfTrends" })

export const TopServicesQuery = Schema.Struct({
  limit: Between(1, 50, 10),
  sort_by: text(50).annotate({ description: "`revenue`, `calls` or `latency` (fastest first)" }).pipe(orElse("revenue")),
  days: Between(1, 365, 30)
})
export const TopServices = Schema.Struct({
  sort_by: Text, days: Schema.Natural,
  services: Schema.Array(Schema.Struct({
    service_id: Id, service_name: Text, provider_id: Text, category: Text,
    total_calls: Schema.Natural, total_revenue: UsdNumber, avg_latency_ms: Latency, unique_buyers: Schema.Natural, success_rate: Percent
  }).annotate({ identifier: "AcfTopService" }))
}).annotate({ identifier: "AcfTopServices" })

export const BuyersQuery = Schema.Struct({ days: Between(1, 365, 30) })
export const Buyers = Schema.Struct({
  days: Schema.Natural, total_buyers_all_time: Schema.Natural, active_buyers: Schema.Natural,
  repeat_buyers: Schema.Natural.annotate({ description: "With more than one call" }), repeat_rate: Percent, avg_calls_per_buyer: Schema.Finite,
  top_spenders: Schema.Array(Schema.Struct({ buyer_id: Text, calls: Schema.Natural, total_spent: UsdNumber, services_used: Schema.Natural }).annotate({ identifier: "AcfSpender" }))
}).annotate({ identifier: "AcfBuyers" })
