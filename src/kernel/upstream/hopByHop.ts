/**
 * Which headers cross the gateway, in both directions.
 *
 * To the agent: everything the caller sent except what belongs to the caller's
 * own connection (RFC 9110 §7.6.1), the caller's credentials, what identifies
 * the caller's network, and what the gateway sets itself. `accept-encoding` and
 * `content-encoding` pass unchanged, so that encoded bodies stay byte-exact. So
 * does a valid trace context; an invalid one is dropped.
 * To the caller: everything the agent sent except connection headers, headers
 * that would speak for the gateway's whole origin, and what the dialect drops.
 *
 * Guarantees: no header value with a control character leaves (nothing can be
 * smuggled by it); names are tokens; bytes above ASCII pass as they came out of
 * the edge's server, which takes those at a value's ends for blanks.
 * Runs on the hot path: one pass, set look-ups, no regular expression.
 */
import { traceIdOf } from "../../domain/traceContext.ts"
import type { Header } from "../Relay.ts"

/** RFC 9110 §7.6.1, with the two that RFC 9112 frames messages by. */
export const hopByHop = [
  "connection", "proxy-connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
  "proxy-authenticate", "proxy-authorization", "proxy-authentication-info", "content-length"
]

const notToAgent = new Set([
  ...hopByHop,
  "host", // the agent's own, from its URL
  "expect", // the body comes when it comes
  "http2-settings",
  "authorization", "cookie", "x-api-key", // the caller's credentials stay here
  "idempotency-key", // names the call to the gateway; an agent could replay it
  "forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip" // who the caller is
])
const forwardedPrefix = "x-forwarded-"

const notToCaller = [
  ...hopByHop,
  // An answer of one agent must not speak for the origin that all agents share.
  "alt-svc", "strict-transport-security", "clear-site-data", "service-worker-allowed", "nel", "report-to", "reporting-endpoints",
  "access-control-*"
]

/** RFC 9110 §5.6.2: the characters of a token, by code. */
const tokenCharacter = new Uint8Array(128)
for (const character of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") tokenCharacter[character.charCodeAt(0)] = 1

export const isToken = (name: string): boolean => {
  for (let i = 0; i < name.length; i++) if (tokenCharacter[name.charCodeAt(i)] !== 1) return false
  return name.length > 0
}

const tab = 9
const del = 127

/** The value as the transport writes it, one character a byte; `undefined` when it holds a control character. */
export const wireValue = (value: string): string | undefined => {
  let ascii = true
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i)
    if (code < 32 && code !== tab || code === del) return undefined
    if (code > del) ascii = false
  }
  // The edge decoded the caller's bytes as UTF-8; this gives the same bytes back.
  return ascii ? value : Buffer.from(value, "utf8").toString("latin1")
}

/** The headers that `Connection` names, which are as hop-by-hop as itself. */
const namedBy = (connection: string): ReadonlySet<string> | undefined => {
  const lower = connection.toLowerCase()
  return lower === "keep-alive" || lower === "close" ? undefined : new Set(lower.split(",").map((name) => name.trim()))
}

const has = (headers: ReadonlyArray<Header>, name: string): boolean => {
  for (const header of headers) if (header[0] === name) return true
  return false
}

/**
 * The caller's headers (names in lower case) as they go to the agent, flat:
 * name, value, name, value … `own` are the gateway's, also in lower case; they
 * replace the caller's of the same name. The caller's that start with
 * `reservedPrefix` are dropped: there only the gateway speaks.
 */
export const requestHeaders = (received: ReadonlyArray<Header>, own: ReadonlyArray<Header>, reservedPrefix?: string): Array<string> => {
  let named: ReadonlySet<string> | undefined
  let traces = 0
  let traced = true
  for (const header of received) {
    if (header[0] === "connection") named = union(named, namedBy(header[1]))
    else if (header[0] === "traceparent") traced = ++traces === 1 && traceIdOf(header[1]) !== undefined
  }
  const flat: Array<string> = []
  for (const header of received) {
    const name = header[0]
    if (notToAgent.has(name) || name.startsWith(forwardedPrefix) || named !== undefined && named.has(name)) continue
    if (reservedPrefix !== undefined && name.startsWith(reservedPrefix) || has(own, name) || !isToken(name)) continue
    if (!traced && (name === "traceparent" || name === "tracestate")) continue
    const value = wireValue(header[1])
    if (value !== undefined) flat.push(name, value)
  }
  // A signed token is some 400 characters: they are ours, and the transport refuses a bad one once more.
  for (const header of own) flat.push(header[0], header[1])
  return flat
}

const union = (a: ReadonlySet<string> | undefined, b: ReadonlySet<string> | undefined): ReadonlySet<string> | undefined =>
  a === undefined || b === undefined ? a ?? b : new Set([...a, ...b])

const beyondAscii = /[^\x00-\x7f]/

/** What one dialect lets through of an agent's answer. Compiled once; entries are lower case, one that ends in `*` is a prefix. */
export class AnswerFilter {
  readonly #names: ReadonlySet<string>
  readonly #prefixes: ReadonlyArray<string>

  constructor(drops: ReadonlyArray<string>) {
    const all = [...notToCaller, ...drops]
    this.#names = new Set(all.filter((entry) => !entry.endsWith("*")))
    this.#prefixes = all.filter((entry) => entry.endsWith("*")).map((entry) => entry.slice(0, -1))
  }

  /** Takes names (lower case) and values in turn, as `AnswerReader` gives them: tokens, and values without control characters. */
  apply(fields: ReadonlyArray<string>): Array<Header> {
    const headers: Array<Header> = []
    let named: ReadonlySet<string> | undefined
    for (let i = 0; i < fields.length; i += 2) {
      const name = fields[i]!
      const value = fields[i + 1]!
      if (name === "connection") named = union(named, namedBy(value))
      // The edge writes UTF-8; these are the same bytes.
      else if (!this.#drops(name)) headers.push([name, beyondAscii.test(value) ? Buffer.from(value, "latin1").toString("utf8") : value])
    }
    if (named === undefined) return headers
    const hop = named
    return headers.filter((header) => !hop.has(header[0]))
  }

  #drops(name: string): boolean {
    if (this.#names.has(name)) return true
    for (const prefix of this.#prefixes) if (name.startsWith(prefix)) return true
    return false
  }
}
