/**
 * The actor of an agent: what it costs, where it listens, whether it may be
 * called. Nodes that relay to it keep the newest version they know; a change is
 * decided here (one version at a time), written by the owner's commit, and
 * published when it is durable. Other nodes hear of the version and look the agent
 * up again.
 *
 * What is read or decided while an agent is forgotten (its row was changed past
 * its owner) may be of before that change: it is used once, and not kept.
 *
 * Concurrency, circuit breaker and latency are each node's own (`Upstream`).
 */
import { Context, Effect, Layer } from "effect"
import { Bus } from "../cluster/Bus.ts"
import { limits } from "../config.ts"
import type { Agent } from "../domain/agent.ts"
import { NotFound, type StoreUnavailable } from "../domain/errors.ts"
import type { AgentId } from "../domain/ids.ts"
import { findAgent } from "../store/AgentStore.ts"
import { Postgres } from "../store/Postgres.ts"
import { gauge } from "../telemetry/Metrics.ts"

export class Agents extends Context.Service<Agents, {
  /** The agent by id or ticker (any case), if this node knows it; to relay by. */
  readonly resident: (name: string) => Agent | undefined
  readonly find: (name: string) => Effect.Effect<Agent, NotFound | StoreUnavailable>
  /** Makes a version the one that calls see. An older one than known is ignored. */
  readonly publish: (agent: Agent) => void
  /** The version a change must build on: the newest decided, durable or not, or `agent` when nothing newer is known. */
  readonly newest: (agent: Agent) => Agent
  /** Notes a decided change; `settled` must be called with its outcome. */
  readonly decided: (agent: Agent) => { readonly settled: (durable: boolean) => void }
  readonly forget: (id: AgentId) => void
  readonly forgetAll: () => void
}>()("tollgate/kernel/Agents") {
  static readonly layer = Layer.effect(Agents, Effect.gen(function*() {
    const bus = yield* Bus
    const postgres = yield* Postgres
    const byName = new Map<string, Agent>()
    const changing = new Map<AgentId, { agent: Agent; open: number }>()
    let timesForgotten = 0
    gauge("tollgate_agents_resident", "Agents this node knows", () => byName.size / 2)

    const publish = (agent: Agent): void => {
      const known = byName.get(agent.id)
      if (known !== undefined && known.version > agent.version) return
      if (known === undefined && byName.size >= 2 * limits.agentCacheEntries) {
        const oldest = byName.values().next().value
        if (oldest !== undefined) drop(oldest.id)
      }
      byName.set(agent.id, agent)
      byName.set(agent.ticker, agent)
    }
    const drop = (id: AgentId): void => {
      const known = byName.get(id)
      if (known === undefined) return
      byName.delete(known.id)
      byName.delete(known.ticker)
    }
    const forgetAll = (): void => {
      timesForgotten++
      byName.clear()
    }
    bus.onNews((news) => {
      if (news._tag === "missed") return forgetAll()
      if (news._tag !== "agent" || (byName.get(news.id)?.version ?? -1n) >= news.version) return
      timesForgotten++
      drop(news.id as AgentId)
    })
    const resident = (name: string): Agent | undefined => byName.get(name) ?? byName.get(name.toUpperCase()) ?? byName.get(name.toLowerCase())
    return Agents.of({
      resident,
      find: (name) => Effect.suspend(() => {
        const known = resident(name)
        if (known !== undefined) return Effect.succeed(known)
        const before = timesForgotten
        return findAgent(name).pipe(
          Effect.provideService(Postgres, postgres),
          Effect.flatMap((found) => {
            if (found === undefined) return Effect.fail(new NotFound({ what: "agent", id: name }))
            if (before === timesForgotten) publish(found.agent)
            return Effect.succeed(found.agent)
          })
        )
      }),
      publish,
      newest: (agent) => [changing.get(agent.id)?.agent, byName.get(agent.id)].reduce<Agent>(
        (newest, each) => each !== undefined && each.version > newest.version ? each : newest, agent
      ),
      decided: (agent) => {
        const entry = changing.get(agent.id) ?? { agent, open: 0 }
        entry.agent = agent
        entry.open++
        changing.set(agent.id, entry)
        const before = timesForgotten
        return {
          settled: (durable) => {
            if (--entry.open === 0) changing.delete(agent.id)
            if (durable && before === timesForgotten) publish(agent)
            else drop(agent.id)
            if (durable) bus.tell({ _tag: "agent", id: agent.id, version: agent.version })
          }
        }
      },
      forget: (id) => {
        timesForgotten++
        drop(id)
      },
      forgetAll
    })
  }))
}
