/**
 * How an operator's command reaches the database: DATABASE_URL, else the
 * embedded server of the gateway that runs on DATA_DIR. It never starts a
 * server. What goes wrong is one line on standard error and exit code 1.
 *
 * Called by the programs in scripts/ that are run beside a gateway.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { BadSetting, type Settings, readSettings } from "../config.ts"
import { type Connection, type Sql, connect } from "./Postgres.ts"

/** One line for the operator. */
export class OperatorFailure extends Error {
  override readonly name = "OperatorFailure"
}

/** A command that waits longer for a row is stuck behind something that it should not wait for. */
const statementTimeoutMs = 30_000

/** The server names its port and its socket's directory on lines 4 and 5 of its lock file, and whether it is ready on line 8. */
const embedded = (dataDir: string): Connection => {
  const file = join(dataDir, "postgres", "postmaster.pid")
  let lines: ReadonlyArray<string>
  try {
    lines = readFileSync(file, "utf8").split("\n")
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new OperatorFailure(code === "ENOENT"
      ? `no gateway runs on ${dataDir}: start it, or set DATABASE_URL or DATA_DIR`
      : `${file} can't be read (${code}): run this as the user who runs the gateway`)
  }
  const [, , , port, host] = lines
  if (!host || lines[7]?.trim() !== "ready") throw new OperatorFailure(`the database in ${dataDir} is not ready: try again`)
  return { host, port: Number(port), user: "tollgate", database: "tollgate" }
}

const connectionOf = ({ databaseUrl, dataDir }: Settings): Connection => databaseUrl ?? embedded(dataDir)

/**
 * Runs one command of an operator: reads its arguments, connects, acts, and
 * makes what `act` answers the exit code. `read` refuses arguments with an
 * `OperatorFailure`, before anything is connected to.
 */
export const operate = async <A>(name: string, read: (args: ReadonlyArray<string>) => A, act: (sql: Sql, wanted: A) => Promise<number>): Promise<void> => {
  try {
    const wanted = read(process.argv.slice(2))
    const sql = connect(connectionOf(readSettings(process.env)), { max: 1, statementTimeoutMs, name: `tollgate-${name}` })
    try {
      process.exitCode = await act(sql, wanted)
    } finally {
      await sql.end({ timeout: 2 })
    }
  } catch (cause) {
    const expected = cause instanceof OperatorFailure || cause instanceof BadSetting
    console.error(`${name}: ${expected ? cause.message : `the database can't be read: ${String(cause)}`}`)
    process.exitCode = 1
  }
}

/** For a command without arguments. */
export const noArguments = (usage: string) => (args: ReadonlyArray<string>): void => {
  if (args.length > 0) throw new OperatorFailure(usage)
}
