/**
 * Rate windows on their way from a node that lets go of an account to the next
 * one that activates it. A row that is older than the window says nothing any
 * more, and goes with a later hand-over.
 */
import { Effect } from "effect"
import type { SubjectId } from "../domain/account.ts"
import type { StoreUnavailable } from "../domain/errors.ts"
import type { AccountId } from "../domain/ids.ts"
import { Postgres, type Sql } from "./Postgres.ts"

export interface HandedWindow {
  readonly accountId: AccountId
  readonly subjectId: SubjectId
  readonly calls: ReadonlyArray<readonly [second: number, calls: number]>
}

const upsert = (sql: Sql, rows: string) => sql`
  insert into windows (subject_id, account_id, calls)
  select subject_id, account_id, calls from json_to_recordset(${rows}::text::json) as r(subject_id uuid, account_id uuid, calls jsonb) order by subject_id
  on conflict (subject_id) do update set account_id = excluded.account_id, calls = excluded.calls, handed_at = excluded.handed_at`

const removeOld = (sql: Sql) => sql`
  delete from windows where subject_id in (select subject_id from windows where handed_at < now() - interval '2 minutes' order by subject_id limit 10000 for update skip locked)`

const select = (sql: Sql, accountId: AccountId) => sql<Array<{ subject_id: SubjectId; calls: HandedWindow["calls"] }>>`
  select subject_id, calls from windows where account_id = ${accountId} and handed_at > now() - interval '2 minutes'`

/** Replaces what was handed over of the same subjects before. */
export const handWindows = (windows: ReadonlyArray<HandedWindow>): Effect.Effect<void, StoreUnavailable, Postgres> => Postgres.use(({ run }) => run(async (sql) => {
  await upsert(sql, JSON.stringify(windows.map(({ accountId, subjectId, calls }) => ({ subject_id: subjectId, account_id: accountId, calls }))))
  await removeOld(sql)
}))

export const findHandedWindows = (accountId: AccountId): Effect.Effect<ReadonlyArray<HandedWindow>, StoreUnavailable, Postgres> => Postgres.use(({ run }) => run((sql) => select(sql, accountId))).pipe(
  Effect.map((rows) => rows.map(({ subject_id, calls }) => ({ accountId, subjectId: subject_id, calls })))
)
