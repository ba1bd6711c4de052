/** Agents: listing them, and what their owners change. */
import { Effect } from "effect"
import { Unauthenticated } from "../../domain/errors.ts"
import type { AccountId } from "../../domain/ids.ts"
import { endpoint } from "../../http/endpoint.ts"
import type { Caller } from "../../kernel/Caller.ts"
import { type AgentPatch, Listings } from "../../kernel/Listings.ts"
import { commitErrors } from "./errors.ts"
import { page } from "./page.ts"
import * as wire from "./wire.ts"

const tag = "Agents"

type Listed = Effect.Success<ReturnType<Listings["Service"]["get"]>>

/** As the caller sees it: where an agent listens that was listed elsewhere is its owner's to know. */
const seenBy = (caller: Caller | undefined) => <L extends Pick<Listed, "agent">>(listed: L): L =>
  listed.agent.dialect === "autx" || listed.agent.ownerId === caller?.accountId ? listed : { ...listed, agent: { ...listed.agent, endpointUrl: "" } }

const agentView = ({ agent, calls, revenue, lateCancelsToday }: Listed) => ({
  id: agent.id, name: agent.name, ticker: agent.ticker, description: agent.description, category: agent.category,
  service_price: agent.price, endpoint_url: agent.endpointUrl, status: agent.status, auth_tier: agent.authTier,
  manifest: agent.manifest ?? null, total_requests: Number(calls), total_revenue: revenue,
  owner_id: agent.ownerId, free_tier_calls: agent.freeTierCalls, created_at: new Date(agent.createdAtMs),
  ...(lateCancelsToday === undefined ? {} : { late_cancels_today: lateCancelsToday })
})

const patchOf = ({ endpoint_url, service_price, auth_tier, free_tier_calls, manifest, ...same }: typeof wire.AgentPatch.Type): AgentPatch => ({
  ...same,
  ...(endpoint_url === undefined ? {} : { endpointUrl: endpoint_url }),
  ...(service_price === undefined ? {} : { price: service_price }),
  ...(auth_tier === undefined ? {} : { authTier: auth_tier }),
  ...(free_tier_calls === undefined ? {} : { freeTierCalls: free_tier_calls }),
  ...(manifest === undefined ? {} : { manifest: manifest ?? undefined })
})

/** There is no market yet: capitalisation and yield are 0 for all, so these orders are by revenue, then new. */
const sorts = { trending: "trending", revenue: "revenue", new: "new", mcap: "revenue", apy: "revenue" } as const

const ownerOf = (owner: "me" | undefined, caller: Caller | undefined): Effect.Effect<AccountId | undefined, Unauthenticated> =>
  owner === undefined ? Effect.succeed(undefined)
    : caller === undefined ? Effect.fail(new Unauthenticated({ reason: "missing" })) : Effect.succeed(caller.accountId)

export const agents = [
  endpoint({
    id: "autx.agents.list", method: "GET", path: "/agents/", auth: "optional",
    docs: {
      summary: "List agents",
      description: "`sort`: `trending` by calls in the last 24 hours, `revenue` by all their revenue, `new` by age. `mcap` and `apy` are 0 for every agent until there is a market, so they order by revenue, then new.",
      tag
    },
    query: wire.AgentQuery, success: wire.Agents, errors: ["Unauthenticated", "StoreUnavailable"],
    handle: ({ query }, { caller }) => Effect.gen(function*() {
      const ownerId = yield* ownerOf(query.owner, caller)
      const rows = yield* Listings.use((listings) => listings.list({
        sort: sorts[query.sort], limit: query.limit + 1, after: query.cursor, category: query.category, text: query.q, ownerId
      }))
      return yield* page("/agents/", wire.AgentQuery, query, rows.map(seenBy(caller)), ({ figure, agent }) => ({ ...query, cursor: { figure, id: agent.id } }))
    }),
    view: (rows) => rows.map(agentView)
  }),
  endpoint({
    id: "autx.agents.get", method: "GET", path: "/agents/{id}", auth: "optional",
    docs: { summary: "Get an agent", tag },
    params: wire.WithAgent, success: wire.Agent, errors: ["NotFound", "StoreUnavailable"],
    handle: ({ params }, { caller }) => Listings.use((listings) => listings.get(params.id)).pipe(Effect.map(seenBy(caller))),
    view: agentView
  }),
  endpoint({
    id: "autx.agents.create", method: "POST", path: "/agents/", scope: "agents", verified: true, status: 201, decimals: true, idempotent: true,
    docs: { summary: "List an agent", description: "Charges the launch fee, if the operator asks for one.", tag },
    payload: wire.NewAgent, success: wire.Agent, errors: ["AlreadyExists", "AddressForbidden", "InsufficientCredits", ...commitErrors],
    handle: ({ payload }, { caller, idempotency }) => Listings.use((listings) => listings.create(caller, {
      dialect: "autx", ticker: payload.ticker, name: payload.name, description: payload.description, category: payload.category,
      endpointUrl: payload.endpoint_url, price: payload.service_price, freeTierCalls: payload.free_tier_calls,
      authTier: payload.auth_tier, manifest: payload.manifest ?? undefined, tags: [], paymentMethod: "credits"
    }, idempotency)),
    view: agentView
  }),
  endpoint({
    id: "autx.agents.update", method: "PATCH", path: "/agents/{id}", scope: "agents", decimals: true,
    docs: { summary: "Change an agent", description: "By its owner. Fields that are left out stay as they are.", tag },
    params: wire.WithAgent, payload: wire.AgentPatch, success: wire.Agent, errors: ["NotFound", "NotOwner", "AddressForbidden", ...commitErrors],
    handle: ({ params, payload }, { caller }) => Listings.use((listings) => listings.patch(caller, params.id, patchOf(payload))),
    view: agentView
  }),
  endpoint({
    id: "autx.agents.provider_key", method: "PUT", path: "/agents/{id}/provider-key", scope: "agents",
    docs: { summary: "Deposit the key that the agent is called with", description: "By its owner, for the tier `buyer_key`. Sealed before it is stored, never shown again.", tag },
    params: wire.WithAgent, payload: wire.ProviderKey, success: wire.Agent, errors: ["NotFound", "NotOwner", "NotConfigured", ...commitErrors],
    handle: ({ params, payload }, { caller }) => Listings.use((listings) =>
      listings.setProviderKey(caller, params.id, payload.provider_key, payload.provider)),
    view: agentView
  })
]
