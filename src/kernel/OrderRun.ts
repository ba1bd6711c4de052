/**
 * Asking an agent for one order: prompt or form go out once, the answer is kept
 * whole up to `orderOutputBytesMax`. Never fails: what went wrong is the answer.
 * At the end a body that streams is destroyed, whoever ended it: its writer is
 * never left waiting.
 */
import { Context, Effect, Layer } from "effect"
import { limits } from "../config.ts"
import type { Agent } from "../domain/agent.ts"
import type { AccountId, OrderId } from "../domain/ids.ts"
import { type OrderAnswer, readAnswer } from "../domain/order.ts"
import { AgentCredential } from "./upstream/AgentCredential.ts"
import type { Header } from "./Relay.ts"
import { Upstream } from "./upstream/Upstream.ts"
import { UpstreamBody } from "./upstream/UpstreamBody.ts"
import { targetOf } from "./upstream/agentTarget.ts"
import { AnswerFilter, requestHeaders } from "./upstream/hopByHop.ts"

/** What an agent is sent: whole, or as it comes. */
export interface OrderBody {
  readonly contentType: string
  readonly body: Uint8Array | UpstreamBody
}

export interface Ran {
  readonly answer: OrderAnswer
  /** The agent's status, or 503 when it gave none. */
  readonly status: number
}

const filter = new AnswerFilter(["set-cookie"])

/** An order that is a prompt and no more. */
export const promptBody = (prompt: string): OrderBody => ({ contentType: "application/json", body: Buffer.from(JSON.stringify({ prompt })) })

const failed = (error: string, status = 503): Ran => ({ answer: { _tag: "failed", error }, status })

export class OrderRun extends Context.Service<OrderRun, {
  readonly ask: (agent: Agent, accountId: AccountId, orderId: OrderId, body: OrderBody, trace: ReadonlyArray<Header>) => Effect.Effect<Ran>
}>()("tollgate/kernel/OrderRun") {
  static readonly layer = Layer.effect(OrderRun, Effect.gen(function*() {
    const upstream = yield* Upstream
    const credentials = yield* AgentCredential
    const exchange = (agent: Agent, credential: ReadonlyArray<Header>, orderId: OrderId, { contentType, body }: OrderBody, trace: ReadonlyArray<Header>) => Effect.callback<Ran>((resume) => {
      const outputMax = Math.min(limits.orderOutputBytesMax, agent.manifest?.output?.max_size_bytes ?? Infinity)
      const chunks: Array<Uint8Array> = []
      let size = 0
      let status = 0
      const running = upstream.send({
        agentId: agent.id, agent: agent.ticker, ownerId: agent.ownerId, target: targetOf(agent), query: "", method: "POST",
        headers: requestHeaders([], [
          ["content-type", contentType], ["accept", "application/json, text/plain;q=0.9, */*;q=0.8"],
          ["x-autx-protocol", "1"], ["x-autx-request-id", orderId], ...trace, ...credential
        ]),
        body,
        answer: filter
      }, {
        head: (code) => { status = code },
        chunk: (bytes) => {
          size += bytes.byteLength
          if (size <= outputMax) chunks.push(bytes)
          else {
            running.abort()
            resume(Effect.succeed(failed(`the agent answered more than ${outputMax} bytes`)))
          }
          return true
        },
        end: () => resume(Effect.succeed({ answer: readAnswer(status, Buffer.concat(chunks)), status })),
        failed: (error) => resume(Effect.succeed(failed(`the agent could not be asked: ${error.reason.replaceAll("_", " ")}`)))
      })
      return Effect.sync(() => running.abort())
    })
    return OrderRun.of({
      ask: (agent, accountId, orderId, body, trace) => credentials.get(agent, accountId).pipe(
        Effect.flatMap((credential) => exchange(agent, credential, orderId, body, trace)),
        Effect.catch(() => Effect.succeed(failed("the agent's credential could not be opened"))),
        Effect.ensuring(Effect.sync(() => {
          if (body.body instanceof UpstreamBody) body.body.destroy()
        }))
      )
    })
  }))
}
