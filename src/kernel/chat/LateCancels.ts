/**
 * How often each buyer has cancelled turns of each agent today after the agent
 * had begun to answer. Such a turn is free, as the product promises; so that
 * nobody lives on it, new turns of that buyer with that agent are refused for
 * the rest of the UTC day once there were too many.
 *
 * Counted here at once and in the database by the buyer's next commit; a crash
 * forgets at most what was not committed yet. Bounded: a day that leaves memory
 * is read again.
 */
import { Context, Effect, Layer } from "effect"
import { Config, limits } from "../../config.ts"
import type { Agent } from "../../domain/agent.ts"
import { LateCancels as TooManyLateCancels } from "../../domain/chat.ts"
import type { StoreUnavailable } from "../../domain/errors.ts"
import type { AccountId } from "../../domain/ids.ts"
import { Postgres } from "../../store/Postgres.ts"
import { lateCancelsOn } from "../../store/SessionStore.ts"
import { metrics } from "../../telemetry/Metrics.ts"
import { Accounts } from "../AccountActor.ts"

const dayMs = 86_400_000
const dayOf = (nowMs: number): string => new Date(nowMs).toISOString().slice(0, 10)

export class LateCancels extends Context.Service<LateCancels, {
  /** Refuses a new turn when today's are used up. */
  readonly check: (accountId: AccountId, agent: Agent, nowMs: number) => Effect.Effect<void, TooManyLateCancels | StoreUnavailable>
  readonly count: (accountId: AccountId, agent: Agent, nowMs: number) => void
}>()("tollgate/kernel/chat/LateCancels") {
  static readonly layer = Layer.effect(LateCancels, Effect.gen(function*() {
    const accounts = yield* Accounts
    const postgres = yield* Postgres
    const { chatLateCancelsPerDay: max } = yield* Config
    const counts = new Map<string, number>()
    const nameOf = (accountId: AccountId, agent: Agent, nowMs: number): string => `${accountId} ${agent.id} ${dayOf(nowMs)}`

    const remember = (name: string, count: number): void => {
      if (counts.size >= limits.chatLateCancelEntries) counts.delete(counts.keys().next().value!)
      counts.set(name, count)
    }
    const verdict = (count: number, agent: Agent, nowMs: number): Effect.Effect<void, TooManyLateCancels> => count === 0 || count < max
      ? Effect.void
      : Effect.fail(new TooManyLateCancels({ agent: agent.ticker, max, retryAfterMs: dayMs - nowMs % dayMs }))

    return LateCancels.of({
      check: (accountId, agent, nowMs) => Effect.suspend((): Effect.Effect<void, TooManyLateCancels | StoreUnavailable> => {
        const name = nameOf(accountId, agent, nowMs)
        const known = counts.get(name)
        if (known !== undefined) return verdict(known, agent, nowMs)
        return lateCancelsOn(accountId, agent.id, dayOf(nowMs)).pipe(
          Effect.provideService(Postgres, postgres),
          Effect.flatMap((stored) => {
            const count = Math.max(stored, counts.get(name) ?? 0)
            remember(name, count)
            return verdict(count, agent, nowMs)
          })
        )
      }),
      count: (accountId, agent, nowMs) => {
        const name = nameOf(accountId, agent, nowMs)
        remember(name, (counts.get(name) ?? 0) + 1)
        metrics.chatLateCancels.inc()
        Effect.runFork(Effect.ignore(accounts.act(accountId, (account) => accounts.commit(account, { lateCancels: [{ agentId: agent.id, atMs: nowMs }] }))))
      }
    })
  }))
}
