/** What earlier calls with an idempotency key have done. Rows are written by the Committer and live 24 h. */
import { Effect } from "effect"
import { limits } from "../config.ts"
import type { StoreUnavailable } from "../domain/errors.ts"
import type { AccountId } from "../domain/ids.ts"
import { Postgres, type Sql } from "./Postgres.ts"

export interface Remembered {
  readonly fingerprint: string
  readonly resultId: string
  readonly answer: { readonly status: number; readonly headers: ReadonlyArray<readonly [string, string]>; readonly body: Uint8Array } | undefined
}

interface Row { fingerprint: string; result_id: string; expired: boolean; status: number | null; headers: ReadonlyArray<readonly [string, string]>; body: Uint8Array }

const selectKey = (sql: Sql, accountId: AccountId, key: string) => sql<Array<Row>>`
  select k.fingerprint, k.result_id, k.created_at < now() - ${`${limits.idempotencyTtlMs} milliseconds`}::interval as expired, a.status, a.headers, a.body
  from idempotency_keys k
  left join idempotency_answers a on a.account_id = k.account_id and a.key = k.key and a.created_at = k.created_at
  where k.account_id = ${accountId} and k.key = ${key}`

const deleteKey = (sql: Sql, accountId: AccountId, key: string) => sql`
  delete from idempotency_keys where account_id = ${accountId} and key = ${key}
    and created_at < now() - ${`${limits.idempotencyTtlMs} milliseconds`}::interval`

/** `undefined` when the key is new, or so old that it may be used again. */
export const findRemembered = (accountId: AccountId, key: string): Effect.Effect<Remembered | undefined, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run(async (sql) => {
    const [row] = await selectKey(sql, accountId, key)
    if (row === undefined) return undefined
    if (row.expired) {
      await deleteKey(sql, accountId, key)
      return undefined
    }
    return {
      fingerprint: row.fingerprint,
      resultId: row.result_id,
      answer: row.status === null ? undefined : { status: row.status, headers: row.headers, body: row.body }
    }
  }))
