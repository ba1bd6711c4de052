/** Examples of what is called and paid for: the proxy with each method, usage, balances, deposits. */
import { expect } from "vitest"
import type { GatewayErrorTag } from "../../../../src/domain/errors.ts"
import type { Owner } from "../../../support/acf.ts"
import type { Reply, World } from "../../../support/World.ts"
import { adminSecret } from "../../Acf.ts"
import type { Examples, Refusal, RowExamples } from "../../Example.ts"
import { afterFive, from, tooMany } from "./keys.ts"
import { anothers, noService } from "./services.ts"

const respond = () => ({ headers: { "content-type": "application/json" }, body: JSON.stringify({ response: "All is well" }) })
const bill = (amount: RegExp) => ({ "x-acf-usage-id": /^[0-9a-f-]{36}$/, "x-acf-amount": amount, "x-acf-free-tier": /^false$/, "x-acf-latency-ms": /^\d+$/ })

const proxied = (method: string): RowExamples<Owner> => {
  const body = method === "GET" || method === "DELETE" ? {} : { body: { text: "Analyze this document" } }
  const refusals: { readonly [T in GatewayErrorTag]?: Refusal<Owner> } = {
    NotFound: { request: () => ({ path: "/api/v1/proxy/nobody/x", ...body }), status: 404, answer: noService },
    AgentPaused: {
      request: async (world) => {
        const { id, owner } = await anothers(world)
        await owner.call("PATCH", `/api/v1/services/${id}`, { status: "paused" })
        return { path: `/api/v1/proxy/${id}/x`, ...body }
      },
      status: 400, answer: { detail: "Service is not active" }
    },
    AgentUnavailable: { request: async (world) => ({ path: `/api/v1/proxy/${(await anothers(world, { respond: () => "drop" })).id}/x`, ...body }), status: 502, answer: { detail: "The provider broke off its answer" } },
    InsufficientCredits: {
      world: "bare",
      request: async (world) => ({ path: `/api/v1/proxy/${(await anothers(world, { paymentMethod: "credits" })).id}/x`, ...body }),
      status: 402, answer: { detail: "Insufficient credits: 0.05 are needed, 0.00 are available" }
    },
    InvalidRequest: {
      request: async (world) => ({ path: `/api/v1/proxy/${(await anothers(world)).id}/x`, ...body, headers: { "idempotency-key": "x".repeat(256) } }),
      status: 422, answer: { detail: expect.stringMatching(/^header\.idempotency-key: /), errors: [{ loc: ["header", "idempotency-key"], msg: expect.any(String) }] }
    },
    IdempotencyKeyReused: {
      request: async (world, caller) => {
        const [one, other] = [await anothers(world), await anothers(world)]
        const headers = { "idempotency-key": "once" }
        await caller.call(method, `/api/v1/proxy/${one.id}/x`, "body" in body ? body.body : undefined, headers)
        return { path: `/api/v1/proxy/${other.id}/x`, ...body, headers }
      },
      status: 409, answer: { detail: "This Idempotency-Key came before with another request" }
    }
  }
  return {
    success: {
      request: async (world) => ({ path: `/api/v1/proxy/${(await anothers(world, { respond })).id}/analyze?lang=en`, ...body }),
      answer: { response: "All is well" },
      headers: { ...bill(/^0\.05$/), "content-type": /^application\/json$/ }
    },
    refusals
  }
}

const spent = async (world: World, caller: Owner): Promise<Reply> => caller.call("GET", `/api/v1/proxy/${(await anothers(world)).id}/x`)
const own = (caller: Owner, more: object) => ({ body: { amount: "10.00", buyer_id: caller.name, ...more } })
const amountRule = { detail: "amount: must be more than 0 and at most 10000" }
const secret = { "x-admin-key": adminSecret }

export const calls: Examples<Owner> = {
  "acf.proxy.get": proxied("GET"),
  "acf.proxy.post": proxied("POST"),
  "acf.proxy.put": proxied("PUT"),
  "acf.proxy.patch": proxied("PATCH"),
  "acf.proxy.delete": proxied("DELETE"),
  "acf.usage.me": {
    success: {
      request: async (world, caller) => {
        await spent(world, caller)
        await spent(world, caller)
        return {}
      },
      answer: { buyer_id: "<owner>", total_calls: 2, total_spent_usd: "0.10", avg_latency_ms: expect.any(Number) }
    },
    refusals: {}
  },
  "acf.balance.get": {
    success: {
      request: async (world, caller) => {
        await world.call("POST", `/acf/api/v1/admin/credit?buyer_id=${caller.name}&amount=2.50`, { headers: secret })
        return { path: `/api/v1/balance/${caller.name}` }
      },
      answer: { buyer_id: "<owner>", balance: 2.5, total_deposited: 2.5, total_spent: 0 }
    },
    refusals: {
      NotOwner: { request: () => ({ path: "/api/v1/balance/operator" }), status: 403, answer: { detail: "Not your account" } }
    }
  },
  "acf.deposits.create": {
    success: {
      request: (_, caller) => own(caller, {}),
      answer: { deposit_id: "<id>", amount: 10, status: "pending", checkout_url: null, message: "Quote this deposit_id to the operator, who credits it when it is paid." }
    },
    refusals: {
      NotOwner: { request: (_, caller) => own(caller, { buyer_id: "operator" }), status: 403, answer: { detail: "Not your account" } },
      RuleBroken: { request: (_, caller) => own(caller, { amount: "10000.01" }), status: 400, answer: amountRule }
    }
  },
  "acf.admin.credit": {
    success: {
      request: (_, { name }) => ({ path: `/api/v1/admin/credit?buyer_id=${name}&amount=12.5`, headers: secret }),
      answer: { buyer_id: "<owner>", credited: 12.5, new_balance: 12.5 }
    },
    refusals: {
      NotConfigured: {
        world: "bare",
        request: (_, { name }) => ({ path: `/api/v1/admin/credit?buyer_id=${name}&amount=1`, headers: secret }),
        status: 503, answer: { detail: "The operator has not configured ACF_ADMIN_SECRET, which this needs" }
      },
      Unauthenticated: {
        request: (_, { name }) => ({ path: `/api/v1/admin/credit?buyer_id=${name}&amount=1`, headers: { "x-admin-key": "not it" } }),
        status: 401, answer: { detail: "Invalid API key" }
      },
      TooManyAttempts: {
        request: (world) => afterFive(world, "POST", "/api/v1/admin/credit?buyer_id=operator&amount=1", { path: "/api/v1/admin/credit?buyer_id=operator&amount=1", headers: { "x-admin-key": "not it", ...from("192.0.2.4") } }),
        status: 429, answer: tooMany
      },
      RuleBroken: { request: (_, { name }) => ({ path: `/api/v1/admin/credit?buyer_id=${name}&amount=0`, headers: secret }), status: 400, answer: amountRule },
      NotFound: { request: () => ({ path: "/api/v1/admin/credit?buyer_id=nobody&amount=1", headers: secret }), status: 404, answer: { detail: "Buyer not found" } }
    }
  }
}
