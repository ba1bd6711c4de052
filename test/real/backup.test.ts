/**
 * Backup and restore as operators run them, processes beside a real gateway:
 * what was acknowledged before is there afterwards, whoever interferes leaves
 * nothing that looks whole, and nothing is replaced that nobody said to.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, watch, writeFileSync } from "node:fs"
import { delimiter, join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { dump } from "../../src/store/backup/Dump.ts"
import { startEmbedded } from "../../src/store/Embedded.ts"
import type { Sql } from "../../src/store/Postgres.ts"
import { type GatewayProcess, type Listed, type Reply, password, until } from "../support/GatewayProcess.ts"
import type { LoopbackAgent } from "../support/LoopbackAgent.ts"
import { expectCleanBooks, useStage } from "../support/Stage.ts"
import { type PostgresOptions, type TestPostgres, postgres15, testPostgres } from "../support/postgres.ts"

interface Ended { readonly code: number | null; readonly out: string; readonly err: string }

type Env = Readonly<Record<string, string>>

const start = (env: Env, ...args: ReadonlyArray<string>): ChildProcess => {
  const { DATABASE_URL: _, DATA_DIR: __, ...inherited } = process.env
  return spawn(process.execPath, ["scripts/run.mjs", ...args], { env: { ...inherited, ...env }, stdio: ["ignore", "pipe", "pipe"] })
}
const ended = async (child: ChildProcess): Promise<Ended> => {
  let [out, err] = ["", ""]
  child.stdout!.on("data", (chunk) => { out += chunk })
  child.stderr!.on("data", (chunk) => { err += chunk })
  const [code] = await once(child, "close") as [number | null]
  return { code, out, err }
}
const run = (env: Env, ...args: ReadonlyArray<string>): Promise<Ended> => ended(start(env, ...args))
const refuses = async (env: Env, args: ReadonlyArray<string>, line: RegExp): Promise<void> => {
  const { code, out, err } = await run(env, ...args)
  expect([code, out]).toEqual([1, ""])
  expect(err).toMatch(line)
  expect(err).toMatch(/^[^\n]*\n$/)
}

/** A seller's agent, which is called with the seller's own key, and a buyer. */
interface Market {
  readonly agent: LoopbackAgent
  /** With what the agent was called last. */
  readonly shown: () => string
  readonly listed: Listed
  readonly buyer: { readonly email: string; readonly token: string; readonly key: string }
}

const emailOf = (n: string): string => `${n}@example.com`

const openMarket = async (gateway: GatewayProcess, makeAgent: () => Promise<LoopbackAgent>): Promise<Market> => {
  const [agent, seller] = await Promise.all([makeAgent(), gateway.person()])
  let shown = ""
  agent.behave = (response, request) => {
    shown = String(request.headers.authorization)
    response.end("done")
  }
  const listed = await gateway.list(seller, agent.url, "0.0001")
  const change = (method: string, path: string, body: object) => fetch(`${gateway.url}/v1/agents/${listed.id}${path}`, {
    method, headers: { authorization: `Bearer ${seller.token}`, "content-type": "application/json" }, body: JSON.stringify(body)
  })
  expect((await change("PUT", "/provider-key", { provider_key: "sk-sealed" })).status).toBeLessThan(300)
  expect((await change("PATCH", "", { auth_tier: "buyer_key" })).status).toBe(200)
  const email = emailOf(`buyer-${listed.ticker}`.toLowerCase())
  const { access_token: token } = await gateway.ask(201, "POST", "/v1/auth/register", { body: { email, password } })
  await gateway.fund({ token, accountId: "" }, "50.00")
  return { agent, shown: () => shown, listed, buyer: { email, token, key: await gateway.key({ token, accountId: "" }) } }
}

const call = (gateway: GatewayProcess, { buyer, listed }: Market): Promise<Reply> => gateway.call("POST", `/v1/proxy/${listed.ticker}`, { token: buyer.key, body: { prompt: "work" } })
const order = (gateway: GatewayProcess, { buyer, listed }: Market): Promise<Reply> => gateway.call("POST", "/v1/orders", { token: buyer.key, body: { agent_id: listed.id, prompt: "work" } })

/** Calls and orders without a pause until it is told to stop; answers what was acknowledged in the meantime. */
const trade = (gateway: GatewayProcess, market: Market) => {
  const transactions: Array<string> = []
  const orders: Array<string> = []
  let going = true
  const workers = Promise.all(Array.from({ length: 3 }, async (_, n) => {
    while (going) {
      const reply = n < 2 ? await call(gateway, market) : await order(gateway, market)
      if (reply.status === 200) transactions.push(String(reply.headers["x-autx-transaction-id"]))
      else if (reply.status === 201) orders.push(reply.json.id as string)
      else throw new Error(`${reply.status} ${reply.text}`)
    }
  }))
  return {
    soFar: () => ({ transactions: [...transactions], orders: [...orders] }),
    reached: (count: number) => until(async () => transactions.length + orders.length >= count),
    stop: async () => {
      going = false
      await workers
    }
  }
}
type Acknowledged = ReturnType<ReturnType<typeof trade>["soFar"]>

const missing = async (sql: Sql, { transactions, orders }: Acknowledged): Promise<ReadonlyArray<unknown>> => [
  ...await sql`select id from unnest(${transactions}::uuid[]) id where id not in (select id from transactions)`,
  ...await sql`select id from unnest(${orders}::uuid[]) id where id not in (select id from orders)`
]

/** The gateway that was restored does what the other one did. */
const expectSameMarket = async (gateway: GatewayProcess, market: Market, before: Acknowledged, sql: Sql): Promise<void> => {
  expect(await missing(sql, before)).toEqual([])
  await until(async () => (await sql`select from orders where status = 'pending'`).length === 0)
  await expectCleanBooks(sql)
  expect((await call(gateway, market)).status).toBe(200)
  expect(market.shown()).toBe("Bearer sk-sealed")
  const { access_token } = await gateway.ask(200, "POST", "/v1/auth/login", { body: { email: market.buyer.email, password } })
  expect(await gateway.ask(200, "GET", "/v1/credits/balance", { token: access_token })).toMatchObject({ reserved_usd: "0.00" })
  expect((await order(gateway, market)).status).toBe(201)
  await until(async () => (await sql`select from orders where status = 'pending'`).length === 0)
  await expectCleanBooks(sql)
}

const backupsIn = (folder: string): ReadonlyArray<string> => readdirSync(folder).map((name) => join(folder, name))
const leastToken = async (sql: Sql): Promise<bigint> => (await sql<Array<{ token: bigint }>>`select min(token) as token from accounts`)[0]!.token
const entries = async (sql: Sql): Promise<ReadonlyArray<string>> => (await sql<Array<{ action: string }>>`select action from audit_log where action like 'gateway.%' order by created_at`).map(({ action }) => action)

describe("the embedded database", () => {
  const stage = useStage(afterAll)
  let folder: string
  let dataDir: string
  let backups: string
  let gateway: GatewayProcess
  let market: Market
  let backup: string
  let before: Acknowledged

  const look = (directory: string): Sql => stage.connect({ host: join(directory, "postgres"), port: 5432, user: "tollgate", database: "tollgate" })

  beforeAll(async () => {
    folder = stage.directory()
    ;[dataDir, backups] = [join(folder, "data"), join(folder, "kept", "safe")]
    gateway = await stage.gateway({ DATA_DIR: dataDir })
    market = await openMarket(gateway, () => stage.agent())
    const trading = trade(gateway, market)
    await trading.reached(100)
    before = trading.soFar()
    const { code, out, err } = await run({ DATA_DIR: dataDir }, "backup", backups)
    const during = trading.soFar()
    await trading.stop()
    expect([code, err]).toEqual([0, ""])
    ;[backup] = backupsIn(backups) as [string]
    expect(out).toMatch(new RegExp(`^${backup} holds everything acknowledged before [^ ]*Z: `))
    expect(during.transactions.length).toBeGreaterThan(before.transactions.length)
  })

  it("is copied while calls and orders are paid, for this user's eyes alone", () => {
    expect(backupsIn(backups)).toEqual([backup])
    expect(readdirSync(backup).toSorted()).toEqual(["manifest.json", "postgres", "secrets.key"])
    const wide = readdirSync(backups, { recursive: true, encoding: "utf8" }).filter((name) => (statSync(join(backups, name)).mode & 0o077) !== 0)
    expect(wide).toEqual([])
  })

  it("is restored elsewhere with all that was acknowledged before, and keys, logins and sealed secrets work", { timeout: 60_000 }, async () => {
    const restored = join(folder, "restored")
    const { code, out, err } = await run({ DATA_DIR: restored }, "restore", backup)
    expect([code, err]).toEqual([0, ""])
    expect(out).toMatch(/^restored as of [^ ]*Z: 2 accounts, \d+ transactions; what came later is gone\naudit: \d+ checks, 0 findings\n$/)
    expect(readdirSync(restored).toSorted()).toEqual(["postgres", "secrets.key"])
    // The server replayed the log from the copy's start to its stop, not from where its files happened to be.
    expect(readdirSync(join(restored, "postgres"))).toContain("backup_label.old")
    const second = await stage.gateway({ DATA_DIR: restored })
    const sql = look(restored)
    await expectSameMarket(second, market, before, sql)
    expect(await entries(sql)).toEqual(["gateway.backup", "gateway.restore"])
    // No activation of the gateway that was backed up can ever present one of these.
    expect(await leastToken(sql)).toBeGreaterThan(2n ** 32n)
    await sql.end()
    await second.stop()
  })

  it("is not replaced while its gateway runs, whatever is said", async () => {
    await refuses({ DATA_DIR: dataDir }, ["restore", backup, "--force"], /^restore: a gateway runs on .*: stop it first\n$/)
    expect((await call(gateway, market)).status).toBe(200)
  })

  describe("a backup that is not what was written is refused, and nothing is touched:", () => {
    const bytesOf = (path: string): Buffer => readFileSync(join(backup, path))
    const largest = (): string => {
      const { files } = JSON.parse(bytesOf("manifest.json").toString()) as { readonly files: ReadonlyArray<{ path: string; bytes: number }> }
      return files.filter(({ path }) => path.includes("/base/")).toSorted((a, b) => b.bytes - a.bytes)[0]!.path
    }
    const segment = (): string => join("postgres/pg_wal", readdirSync(join(backup, "postgres/pg_wal")).find((name) => /^[0-9A-F]{24}$/.test(name))!)
    const flipped = (bytes: Buffer): Buffer => {
      bytes[bytes.length >> 1]! ^= 1
      return bytes
    }
    /** What is wrong, of which file, what is there instead (nothing: it is gone), and what is said. */
    const damages: ReadonlyArray<readonly [string, () => string, (bytes: Buffer) => Buffer | undefined, RegExp]> = [
      ["one bit of a table", largest, flipped, /^restore: .*\/base\/.* is damaged: nothing was restored; take another backup\n$/],
      ["one bit of the log", segment, flipped, /pg_wal\/.* is damaged/],
      ["a table that is cut short", largest, (bytes) => bytes.subarray(0, -1), /is damaged/],
      ["a file that is gone", () => "secrets.key", () => undefined, /secrets\.key is damaged/],
      ["another time in the manifest", () => "manifest.json", (bytes) => Buffer.from(bytes.toString().replace('"as_of": "2', '"as_of": "3')), /manifest\.json is damaged/],
      ["half a manifest", () => "manifest.json", (bytes) => bytes.subarray(0, bytes.length / 2), /manifest\.json is damaged/],
      ["no manifest", () => "manifest.json", () => undefined, /is no backup: .*manifest\.json can't be read \(ENOENT\)/]
    ]

    it.for(damages)("%s", async ([, file, damage, line]) => {
      const [copy, target, path] = [join(folder, "damaged"), join(folder, "untouched"), file()]
      if (!existsSync(copy)) cpSync(backup, copy, { recursive: true })
      mkdirSync(target, { recursive: true })
      const instead = damage(bytesOf(path))
      if (instead === undefined) rmSync(join(copy, path))
      else writeFileSync(join(copy, path), instead)
      await refuses({ DATA_DIR: target }, ["restore", copy], line)
      expect(readdirSync(target)).toEqual([])
      writeFileSync(join(copy, path), bytesOf(path))
    })
  })

  describe("a backup that does not come to its end", () => {
    /** Resolves when the copy has begun. */
    const begun = (place: string): Promise<void> => new Promise((done) => {
      mkdirSync(place, { recursive: true })
      const watcher = watch(place, { recursive: true }, (_, name) => {
        if (!name?.includes("base")) return
        watcher.close()
        done()
      })
    })

    it("by Ctrl-C leaves nothing", async () => {
      const place = join(folder, "interrupted")
      const started = begun(place)
      const child = start({ DATA_DIR: dataDir }, "backup", place)
      const outcome = ended(child)
      await started
      child.kill("SIGINT")
      expect(await outcome).toEqual({ code: 1, out: "", err: "backup: interrupted; nothing was kept\n" })
      expect(readdirSync(place)).toEqual([])
    })

    it("by kill -9 leaves nothing that looks whole, keeps no log of the gateway's, and is cleared away by the next", async () => {
      const place = join(folder, "killed")
      const started = begun(place)
      const child = start({ DATA_DIR: dataDir }, "backup", place)
      const outcome = ended(child)
      await started
      child.kill("SIGKILL")
      expect((await outcome).code).toBeNull()
      const [half, ...more] = readdirSync(place)
      expect([half, more]).toEqual([expect.stringMatching(/^unfinished-/), []])
      await refuses({ DATA_DIR: join(folder, "nothing") }, ["restore", join(place, half!)], /is no backup/)
      const sql = look(dataDir)
      await until(async () => (await sql`select from pg_replication_slots`).length === 0)
      await sql.end()
      expect((await run({ DATA_DIR: dataDir }, "backup", place)).code).toBe(0)
      expect(readdirSync(place)).toEqual([expect.stringMatching(/^tollgate-/)])
    })

    it("because the disk is full says so and leaves nothing, the gateway goes on", async () => {
      const place = join(folder, "full")
      const shell = (script: string): Promise<Ended> => ended(spawn("sh", ["-c", script, "sh", process.execPath, place], { env: { ...process.env, DATA_DIR: dataDir }, stdio: ["ignore", "pipe", "pipe"] }))
      // No file may be larger than 4 MiB, a segment of the log is: what fails is a write, late.
      const { code, err } = await shell('ulimit -f 8192; exec "$1" scripts/run.mjs backup "$2"')
      expect([code, err]).toEqual([1, expect.stringMatching(/^backup: the disk is full: nothing was kept \([^\n]*\)\n$/)])
      expect(readdirSync(place)).toEqual([])
      // A disk of 8 MiB, of the process's own: it does not even begin.
      const small = await shell('exec unshare --user --map-root-user --mount sh -c \'mount -t tmpfs -o size=8m none "$2" && "$1" scripts/run.mjs backup "$2"; code=$?; ls -A "$2"; exit $code\' sh "$1" "$2"')
      expect(small).toEqual({ code: 1, out: "", err: expect.stringMatching(/^backup: .* has 8 MiB left, and \d+ MiB are needed: make room, or name a folder on another disk\n$/) as string })
      expect((await call(gateway, market)).status).toBe(200)
    })
  })

  it("of a gateway that was killed is backed up without it, and a restore moves what is there aside when told to", { timeout: 60_000 }, async () => {
    const place = join(dataDir, "backups")
    const isThere = async (id: string): Promise<boolean> => {
      const server = await startEmbedded({ dataDir: join(dataDir, "postgres") })
      const sql = look(dataDir)
      const found = await sql`select from transactions where id = ${id}`
      await sql.end()
      await server.stop()
      return found.length === 1
    }
    const last = (await call(gateway, market)).headers["x-autx-transaction-id"] as string
    await gateway.kill9()
    const { code, err } = await run({ DATA_DIR: dataDir }, "backup")
    expect([code, err]).toEqual([0, ""])
    const [newer] = backupsIn(place) as [string]
    await refuses({ DATA_DIR: dataDir }, ["restore", newer], /^restore: there is a database in .*: say --force to move it aside/)
    const older = await run({ DATA_DIR: dataDir }, "restore", backup, "--force")
    expect([older.code, older.err]).toEqual([0, ""])
    const [, aside] = /^what was there is in (.*)$/m.exec(older.out)!
    expect(readdirSync(aside!).toSorted()).toEqual(["postgres", "secrets.key"])
    expect(await isThere(last)).toBe(false)
    const again = await run({ DATA_DIR: dataDir }, "restore", newer, "--force")
    expect([again.code, again.err]).toEqual([0, ""])
    expect(await isThere(last)).toBe(true)
    expect(readdirSync(dataDir).filter((name) => name.startsWith("restoring-"))).toEqual([])
  })

  it("refuses arguments and folders that can't be meant, in one line", async () => {
    await Promise.all([
      refuses({ DATA_DIR: dataDir }, ["backup", "a", "b"], /^backup: usage: /),
      refuses({ DATA_DIR: dataDir }, ["backup", "--help"], /^backup: usage: /),
      refuses({ DATA_DIR: join(folder, "nowhere") }, ["backup"], /^backup: there is no database in .*nowhere: set DATA_DIR or DATABASE_URL\n$/),
      refuses({ DATA_DIR: dataDir }, ["backup", join(backup, "manifest.json", "below")], /^backup: ENOTDIR: not a directory, mkdir [^\n]*\n$/),
      refuses({ DATA_DIR: dataDir }, ["restore"], /^restore: usage: /),
      refuses({ DATA_DIR: dataDir }, ["restore", "--forced", backup], /^restore: usage: /),
      refuses({ DATABASE_URL: "postgres://localhost/any" }, ["restore", backup], /^restore: .* is of an embedded database: unset DATABASE_URL to restore it into DATA_DIR\n$/)
    ])
    expect(existsSync(join(folder, "nowhere"))).toBe(false)
  })
})

describe("an own PostgreSQL, here Debian's 15", () => {
  const stage = useStage(afterAll)
  /** As an operator names it, whose pg_dump reads the same URL; the server asks for no password. */
  const overSocket = ({ host, port, user, database }: PostgresOptions): Env => ({ DATABASE_URL: `postgres://${user}:unasked@/${database}?host=${host}&port=${port}` })
  const secret = { SECRETS_KEY: "a key that is long enough for anybody" }
  let server: TestPostgres
  let tools: Env
  let folder: string
  let source: Env
  let market: Market
  let gateway: GatewayProcess
  let before: Acknowledged
  let backup: string

  beforeAll(async () => {
    server = await testPostgres({ major: 15 })
    stage.onEnd(server.stop)
    tools = { PATH: `${await postgres15()}${delimiter}${process.env["PATH"]}` }
    folder = stage.directory()
    source = overSocket((await server.freshDatabase()).options)
    gateway = await stage.gateway({ ...source, ...secret })
    market = await openMarket(gateway, () => stage.agent())
  })

  it("is dumped while calls and orders are paid", async () => {
    const trading = trade(gateway, market)
    await trading.reached(50)
    before = trading.soFar()
    const { code, out, err } = await run({ ...source, ...tools }, "backup", folder)
    await trading.stop()
    expect([code, err]).toEqual([0, ""])
    expect(out).toContain("SECRETS_KEY is not in it: keep it elsewhere, a restore needs it.")
    ;[backup] = backupsIn(folder) as [string]
    expect(readdirSync(backup).toSorted()).toEqual(["database.dump", "manifest.json"])
  })

  it("is restored into an empty database with all that was acknowledged before, and never into another", { timeout: 60_000 }, async () => {
    await refuses({ ...source, ...tools }, ["restore", backup, "--force"], /^restore: the database of DATABASE_URL is not empty: make a new one and name that; nothing was changed\n$/)
    const { options } = await server.freshDatabase()
    const env = overSocket(options)
    const { code, out, err } = await run({ ...env, ...tools }, "restore", backup)
    expect([code, err]).toEqual([0, ""])
    expect(out).toMatch(/^restored as of [^ ]*Z: 2 accounts, \d+ transactions; what came later is gone\nstart the gateway with the SECRETS_KEY of that time\naudit: \d+ checks, 0 findings\n$/)
    const second = await stage.gateway({ ...env, ...secret })
    const sql = stage.connect(options)
    await expectSameMarket(second, market, before, sql)
    expect(await entries(sql)).toEqual(["gateway.backup", "gateway.restore"])
    expect(await leastToken(sql)).toBeGreaterThan(2n ** 32n)
    await sql.end()
    await second.stop()
  })

  it("is refused as a backup of DATA_DIR, and when its file is damaged", async () => {
    await refuses({ DATA_DIR: join(folder, "data") }, ["restore", backup], /^restore: .* is of an own PostgreSQL: set DATABASE_URL to an empty database\n$/)
    const damaged = join(folder, "damaged")
    cpSync(backup, damaged, { recursive: true })
    writeFileSync(join(damaged, "database.dump"), readFileSync(join(damaged, "database.dump")).subarray(0, -1))
    const { env, options } = await server.freshDatabase()
    await refuses({ ...env, ...tools }, ["restore", damaged], /^restore: .*database\.dump is damaged: nothing was restored; take another backup\n$/)
    expect(await stage.connect(options)`select from pg_tables where schemaname = 'public'`).toEqual([])
  })

  it("needs programs that are there, and not older than the server", async () => {
    const { env, sql } = await stage.database() // On 18.
    expect((await run(env, "migrate")).code).toBe(0)
    const get = "install the client programs of PostgreSQL 18 or newer \\(Debian: postgresql-client-18\\) and put them first in PATH\\n$"
    await refuses({ ...env, ...tools }, ["backup", folder], new RegExp(`^backup: pg_dump in PATH is of PostgreSQL 15, the database of 18: ${get}`))
    await refuses({ ...env, PATH: folder }, ["backup", folder], new RegExp(`^backup: there is no pg_dump in PATH: ${get}`))
    expect(readdirSync(folder).filter((name) => name.startsWith("unfinished-"))).toEqual([])
    expect(await entries(sql)).toEqual(["gateway.backup", "gateway.backup"])
  })

  it("hands its password over where other users can't read it", async () => {
    const bin = join(folder, "bin")
    mkdirSync(bin)
    writeFileSync(join(bin, "pg_dump"), `#!/bin/sh\n[ "$1" = --version ] && echo "pg_dump (PostgreSQL) 18.1" || echo "$@" "$PGPASSWORD" > ${join(folder, "said")}\n`, { mode: 0o755 })
    const path = process.env["PATH"]
    process.env["PATH"] = `${bin}${delimiter}${path}`
    try {
      await dump("postgres://user:p%40ss@db.example/gate", 18, "to.dump", AbortSignal.timeout(20_000))
    } finally {
      process.env["PATH"] = path
    }
    expect(readFileSync(join(folder, "said"), "utf8")).toBe("--format=custom --no-owner --no-privileges --no-password --file=to.dump --dbname=postgres://user@db.example/gate p@ss\n")
  })
})
