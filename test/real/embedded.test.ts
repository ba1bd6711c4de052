/**
 * The embedded server under the deaths that happen: its own, its gateway's, and
 * its gateway's in the middle of the first start. Gateways are processes of
 * their own here (`support/embeddedNode.ts`), so that they can be killed.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, watch, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import postgres from "postgres"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import { type EmbeddedServer, startEmbedded } from "../../src/store/Embedded.ts"
import { metrics } from "../../src/telemetry/Metrics.ts"
import { type EmbeddedNode, bundleEmbedded, startEmbeddedNode } from "../support/embeddedNode.ts"

let folder: string
let dataDir: string
let program: string
const sockets: Array<postgres.Sql> = []
const servers: Array<EmbeddedServer> = []
const nodes: Array<EmbeddedNode> = []

beforeAll(async () => {
  program = await bundleEmbedded()
  // A path with spaces and quotes: it reaches command lines, settings and socket names.
  folder = mkdtempSync(join(tmpdir(), "tollgate \"it's\" -"))
  dataDir = join(folder, "postgres")
})

afterEach(async () => {
  for (const sql of sockets.splice(0)) await sql.end({ timeout: 1 })
  for (const node of nodes.splice(0)) await node.kill9()
  for (const server of servers.splice(0)) await server.stop()
})

afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
  rmSync(program, { force: true })
})

const started = async (options: Partial<Parameters<typeof startEmbedded>[0]> = {}): Promise<EmbeddedServer> => {
  const server = await startEmbedded({ dataDir, ...options })
  servers.push(server)
  return server
}
const connected = (server: Pick<EmbeddedServer, "options">): postgres.Sql => {
  const sql = postgres({ ...server.options, max: 1, onnotice: () => {}, backoff: () => 0.05 })
  sockets.push(sql)
  return sql
}
const node = (directory = dataDir): EmbeddedNode => {
  const made = startEmbeddedNode(program, directory)
  nodes.push(made)
  return made
}

describe("the embedded server", () => {
  it("makes its directory on the first start and finds its rows on the second", async () => {
    const lines: Array<string> = []
    const first = await started({ onProgress: (line) => lines.push(line) })
    expect(lines.join()).toContain("first start")
    const sql = connected(first)
    await sql`create table kept (value int)`
    await sql`insert into kept values (42)`
    await sql.end()
    await first.stop()
    lines.length = 0
    const second = await started({ onProgress: (line) => lines.push(line) })
    expect(lines).toEqual([])
    expect(await connected(second)`select value from kept`).toEqual([{ value: 42 }])
  })

  it("is durable, private to this user, and hands out a role that is no superuser", async () => {
    const server = await started()
    const sql = connected(server)
    const [row] = await sql`select current_user as who, rolsuper as super, current_setting('fsync') as fsync, current_setting('synchronous_commit') as sync, current_setting('full_page_writes') as pages, current_setting('listen_addresses') as tcp from pg_roles where rolname = current_user`
    expect(row).toEqual({ who: "tollgate", super: false, fsync: "on", sync: "on", pages: "on", tcp: "" })
    expect(statSync(dataDir).mode & 0o777).toBe(0o700)
    expect(statSync(join(server.options.host, ".s.PGSQL.5432")).mode & 0o777).toBe(0o700)
    await expect(sql`create role intruder superuser`).rejects.toThrow("permission denied")
    await expect(sql`copy (select 1) to program 'id'`).rejects.toThrow("permission denied")
  })

  it("is started again when it is killed, loses nothing it acknowledged, and counts the restart", async () => {
    const restarts = async (): Promise<number> => (await metrics.databaseRestarts.get()).values[0]?.value ?? 0
    const before = await restarts()
    let onRestart = (): void => {}
    const server = await started({ onRestart: () => onRestart() })
    const sql = connected(server)
    await sql`create table survives (value int)`
    for (let value = 0; value < 3; value++) {
      await sql`insert into survives values (${value})`
      const restarted = new Promise<void>((done) => { onRestart = done })
      const killed = server.pid()
      process.kill(killed, "SIGKILL")
      await restarted
      expect(server.pid()).not.toBe(killed)
    }
    expect(await connected(server)`select value from survives order by value`).toEqual([{ value: 0 }, { value: 1 }, { value: 2 }])
    expect(await restarts()).toBeGreaterThanOrEqual(before + 3)
  })

  it("stops for good, also while it is being restarted, and also when told twice", async () => {
    const server = await started()
    process.kill(server.pid(), "SIGKILL")
    await Promise.all([server.stop(), server.stop()])
    await expect(connected(server)`select 1`).rejects.toThrow(/ENOENT|ECONNREFUSED/)
    const again = await started()
    expect(await connected(again)`select 1 as one`).toEqual([{ one: 1 }])
  })
})

describe("when its gateway is killed", () => {
  it("the server ends by itself and the next start finds every acknowledged row", async () => {
    const victim = node()
    const { options, pid } = await victim.ready
    const sql = connected({ options })
    await sql`create table acknowledged as select 7 as value`
    await victim.kill9()
    const next = await started() // Waits for the old server, or fails.
    expect(next.pid()).not.toBe(pid)
    expect(await connected(next)`select value from acknowledged`).toEqual([{ value: 7 }])
  })

  it("in the middle of the first start, nothing half-made is left or used", async () => {
    const place = join(folder, "interrupted")
    mkdirSync(place)
    const directory = join(place, "postgres")
    const begun = new Promise<void>((done) => {
      const watcher = watch(place, { recursive: true }, (_, name) => {
        if (!name?.includes("PG_VERSION")) return
        watcher.close()
        done()
      })
    })
    const victim = node(directory)
    await begun
    await victim.kill9()
    expect(existsSync(directory)).toBe(false)
    const next = await started({ dataDir: directory })
    expect(await connected(next)`select current_database() as name`).toEqual([{ name: "tollgate" }])
    expect(readdirSync(place)).toEqual(["postgres"])
  })
})

describe("a directory it can't use is refused in one line, untouched:", () => {
  it("one that another gateway uses", async () => {
    const other = node()
    const { options } = await other.ready
    await expect(startEmbedded({ dataDir })).rejects.toThrow(/is in use by another gateway \(PostgreSQL runs as pid \d+\): stop that one, or set DATA_DIR/)
    expect(await connected({ options })`select 1 as one`).toEqual([{ one: 1 }])
  })

  it("one of another major version", async () => {
    const directory = join(folder, "older")
    mkdirSync(directory)
    writeFileSync(join(directory, "PG_VERSION"), "15\n")
    await expect(startEmbedded({ dataDir: directory })).rejects.toThrow(/was made by PostgreSQL 15, this gateway runs 18/)
    expect(readFileSync(join(directory, "PG_VERSION"), "utf8")).toBe("15\n")
  })

  it("one that holds something else", async () => {
    const directory = join(folder, "photos")
    mkdirSync(directory)
    writeFileSync(join(directory, "cat.jpg"), "")
    await expect(startEmbedded({ dataDir: directory })).rejects.toThrow(/is not empty and holds no PostgreSQL data/)
    expect(readdirSync(directory)).toEqual(["cat.jpg"])
  })
})

describe("other circumstances", () => {
  it.each([
    ["too long", join("x".repeat(60), "y".repeat(60))],
    ["with a comma", "a, b"]
  ])("a path %s for a socket's name gets a private socket directory, which goes with the server", async (_, path) => {
    const server = await started({ dataDir: join(folder, path, "postgres"), durable: false })
    expect(server.options.host.startsWith(folder)).toBe(false)
    expect(statSync(server.options.host).mode & 0o777).toBe(0o700)
    expect(await connected(server)`select 1 as one`).toEqual([{ one: 1 }])
    await server.stop()
    expect(existsSync(server.options.host)).toBe(false)
  })

  it("a lock file left by a power failure stops nobody", async () => {
    const server = await started()
    const lock = readFileSync(join(dataDir, "postmaster.pid"), "utf8")
    const pid = server.pid()
    await server.stop()
    writeFileSync(join(dataDir, "postmaster.pid"), lock)
    const again = await started()
    expect(again.pid()).not.toBe(pid)
    expect(await connected(again)`select 1 as one`).toEqual([{ one: 1 }])
  })

  it("a missing major version is named", async () => {
    await expect(startEmbedded({ dataDir: join(folder, "none"), major: 9 })).rejects.toThrow("no PostgreSQL 9 for")
  })
})
