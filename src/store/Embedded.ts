/**
 * The embedded PostgreSQL: a real server of the gateway's own, in a directory of
 * its own, reached by a Unix socket that only this user may open. There is no
 * TCP port.
 *
 * Guarantee: once `startEmbedded` answers, the server accepts connections, and
 * with `durable` (the default) what it acknowledges is on disk. A server that
 * dies is started again until `stop`; meanwhile connections are refused. The
 * role it hands out owns its database and is no superuser.
 *
 * Failure cases: the gateway is killed → the server shuts down by itself, and
 * the next start waits up to 5 s for that. Killed while the directory is being
 * made → what was made lies in a sibling directory that the next start removes;
 * `dataDir` appears whole or not at all. Directory in use by another gateway,
 * or of another major version → `EmbeddedFailure`, one line. Nobody's server is
 * ever killed. Failing fsync → the server panics, and recovers from its log when
 * it is started again.
 *
 * Called by `main` when DATABASE_URL is unset, by backup and restore, and by the
 * tests.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { existsSync, lchownSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, realpathSync, renameSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join, resolve } from "node:path"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { log } from "../telemetry/log.ts"
import { metrics } from "../telemetry/Metrics.ts"
import { draftIn, syncFolder } from "./Draft.ts"
import { EmbeddedFailure, type Runner, findPostgres, runner } from "./PostgresBinaries.ts"

export interface EmbeddedOptions {
  /** The server's own directory; nothing else may be in it. Made on the first start. */
  readonly dataDir: string
  /** `false` trades every promise about crashes for speed: for tests. */
  readonly durable?: boolean
  readonly major?: number
  /** Where `initdb` and `postgres` are, when not where `findPostgres` looks. */
  readonly binDir?: string
  /** Lines for a human who waits. */
  readonly onProgress?: (line: string) => void
  /** The server had died and accepts connections again. */
  readonly onRestart?: () => void
}

export interface EmbeddedServer {
  /** What postgres.js takes; `host` is the socket's directory. */
  readonly options: { readonly host: string; readonly port: number; readonly user: string; readonly database: string }
  /** The server's process; while it is being restarted, the last one's. */
  readonly pid: () => number
  /** Fast shutdown: open transactions roll back, a checkpoint is written. Safe to call twice. */
  readonly stop: () => Promise<void>
}

/** Names the socket's file; no port is opened. */
const port = 5432
const restartMinMs = 100
const restartMaxMs = 2_000
/** A server that lived this long is no crash loop: the next restart is immediate again. */
const steadyMs = 10_000
/** A killed gateway's server is gone within about 0.2 s; a bigger one needs a checkpoint first. */
const inUseMs = 5_000
/** The final checkpoint of a fast shutdown; past it the server is stopped without one and recovers at the next start. */
const stopMs = 30_000
/** `sun_path` ends at 108 bytes on Linux and 104 elsewhere, with its zero byte. */
const socketPathBytesMax = process.platform === "linux" ? 107 : 103

const settings = (socketDir: string, durable: boolean): Readonly<Record<string, string | number>> => ({
  listen_addresses: "",
  port,
  unix_socket_directories: socketDir,
  unix_socket_permissions: "0700",
  // A gateway takes about ten, and there may be sixteen (npm run cluster); the rest is for operators' scripts.
  max_connections: 200,
  // Accounts, keys and the current day's rows; the file cache holds the rest.
  shared_buffers: "128MB",
  // A copy made while the server runs is completed by its log; replicas there are none.
  wal_level: "replica",
  max_wal_senders: 0,
  // What a backup that takes its time may keep of it; past that the backup ends, not the disk.
  max_slot_wal_keep_size: "8GB",
  // A new log segment costs 16 MB of zeroes, which a commit would wait for; keep used ones instead.
  min_wal_size: "256MB",
  // The first change of a page after a checkpoint logs the whole page: fewer checkpoints, smaller commits. A crash then replays at most max_wal_size.
  checkpoint_timeout: "15min",
  max_wal_size: "1GB",
  // The build knows only pglz, which costs the committer more CPU than the bytes it saves are worth.
  wal_compression: "off",
  // The statements are short, their plans cached; compiling them or spreading them over the cores would take from the hot path.
  jit: "off",
  max_parallel_workers_per_gather: 0,
  autovacuum: "on",
  timezone: "UTC",
  // Errors of statements reach their caller; with them would go values that don't belong in a log.
  log_min_messages: "log",
  log_checkpoints: "off",
  log_line_prefix: "",
  ...(durable
    ? { fsync: "on", synchronous_commit: "on", full_page_writes: "on" }
    : { fsync: "off", synchronous_commit: "off", full_page_writes: "off" })
})

/** Runs once, in a single-user server, before any socket exists. */
const bootstrap = `create role tollgate login nosuperuser;
create database tollgate owner tollgate;
`

/** Takes 0.1 s, on the first start about 2 s. The answer keeps this process alive until it is stopped. */
export const startEmbedded = async (options: EmbeddedOptions): Promise<EmbeddedServer> => {
  const { durable = true, major = 18, onProgress = () => {}, onRestart = () => {} } = options
  const directory = located(options.dataDir)
  const binDir = options.binDir ?? await findPostgres(major)
  if (binDir === undefined) throw new EmbeddedFailure(`no PostgreSQL ${major} for ${process.platform}-${process.arch} here: set DATABASE_URL to a PostgreSQL 15 or newer`)
  const run = await runner(binDir, dirname(directory))
  await waitUntilUnused(directory, onProgress)
  if (!isInitialised(directory, major)) {
    onProgress("Creating the database (first start, about 2 s)…")
    await initialise(directory, binDir, run, durable)
  }
  giveTo(run, directory)
  const socketDir = socketDirectory(directory, run)
  const args = ["-D", directory, ...flags(settings(socketDir, durable))]
  const server = await supervise(() => launch([...run.prefix, join(binDir, "postgres"), ...args]), onRestart)
  return {
    options: { host: socketDir, port, user: "tollgate", database: "tollgate" },
    pid: server.pid,
    stop: async () => {
      await server.stop()
      if (socketDir !== directory) rmSync(socketDir, { recursive: true, force: true })
    }
  }
}

const flags = (values: Readonly<Record<string, string | number>>): ReadonlyArray<string> =>
  Object.entries(values).flatMap(([name, value]) => ["-c", `${name}=${value}`])

/** The directory's real path: the server is later recognised by it. */
const located = (dataDir: string): string => {
  const path = resolve(dataDir)
  if (existsSync(path)) return realpathSync(path)
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  return join(realpathSync(dirname(path)), basename(path))
}

const isInitialised = (directory: string, major: number): boolean => {
  const names = existsSync(directory) ? readdirSync(directory) : []
  if (names.length === 0) return false
  if (!names.includes("PG_VERSION")) throw new EmbeddedFailure(`${directory} is not empty and holds no PostgreSQL data: set DATA_DIR to another directory`)
  const found = readFileSync(join(directory, "PG_VERSION"), "utf8").trim()
  if (found === String(major)) return true
  throw new EmbeddedFailure(`${directory} was made by PostgreSQL ${found}, this gateway runs ${major}: move the data with a dump from ${found}, or set DATA_DIR to another directory`)
}

const initialise = async (directory: string, binDir: string, run: Runner, durable: boolean): Promise<void> => {
  const fresh = draftIn(dirname(directory), `${basename(directory)}.init-`)
  mkdirSync(fresh, { mode: 0o700 })
  giveTo(run, fresh)
  try {
    const locale = ["--encoding=UTF8", "--no-locale"]
    const access = ["--username=postgres", "--auth-local=trust", "--auth-host=reject"]
    await complete([...run.prefix, join(binDir, "initdb"), "-D", fresh, ...locale, ...access, "--data-checksums", ...(durable ? [] : ["--no-sync"])])
    await complete([...run.prefix, join(binDir, "postgres"), "--single", "-D", fresh, ...flags({ exit_on_error: "on", fsync: durable ? "on" : "off" }), "postgres"], bootstrap)
    renameSync(fresh, directory)
  } catch (cause) {
    rmSync(fresh, { recursive: true, force: true })
    // Another gateway made the directory first; if it is still there, the lock file says so.
    const { code } = cause as NodeJS.ErrnoException
    if (code !== "ENOTEMPTY" && code !== "EEXIST") throw cause
  }
  if (durable) syncFolder(dirname(directory))
}

/** The server insists on owning its directory. Ownership changes only when root starts it, or starts it another way than before. */
const giveTo = (run: Runner, path: string): void => {
  if (run.uid === undefined || statSync(path).uid === run.uid) return
  for (const name of readdirSync(path, { recursive: true, encoding: "utf8" })) lchownSync(join(path, name), run.uid, -1)
  lchownSync(path, run.uid, -1)
}

/** Beside the data when a socket can be named there (a comma would end the name), else a private directory that lives as long as the server. */
const socketDirectory = (directory: string, run: Runner): string => {
  const fits = (path: string): boolean => !path.includes(",") && Buffer.byteLength(join(path, `.s.PGSQL.${port}`)) <= socketPathBytesMax
  if (fits(directory)) return directory
  const made = mkdtempSync(join(fits(join(tmpdir(), "tollgate-XXXXXX")) ? tmpdir() : "/tmp", "tollgate-"))
  giveTo(run, made)
  return made
}

/**
 * A server left by a killed gateway is on its way out; one that stays belongs to
 * somebody. It is known by its command line, so a stale lock file or a reused
 * pid stops nobody: the server checks its lock file itself.
 */
const waitUntilUnused = async (directory: string, onProgress: (line: string) => void): Promise<void> => {
  const deadline = performance.now() + inUseMs
  for (let waits = 0; ; waits++) {
    const pid = serverOf(directory)
    if (pid === undefined) return
    if (performance.now() > deadline) throw new EmbeddedFailure(`${directory} is in use by another gateway (PostgreSQL runs as pid ${pid}): stop that one, or set DATA_DIR to another directory`)
    if (waits === 10) onProgress("Waiting for the previous database server to end…")
    await sleep(25)
  }
}

const serverOf = (directory: string): number | undefined => {
  try {
    const pid = Number(readFileSync(join(directory, "postmaster.pid"), "utf8").split("\n", 1)[0])
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(directory) ? pid : undefined
  } catch {
    return undefined
  }
}

/** A session of its own: Ctrl-C in a terminal reaches the gateway, which drains before it stops the server. */
const start = ([command = "", ...args]: ReadonlyArray<string>): ChildProcess =>
  spawn(command, args, { cwd: "/", detached: true, env: { PATH: process.env["PATH"], LC_ALL: "C", TZ: "UTC" }, stdio: ["pipe", "ignore", "pipe"] })

/** Runs a program to its end; a failure carries what it complained about last. */
const complete = (command: ReadonlyArray<string>, input = ""): Promise<void> =>
  new Promise((done, fail) => {
    const child = start(command)
    let complaint = ""
    child.stderr?.on("data", (chunk) => { complaint = (complaint + chunk).slice(-4_096) })
    child.once("error", fail)
    child.once("close", (code) => code === 0 ? done() : fail(new EmbeddedFailure(`the database could not be created: ${reasonIn(complaint.trim().split("\n"))}`)))
    child.stdin?.on("error", () => {}) // It ended before it read everything: its exit code tells.
    child.stdin?.end(input)
  })

const reasonIn = (lines: ReadonlyArray<string>): string =>
  lines.findLast((line) => /FATAL|PANIC|error:/.test(line)) ?? lines.at(-1) ?? "no reason given"

interface Launched {
  readonly child: ChildProcess
  /** Accepts connections; fails when it ended before. */
  readonly ready: Promise<void>
  readonly ended: Promise<void>
}

const launch = (command: ReadonlyArray<string>): Launched => {
  const child = start(command)
  child.stdin?.end()
  const tail: Array<string> = []
  const ended = new Promise<void>((done) => {
    child.once("exit", () => done())
    child.once("error", (cause) => {
      tail.push(cause.message)
      done()
    })
  })
  const ready = new Promise<void>((done, fail) => {
    createInterface({ input: child.stderr! }).on("line", (line) => {
      log.debug({ line }, "postgres")
      tail.push(line)
      if (tail.length > 20) tail.shift()
      if (line.endsWith("database system is ready to accept connections")) done()
    }).once("close", () => fail(new EmbeddedFailure(`PostgreSQL did not start: ${reasonIn(tail)}`)))
  })
  ready.catch(() => {}) // Whoever waits for it sees it; a restart looks at `ended` alone.
  void ended.then(() => log.debug({ server: child.pid, reason: reasonIn(tail) }, "postgres ended"))
  return { child, ready, ended }
}

const supervise = async (launchServer: () => Launched, onRestart: () => void): Promise<Pick<EmbeddedServer, "pid" | "stop">> => {
  const stopping = new AbortController()
  let server = launchServer()
  const killNow = () => void server.child.kill("SIGINT")
  process.once("exit", killNow)
  await server.ready.catch((cause) => {
    process.off("exit", killNow)
    throw cause
  })

  const watch = async (): Promise<void> => {
    let delayMs = restartMinMs
    for (let since = performance.now(); ; since = performance.now()) {
      await server.ended
      if (stopping.signal.aborted) return
      if (performance.now() - since > steadyMs) delayMs = restartMinMs
      log.error({ server: server.child.pid, code: server.child.exitCode, signal: server.child.signalCode, delayMs }, "the database server died; starting it again")
      await sleep(delayMs, undefined, { signal: stopping.signal }).catch(() => {})
      if (stopping.signal.aborted) return
      delayMs = Math.min(delayMs * 2, restartMaxMs)
      metrics.databaseRestarts.inc()
      server = launchServer()
      server.ready.then(onRestart, (cause) => stopping.signal.aborted || log.error({ err: cause }, "the database server did not start"))
    }
  }
  const watched = watch()

  const stop = async (): Promise<void> => {
    stopping.abort()
    const impatient = setTimeout(() => server.child.kill("SIGQUIT"), stopMs)
    server.child.kill("SIGINT")
    await watched
    clearTimeout(impatient)
    process.off("exit", killNow)
  }
  return { pid: () => server.child.pid ?? 0, stop }
}
