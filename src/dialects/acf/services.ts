/** The registry: services and what their owners change. */
import { Effect } from "effect"
import { endpoint } from "../../http/endpoint.ts"
import { type ServicePatch, Services } from "../../kernel/market/Services.ts"
import { commitErrors } from "./errors.ts"
import * as wire from "./wire/services.ts"

const tag = "Services"

type Service = Effect.Success<ReturnType<Services["Service"]["get"]>>

/** As everybody sees it, its owner too. */
export const serviceView = ({ agent, provider }: Service) => {
  const price = { price_per_call: agent.price, free_tier_calls: agent.freeTierCalls }
  return {
    id: agent.id, provider_id: provider, name: agent.name, description: agent.description, ...price,
    pricing: { ...price, currency: "USDC", payment_method: agent.paymentMethod },
    status: agent.status, category: agent.category, tags: agent.tags,
    created_at: new Date(agent.createdAtMs), updated_at: new Date(agent.updatedAtMs)
  }
}

const patchOf = ({ endpoint: endpointUrl, price_per_call: price, free_tier_calls: freeTierCalls, ...same }: typeof wire.ServicePatch.Type): ServicePatch => ({
  ...same,
  ...(endpointUrl === undefined ? {} : { endpointUrl }),
  ...(price === undefined ? {} : { price }),
  ...(freeTierCalls === undefined ? {} : { freeTierCalls })
})

export const services = [
  endpoint({
    id: "acf.services.create", method: "POST", path: "/api/v1/services", auth: "key", scope: "provider", uncounted: true, status: 201, decimals: true, idempotent: true,
    docs: { summary: "Register a service", description: "A call costs 0 to 100 US dollars, beyond the first `free_tier_calls` of each buyer.", tag },
    payload: wire.NewService, success: wire.Service, errors: ["RuleBroken", "AddressForbidden", ...commitErrors],
    handle: ({ payload }, { caller, idempotency }) => Services.use((services) => services.register(caller, {
      name: payload.name, description: payload.description, category: payload.category, endpointUrl: payload.endpoint,
      price: payload.price_per_call, freeTierCalls: payload.free_tier_calls, tags: payload.tags, paymentMethod: payload.payment_method
    }, idempotency)),
    view: serviceView
  }),
  endpoint({
    id: "acf.services.list", method: "GET", path: "/api/v1/services", auth: "public",
    docs: { summary: "List services", description: "Newest first.", tag },
    query: wire.ServiceQuery, success: wire.Services, errors: ["RuleBroken", "StoreUnavailable"],
    handle: ({ query: { query: text, ...rest } }) => Services.use((services) => services.list({ text, ...rest })).pipe(
      Effect.map((found) => ({ found, offset: rest.offset, limit: rest.limit }))),
    view: ({ found, ...page }) => ({ services: found.map(serviceView), count: found.length, ...page })
  }),
  endpoint({
    id: "acf.services.get", method: "GET", path: "/api/v1/services/{service_id}", auth: "public",
    docs: { summary: "Get a service", description: "Also one that is paused or removed.", tag },
    params: wire.WithService, success: wire.Service, errors: ["NotFound", "StoreUnavailable"],
    handle: ({ params }) => Services.use((services) => services.get(params.service_id)),
    view: serviceView
  }),
  endpoint({
    id: "acf.services.update", method: "PATCH", path: "/api/v1/services/{service_id}", auth: "key", scope: "provider", uncounted: true, decimals: true,
    docs: { summary: "Change a service", description: "By its owner. Fields that are left out stay as they are. What was listed through another dialect is changed the same way.", tag },
    params: wire.WithService, payload: wire.ServicePatch, success: wire.Service, errors: ["NotFound", "NotOwner", "RuleBroken", "AddressForbidden", ...commitErrors],
    handle: ({ params, payload }, { caller }) => Services.use((services) => services.patch(caller, params.service_id, patchOf(payload))),
    view: serviceView
  }),
  endpoint({
    id: "acf.services.remove", method: "DELETE", path: "/api/v1/services/{service_id}", auth: "key", scope: "provider", uncounted: true,
    docs: { summary: "Remove a service", description: "By its owner. It is neither listed nor called any more, and stays readable by its id.", tag },
    params: wire.WithService, success: wire.RemovedService, errors: ["NotFound", "NotOwner", ...commitErrors],
    handle: ({ params }, { caller }) => Services.use((services) => services.patch(caller, params.service_id, { status: "removed" })),
    view: ({ agent }) => ({ status: agent.status, id: agent.id })
  })
]
