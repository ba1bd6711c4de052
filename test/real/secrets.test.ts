import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { BadSetting, Config, readSettings } from "../../src/config.ts"
import { NotConfigured } from "../../src/domain/errors.ts"
import { Secrets } from "../../src/kernel/identity/Secrets.ts"
import { type Connection, Postgres } from "../../src/store/Postgres.ts"
import { database } from "../support/loginNode.ts"

const key = "a secrets key of at least 32 characters"
const remote = { DATABASE_URL: "postgres://database.test/tollgate" }

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "tollgate-secrets-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const start = (connection: Connection, env: Readonly<Record<string, string>>) =>
  Layer.build(Layer.fresh(Secrets.layer.pipe(Layer.provide(Layer.merge(Layer.succeed(Config, readSettings(env)), Postgres.layer(connection)))))).pipe(
    Effect.map((services) => Context.get(services, Secrets))
  )

const refusal = (connection: Connection, env: Readonly<Record<string, string>>) => Effect.map(Effect.flip(start(connection, env)), (error) => {
  expect(error).toBeInstanceOf(BadSetting)
  const { message } = error as BadSetting
  expect(message).not.toContain("\n")
  return message
})

describe("a sealed secret", () => {
  it.effect("opens on every node with the same key, and for its own purpose and id alone", () => Effect.gen(function*() {
    const connection = yield* database
    const one = yield* start(connection, { ...remote, SECRETS_KEY: key })
    const two = yield* start(connection, { ...remote, SECRETS_KEY: key })
    const sealed = yield* one.seal("provider_key", "agent-1", "sk-ant-1")
    expect((yield* two.open("provider_key", "agent-1", sealed)).toString()).toBe("sk-ant-1")
    const opens = (purpose: string, id: string, bytes: Uint8Array) => Effect.map(Effect.exit(two.open(purpose, id, bytes)), (exit) => exit._tag === "Success")
    expect(yield* opens("provider_key", "agent-2", sealed)).toBe(false)
    expect(yield* opens("webhook", "agent-1", sealed)).toBe(false)
    for (let index = 0; index < sealed.length; index++) {
      const damaged = Buffer.from(sealed)
      damaged[index]! ^= 1
      expect(yield* opens("provider_key", "agent-1", damaged), `byte ${index}`).toBe(false)
    }
    expect(yield* opens("provider_key", "agent-1", sealed.subarray(0, 28))).toBe(false)
    expect(yield* opens("provider_key", "agent-1", sealed)).toBe(true)
  }))

  it.effect("is never the same twice", () => Effect.gen(function*() {
    const secrets = yield* start(yield* database, { ...remote, SECRETS_KEY: key })
    const sealed = yield* Effect.all(Array.from({ length: 100 }, () => secrets.seal("p", "1", "text")))
    expect(new Set(sealed.map((bytes) => bytes.toString("hex"))).size).toBe(100)
  }))
})

describe("a node", () => {
  it.effect("with another SECRETS_KEY than the database's, or none, does not start", () => Effect.gen(function*() {
    const connection = yield* database
    yield* start(connection, { ...remote, SECRETS_KEY: key })
    expect(yield* refusal(connection, { ...remote, SECRETS_KEY: `${key}!` })).toMatch(/^SECRETS_KEY is not the one/)
    expect(yield* refusal(connection, remote)).toMatch(/^SECRETS_KEY is missing/)
    yield* start(connection, { ...remote, SECRETS_KEY: key })
  }))

  it.effect("that starts at once with another agrees on the check, or does not start", () => Effect.gen(function*() {
    const same = yield* database
    const [one, two] = yield* Effect.all([start(same, { ...remote, SECRETS_KEY: key }), start(same, { ...remote, SECRETS_KEY: key })], { concurrency: 2 })
    expect((yield* two.open("p", "1", yield* one.seal("p", "1", "text"))).toString()).toBe("text")
    const different = yield* database
    const results = yield* Effect.all([key, `${key}!`].map((SECRETS_KEY) => Effect.result(start(different, { ...remote, SECRETS_KEY }))), { concurrency: 2 })
    expect(results.map((result) => result._tag).sort()).toEqual(["Failure", "Success"])
  }))

  it.effect("with DATABASE_URL and no SECRETS_KEY starts, and can seal nothing", () => Effect.gen(function*() {
    const secrets = yield* start(yield* database, remote)
    expect(secrets.available).toBe(false)
    expect(yield* Effect.flip(secrets.seal("p", "1", "text"))).toEqual(new NotConfigured({ setting: "SECRETS_KEY" }))
    expect(yield* Effect.flip(secrets.open("p", "1", Buffer.alloc(40)))).toEqual(new NotConfigured({ setting: "SECRETS_KEY" }))
  }))

  it.effect("with the embedded database makes a key of its own once, which only its user can read", () => Effect.gen(function*() {
    const connection = yield* database
    const DATA_DIR = join(yield* folder, "data")
    const path = join(DATA_DIR, "secrets.key")
    const sealed = yield* (yield* start(connection, { DATA_DIR })).seal("p", "1", "text")
    const made = readFileSync(path, "utf8")
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(made).toMatch(/^[\w-]{43}\n$/)
    expect((yield* (yield* start(connection, { DATA_DIR })).open("p", "1", sealed)).toString()).toBe("text")
    expect(readFileSync(path, "utf8")).toBe(made)
  }))

  it.effect("that lost its key file says so, and makes no other in its place", () => Effect.gen(function*() {
    const connection = yield* database
    const DATA_DIR = yield* folder
    const path = join(DATA_DIR, "secrets.key")
    yield* start(connection, { DATA_DIR })
    const made = readFileSync(path)
    rmSync(path)
    expect(yield* refusal(connection, { DATA_DIR })).toBe(`${path} is missing: this database holds secrets that are sealed with it`)
    expect(() => statSync(path)).toThrow("ENOENT")
    writeFileSync(path, "cut")
    expect(yield* refusal(connection, { DATA_DIR })).toMatch(/is not a secrets key/)
    writeFileSync(path, made)
    yield* start(connection, { DATA_DIR })
  }))
})
