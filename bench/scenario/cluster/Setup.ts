/**
 * One way to run the gateway, alone or as so many nodes, and the load on it:
 * keys spread at random, every node of it called with every key. One wrk a node,
 * each with all keys in an order of its own, has so many connections.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import type { Random } from "../../../test/support/Random.ts"
import { body } from "../../rig/agent.ts"
import { BenchCluster, type ClusterCpu, type ClusterOptions } from "../../rig/cluster.ts"
import type { Rig } from "../../rig/Rig.ts"
import { wrkByKeys } from "../../rig/wrk.ts"

export type CallClass = "free" | "paid"

export interface SetupName {
  readonly name: string
  readonly nodes: number
  readonly isMany: boolean
}

/** What one call cost on average, µs, and what came of every hundred. */
export interface Turn extends ClusterCpu {
  readonly calls: number
  readonly perSecond: number
  readonly passedOnShare: number
  readonly asksShare: number
  readonly callsPerBatch: number
}

export const metricNames = {
  asks: "tollgate_lease_asks_total", passedOn: "tollgate_calls_passed_on_total", commits: "tollgate_batch_commits_sum", batches: "tollgate_batch_commits_count"
} as const

/** Before what is measured: connections are made, leases are had. */
const leadInSeconds = 1

export class Setup {
  readonly name: string
  readonly cluster: BenchCluster
  /** Paid calls that were answered. */
  charged = 0
  readonly #folder: string
  readonly #random: Random

  static async open(rig: Rig, { name, ...of }: SetupName, options: Omit<ClusterOptions, "nodes" | "isMany">, random: Random): Promise<Setup> {
    return new Setup(name, await BenchCluster.start(rig, { ...options, ...of }), rig.folder(), random)
  }

  private constructor(name: string, cluster: BenchCluster, folder: string, random: Random) {
    this.name = name
    this.cluster = cluster
    this.#folder = folder
    this.#random = random
  }

  /** Of `seconds` the first is not measured. */
  async turn(of: CallClass, keys: ReadonlyArray<string>, connections: number, seconds: number): Promise<Turn> {
    const { nodes, paths } = this.cluster
    const measuredSeconds = Math.max(1, seconds - leadInSeconds)
    // What is paid for must have its answer, to be compared with the charges.
    const restSeconds = of === "paid" ? 1 : 0
    const loads = nodes.map(({ process }, at) => wrkByKeys({
      url: `${process.url}${paths[of]}`, keysFile: this.#shuffled(keys, at), body, connections,
      warmUpSeconds: leadInSeconds, seconds: measuredSeconds, restSeconds
    }))
    const beginMs = Math.max(...loads.map(({ beginMs }) => beginMs))
    await sleep(beginMs - Date.now())
    const before = await this.#point()
    await sleep(beginMs + measuredSeconds * 1_000 - Date.now())
    const after = await this.#point()
    const ended = await Promise.all(loads.map((load) => load.ended))
    const counted = (name: string): number => ended.reduce((sum, load) => sum + load.counted[name]!, 0)
    if (of === "paid") this.charged += counted("warm") + counted("measured")
    return between(before, after, counted("measured"), measuredSeconds)
  }

  async #point(): Promise<Point> {
    const cpu = this.cluster.cpu()
    const read = await this.cluster.metrics()
    const { asks, passedOn, commits, batches } = metricNames
    return { cpu, asks: read(asks), passedOn: read(passedOn), commits: read(commits), batches: read(batches) }
  }

  #shuffled(keys: ReadonlyArray<string>, at: number): string {
    const file = join(this.#folder, `keys-${at}`)
    writeFileSync(file, shuffle(keys, this.#random).join("\n"))
    return file
  }
}

interface Point {
  readonly cpu: ClusterCpu
  readonly commits: number
  readonly batches: number
  readonly asks: number
  readonly passedOn: number
}

/** Of set-ups that were loaded at the same time, as if they were one. */
export const together = (turns: ReadonlyArray<Turn>): Turn => {
  const calls = turns.reduce((sum, turn) => sum + turn.calls, 0)
  const mean = (of: (turn: Turn) => number): number => turns.reduce((sum, turn) => sum + of(turn) * turn.calls, 0) / calls
  return {
    calls, perSecond: turns.reduce((sum, turn) => sum + turn.perSecond, 0), nodes: mean(({ nodes }) => nodes), postgres: mean(({ postgres }) => postgres), redis: mean(({ redis }) => redis),
    passedOnShare: mean(({ passedOnShare }) => passedOnShare), asksShare: mean(({ asksShare }) => asksShare), callsPerBatch: mean(({ callsPerBatch }) => callsPerBatch)
  }
}

const between = (from: Point, to: Point, calls: number, seconds: number): Turn => ({
  calls,
  perSecond: calls / seconds,
  nodes: (to.cpu.nodes - from.cpu.nodes) / calls,
  postgres: (to.cpu.postgres - from.cpu.postgres) / calls,
  redis: (to.cpu.redis - from.cpu.redis) / calls,
  passedOnShare: (to.passedOn - from.passedOn) / calls,
  asksShare: (to.asks - from.asks) / calls,
  callsPerBatch: (to.commits - from.commits) / Math.max(1, to.batches - from.batches)
})

export const shuffle = <A>(things: ReadonlyArray<A>, random: Random): Array<A> => {
  const all = [...things]
  for (let at = all.length - 1; at > 0; at--) {
    const other = random.below(at + 1)
    ;[all[at], all[other]] = [all[other]!, all[at]!]
  }
  return all
}
