/**
 * Which origins' pages may call the gateway (Fetch standard, CORS protocol).
 *
 * Our own origin always may, those of `ALLOWED_ORIGINS` may (`*`: all), in demo
 * also any port of localhost. Credentials are bearer tokens in a header, never
 * cookies, so `access-control-allow-credentials` is never sent. An origin that
 * may not gets an answer without CORS headers: the browser refuses it.
 */
import type { Settings } from "../config.ts"
import type { Header } from "../kernel/Relay.ts"

export interface Cors {
  readonly allows: (origin: string) => boolean
  /** The headers of an ordinary answer to `origin`, which is allowed. */
  readonly answerHeaders: (origin: string) => ReadonlyArray<Header>
  /** What a preflight's answer has besides. */
  readonly preflightHeaders: (methods: ReadonlyArray<string>, requestedHeaders: string | undefined) => ReadonlyArray<Header>
}

const localPrefixes = ["http://localhost", "http://127.0.0.1"]

const isLocal = (origin: string): boolean => {
  const prefix = localPrefixes.find((candidate) => origin.startsWith(candidate))
  return prefix !== undefined && /^(:\d{1,5})?$/.test(origin.slice(prefix.length))
}

const requestable = "authorization, content-type, idempotency-key, x-api-key, last-event-id"
const headerNames = /^[\w\-!#$%&'*+.^`|~, ]{1,1024}$/

/** `exposed`: names of the rate headers of all dialects, beyond those every dialect has. */
export const compileCors = (settings: Settings, exposed: Iterable<string>): Cors => {
  const origins = new Set([new URL(settings.publicUrl).origin, ...settings.allowedOrigins.map((origin) => origin.replace(/\/+$/, ""))])
  const everyone = origins.has("*")
  const expose = [...new Set([
    ...exposed, "retry-after", "x-request-id", "idempotent-replayed", "link",
    "x-autx-request-id", "x-autx-latency-ms", "x-autx-agent", "x-autx-cost-usd", "x-autx-balance-usd", "x-autx-transaction-id",
    "x-autx-revoked-within-ms", "x-autx-x402-tx-hash", "x-acf-usage-id", "x-acf-amount", "x-acf-free-tier", "x-acf-latency-ms", "payment-required", "payment-response"
  ])].join(", ")
  const allows = (origin: string): boolean => everyone || origins.has(origin) || (settings.demo && isLocal(origin))
  return {
    allows,
    answerHeaders: (origin) => [
      ["access-control-allow-origin", origin],
      ["access-control-expose-headers", expose],
      ["vary", "origin"]
    ],
    preflightHeaders: (methods, requested) => [
      ["access-control-allow-methods", methods.join(", ")],
      ["access-control-allow-headers", requested !== undefined && headerNames.test(requested) ? requested : requestable],
      ["access-control-max-age", "600"],
      ["vary", "access-control-request-headers"]
    ]
  }
}
