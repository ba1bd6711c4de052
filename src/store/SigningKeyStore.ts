/**
 * The signing keys that all nodes share. A key is never changed after it was
 * inserted; of two nodes that make the same generation one wins, and both read
 * the winner's.
 */
import type { Sql } from "./Postgres.ts"

export type SigningPurpose = "login" | "agent"

/** RFC 8037: an Ed25519 public key. */
export interface PublicJwk {
  readonly kty: "OKP"
  readonly crv: "Ed25519"
  readonly x: string
}

export interface SigningKeyRow {
  readonly kid: string
  readonly purpose: SigningPurpose
  readonly generation: number
  readonly publicJwk: PublicJwk
  /** The private JWK as JSON, sealed (`kernel/Secrets.ts`) or as it is. */
  readonly privateJwk: Buffer
  readonly sealed: boolean
  readonly createdAt: Date
  /** Signs from here until the next generation does. */
  readonly signsAt: Date
}

/** All keys, oldest generation first. */
export const list = (sql: Sql): Promise<ReadonlyArray<SigningKeyRow>> => sql<Array<SigningKeyRow>>`
  select kid, purpose, generation, public_jwk as "publicJwk", private_jwk as "privateJwk", sealed, created_at as "createdAt", signs_at as "signsAt"
  from signing_keys order by purpose, generation`

/** Adds a generation, unless another node did. */
export const add = async (sql: Sql, key: SigningKeyRow): Promise<void> => {
  await sql`
    insert into signing_keys (kid, purpose, generation, public_jwk, private_jwk, sealed, created_at, signs_at)
    values (${key.kid}, ${key.purpose}, ${key.generation}, ${sql.json({ ...key.publicJwk })}, ${key.privateJwk}, ${key.sealed}, ${key.createdAt}, ${key.signsAt})
    on conflict (purpose, generation) do nothing`
}

/** Deletes the keys whose successors have signed since `before`. */
export const removeSucceeded = async (sql: Sql, before: Date): Promise<void> => {
  await sql`
    delete from signing_keys using signing_keys successor
    where successor.purpose = signing_keys.purpose and successor.generation = signing_keys.generation + 1 and successor.signs_at <= ${before}`
}
