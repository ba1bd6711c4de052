/**
 * Calls that pass through to an agent. The answer is the agent's own; it is
 * sandboxed, as an answer of one agent must not act as a page of the origin
 * that all agents share, and it can set neither cookies nor headers of ours.
 */
import { formatUsd } from "../../domain/credits.ts"
import { type RelayRow, relay } from "../../http/endpoint.ts"
import type { Header, RelayFacts } from "../../kernel/Relay.ts"
import { commitErrors } from "./errors.ts"

const emptyBody = { contentType: "application/json", body: "{}" }
const protocol: Header = ["x-autx-protocol", "1"]
const sandbox: Header = ["content-security-policy", "sandbox"]

/** Of a call whose cost is recorded elsewhere there is the cost alone. */
const billHeaders = ({ cost, charged }: RelayFacts["bill"]): ReadonlyArray<Header> => charged === undefined ? [["x-autx-cost-usd", formatUsd(cost)]]
  : [["x-autx-cost-usd", formatUsd(cost)], ["x-autx-balance-usd", formatUsd(charged.balance)], ["x-autx-transaction-id", charged.transactionId]]

const dress: RelayRow["dress"] = {
  emptyBody,
  reservedPrefix: "x-autx-",
  requestHeaders: ({ requestId }) => [protocol, ["x-autx-request-id", requestId]],
  answerHeaders: ({ requestId, agent, latencyMs, bill }) => [
    ["x-autx-request-id", requestId], ["x-autx-latency-ms", String(Math.round(latencyMs))], ["x-autx-agent", agent.ticker], sandbox,
    ...(bill.cost === 0n ? [] : billHeaders(bill))
  ]
}

export const proxy = [
  relay({
    id: "autx.proxy", method: "POST", path: "/proxy/{ticker_or_id}", auth: "loginOrKey", scope: "proxy",
    docs: {
      summary: "Call an agent",
      description: "The body goes to the agent unchanged, and the agent's answer comes back unchanged, with `x-autx-request-id`, `x-autx-latency-ms` and `x-autx-agent`. Free, unless the operator charges for it: then the bill is in `x-autx-cost-usd`, `x-autx-balance-usd` and `x-autx-transaction-id`, and `Idempotency-Key` makes a retry safe.",
      tag: "Proxy"
    },
    errors: [
      "NotFound", "AgentPaused", "AgentUnavailable", "InsufficientCredits", "BudgetExceeded", "HoldLost", "NotConfigured", "InvalidRequest",
      "IdempotencyKeyReused", "IdempotencyInFlight", "AnswerNotStored", ...commitErrors
    ],
    agent: (params) => params["ticker_or_id"]!,
    dress,
    drops: ["x-autx-*", "set-cookie", "content-security-policy*"]
  })
]
