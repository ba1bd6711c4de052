/**
 * What can go wrong around a cluster, each as one act that does it, lets time
 * pass, and puts it right again. A message can't be doubled by a network under
 * TCP; what doubles messages is an answer that gets lost, after which the asker
 * asks again: `cutAfterSend`.
 */
import { setTimeout as sleep } from "node:timers/promises"
import type { Sql } from "../../../src/store/Postgres.ts"
import type { Cluster, ClusterNode } from "../../support/ClusterProcesses.ts"
import type { Link } from "../../support/Link.ts"
import type { TestPostgres } from "../../support/postgres.ts"

export interface Site {
  readonly cluster: Cluster
  readonly postgres: TestPostgres
  /** The server's own superuser, in the gateways' database. */
  readonly admin: Sql
}

export interface Fault {
  /** What it is done to: faults of one thing come one after another. */
  readonly of: "node" | "world"
  /** How long it may last. */
  readonly ms: readonly [shortest: number, longest: number]
  readonly act: (site: Site, node: ClusterNode, ms: number) => Promise<unknown>
}

const gateways = "application_name in ('tollgate', 'tollgate-committer')"

/** As whoever looks after a node does: one that can't start, because its database is away too, is started again. */
export const started = async (node: ClusterNode): Promise<void> => {
  while (!node.isRunning) await node.start().catch(() => sleep(200))
}

/** Strikes, and heals whatever became of the wait. */
const during = async (ms: number, strike: () => unknown, heal: () => unknown): Promise<void> => {
  await strike()
  try {
    await sleep(ms)
  } finally {
    await heal()
  }
}

const onWays = (act: (link: Link) => void, heal: (link: Link) => void): Fault["act"] => ({ cluster }, node, ms) =>
  during(ms, () => cluster.waysOf(node).forEach(act), () => cluster.waysOf(node).forEach(heal))

/** Locks live for 3 s, and a node trusts them for less. */
const pastLocks = [3_600, 4_200] as const
const moment = [100, 1_500] as const

export const faults: Readonly<Record<string, Fault>> = {
  "kill -9": { of: "node", ms: [0, 1_000], act: (_, node, ms) => during(ms, () => node.kill9(), () => started(node)) },
  "frozen past its locks": { of: "node", ms: pastLocks, act: (_, node, ms) => during(ms, () => node.freeze(), () => node.thaw()) },
  "frozen for a moment": { of: "node", ms: moment, act: (_, node, ms) => during(ms, () => node.freeze(), () => node.thaw()) },
  "stopped and started": { of: "node", ms: [0, 500], act: (_, node, ms) => during(ms, () => node.stop(), () => started(node)) },

  "redis frozen": { of: "world", ms: [100, 1_000], act: ({ cluster }, _, ms) => during(ms, () => cluster.redis.freeze(), () => cluster.redis.thaw()) },
  "redis frozen past all locks": { of: "world", ms: pastLocks, act: ({ cluster }, _, ms) => during(ms, () => cluster.redis.freeze(), () => cluster.redis.thaw()) },
  "redis dies and comes back empty": { of: "world", ms: [0, 2_000], act: ({ cluster }, _, ms) => during(ms, () => cluster.redis.halt(), () => cluster.redis.start()) },
  "redis wiped": { of: "world", ms: [0, 0], act: ({ cluster }) => cluster.redis.command("flushall") },
  "redis drops its listeners": { of: "world", ms: [0, 0], act: ({ cluster }) => cluster.redis.command("client", "kill", "type", "pubsub") },

  "cut off from redis": { of: "world", ms: [200, 4_200], act: (_, node, ms) => during(ms, () => node.toRedis.sever(), () => node.toRedis.restore()) },
  "redis far away": { of: "world", ms: moment, act: (_, node, ms) => during(ms, () => node.toRedis.delay(150), () => node.toRedis.delay(0)) },
  "an answer of redis lost": { of: "world", ms: moment, act: (_, node, ms) => Promise.race([node.toRedis.cutAfterSend(), sleep(ms)]) },

  "cut off from its peers": { of: "world", ms: [200, 4_200], act: onWays((link) => link.sever(), (link) => link.restore()) },
  "unheard by its peers": { of: "world", ms: [200, 4_200], act: onWays((link) => link.freeze(), (link) => link.thaw()) },
  "far from its peers": { of: "world", ms: moment, act: onWays((link) => link.delay(120), (link) => link.delay(0)) },
  "answers of peers lost": {
    of: "world", ms: moment,
    act: async ({ cluster }, node, ms) => {
      const end = performance.now() + ms
      while (performance.now() < end) await Promise.race([...cluster.waysOf(node).map((link) => link.cutAfterSend()), sleep(end - performance.now())])
    }
  },

  "cut off from postgres": { of: "world", ms: [200, 2_500], act: (_, node, ms) => during(ms, () => node.toPostgres.sever(), () => node.toPostgres.restore()) },
  "cut between a commit and its answer": { of: "world", ms: moment, act: (_, node, ms) => Promise.race([node.toPostgres.arm("beforeAnswer", "insert into"), sleep(ms)]) },
  "postgres dies": { of: "world", ms: [0, 0], act: ({ postgres }) => postgres.kill9() },
  "postgres ends all connections": { of: "world", ms: [0, 0], act: ({ admin }) => admin.unsafe(`select pg_terminate_backend(pid) from pg_stat_activity where ${gateways}`) },
  "postgres read-only": {
    of: "world", ms: [500, 2_000],
    act: ({ admin }, _, ms) => {
      const become = (readOnly: "on" | "off") => async (): Promise<void> => {
        await admin.unsafe(`alter system set default_transaction_read_only = ${readOnly}`)
        await admin`select pg_reload_conf()`
      }
      return during(ms, become("on"), become("off"))
    }
  }
}
