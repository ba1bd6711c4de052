/**
 * The autx dialect: its table and how it words a refusal. The first mount is the
 * documented one; `/autx` keeps it apart when all dialects share a host.
 */
import type { Dialect } from "../../http/dialect.ts"
import type { Endpoint, SocketRow } from "../../http/endpoint.ts"
import { agents } from "./agents.ts"
import { audit } from "./audit.ts"
import { auth } from "./auth.ts"
import { chat } from "./chat.ts"
import { credits } from "./credits.ts"
import { errorSchema, errors, internalError } from "./errors.ts"
import { keySet } from "./keySet.ts"
import { keys } from "./keys.ts"
import { orders } from "./orders.ts"
import { proxy } from "./proxy.ts"
import { sessions } from "./sessions.ts"

const seconds = (ms: number): string => String(Math.ceil(ms / 1000))

const rows = [...auth, ...keys, ...agents, ...proxy, ...orders, ...credits, ...sessions, chat, ...audit, keySet]

/** Every service that a handler asks for. */
type Needs<R> = R extends Endpoint<infer Service> | SocketRow<infer Service> ? Service : never

export const autx: Dialect<Needs<typeof rows[number]>> = {
  name: "autx",
  title: "autx",
  description: "Agents with a price: call them, order from them, pay from one balance. Send `Authorization: Bearer` with an API key or the access token of a login.",
  mounts: ["/v1", "/api/v1", "/autx/v1", "/autx/api/v1"],
  hostMounts: ["/v1", "/api/v1"],
  rows,
  rootRows: [keySet],
  errors,
  internalError,
  rateHeaders: ({ limit, remaining, resetMs }) => [
    ["X-RateLimit-Limit", String(limit)], ["X-RateLimit-Remaining", String(remaining)], ["X-RateLimit-Reset", seconds(resetMs)]
  ],
  errorSchema
}
