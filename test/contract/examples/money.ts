/** Examples of what costs or moves money: proxy calls, orders, credits. */
import { settledOrder } from "../Autx.ts"
import type { Examples, Request } from "../Example.ts"
import { formOf } from "../../support/Form.ts"
import type { Person, World } from "../../support/World.ts"

const noAgent = { detail: "No such agent: check the id or ticker, or list agents with GET /agents/" }
const short = { detail: "Insufficient credits", required_usd: "0.50", available_usd: "0.10", held_usd: "0.00", hint: "Add credits, then try again" }
const overBudget = {
  detail: "The API key's budget for today does not cover this call", required_usd: "0.50", available_usd: "0.20", held_usd: "0.00",
  budget_usd: "0.20", window: "day", spent_usd: "0.00", resets_at: "<time>", hint: "Try again when the budget has reset, or use another key"
}
const paused = { detail: "The agent <ticker> is paused. Nothing was charged", retry_after: 60 }

const orderOf = (agentId: string) => ({ agent_id: agentId, prompt: "Analyze this data", payment_method: "credits" })
const formFor = (agentId: string) => formOf(orderOf(agentId), [{ name: "data.csv", type: "text/csv; charset=utf-8", content: "a,b\n1,2\n" }])
const created = { id: "<id>", agent_id: "<id>", status: "pending", amount_paid: 0.5, platform_fee: 0.05, created_at: "<time>" }
const completed = {
  ...created, status: "completed", prompt: "Analyze this data", payment_method: "credits",
  output_hash: "sha256:0a62a6f248f6f91e799dffe77779130729143139384642041d66c6ca964856a9", output_text: "All is well", error: null, completed_at: "<time>"
}

const respond = () => ({ headers: { "content-type": "application/json" }, body: JSON.stringify({ response: "All is well" }) })
const priced = (world: World) => world.agent({ price: "0.50", respond })
const pausedAgent = async (world: World) => {
  const agent = await priced(world)
  await world.call("PATCH", `/v1/agents/${agent.id}`, { token: agent.owner.accessToken, body: { status: "paused" } })
  return agent
}
const budgetKey = async (caller: Person, scope: string): Promise<string> => {
  await caller.fund("5.00")
  return (await caller.key(scope, { budgets: [{ amount_usd: "0.20", window: "day" }] })).key
}
const finishedOrder = async (world: World, caller: Person): Promise<string> => {
  const agent = await priced(world)
  await caller.fund("2.00")
  const { json } = await world.call("POST", "/v1/orders", { token: caller.accessToken, body: orderOf(agent.id) })
  await settledOrder(world, caller.accessToken, json.id)
  return json.id
}
/** A paid proxy call that was made before with the same key. */
const repeated = async (world: World, caller: Person, body: string, again: string): Promise<Request> => {
  const { ticker } = await priced(world)
  await caller.fund("2.00")
  const request = { path: `/proxy/${ticker}`, headers: { "idempotency-key": "once", "content-type": "text/plain" } }
  await world.call("POST", `/v1${request.path}`, { ...request, token: caller.accessToken, body })
  return { ...request, body: again }
}

export const money: Examples = {
  "autx.proxy": {
    success: {
      request: async (world) => ({ path: `/proxy/${(await priced(world)).ticker}`, body: { prompt: "Hello" } }),
      answer: { response: "All is well" },
      headers: { "x-autx-agent": /^T0/, "x-autx-latency-ms": /^\d+$/, "x-autx-request-id": /^[\w-]+$/, "content-security-policy": /^sandbox$/, "content-type": /^application\/json$/ }
    },
    refusals: {
      NotFound: { request: () => ({ path: "/proxy/NOBODY", body: {} }), status: 404, answer: noAgent },
      AgentPaused: { request: async (world) => ({ path: `/proxy/${(await pausedAgent(world)).ticker}` }), status: 503, answer: paused },
      AgentUnavailable: {
        request: async (world) => ({ path: `/proxy/${(await world.agent({ respond: () => "drop" })).ticker}` }),
        status: 503, answer: { detail: "The agent <ticker> broke off its answer. Nothing was charged; try again in a second", retry_after: 1 }
      },
      InsufficientCredits: {
        world: "paid",
        request: async (world, caller) => {
          await caller.fund("0.10")
          return { path: `/proxy/${(await priced(world)).ticker}`, body: {} }
        },
        status: 402, answer: short
      },
      BudgetExceeded: {
        world: "paid",
        request: async (world, caller) => ({ path: `/proxy/${(await priced(world)).ticker}`, token: await budgetKey(caller, "proxy"), body: {} }),
        status: 402, answer: overBudget
      },
      InvalidRequest: {
        world: "paid",
        request: async (world) => ({ path: `/proxy/${(await priced(world)).ticker}`, headers: { "idempotency-key": "k".repeat(256) } }),
        status: 422,
        answer: {
          detail: "header.idempotency-key: must be 1 to 255 visible ASCII characters",
          errors: [{ loc: ["header", "idempotency-key"], msg: "must be 1 to 255 visible ASCII characters" }]
        }
      },
      IdempotencyKeyReused: {
        world: "paid",
        request: (world, caller) => repeated(world, caller, "one", "another"),
        status: 409, answer: { detail: "This Idempotency-Key came before with another request: repeat that request unchanged, or use another key" }
      }
    }
  },
  "autx.orders.create": {
    success: {
      request: async (world, caller) => {
        await caller.fund("2.00")
        return { body: orderOf((await priced(world)).ticker) }
      },
      answer: created
    },
    refusals: {
      NotFound: { request: () => ({ body: orderOf("NOBODY") }), status: 404, answer: noAgent },
      AgentPaused: { request: async (world) => ({ body: orderOf((await pausedAgent(world)).id) }), status: 503, answer: paused },
      InsufficientCredits: {
        request: async (world, caller) => {
          await caller.fund("0.10")
          return { body: orderOf((await priced(world)).id) }
        },
        status: 402, answer: short
      },
      BudgetExceeded: {
        request: async (world, caller) => ({ token: await budgetKey(caller, "orders"), body: orderOf((await priced(world)).id) }),
        status: 402, answer: overBudget
      },
      InputNotAccepted: {
        request: async (world) => ({ body: orderOf((await world.agent({ more: { manifest: { input: { type: "multipart" } } } })).id) }),
        status: 422, answer: { detail: "The agent takes other input: multipart" }
      }
    }
  },
  "autx.orders.create_multipart": {
    success: {
      request: async (world, caller) => {
        await caller.fund("2.00")
        return formFor((await priced(world)).ticker)
      },
      answer: created
    },
    refusals: {
      NotFound: { request: () => formFor("NOBODY"), status: 404, answer: noAgent },
      AgentPaused: { request: async (world) => formFor((await pausedAgent(world)).id), status: 503, answer: paused },
      InsufficientCredits: {
        request: async (world, caller) => {
          await caller.fund("0.10")
          return formFor((await priced(world)).id)
        },
        status: 402, answer: short
      },
      BudgetExceeded: {
        request: async (world, caller) => ({ token: await budgetKey(caller, "orders"), ...formFor((await priced(world)).id) }),
        status: 402, answer: overBudget
      },
      InputNotAccepted: {
        request: async (world) => formFor((await world.agent({ more: { manifest: { input: { file_types: [".pdf", ".txt"] } } } })).id),
        status: 422, answer: { detail: "The agent takes other input: files of the types .pdf, .txt" }
      }
    }
  },
  "autx.orders.list": {
    success: {
      request: async (world, caller) => {
        await finishedOrder(world, caller)
        return { path: "/orders/?status=completed" }
      },
      answer: [completed]
    },
    refusals: {}
  },
  "autx.orders.get": {
    success: { request: async (world, caller) => ({ path: `/orders/${await finishedOrder(world, caller)}` }), answer: completed },
    refusals: {
      NotFound: {
        request: async (world) => ({ path: `/orders/${await finishedOrder(world, await world.user())}` }),
        status: 404, answer: { detail: "No such order among yours" }
      }
    }
  },
  "autx.credits.balance": {
    success: {
      request: async (_, caller) => {
        await caller.fund("9.95")
        return {}
      },
      answer: { balance_usd: "9.95", reserved_usd: "0.00", available_usdc: "9.95", reserved_usdc: "0.00" }
    },
    refusals: {}
  },
  "autx.credits.holds": {
    success: {
      request: async (world, caller) => {
        const agent = await world.agent({ price: "0.50", respond: () => new Promise(() => {}) })
        await caller.fund("2.00")
        await world.call("POST", "/v1/orders", { token: caller.accessToken, body: orderOf(agent.id) })
        return {}
      },
      answer: [{ id: "<id>", amount_usd: "0.50", call: "order", agent_ticker: "<ticker>", expires_at: null }]
    },
    refusals: {}
  },
  "autx.credits.transactions": {
    success: {
      request: async (world, caller) => {
        await finishedOrder(world, caller)
        return {}
      },
      answer: [
        { id: "<id>", type: "charge", amount_usd: "-0.50", balance_after: "1.50", agent_ticker: "<ticker>", order_id: "<id>", created_at: "<time>" },
        { id: "<id>", type: "deposit", amount_usd: "2.00", balance_after: "2.00", created_at: "<time>" }
      ]
    },
    refusals: {}
  },
  "autx.credits.deposit_test": {
    success: { request: () => ({ body: { amount: 10.000001 } }), answer: { balance_usd: "10.000001" } },
    refusals: {
      NotFound: { world: "bare", request: () => ({ body: { amount: "10.00" } }), status: 404, answer: { detail: "There is nothing at this path" } }
    }
  }
}
