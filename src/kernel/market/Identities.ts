/**
 * Identities of agents: an account registers as many as it has agents, says what
 * they are, and an admin may vouch for them. They hold no money and no keys; an
 * identity's score is its owner's (`Reputation`).
 *
 * Only the owner changes one; it is never removed, only deactivated. Lists show
 * it to everybody by its status. To rename one, or to give it another wallet,
 * ends what an admin vouched for.
 */
import { Clock, Context, Effect, Layer } from "effect"
import { limits } from "../../config.ts"
import { NotFound, NotOwner, type RuleBroken, type StoreUnavailable } from "../../domain/errors.ts"
import { type Identity, identityStatuses, identityTypes } from "../../domain/identity.ts"
import { type IdentityPatch, addIdentity, findIdentity, listIdentities, patchIdentity, verifyIdentity } from "../../store/market/IdentityStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { UsageBuffer } from "../../store/UsageBuffer.ts"
import { auditRow } from "../AuditTrail.ts"
import type { Caller } from "../Caller.ts"
import { newId } from "../Ids.ts"
import { broken, oneOf } from "./rules.ts"

/** As asked for: the type may be none. */
export type WantedIdentity = Pick<Identity, "displayName" | "capabilities" | "walletAddress" | "metadata"> & { readonly identityType: string }
export type WantedPatch = Omit<IdentityPatch, "status"> & { readonly status?: string }

export class Identities extends Context.Service<Identities, {
  readonly create: (caller: Caller, wanted: WantedIdentity) => Effect.Effect<Identity, RuleBroken | StoreUnavailable>
  /** Newest first. */
  readonly list: (status: string, limit: number, offset: number) => Effect.Effect<ReadonlyArray<Identity>, RuleBroken | StoreUnavailable>
  /** Active ones with the text in their name or id, newest first; none for a blank text. */
  readonly search: (text: string, limit: number) => Effect.Effect<ReadonlyArray<Identity>, StoreUnavailable>
  readonly get: (id: string) => Effect.Effect<Identity, NotFound | StoreUnavailable>
  readonly patch: (caller: Caller, id: string, wanted: WantedPatch) => Effect.Effect<Identity, NotFound | NotOwner | RuleBroken | StoreUnavailable>
  /** To do it again changes nothing. */
  readonly deactivate: (caller: Caller, id: string) => Effect.Effect<Identity, NotFound | NotOwner | StoreUnavailable>
  readonly verify: (caller: Caller, id: string) => Effect.Effect<Identity, NotFound | StoreUnavailable>
}>()("tollgate/kernel/market/Identities") {
  static readonly layer = Layer.effect(Identities, Effect.gen(function*() {
    const postgres = yield* Postgres
    const { flush } = yield* UsageBuffer
    /** After the calls that were made before it: their score is shown. */
    const stored = <A, E>(effect: Effect.Effect<A, E, Postgres>): Effect.Effect<A, E> => Effect.andThen(flush, effect).pipe(Effect.provideService(Postgres, postgres))

    const get = (id: string) => stored(findIdentity(id)).pipe(Effect.flatMap((found) => orMissing(id, found)))
    const owned = (caller: Caller, id: string) => get(id).pipe(Effect.flatMap((identity) => identity.ownerId === caller.accountId
      ? Effect.succeed(identity) : Effect.fail(new NotOwner({ what: "agent", id }))))
    const change = Effect.fnUntraced(function*(caller: Caller, { id }: Identity, action: string, patch: IdentityPatch) {
      const audit = auditRow(caller, action, id, yield* Clock.currentTimeMillis, { fields: Object.keys(patch) })
      return yield* orMissing(id, yield* stored(patchIdentity(id, patch, audit)))
    })

    return Identities.of({
      get,
      create: Effect.fn("Identities.create")(function*(caller, { identityType, ...wanted }) {
        yield* checkName(wanted.displayName)
        const id = newId<string>()
        const identity = { ...wanted, id, accountId: caller.accountId, identityType: yield* oneOf("identity_type", identityTypes, identityType) }
        const added = yield* stored(addIdentity(identity, limits.identitiesPerAccountMax, auditRow(caller, "identity.create", id, yield* Clock.currentTimeMillis)))
        return added ?? (yield* broken("agents", `An owner has at most ${limits.identitiesPerAccountMax} agents`))
      }),
      list: (status, limit, offset) => oneOf("status", identityStatuses, status).pipe(
        Effect.flatMap((known) => stored(listIdentities({ status: known, text: undefined, limit, offset })))),
      search: (text, limit) => text.trim() === "" ? Effect.succeed([]) : stored(listIdentities({ status: "active", text: text.trim(), limit, offset: 0 })),
      patch: Effect.fn("Identities.patch")(function*(caller, id, { status, ...wanted }) {
        const identity = yield* owned(caller, id)
        if (wanted.displayName !== undefined) yield* checkName(wanted.displayName)
        return yield* change(caller, identity, "identity.update", {
          ...wanted,
          ...(status === undefined ? {} : { status: yield* oneOf("status", identityStatuses, status) })
        })
      }),
      deactivate: Effect.fn("Identities.deactivate")(function*(caller, id) {
        const identity = yield* owned(caller, id)
        return identity.status === "deactivated" ? identity : yield* change(caller, identity, "identity.deactivate", { status: "deactivated" })
      }),
      verify: Effect.fn("Identities.verify")(function*(caller, id) {
        const audit = auditRow(caller, "identity.verify", id, yield* Clock.currentTimeMillis)
        return yield* orMissing(id, yield* stored(verifyIdentity(id, audit)))
      })
    })
  }))
}

const orMissing = (id: string, found: Identity | undefined): Effect.Effect<Identity, NotFound> =>
  found === undefined ? Effect.fail(new NotFound({ what: "agent identity", id })) : Effect.succeed(found)

const checkName = (name: string): Effect.Effect<void, RuleBroken> => name.trim() === "" ? Effect.fail(broken("display_name", "must not be blank")) : Effect.void
