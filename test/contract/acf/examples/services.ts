/** Examples of the registry and of discovery. */
import { randomUUID } from "node:crypto"
import { expect } from "vitest"
import { type Owner, type ServiceOptions, owner, service } from "../../../support/acf.ts"
import type { World } from "../../../support/World.ts"
import type { Examples } from "../../Example.ts"

export const noService = { detail: "Service not found" }
export const notYours = { detail: "Not your service" }
const forbidden = { detail: "endpoint: the gateway does not call this address: it must be a public http or https address" }

const price = { price_per_call: "0.05", free_tier_calls: 0 }
export const shown = {
  id: "<id>", provider_id: "<owner>", name: "A service", description: "Scripted by a test", ...price, pricing: { ...price, currency: "USDC", payment_method: "x402" },
  status: "active", category: "ai", tags: [], created_at: "<time>", updated_at: "<time>"
}

export const anothers = async (world: World, options?: ServiceOptions) => service(world, await owner(world, { role: "provider" }), options)
/** A word that no other service has, so that lists hold what the example made. */
const word = (): string => `w${randomUUID().replaceAll("-", "")}`
const found = (name: unknown) => ({ ...shown, name })
const theWord = expect.stringMatching(/^w[0-9a-f]{32}$/)

const called = async (world: World, caller: Owner, options?: ServiceOptions): Promise<string> => {
  const { id } = await anothers(world, options)
  await caller.call("GET", `/api/v1/proxy/${id}/x`)
  return id
}

const createBody = (world: World, more: object = {}) => ({ name: "A service", description: "Scripted by a test", endpoint: world.endpoint(), price_per_call: "0.05", category: "ai", ...more })

export const services: Examples<Owner> = {
  "acf.services.create": {
    success: {
      request: (world) => ({ body: createBody(world, { price_per_call: 0.5, tags: ["nlp", "sentiment"], payment_method: "both", free_tier_calls: 50 }) }),
      answer: {
        ...shown, price_per_call: "0.50", free_tier_calls: 50, tags: ["nlp", "sentiment"],
        pricing: { price_per_call: "0.50", free_tier_calls: 50, currency: "USDC", payment_method: "both" }
      }
    },
    refusals: {
      RuleBroken: { request: (world) => ({ body: createBody(world, { price_per_call: "100.01" }) }), status: 400, answer: { detail: "price_per_call: must be at most 100.00" } },
      AddressForbidden: { request: (world) => ({ body: createBody(world, { endpoint: "http://169.254.169.254/latest" }) }), status: 400, answer: forbidden }
    }
  },
  "acf.services.list": {
    success: {
      request: async (world, caller) => {
        const name = word()
        await service(world, caller, { name })
        return { path: `/api/v1/services?query=${name.toUpperCase()}&category=ai&limit=5` }
      },
      answer: { services: [found(theWord)], count: 1, offset: 0, limit: 5 }
    },
    refusals: { RuleBroken: { request: () => ({ path: "/api/v1/services?status=best" }), status: 400, answer: { detail: "status: must be one of active, paused, removed" } } }
  },
  "acf.services.get": {
    success: { request: async (world, caller) => ({ path: `/api/v1/services/${(await service(world, caller)).id}` }), answer: shown },
    refusals: { NotFound: { request: () => ({ path: `/api/v1/services/${randomUUID()}` }), status: 404, answer: noService } }
  },
  "acf.services.update": {
    success: {
      request: async (world, caller) => ({ path: `/api/v1/services/${(await service(world, caller)).id}`, body: { name: "Renamed", price_per_call: "0.000001", status: "paused", tags: ["x"], free_tier_calls: 3 } }),
      answer: {
        ...shown, name: "Renamed", price_per_call: "0.000001", free_tier_calls: 3, status: "paused", tags: ["x"],
        pricing: { price_per_call: "0.000001", free_tier_calls: 3, currency: "USDC", payment_method: "x402" }
      }
    },
    refusals: {
      NotFound: { request: () => ({ path: "/api/v1/services/nobody", body: {} }), status: 404, answer: noService },
      NotOwner: { request: async (world) => ({ path: `/api/v1/services/${(await anothers(world)).id}`, body: { status: "paused" } }), status: 403, answer: notYours },
      RuleBroken: {
        request: async (world, caller) => ({ path: `/api/v1/services/${(await service(world, caller)).id}`, body: { status: "best" } }),
        status: 400, answer: { detail: "status: must be one of active, paused, removed" }
      },
      AddressForbidden: { request: async (world, caller) => ({ path: `/api/v1/services/${(await service(world, caller)).id}`, body: { endpoint: "http://[::1]/" } }), status: 400, answer: forbidden }
    }
  },
  "acf.services.remove": {
    success: { request: async (world, caller) => ({ path: `/api/v1/services/${(await service(world, caller)).id}` }), answer: { status: "removed", id: "<id>" } },
    refusals: {
      NotFound: { request: () => ({ path: "/api/v1/services/nobody" }), status: 404, answer: noService },
      NotOwner: { request: async (world) => ({ path: `/api/v1/services/${(await anothers(world)).id}` }), status: 403, answer: notYours }
    }
  },
  "acf.discovery.search": {
    success: {
      request: async (world, caller) => {
        const name = word()
        await service(world, caller, { name, tags: ["nlp"], freeTierCalls: 1 })
        return { path: `/api/v1/discover?q=${name}&category=ai&tags=vision,nlp&min_price=0.01&max_price=1.00&payment_method=x402&has_free_tier=true&sort_by=price&limit=10` }
      },
      answer: {
        services: [{ ...found(theWord), tags: ["nlp"], free_tier_calls: 1, pricing: { price_per_call: "0.05", free_tier_calls: 1, currency: "USDC", payment_method: "x402" } }],
        total: 1, offset: 0, limit: 10
      }
    },
    refusals: { RuleBroken: { request: () => ({ path: "/api/v1/discover?sort_by=best" }), status: 400, answer: { detail: "sort_by: must be one of created_at, price, name" } } }
  },
  "acf.discovery.categories": {
    success: {
      request: async (world, caller) => {
        await service(world, caller, { category: "alone" })
        return {}
      },
      answer: { categories: expect.arrayContaining([{ category: "alone", count: expect.any(Number) }]) }
    },
    refusals: {}
  },
  "acf.discovery.trending": {
    success: {
      request: async (world) => {
        const caller = await owner(world)
        await called(world, caller)
        return { path: "/api/v1/discover/trending?limit=1" }
      },
      answer: { trending: [{ service: expect.objectContaining({ id: "<id>", provider_id: "<owner>", status: "active" }), call_count: expect.any(Number), avg_latency_ms: expect.any(Number) }], count: 1 }
    },
    refusals: {}
  },
  "acf.discovery.recommendations": {
    success: {
      request: async (world) => {
        const [caller, category] = [await owner(world), word()]
        await called(world, caller, { category })
        await anothers(world, { category, name: "Recommended" })
        return { path: `/api/v1/discover/recommendations/${caller.name}?limit=1` }
      },
      answer: { recommendations: [{ ...shown, name: "Recommended", category: theWord }], count: 1 }
    },
    refusals: {}
  }
}
