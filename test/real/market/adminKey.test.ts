/** Where the first admin comes from: the operator's command, beside a gateway that runs, and the environment of gateways that start. */
import { execFile } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest"
import { owner } from "../../support/acf.ts"
import type { GatewayProcess } from "../../support/GatewayProcess.ts"
import { type StageDatabase, expectCleanBooks, useStage } from "../../support/Stage.ts"
import { type World, makeWorld } from "../../support/World.ts"

interface Ended { readonly code: number; readonly out: string; readonly err: string }

const run = (env: Readonly<Record<string, string>>, ...args: ReadonlyArray<string>): Promise<Ended> => new Promise((done) => {
  const { DATABASE_URL: _, DATA_DIR: __, ...inherited } = process.env
  execFile(process.execPath, ["scripts/run.mjs", "admin-key", ...args], { env: { ...inherited, ...env } }, (error, out, err) =>
    done({ code: error === null ? 0 : Number(error.code), out, err }))
})
/** What is told a moment later, on another connection than the one that changed it. */
const soon = (check: () => Promise<void>): Promise<void> => vi.waitFor(check, { timeout: 10_000, interval: 20 })
const hashOf = (key: string): Buffer => createHash("sha256").update(key).digest()
const keyIn = (out: string): string => /^acf_[0-9a-f]{16}:sec_[\w-]{43}$/m.exec(out)![0]

describe("npm run admin-key, beside a gateway", () => {
  let world: World
  let command: (...args: ReadonlyArray<string>) => Promise<Ended>
  beforeAll(async () => {
    world = await makeWorld()
    const { host, port, user, database } = world.store.options
    const env = { DATABASE_URL: `postgres:///${database}`, PGHOST: host, PGPORT: String(port), PGUSER: user, PUBLIC_URL: "https://market.example" }
    command = (...args) => run(env, ...args)
  })
  afterAll(() => world.stop())

  const validated = async (key: string) => {
    const [key_id, secret] = key.split(":")
    return (await world.call("POST", "/acf/api/v1/keys/validate", { body: { key_id, secret } })).json
  }

  it("makes the first admin, whose key is good at once, is told once, and stored as a hash for a year", async () => {
    const { code, out, err } = await command()
    expect([code, err]).toEqual([0, ""])
    const key = keyIn(out)
    expect(out).toMatch(/^an admin's key of "admin", good until \d{4}-\d\d-\d\d; it is shown this once:\nacf_\S+\nsend it as [^\n]* https:\/\/market\.example\/admin\/dashboard\n$/)
    expect(await validated(key)).toEqual({ valid: true, owner_id: "admin", role: "admin", rate_limit: 100_000 })
    expect((await world.call("POST", "/acf/api/v1/keys", { token: key, body: { owner_id: "another", role: "admin" } })).status).toBe(201)
    const [row] = await world.sql`
      select dialect, name, key_prefix, scopes, status, round(extract(epoch from expires_at - now()) / 86400)::int as days, account_id from api_keys where key_hash = ${hashOf(key)}`
    const { account_id: accountId, ...stored } = row!
    expect(stored).toEqual({ dialect: "acf", name: "admin", key_prefix: key.split(":")[0], scopes: ["buyer", "provider", "admin"], status: "active", days: 365 })
    const written = await world.sql`select actor, action, details from audit_log where account_id = ${accountId} and actor = 'operator'`
    expect(written).toEqual([{ actor: "operator", action: "api_key.create", details: { name: "admin", scopes: ["buyer", "provider", "admin"] } }])
  })

  it("makes another one each time, for one owner, also when several run at once", async () => {
    const all = await Promise.all([command("twins"), command("twins")])
    expect(all.map(({ code, err }) => [code, err])).toEqual([[0, ""], [0, ""]])
    const keys = all.map(({ out }) => keyIn(out))
    expect(await Promise.all(keys.map(validated))).toEqual(keys.map(() => expect.objectContaining({ owner_id: "twins", role: "admin" })))
    expect(await world.sql`select count(distinct account_id)::int as accounts from api_keys where key_prefix = any(${keys.map((key) => key.split(":")[0]!)}::text[])`).toEqual([{ accounts: 1 }])
    await expectCleanBooks(world.sql)
  })

  it("makes an owner who is there an admin, and a gateway that has its account in memory takes the key", async () => {
    const buyer = await owner(world, { name: "Ada's agents" })
    expect((await buyer.call("GET", "/api/v1/usage/me")).status).toBe(200)
    const key = keyIn((await command("Ada's agents")).out)
    await soon(async () => expect(await validated(key)).toMatchObject({ owner_id: "Ada's agents", role: "admin" }))
    expect((await buyer.call("GET", "/api/v1/admin/stats")).status).toBe(403)
  })

  it("refuses what is no name in one line, and makes nothing", async () => {
    const count = () => world.sql`select (select count(*) from api_keys)::int as keys, (select count(*) from owners)::int as owners`
    const before = await count()
    const wrong = [["a", "b"], ["x".repeat(201)], ["two\nlines"], ["01234567-89ab-cdef-0123-456789abcdef"]]
    for (const { code, out, err } of await Promise.all(wrong.map((args) => command(...args)))) {
      expect([code, out]).toEqual([1, ""])
      expect(err).toMatch(/^admin-key: [^\n]*usage: npm run admin-key -- \[owner\]\n$/)
    }
    expect(await count()).toEqual(before)
  })
})

describe("ACF_ADMIN_KEY", () => {
  const stage = useStage(afterAll)
  let database: StageDatabase
  beforeAll(async () => {
    database = await stage.database()
  })
  const secret = (): string => randomBytes(32).toString("base64url")
  const start = (key?: string): Promise<GatewayProcess> => stage.gateway({ ...database.env, ...(key === undefined ? {} : { ACF_ADMIN_KEY: key }) })
  const statusOf = async (gateway: GatewayProcess, key: string): Promise<number> => (await gateway.call("GET", "/acf/api/v1/admin/stats", { token: key })).status
  const environmentKeys = () => database.sql`select key_prefix, status, key_hash from api_keys where name = 'environment' order by id`

  it("is one key of the owner admin, however many gateways start with it, until one starts with another, or none", async () => {
    const [first, second] = [`root:${secret()}`, `root:${secret()}`]
    const [one, two] = await Promise.all([start(first), start(first)])
    expect(await Promise.all([one, two].map((gateway) => statusOf(gateway, first)))).toEqual([200, 200])
    expect(await environmentKeys()).toEqual([{ key_prefix: "root", status: "active", key_hash: hashOf(first) }])

    const session = (await one.call("GET", "/admin/dashboard", { token: first })).headers["set-cookie"]!
    const cookie = String(session).split(";")[0]!
    expect((await two.call("GET", "/admin/dashboard", { headers: { cookie } })).status).toBe(200)

    const three = await start(second)
    expect(await statusOf(three, second)).toBe(200)
    for (const gateway of [one, two, three]) {
      await soon(async () => expect([await statusOf(gateway, first), await statusOf(gateway, second)]).toEqual([401, 200]))
      expect((await gateway.call("GET", "/admin/dashboard", { headers: { cookie } })).status).toBe(401)
    }

    const again = await start(first)
    await soon(async () => expect([await statusOf(again, first), await statusOf(three, second)]).toEqual([200, 401]))
    expect(await environmentKeys()).toEqual([{ key_prefix: "root", status: "active", key_hash: hashOf(first) }, { key_prefix: "root", status: "revoked", key_hash: hashOf(second) }])

    await start()
    await soon(async () => expect(await statusOf(again, first)).toBe(401))
    const actions = await database.sql`select action, details->>'name' as name from audit_log where actor = 'operator' order by id`
    expect(actions).toEqual(["create", "revoke", "create", "revoke", "create", "revoke"].map((verb) => ({ action: `api_key.${verb}`, name: "environment" })))
    await expectCleanBooks(database.sql)
  })

  it("stops the start, in one line, when its id is another key's", async () => {
    await database.sql`
      insert into api_keys (id, account_id, dialect, name, key_hash, key_prefix, scopes) select gen_random_uuid(), account_id, 'acf', 'buyer', ${hashOf("another")}, 'taken', '{buyer}' from owners where name = 'admin'`
    await expect(start(`taken:${secret()}`)).rejects.toThrow(/tollgate: ACF_ADMIN_KEY is not allowed: another key has this id\n/)
    expect(await environmentKeys()).not.toContainEqual(expect.objectContaining({ key_prefix: "taken" }))
  })
})
