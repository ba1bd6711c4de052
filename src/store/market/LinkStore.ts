/**
 * Two accounts become one, in one transaction: `into` gets the name, the keys,
 * the services and the money of `from`, which keeps its history and nothing else.
 *
 * Both rows are locked in the order of their ids, as the Committer does, and
 * both tokens are raised, and what other nodes have of the two is closed: what
 * anybody still has on its way for either is refused. Credits move over `into`'s posted earnings, which it sweeps; so do
 * earnings that are still posted to `from` by calls in flight.
 */
import type { AccountId } from "../../domain/ids.ts"
import { insertAudit } from "../AuditStore.ts"
import { notifyChange } from "../Changes.ts"
import type { AuditRow } from "../Commit.ts"
import { closeEveryLease } from "../LeaseStore.ts"
import { type Sql, begin } from "../Postgres.ts"

export interface Merge {
  readonly from: AccountId
  readonly into: AccountId
  readonly transactionId: string
  readonly batchId: string
  readonly auditId: string
  readonly actor: AuditRow["actor"]
  readonly atMs: number
}

/** `taken`: one of the two belongs to another owner or person already. `busy`: money of `from` is reserved. Nothing was done. */
export type Merged = "merged" | "taken" | "suspended" | "busy"

const lock = (sql: Sql, { from, into }: Merge) => sql<Array<{ id: AccountId; available: bigint; reserved: bigint; status: string; merged_into: AccountId | null }>>`
  select id, available, reserved, status, merged_into from accounts where id in (${from}, ${into}) order by id for update`

/** To be asked under the locks, by a statement of its own: one that waited for them would still see what was before. */
const selectTaken = (sql: Sql, { from, into }: Merge) => sql`
  select from users where account_id = ${from} union all select from owners where account_id = ${into} and dialect = 'acf'`

const moveCredits = (sql: Sql, { from, into, transactionId, batchId, atMs }: Merge, amount: bigint) => sql`
  with batched as (
    insert into batches (id, fee, buyback, deposits, withdrawals, refused) values (${batchId}, 0, 0, 0, 0, '{}')
  ), entered as (
    insert into transactions (id, batch_id, account_id, type, available, reserved, earner_id, earned, fee, buyback, deposits, withdrawals, balance_after, reference, created_at)
    values (${transactionId}, ${batchId}, ${from}, 'adjustment', ${-amount}, 0, ${into}, ${amount}, 0, 0, 0, 0, 0, ${`merged into ${into}`}, ${new Date(atMs)})
  )
  update earnings set posted = posted + ${amount} where account_id = ${into}`

/** What belongs to an account by its id, beside its history. */
const owned = ["api_keys", "owners", "webhooks", "identities", "teams", "deposits", "settlements"] as const

/** So that a call that is tried again after the merge is still the same call. A key that both have used stays where it is. */
const moveRemembered = (sql: Sql, { from, into }: Merge, table: string) => sql`
  update ${sql(table)} r set account_id = ${into} where account_id = ${from}
    and not exists (select from ${sql(table)} o where o.account_id = ${into} and o.key = r.key)`

const moveAgents = (sql: Sql, { from, into }: Merge) => sql<Array<{ id: string }>>`
  update agents set owner_id = ${into}, version = version + 1 where owner_id = ${from} returning id`

export const mergeAccounts = (sql: Sql, merge: Merge): Promise<Merged> => begin(sql, async (tx) => {
  const rows = await lock(tx, merge)
  const from = rows.find(({ id }) => id === merge.from)
  // Somebody else was faster with the same.
  if (from?.merged_into === merge.into) return "merged"
  if (from === undefined || rows.length !== 2 || rows.some((row) => row.merged_into !== null)) return "taken"
  if ((await selectTaken(tx, merge)).length > 0) return "taken"
  if (rows.some(({ status }) => status !== "active")) return "suspended"
  if (from.reserved > 0n) return "busy"
  const returned = await closeEveryLease(tx, [merge.from, merge.into], merge.atMs)
  const credits = from.available + (returned.get(merge.from) ?? 0n)
  const changed = await tx<Array<{ id: AccountId; token: bigint }>>`update accounts set token = token + 1, available = case id when ${merge.from} then 0 else available end,
    merged_into = case id when ${merge.from} then ${merge.into}::uuid end where id in (${merge.from}, ${merge.into}) returning id, token`
  if (credits > 0n) await moveCredits(tx, merge, credits)
  for (const table of owned) await tx`update ${tx(table)} set account_id = ${merge.into} where account_id = ${merge.from}`
  for (const table of ["idempotency_keys", "idempotency_answers"]) await moveRemembered(tx, merge, table)
  await tx`delete from told_scores where account_id = ${merge.from}`
  const agents = await moveAgents(tx, merge)
  const { auditId: id, actor, atMs } = merge
  await insertAudit(tx, merge.into, { id, actor, action: "account.link", target: merge.from, details: { credits: String(credits) }, atMs })
  for (const { id } of agents) await notifyChange(tx, "agent", id)
  for (const { id, token } of changed) {
    await notifyChange(tx, "account", id, token)
    await notifyChange(tx, "webhooks", id)
  }
  return "merged"
})
