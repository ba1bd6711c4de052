/** Examples of agents' identities and of reputation. */
import { randomUUID } from "node:crypto"
import { expect } from "vitest"
import { type Owner, owner, service } from "../../../support/acf.ts"
import type { World } from "../../../support/World.ts"
import type { Examples } from "../../Example.ts"
import { noService } from "./services.ts"

const wallet = "0x1234567890abcdef1234567890abcdef12345678"
const wanted = { display_name: "My AI Agent", capabilities: ["nlp", "inference"], identity_type: "did_vc", wallet_address: wallet, metadata: { any: "thing" } }
const shown = {
  agent_id: "<id>", display_name: "My AI Agent", identity_type: "did_vc", capabilities: ["nlp", "inference"], wallet_address: wallet, verified: false,
  reputation_score: 0, status: "active", created_at: "<time>", updated_at: "<time>"
}
const noAgent = { detail: "Agent not found" }
const notYours = { detail: "Not your agent" }
const zeros = { overall_score: 0, latency_score: 0, reliability_score: 0, response_quality: 0, call_count: 0 }
const badPeriod = { detail: expect.stringMatching(/^period: must be /) }

const agent = async (by: Owner, more: object = {}): Promise<string> => (await by.call("POST", "/api/v1/agents", { ...wanted, ...more })).json.agent_id
const anothers = async (world: World): Promise<string> => agent(await owner(world))

export const identities: Examples<Owner> = {
  "acf.agents.create": {
    success: { request: () => ({ body: wanted }), answer: { ...shown, owner_id: "<owner>", metadata: { any: "thing" } } },
    refusals: { RuleBroken: { request: () => ({ body: { ...wanted, display_name: " " } }), status: 400, answer: { detail: "display_name: must not be blank" } } }
  },
  "acf.agents.list": {
    success: {
      request: async (_, caller) => {
        await agent(caller)
        return { path: "/api/v1/agents?status=active&limit=1&offset=0" }
      },
      answer: { agents: [shown], count: 1 }
    },
    refusals: { RuleBroken: { request: () => ({ path: "/api/v1/agents?status=best" }), status: 400, answer: { detail: "status: must be one of active, suspended, deactivated" } } }
  },
  "acf.agents.search": {
    success: { request: async (_, caller) => ({ path: `/api/v1/agents/search?q=${(await agent(caller)).toUpperCase()}` }), answer: { agents: [shown], count: 1 } },
    refusals: {}
  },
  "acf.agents.get": {
    success: { request: async (_, caller) => ({ path: `/api/v1/agents/${await agent(caller)}` }), answer: shown },
    refusals: { NotFound: { request: () => ({ path: `/api/v1/agents/${randomUUID()}` }), status: 404, answer: noAgent } }
  },
  "acf.agents.update": {
    success: {
      request: async (_, caller) => ({ path: `/api/v1/agents/${await agent(caller)}`, body: { display_name: "Renamed", capabilities: [], status: "suspended", wallet_address: null, metadata: {} } }),
      answer: { ...shown, display_name: "Renamed", capabilities: [], status: "suspended", wallet_address: null, owner_id: "<owner>", metadata: {} }
    },
    refusals: {
      NotFound: { request: () => ({ path: "/api/v1/agents/nobody", body: {} }), status: 404, answer: noAgent },
      NotOwner: { request: async (world) => ({ path: `/api/v1/agents/${await anothers(world)}`, body: { status: "suspended" } }), status: 403, answer: notYours },
      RuleBroken: {
        request: async (_, caller) => ({ path: `/api/v1/agents/${await agent(caller)}`, body: { status: "best" } }),
        status: 400, answer: { detail: "status: must be one of active, suspended, deactivated" }
      }
    }
  },
  "acf.agents.delete": {
    success: { request: async (_, caller) => ({ path: `/api/v1/agents/${await agent(caller)}` }), answer: { status: "deactivated", agent_id: "<id>" } },
    refusals: {
      NotFound: { request: () => ({ path: "/api/v1/agents/nobody" }), status: 404, answer: noAgent },
      NotOwner: { request: async (world) => ({ path: `/api/v1/agents/${await anothers(world)}` }), status: 403, answer: notYours }
    }
  },
  "acf.agents.verify": {
    success: { request: async (world) => ({ path: `/api/v1/agents/${await anothers(world)}/verify` }), answer: { ...shown, verified: true, owner_id: "<owner>" } },
    refusals: { NotFound: { request: () => ({ path: "/api/v1/agents/nobody/verify" }), status: 404, answer: noAgent } }
  },
  "acf.reputation.agent": {
    success: {
      request: async (world, caller) => {
        const [{ id }, buyer] = [await service(world, caller), await owner(world)]
        await buyer.call("GET", `/api/v1/proxy/${id}/x`)
        return { path: `/api/v1/agents/${await agent(caller)}/reputation?compute=true` }
      },
      answer: { agent_id: "<id>", service_id: "", overall_score: expect.any(Number), latency_score: expect.any(Number), reliability_score: 10, response_quality: 10, call_count: 1, period: "all-time" }
    },
    refusals: { RuleBroken: { request: (_, { name }) => ({ path: `/api/v1/agents/${name}/reputation?period=2026-13` }), status: 400, answer: badPeriod } }
  },
  "acf.reputation.service": {
    success: {
      request: async (world, caller) => ({ path: `/api/v1/services/${(await service(world, caller)).id}/reputation?period=2026-03` }),
      answer: { service_id: "<id>", period: "2026-03", records: [{ agent_id: "<owner>", ...zeros }] }
    },
    refusals: {
      RuleBroken: { request: async (world, caller) => ({ path: `/api/v1/services/${(await service(world, caller)).id}/reputation?period=March` }), status: 400, answer: badPeriod },
      NotFound: { request: () => ({ path: "/api/v1/services/nobody/reputation" }), status: 404, answer: noService }
    }
  },
  "acf.reputation.leaderboard": {
    success: {
      request: async (_, caller) => {
        await agent(caller)
        return { path: "/api/v1/reputation/leaderboard?limit=1" }
      },
      answer: { leaderboard: [{ agent_id: "<id>", display_name: "My AI Agent", reputation_score: expect.any(Number), verified: expect.any(Boolean) }], count: 1 }
    },
    refusals: {}
  }
}
