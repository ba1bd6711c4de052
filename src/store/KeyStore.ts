/** API keys as rows: looking one up by the hash of its secret, and listing an account's own. */
import { Effect } from "effect"
import { type BudgetWindow } from "../domain/budget.ts"
import type { StoreUnavailable } from "../domain/errors.ts"
import type { AccountId, KeyId } from "../domain/ids.ts"
import { Postgres, type Sql } from "./Postgres.ts"

export interface KeyByHash {
  readonly id: KeyId
  readonly accountId: AccountId
  readonly dialect: string
  readonly hash: Uint8Array
  readonly revoked: boolean
  readonly expiresAtMs: number
}

export interface ListedKey {
  readonly id: KeyId
  readonly name: string
  readonly prefix: string
  readonly scopes: ReadonlyArray<string>
  readonly status: "active" | "revoked"
  readonly rateLimit: number | undefined
  readonly expiresAt: Date | undefined
  readonly createdAt: Date
  readonly budgets: ReadonlyArray<{ readonly window: BudgetWindow; readonly amount: bigint; readonly spent: bigint; readonly periodStart: Date }>
}

const selectByHash = (sql: Sql, hash: Uint8Array) => sql<Array<{ id: KeyId; account_id: AccountId; dialect: string; key_hash: Uint8Array; status: string; expires_at: Date | null }>>`
  select id, account_id, dialect, key_hash, status, expires_at from api_keys where key_hash = ${Buffer.from(hash)}`

const selectByAccount = (sql: Sql, accountId: AccountId, dialect: string) => sql<Array<{
  id: KeyId; name: string; key_prefix: string; scopes: Array<string>; status: "active" | "revoked"; rate_limit: number | null; expires_at: Date | null; created_at: Date
  budgets: Array<{ budget_window: BudgetWindow; amount: string; spent: string; period_start: string }>
}>>`
  select k.id, k.name, k.key_prefix, k.scopes, k.status, k.rate_limit, k.expires_at, k.created_at,
    coalesce((select json_agg(json_build_object('budget_window', b.budget_window, 'amount', b.amount::text, 'spent', b.spent::text, 'period_start', b.period_start) order by b.budget_window)
              from budgets b where b.key_id = k.id), '[]') as budgets
  from api_keys k where k.account_id = ${accountId} and k.dialect = ${dialect} order by k.id desc limit 1000`

export const findKeyByHash = (hash: Uint8Array): Effect.Effect<KeyByHash | undefined, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectByHash(sql, hash))).pipe(
    Effect.map(([row]) => row === undefined ? undefined : {
      id: row.id, accountId: row.account_id, dialect: row.dialect, hash: row.key_hash,
      revoked: row.status !== "active", expiresAtMs: row.expires_at?.getTime() ?? Infinity
    })
  )

/** Newest first, at most 1,000. */
export const listKeys = (accountId: AccountId, dialect: string): Effect.Effect<ReadonlyArray<ListedKey>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectByAccount(sql, accountId, dialect))).pipe(
    Effect.map((rows) => rows.map((row): ListedKey => ({
      id: row.id, name: row.name, prefix: row.key_prefix, scopes: row.scopes, status: row.status,
      rateLimit: row.rate_limit ?? undefined, expiresAt: row.expires_at ?? undefined, createdAt: row.created_at,
      budgets: row.budgets.map((budget) => ({
        window: budget.budget_window, amount: BigInt(budget.amount), spent: BigInt(budget.spent), periodStart: new Date(budget.period_start)
      }))
    })))
  )
