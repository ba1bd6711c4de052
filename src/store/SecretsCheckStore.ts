/** The one row by which every node proves that it has the same SECRETS_KEY. */
import type { Sql } from "./Postgres.ts"

export interface SecretsCheck {
  readonly salt: Buffer
  readonly sealed: Buffer
}

export const find = async (sql: Sql): Promise<SecretsCheck | undefined> =>
  (await sql<Array<SecretsCheck>>`select salt, sealed from secrets_check`)[0]

/** Stores the check unless there is one; answers the one that counts. */
export const settle = async (sql: Sql, check: SecretsCheck): Promise<SecretsCheck> => {
  await sql`insert into secrets_check (salt, sealed) values (${check.salt}, ${check.sealed}) on conflict do nothing`
  return await find(sql) as SecretsCheck
}
