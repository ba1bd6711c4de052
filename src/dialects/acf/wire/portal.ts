/** The provider's portal as acf's callers see it: money as JSON numbers, exact to six decimals. */
import { Schema } from "effect"
import { Id, UsdNumber } from "../../../http/rows/fields.ts"
import { Latency, PathId, Percent, PlainUsd, Time } from "./fields.ts"
import { SettlementStatus } from "./settlements.ts"

const Text = Schema.String

export const WithService = Schema.Struct({ service_id: PathId })
export const WithKey = Schema.Struct({ key_id: PathId })

export const Dashboard = Schema.Struct({
  provider_id: Text, total_services: Schema.Natural, total_calls: Schema.Natural, total_revenue: UsdNumber, total_settled: UsdNumber, pending_settlement: UsdNumber
}).annotate({ identifier: "AcfProviderDashboard" })

export const Services = Schema.Struct({
  services: Schema.Array(Schema.Struct({
    id: Id, name: Text, description: Text, endpoint: Text, price_per_call: PlainUsd, status: Schema.Literals(["active", "paused", "removed"]), category: Text,
    total_calls: Schema.Natural, total_revenue: UsdNumber, avg_latency_ms: Latency, created_at: Time
  }).annotate({ identifier: "AcfProviderService" }))
}).annotate({ identifier: "AcfProviderServices" })

export const Analytics = Schema.Struct({
  service_id: Id, service_name: Text, total_calls: Schema.Natural, total_revenue: UsdNumber, avg_latency_ms: Latency, success_rate: Percent, unique_buyers: Schema.Natural,
  first_call: Schema.NullOr(Time), last_call: Schema.NullOr(Time),
  daily: Schema.Array(Schema.Struct({ date: Schema.String.annotate({ format: "date", examples: ["2026-03-19"] }), calls: Schema.Natural, revenue: UsdNumber }))
}).annotate({ identifier: "AcfServiceAnalytics" })

export const Earnings = Schema.Struct({
  total_earned: UsdNumber, total_settled: UsdNumber, pending_settlement: UsdNumber,
  settlements: Schema.Array(Schema.Struct({
    id: Id, total_amount: UsdNumber, platform_fee: UsdNumber, net_amount: UsdNumber, status: SettlementStatus, period_start: Time, period_end: Time
  }).annotate({ identifier: "AcfEarningsSettlement" }))
}).annotate({ identifier: "AcfEarnings" })

export const Keys = Schema.Struct({
  keys: Schema.Array(Schema.Struct({
    key_id: Text, role: Schema.Literals(["buyer", "provider", "admin"]), rate_limit: Schema.NullOr(Schema.Natural), wallet_address: Schema.NullOr(Text),
    created_at: Time, expires_at: Schema.NullOr(Time)
  }).annotate({ identifier: "AcfOwnKey" }))
}).annotate({ identifier: "AcfOwnKeys" })
export const Revoked = Schema.Struct({ status: Schema.Literal("revoked"), key_id: Text }).annotate({ identifier: "AcfRevokedKey" })

export const Tested = Schema.Struct({
  service_id: Id, endpoint: Text, reachable: Schema.Boolean, latency_ms: Schema.Natural, status_code: Schema.Natural, error: Text
}).annotate({ identifier: "AcfServiceTest" })

const Step = Schema.Struct({ completed: Schema.Boolean, label: Text })
export const Onboarding = Schema.Struct({
  provider_id: Text,
  steps: Schema.Struct({ create_api_key: Step, register_service: Step, activate_service: Step, first_traffic: Step, first_settlement: Step }),
  completed_steps: Schema.Natural, total_steps: Schema.Natural, completion_pct: Percent
}).annotate({ identifier: "AcfOnboarding" })

export const Milestones = Schema.Struct({
  milestones: Schema.Array(Schema.Struct({ name: Text, label: Text, description: Text, reward_description: Text, achieved: Schema.Boolean }).annotate({ identifier: "AcfMilestone" }))
}).annotate({ identifier: "AcfMilestones" })
