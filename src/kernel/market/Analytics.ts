/**
 * What goes on in the market: an owner's own usage, and the platform's figures
 * for its operator, over calls of every kind and dialect. Figures include the
 * calls that this node has not written yet. Days are UTC, the last `days` of
 * them are today and those before it; accounts that were merged are one buyer.
 *
 * Cost: one statement each, over roll-ups of days, pairs and agents, never over
 * calls.
 */
import { Clock, Context, Effect, Layer } from "effect"
import type { RuleBroken, StoreUnavailable } from "../../domain/errors.ts"
import {
  type BuyerFigures, type DayFigures, type DaySpan, type MarketStats, type MethodFigures, type PeriodFigures, type ProviderFigures, type ServiceFigures, type ServiceHealth,
  granularities, listDays, listHealth, listMethods, listPeriods, listProviders, listTopServices, readBuyers, readStats, serviceOrders
} from "../../store/market/AnalyticsStore.ts"
import { type OwnUsage, readUsage } from "../../store/market/UsageStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { UsageBuffer } from "../../store/UsageBuffer.ts"
import type { Caller } from "../Caller.ts"
import { Owners } from "./Owners.ts"
import { broken, oneOf } from "./rules.ts"

const dayMs = 86_400_000
const topSpenders = 10
/** An operator looks at the worst; more than these are no overview. */
const servicesMax = 1_000
/** Ten years: further back than any gateway's calls. */
const periodDaysMax = 3_650

const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10)
const today = Effect.map(Clock.currentTimeMillis, dayOf)
const lastDays = (days: number): Effect.Effect<DaySpan> =>
  Effect.map(Clock.currentTimeMillis, (nowMs) => ({ from: dayOf(nowMs - (days - 1) * dayMs), to: dayOf(nowMs) }))

/** The days of a ranking's period; none for all of time. */
const spanOf = (period: string): Effect.Effect<DaySpan | undefined, RuleBroken> => {
  if (period === "all-time") return Effect.succeed(undefined)
  const days = /^[1-9]\d{0,3}$/.test(period) ? Number(period) : Infinity
  return days <= periodDaysMax ? lastDays(days) : Effect.fail(broken("period", `must be all-time or a number of days from 1 to ${periodDaysMax}`))
}

export class Analytics extends Context.Service<Analytics, {
  /** Since ever. */
  readonly own: (caller: Caller) => Effect.Effect<OwnUsage & { readonly buyer: string }, StoreUnavailable>
  /** Of what is active, and of all calls since ever. */
  readonly stats: Effect.Effect<MarketStats, StoreUnavailable>
  /** The latest first, without days that had no calls. */
  readonly daily: (days: number) => Effect.Effect<ReadonlyArray<DayFigures>, StoreUnavailable>
  /** Providers with calls in the period, the best earning first. */
  readonly ranking: (period: string, limit: number) => Effect.Effect<ReadonlyArray<ProviderFigures>, RuleBroken | StoreUnavailable>
  /** Active services since ever, the worst error rate first; a thousand at most. */
  readonly health: (limit?: number) => Effect.Effect<ReadonlyArray<ServiceHealth>, StoreUnavailable>
  /** Since ever, by the method that the called service takes now. */
  readonly payments: Effect.Effect<ReadonlyArray<MethodFigures>, StoreUnavailable>
  /** The last `periods` of the calendar, the latest first, without those that had no calls. */
  readonly trends: (granularity: string, periods: number) => Effect.Effect<ReadonlyArray<PeriodFigures>, RuleBroken | StoreUnavailable>
  /** Services with calls in these days. By latency the fastest is first. */
  readonly topServices: (sortBy: string, days: number, limit: number) => Effect.Effect<ReadonlyArray<ServiceFigures>, RuleBroken | StoreUnavailable>
  readonly buyers: (days: number) => Effect.Effect<BuyerFigures, StoreUnavailable>
}>()("tollgate/kernel/market/Analytics") {
  static readonly layer = Layer.effect(Analytics, Effect.gen(function*() {
    const postgres = yield* Postgres
    const owners = yield* Owners
    const usage = yield* UsageBuffer

    /** Who has just called finds it counted. */
    const counted = <A, E>(read: Effect.Effect<A, E, Postgres>) => usage.flush.pipe(Effect.andThen(read), Effect.provideService(Postgres, postgres))
    const over = <A>(days: number, list: (span: DaySpan) => Effect.Effect<A, StoreUnavailable, Postgres>) => counted(Effect.flatMap(lastDays(days), list))

    return Analytics.of({
      own: Effect.fn("Analytics.own")(function*({ accountId }) {
        return { ...yield* counted(readUsage(accountId)), buyer: yield* owners.nameOf(accountId) }
      }),
      stats: counted(readStats()),
      daily: (days) => counted(Effect.flatMap(today, (day) => listDays(days, day))),
      ranking: Effect.fn("Analytics.ranking")(function*(period, limit) {
        const span = yield* spanOf(period)
        return yield* counted(listProviders(span, limit))
      }),
      health: (limit = servicesMax) => counted(listHealth(limit)),
      payments: counted(listMethods()),
      trends: Effect.fn("Analytics.trends")(function*(name, periods) {
        const granularity = yield* oneOf("granularity", granularities, name)
        return yield* counted(Effect.flatMap(today, (day) => listPeriods(granularity, periods, day)))
      }),
      topServices: Effect.fn("Analytics.topServices")(function*(sortBy, days, limit) {
        const order = yield* oneOf("sort_by", serviceOrders, sortBy)
        return yield* over(days, (span) => listTopServices(order, span, limit))
      }),
      buyers: (days) => over(days, (span) => readBuyers(span, topSpenders))
    })
  }))
}
