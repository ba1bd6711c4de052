/**
 * How an operator's command runs, and how it reaches the database: DATABASE_URL,
 * else the embedded server of the gateway that runs on DATA_DIR. It never starts
 * a server. What goes wrong is one line on standard error and exit code 1.
 *
 * Called by the programs in scripts/ that are run beside a gateway.
 */
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { connect as connectSocket } from "node:net"
import { join } from "node:path"
import { BadSetting, type Settings, readSettings } from "../config.ts"
import { SchemaMismatch } from "./Migrations.ts"
import { type Connection, type Sql, connect } from "./Postgres.ts"
import { EmbeddedFailure } from "./PostgresBinaries.ts"

/** One line for the operator. */
export class OperatorFailure extends Error {
  override readonly name = "OperatorFailure"
}

/** A command that waits longer for a row is stuck behind something that it should not wait for. */
const statementTimeoutMs = 30_000

const role = { user: "tollgate", database: "tollgate" }

/**
 * The server of the gateway that runs on this data folder, or `undefined` when
 * none does. It names its port and its socket's directory on lines 4 and 5 of
 * its lock file, and whether it is ready on line 8; a lock file that nobody
 * answers behind was left by a crash.
 */
export const runningServer = async (dataDir: string): Promise<Exclude<Connection, string> | undefined> => {
  const file = join(dataDir, "postgres", "postmaster.pid")
  let lines: ReadonlyArray<string>
  try {
    lines = readFileSync(file, "utf8").split("\n")
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === "ENOENT") return undefined
    throw new OperatorFailure(`${file} can't be read (${code}): run this as the user who runs the gateway`)
  }
  const [, , , port, host] = lines
  if (!host || !await answers(join(host, `.s.PGSQL.${port}`))) return undefined
  if (lines[7]?.trim() !== "ready") throw new OperatorFailure(`the database in ${dataDir} is not ready: try again`)
  return { ...role, host, port: Number(port) }
}

const answers = async (path: string): Promise<boolean> => {
  const socket = connectSocket(path)
  try {
    await once(socket, "connect")
    return true
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === "ENOENT" || code === "ECONNREFUSED") return false
    throw new OperatorFailure(`${path} can't be reached (${code}): run this as the user who runs the gateway`)
  } finally {
    socket.destroy()
  }
}

const connectionOf = async ({ databaseUrl, dataDir }: Settings): Promise<Connection> => {
  const connection = databaseUrl ?? await runningServer(dataDir)
  if (connection === undefined) throw new OperatorFailure(`no gateway runs on ${dataDir}: start it, or set DATABASE_URL or DATA_DIR`)
  return connection
}

/** Failures that are one line already. */
const lines = [OperatorFailure, BadSetting, EmbeddedFailure, SchemaMismatch]

/**
 * Runs one command of an operator: reads its arguments and the settings, acts,
 * and makes what `act` answers the exit code. `read` refuses arguments with an
 * `OperatorFailure`, before anything is done.
 */
export const command = async <A>(name: string, read: (args: ReadonlyArray<string>) => A, act: (settings: Settings, wanted: A) => Promise<number>): Promise<void> => {
  try {
    const wanted = read(process.argv.slice(2))
    process.exitCode = await act(readSettings(process.env), wanted)
  } catch (cause) {
    const expected = lines.some((line) => cause instanceof line)
    console.error(`${name}: ${expected ? (cause as Error).message : `the database can't be read: ${String(cause)}`}`)
    process.exitCode = 1
  }
}

/** A command that needs the database and nothing else. */
export const operate = <A>(name: string, read: (args: ReadonlyArray<string>) => A, act: (sql: Sql, wanted: A) => Promise<number>): Promise<void> =>
  command(name, read, async (settings, wanted) => {
    const sql = connect(await connectionOf(settings), { max: 1, statementTimeoutMs, name: `tollgate-${name}` })
    try {
      return await act(sql, wanted)
    } finally {
      await sql.end({ timeout: 2 })
    }
  })

/** For a command without arguments. */
export const noArguments = (usage: string) => (args: ReadonlyArray<string>): void => {
  if (args.length > 0) throw new OperatorFailure(usage)
}

/** Aborts, with what the command then says, at Ctrl-C or SIGTERM; a second one ends the process at once. */
export const interruption = (line: string): AbortSignal => {
  const controller = new AbortController()
  const abort = (): void => controller.abort(new OperatorFailure(line))
  process.once("SIGINT", abort).once("SIGTERM", abort)
  return controller.signal
}
