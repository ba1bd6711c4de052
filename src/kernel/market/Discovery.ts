/**
 * Finding services: by what they are and cost, by what others call, by what the
 * asker called before. Active ones of every dialect; everybody may ask.
 */
import { Context, Effect, Layer } from "effect"
import { type Credits, parseUsd } from "../../domain/credits.ts"
import type { RuleBroken, StoreUnavailable } from "../../domain/errors.ts"
import { paymentMethods } from "../../domain/terms.ts"
import { findIdentity } from "../../store/market/IdentityStore.ts"
import {
  type Service, type ServiceFilter, type TrendingService, countServices, listCategories, listRecommended, listServices, listTrending, serviceSorts
} from "../../store/market/ServiceStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { UsageBuffer } from "../../store/UsageBuffer.ts"
import { Owners } from "./Owners.ts"
import { broken, oneOf } from "./rules.ts"
import { wordsOf } from "./Services.ts"

/** As the asker wrote it; "" asks for nothing. */
export interface Wanted {
  readonly text: string
  readonly category: string
  /** Separated by commas; any of them will do. */
  readonly tags: string
  readonly priceMin: string
  readonly priceMax: string
  readonly paymentMethod: string
  readonly isFreeAtFirst: boolean
  readonly sort: string
  readonly limit: number
  readonly offset: number
}

export interface Found {
  readonly services: ReadonlyArray<Service>
  /** Of all pages. */
  readonly total: number
}

const price = (field: string, text: string): Effect.Effect<Credits | undefined, RuleBroken> => {
  const amount = parseUsd(text)
  return amount === undefined && text !== "" ? Effect.fail(broken(field, "must be a dollar amount with at most 6 decimals")) : Effect.succeed(amount)
}

const filterOf = Effect.fnUntraced(function*(wanted: Wanted): Effect.fn.Return<ServiceFilter, RuleBroken> {
  return {
    status: "active",
    words: wordsOf(wanted.text),
    category: wanted.category || undefined,
    tags: wanted.tags.split(",").map((tag) => tag.trim()).filter((tag) => tag !== ""),
    priceMin: yield* price("min_price", wanted.priceMin),
    priceMax: yield* price("max_price", wanted.priceMax),
    paymentMethod: wanted.paymentMethod === "" ? undefined : yield* oneOf("payment_method", paymentMethods, wanted.paymentMethod),
    isFreeAtFirst: wanted.isFreeAtFirst
  }
})

export class Discovery extends Context.Service<Discovery, {
  readonly search: (wanted: Wanted) => Effect.Effect<Found, RuleBroken | StoreUnavailable>
  readonly categories: Effect.Effect<ReadonlyArray<{ readonly category: string; readonly count: number }>, StoreUnavailable>
  readonly trending: (limit: number) => Effect.Effect<ReadonlyArray<TrendingService>, StoreUnavailable>
  /** `agent`: an owner's name, an account's id or an identity's. One that nobody knows has called nothing. */
  readonly recommendations: (agent: string, limit: number) => Effect.Effect<ReadonlyArray<Service>, StoreUnavailable>
}>()("tollgate/kernel/market/Discovery") {
  static readonly layer = Layer.effect(Discovery, Effect.gen(function*() {
    const owners = yield* Owners
    const postgres = yield* Postgres
    const usage = yield* UsageBuffer

    const search = Effect.fn("Discovery.search")(function*(wanted: Wanted) {
      const filter = yield* filterOf(wanted)
      const sort = yield* oneOf("sort_by", serviceSorts, wanted.sort)
      const { limit, offset } = wanted
      const services = yield* listServices(filter, { sort, limit, offset })
      const isLastPage = services.length < limit && (services.length > 0 || offset === 0)
      return { services, total: isLastPage ? offset + services.length : yield* countServices(filter) }
    }, Effect.provideService(Postgres, postgres))

    const recommendations = Effect.fn("Discovery.recommendations")(function*(agent: string, limit: number) {
      yield* usage.flush
      const identity = yield* findIdentity(agent)
      return yield* listRecommended(identity?.ownerId ?? (yield* owners.find(agent)), limit)
    }, Effect.provideService(Postgres, postgres))

    return Discovery.of({
      search,
      categories: listCategories.pipe(Effect.provideService(Postgres, postgres)),
      // A caller finds its own calls counted.
      trending: (limit) => usage.flush.pipe(Effect.andThen(listTrending(limit)), Effect.provideService(Postgres, postgres)),
      recommendations
    })
  }))
}
