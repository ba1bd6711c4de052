/**
 * The cluster layer of a node, several of them in one process, each with its own
 * way to Redis that a test can cut or freeze.
 */
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { Bus, type News } from "../../src/cluster/Bus.ts"
import { type AccountHandlers, Cluster } from "../../src/cluster/Cluster.ts"
import { clusterLayer } from "../../src/cluster/ClusterNode.ts"
import type { LeaseAsk, LeaseGrant } from "../../src/cluster/AccountRpc.ts"
import { type Link, startSocketProxy } from "./Link.ts"
import type { TestRedis } from "./redis.ts"

/** In three shards of four. */
export const accounts: ReadonlyArray<string> = Array.from({ length: 400 }, (_, n) => `account-${n * 7_919}`)

export const leaseAsk: LeaseAsk = {
  nodeId: "asker", subjectId: "subject", seq: 1, leaseId: null, calls: 1, credits: 2n ** 62n, creditsNeeded: 0n, creditsMin: 0n, callsNeeded: 0, row: false,
  unusedCalls: [], unusedCredits: 0n, spent: 0n, gives: false, isOver: false
}
/** `leaseId` says who granted it. */
export const granted = (by: string): LeaseGrant => ({
  suspended: false, emailVerified: true, elsewhere: 2n ** 70n, subject: null, leaseId: by, credits: 2n ** 62n + 1n, calls: 1, second: 1, refusal: null
})

export interface RingNode {
  readonly id: string
  readonly cluster: Cluster["Service"]
  readonly bus: Bus["Service"]
  /** To Redis. */
  readonly link: Link
  readonly news: Array<News>
  readonly owns: () => ReadonlyArray<string>
  readonly hasJoined: () => boolean
  readonly join: () => Promise<void>
  readonly leave: () => Promise<void>
  /** Without leaving. */
  readonly end: () => Promise<void>
}

export const startNode = async (redis: TestRedis, id: string, { port = 0, handlers = {} as Partial<AccountHandlers> } = {}): Promise<RingNode> => {
  const way = await startSocketProxy(redis.socket, "redis.sock")
  const scope = Effect.runSync(Scope.make())
  const services = await Effect.runPromise(Layer.buildWithScope(clusterLayer({ redisUrl: `unix://${way.path}`, clusterHost: "127.0.0.1", clusterPort: port }, id), scope))
  const cluster = Context.get(services, Cluster)
  const bus = Context.get(services, Bus)
  const news: Array<News> = []
  let hasJoined = false
  bus.onNews((each) => news.push(each))
  cluster.serve({ lease: () => Effect.succeed(granted(id)), borrow: () => Effect.succeed(0n), giveBack: () => Effect.void, ...handlers })
  return {
    id, cluster, bus, link: way.link, news,
    owns: () => accounts.filter((account) => cluster.ownerOf(account) === "here"),
    hasJoined: () => hasJoined,
    join: () => {
      hasJoined = true
      return Effect.runPromise(cluster.join(4_000))
    },
    leave: () => {
      hasJoined = false
      return Effect.runPromise(cluster.leave)
    },
    end: async () => {
      await Effect.runPromise(Scope.close(scope, Exit.void))
      way.close()
    }
  }
}

/** Looks at every turn of the event loop's timers; the test's own time limit ends it. */
export const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => { setTimeout(resolve, 10) })
}

/** Every account has an owner, all nodes say the same one, and those who joined have their parts. */
export const areSettled = (nodes: ReadonlyArray<RingNode>): boolean => {
  const parts = new Map<string, number>()
  for (const account of accounts) {
    const owners = nodes.map(({ id, cluster }) => {
      const owner = cluster.ownerOf(account)
      return owner === "here" ? id : owner === "moving" ? undefined : owner.nodeId
    })
    const [owner] = owners
    if (owner === undefined || owners.some((other) => other !== owner)) return false
    parts.set(owner, (parts.get(owner) ?? 0) + 1)
  }
  return nodes.every(({ id, cluster, hasJoined }) => (parts.get(id) ?? 0) >= (hasJoined() ? accounts.length / (2 * cluster.peers().length + 2) : 0))
}

/** Looks after every move and every 10 ms; answers what it has seen when stopped. In one process, looking at all nodes is one moment. */
export const watchOwners = (nodes: ReadonlyArray<RingNode>) => {
  const doubled = new Set<string>()
  const look = (): void => {
    for (const account of accounts) if (nodes.filter(({ cluster }) => cluster.ownerOf(account) === "here").length > 1) doubled.add(account)
  }
  for (const { cluster } of nodes) cluster.onMoved(look)
  const timer = setInterval(look, 10)
  return () => {
    clearInterval(timer)
    return [...doubled]
  }
}

/** Looks every 10 ms; answers which accounts were for a moment not owned by the node that owned them at the start. */
export const watchLosses = (nodes: ReadonlyArray<RingNode>) => {
  const owned = nodes.map((node) => node.owns())
  const lost = new Set<string>()
  const timer = setInterval(() => nodes.forEach(({ cluster }, n) => {
    for (const account of owned[n]!) if (cluster.ownerOf(account) !== "here") lost.add(account)
  }), 10)
  return () => {
    clearInterval(timer)
    return [...lost]
  }
}
