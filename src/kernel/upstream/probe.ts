/**
 * Asks an endpoint whether it is there: one GET to it, as guarded as any call
 * to an agent. Any answer below 500 will do; it is not read, and a redirect is
 * not followed. Never fails: what went wrong is the answer, in words that tell
 * nothing of the gateway's own network.
 *
 * It has a circuit of its own, so that an owner who tries an endpoint that is
 * down does not take it away from its callers.
 */
import { Effect } from "effect"
import type { Agent } from "../../domain/agent.ts"
import type { AgentUnavailable } from "../../domain/errors.ts"
import type { Upstream } from "./Upstream.ts"
import { targetOf } from "./agentTarget.ts"
import { AnswerFilter, requestHeaders } from "./hopByHop.ts"

export interface Probed {
  readonly reachable: boolean
  readonly latencyMs: number
  /** 0 when there was no answer. */
  readonly status: number
  /** Empty when it is reachable. */
  readonly error: string
}

const probeMs = 10_000
const nothing = new AnswerFilter([])
const timedOut = "Connection timed out"

const words = ({ reason, retryAfterMs }: AgentUnavailable): string => {
  switch (reason) {
    case "unreachable": return "Connection failed"
    case "timeout": return timedOut
    case "broken_answer": return "The answer is not HTTP"
    case "address_forbidden": return "The address is not a public one: it is not called"
    case "busy": return "Not tried: too many tests are running"
    case "circuit_open": return `Not tried: it failed too often, try again in ${Math.ceil(retryAfterMs / 1000)} s`
  }
}

export const probe = (upstream: Upstream["Service"], agent: Agent): Effect.Effect<Probed> => Effect.suspend(() => {
  const beganMs = performance.now()
  const result = (status: number, error: string): Probed => ({
    reachable: error === "", latencyMs: Math.round(performance.now() - beganMs), status, error
  })
  const asked = Effect.callback<Probed>((resume) => {
    const exchange = upstream.send({
      agentId: `test ${agent.id}`, agent: agent.ticker, ownerId: agent.ownerId, target: targetOf(agent), query: "", method: "GET",
      headers: requestHeaders([], [["accept", "*/*"]]), body: null, answer: nothing
    }, {
      head: (status) => {
        resume(Effect.succeed(result(status, status < 500 ? "" : `It answers with status ${status}`)))
        exchange.abort()
      },
      chunk: () => true,
      end: () => {},
      failed: (error) => resume(Effect.succeed(result(0, words(error))))
    })
    return Effect.sync(() => exchange.abort())
  })
  return asked.pipe(Effect.timeoutOrElse({ duration: probeMs, orElse: () => Effect.sync(() => result(0, timedOut)) }))
})
