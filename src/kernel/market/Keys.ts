/**
 * Keys of the market: who may have one, and what one that is shown is worth
 * (contracts/acf.md, Keys).
 *
 * The first key of an owner establishes its name: a buyer's by anybody, a
 * provider's by whoever shows a good key. Every further one needs a good key of
 * that owner, or an admin's, so that nobody takes an owner over. Names that look
 * like an account's id, and `admin`, are not for strangers.
 *
 * A key's role is the last of its scopes. Guesses are throttled by address.
 */
import { Context, Effect, Layer } from "effect"
import type { AccountSuspended, GatewayError, TooManyAttempts } from "../../domain/errors.ts"
import { NotOwner, type RuleBroken, ScopeMissing, Unauthenticated } from "../../domain/errors.ts"
import { type AccountId, type KeyId, isUuid } from "../../domain/ids.ts"
import { establishOwner, findOwner, reclaim } from "../../store/market/OwnerStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { Accounts } from "../AccountActor.ts"
import { Admission } from "../Admission.ts"
import type { Caller } from "../Caller.ts"
import { newId } from "../Ids.ts"
import { ApiKeys, type CreatedApiKey } from "../identity/ApiKeys.ts"
import { Throttle } from "../identity/Throttle.ts"
import { Spending } from "../lease/Spending.ts"
import { Owners } from "./Owners.ts"
import { broken, oneOf } from "./rules.ts"

export const roles = ["buyer", "provider", "admin"] as const
export type Role = typeof roles[number]

/** A role may what those before it may. */
export const scopesOf = (role: Role): ReadonlyArray<string> => roles.slice(0, roles.indexOf(role) + 1)
export const roleOf = (scopes: Iterable<string>): Role => {
  const has = new Set(scopes)
  return roles.findLast((role) => has.has(role)) ?? "buyer"
}

export interface NewMarketKey {
  readonly owner: string
  readonly role: string
  readonly rateLimit: number
  readonly walletAddress: string | undefined
}

export interface MarketKey {
  readonly owner: string
  readonly role: Role
  readonly rateLimit: number
}

/** Whoever asks, as the edge saw it. */
export interface Asking {
  /** The `Authorization` header, or "". */
  readonly authorization: string
  readonly remoteAddress: string
}

const rateLimitMax = 300
const expiresInDays = 365
/** The operator's own. */
const reserved = "admin"

const checked = ({ owner, role, rateLimit }: NewMarketKey): Effect.Effect<Role, RuleBroken> => {
  if (owner.trim() === "") return Effect.fail(broken("owner_id", "must not be blank"))
  if (isUuid(owner)) return Effect.fail(broken("owner_id", "must not look like an id"))
  if (rateLimit < 1 || rateLimit > rateLimitMax) return Effect.fail(broken("rate_limit", `must be from 1 to ${rateLimitMax}`))
  return oneOf("role", roles, role)
}

export class Keys extends Context.Service<Keys, {
  /** Durable when answered. `NotOwner`: the owner exists, and no key of it was shown. */
  readonly create: (wanted: NewMarketKey, asking: Asking) => Effect.Effect<CreatedApiKey & MarketKey, GatewayError>
  /** What a good key is; `Unauthenticated` for any other, and which part is wrong is not told. */
  readonly validate: (key: string, remoteAddress: string) => Effect.Effect<MarketKey, GatewayError | AccountSuspended | TooManyAttempts>
}>()("tollgate/kernel/market/Keys") {
  static readonly layer = Layer.effect(Keys, Effect.gen(function*() {
    const accounts = yield* Accounts
    const admission = yield* Admission
    const apiKeys = yield* ApiKeys
    const owners = yield* Owners
    const postgres = yield* Postgres
    const spending = yield* Spending
    const throttle = yield* Throttle

    const prove = Effect.fnUntraced(function*(authorization: string) {
      const { caller, error } = yield* admission.admit(authorization, { dialect: "acf", auth: "key", uncounted: true })
      return error === undefined ? caller! : yield* error
    })
    const roleOfCaller = (caller: Caller) => spending.ask(caller, (account) => {
      const subject = account.subjects.get(caller.subjectId)
      return { role: roleOf(subject?.scopes ?? []), rateLimit: subject?.limit ?? 0 }
    })

    /** The account that the key is for, made when the name is new. */
    const accountFor = Effect.fnUntraced(function*(name: string, role: Role, caller: Caller | undefined, isAdmin: boolean) {
      const known = yield* findOwner(name)
      if (known !== undefined && (isAdmin || caller?.accountId === known)) return known
      if (name === reserved && !isAdmin) return yield* new NotOwner({ what: "owner", id: name })
      if (role === "provider" && caller === undefined) return yield* known === undefined ? new Unauthenticated({ reason: "missing" }) : new NotOwner({ what: "owner", id: name })
      const established = yield* known === undefined ? establishOwner(name, newId<AccountId>(), Date.now()) : reclaim(name, Date.now())
      // Somebody else was faster: then it is that one's.
      return established ?? (yield* new NotOwner({ what: "owner", id: name }))
    }, Effect.provideService(Postgres, postgres))

    const create = Effect.fnUntraced(function*(wanted: NewMarketKey, { authorization }: Asking) {
      const role = yield* checked(wanted)
      const caller = authorization === "" ? undefined : yield* prove(authorization)
      const isAdmin = caller !== undefined && (yield* roleOfCaller(caller)).role === "admin"
      if (role === "admin" && !isAdmin) {
        return yield* caller === undefined ? new Unauthenticated({ reason: "missing" }) : new ScopeMissing({ scope: "admin" })
      }
      const accountId = yield* accountFor(wanted.owner, role, caller, isAdmin)
      const by: Caller = caller === undefined
        ? { accountId, kind: "key", dialect: "acf", subjectId: accountId as string as KeyId, loginId: undefined, expiresAtMs: Infinity }
        : { ...caller, accountId }
      const created = yield* accounts.borrowed(accountId, apiKeys.create(by, {
        dialect: "acf", name: role, scopes: scopesOf(role), expiresInDays, rateLimit: wanted.rateLimit, walletAddress: wanted.walletAddress, budgets: []
      }, undefined))
      return { ...created, owner: wanted.owner, role, rateLimit: wanted.rateLimit }
    })

    return Keys.of({
      create: (wanted, asking) => throttle.key(asking.remoteAddress, create(wanted, asking)),
      validate: (key, remoteAddress) => throttle.key(remoteAddress, Effect.gen(function*() {
        const caller = yield* prove(`Bearer ${key}`)
        return { ...(yield* roleOfCaller(caller)), owner: yield* owners.nameOf(caller.accountId) }
      }))
    })
  }))
}
