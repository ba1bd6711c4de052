/**
 * The gateway that is measured: the built program with its embedded, durable
 * PostgreSQL, listed agents and keys made over its own API, as its users would.
 */
import { readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import postgres from "postgres"
import { GatewayProcess, type Listed, type Person } from "../../test/support/GatewayProcess.ts"
import { cpuMicros, treeMicros, treeOf } from "./cores.ts"
import type { Rig } from "./Rig.ts"

export interface BenchGateway {
  readonly process: GatewayProcess
  readonly pid: number
  readonly dataDir: string
  readonly sql: postgres.Sql
  /** Who owns the agent. */
  readonly owner: Person
  readonly agent: Listed
  /** Of the path that is measured. */
  readonly callUrl: string
  /** The gateway's own process, and those of its PostgreSQL. */
  readonly pids: () => ReadonlyArray<number>
  /** CPU so far of the gateway's own process, and of its PostgreSQL. */
  readonly cpu: () => { readonly gateway: number; readonly postgres: number }
  /** Begins, or ends and writes, the profile of a gateway that was started with one. */
  readonly toggleProfile: () => void
}

export interface GatewayOptions {
  readonly billing: "free" | "paid"
  readonly agentPort: number
  readonly price?: string
  /** The folder for a CPU profile. */
  readonly profile?: string | undefined
  /** Further settings. */
  readonly env?: Readonly<Record<string, string>>
}

export const startGateway = async (rig: Rig, { billing, agentPort, price = "0.01", profile, env = {} }: GatewayOptions): Promise<BenchGateway> => {
  const dataDir = rig.folder()
  const gateway = await GatewayProcess.start({
    DATA_DIR: dataDir, PROXY_BILLING: billing, ...env,
    ...(profile === undefined ? {} : { PROFILE_FOLDER: resolve(profile), NODE_OPTIONS: `--import ${resolve("bench/rig/profile.mjs")}` })
  })
  // Stopped, not killed: its database then ends before its folder is removed.
  rig.onEnd(() => gateway.stop())
  const listening = gateway.stderr().split("\n").find((line) => line.includes(`"msg":"listening"`))!
  const { pid } = JSON.parse(listening) as { readonly pid: number }
  const { pid: postgresPid, sql } = openDatabase(rig, dataDir)
  const owner = await gateway.person()
  const agent = await gateway.list(owner, `http://127.0.0.1:${agentPort}/run`, price)
  return {
    process: gateway, pid, dataDir, sql, owner, agent, callUrl: `${gateway.url}/v1/proxy/${agent.ticker}`,
    pids: () => [pid, ...treeOf(postgresPid)],
    cpu: () => ({ gateway: cpuMicros(pid), postgres: treeMicros(postgresPid) }),
    toggleProfile: () => { if (profile !== undefined) gateway.signal("SIGUSR2") }
  }
}

/** The server's lock file names its pid on line 1, its port and socket's directory on lines 4 and 5. */
const openDatabase = (rig: Rig, dataDir: string): { readonly pid: number; readonly sql: postgres.Sql } => {
  const [pid, , , port, host] = readFileSync(join(dataDir, "postgres", "postmaster.pid"), "utf8").split("\n")
  const sql = postgres({ host: host!, port: Number(port), user: "tollgate", database: "tollgate", max: 1, onnotice: () => {} })
  rig.onEnd(() => sql.end({ timeout: 1 }))
  return { pid: Number(pid), sql }
}
