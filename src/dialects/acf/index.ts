/**
 * The acf dialect (Agent Commerce Framework): its table and how it words a
 * refusal. Its paths begin below its own mount, or at the root of its own host.
 */
import type { Dialect } from "../../http/dialect.ts"
import type { Endpoint } from "../../http/endpoint.ts"
import { about } from "./about.ts"
import { admin } from "./admin.ts"
import { dashboard } from "./dashboard.ts"
import { discovery } from "./discovery.ts"
import { errorSchema, errors, internalError } from "./errors.ts"
import { identities } from "./identities.ts"
import { keys } from "./keys.ts"
import { money } from "./money.ts"
import { portal } from "./portal.ts"
import { proxy } from "./proxy.ts"
import { reputation } from "./reputation.ts"
import { services } from "./services.ts"
import { settlements } from "./settlements.ts"
import { teams } from "./teams.ts"
import { templates } from "./templates.ts"
import { usage } from "./usage.ts"
import { webhooks } from "./webhooks.ts"

const rows = [
  ...keys, ...services, ...discovery, ...proxy, ...usage, ...identities, ...reputation, ...settlements, ...teams, ...webhooks,
  ...templates, ...portal, ...admin, ...money, ...about, ...dashboard
]

/** Every service that a handler asks for. */
type Needs<R> = R extends Endpoint<infer Service> ? Service : never

export const acf: Dialect<Needs<typeof rows[number]>> = {
  name: "acf",
  title: "Agent Commerce Framework",
  description: "A market of services: find one, call it through the proxy, and have every call metered. Send `Authorization: Bearer {key_id}:{secret}`.",
  mounts: ["/acf"],
  hostMounts: [""],
  keysOnly: true,
  addressLimit: ({ acfIpRate, acfIpBurst }) => ({ ratePerSecond: acfIpRate, burst: acfIpBurst }),
  rows,
  rootRows: dashboard,
  answerHeaders: ({ publicUrl }) => [
    ["x-content-type-options", "nosniff"], ["x-frame-options", "DENY"], ["referrer-policy", "no-referrer"],
    ...(publicUrl.startsWith("https:") ? [["strict-transport-security", "max-age=31536000"] as const] : [])
  ],
  errors,
  internalError,
  rateHeaders: () => [],
  errorSchema
}
