/**
 * `npm run audit`: proves the books of a live gateway. One line a check, then
 * `audit: N checks, M findings`; exit code 1 when something was found or the
 * database can't be read.
 *
 * Reads DATABASE_URL, else the embedded server of the gateway that runs on
 * DATA_DIR: it never starts one, and it changes nothing.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { BadSetting, type Settings, readSettings } from "../src/config.ts"
import { audit } from "../src/store/Audit.ts"
import { type Connection, connect } from "../src/store/Postgres.ts"

/** One line for the operator. */
class AuditFailure extends Error {}

/** The server names its port and its socket's directory on lines 4 and 5 of its lock file, and whether it is ready on line 8. */
const embedded = (dataDir: string): Connection => {
  const file = join(dataDir, "postgres", "postmaster.pid")
  let lines: ReadonlyArray<string>
  try {
    lines = readFileSync(file, "utf8").split("\n")
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new AuditFailure(code === "ENOENT"
      ? `no gateway runs on ${dataDir}: start it, or set DATABASE_URL or DATA_DIR`
      : `${file} can't be read (${code}): run the audit as the user who runs the gateway`)
  }
  const [, , , port, host] = lines
  if (!host || lines[7]?.trim() !== "ready") throw new AuditFailure(`the database in ${dataDir} is not ready: try again`)
  return { host, port: Number(port), user: "tollgate", database: "tollgate" }
}

const run = async ({ databaseUrl, dataDir }: Settings): Promise<number> => {
  const sql = connect(databaseUrl ?? embedded(dataDir), { max: 1, statementTimeoutMs: 0, name: "tollgate-audit" })
  try {
    const results = await audit(sql)
    for (const { name, ok, found } of results) console.log(`${ok ? "ok  " : "FAIL"} ${name}${ok ? "" : `: ${found}`}`)
    const findings = results.filter(({ ok }) => !ok).length
    console.log(`audit: ${results.length} checks, ${findings} findings`)
    return findings === 0 ? 0 : 1
  } finally {
    await sql.end({ timeout: 2 })
  }
}

try {
  process.exitCode = await run(readSettings(process.env))
} catch (cause) {
  const expected = cause instanceof AuditFailure || cause instanceof BadSetting
  console.error(`audit: ${expected ? cause.message : `the database can't be read: ${String(cause)}`}`)
  process.exitCode = 1
}
