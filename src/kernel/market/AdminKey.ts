/**
 * Where acf's first admin comes from, as no route makes one for strangers: an
 * operator's command, or `ACF_ADMIN_KEY`.
 *
 * The environment's key is as good as the setting: made sure of at each start,
 * without an end of its own, and revoked when a start finds another one or none.
 * It belongs to the owner `admin`, a name that no stranger gets (`Keys`). Of
 * nodes with different settings the one that started last is right.
 */
import { Effect, Layer } from "effect"
import { BadSetting, Config } from "../../config.ts"
import type { KeyId } from "../../domain/ids.ts"
import { type AdminKey, settleEnvironmentKey } from "../../store/market/AdminKeyStore.ts"
import { Postgres, SqlFailure } from "../../store/Postgres.ts"
import { newId } from "../Ids.ts"
import { type MadeKey, makeKey } from "../identity/ApiKeys.ts"
import { hashOfKey } from "../identity/Credentials.ts"
import { scopesOf } from "./Keys.ts"

export const adminOwner = "admin"

const dayMs = 86_400_000

const rowOf = ({ key, prefix }: MadeKey): AdminKey => ({ id: newId<KeyId>(), hash: hashOfKey(key), prefix, scopes: scopesOf("admin") })

/** A key of its own, good for a year, and what is stored of it. */
export const newAdminKey = (nowMs: number): { readonly made: MadeKey; readonly row: AdminKey & { readonly expiresAtMs: number } } => {
  const made = makeKey("acf")
  return { made, row: { ...rowOf(made), expiresAtMs: nowMs + 365 * dayMs } }
}

const settle = Effect.gen(function*() {
  const { acfAdminKey } = yield* Config
  const { attempt } = yield* Postgres
  const key = acfAdminKey === undefined ? undefined : rowOf({ key: acfAdminKey, prefix: acfAdminKey.slice(0, acfAdminKey.indexOf(":")) })
  yield* attempt((sql) => settleEnvironmentKey(sql, adminOwner, key, { newId, atMs: Date.now() })).pipe(
    Effect.catchIf((error) => error instanceof SqlFailure, (failure) => failure.constraint === "api_keys_prefix_once"
      ? Effect.fail(new BadSetting("ACF_ADMIN_KEY is not allowed: another key has this id"))
      : Effect.die(failure))
  )
})

export const layerEnvironmentKey = Layer.effectDiscard(settle)
