/**
 * What process-level tests need around them, taken down after each test (or
 * after all of a file's, with `afterAll`) whatever became of them: gateways,
 * their agents, databases, and a look into these.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, expect } from "vitest"
import { audit } from "../../src/store/Audit.ts"
import { type Connection, type Sql, connect } from "../../src/store/Postgres.ts"
import { GatewayProcess } from "./GatewayProcess.ts"
import { type Behave, LoopbackAgent } from "./LoopbackAgent.ts"
import { freshDatabase } from "./postgres.ts"

export interface StageDatabase {
  /** Where a gateway finds it. */
  readonly env: Readonly<Record<string, string>>
  readonly options: Exclude<Connection, string>
  readonly sql: Sql
}

export class Stage {
  readonly #cleanups: Array<() => unknown> = []

  /** To be done at the end, latest first. */
  onEnd(cleanup: () => unknown): void {
    this.#cleanups.push(cleanup)
  }

  async end(): Promise<void> {
    for (const cleanup of this.#cleanups.splice(0).reverse()) await cleanup()
  }

  async gateway(env: Readonly<Record<string, string>>): Promise<GatewayProcess> {
    const gateway = await GatewayProcess.start(env)
    this.onEnd(() => gateway.kill9())
    return gateway
  }

  async agent(behave?: Behave): Promise<LoopbackAgent> {
    const agent = await new LoopbackAgent(behave).listen()
    this.onEnd(() => agent.close())
    return agent
  }

  /** An empty database on the run's server. */
  async database(): Promise<StageDatabase> {
    const { env, options, drop } = await freshDatabase()
    this.onEnd(drop)
    return { env, options, sql: this.connect(options) }
  }

  directory(): string {
    const path = mkdtempSync(join(tmpdir(), "tollgate-stage-"))
    this.onEnd(() => rmSync(path, { recursive: true, maxRetries: 20 }))
    return path
  }

  connect(connection: Connection): Sql {
    const sql = connect(connection, { max: 2, statementTimeoutMs: 30_000, name: "tollgate-test" })
    this.onEnd(() => sql.end({ timeout: 1 }))
    return sql
  }
}

export const useStage = (after: (end: () => Promise<void>) => void = afterEach): Stage => {
  const stage = new Stage()
  after(() => stage.end())
  return stage
}

/** Nothing lost, invented or charged twice, by the rows alone. */
export const expectCleanBooks = async (sql: Sql): Promise<void> => {
  expect((await audit(sql)).filter(({ ok }) => !ok)).toEqual([])
}

/** What an account has in the database, in micro-dollars. */
export const booked = async (sql: Sql, accountId: string): Promise<{ readonly available: bigint; readonly reserved: bigint }> => {
  const [row] = await sql<Array<{ available: bigint; reserved: bigint }>>`select available, reserved from accounts where id = ${accountId}`
  return row!
}
