/**
 * A schedule: what goes wrong, when, to whom and for how long, drawn from a
 * seed; and its run, with a crowd of callers over the nodes meanwhile. After it
 * everything must be well again by itself, and the checker and the auditor must
 * find nothing. The same seed draws the same schedule and the same callers.
 *
 *   a node comes or goes ─┐
 *   callers ──────────────┼──▶ all is healed ──▶ quiet ──▶ checker, auditor
 *   one to three faults ──┘
 *
 * Schedules of odd seeds end with three nodes, others with two, so that in a row
 * of seeds one node joins or leaves under load each time.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { startCluster } from "../../support/ClusterProcesses.ts"
import { testPostgres } from "../../support/postgres.ts"
import { Random } from "../../support/Random.ts"
import type { Stage } from "../../support/Stage.ts"
import { Crowd } from "./Crowd.ts"
import { type Fault, type Site, faults, started } from "./faults.ts"
import { type Verdict, judge, keepEvidence } from "./verdict.ts"
import { Works } from "./Works.ts"

interface Step {
  readonly name: string
  readonly atMs: number
  readonly ms: number
  /** Of the nodes that are there. */
  readonly node: number
}

export interface Plan {
  readonly seed: number
  readonly nodes: 2 | 3
  readonly steps: ReadonlyArray<Step>
}

const lengthMs = 3_000

const names = Object.keys(faults)

export const planOf = (seed: number): Plan => {
  const random = new Random(seed)
  const nodes = seed % 2 === 0 ? 2 : 3
  const steps = Array.from({ length: 1 + random.below(3) }, (): Step => {
    const name = random.of(names)
    const [shortest, longest] = faults[name]!.ms
    return { name, atMs: random.below(lengthMs / 2), ms: shortest + random.below(longest - shortest + 1), node: random.below(nodes) }
  })
  return { seed, nodes, steps: steps.sort((one, other) => one.atMs - other.atMs) }
}

export const tell = ({ seed, nodes, steps }: Plan): string =>
  `seed ${seed}: ${nodes === 3 ? "a third node comes" : "the third node goes"}; ${steps.map(({ name, atMs, ms, node }) => `${atMs} ms: node ${node} ${name}${ms === 0 ? "" : ` for ${ms} ms`}`).join("; ")}`

/** A cluster on servers of its own. Of three nodes the last is started by the first schedule that wants it. */
export const openSite = async (stage: Stage, firstSeed: number): Promise<Site> => {
  const postgres = await testPostgres()
  stage.onEnd(() => postgres.stop())
  const database = await postgres.freshDatabase()
  const admin = stage.connect({ ...database.options, user: "postgres" })
  // The test's servers forget their last moments when they are killed, unless told not to.
  await admin.unsafe(`alter database ${database.options.database} set synchronous_commit = on`)
  const cluster = await startCluster({ nodes: planOf(firstSeed).nodes === 3 ? 2 : 3, links: true, database })
  stage.onEnd(() => cluster.end())
  if (cluster.nodes.length === 2) await cluster.prepare()
  return { cluster, postgres, admin }
}

/** One lane: its faults one after another. */
const lane = async (site: Site, plan: Plan, of: Fault["of"]): Promise<void> => {
  const begin = performance.now()
  for (const { name, atMs, ms, node } of plan.steps) {
    const fault = faults[name]!
    if (fault.of !== of) continue
    await sleep(Math.max(0, begin + atMs - performance.now()))
    await fault.act(site, site.cluster.nodes[node]!, ms)
  }
}

const comeOrGo = async ({ cluster }: Site, { nodes }: Plan): Promise<void> => {
  const third = cluster.nodes[2]!
  if (nodes === 3) await started(third)
  if (nodes === 2 && third.isRunning) await third.stop()
}

export const runSchedule = async (stage: Stage, site: Site, plan: Plan): Promise<Verdict> => {
  const { cluster } = site
  const random = new Random(plan.seed).fork()
  const works = await new Works(random.fork()).listen()
  stage.onEnd(() => works.close())
  const crowd = new Crowd({ count: () => plan.nodes, at: (nth) => cluster.nodes[nth]!.isRunning ? cluster.nodes[nth]!.gateway : undefined }, works, random.fork())
  const { done } = await crowd.gather()
  try {
    await Promise.all([sleep(lengthMs), comeOrGo(site, plan).then(() => lane(site, plan, "node")), lane(site, plan, "world")])
  } finally {
    crowd.stop()
    await done
    crowd.hangUp()
  }
  const verdict = await judge(cluster, crowd, works.served)
  works.close()
  if (verdict.findings.length > 0) await keepEvidence(cluster, `seed ${plan.seed}`, verdict, crowd, works.served)
  return verdict
}
