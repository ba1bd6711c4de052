/** Examples of keys, templates and what the API says of itself. */
import { randomUUID } from "node:crypto"
import { type Owner, owner } from "../../../support/acf.ts"
import type { World } from "../../../support/World.ts"
import type { Examples, Request } from "../../Example.ts"

const missing = "Missing API key: send the header Authorization: Bearer {key_id}:{secret}"
export const tooMany = { detail: "Rate limit exceeded. Try again later." }
export const wrongKey = `acf_${"0".repeat(16)}:sec_${"x".repeat(43)}`

export const from = (address: string) => ({ "x-forwarded-for": address })
/** Does the same five times; the sixth is the example. */
export const afterFive = async (world: World, method: string, path: string, request: Request): Promise<Request> => {
  for (let i = 0; i < 5; i++) await world.call(method, `/acf${path}`, request)
  return request
}
/** A key whose account an operator has suspended. */
export const suspended = async (world: World): Promise<Owner> => {
  const person = await owner(world, { role: "admin" })
  await world.alter(person, (sql) => sql`update accounts set status = 'suspended' where id = ${person.accountId}`)
  return person
}

const named = (more: object = {}) => ({ owner_id: `owner-${randomUUID()}`, ...more })
const pair = (token: string) => ({ key_id: token.slice(0, token.indexOf(":")), secret: token.slice(token.indexOf(":") + 1) })

export const keys: Examples<Owner> = {
  "acf.keys.create": {
    success: {
      request: () => ({ body: named({ wallet_address: "0x1234567890abcdef1234567890abcdef12345678" }) }),
      answer: { key_id: "<key id>", secret: "<secret>", role: "buyer", rate_limit: 60, message: "Save the secret — it cannot be retrieved again." }
    },
    refusals: {
      RuleBroken: { request: () => ({ body: named({ role: "root" }) }), status: 400, answer: { detail: "role: must be one of buyer, provider, admin" } },
      Unauthenticated: { request: () => ({ body: named({ role: "provider" }) }), status: 401, answer: { detail: missing } },
      NotOwner: { request: (_, { name }) => ({ body: { owner_id: name } }), status: 403, answer: { detail: "Not your owner" } },
      ScopeMissing: {
        request: (_, { token }) => ({ token, body: named({ role: "admin" }) }),
        status: 403, answer: { detail: "Insufficient permissions: this needs a key of the role admin" }
      },
      AccountSuspended: { request: async (world) => ({ token: (await suspended(world)).token, body: named() }), status: 403, answer: { detail: "The account is suspended: contact the operator" } },
      TooManyAttempts: {
        request: (world) => afterFive(world, "POST", "/api/v1/keys", { token: wrongKey, body: named(), headers: from("192.0.2.1") }),
        status: 429, answer: tooMany
      }
    }
  },
  "acf.keys.validate": {
    success: { request: (_, { token }) => ({ body: pair(token) }), answer: { valid: true, owner_id: "<owner>", role: "provider", rate_limit: 100_000 } },
    refusals: {
      Unauthenticated: { request: (_, { keyId }) => ({ body: { key_id: keyId, secret: "sec_wrong" } }), status: 401, answer: { detail: "Invalid API key" } },
      AccountSuspended: { request: async (world) => ({ body: pair((await suspended(world)).token) }), status: 403, answer: { detail: "The account is suspended: contact the operator" } },
      TooManyAttempts: {
        request: (world) => afterFive(world, "POST", "/api/v1/keys/validate", { body: pair(wrongKey), headers: from("192.0.2.2") }),
        status: 429, answer: tooMany
      }
    }
  },
  "acf.templates.teams": {
    success: {
      request: () => ({}),
      answer: {
        templates: [
          { name: "solo", agents: 1, quality_gates: [{ type: "quality_score", threshold: 7 }], description: "Single agent for individual developers" },
          { name: "small_team", agents: 4, quality_gates: [{ type: "quality_score", threshold: 8 }, { type: "quality_score", threshold: 8.5 }], description: "Collaborative team with keyword routing" },
          {
            name: "enterprise", agents: 6, quality_gates: [{ type: "quality_score", threshold: 8.5 }, { type: "quality_score", threshold: 9 }, { type: "quality_score", threshold: 9 }],
            description: "Production-grade with skill-based routing"
          }
        ]
      }
    },
    refusals: {}
  },
  "acf.templates.services": {
    success: {
      request: () => ({}),
      answer: {
        templates: [
          { name: "ai_api", category: "ai", price_per_call: "0.05", free_tier_calls: 100 },
          { name: "data_pipeline", category: "data", price_per_call: "0.10", free_tier_calls: 50 },
          { name: "content_api", category: "content", price_per_call: "0.02", free_tier_calls: 200 }
        ]
      }
    },
    refusals: {}
  },
  "acf.about.get": { success: { request: () => ({}), answer: { service: "Agent Commerce Framework", version: "0.6.0", docs: "/docs" } }, refusals: {} },
  "acf.about.health": { success: { request: () => ({}), answer: { status: "ok", timestamp: "<time>" } }, refusals: {} },
  "acf.about.agents": {
    success: {
      request: () => ({}),
      answer: {
        name: "Agent Commerce Framework", description: "A market of services: find one, call it through the proxy, and have every call metered.", version: "0.6.0",
        api: "https://gateway.test/acf", openapi: "https://gateway.test/acf/openapi.json", docs: "https://gateway.test/docs",
        services: "https://gateway.test/acf/api/v1/services", discover: "https://gateway.test/acf/api/v1/discover",
        authentication: { type: "bearer", format: "{key_id}:{secret}", keys: "https://gateway.test/acf/api/v1/keys" }
      },
      headers: { "cache-control": /^public, max-age=3600$/ }
    },
    refusals: {}
  }
}
