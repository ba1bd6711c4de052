/**
 * `npm run restore`: a backup becomes the database of a gateway that does not run.
 *
 * Overview. Nothing that is there is touched before the backup has proved that
 * it works:
 *
 *     read manifest ─▶ copy beside, each file against its SHA-256 ─▶ run a server on the copy:
 *     replay, migrate, raise every token, audit ─▶ move what is there aside ─▶ rename into place
 *
 * Guarantee. What was acknowledged before the backup's `as_of` is there; what
 * came later is gone, with its charges, keys and revocations. Whatever still
 * runs on what the database was can't write to it: every account's token is
 * raised past any that was handed out since the backup. That, and the row in the
 * audit log, are one transaction. The books are audited; findings are answered,
 * and what was restored stays.
 *
 * Failure cases. A damaged or foreign backup, tables of a newer version, a
 * gateway that runs, a database that is there and may not be replaced → one
 * line, nothing changed. Killed before the move → a `restoring-…` folder, which
 * the next restore removes. Killed amid the few renames → `postgres` is missing
 * or whole; what was there is in `before-…`: restore again. An own server's
 * database is filled in one transaction; when a step after that fails, make the
 * database anew.
 */
import { existsSync, mkdirSync, renameSync, rmdirSync } from "node:fs"
import { dirname, join } from "node:path"
import type { Settings } from "../../config.ts"
import { type CheckResult, audit } from "../Audit.ts"
import { syncFolder } from "../Draft.ts"
import { startEmbedded } from "../Embedded.ts"
import { migrate } from "../Migrations.ts"
import { OperatorFailure, runningServer } from "../OperatorConnection.ts"
import type { Entry } from "../OperatorStore.ts"
import { type Connection, type Sql, begin, connect } from "../Postgres.ts"
import { auditBackup, companions } from "./Backup.ts"
import { load } from "./Dump.ts"
import { type Manifest, damaged, readManifest } from "./Manifest.ts"
import { copyFile, ensureRoom, inDraft, measure, prove } from "./files.ts"

export interface RestoreRequest {
  /** The backup's folder. */
  readonly path: string
  /** Moves a database that is there aside, instead of refusing. */
  readonly replace: boolean
  readonly entry: Entry
  readonly signal: AbortSignal
}

export interface Restored {
  readonly manifest: Manifest
  readonly accounts: number
  readonly transactions: number
  readonly checks: ReadonlyArray<CheckResult>
  /** Where what was there is now. */
  readonly aside: string | undefined
}

/** More activations than an account can have had between a backup and its restore. */
const tokensSkipped = 2n ** 32n

const fence = (sql: Sql) => sql`with closed as (update leases set is_open = false) update accounts set token = token + ${tokensSkipped}::bigint`
/** Calls of the gateway that was backed up: that it has ended is no crash. */
const forgetCallsInFlight = (sql: Sql) => sql`delete from calls_in_flight`
const count = (sql: Sql) => sql<Array<{ accounts: number; transactions: number }>>`
  select (select count(*)::float8 from accounts) as accounts, (select count(*)::float8 from transactions) as transactions`

export const restore = async (settings: Settings, request: RestoreRequest): Promise<Restored> => {
  const manifest = readManifest(request.path)
  const { databaseUrl, dataDir } = settings
  if (manifest.kind === "embedded" && databaseUrl !== undefined) throw new OperatorFailure(`${request.path} is of an embedded database: unset DATABASE_URL to restore it into DATA_DIR`)
  if (manifest.kind === "dump" && databaseUrl === undefined) throw new OperatorFailure(`${request.path} is of an own PostgreSQL: set DATABASE_URL to an empty database`)
  return databaseUrl === undefined ? intoDataDir(dataDir, manifest, request) : intoDatabase(databaseUrl, manifest, request)
}

const intoDataDir = async (dataDir: string, manifest: Manifest, { path, replace, entry, signal }: RestoreRequest): Promise<Restored> => {
  await refuseUnlessFree(dataDir, replace)
  return inDraft(dataDir, "restoring-", async (draft) => {
    await ensureRoom(dataDir, manifest.files.reduce((sum, { bytes }) => sum + bytes, 0))
    await copyBack(path, draft, manifest, signal)
    const server = await startEmbedded({ dataDir: join(draft, "postgres") })
    const found = await withDatabase(server.options, (sql) => takeOver(sql, manifest, entry)).finally(server.stop)
    signal.throwIfAborted()
    await refuseUnlessFree(dataDir, replace)
    const aside = exchange(dataDir, draft, entry.atMs)
    rmdirSync(draft)
    return { ...found, aside }
  })
}

const refuseUnlessFree = async (dataDir: string, replace: boolean): Promise<void> => {
  if (await runningServer(dataDir) !== undefined) throw new OperatorFailure(`a gateway runs on ${dataDir}: stop it first`)
  if (!replace && existsSync(join(dataDir, "postgres"))) throw new OperatorFailure(`there is a database in ${dataDir}: say --force to move it aside, or set DATA_DIR to another folder`)
}

const copyBack = async (from: string, to: string, { folders, files }: Manifest, signal: AbortSignal): Promise<void> => {
  for (const folder of folders) mkdirSync(join(to, folder), { mode: 0o700 })
  for (const { path, sha256 } of files) {
    const copied = await copyFile(join(from, path), join(to, path), signal).catch((cause: NodeJS.ErrnoException) => {
      throw cause.code === "ENOENT" || cause.code === "EIO" ? damaged(join(from, path)) : cause
    })
    if (copied.sha256 !== sha256) throw damaged(join(from, path))
  }
  // The server syncs its own directory before it replays the log.
  await prove(to, [], files.filter(({ path }) => dirname(path) === "."), signal)
}

/** The database goes last: where there is one, what belongs to it is there too. */
const exchange = (dataDir: string, draft: string, atMs: number): string | undefined => {
  const names = [...companions, "postgres"]
  const old = names.filter((name) => existsSync(join(dataDir, name)))
  const aside = join(dataDir, `before-${new Date(atMs).toISOString().replace(/[-:]/g, "")}`)
  if (old.length > 0) mkdirSync(aside, { mode: 0o700 })
  for (const name of old.toReversed()) renameSync(join(dataDir, name), join(aside, name))
  for (const name of names) if (existsSync(join(draft, name))) renameSync(join(draft, name), join(dataDir, name))
  for (const folder of [...(old.length > 0 ? [aside] : []), dataDir]) syncFolder(folder)
  return old.length > 0 ? aside : undefined
}

const intoDatabase = async (databaseUrl: string, manifest: Manifest, { path, entry, signal }: RestoreRequest): Promise<Restored> => {
  const [file] = manifest.files
  if (file === undefined) throw damaged(path)
  const dump = join(path, file.path)
  const { sha256 } = await measure(dump, signal).catch(() => ({ sha256: undefined }))
  if (sha256 !== file.sha256) throw damaged(dump)
  return withDatabase(databaseUrl, async (sql) => {
    const [found] = await sql`select from pg_class where relnamespace = current_schema()::regnamespace limit 1`
    if (found !== undefined) throw new OperatorFailure("the database of DATABASE_URL is not empty: make a new one and name that; nothing was changed")
    await load(databaseUrl, parseInt(manifest.postgres), dump, signal)
    return { ...await takeOver(sql, manifest, entry), aside: undefined }
  })
}

const withDatabase = async <A>(connection: Connection, act: (sql: Sql) => Promise<A>): Promise<A> => {
  const sql = connect(connection, { max: 1, statementTimeoutMs: 0, name: "tollgate-restore" })
  try {
    return await act(sql)
  } finally {
    await sql.end({ timeout: 2 })
  }
}

/** From here on the database is not the one that was backed up. */
const takeOver = async (sql: Sql, manifest: Manifest, entry: Entry): Promise<Omit<Restored, "aside">> => {
  await migrate(sql)
  await begin(sql, async (tx) => {
    await fence(tx)
    await forgetCallsInFlight(tx)
    await auditBackup(tx, entry, "gateway.restore", manifest.id, { as_of: manifest.as_of, tollgate: manifest.tollgate })
  })
  const [counted] = await count(sql)
  return { manifest, ...counted!, checks: await audit(sql) }
}
