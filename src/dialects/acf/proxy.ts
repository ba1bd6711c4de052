/**
 * Calls that pass through to a service's endpoint, with any of five methods, the
 * path behind the service's id and the query as they were written. The answer is
 * the provider's own, with what the call cost; it is sandboxed, as a provider's
 * page must not act as a page of the gateway.
 */
import { type Method, type RelayRow, relay } from "../../http/endpoint.ts"
import type { Header, RelayFacts } from "../../kernel/Relay.ts"
import { commitErrors } from "./errors.ts"
import { plainUsd } from "./wire/fields.ts"

const sandbox: Header = ["content-security-policy", "sandbox"]
/** Cookies of the gateway's own pages: one from a provider would end, or begin, somebody's session there. */
const ownCookie = /^\s*(?:__Host-|__Secure-)?tollgate/i
const methods: ReadonlyArray<Method> = ["GET", "POST", "PUT", "PATCH", "DELETE"]

const answerHeaders = ({ bill, latencyMs }: RelayFacts): ReadonlyArray<Header> => [
  ["x-acf-usage-id", bill.usageId], ["x-acf-amount", plainUsd(bill.cost)], ["x-acf-free-tier", bill.isFreeTier ? "true" : "false"],
  ["x-acf-latency-ms", String(Math.round(latencyMs))], sandbox
]

const takesX402: ReadonlySet<string> = new Set(["x402", "both"])

/** The x402 challenge of a call that credits do not cover. Nothing is accepted beside credits until the operator can settle it. */
const shortHeaders: NonNullable<RelayRow["dress"]["shortHeaders"]> = ({ id, paymentMethod }, { required }) => takesX402.has(paymentMethod)
  ? [["payment-required", Buffer.from(JSON.stringify({
    x402Version: 2, error: `Insufficient credits: ${plainUsd(required)} USD are needed`, resource: { url: `/api/v1/proxy/${id}` }, accepts: []
  })).toString("base64")]]
  : []

const dress: RelayRow["dress"] = {
  emptyBody: undefined,
  reservedPrefix: "x-acf-",
  requestHeaders: ({ remoteAddress, host }) => [["x-forwarded-for", remoteAddress], ["x-forwarded-host", host]],
  answerHeaders,
  refusalHeaders: answerHeaders,
  shortHeaders,
  passes: ([name, value]) => name !== "set-cookie" || !ownCookie.test(value),
  silenceMs: 30_000
}

export const proxy = methods.map((method) => relay({
  id: `acf.proxy.${method.toLowerCase()}`, method, path: "/api/v1/proxy/{service_id}/{path*}", auth: "key", scope: "buyer", allow: methods,
  docs: {
    summary: "Call a service",
    description: "Passes the call to the service's endpoint and the answer back, both unchanged, with `X-ACF-Usage-Id`, `X-ACF-Amount`, `X-ACF-Free-Tier` and `X-ACF-Latency-Ms`. A call that the provider answers with 500 or above costs nothing.",
    tag: "Payment proxy"
  },
  errors: [
    "NotFound", "AgentPaused", "AgentUnavailable", "InsufficientCredits", "BudgetExceeded", "HoldLost", "NotConfigured", "InvalidRequest",
    "IdempotencyKeyReused", "IdempotencyInFlight", "AnswerNotStored", ...commitErrors
  ],
  agent: (params) => params["service_id"]!,
  tail: (params) => params["path"] ?? "",
  dress,
  drops: ["x-acf-*", "content-security-policy*"]
}))
