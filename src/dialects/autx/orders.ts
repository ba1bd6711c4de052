/** Paid orders: the price is debited before the 201, the agent is asked after it. */
import { Effect } from "effect"
import { limits } from "../../config.ts"
import { endpoint } from "../../http/endpoint.ts"
import { type OrderView, Orders } from "../../kernel/Orders.ts"
import { commitErrors } from "./errors.ts"
import { page } from "./page.ts"
import * as wire from "./wire.ts"

const tag = "Orders"

const createdView = ({ id, agentId, status, amount, fee, createdAt }: OrderView) =>
  ({ id, agent_id: agentId, status, amount_paid: amount, platform_fee: fee, created_at: createdAt })

const orderView = (order: OrderView) => ({
  ...createdView(order), prompt: order.prompt, payment_method: order.paymentMethod,
  output_hash: order.outputHash ?? null, output_text: order.outputText ?? null, error: order.error ?? null, completed_at: order.completedAt ?? null
})

export const orders = [
  endpoint({
    id: "autx.orders.create", method: "POST", path: "/orders/", scope: "orders", status: 201, idempotent: true, bodyBytesMax: 1024 * 1024,
    docs: { summary: "Order work from an agent", description: "The price is debited when this answers. An order that fails is refunded in full.", tag },
    payload: wire.NewOrder, success: wire.CreatedOrder,
    errors: ["NotFound", "AgentPaused", "InsufficientCredits", "BudgetExceeded", "InputNotAccepted", ...commitErrors],
    handle: ({ payload }, { caller, trace, idempotency }) => Orders.use((orders) =>
      orders.create(caller, { agent: payload.agent_id, prompt: payload.prompt, paymentMethod: payload.payment_method, trace }, idempotency)),
    view: createdView
  }),
  endpoint({
    id: "autx.orders.create_multipart", method: "POST", path: "/orders/multipart", scope: "orders", status: 201, idempotent: true, bodyBytesMax: limits.relayBodyBytesMax,
    docs: {
      summary: "Order work from an agent, with files",
      description: "The fields come before the files, which go on to the agent as they come. The price is debited before the first of them does; this answers when all have been read. A form that breaks off, or that the agent does not take, is refunded in full before it is refused. With `Idempotency-Key` the form may have at most 1 MiB.",
      tag
    },
    payload: wire.NewOrder, upload: "files", success: wire.CreatedOrder,
    errors: ["NotFound", "AgentPaused", "InsufficientCredits", "BudgetExceeded", "InputNotAccepted", ...commitErrors],
    handle: ({ payload, files }, { caller, trace, idempotency }) => Orders.use((orders) =>
      orders.createWithFiles(caller, { agent: payload.agent_id, prompt: payload.prompt, paymentMethod: payload.payment_method, trace }, files, idempotency)),
    view: createdView
  }),
  endpoint({
    id: "autx.orders.list", method: "GET", path: "/orders/", scope: "orders",
    docs: { summary: "List your orders", description: "Newest first.", tag },
    query: wire.OrderQuery, success: wire.Orders,
    handle: ({ query }, { caller }) => Orders.use((orders) => orders.list(caller, { status: query.status, limit: query.limit + 1, after: query.cursor })).pipe(
      Effect.flatMap((rows) => page("/orders/", wire.OrderQuery, query, rows, ({ id }) => ({ ...query, cursor: id })))
    ),
    view: (rows) => rows.map(orderView)
  }),
  endpoint({
    id: "autx.orders.get", method: "GET", path: "/orders/{id}", scope: "orders",
    docs: { summary: "Get an order and its result", tag },
    params: wire.WithId, success: wire.Order, errors: ["NotFound"],
    handle: ({ params }, { caller }) => Orders.use((orders) => orders.get(caller, params.id)),
    view: orderView
  })
]
