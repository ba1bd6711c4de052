/** What must be true of the money when a load is over, whatever its speed was. */
import { execFile } from "node:child_process"
import type postgres from "postgres"
import type { BenchGateway } from "./gateway.ts"

/** `npm run audit` beside the gateway; fails with what it found. */
export const auditBooks = (gateway: BenchGateway): Promise<void> => audit({ DATA_DIR: gateway.dataDir })

/** The same with the settings of a gateway. */
export const audit = (settings: Readonly<Record<string, string>>): Promise<void> => new Promise((done, fail) => {
  execFile(process.execPath, ["dist/audit.js"], { env: { PATH: process.env["PATH"], ...settings }, timeout: 120_000 }, (error, stdout, stderr) =>
    error === null ? done() : fail(new Error(`the audit found something:\n${stdout}${stderr}`)))
})

export interface Charged {
  readonly calls: number
  readonly micros: bigint
}

export const chargedIn = async (sql: postgres.Sql): Promise<Charged> => {
  const [row] = await sql<Array<{ calls: number; micros: string }>>`
    select count(*)::int as calls, coalesce(-sum(available), 0)::text as micros from transactions where type = 'charge'`
  return { calls: row!.calls, micros: BigInt(row!.micros) }
}
