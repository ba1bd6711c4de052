/**
 * Identities: who an account says that its agents are. Each write is one
 * statement with its audit row, durable when answered. The audit row is for the
 * identity's owner, also when somebody else acted.
 */
import { Effect } from "effect"
import type { StoreUnavailable } from "../../domain/errors.ts"
import type { Identity, IdentityStatus, IdentityType } from "../../domain/identity.ts"
import { type AccountId, isUuid } from "../../domain/ids.ts"
import type { AuditRow } from "../Commit.ts"
import { Postgres, type Sql } from "../Postgres.ts"
import { type SumColumns, sumsOf, sumsOfOwner } from "./ReputationStore.ts"

export type NewIdentity = Pick<Identity, "id" | "displayName" | "identityType" | "capabilities" | "walletAddress" | "metadata"> & { readonly accountId: AccountId }
export type IdentityPatch = Partial<Pick<Identity, "displayName" | "capabilities" | "walletAddress" | "metadata" | "status">>

interface Columns extends SumColumns {
  id: string; account_id: AccountId; owner: string; display_name: string; identity_type: IdentityType; capabilities: Array<string>; wallet_address: string | null
  metadata: Record<string, unknown>; verified: boolean; status: IdentityStatus; created_at: Date; updated_at: Date
}

const identityOf = (row: Columns): Identity => ({
  id: row.id, ownerId: row.account_id, owner: row.owner, displayName: row.display_name, identityType: row.identity_type, capabilities: row.capabilities,
  walletAddress: row.wallet_address, metadata: row.metadata, verified: row.verified, status: row.status, createdAt: row.created_at, updatedAt: row.updated_at,
  sums: sumsOf(row)
})

/** Rows of `i` (identities, or what a write returned) as they are shown. */
const shown = (sql: Sql, source: string) => sql`
  select i.*, p.name as owner, s.*
  from ${sql(source)} i join parties p using (account_id) cross join lateral (${sumsOfOwner(sql, sql`i.account_id`)}) s`

/** An audit row about each identity that the CTE `source` holds. */
const auditOf = (sql: Sql, source: string, { id, actor, action, details, atMs }: AuditRow) => sql`
  insert into audit_log (id, account_id, actor, action, target, details, created_at)
  select ${id}::uuid, account_id, ${actor}, ${action}, id, ${sql.json(details as never)}, ${new Date(atMs)}::timestamptz from ${sql(source)}`

const insertIdentity = (sql: Sql, identity: NewIdentity, ownedMax: number, audit: AuditRow) => sql<Array<Columns>>`
  with added as (
    insert into identities (id, account_id, display_name, identity_type, capabilities, wallet_address, metadata, created_at, updated_at)
    select ${identity.id}::uuid, ${identity.accountId}::uuid, ${identity.displayName}, ${identity.identityType}, ${identity.capabilities as Array<string>}::text[], ${identity.walletAddress}::text,
           ${sql.json(identity.metadata as never)}::jsonb, ${new Date(audit.atMs)}::timestamptz, ${new Date(audit.atMs)}::timestamptz
    where (select count(*) from identities where account_id = ${identity.accountId}) < ${ownedMax}
    returning *
  ), audited as (${auditOf(sql, "added", audit)})
  ${shown(sql, "added")}`

/** What an admin vouched for was this name and this wallet. */
const updateIdentity = (sql: Sql, id: string, patch: IdentityPatch, audit: AuditRow) => sql<Array<Columns>>`
  with changed as (
    update identities i set
      display_name = ${patch.displayName === undefined ? sql`i.display_name` : sql`${patch.displayName}`},
      capabilities = ${patch.capabilities === undefined ? sql`i.capabilities` : sql`${patch.capabilities as Array<string>}::text[]`},
      wallet_address = ${patch.walletAddress === undefined ? sql`i.wallet_address` : sql`${patch.walletAddress}::text`},
      metadata = ${patch.metadata === undefined ? sql`i.metadata` : sql`${sql.json(patch.metadata as never)}::jsonb`},
      status = ${patch.status === undefined ? sql`i.status` : sql`${patch.status}`},
      verified = i.verified
        ${patch.displayName === undefined ? sql`` : sql`and i.display_name = ${patch.displayName}`}
        ${patch.walletAddress === undefined ? sql`` : sql`and i.wallet_address is not distinct from ${patch.walletAddress}::text`},
      updated_at = ${new Date(audit.atMs)}
    where i.id = ${id} returning *
  ), audited as (${auditOf(sql, "changed", audit)})
  ${shown(sql, "changed")}`

const setVerified = (sql: Sql, id: string, audit: AuditRow) => sql<Array<Columns>>`
  with changed as (
    update identities set verified = true, updated_at = ${new Date(audit.atMs)} where id = ${id} returning *
  ), audited as (${auditOf(sql, "changed", audit)})
  ${shown(sql, "changed")}`

const selectById = (sql: Sql, id: string) => sql<Array<Columns>>`${shown(sql, "identities")} where i.id = ${id}`

const selectPage = (sql: Sql, { status, text, limit, offset }: IdentityQuery) => sql<Array<Columns>>`
  with page as (
    select * from identities where status = ${status}
      ${text === undefined ? sql`` : sql`and (position(lower(${text}) in lower(display_name)) > 0 or position(lower(${text}) in id::text) > 0)`}
    order by id desc limit ${limit} offset ${offset}
  )
  ${shown(sql, "page")} order by i.id desc`

export interface IdentityQuery {
  readonly status: IdentityStatus
  /** Matched literally against name and id, in any case. */
  readonly text: string | undefined
  readonly limit: number
  readonly offset: number
}

type Found<A> = Effect.Effect<A, StoreUnavailable, Postgres>

const rowsOf = (query: (sql: Sql) => Promise<ReadonlyArray<Columns>>): Found<ReadonlyArray<Identity>> =>
  Postgres.use(({ run }) => run(query)).pipe(Effect.map((rows) => rows.map(identityOf)))
const firstOf = (query: (sql: Sql) => Promise<ReadonlyArray<Columns>>): Found<Identity | undefined> => Effect.map(rowsOf(query), ([first]) => first)

/** `undefined`: the account has so many already. Some that come at once may all be the last one. */
export const addIdentity = (identity: NewIdentity, ownedMax: number, audit: AuditRow): Found<Identity | undefined> =>
  firstOf((sql) => insertIdentity(sql, identity, ownedMax, audit))

/** Changes what the patch has. Another name or wallet is not verified any more. */
export const patchIdentity = (id: string, patch: IdentityPatch, audit: AuditRow): Found<Identity | undefined> => firstOf((sql) => updateIdentity(sql, id, patch, audit))

export const verifyIdentity = (id: string, audit: AuditRow): Found<Identity | undefined> =>
  isUuid(id) ? firstOf((sql) => setVerified(sql, id, audit)) : Effect.succeed(undefined)

/** Of any status. */
export const findIdentity = (id: string): Found<Identity | undefined> =>
  isUuid(id) ? firstOf((sql) => selectById(sql, id)) : Effect.succeed(undefined)

/** Newest first. */
export const listIdentities = (query: IdentityQuery): Found<ReadonlyArray<Identity>> => rowsOf((sql) => selectPage(sql, query))
