/**
 * Scores of owners and of their services, live from the roll-ups that every call
 * adds to: nothing is recomputed, and a caller reads its own calls.
 *
 * Subscribers of `reputation.updated` are told when the all-time overall score
 * of an owner differs from the one that was told last, by a hundredth or more;
 * before the first time that is 0. Every node looks at the owners who
 * subscribed, once a second and at a bounded number each time, so that calls
 * pay nothing for it. What is told and its deliveries are one statement that
 * does nothing when another node was first: no change is told twice. A score
 * that moves and comes back between two looks is not told. A node that sleeps
 * between its look and its statement may tell what was true before it slept; the
 * next look puts it right.
 */
import { Clock, Context, Effect, Layer, Schedule } from "effect"
import { limits } from "../../config.ts"
import { NotFound, type RuleBroken, type StoreUnavailable } from "../../domain/errors.ts"
import { type Period, type Scores, isPeriod, points, scoresOf } from "../../domain/reputation.ts"
import { findAgent } from "../../store/AgentStore.ts"
import type { DeliveryRow } from "../../store/Commit.ts"
import { findIdentity } from "../../store/market/IdentityStore.ts"
import { type Leader, type Subscribed, findProviderName, listLeaders, listSubscribed, sumAgent, sumOwner, tellScore } from "../../store/market/ReputationStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { UsageBuffer } from "../../store/UsageBuffer.ts"
import { log } from "../../telemetry/log.ts"
import { newId } from "../Ids.ts"
import { Webhooks } from "../webhooks/Webhooks.ts"
import { Owners } from "./Owners.ts"
import { broken } from "./rules.ts"

const lookMs = 1_000
const beforeAll = "00000000-0000-0000-0000-000000000000"

export interface ServiceScores {
  readonly serviceId: string
  /** Its provider: the id of its oldest active identity, or its name. */
  readonly agentId: string
  readonly scores: Scores
}

export class Reputation extends Context.Service<Reputation, {
  /** Of an identity's owner, or of an owner by name. Whom nobody knows has no calls: zeros. */
  readonly ofAgent: (name: string, period: string) => Effect.Effect<Scores, RuleBroken | StoreUnavailable>
  readonly ofService: (name: string, period: string) => Effect.Effect<ServiceScores, RuleBroken | NotFound | StoreUnavailable>
  /** Active identities, the best first. */
  readonly leaders: (limit: number) => Effect.Effect<ReadonlyArray<Leader>, StoreUnavailable>
}>()("tollgate/kernel/market/Reputation") {
  static readonly layer = Layer.effect(Reputation, Effect.gen(function*() {
    const postgres = yield* Postgres
    const owners = yield* Owners
    const { flush } = yield* UsageBuffer
    yield* tellScores
    const stored = Effect.provideService(Postgres, postgres)

    return Reputation.of({
      ofAgent: Effect.fn("Reputation.ofAgent")(function*(name, asked) {
        const period = yield* periodOf(asked)
        yield* flush
        const identity = yield* stored(findIdentity(name))
        const ownerId = identity?.ownerId ?? (yield* owners.find(name))
        return scoresOf(ownerId === undefined ? noCalls : yield* stored(sumOwner(ownerId, period)))
      }),
      ofService: Effect.fn("Reputation.ofService")(function*(name, asked) {
        const period = yield* periodOf(asked)
        yield* flush
        const found = yield* stored(findAgent(name))
        if (found === undefined || found.agent.suspended) return yield* new NotFound({ what: "service", id: name })
        const { id, ownerId } = found.agent
        return { serviceId: id, agentId: yield* stored(findProviderName(ownerId)), scores: scoresOf(yield* stored(sumAgent(id, period))) }
      }),
      leaders: (limit) => stored(Effect.andThen(flush, listLeaders(limit)))
    })
  }))
}

const noCalls = { calls: 0n, succeeded: 0n, errors: 0n, latencyMs: 0n }

const periodOf = (text: string): Effect.Effect<Period, RuleBroken> => isPeriod(text)
  ? Effect.succeed(text) : Effect.fail(broken("period", "must be all-time or a month as YYYY-MM"))

const tellScores = Effect.gen(function*() {
  let after = beforeAll
  const look = Effect.gen(function*() {
    const page = yield* listSubscribed(after, limits.scoresPerLookMax)
    after = page.length < limits.scoresPerLookMax ? beforeAll : page.at(-1)!.accountId
    yield* Effect.forEach(page, tellOne, { discard: true })
  })
  yield* look.pipe(
    Effect.catchCause((cause) => Effect.sync(() => log.warn({ cause: String(cause) }, "scores can't be told now, will be tried again"))),
    Effect.repeat(Schedule.spaced(lookMs)),
    Effect.forkScoped
  )
})

const tellOne = Effect.fnUntraced(function*({ accountId, webhookIds, told, sums }: Subscribed) {
  const { overall: score } = scoresOf(sums)
  if (score === told) return
  const atMs = yield* Clock.currentTimeMillis
  const facts = { account: accountId, score: points(score), previous: points(told) }
  const deliveries = webhookIds.map((webhookId): DeliveryRow => ({ id: newId(), webhookId, event: "reputation.updated", facts, atMs }))
  if (yield* tellScore({ accountId, score, told, deliveries })) (yield* Webhooks).wake(deliveries)
})
