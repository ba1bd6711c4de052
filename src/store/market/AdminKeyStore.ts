/**
 * Keys of acf's admins that no other key asked for: made by an operator's
 * command, or named by the environment.
 *
 * Guarantee. Each function is one transaction: the keys, their audit rows, and
 * the news to the gateways that run. At most one key of the environment is
 * active, however many nodes start at once; one that is revoked raises its
 * account's token, so that nothing is committed on top of what an activation
 * knew before.
 */
import type { AccountId, KeyId } from "../../domain/ids.ts"
import { insertAudit } from "../AuditStore.ts"
import { notifyChange } from "../Changes.ts"
import { type Sql, begin } from "../Postgres.ts"
import { insertOwner, selectByName } from "./OwnerStore.ts"

export interface AdminKey {
  readonly id: KeyId
  readonly hash: Uint8Array
  readonly prefix: string
  readonly scopes: ReadonlyArray<string>
  /** Absent: never. */
  readonly expiresAtMs?: number
}

/** Ids and time of what is written. */
export interface Entry {
  readonly newId: () => string
  readonly atMs: number
}

const environment = "environment"

const insertKey = (sql: Sql, accountId: AccountId, name: string, key: AdminKey, atMs: number) => sql<Array<{ id: KeyId; account_id: AccountId }>>`
  insert into api_keys (id, account_id, dialect, name, key_hash, key_prefix, scopes, expires_at, created_at)
  values (${key.id}, ${accountId}, 'acf', ${name}, ${Buffer.from(key.hash)}, ${key.prefix}, ${key.scopes as Array<string>},
    ${key.expiresAtMs === undefined ? null : new Date(key.expiresAtMs)}, ${new Date(atMs)})`

/** Nothing when it is there and good already. */
const upsertKey = (sql: Sql, accountId: AccountId, key: AdminKey, atMs: number) => sql<Array<{ id: KeyId; account_id: AccountId }>>`
  ${insertKey(sql, accountId, environment, key, atMs)}
  on conflict (key_hash) do update set name = excluded.name, scopes = excluded.scopes, status = 'active', expires_at = null, revoked_at = null
    where (api_keys.name, api_keys.scopes, api_keys.status) is distinct from (excluded.name, excluded.scopes, 'active')
  returning id, account_id`

const revokeOthers = (sql: Sql, hash: Uint8Array | undefined, atMs: number) => sql<Array<{ id: KeyId; account_id: AccountId }>>`
  update api_keys set status = 'revoked', revoked_at = ${new Date(atMs)}
  where dialect = 'acf' and name = ${environment} and scopes @> '{admin}' and status = 'active'
    ${hash === undefined ? sql`` : sql`and key_hash <> ${Buffer.from(hash)}`}
  returning id, account_id`

/** The account of the name, made when nobody has it. */
const accountOf = async (sql: Sql, owner: string, { newId, atMs }: Entry): Promise<AccountId> => {
  const [made] = await insertOwner(sql, owner, newId() as AccountId, new Date(atMs)).catch((cause: { readonly constraint_name?: string }) => {
    // Somebody else was faster by a moment.
    if (cause.constraint_name === "owners_pkey") return []
    throw cause
  })
  return made?.account_id ?? (await selectByName(sql, owner))[0]!.account_id
}

const tell = async (sql: Sql, action: string, changed: { readonly id: KeyId; readonly account_id: AccountId }, details: object, { newId, atMs }: Entry): Promise<void> => {
  await insertAudit(sql, changed.account_id, { id: newId(), actor: "operator", action, target: changed.id, details: { ...details }, atMs })
  await notifyChange(sql, "account", changed.account_id)
}

/** Another key for the owner with this name, who is made when there is none. */
export const addAdminKey = async (sql: Sql, owner: string, key: AdminKey, entry: Entry): Promise<void> => {
  const accountId = await accountOf(sql, owner, entry)
  await begin(sql, async (tx) => {
    await insertKey(tx, accountId, "admin", key, entry.atMs)
    await tell(tx, "api_key.create", { id: key.id, account_id: accountId }, { name: "admin", scopes: key.scopes }, entry)
  })
}

/** Makes this the environment's only key; without one, it has none. Repeating it does nothing. */
export const settleEnvironmentKey = async (sql: Sql, owner: string, key: AdminKey | undefined, entry: Entry): Promise<void> => {
  const accountId = key === undefined ? undefined : await accountOf(sql, owner, entry)
  await begin(sql, async (tx) => {
    await tx`select pg_advisory_xact_lock(hashtext(${environment}))`
    for (const revoked of await revokeOthers(tx, key?.hash, entry.atMs)) {
      await tx`update accounts set token = token + 1 where id = ${revoked.account_id}`
      await tell(tx, "api_key.revoke", revoked, { name: environment }, entry)
    }
    if (key === undefined) return
    const [added] = await upsertKey(tx, accountId!, key, entry.atMs)
    if (added !== undefined) await tell(tx, "api_key.create", added, { name: environment, scopes: key.scopes }, entry)
  })
}
