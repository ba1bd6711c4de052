/**
 * The registry of services: an agent that a provider of the market lists, and
 * the rules that such a listing keeps to (contracts/acf.md, Services and
 * discovery). What it costs and how its calls are shared is decided by its terms
 * (`domain/terms.ts`); the change itself is the owner's commit (`Listings`).
 *
 * Agents of other dialects are services too: found here, and changed here by
 * their owners. A removed service is neither listed nor called; it stays
 * readable by its id, and its owner may bring it back.
 */
import { Context, Effect, Layer } from "effect"
import { randomInt } from "node:crypto"
import type { Agent, AgentStatus } from "../../domain/agent.ts"
import { type Credits, formatUsd, microPerUsd } from "../../domain/credits.ts"
import { AddressForbidden, type InsufficientCredits, NotFound, NotOwner, type RuleBroken, type StoreUnavailable } from "../../domain/errors.ts"
import { paymentMethods } from "../../domain/terms.ts"
import { type Service, findService, listServices } from "../../store/market/ServiceStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import type { Caller } from "../Caller.ts"
import type { IdempotentCall } from "../Idempotency.ts"
import { type ListingError, Listings } from "../Listings.ts"
import { Owners } from "./Owners.ts"
import { broken, oneOf } from "./rules.ts"

export type NewService = Pick<Agent, "name" | "description" | "category" | "endpointUrl" | "price" | "freeTierCalls" | "tags"> & { readonly paymentMethod: string }
export type ServicePatch = Partial<Omit<NewService, "paymentMethod"> & { readonly status: string }>

/** What a list is asked for, as its reader wrote it; "" asks for nothing. */
export interface ServiceSearch {
  readonly text: string
  readonly category: string
  readonly status: string
  readonly limit: number
  readonly offset: number
}

const priceMax: Credits = 100n * microPerUsd
const statuses: ReadonlyArray<AgentStatus> = ["active", "paused", "removed"]

/** The words of a search, each once. */
export const wordsOf = (text: string): ReadonlyArray<string> => [...new Set(text.split(/\s+/u).filter((word) => word !== ""))]

const checked = ({ name, price }: Pick<ServicePatch, "name" | "price">): Effect.Effect<void, RuleBroken> =>
  name?.trim() === "" ? Effect.fail(broken("name", "must not be blank"))
    : price !== undefined && price > priceMax ? Effect.fail(broken("price_per_call", `must be at most ${formatUsd(priceMax)}`)) : Effect.void

/** Nobody chooses a service's ticker. Of a billion of these two are the same by a chance of one in two hundred. */
const newTicker = (): string => `S${randomInt(36 ** 9).toString(36).toUpperCase().padStart(9, "0")}`

/** A service's address has another name than an agent's. */
const ofEndpoint = ({ address }: AddressForbidden) => Effect.fail(new AddressForbidden({ field: "endpoint", address }))

export class Services extends Context.Service<Services, {
  /** Durable when answered. */
  readonly register: (caller: Caller, wanted: NewService, idempotency: IdempotentCall | undefined) =>
    Effect.Effect<Service, ListingError | RuleBroken | AddressForbidden | InsufficientCredits>
  readonly get: (id: string) => Effect.Effect<Service, NotFound | StoreUnavailable>
  readonly list: (search: ServiceSearch) => Effect.Effect<ReadonlyArray<Service>, RuleBroken | StoreUnavailable>
  /** By its owner; what is left out stays as it is. Durable when answered. */
  readonly patch: (caller: Caller, id: string, patch: ServicePatch) => Effect.Effect<Service, ListingError | RuleBroken | NotOwner | AddressForbidden>
}>()("tollgate/kernel/market/Services") {
  static readonly layer = Layer.effect(Services, Effect.gen(function*() {
    const listings = yield* Listings
    const owners = yield* Owners
    const postgres = yield* Postgres

    const get = Effect.fn("Services.get")(function*(id: string) {
      const found = yield* findService(id).pipe(Effect.provideService(Postgres, postgres))
      return found ?? (yield* new NotFound({ what: "service", id }))
    })

    const register = Effect.fn("Services.register")(function*(caller: Caller, wanted: NewService, idempotency: IdempotentCall | undefined) {
      yield* checked(wanted)
      const paymentMethod = yield* oneOf("payment_method", paymentMethods, wanted.paymentMethod)
      const provider = yield* owners.nameOf(caller.accountId)
      const told = idempotency === undefined ? undefined
        : { ...idempotency, answer: (listed: unknown) => idempotency.answer({ ...listed as Pick<Service, "agent">, provider }) }
      const { agent } = yield* Effect.suspend(() => listings.create(caller, {
        ...wanted, paymentMethod, dialect: "acf", ticker: newTicker(), authTier: "none", manifest: undefined
      }, told)).pipe(
        Effect.retry({ while: ({ _tag }) => _tag === "AlreadyExists", times: 3 }),
        Effect.catchTag("AlreadyExists", Effect.die),
        Effect.catchTag("AddressForbidden", ofEndpoint)
      )
      return { agent, provider }
    })

    const patch = Effect.fn("Services.patch")(function*(caller: Caller, id: string, { status, ...patch }: ServicePatch) {
      const { agent: { id: agentId, ownerId }, provider } = yield* get(id)
      if (ownerId !== caller.accountId) return yield* new NotOwner({ what: "service", id })
      yield* checked(patch)
      const change = status === undefined ? patch : { ...patch, status: yield* oneOf("status", statuses, status) }
      const { agent } = yield* listings.patch(caller, agentId, change).pipe(Effect.catchTag("AddressForbidden", ofEndpoint))
      return { agent, provider }
    })

    const list = Effect.fn("Services.list")(function*({ text, category, status, limit, offset }: ServiceSearch) {
      const known = yield* oneOf("status", statuses, status)
      return yield* listServices({
        status: known, words: wordsOf(text), category: category || undefined, tags: [], priceMin: undefined, priceMax: undefined,
        paymentMethod: undefined, isFreeAtFirst: false
      }, { sort: "created_at", limit, offset }).pipe(Effect.provideService(Postgres, postgres))
    })

    return Services.of({ register, get, list, patch })
  }))
}
