/**
 * `npm run backup`: everything that a gateway needs to go on elsewhere, in one
 * new folder (its form is in Manifest.ts).
 *
 * Guarantee. The folder appears, under its last name, when every file of it is
 * on disk and was read back; before, it is `unfinished-…`, which the next backup
 * removes. The gateway may run and be under load. What was acknowledged before
 * `as_of` is in it. It is made for this user alone, and is as secret as the data
 * it copies: of the embedded database the key to the secrets lies beside them.
 *
 * Beginning one is written to the audit log, in the database and so also in the
 * backup, before anything is copied.
 *
 * Failure cases. Interrupted, out of room, database lost → nothing is left, or
 * after a kill something `unfinished`. When no gateway runs on DATA_DIR, a
 * server is run for as long as the copy takes; a gateway that is started
 * meanwhile says that its directory is in use.
 */
import { existsSync, mkdirSync, renameSync, statSync } from "node:fs"
import { hostname } from "node:os"
import { dirname, join } from "node:path"
import type { Settings } from "../../config.ts"
import { syncFolder } from "../Draft.ts"
import { startEmbedded } from "../Embedded.ts"
import { OperatorFailure, runningServer } from "../OperatorConnection.ts"
import type { Entry } from "../OperatorStore.ts"
import { type Connection, type Sql, connect } from "../Postgres.ts"
import { dump } from "./Dump.ts"
import { type About, type FileEntry, type Manifest, writeManifest } from "./Manifest.ts"
import { type Copied, copyEmbedded } from "./embeddedCopy.ts"
import { copyFile, ensureRoom, inDraft, measure, prove } from "./files.ts"

export interface BackupRequest {
  readonly id: string
  /** Where it becomes a new folder; made when missing. */
  readonly folder: string
  /** This release. */
  readonly tollgate: string
  readonly entry: Entry
  readonly signal: AbortSignal
}

export interface Backup {
  readonly path: string
  readonly manifest: Omit<Manifest, "format">
}

/** Beside the database in DATA_DIR; without them its rows are of no use. */
export const companions = ["secrets.key", "demo.json"]

/** The server's own log may grow by this much beside the backup, when they share a disk. */
const reserveBytes = 1024 ** 3
/** Of log that a small copy brings along. */
const logBytes = 64 * 1024 ** 2

/** What is done to the gateway as a whole is about nobody's account. */
const nobody = "00000000-0000-0000-0000-000000000000"

/** `id`: of the backup. */
export const auditBackup = (sql: Sql, { auditId, atMs }: Entry, action: "gateway.backup" | "gateway.restore", id: string, details: Readonly<Record<string, string>>) => sql`
  insert into audit_log (id, account_id, actor, action, target, details, created_at)
  values (${auditId}, ${nobody}, 'operator', ${action}, ${id}, ${sql.json(details)}, ${new Date(atMs)})`

interface Facts { readonly postgres: string; readonly major: number; readonly system_id: string; readonly bytes: number; readonly migrations: ReadonlyArray<string> }

const facts = async (sql: Sql): Promise<Facts> => {
  const [server] = await sql<Array<Omit<Facts, "migrations">>>`
    select current_setting('server_version') as postgres, current_setting('server_version_num')::int / 10000 as major,
      (select system_identifier::text from pg_control_system()) as system_id,
      (select sum(pg_database_size(oid))::float8 from pg_database where has_database_privilege(oid, 'connect')) as bytes`
  const applied = await sql<Array<{ name: string }>>`select name from migrations order by name`
  return { ...server!, migrations: applied.map(({ name }) => name) }
}

export const backUp = async (settings: Settings, request: BackupRequest): Promise<Backup> => {
  const { databaseUrl, dataDir } = settings
  if (databaseUrl !== undefined) return withSession(databaseUrl, (sql) => write(request, sql, "dump", (draft, { major }) => dumped(databaseUrl, major, draft, request.signal)))
  return withServer(dataDir, (server) =>
    // Only a superuser may copy a server's files; the socket lets in whoever may open it.
    withSession({ ...server, user: "postgres" }, (sql) => write(request, sql, "embedded", (draft, { bytes }) => copied(dataDir, sql, bytes, draft, request.signal))))
}

const withServer = async <A>(dataDir: string, act: (server: Exclude<Connection, string>) => Promise<A>): Promise<A> => {
  const running = await runningServer(dataDir)
  if (running !== undefined) return act(running)
  const directory = join(dataDir, "postgres")
  if (!existsSync(join(directory, "PG_VERSION"))) throw new OperatorFailure(`there is no database in ${dataDir}: set DATA_DIR or DATABASE_URL`)
  const server = await startEmbedded({ dataDir: directory })
  try {
    return await act(server.options)
  } finally {
    await server.stop()
  }
}

const withSession = async <A>(connection: Connection, act: (sql: Sql) => Promise<A>): Promise<A> => {
  // A checkpoint takes as long as it takes.
  const sql = connect(connection, { max: 1, statementTimeoutMs: 0, name: "tollgate-backup" })
  try {
    return await act(sql)
  } finally {
    await sql.end({ timeout: 2 })
  }
}

const write = async (request: BackupRequest, sql: Sql, kind: Manifest["kind"], copy: (draft: string, facts: Facts) => Promise<Copied>): Promise<Backup> => {
  const { id, folder, tollgate, entry, signal } = request
  const found = await facts(sql)
  const started_at = new Date(entry.atMs).toISOString()
  const path = join(folder, `tollgate-${started_at.replace(/[-:]/g, "")}`)
  await auditBackup(sql, entry, "gateway.backup", id, { path })
  // A folder may be several machines'.
  return inDraft(folder, `unfinished-${hostname()}-`, async (draft) => {
    const { asOfMs, folders, files } = await copy(draft, found)
    const [wrong] = await prove(draft, folders, files, signal)
    if (wrong !== undefined) throw new OperatorFailure(`${join(draft, wrong)} can't be read back as it was written: that disk is failing; nothing was kept`)
    const { postgres, system_id, migrations } = found
    const about: About = { id, kind, tollgate, postgres, system_id, started_at, as_of: new Date(asOfMs).toISOString(), ended_at: new Date().toISOString(), migrations }
    const manifest = { ...about, folders, files }
    writeManifest(draft, manifest)
    syncFolder(draft)
    renameSync(draft, path)
    syncFolder(folder)
    return { path, manifest }
  })
}

const copied = async (dataDir: string, sql: Sql, bytes: number, draft: string, signal: AbortSignal): Promise<Copied> => {
  const sharesDisk = statSync(draft).dev === statSync(dataDir).dev
  await ensureRoom(dirname(draft), bytes + logBytes + (sharesDisk ? reserveBytes : 0))
  const [{ wal_level } = { wal_level: "" }] = await sql<Array<{ wal_level: string }>>`show wal_level`
  if (wal_level === "minimal") throw new OperatorFailure(`the gateway on ${dataDir} was started by an older version, whose database can't be copied while it runs: restart it, or stop it, and try again`)
  mkdirSync(join(draft, "postgres"), { mode: 0o700 })
  const { asOfMs, folders, files } = await copyEmbedded(sql, join(dataDir, "postgres"), join(draft, "postgres"), signal)
  const below = (path: string): string => join("postgres", path)
  const beside: Array<FileEntry> = []
  for (const name of companions) {
    if (existsSync(join(dataDir, name))) beside.push({ path: name, ...await copyFile(join(dataDir, name), join(draft, name), signal) })
  }
  return { asOfMs, folders: ["postgres", ...folders.map(below)], files: [...beside, ...files.map(({ path, ...file }) => ({ path: below(path), ...file }))] }
}

const dumped = async (databaseUrl: string, major: number, draft: string, signal: AbortSignal): Promise<Copied> => {
  const asOfMs = Date.now()
  const path = "database.dump"
  await dump(databaseUrl, major, join(draft, path), signal)
  return { asOfMs, folders: [], files: [{ path, ...await measure(join(draft, path), signal) }] }
}
