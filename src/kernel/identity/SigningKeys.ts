/**
 * The Ed25519 keys that sign tokens: one ring for logins, one for agents,
 * shared by all nodes through Postgres, rotated without a gap.
 *
 *     made ──lead──▶ signs ──life──▶ succeeded ──retention──▶ deleted
 *     └────────────── verifies, and is published ───────────┘
 *
 * Guarantee: a key is known to every node and published for `keyLeadMs` before
 * it signs, and kept for `keyRetentionMs` after its successor began, longer
 * than any token lives; so no good token is ever refused because of a rotation.
 * Nodes that start at once on an empty database end up with the same keys.
 *
 * Failure cases. Postgres is away when a rotation is due: the current key goes
 * on signing, the next round tries again. A node sees a kid it does not know
 * (it missed a rotation): it reloads, at most once in `reloadIntervalMs` whatever
 * forged tokens ask for; if that fails the answer is that the store is away,
 * never that the token is bad. A key that another node sealed can't be opened
 * here (`SECRETS_KEY` was added and this node has not been restarted): it still
 * verifies, and this node signs with the newest key that it can open.
 *
 * Private keys are sealed when there is a `SECRETS_KEY`, plain otherwise: then
 * who can read the database can sign. Used by `Tokens.ts` alone.
 */
import { Clock, Effect, Schedule, Semaphore } from "effect"
import { type KeyObject, createHash, createPrivateKey, createPublicKey, generateKeyPair } from "node:crypto"
import { promisify } from "node:util"
import { NotConfigured, type StoreUnavailable } from "../../domain/errors.ts"
import { Postgres } from "../../store/Postgres.ts"
import * as SigningKeyStore from "../../store/SigningKeyStore.ts"
import type { PublicJwk, SigningKeyRow, SigningPurpose } from "../../store/SigningKeyStore.ts"
import { log } from "../../telemetry/log.ts"
import { Secrets } from "./Secrets.ts"

const dayMs = 24 * 3_600_000
export const keyLifeMs = 30 * dayMs
/** Agents may cache the JWKS that long. */
export const keyLeadMs = dayMs
export const keyRetentionMs = dayMs
export const upkeepIntervalMs = 3_600_000
export const reloadIntervalMs = 10_000

interface SigningKey {
  readonly row: SigningKeyRow
  readonly publicKey: KeyObject
  /** Absent when this node can't open it. */
  readonly privateKey: KeyObject | undefined
}
type Rings = Readonly<Record<SigningPurpose, ReadonlyMap<string, SigningKey>>>

export interface SigningKeys {
  /** The key to sign with now. */
  readonly signer: (purpose: SigningPurpose) => Effect.Effect<{ readonly kid: string; readonly key: KeyObject }, NotConfigured>
  /** `undefined`: no such key exists. */
  readonly verifier: (purpose: SigningPurpose, kid: string) => Effect.Effect<KeyObject | undefined, StoreUnavailable>
  /** Every public key of a ring, also the one that signs next. */
  readonly published: (purpose: SigningPurpose) => ReadonlyArray<PublicJwk & { readonly kid: string }>
}

/** RFC 7638: the members in lexical order. */
const thumbprint = ({ crv, kty, x }: PublicJwk): string =>
  createHash("sha256").update(JSON.stringify({ crv, kty, x })).digest("base64url")

const generate = Effect.fnUntraced(function*(purpose: SigningPurpose, generation: number, nowMs: number, signsAtMs: number) {
  const secrets = yield* Secrets
  const pair = yield* Effect.promise(() => promisify(generateKeyPair)("ed25519"))
  const publicJwk = pair.publicKey.export({ format: "jwk" }) as unknown as PublicJwk
  const kid = thumbprint(publicJwk)
  const json = Buffer.from(JSON.stringify(pair.privateKey.export({ format: "jwk" })))
  const privateJwk = secrets.available ? yield* Effect.orDie(secrets.seal("signing_key", kid, json)) : json
  return {
    kid, purpose, generation, publicJwk, privateJwk, sealed: secrets.available,
    createdAt: new Date(nowMs), signsAt: new Date(signsAtMs)
  } satisfies SigningKeyRow
})

const read = Effect.fnUntraced(function*(row: SigningKeyRow) {
  const secrets = yield* Secrets
  const json = !row.sealed ? row.privateJwk
    : secrets.available ? yield* Effect.orDie(secrets.open("signing_key", row.kid, row.privateJwk))
    : undefined
  return {
    row,
    publicKey: createPublicKey({ key: { ...row.publicJwk }, format: "jwk" }),
    privateKey: json === undefined ? undefined : createPrivateKey({ key: JSON.parse(json.toString()), format: "jwk" })
  } satisfies SigningKey
})

const ringsOf = Effect.fnUntraced(function*(rows: ReadonlyArray<SigningKeyRow>, known: Rings | undefined) {
  const rings = { login: new Map<string, SigningKey>(), agent: new Map<string, SigningKey>() }
  for (const row of rows) {
    rings[row.purpose].set(row.kid, known?.[row.purpose].get(row.kid) ?? (yield* read(row)))
  }
  return rings
})

/** When the generation after `newest` has to be made, it is also said from when it signs. */
const successorOf = (newest: SigningKeyRow | undefined, nowMs: number): { readonly generation: number; readonly signsAtMs: number } | undefined => {
  if (newest === undefined) return { generation: 0, signsAtMs: nowMs }
  const endsAtMs = newest.signsAt.getTime() + keyLifeMs
  if (nowMs < endsAtMs - keyLeadMs) return undefined
  return { generation: newest.generation + 1, signsAtMs: Math.max(endsAtMs, nowMs + keyLeadMs) }
}

/** Makes what is due, deletes what is over, and reads what there is. */
const upkeep = Effect.fnUntraced(function*(known: Rings | undefined) {
  const postgres = yield* Postgres
  const before = yield* postgres.run(SigningKeyStore.list)
  const nowMs = yield* Clock.currentTimeMillis
  for (const purpose of ["login", "agent"] as const) {
    const successor = successorOf(before.findLast((row) => row.purpose === purpose), nowMs)
    if (successor === undefined) continue
    const key = yield* generate(purpose, successor.generation, nowMs, successor.signsAtMs)
    yield* postgres.run((sql) => SigningKeyStore.add(sql, key))
  }
  yield* postgres.run((sql) => SigningKeyStore.removeSucceeded(sql, new Date(nowMs - keyRetentionMs)))
  return yield* ringsOf(yield* postgres.run(SigningKeyStore.list), known)
})

/** Loads the rings, making the first keys if there are none, and keeps them up until the scope closes. */
export const makeSigningKeys = Effect.gen(function*() {
  const postgres = yield* Postgres
  const secrets = yield* Secrets
  const loading = Semaphore.makeUnsafe(1)
  let rings: Rings = yield* upkeep(undefined)
  let reloaded: { readonly atMs: number; readonly failure: StoreUnavailable | undefined } = { atMs: -Infinity, failure: undefined }

  const keepUp = Effect.gen(function*() { rings = yield* upkeep(rings) }).pipe(
    loading.withPermit,
    Effect.provideService(Secrets, secrets),
    Effect.provideService(Postgres, postgres),
    Effect.catchCause((cause) => Effect.sync(() => log.error({ cause: String(cause) }, "signing keys could not be kept up; tried again in an hour")))
  )
  yield* Effect.forkScoped(keepUp.pipe(Effect.delay(upkeepIntervalMs), Effect.repeat(Schedule.forever)))

  const reload = Effect.gen(function*() {
    const nowMs = yield* Clock.currentTimeMillis
    if (nowMs - reloaded.atMs >= (reloaded.failure?.retryAfterMs ?? reloadIntervalMs)) {
      const rows = yield* Effect.result(postgres.run(SigningKeyStore.list))
      reloaded = { atMs: nowMs, failure: rows._tag === "Failure" ? rows.failure : undefined }
      if (rows._tag === "Success") rings = yield* Effect.provideService(ringsOf(rows.success, rings), Secrets, secrets)
    }
    if (reloaded.failure !== undefined) return yield* reloaded.failure
  }).pipe(loading.withPermit)

  return {
    signer: Effect.fnUntraced(function*(purpose) {
      const nowMs = yield* Clock.currentTimeMillis
      const openable = [...rings[purpose].values()].filter((key) => key.privateKey !== undefined)
      // The first key may be dated by a node whose clock is ahead of this one's.
      const signer = openable.findLast((key) => key.row.signsAt.getTime() <= nowMs) ?? openable[0]
      if (signer?.privateKey === undefined) return yield* new NotConfigured({ setting: "SECRETS_KEY" })
      return { kid: signer.row.kid, key: signer.privateKey }
    }),
    verifier: Effect.fnUntraced(function*(purpose, kid) {
      const known = rings[purpose].get(kid)
      if (known !== undefined) return known.publicKey
      yield* reload
      return rings[purpose].get(kid)?.publicKey
    }),
    published: (purpose) => [...rings[purpose].values()].map(({ row }) => ({ ...row.publicJwk, kid: row.kid }))
  } satisfies SigningKeys
})
