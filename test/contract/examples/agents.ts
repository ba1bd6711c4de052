/** Examples of API keys, agents, proxy calls, the key set and the audit log. */
import type { Person, World } from "../../support/World.ts"
import type { Examples } from "../Example.ts"

export const agent = {
  id: "<id>", name: "Agent <ticker>", ticker: "<ticker>", description: "Scripted by a test", category: "Test", service_price: 0.5, endpoint_url: "<endpoint>",
  status: "active", auth_tier: "jwt_default", manifest: null, total_requests: 0, total_revenue: 0, owner_id: "<id>", free_tier_calls: 0, created_at: "<time>"
}
const noAgent = { detail: "No such agent: check the id or ticker, or list agents with GET /agents/" }
const notOwner = { detail: "Only the owner may change this agent" }
const forbidden = "The gateway does not call this address: it must be a public http or https address"
const addressForbidden = { detail: `endpoint_url: ${forbidden}`, errors: [{ loc: ["body", "endpoint_url"], msg: forbidden }] }

const key = { id: "<id>", name: "a key", key_prefix: "<key prefix>", scopes: "proxy,orders", status: "active", expires_at: "<time>", created_at: "<time>" }
const newAgent = (world: World, ticker: string, more: object = {}) => ({
  name: `Agent ${ticker}`, ticker, description: "Scripted by a test", category: "Test", endpoint_url: world.endpoint(), service_price: 0.5, ...more
})
const own = (world: World, owner: Person) => world.agent({ owner, price: "0.50" })

export const agents: Examples = {
  "autx.api_keys.create": {
    success: {
      request: () => ({ body: { name: "a key", scopes: "proxy, orders", expires_in_days: 90, budgets: [{ amount_usd: "5.00", window: "day" }, { amount_usd: 20, window: "total" }] } }),
      answer: { ...key, key: "<key>" }
    },
    refusals: {}
  },
  "autx.api_keys.list": {
    success: {
      request: async (_, caller) => {
        await caller.key("proxy,orders", { expires_in_days: 90, budgets: [{ amount_usd: "5.00", window: "day" }] })
        return {}
      },
      answer: [{ ...key, budgets: [{ amount_usd: "5.00", window: "day", spent_usd: "0.00" }] }]
    },
    refusals: {}
  },
  "autx.api_keys.revoke": {
    success: {
      request: async (_, caller) => ({ path: `/api-keys/${(await caller.key()).id}` }),
      answer: undefined, headers: { "x-autx-revoked-within-ms": /^\d{1,4}$/ }
    },
    refusals: {
      NotFound: {
        request: async (world) => ({ path: `/api-keys/${(await (await world.user()).key()).id}` }),
        status: 404, answer: { detail: "No such API key, or it was revoked already" }
      }
    }
  },
  "autx.agents.list": {
    success: { request: async (world, caller) => ({ path: `/agents/?sort=apy&limit=5&q=${(await own(world, caller)).ticker}` }), answer: [agent] },
    refusals: {
      Unauthenticated: {
        request: () => ({ path: "/agents/?owner=me" }),
        status: 401, answer: { detail: "Authentication is required: send the header Authorization: Bearer with an API key or an access token" }
      }
    }
  },
  "autx.agents.get": {
    success: { request: async (world, caller) => ({ path: `/agents/${(await own(world, caller)).ticker.toLowerCase()}` }), answer: agent },
    refusals: { NotFound: { request: () => ({ path: "/agents/NOBODY" }), status: 404, answer: noAgent } }
  },
  "autx.agents.create": {
    success: {
      request: (world) => ({ body: newAgent(world, "T9AAA", { manifest: { input: { type: "json", max_size_bytes: 1024 }, supports_sessions: true } }) }),
      answer: { ...agent, manifest: { input: { type: "json", max_size_bytes: 1024 }, supports_sessions: true } }
    },
    refusals: {
      AlreadyExists: {
        request: async (world) => ({ body: newAgent(world, (await world.agent()).ticker) }),
        status: 409, answer: { detail: "The ticker <ticker> is taken: choose another one" }
      },
      AddressForbidden: {
        request: (world) => ({ body: newAgent(world, "T9BBB", { endpoint_url: "http://169.254.169.254/latest" }) }),
        status: 422, answer: addressForbidden
      },
      InsufficientCredits: {
        world: "paid",
        request: (world) => ({ body: newAgent(world, "T9CCC") }),
        status: 402, answer: { detail: "Insufficient credits", required_usd: "1.00", available_usd: "0.00", held_usd: "0.00", hint: "Add credits, then try again" }
      }
    }
  },
  "autx.agents.update": {
    success: {
      request: async (world, caller) => ({
        path: `/agents/${(await own(world, caller)).id}`, body: { description: "Changed", service_price: "0.000001", status: "paused", auth_tier: "buyer_key", free_tier_calls: 3 }
      }),
      answer: { ...agent, description: "Changed", service_price: 0.000001, status: "paused", auth_tier: "buyer_key", free_tier_calls: 3 }
    },
    refusals: {
      NotFound: { request: () => ({ path: "/agents/NOBODY", body: {} }), status: 404, answer: noAgent },
      NotOwner: { request: async (world) => ({ path: `/agents/${(await world.agent()).id}`, body: { status: "paused" } }), status: 403, answer: notOwner },
      AddressForbidden: {
        request: async (world, caller) => ({ path: `/agents/${(await own(world, caller)).id}`, body: { endpoint_url: "http://[::1]:8080/" } }),
        status: 422, answer: addressForbidden
      }
    }
  },
  "autx.agents.provider_key": {
    success: {
      request: async (world, caller) => ({ path: `/agents/${(await own(world, caller)).id}/provider-key`, body: { provider_key: "sk-secret", provider: "anthropic" } }),
      answer: agent
    },
    refusals: {
      NotFound: { request: () => ({ path: "/agents/NOBODY/provider-key", body: { provider_key: "sk-secret" } }), status: 404, answer: noAgent },
      NotOwner: { request: async (world) => ({ path: `/agents/${(await world.agent()).id}/provider-key`, body: { provider_key: "sk-secret" } }), status: 403, answer: notOwner },
      NotConfigured: {
        world: "bare",
        request: async (world, caller) => ({ path: `/agents/${(await own(world, caller)).id}/provider-key`, body: { provider_key: "sk-secret" } }),
        status: 503, answer: { detail: "The operator has not configured SECRETS_KEY, which this needs", retry_after: 300 }
      }
    }
  },
  "autx.jwks": {
    success: {
      request: () => ({}),
      answer: { keys: [{ kty: "OKP", crv: "Ed25519", alg: "EdDSA", use: "sig", x: "<43 characters>", kid: "<43 characters>" }] },
      headers: { "cache-control": /^public, max-age=3600$/ }
    },
    refusals: {}
  },
  "autx.audit.list": {
    success: {
      request: async (world, caller) => {
        await own(world, caller)
        return { path: "/audit?limit=1" }
      },
      answer: [{ id: "<id>", actor: "user:<id>", action: "agent.create", target: "<id>", details: { ticker: "<ticker>", price: "500000" }, created_at: "<time>" }],
      headers: { link: /^<https:\/\/gateway\.test\/v1\/audit\?limit=1&cursor=[\w-]+>; rel="next"$/ }
    },
    refusals: {}
  }
}
