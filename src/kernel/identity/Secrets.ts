/**
 * Seals what users entrust to the gateway (provider keys, webhook secrets) and
 * its own private signing keys, by AES-256-GCM.
 *
 * The key is derived from `SECRETS_KEY` by scrypt under a salt that belongs to
 * the database. With the embedded database and no setting, a random one is made
 * once in `DATA_DIR/secrets.key` (0600). With `DATABASE_URL` and none set the
 * gateway runs without: `available` is false, and both operations fail with
 * `NotConfigured`.
 *
 * Guarantee: a sealed value opens only under the same key, purpose and id, so
 * that no row's secret can be passed off as another's. The first node with a
 * key leaves a check value in the database; a node that has another key, or
 * none, does not start. So one database never holds secrets under two keys, and
 * a lost key is noticed before anything is written with a new one. The key of a
 * database can't be changed.
 *
 * Sealed form: version 1, 12-byte random nonce, 16-byte tag, ciphertext. A value
 * that does not open is a damaged or exchanged row: a defect.
 */
import { Context, Effect, Layer } from "effect"
import { createCipheriv, createDecipheriv, randomBytes, scrypt } from "node:crypto"
import { closeSync, fsyncSync, linkSync, mkdirSync, openSync, readFileSync, unlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { BadSetting, Config, type Settings } from "../../config.ts"
import { NotConfigured, type StoreUnavailable } from "../../domain/errors.ts"
import { Postgres } from "../../store/Postgres.ts"
import * as SecretsCheckStore from "../../store/SecretsCheckStore.ts"

const version = 1
const nonceBytes = 12
const tagBytes = 16
const headBytes = 1 + nonceBytes + tagBytes

const boundTo = (purpose: string, id: string): Buffer => Buffer.from(`${purpose}\0${id}`)

const seal = (key: Buffer, purpose: string, id: string, plaintext: Uint8Array): Buffer => {
  const nonce = randomBytes(nonceBytes)
  const cipher = createCipheriv("aes-256-gcm", key, nonce, { authTagLength: tagBytes }).setAAD(boundTo(purpose, id))
  const ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final()])
  return Buffer.concat([Buffer.of(version), nonce, cipher.getAuthTag(), ciphertext])
}

/** Throws when the value was not sealed under this key, purpose and id. */
const open = (key: Buffer, purpose: string, id: string, sealed: Uint8Array): Buffer => {
  if (sealed.length < headBytes || sealed[0] !== version) throw new Error(`not a sealed value: ${purpose} ${id}`)
  const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(1, 1 + nonceBytes), { authTagLength: tagBytes })
    .setAAD(boundTo(purpose, id))
    .setAuthTag(sealed.subarray(1 + nonceBytes, headBytes))
  return Buffer.concat([decipher.update(sealed.subarray(headBytes)), decipher.final()])
}

/** 40 ms: enough to make guessing a weak setting expensive, little for a start. */
const derive = (secret: string, salt: Buffer): Effect.Effect<Buffer> =>
  Effect.callback((resume) => scrypt(secret, salt, 32, { N: 16_384, r: 8, p: 1 }, (error, key) =>
    resume(error === null ? Effect.succeed(key) : Effect.die(error))))

const checkPurpose = "secrets_check"
const checkText = "tollgate"

const opensCheck = (key: Buffer, check: SecretsCheckStore.SecretsCheck): boolean => {
  try {
    return open(key, checkPurpose, "", check.sealed).toString() === checkText
  } catch {
    return false
  }
}

const fileOf = (settings: Settings): string => join(settings.dataDir, "secrets.key")

const readKeyFile = (path: string): string | undefined => {
  try {
    const text = readFileSync(path, "utf8").trim()
    if (text.length < 32) throw new BadSetting(`${path} is not a secrets key: restore it from a backup`)
    return text
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined
    throw error instanceof BadSetting ? error : new BadSetting(`${path} can't be read: ${(error as Error).message}`)
  }
}

/** Appears complete or not at all, and never replaces one that is there. */
const createKeyFile = (settings: Settings): string => {
  const path = fileOf(settings)
  const draft = `${path}.${process.pid}`
  try {
    mkdirSync(settings.dataDir, { recursive: true })
    writeFileSync(draft, `${randomBytes(32).toString("base64url")}\n`, { mode: 0o600, flush: true })
    try {
      linkSync(draft, path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error
    } finally {
      unlinkSync(draft)
    }
    // The check value that is committed next must never outlive the file.
    const folder = openSync(settings.dataDir, "r")
    fsyncSync(folder)
    closeSync(folder)
  } catch (error) {
    throw new BadSetting(`${path} can't be created: ${(error as Error).message}`)
  }
  return readKeyFile(path)!
}

const secretOf = (settings: Settings, isNew: boolean): string | undefined => {
  if (settings.secretsKey !== undefined) return settings.secretsKey
  if (settings.databaseUrl !== undefined) return undefined
  return readKeyFile(fileOf(settings)) ?? (isNew ? createKeyFile(settings) : undefined)
}

const nameOf = (settings: Settings): string =>
  settings.secretsKey !== undefined || settings.databaseUrl !== undefined ? "SECRETS_KEY" : fileOf(settings)

/** The first node's check value, or another's that was faster. */
const begin = Effect.fnUntraced(function*(secret: string) {
  const salt = randomBytes(16)
  const key = yield* derive(secret, salt)
  const check = { salt, sealed: seal(key, checkPurpose, "", Buffer.from(checkText)) }
  return yield* (yield* Postgres).run((sql) => SecretsCheckStore.settle(sql, check))
})

const load = Effect.gen(function*(): Effect.fn.Return<Buffer | undefined, BadSetting | StoreUnavailable, Config | Postgres> {
  const settings = yield* Config
  const existing = yield* (yield* Postgres).run(SecretsCheckStore.find)
  const secret = yield* Effect.try({
    try: () => secretOf(settings, existing === undefined),
    catch: (error) => error as BadSetting
  })
  if (secret === undefined) {
    if (existing === undefined) return undefined
    return yield* Effect.fail(new BadSetting(`${nameOf(settings)} is missing: this database holds secrets that are sealed with it`))
  }
  const check = existing ?? (yield* begin(secret))
  const key = yield* derive(secret, check.salt)
  if (opensCheck(key, check)) return key
  return yield* Effect.fail(new BadSetting(`${nameOf(settings)} is not the one that this database's secrets are sealed with`))
})

export class Secrets extends Context.Service<Secrets, {
  readonly available: boolean
  readonly seal: (purpose: string, id: string, plaintext: Uint8Array | string) => Effect.Effect<Buffer, NotConfigured>
  readonly open: (purpose: string, id: string, sealed: Uint8Array) => Effect.Effect<Buffer, NotConfigured>
}>()("tollgate/kernel/identity/Secrets") {
  static readonly layer: Layer.Layer<Secrets, BadSetting | StoreUnavailable, Config | Postgres> = Layer.effect(Secrets, Effect.map(load, (key) => {
    const withKey = (use: (key: Buffer) => Buffer): Effect.Effect<Buffer, NotConfigured> =>
      key === undefined ? Effect.fail(new NotConfigured({ setting: "SECRETS_KEY" })) : Effect.sync(() => use(key))
    return Secrets.of({
      available: key !== undefined,
      seal: (purpose, id, plaintext) => withKey((key) => seal(key, purpose, id, typeof plaintext === "string" ? Buffer.from(plaintext) : plaintext)),
      open: (purpose, id, sealed) => withKey((key) => open(key, purpose, id, sealed))
    })
  }))
}
