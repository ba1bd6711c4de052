/** The provider's portal: everything is of the key's owner. */
import { Effect } from "effect"
import { endpoint } from "../../http/endpoint.ts"
import { Portal, milestonesOf, stepsOf } from "../../kernel/market/Portal.ts"
import { commitErrors } from "./errors.ts"
import * as wire from "./wire/portal.ts"

const tag = "Provider portal"

const row = { auth: "key", scope: "provider", uncounted: true } as const

type Figures = Effect.Success<ReturnType<Portal["Service"]["services"]>>[number]
type Overview = Effect.Success<ReturnType<Portal["Service"]["overview"]>>

const totals = ({ calls, revenue, latencyMs }: Figures) => ({ total_calls: Number(calls), total_revenue: revenue, avg_latency_ms: latencyMs })

const onboardingView = (overview: Overview) => {
  const steps = stepsOf(overview)
  const completed = steps.filter((step) => step.completed).length
  return {
    provider_id: overview.provider, steps: Object.fromEntries(steps.map(({ name, label, completed }) => [name, { completed, label }])),
    completed_steps: completed, total_steps: steps.length, completion_pct: completed * 100 / steps.length
  }
}

export const portal = [
  endpoint({
    ...row, id: "acf.provider.dashboard", method: "GET", path: "/api/v1/provider/dashboard",
    docs: { summary: "Get an overview of your services", description: "`pending_settlement` is the revenue that no completed settlement has, before commission.", tag },
    success: wire.Dashboard, errors: ["StoreUnavailable"],
    handle: (_, { caller }) => Portal.use((portal) => portal.overview(caller)),
    view: ({ provider, services, calls, revenue, settled, pending }) => ({
      provider_id: provider, total_services: services, total_calls: Number(calls), total_revenue: revenue, total_settled: settled, pending_settlement: pending
    })
  }),
  endpoint({
    ...row, id: "acf.provider.services", method: "GET", path: "/api/v1/provider/services",
    docs: { summary: "List your services with their figures", description: "Newest first, removed ones too.", tag },
    success: wire.Services, errors: ["StoreUnavailable"],
    handle: (_, { caller }) => Portal.use((portal) => portal.services(caller)),
    view: (rows) => ({
      services: rows.map(({ agent, ...figures }) => ({
        id: agent.id, name: agent.name, description: agent.description, endpoint: agent.endpointUrl, price_per_call: agent.price, status: agent.status,
        category: agent.category, ...totals({ agent, ...figures }), created_at: new Date(agent.createdAtMs)
      }))
    })
  }),
  endpoint({
    ...row, id: "acf.provider.analytics", method: "GET", path: "/api/v1/provider/services/{service_id}/analytics",
    docs: { summary: "Get the figures of a service", description: "`daily` has those of the last 30 days (UTC) that had calls, newest first. Success is an answer below 400.", tag },
    params: wire.WithService, success: wire.Analytics, errors: ["NotFound", "NotOwner", "StoreUnavailable"],
    handle: ({ params }, { caller }) => Portal.use((portal) => portal.analytics(caller, params.service_id)),
    view: (figures) => ({
      service_id: figures.agent.id, service_name: figures.agent.name, ...totals(figures), success_rate: figures.successRate, unique_buyers: figures.buyers,
      first_call: figures.firstAt ?? null, last_call: figures.lastAt ?? null,
      daily: figures.daily.map(({ date, calls, revenue }) => ({ date, calls: Number(calls), revenue }))
    })
  }),
  endpoint({
    ...row, id: "acf.provider.earnings", method: "GET", path: "/api/v1/provider/earnings",
    docs: { summary: "Get your earnings", description: "Before commission, with the newest 100 settlements.", tag },
    success: wire.Earnings, errors: ["StoreUnavailable"],
    handle: (_, { caller }) => Portal.use((portal) => portal.earnings(caller)),
    view: ({ revenue, settled, pending, settlements }) => ({
      total_earned: revenue, total_settled: settled, pending_settlement: pending,
      settlements: settlements.map(({ id, total, fee, status, periodStart, periodEnd }) => ({
        id, total_amount: total, platform_fee: fee, net_amount: total - fee, status, period_start: periodStart, period_end: periodEnd
      }))
    })
  }),
  endpoint({
    ...row, id: "acf.provider.keys", method: "GET", path: "/api/v1/provider/keys",
    docs: { summary: "List your API keys", description: "Newest first, without those that were revoked. Secrets are never shown again.", tag },
    success: wire.Keys, errors: ["StoreUnavailable"],
    handle: (_, { caller }) => Portal.use((portal) => portal.keys(caller)),
    view: (keys) => ({
      keys: keys.map(({ keyId, role, rateLimit, walletAddress, createdAt, expiresAt }) => ({
        key_id: keyId, role, rate_limit: rateLimit ?? null, wallet_address: walletAddress ?? null, created_at: createdAt, expires_at: expiresAt ?? null
      }))
    })
  }),
  endpoint({
    ...row, id: "acf.provider.revoke_key", method: "DELETE", path: "/api/v1/provider/keys/{key_id}", status: 200,
    docs: { summary: "Revoke one of your API keys", description: "At once. It may be the one that this call is made with.", tag },
    params: wire.WithKey, success: wire.Revoked, errors: ["NotFound", "NotOwner", "StoreUnavailable", ...commitErrors],
    handle: ({ params }, { caller }) => Portal.use((portal) => portal.revokeKey(caller, params.key_id)).pipe(
      Effect.as({ status: "revoked", key_id: params.key_id })
    )
  }),
  endpoint({
    ...row, id: "acf.provider.test", method: "POST", path: "/api/v1/provider/services/{service_id}/test",
    docs: { summary: "Test whether a service's endpoint is there", description: "One GET, without following redirects, for 10 seconds at most; any answer below 500 will do. `error` says why it is not reachable.", tag },
    params: wire.WithService, success: wire.Tested, errors: ["NotFound", "NotOwner", "StoreUnavailable"],
    handle: ({ params }, { caller }) => Portal.use((portal) => portal.test(caller, params.service_id)),
    view: ({ serviceId, endpoint, reachable, latencyMs, status, error }) => ({ service_id: serviceId, endpoint, reachable, latency_ms: latencyMs, status_code: status, error })
  }),
  endpoint({
    ...row, id: "acf.provider.onboarding", method: "GET", path: "/api/v1/provider/onboarding",
    docs: { summary: "Get how far you are", tag },
    success: wire.Onboarding, errors: ["StoreUnavailable"],
    handle: (_, { caller }) => Portal.use((portal) => portal.overview(caller)),
    view: onboardingView
  }),
  endpoint({
    ...row, id: "acf.provider.milestones", method: "GET", path: "/api/v1/provider/milestones",
    docs: { summary: "List what you have reached, and what it brings", tag },
    success: wire.Milestones, errors: ["StoreUnavailable"],
    handle: (_, { caller }) => Portal.use((portal) => portal.overview(caller)),
    view: (overview) => ({ milestones: milestonesOf(overview).map(({ reward, ...same }) => ({ ...same, reward_description: reward })) })
  })
]
