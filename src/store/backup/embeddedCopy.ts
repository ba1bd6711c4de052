/**
 * A copy of the embedded server's directory, made while the server works.
 *
 * Overview. One session holds the whole copy:
 *
 *     replication slot ─▶ pg_backup_start ─▶ copy files ─▶ pg_backup_stop ─▶ copy log segments
 *     (keeps the log)     (a checkpoint)     (torn, mixed)  (the stop point)   (start … stop)
 *
 * Files are copied while they change, so for themselves they are of no moment
 * at all. The log from the start point on holds every page whole that was
 * changed after it; a server that starts on the copy finds `backup_label`,
 * replays that log up to the stop point, and refuses to run if it does not
 * reach it.
 *
 * Guarantee: the copy is the database as of the stop point. Every commit that
 * was acknowledged before `asOfMs` is in it.
 *
 * Failure cases. The session ends (server stopped or died; more log than
 * `max_slot_wal_keep_size` was written meanwhile) → the slot goes with it, the
 * server leaves the backup mode, the copy fails. A segment that is missing all
 * the same → the copy fails. This process dies → the session ends.
 *
 * Why not pg_basebackup: the embedded package does not have it.
 */
import { createHash, randomUUID } from "node:crypto"
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { OperatorFailure } from "../OperatorConnection.ts"
import type { Sql } from "../Postgres.ts"
import type { FileEntry } from "./Manifest.ts"
import { copyFile } from "./files.ts"

export interface Copied {
  /** In milliseconds since 1970: what was acknowledged before is in the copy. */
  readonly asOfMs: number
  readonly folders: ReadonlyArray<string>
  readonly files: ReadonlyArray<FileEntry>
}

/** Of one run of the server; a server finds its own anew. */
const ofTheRun = new Set(["postmaster.pid", "postmaster.opts"])
/** Folders whose content is of one run, too, and of the log, which comes last. */
const left = new Set(["pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"])
/** Sorts and caches of sessions, and the lock of the run's socket. */
const passing = /^(?:pgsql_tmp|pg_internal\.init|\.s\.PGSQL\.)/
/** Its state must not be older than that of any other file. */
const control = "global/pg_control"

const keepLog = (sql: Sql, slot: string) => sql`select pg_create_physical_replication_slot(${slot}, true, true)`
/** A slot of this kind ends with its session. */
const keptLog = (sql: Sql, slot: string) => sql`select from pg_replication_slots where slot_name = ${slot} and active_pid = pg_backend_pid() and wal_status <> 'lost'`
/** An immediate checkpoint; its place in the log is where a replay begins. */
const begin = (sql: Sql) => sql<Array<{ lsn: string }>>`select pg_backup_start('tollgate', true)::text as lsn`
const stop = (sql: Sql) => sql<Array<{ lsn: string; label: string }>>`select lsn::text, labelfile as label from pg_backup_stop(false)`
/** The files that hold the log from one place to just before another. */
const segments = (sql: Sql, from: string, to: string) => sql<Array<{ name: string }>>`
  with size as (select pg_size_bytes(current_setting('wal_segment_size')) as bytes)
  select pg_walfile_name('0/0'::pg_lsn + n * bytes + 1) as name
  from size, generate_series(div(${from}::pg_lsn - '0/0', bytes), div(${to}::pg_lsn - '0/0' - 1, bytes)) n`

/**
 * Fills `to`, a folder that is there and empty; what it copied is not durable
 * yet. `sql` is a pool of one connection, of a superuser.
 */
export const copyEmbedded = async (sql: Sql, from: string, to: string, signal: AbortSignal): Promise<Copied> => {
  const slot = `tollgate_backup_${randomUUID().replaceAll("-", "")}`
  await keepLog(sql, slot)
  const [started] = await begin(sql)
  const { folders, files } = await copyFolder(from, to, signal)
  files.push(await copySteady(from, to, control, signal))
  const asOfMs = Date.now()
  const [stopped] = await stop(sql)
  await writeFile(join(to, "backup_label"), stopped!.label, { mode: 0o600, flag: "wx" })
  files.push({ path: "backup_label", bytes: Buffer.byteLength(stopped!.label), sha256: createHash("sha256").update(stopped!.label).digest("hex") })
  for (const { name } of await segments(sql, started!.lsn, stopped!.lsn)) {
    const path = join("pg_wal", name)
    files.push({ path, ...await copyFile(join(from, path), join(to, path), signal) })
  }
  // Otherwise a segment may have been used again while it was copied.
  if ((await keptLog(sql, slot)).length === 0) throw new OperatorFailure("the server did not keep its log for the whole copy: try again when less is written")
  return { asOfMs, folders, files }
}

const copyFolder = async (from: string, to: string, signal: AbortSignal): Promise<{ readonly folders: Array<string>; readonly files: Array<FileEntry> }> => {
  const folders: Array<string> = []
  const files: Array<FileEntry> = []
  const copy = async (folder: string): Promise<void> => {
    const source = join(from, folder)
    for (const entry of await unlessGone(source, readdir(source, { withFileTypes: true })) ?? []) {
      const path = join(folder, entry.name)
      if (ofTheRun.has(path) || passing.test(entry.name) || path === control) continue
      if (entry.isSymbolicLink()) throw new OperatorFailure(`${join(from, path)} leads out of the data folder, which this copy can't follow: back it up by PostgreSQL's own means`)
      if (entry.isDirectory()) {
        await mkdir(join(to, path), { mode: 0o700 })
        folders.push(path)
        if (!left.has(path)) await copy(path)
      } else if (entry.isFile()) {
        const copied = await unlessGone(join(from, path), copyFile(join(from, path), join(to, path), signal))
        if (copied !== undefined) files.push({ path, ...copied })
      }
    }
  }
  await copy("")
  return { folders, files }
}

/** What is dropped while it is copied is dropped by the replay as well. Any other thing that is missing is a failure. */
const unlessGone = <A>(source: string, read: Promise<A>): Promise<A | undefined> =>
  read.catch((cause: NodeJS.ErrnoException) => cause.code === "ENOENT" && cause.path === source ? undefined : Promise.reject(cause))

/** A small file that is written over in place: taken when two readings agree. */
const copySteady = async (from: string, to: string, path: string, signal: AbortSignal): Promise<FileEntry> => {
  for (;;) {
    const bytes = await readFile(join(from, path))
    signal.throwIfAborted()
    if (!bytes.equals(await readFile(join(from, path)))) continue
    await writeFile(join(to, path), bytes, { mode: 0o600, flag: "wx" })
    return { path, bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") }
  }
}
