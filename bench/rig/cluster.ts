/**
 * Several nodes as one gateway, as an operator would run them: one PostgreSQL
 * that keeps what it acknowledges, one Redis, and as many of the built program
 * as are asked for, each on a port of its own so that calls can be sent to any
 * of them. One node without Redis is the gateway that knows of no others.
 *
 * Nodes can be ended and started while the rest goes on; CPU is told by part.
 */
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import postgres from "postgres"
import { startEmbedded } from "../../src/store/Embedded.ts"
import { GatewayProcess, type Listed } from "../../test/support/GatewayProcess.ts"
import { type TestRedis, startTestRedis } from "../../test/support/redis.ts"
import { confine, cpuMicros, treeMicros, treeOf } from "./cores.ts"
import type { Rig } from "./Rig.ts"

const readyMs = 20_000
const lookMs = 50
const secretsKey = "a key for measurements, known to all"

export interface ClusterOptions {
  readonly nodes: number
  /** Without it there may be one node only. */
  readonly isMany: boolean
  readonly agentPort: number
  readonly price: string
  /** Where the nodes run; all else runs where this process does. */
  readonly core: number
}

export interface BenchNode {
  readonly process: GatewayProcess
  readonly pid: number
  /** Of its metrics at one moment: the sum of all series of a name, or of those that have these labels. */
  readonly metrics: () => Promise<(name: string, labels?: string) => number>
}

/** What each part has used so far, µs. Of nodes that live. */
export interface ClusterCpu {
  readonly nodes: number
  readonly postgres: number
  readonly redis: number
}

export class BenchCluster {
  readonly sql: postgres.Sql
  /** For operators' programs beside it. */
  readonly env: Readonly<Record<string, string>>
  readonly redis: TestRedis | undefined
  /** The measured calls' paths: what they cost is all that they differ in. */
  readonly paths: { readonly free: string; readonly paid: string }
  readonly nodes: Array<BenchNode>
  readonly #postgresPid: () => number
  #core: number | string
  readonly #rig: Rig

  static async start(rig: Rig, options: ClusterOptions): Promise<BenchCluster> {
    const server = await startEmbedded({ dataDir: join(rig.folder(), "postgres") })
    rig.onEnd(server.stop)
    const redis = options.isMany ? await startTestRedis() : undefined
    if (redis !== undefined) rig.onEnd(redis.stop)
    const { host, port, user, database } = server.options
    const env = {
      DATABASE_URL: `postgres:///${database}`, PGHOST: host, PGPORT: String(port), PGUSER: user, PGDATABASE: database, SECRETS_KEY: secretsKey,
      ...(redis === undefined ? {} : { REDIS_URL: redis.url })
    }
    const sql = postgres({ ...server.options, max: 1, onnotice: () => {} })
    rig.onEnd(() => sql.end({ timeout: 1 }))
    // The first makes the tables.
    const first = await startNode(rig, env, options.core)
    const others = await Promise.all(Array.from({ length: options.nodes - 1 }, () => startNode(rig, env, options.core)))
    const owner = await first.process.person()
    const list = (price: string): Promise<Listed> => first.process.list(owner, `http://127.0.0.1:${options.agentPort}/run`, price)
    const [free, paid] = [await list("0"), await list(options.price)]
    const paths = { free: `/v1/proxy/${free.ticker}`, paid: `/v1/proxy/${paid.ticker}` }
    return new BenchCluster(rig, { sql, env, redis, paths, nodes: [first, ...others], postgresPid: server.pid, core: options.core })
  }

  private constructor(rig: Rig, parts: Pick<BenchCluster, "sql" | "env" | "redis" | "paths" | "nodes"> & { readonly postgresPid: () => number; readonly core: number }) {
    this.#rig = rig
    this.sql = parts.sql
    this.env = parts.env
    this.redis = parts.redis
    this.paths = parts.paths
    this.nodes = parts.nodes
    this.#postgresPid = parts.postgresPid
    this.#core = parts.core
  }

  cpu(): ClusterCpu {
    return {
      nodes: this.nodes.reduce((sum, { pid }) => sum + cpuMicros(pid), 0),
      postgres: treeMicros(this.#postgresPid()),
      redis: this.redis === undefined ? 0 : cpuMicros(this.redis.pid())
    }
  }

  /** Everything may use every core from now on. */
  unpin(cores: string): void {
    this.#core = cores
    for (const pid of [...this.nodes.map(({ pid }) => pid), ...treeOf(this.#postgresPid()), ...(this.redis === undefined ? [] : [this.redis.pid()])]) confine(pid, cores)
  }

  /** One more node, which takes its part of the accounts. */
  async join(): Promise<BenchNode> {
    const node = await startNode(this.#rig, this.env, this.#core)
    this.nodes.push(node)
    return node
  }

  /** A planned stop: answers when the process has ended. */
  async leave(node: BenchNode): Promise<void> {
    this.nodes.splice(this.nodes.indexOf(node), 1)
    await node.process.stop()
  }

  async kill(node: BenchNode): Promise<void> {
    this.nodes.splice(this.nodes.indexOf(node), 1)
    await node.process.kill9()
  }

  /** Summed over the nodes. */
  async metrics(): Promise<(name: string, labels?: string) => number> {
    const each = await Promise.all(this.nodes.map((node) => node.metrics()))
    return (name, labels) => each.reduce((sum, read) => sum + read(name, labels), 0)
  }

  /** Commands that Redis has executed so far, those of scripts too, and the CPU time that it tells itself, µs. */
  async redisUsed(): Promise<{ readonly commands: number; readonly micros: number }> {
    const told = `${await this.redis?.command("info", "stats")}${await this.redis?.command("info", "cpu")}`
    const value = (name: string): number => Number(new RegExp(`^${name}:([\\d.]+)`, "m").exec(told)?.[1] ?? NaN)
    return { commands: value("total_commands_processed"), micros: (value("used_cpu_sys") + value("used_cpu_user")) * 1e6 }
  }
}

/** Answers when it is ready, in a cluster a part of it. */
const startNode = async (rig: Rig, env: BenchCluster["env"], core: number | string): Promise<BenchNode> => {
  const gateway = await GatewayProcess.start(env)
  let isEnded = false
  void gateway.ended.then(() => { isEnded = true })
  rig.onEnd(() => isEnded ? undefined : gateway.stop())
  const listening = gateway.stderr().split("\n").find((line) => line.includes(`"msg":"listening"`))!
  const { pid } = JSON.parse(listening) as { readonly pid: number }
  confine(pid, core)
  const overdueMs = performance.now() + readyMs
  while ((await gateway.call("GET", "/ready")).status !== 200) {
    if (performance.now() > overdueMs) throw new Error(`a node was not ready after ${readyMs} ms:\n${gateway.stderr()}`)
    await sleep(lookMs)
  }
  return { process: gateway, pid, metrics: async () => reader((await gateway.call("GET", "/metrics")).text) }
}

/** A name that the gateway does not know fails: a figure would be 0 for ever. */
const reader = (text: string) => (name: string, labels = ""): number => {
  const family = name.replace(/_(?:sum|count)$/, "")
  if (!text.includes(`# TYPE ${name} `) && !text.includes(`# TYPE ${family} `)) throw new Error(`the gateway has no metric ${name}`)
  return text.split("\n").filter((line) => (line.startsWith(`${name} `) || line.startsWith(`${name}{`)) && line.includes(labels))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0)
}
