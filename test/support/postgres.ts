/**
 * Real PostgreSQL servers for tests: `freshDatabase` for most (a database of the
 * run's one server, cheap), `testPostgres` for those that kill or stop theirs.
 *
 * Version 18 is the embedded one. Version 15 is Debian's: the installed one, or
 * unpacked from Debian's packages into .cache without root; where neither is
 * possible the test fails, it is never skipped.
 */
import { execFile } from "node:child_process"
import { randomUUID } from "node:crypto"
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { promisify } from "node:util"
import postgres from "postgres"
import { type EmbeddedServer, startEmbedded } from "../../src/store/Embedded.ts"
import { findPostgres } from "../../src/store/PostgresBinaries.ts"

export type PostgresOptions = EmbeddedServer["options"]

export interface TestPostgres {
  readonly options: PostgresOptions
  /** For a gateway in a process of its own: DATABASE_URL and the PG* variables that name the socket, which no URL can. */
  readonly env: Readonly<Record<string, string>>
  readonly pid: () => number
  /** An empty database on this server. */
  readonly freshDatabase: () => Promise<TestDatabase>
  /** Kills the server; its supervisor starts it again. Answers when connections are accepted again. */
  readonly kill9: () => Promise<void>
  /** Ends the server by this signal; it stays away until `start`. */
  readonly halt: (signal: "SIGINT" | "SIGQUIT") => Promise<void>
  readonly start: () => Promise<void>
  /** Ends the server and removes its data. */
  readonly stop: () => Promise<void>
}

export const testPostgres = async ({ major = 18 }: { readonly major?: 15 | 18 } = {}): Promise<TestPostgres> => {
  const folder = mkdtempSync(join(tmpdir(), "tollgate-pg-"))
  const restarts: Array<() => void> = []
  const binDir = major === 15 ? { binDir: await postgres15() } : {}
  const start = (): Promise<EmbeddedServer> => startEmbedded({
    dataDir: join(folder, "data"), durable: false, major, ...binDir, onRestart: () => restarts.splice(0).forEach((done) => done())
  })
  let server = await start()
  return {
    options: server.options,
    env: environment(server.options),
    pid: () => server.pid(),
    freshDatabase: () => databaseOn(server.options),
    kill9: () => new Promise((done) => {
      restarts.push(done)
      process.kill(server.pid(), "SIGKILL")
    }),
    halt: async (signal) => {
      process.kill(server.pid(), signal)
      await server.stop()
    },
    start: async () => { server = await start() },
    stop: async () => {
      await server.stop()
      rmSync(folder, { recursive: true })
    }
  }
}

export interface TestDatabase {
  readonly options: PostgresOptions
  readonly env: TestPostgres["env"]
  readonly drop: () => Promise<void>
}

/** An empty database on the run's shared server, owned by the gateway's role. */
export const freshDatabase = async (): Promise<TestDatabase> => databaseOn(shared())

const databaseOn = async (server: PostgresOptions): Promise<TestDatabase> => {
  const database = `t_${randomUUID().replaceAll("-", "")}`
  await asAdmin(server, (sql) => sql.unsafe(`create database ${database} owner ${server.user}`))
  const options = { ...server, database }
  return {
    options,
    env: environment(options),
    drop: () => asAdmin(server, (sql) => sql.unsafe(`drop database if exists ${database} with (force)`))
  }
}

const shared = (): PostgresOptions => {
  const host = process.env["TOLLGATE_TEST_POSTGRES"]
  if (host === undefined) throw new Error("no shared PostgreSQL: run `npm test -- <path>`, or vitest with --config test/vitest.config.ts")
  return { host, port: 5432, user: "tollgate", database: "tollgate" }
}

const environment = ({ host, port, user, database }: PostgresOptions): TestPostgres["env"] =>
  ({ DATABASE_URL: `postgres:///${database}`, PGHOST: host, PGPORT: String(port), PGUSER: user, PGDATABASE: database })

const asAdmin = async (options: PostgresOptions, act: (sql: postgres.Sql) => Promise<unknown>): Promise<void> => {
  const sql = postgres({ ...options, user: "postgres", database: "postgres", max: 1, onnotice: () => {} })
  try {
    await act(sql)
  } finally {
    await sql.end()
  }
}

/** A server's process and those that it started. */
export const familyOf = (parent: number): ReadonlyArray<number> => [parent, ...readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
  try {
    // The fourth field is the parent; the second, the process's name, is in parentheses and may hold anything.
    return Number(readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ")[1]) === parent
  } catch {
    return false // It ended meanwhile.
  }
})]

/** Where its server's programs are, and pg_dump and pg_restore beside them. */
export const postgres15 = async (): Promise<string> => await findPostgres(15) ?? unpacked()

const execute = promisify(execFile)

/** Debian's packages, unpacked once. apt works on lists and a cache of its own, so it needs no root. */
const unpacked = async (): Promise<string> => {
  const root = resolve(".cache/postgresql-15")
  const binDir = join(root, "bin")
  if (existsSync(binDir)) return binDir
  mkdirSync(resolve(".cache"), { recursive: true })
  const fresh = mkdtempSync(`${root}.`)
  chmodSync(fresh, 0o755)
  try {
    const apt = join(fresh, "apt")
    for (const folder of ["lists/partial", "cache/archives/partial"]) mkdirSync(join(apt, folder), { recursive: true })
    const own = ["-q", "-o", `Dir::State::Lists=${apt}/lists`, "-o", `Dir::Cache=${apt}/cache`, "-o", "APT::Sandbox::User=", "-o", "Acquire::Languages=none", "-o", "Debug::NoLocking=true"]
    await execute("apt-get", [...own, "update"])
    await execute("apt-get", [...own, "install", "--download-only", "--no-install-recommends", "--yes", "postgresql-15"], { cwd: apt })
    const archives = join(apt, "cache/archives")
    for (const name of readdirSync(archives)) if (name.endsWith(".deb")) await execute("dpkg-deb", ["-x", join(archives, name), fresh])
    rmSync(apt, { recursive: true })
    writeWrappers(fresh, root)
    renameSync(fresh, root)
  } catch (cause) {
    rmSync(fresh, { recursive: true, force: true })
    if (!existsSync(binDir)) throw new Error("PostgreSQL 15 is needed by this test: install postgresql-15", { cause })
  }
  return binDir
}

/** The programs find their own files by their path, but not the libraries that were unpacked beside them. */
const writeWrappers = (fresh: string, root: string): void => {
  const multiarch = readdirSync(join(fresh, "usr/lib")).filter((name) => name.endsWith("-linux-gnu"))
  const libraries = multiarch.flatMap((name) => [`${root}/usr/lib/${name}`, `${root}/lib/${name}`]).join(":")
  mkdirSync(join(fresh, "bin"))
  for (const program of ["initdb", "postgres", "pg_dump", "pg_restore"]) {
    writeFileSync(join(fresh, "bin", program), `#!/bin/sh\nLD_LIBRARY_PATH='${libraries}' exec '${root}/usr/lib/postgresql/15/bin/${program}' "$@"\n`, { mode: 0o755 })
  }
}
