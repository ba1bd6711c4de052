/** Settlements: what providers are paid for their calls, and the commission that is kept of it. */
import { Effect } from "effect"
import { nextTier, standardTier } from "../../domain/commission.ts"
import { endpoint } from "../../http/endpoint.ts"
import { type ProviderCommission, Settlements } from "../../kernel/market/Settlements.ts"
import { commitErrors } from "./errors.ts"
import * as wire from "./wire/settlements.ts"

const tag = "Settlements"

type Settled = Effect.Success<ReturnType<Settlements["Service"]["create"]>>

const amounts = ({ id, provider, total, fee, status }: Settled) =>
  ({ id, provider_id: provider, total_amount: total, platform_fee: fee, net_amount: total - fee, status })

const rate = (percent: bigint): string => `0.${String(percent).padStart(2, "0")}`

const commissionView = ({ provider, registered }: ProviderCommission) => {
  const next = registered === undefined ? undefined : nextTier(registered.sinceMs, registered.commission)
  const tier = registered?.commission.tier ?? standardTier
  return {
    provider_id: provider, registered: registered !== undefined, current_rate: rate(tier.percent), current_tier: tier.name,
    registration_date: registered === undefined ? null : new Date(registered.sinceMs), month_number: registered?.commission.month ?? null,
    next_tier_date: next === undefined ? null : new Date(next.atMs), next_tier_rate: next === undefined ? null : rate(next.tier.percent)
  }
}

export const settlements = [
  endpoint({
    id: "acf.settlements.create", method: "POST", path: "/api/v1/settlements", auth: "key", scope: "admin", uncounted: true, status: 201,
    docs: {
      summary: "Create a settlement",
      description: "Takes up every call of the provider from the start of the period up to its end that was answered below 500 and is in no other settlement. Each call keeps the commission that was in force when it was made.",
      tag
    },
    payload: wire.NewSettlement, success: wire.CreatedSettlement, errors: ["RuleBroken", "StoreUnavailable"],
    handle: ({ payload }, { caller }) => Settlements.use((settlements) =>
      settlements.create(caller, { provider: payload.provider_id, startMs: payload.period_start, endMs: payload.period_end })),
    view: (settled) => ({ ...amounts(settled), call_count: Number(settled.calls) })
  }),
  endpoint({
    id: "acf.settlements.list", method: "GET", path: "/api/v1/settlements", auth: "key", uncounted: true,
    docs: { summary: "List settlements", description: "Newest first: one's own; with an admin's key all.", tag },
    query: wire.SettlementQuery, success: wire.Settlements, errors: ["RuleBroken", "StoreUnavailable"],
    handle: ({ query }, { caller }) => Settlements.use((settlements) =>
      settlements.list(caller, { provider: query.provider_id, status: query.status, limit: query.limit })),
    view: (rows) => ({
      settlements: rows.map((settled) => ({
        ...amounts(settled), period_start: settled.periodStart, period_end: settled.periodEnd, payment_tx: settled.paymentTx ?? null
      })),
      count: rows.length
    })
  }),
  endpoint({
    id: "acf.settlements.pay", method: "PATCH", path: "/api/v1/settlements/{settlement_id}/pay", auth: "key", scope: "admin", uncounted: true,
    docs: {
      summary: "Mark a settlement as paid",
      description: "What the provider has had in credits of it already, because its calls were prepaid, is taken from its credits in the same step; 400 when it has spent that.",
      tag
    },
    params: wire.WithSettlement, payload: wire.Payment, success: wire.Paid, errors: ["NotFound", "RuleBroken", "StoreUnavailable", ...commitErrors],
    handle: ({ params, payload }, { caller }) => Settlements.use((settlements) => settlements.pay(caller, params.settlement_id, payload.payment_tx)).pipe(
      Effect.as({ status: "completed", payment_tx: payload.payment_tx })
    )
  }),
  endpoint({
    id: "acf.admin.commission", method: "GET", path: "/api/v1/admin/providers/{provider_id}/commission", auth: "key", scope: "admin", uncounted: true,
    docs: { summary: "Get a provider's commission", description: "By the months since its first service was registered: 0 %, then 5 %, from the fourth on 10 %.", tag: "Admin" },
    params: wire.WithProvider, success: wire.Commission, errors: ["StoreUnavailable"],
    handle: ({ params }) => Settlements.use((settlements) => settlements.commission(params.provider_id)),
    view: commissionView
  })
]
