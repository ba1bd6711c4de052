/**
 * The names that accounts go by in acf, whose callers choose an `owner_id`. A
 * name belongs to one account and an account has at most one; neither changes,
 * so both are remembered. An account without a name goes by its id.
 */
import { Context, Effect, Layer } from "effect"
import { limits } from "../../config.ts"
import type { StoreUnavailable } from "../../domain/errors.ts"
import type { AccountId } from "../../domain/ids.ts"
import { findNameOf, findOwner } from "../../store/market/OwnerStore.ts"
import { Postgres } from "../../store/Postgres.ts"

export class Owners extends Context.Service<Owners, {
  /** The account of a name, or of an account's id; `undefined` when there is none. */
  readonly find: (name: string) => Effect.Effect<AccountId | undefined, StoreUnavailable>
  readonly nameOf: (accountId: AccountId) => Effect.Effect<string, StoreUnavailable>
}>()("tollgate/kernel/market/Owners") {
  static readonly layer = Layer.effect(Owners, Effect.gen(function*() {
    const postgres = yield* Postgres
    const names = new Map<AccountId, string>()
    return Owners.of({
      find: (name) => findOwner(name).pipe(Effect.provideService(Postgres, postgres)),
      nameOf: (accountId) => Effect.suspend(() => {
        const known = names.get(accountId)
        if (known !== undefined) return Effect.succeed(known)
        return findNameOf(accountId).pipe(Effect.provideService(Postgres, postgres), Effect.map((name) => {
          if (name === undefined) return accountId
          if (names.size >= limits.agentCacheEntries) names.delete(names.keys().next().value!)
          names.set(accountId, name)
          return name
        }))
      })
    })
  }))
}
