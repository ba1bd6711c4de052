/**
 * The provider's portal: what an owner sees of its services, calls, earnings
 * and keys, and what it does to them that is nowhere else (contracts/acf.md,
 * Portal). Everything is of the caller's own account, whatever its services'
 * status; figures include the calls that this node has not written yet.
 */
import { Context, Effect, Layer } from "effect"
import { commissionTiers } from "../../domain/commission.ts"
import type { Credits } from "../../domain/credits.ts"
import { NotFound, NotOwner, type StoreUnavailable } from "../../domain/errors.ts"
import { findAgent } from "../../store/AgentStore.ts"
import {
  type MarketKeyRow, type ProviderTotals, type ServiceAnalytics, type ServiceFigures, findMarketKey, listMarketKeys, listServices, providerTotals, serviceAnalytics
} from "../../store/market/PortalStore.ts"
import { type Settlement, listSettlements } from "../../store/market/SettlementStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { UsageBuffer } from "../../store/UsageBuffer.ts"
import type { Caller } from "../Caller.ts"
import { type ApiKeyError, ApiKeys } from "../identity/ApiKeys.ts"
import { type Probed, probe } from "../upstream/probe.ts"
import { Upstream } from "../upstream/Upstream.ts"
import { type Role, roleOf } from "./Keys.ts"
import { Owners } from "./Owners.ts"

export interface Overview extends ProviderTotals {
  readonly provider: string
  /** What settlements can still bring, before commission. */
  readonly pending: Credits
}

export interface Earnings extends Overview {
  readonly settlements: ReadonlyArray<Settlement>
}

export interface MarketKey extends MarketKeyRow {
  readonly role: Role
}

export interface Step {
  readonly name: string
  readonly label: string
  readonly completed: boolean
}

export interface Milestone {
  readonly name: string
  readonly label: string
  readonly description: string
  readonly reward: string
  readonly achieved: boolean
}

const analyticsDays = 30
const settlementsShown = 100

/** The way of a provider from its key to its first payout. */
export const stepsOf = (totals: ProviderTotals): ReadonlyArray<Step> => [
  { name: "create_api_key", label: "Create API key", completed: totals.keys > 0 },
  { name: "register_service", label: "Register your first service", completed: totals.services > 0 },
  { name: "activate_service", label: "Activate a service", completed: totals.activeServices > 0 },
  { name: "first_traffic", label: "Receive first API call", completed: totals.calls > 0n },
  { name: "first_settlement", label: "Complete first settlement", completed: totals.settlementsCompleted > 0 }
]

const program = commissionTiers.map(({ name, percent }) => `${name}: ${percent} %`).join(", ")

/** What a provider reaches, and what that brings it. */
export const milestonesOf = (totals: ProviderTotals): ReadonlyArray<Milestone> => [
  {
    name: "first_service", label: "First service", description: "Register a service", achieved: totals.services > 0,
    reward: `Your commission program begins: ${program}`
  },
  {
    name: "first_call", label: "First call", description: "Receive a call through the proxy", achieved: totals.calls > 0n,
    reward: "Your reputation is computed from it and shown to buyers"
  },
  {
    name: "first_revenue", label: "First revenue", description: "Answer a call that is paid for", achieved: totals.revenue > 0n,
    reward: "In your first month you keep all of it, no commission is taken"
  },
  {
    name: "first_settlement", label: "First settlement", description: "Have a settlement completed", achieved: totals.settlementsCompleted > 0,
    reward: "What you earned, less the commission, is paid out"
  }
]

export class Portal extends Context.Service<Portal, {
  readonly overview: (caller: Caller) => Effect.Effect<Overview, StoreUnavailable>
  /** Newest first, removed ones too. */
  readonly services: (caller: Caller) => Effect.Effect<ReadonlyArray<ServiceFigures>, StoreUnavailable>
  readonly analytics: (caller: Caller, serviceId: string) => Effect.Effect<ServiceAnalytics, NotFound | NotOwner | StoreUnavailable>
  /** With the newest settlements. */
  readonly earnings: (caller: Caller) => Effect.Effect<Earnings, StoreUnavailable>
  readonly keys: (caller: Caller) => Effect.Effect<ReadonlyArray<MarketKey>, StoreUnavailable>
  /** Durable when answered, and no call is admitted with the key any more. It may be the caller's own. */
  readonly revokeKey: (caller: Caller, keyId: string) => Effect.Effect<void, ApiKeyError | NotOwner>
  /** Asks the service's endpoint whether it is there. Costs nothing and counts as no call. */
  readonly test: (caller: Caller, serviceId: string) => Effect.Effect<Probed & { readonly serviceId: string; readonly endpoint: string }, NotFound | NotOwner | StoreUnavailable>
}>()("tollgate/kernel/market/Portal") {
  static readonly layer = Layer.effect(Portal, Effect.gen(function*() {
    const apiKeys = yield* ApiKeys
    const owners = yield* Owners
    const postgres = yield* Postgres
    const upstream = yield* Upstream
    const usage = yield* UsageBuffer

    /** A service of the caller's, by its id. */
    const own = Effect.fnUntraced(function*(caller: Caller, serviceId: string) {
      const found = yield* findAgent(serviceId)
      if (found === undefined) return yield* new NotFound({ what: "service", id: serviceId })
      if (found.agent.ownerId !== caller.accountId) return yield* new NotOwner({ what: "service", id: serviceId })
      return found.agent
    })

    const overview = Effect.fn("Portal.overview")(function*(caller: Caller) {
      yield* usage.flush
      const totals = yield* providerTotals(caller.accountId)
      const pending = totals.settleable - totals.settled
      return { ...totals, provider: yield* owners.nameOf(caller.accountId), pending: pending > 0n ? pending : 0n }
    }, Effect.provideService(Postgres, postgres))

    return Portal.of({
      overview,
      services: Effect.fn("Portal.services")((caller: Caller) => Effect.andThen(usage.flush, listServices(caller.accountId)), Effect.provideService(Postgres, postgres)),
      analytics: Effect.fn("Portal.analytics")(function*(caller, serviceId) {
        const agent = yield* own(caller, serviceId)
        yield* usage.flush
        return yield* serviceAnalytics(agent.id, analyticsDays)
      }, Effect.provideService(Postgres, postgres)),
      earnings: Effect.fn("Portal.earnings")(function*(caller) {
        const settlements = yield* listSettlements({ accountId: caller.accountId, provider: undefined, status: undefined, limit: settlementsShown })
        return { ...(yield* overview(caller)), settlements }
      }, Effect.provideService(Postgres, postgres)),
      keys: Effect.fn("Portal.keys")((caller: Caller) => listMarketKeys(caller.accountId).pipe(
        Effect.map((rows) => rows.map((row) => ({ ...row, role: roleOf(row.scopes) })))
      ), Effect.provideService(Postgres, postgres)),
      revokeKey: Effect.fn("Portal.revokeKey")(function*(caller, keyId) {
        const key = yield* findMarketKey(keyId)
        if (key === undefined) return yield* new NotFound({ what: "key", id: keyId })
        if (key.accountId !== caller.accountId) return yield* new NotOwner({ what: "key", id: keyId })
        yield* apiKeys.revoke(caller, key.id)
      }, Effect.provideService(Postgres, postgres)),
      test: Effect.fn("Portal.test")(function*(caller, serviceId) {
        const agent = yield* own(caller, serviceId)
        return { ...(yield* probe(upstream, agent)), serviceId: agent.id, endpoint: agent.endpointUrl }
      }, Effect.provideService(Postgres, postgres))
    })
  }))
}
