/** Owners by name: whose account a name is, and how an account is called. */
import { Effect } from "effect"
import type { StoreUnavailable } from "../../domain/errors.ts"
import { type AccountId, isUuid } from "../../domain/ids.ts"
import { Postgres, type Sql, SqlFailure } from "../Postgres.ts"

/** A name goes before an id that looks the same. An account that was merged is the one that it became. */
export const selectByName = (sql: Sql, name: string) => sql<Array<{ account_id: AccountId }>>`
  select account_id from owners where dialect = 'acf' and name = ${name}
  ${isUuid(name) ? sql`union all select coalesce(merged_into, id) from accounts where id = ${name}` : sql``} limit 1`

const selectName = (sql: Sql, accountId: AccountId) => sql<Array<{ name: string }>>`
  select name from owners where dialect = 'acf' and account_id = ${accountId}`

export const findOwner = (name: string): Effect.Effect<AccountId | undefined, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectByName(sql, name))).pipe(Effect.map(([row]) => row?.account_id))

export const findNameOf = (accountId: AccountId): Effect.Effect<string | undefined, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectName(sql, accountId))).pipe(Effect.map(([row]) => row?.name))

export const insertOwner = (sql: Sql, name: string, accountId: AccountId, at: Date) => sql<Array<{ account_id: AccountId }>>`
  with account as (
    insert into accounts (id, created_at) select ${accountId}, ${at} where not exists (select from owners where dialect = 'acf' and name = ${name}) returning id
  ), earning as (
    insert into earnings (account_id) select id from account
  )
  insert into owners (dialect, name, account_id, created_at) select 'acf', ${name}, id, ${at} from account returning account_id`

/** Who began to take the name and never got a key of it, a minute ago or more: no commit of its own is under way any more. One who asks gets the account. */
const reclaimOwner = (sql: Sql, name: string, at: Date) => sql<Array<{ account_id: AccountId }>>`
  update owners o set created_at = ${at} where dialect = 'acf' and name = ${name} and created_at < ${at}::timestamptz - interval '1 minute'
    and not exists (select from api_keys k where k.account_id = o.account_id) returning account_id`

/** The account of a name that nobody ever had a key of; `undefined` when somebody had one, or may get it this moment. */
export const reclaim = (name: string, nowMs: number): Effect.Effect<AccountId | undefined, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => reclaimOwner(sql, name, new Date(nowMs)))).pipe(Effect.map(([row]) => row?.account_id))

/** A new account that goes by the name; `undefined` when the name is taken. Durable when answered. */
export const establishOwner = (name: string, accountId: AccountId, nowMs: number): Effect.Effect<AccountId | undefined, StoreUnavailable, Postgres> =>
  Postgres.use(({ attempt }) => attempt((sql) => insertOwner(sql, name, accountId, new Date(nowMs)))).pipe(
    Effect.map(([row]) => row?.account_id),
    Effect.catchIf((error) => error instanceof SqlFailure, (failure) =>
      failure.constraint === "owners_pkey" ? Effect.succeed(undefined) : Effect.die(failure))
  )
