/**
 * What an admin's browser may see, and how it proves that it may.
 *
 *     key ──open──▶ session (8 h, in a cookie) ──open──▶ figures
 *
 * A key is shown once and answered with a session, so that it stays in no
 * address, no history and no page. A session is a signed token that names the
 * key: good on every node, and for as long as the key itself is good, which is
 * asked of the key's account each time. Whoever has a session can read these
 * figures and nothing else. Keys that are refused are throttled by address.
 */
import { Clock, Context, Effect, Layer } from "effect"
import { type GatewayError, Unauthenticated } from "../../domain/errors.ts"
import type { KeyId } from "../../domain/ids.ts"
import type { DayFigures, MarketStats, MethodFigures, ProviderFigures, ServiceHealth } from "../../store/market/AnalyticsStore.ts"
import { Admission } from "../Admission.ts"
import { Throttle } from "../identity/Throttle.ts"
import { Tokens } from "../identity/Tokens.ts"
import { Analytics } from "./Analytics.ts"

/** What a browser shows: a key that was just given, as the header that it would be sent in, or the session of before. */
export interface Shown {
  readonly authorization: string | undefined
  readonly session: string | undefined
  readonly remoteAddress: string
}

export interface DashboardFigures {
  readonly at: Date
  readonly stats: MarketStats
  /** Each of the last days, oldest first; UTC. */
  readonly days: ReadonlyArray<DayFigures>
  readonly methods: ReadonlyArray<MethodFigures>
  /** The best earning first. */
  readonly providers: ReadonlyArray<ProviderFigures>
  /** The worst error rate first. */
  readonly services: ReadonlyArray<ServiceHealth>
}

export type Opened =
  | { readonly _tag: "session"; readonly session: string }
  | { readonly _tag: "figures"; readonly figures: DashboardFigures }

/** As many as a person looks at; the API has the rest. */
const daysShown = 7
const providersShown = 10
export const servicesShown = 50

const dayMs = 86_400_000

/** Each day, also those that had no calls. */
const everyDay = (days: ReadonlyArray<DayFigures>, nowMs: number): ReadonlyArray<DayFigures> => {
  const known = new Map(days.map((figures) => [figures.date, figures]))
  return Array.from({ length: daysShown }, (_, index) => {
    const date = new Date(nowMs - (daysShown - 1 - index) * dayMs).toISOString().slice(0, 10)
    return known.get(date) ?? { date, calls: 0, cost: 0n, buyers: 0, services: 0 }
  })
}

const need = { dialect: "acf", auth: "key", scope: "admin", uncounted: true } as const

export class Dashboard extends Context.Service<Dashboard, {
  /** A key that is shown is answered with a session, a session with the figures. */
  readonly open: (shown: Shown) => Effect.Effect<Opened, GatewayError>
}>()("tollgate/kernel/market/Dashboard") {
  static readonly layer = Layer.effect(Dashboard, Effect.gen(function*() {
    const admission = yield* Admission
    const analytics = yield* Analytics
    const throttle = yield* Throttle
    const tokens = yield* Tokens

    const enter = Effect.fnUntraced(function*(authorization: string) {
      const { caller, error } = yield* admission.admit(authorization, need)
      if (error !== undefined) return yield* error
      const { accountId, subjectId } = caller!
      return yield* tokens.pageSession({ accountId, keyId: subjectId as KeyId })
    })
    const prove = Effect.fnUntraced(function*(session: string | undefined) {
      if (session === undefined) return yield* new Unauthenticated({ reason: "missing" })
      const { accountId, keyId, expiresAtMs } = yield* tokens.verifyPageSession(session)
      yield* admission.again({ accountId, dialect: "acf", kind: "key", subjectId: keyId, loginId: undefined, expiresAtMs }, need)
    })
    const read = Effect.gen(function*() {
      const nowMs = yield* Clock.currentTimeMillis
      const { days, ...figures } = yield* Effect.all({
        stats: analytics.stats,
        days: analytics.daily(daysShown),
        methods: analytics.payments,
        providers: analytics.ranking("all-time", providersShown),
        services: analytics.health(servicesShown)
      }, { concurrency: 2 })
      return { ...figures, at: new Date(nowMs), days: everyDay(days, nowMs) }
    })
    return Dashboard.of({
      open: Effect.fn("Dashboard.open")(function*({ authorization, session, remoteAddress }) {
        if (authorization !== undefined) {
          return { _tag: "session", session: yield* throttle.key(remoteAddress, enter(authorization)) } as const
        }
        yield* prove(session)
        return { _tag: "figures", figures: yield* read } as const
      })
    })
  }))
}
