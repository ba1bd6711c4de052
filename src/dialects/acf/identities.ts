/** Identities of agents: registered and changed by their owners, read by anybody, vouched for by admins. */
import type { Identity } from "../../domain/identity.ts"
import { scoresOf } from "../../domain/reputation.ts"
import { endpoint } from "../../http/endpoint.ts"
import { Identities, type WantedPatch } from "../../kernel/market/Identities.ts"
import * as wire from "./wire/identities.ts"

const tag = "Agent identity"

/** What everybody may see. */
const publicView = (identity: Identity) => ({
  agent_id: identity.id, display_name: identity.displayName, identity_type: identity.identityType, capabilities: identity.capabilities,
  wallet_address: identity.walletAddress, verified: identity.verified, reputation_score: scoresOf(identity.sums).overall, status: identity.status,
  created_at: identity.createdAt, updated_at: identity.updatedAt
})
const ownView = (identity: Identity) => ({ ...publicView(identity), owner_id: identity.owner, metadata: identity.metadata })
const pageView = (page: ReadonlyArray<Identity>) => ({ agents: page.map(publicView), count: page.length })

const patchOf = ({ display_name, wallet_address, ...same }: typeof wire.AgentPatch.Type): WantedPatch => ({
  ...same,
  ...(display_name === undefined ? {} : { displayName: display_name }),
  ...(wallet_address === undefined ? {} : { walletAddress: wallet_address })
})

export const identities = [
  endpoint({
    id: "acf.agents.create", method: "POST", path: "/api/v1/agents", auth: "key", uncounted: true, status: 201,
    docs: { summary: "Register an agent", description: "Its score is that of its owner's services.", tag },
    payload: wire.NewAgent, success: wire.OwnAgent, errors: ["RuleBroken"],
    handle: ({ payload }, { caller }) => Identities.use((identities) => identities.create(caller, {
      displayName: payload.display_name, identityType: payload.identity_type, capabilities: payload.capabilities,
      walletAddress: payload.wallet_address, metadata: payload.metadata
    })),
    view: ownView
  }),
  endpoint({
    id: "acf.agents.list", method: "GET", path: "/api/v1/agents", auth: "public",
    docs: { summary: "List agents", description: "Of one status, newest first.", tag },
    query: wire.AgentQuery, success: wire.Agents, errors: ["RuleBroken", "StoreUnavailable"],
    handle: ({ query }) => Identities.use((identities) => identities.list(query.status, query.limit, query.offset)),
    view: pageView
  }),
  endpoint({
    id: "acf.agents.search", method: "GET", path: "/api/v1/agents/search", auth: "public",
    docs: { summary: "Search agents", description: "Active ones, by a part of their name or id, newest first.", tag },
    query: wire.AgentSearch, success: wire.Agents, errors: ["StoreUnavailable"],
    handle: ({ query }) => Identities.use((identities) => identities.search(query.q, query.limit)),
    view: pageView
  }),
  endpoint({
    id: "acf.agents.get", method: "GET", path: "/api/v1/agents/{agent_id}", auth: "public",
    docs: { summary: "Get an agent", description: "Of any status.", tag },
    params: wire.WithAgent, success: wire.Agent, errors: ["NotFound", "StoreUnavailable"],
    handle: ({ params }) => Identities.use((identities) => identities.get(params.agent_id)),
    view: publicView
  }),
  endpoint({
    id: "acf.agents.update", method: "PATCH", path: "/api/v1/agents/{agent_id}", auth: "key", uncounted: true,
    docs: { summary: "Change an agent", description: "By its owner. Fields that are left out stay as they are. With another name or wallet it is no longer verified.", tag },
    params: wire.WithAgent, payload: wire.AgentPatch, success: wire.OwnAgent, errors: ["NotFound", "NotOwner", "RuleBroken"],
    handle: ({ params, payload }, { caller }) => Identities.use((identities) => identities.patch(caller, params.agent_id, patchOf(payload))),
    view: ownView
  }),
  endpoint({
    id: "acf.agents.delete", method: "DELETE", path: "/api/v1/agents/{agent_id}", auth: "key", uncounted: true,
    docs: { summary: "Deactivate an agent", description: "By its owner. It is no longer listed, and can still be read.", tag },
    params: wire.WithAgent, success: wire.Deactivated, errors: ["NotFound", "NotOwner"],
    handle: ({ params }, { caller }) => Identities.use((identities) => identities.deactivate(caller, params.agent_id)),
    view: ({ id }) => ({ status: "deactivated", agent_id: id })
  }),
  endpoint({
    id: "acf.agents.verify", method: "POST", path: "/api/v1/agents/{agent_id}/verify", auth: "key", scope: "admin", uncounted: true,
    docs: { summary: "Verify an agent", description: "By an admin, who vouches for its name and wallet.", tag },
    params: wire.WithAgent, success: wire.VerifiedAgent, errors: ["NotFound"],
    handle: ({ params }, { caller }) => Identities.use((identities) => identities.verify(caller, params.agent_id)),
    view: (identity) => ({ ...publicView(identity), owner_id: identity.owner })
  })
]
