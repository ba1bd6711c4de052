/**
 * How often each buyer has cancelled turns of each agent today after the agent
 * had begun to answer. Such a turn is free, as the product promises; so that
 * nobody lives on it, new turns of that buyer with that agent are refused for
 * the rest of the UTC day once there were too many.
 *
 * Counted here at once and in the database by the buyer's next commit; a crash
 * forgets at most what was not committed yet. Bounded: a day that leaves memory
 * is read again. What is counted on other nodes is learnt within `otherNodesMs`.
 */
import { Context, Effect, Layer } from "effect"
import { Cluster } from "../../cluster/Cluster.ts"
import { Config, limits } from "../../config.ts"
import type { Agent } from "../../domain/agent.ts"
import { LateCancels as TooManyLateCancels } from "../../domain/chat.ts"
import type { StoreUnavailable } from "../../domain/errors.ts"
import { Postgres } from "../../store/Postgres.ts"
import { lateCancelsOn } from "../../store/SessionStore.ts"
import { metrics } from "../../telemetry/Metrics.ts"
import { type Spender, Spending } from "../lease/Spending.ts"

const dayMs = 86_400_000
const otherNodesMs = 10_000
const dayOf = (nowMs: number): string => new Date(nowMs).toISOString().slice(0, 10)

export class LateCancels extends Context.Service<LateCancels, {
  /** Refuses a new turn when today's are used up. */
  readonly check: (spender: Spender, agent: Agent, nowMs: number) => Effect.Effect<void, TooManyLateCancels | StoreUnavailable>
  readonly count: (spender: Spender, agent: Agent, nowMs: number) => void
}>()("tollgate/kernel/chat/LateCancels") {
  static readonly layer = Layer.effect(LateCancels, Effect.gen(function*() {
    const knownForMs = (yield* Cluster).isMany ? otherNodesMs : dayMs
    const postgres = yield* Postgres
    const spending = yield* Spending
    const { chatLateCancelsPerDay: max } = yield* Config
    const counts = new Map<string, { readonly count: number; readonly readAtMs: number }>()
    const nameOf = ({ accountId }: Spender, agent: Agent, nowMs: number): string => `${accountId} ${agent.id} ${dayOf(nowMs)}`

    const remember = (name: string, count: number, readAtMs: number): void => {
      if (counts.size >= limits.chatLateCancelEntries) counts.delete(counts.keys().next().value!)
      counts.set(name, { count, readAtMs })
    }
    const verdict = (count: number, agent: Agent, nowMs: number): Effect.Effect<void, TooManyLateCancels> => count === 0 || count < max
      ? Effect.void
      : Effect.fail(new TooManyLateCancels({ agent: agent.ticker, max, retryAfterMs: dayMs - nowMs % dayMs }))

    return LateCancels.of({
      check: (spender, agent, nowMs) => Effect.suspend((): Effect.Effect<void, TooManyLateCancels | StoreUnavailable> => {
        const name = nameOf(spender, agent, nowMs)
        const known = counts.get(name)
        if (known !== undefined && nowMs - known.readAtMs < knownForMs) return verdict(known.count, agent, nowMs)
        return lateCancelsOn(spender.accountId, agent.id, dayOf(nowMs)).pipe(
          Effect.provideService(Postgres, postgres),
          Effect.flatMap((stored) => {
            const count = Math.max(stored, counts.get(name)?.count ?? 0)
            remember(name, count, nowMs)
            return verdict(count, agent, nowMs)
          })
        )
      }),
      count: (spender, agent, nowMs) => {
        const name = nameOf(spender, agent, nowMs)
        const known = counts.get(name)
        remember(name, (known?.count ?? 0) + 1, known?.readAtMs ?? 0)
        metrics.chatLateCancels.inc()
        Effect.runFork(Effect.ignore(spending.act(spender, (account) => spending.commit(account, { lateCancels: [{ agentId: agent.id, atMs: nowMs }] }))))
      }
    })
  }))
}
