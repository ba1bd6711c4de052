/**
 * Many accounts with credits and a key each, written as rows. Over the API each
 * would cost two slow password hashes, which would take longer than the
 * measurement. The rows are those that a registration, a deposit and a new key
 * leave, so that the audit's sums hold.
 */
import { createHash, randomBytes } from "node:crypto"
import type postgres from "postgres"

/** Ten thousand dollars each: no load here lasts long enough to spend them. */
const creditsMicros = 10_000_000_000

/** Answers the keys. */
export const addCallers = async (sql: postgres.Sql, count: number): Promise<ReadonlyArray<string>> => {
  const keys = Array.from({ length: count }, () => `autx_live_${randomBytes(32).toString("base64url")}`)
  const hashes = keys.map((key) => createHash("sha256").update(key).digest("hex"))
  await sql`
    with caller as materialized (
      select gen_random_uuid() as id, decode(hash, 'hex') as hash from unnest(string_to_array(${hashes.join()}, ',')) as t(hash)
    ), account as (
      insert into accounts (id, available) select id, ${creditsMicros}::bigint from caller
    ), earning as (
      insert into earnings (account_id) select id from caller
    ), key as (
      insert into api_keys (id, account_id, dialect, name, key_hash, key_prefix, scopes)
      select gen_random_uuid(), id, 'autx', 'bench', hash, 'autx_live_', array['*'] from caller
    ), batch as (
      insert into batches (id, fee, buyback, deposits, withdrawals, refused)
      select gen_random_uuid(), 0, 0, -count(*) * ${creditsMicros}::bigint, 0, '{}' from caller
      returning id
    )
    insert into transactions (id, batch_id, account_id, type, available, reserved, earned, fee, buyback, deposits, withdrawals, balance_after, created_at)
    select gen_random_uuid(), batch.id, caller.id, 'deposit', ${creditsMicros}::bigint, 0, 0, 0, 0, -${creditsMicros}::bigint, 0, ${creditsMicros}::bigint, now()
    from caller, batch`
  return keys
}
