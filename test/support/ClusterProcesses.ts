/**
 * Several gateways in processes of their own, one Redis and one database: a
 * cluster that a test can hurt.
 *
 *   const cluster = await startCluster({ nodes: 3, links: true })
 *   const [a, b, c] = cluster.nodes
 *   await a.gateway.call("GET", "/health")       each node has a port of its own (`samePort: true`: all have one)
 *   await a.kill9(); await a.start()             SIGKILL, and again with the same settings and CLUSTER_PORT
 *   a.freeze(); a.thaw()                         SIGSTOP and SIGCONT
 *   await a.stop(); await cluster.add()          SIGTERM, to its end; one more node
 *   await cluster.redis.halt(), .start(), .freeze(), .thaw(), .command("flushall")
 *   await cluster.ready()                        every node that runs says that it is ready
 *   await cluster.sql`select …`; await expectCleanBooks(cluster.sql)
 *   await cluster.end()
 *
 * With `links` the ways of each node lead through the test (see Link and
 * CutProxy), and cost a little more:
 *   a.toRedis.sever(), .restore(), .freeze(), .thaw(), .delay(ms), .cutAfterSend()
 *   a.toPostgres.sever(), .restore(), .arm("beforeAnswer", "insert into")
 *   cluster.between(a, b).freeze()               RPC and hops, both directions
 *   for (const way of cluster.waysOf(a)) way.sever()
 */
import { createServer, connect as connectSocket, type Socket } from "node:net"
import { randomInt } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type Sql, connect } from "../../src/store/Postgres.ts"
import { type CutProxy, startCutProxy } from "./CutProxy.ts"
import { GatewayProcess, until } from "./GatewayProcess.ts"
import { Link, type SocketProxy, startSocketProxy } from "./Link.ts"
import { type TestDatabase, freshDatabase } from "./postgres.ts"
import { type TestRedis, startTestRedis } from "./redis.ts"

type Env = Readonly<Record<string, string>>

export interface ClusterOptions {
  readonly nodes?: number
  /** Settings of every node. */
  readonly env?: Env
  readonly links?: boolean
  readonly samePort?: boolean
  /** An empty one; it stays its owner's. Default: one of the run's server. */
  readonly database?: TestDatabase
}

interface Ways {
  readonly redis: SocketProxy
  readonly postgres: CutProxy
  readonly peers: { readonly path: string; readonly close: () => void }
}

export class ClusterNode {
  readonly index: number
  readonly #env: Env
  readonly #ways: Ways | undefined
  #gateway: GatewayProcess | undefined

  constructor(index: number, env: Env, ways: Ways | undefined) {
    this.index = index
    this.#env = env
    this.#ways = ways
  }

  get isRunning(): boolean {
    return this.#gateway !== undefined
  }

  /** The process that runs now. */
  get gateway(): GatewayProcess {
    if (this.#gateway === undefined) throw new Error(`node ${this.index} does not run`)
    return this.#gateway
  }

  get toRedis(): Link {
    return this.#waysOrFail().redis.link
  }

  get toPostgres(): CutProxy {
    return this.#waysOrFail().postgres
  }

  /** Where other nodes reach it: its RPC and its hops. */
  get ports(): ReadonlyArray<number> {
    const port = Number(this.#env["CLUSTER_PORT"])
    return [port, port + 1]
  }

  /** Answers when it listens. */
  async start(): Promise<void> {
    this.#gateway = await GatewayProcess.start(this.#env)
  }

  async kill9(): Promise<void> {
    await this.#leaving().kill9()
  }

  /** SIGTERM; fails unless the program ends well. */
  async stop(): Promise<void> {
    await this.#leaving().stop("SIGTERM")
  }

  freeze(): void {
    this.gateway.signal("SIGSTOP")
  }

  thaw(): void {
    this.gateway.signal("SIGCONT")
  }

  async end(): Promise<void> {
    await this.#gateway?.kill9()
    this.#ways?.redis.close()
    this.#ways?.peers.close()
    await this.#ways?.postgres.close()
  }

  #leaving(): GatewayProcess {
    const gateway = this.gateway
    this.#gateway = undefined
    return gateway
  }

  #waysOrFail(): Ways {
    if (this.#ways === undefined) throw new Error("start the cluster with `links: true`")
    return this.#ways
  }
}

export class Cluster {
  readonly redis: TestRedis
  readonly database: TestDatabase
  readonly sql: Sql
  readonly #nodes: Array<ClusterNode> = []
  readonly #options: ClusterOptions
  readonly #between = new Map<string, Link>()
  /** To agents and whatever else is no node. */
  readonly #elsewhere = new Link()
  #port = 0

  constructor(options: ClusterOptions, redis: TestRedis, database: TestDatabase) {
    this.#options = options
    this.redis = redis
    this.database = database
    this.sql = connect(database.options, { max: 2, statementTimeoutMs: 30_000, name: "tollgate-test" })
  }

  get nodes(): ReadonlyArray<ClusterNode> {
    return this.#nodes
  }

  /** One more node, to be started. Not to be called twice at once. */
  async prepare(): Promise<ClusterNode> {
    if (this.#options.samePort === true && this.#port === 0) this.#port = await freePort()
    const index = this.#nodes.length
    const ways = this.#options.links === true ? await this.#waysFor(index) : undefined
    const node = new ClusterNode(index, await this.#envFor(ways), ways)
    this.#nodes.push(node)
    return node
  }

  /** One more node; answers when it listens. */
  async add(): Promise<ClusterNode> {
    const node = await this.prepare()
    await node.start()
    return node
  }

  /** The way between two nodes, in both directions. */
  between(a: ClusterNode, b: ClusterNode): Link {
    return this.#linkBetween(a.index, b.index)
  }

  waysOf(node: ClusterNode): ReadonlyArray<Link> {
    return this.#nodes.filter((other) => other !== node).map((other) => this.between(node, other))
  }

  async ready(): Promise<void> {
    const running = this.#nodes.filter(({ isRunning }) => isRunning)
    await Promise.all(running.map(({ gateway }) => until(async () => (await gateway.call("GET", "/ready").catch(() => undefined))?.status === 200)))
  }

  async end(): Promise<void> {
    await Promise.all(this.#nodes.map((node) => node.end()))
    await Promise.all([this.redis.stop(), this.sql.end({ timeout: 1 })])
    if (this.#options.database === undefined) await this.database.drop()
  }

  #linkBetween(a: number, b: number): Link {
    const name = [a, b].sort().join()
    const link = this.#between.get(name) ?? new Link()
    this.#between.set(name, link)
    return link
  }

  async #envFor(ways: Ways | undefined): Promise<Env> {
    const { env = {} } = this.#options
    const hooks = [env["NODE_OPTIONS"], ...(ways === undefined ? [] : ["--import ./test/support/peerway.mjs"])].filter((words) => words !== undefined)
    return {
      SECRETS_KEY: "k".repeat(32),
      ...this.database.env,
      REDIS_URL: ways === undefined ? this.redis.url : `unix://${ways.redis.path}`,
      CLUSTER_HOST: "127.0.0.1",
      CLUSTER_PORT: String(await freePort()),
      PORT: String(this.#port),
      ...(ways === undefined ? {} : { PGHOST: ways.postgres.options.host, TOLLGATE_TEST_PEERWAY: ways.peers.path }),
      ...env,
      ...(hooks.length === 0 ? {} : { NODE_OPTIONS: hooks.join(" ") })
    }
  }

  async #waysFor(index: number): Promise<Ways> {
    const [redis, postgres, peers] = await Promise.all([startSocketProxy(this.redis.socket, "redis.sock"), startCutProxy(this.database.options), this.#startPeerway(index)])
    return { redis, postgres, peers }
  }

  /** Takes what test/support/peerway.mjs sends here, and leads it on by the link that is meant. */
  async #startPeerway(index: number): Promise<Ways["peers"]> {
    const folder = mkdtempSync(join(tmpdir(), "tollgate-peers-"))
    const path = join(folder, "peers.sock")
    const server = createServer({ allowHalfOpen: true }, (client) => void readPort(client).then(({ port, first }) => {
      const other = this.#nodes.find(({ ports }) => ports.includes(port))
      const link = other === undefined ? this.#elsewhere : this.#linkBetween(index, other.index)
      link.carry(client, () => connectSocket({ host: "127.0.0.1", port, allowHalfOpen: true }), first)
    }, () => client.destroy()))
    await new Promise<void>((done) => server.listen(path, done))
    return {
      path,
      close: () => {
        server.close()
        rmSync(folder, { recursive: true, force: true })
      }
    }
  }
}

/** Answers when all nodes listen. */
export const startCluster = async (options: ClusterOptions = {}): Promise<Cluster> => {
  const [redis, database] = await Promise.all([startTestRedis(), options.database ?? freshDatabase()])
  const cluster = new Cluster(options, redis, database)
  try {
    for (let count = 0; count < (options.nodes ?? 2); count++) await cluster.prepare()
    await Promise.all(cluster.nodes.map((node) => node.start()))
    await cluster.ready()
    return cluster
  } catch (cause) {
    await cluster.end()
    throw cause
  }
}

/** The first line, and what came with it. */
const readPort = (client: Socket): Promise<{ readonly port: number; readonly first: Buffer | undefined }> => new Promise((done, fail) => {
  let head = Buffer.alloc(0)
  const onData = (bytes: Buffer): void => {
    head = Buffer.concat([head, bytes])
    const end = head.indexOf("\n")
    if (end < 0) return
    client.off("data", onData).off("error", fail).off("close", fail).pause()
    done({ port: Number(head.toString("latin1", 0, end)), first: end + 1 < head.length ? head.subarray(end + 1) : undefined })
  }
  client.on("data", onData).on("error", fail).on("close", fail)
})

/** Below those that the system gives away by itself, so that nobody has it by the time it is needed; nor the next, where calls are passed on. */
const freePort = async (): Promise<number> => {
  for (;;) {
    const port = randomInt(20_000, 32_000)
    if (await isFree(port) && await isFree(port + 1)) return port
  }
}

const isFree = (port: number): Promise<boolean> => new Promise((done) => {
  const server = createServer()
  server.once("error", () => done(false)).listen(port, "127.0.0.1", () => server.close(() => done(true)))
})
