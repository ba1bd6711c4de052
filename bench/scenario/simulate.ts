/**
 * Simulate: how the gateway would grow from 1 to 300 nodes, by a simulation of
 * single events that is fed with what `cluster` measured last.
 *
 * First it simulates what was measured, the same nodes, keys and rates, and
 * tells how far it is off: where that is much, the rest is worth little. Then it
 * grows: each node brings its own callers, so that alone it would be busy for
 * `loadShare` of its core; every call arrives at any node. The curves are also
 * written as JSON and as an SVG beside the other results.
 */
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { limits } from "../../src/config.ts"
import { Random } from "../../test/support/Random.ts"
import type { Options } from "../rig/options.ts"
import type { Figure, Report } from "../rig/Report.ts"
import type { Rig } from "../rig/Rig.ts"
import { type Costs, type Measured, readCosts } from "../simulation/Costs.ts"
import { Gateway, type Outcome, type Surroundings } from "../simulation/Gateway.ts"
import { type Beats, type Gap, afterJoin, afterKill } from "../simulation/Outage.ts"
import { plot } from "../simulation/plot.ts"
import { brought, inTurn } from "../simulation/Workload.ts"

const sizes = [1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300]
const seed = 1
const loadShare = 0.3
const paidShare = 0.2
const keysPerNode = 100
const steeredNodes = 4
const accountsInUse = 1_000
/** Long enough for leases to come, to be renewed and to go. */
const [warmS, measuredS] = [2, 1]
const trials = 200

const around: Surroundings = {
  wireS: 0.0003, syncS: 0.0005, databaseCores: 32,
  leaseTrustS: limits.leaseTrustMs / 1_000, leaseIdleS: limits.leaseIdleMs / 1_000, leaseTickS: limits.leaseTickMs / 1_000, leaseCallsMin: limits.leaseCallsMin
}
const beats: Beats = {
  // Locks are refreshed, and looked at, twice in `shardRefreshMs`.
  lockTtlS: limits.shardLockTtlMs / 1_000, refreshS: limits.shardRefreshMs / 2_000, assignS: limits.shardRefreshMs / 2_000, acquireS: 0.1, newsS: 0.01,
  settleS: 0.02, loadS: 0.0005, databaseCores: around.databaseCores
}

interface Point extends Outcome {
  readonly nodes: number
  /** CPU a call, over that of one node. */
  readonly ratio: number
  /** The same when a balancer sends each key's calls to `steeredNodes` nodes only. */
  readonly steeredRatio: number
  /** Of its one core. */
  readonly redisShare: number
  readonly kill: Gap | undefined
  readonly join: Gap
}

export const simulate = async (_: Rig, { results, nodes = Infinity }: Options): Promise<Report> => {
  const { costs, measured, from } = readCosts(results)
  const checks = measured.filter(({ nodes }) => nodes > 1).map((found) => ({ found, off: deviation(found, measured, costs) }))
  const [two, three] = [2, 3].map((size) => afterKill(size, accountsInUse, beats, trials, new Random(seed)))
  const points = grow(costs, sizes.filter((size) => size <= nodes))
  mkdirSync(results, { recursive: true })
  const source = from === undefined ? "defaults: no run of cluster in the results" : `costs of ${from}`
  writeFileSync(join(results, "simulate.json"), `${JSON.stringify({ source, seed, costs, around, beats, loadShare, paidShare, keysPerNode, steeredNodes, accountsInUse, points }, undefined, 1)}\n`)
  writeFileSync(join(results, "simulate.svg"), draw(points, source))
  return {
    figures: [
      ...checks.flatMap(({ found, off }): ReadonlyArray<Figure> => [
        { name: `${found.name}: ${found.nodes} nodes / 1, simulated over measured`, value: off.ratio * 100, unit: "% off" },
        { name: `${found.name}: ${found.nodes} nodes, calls passed on, simulated and measured`, value: off.passedOn * 100, min: off.passedOn * 100, max: found.passedOn * 100, unit: "%" }
      ]),
      ...(costs.takeover === undefined ? [] : [
        { name: "2 and 3 nodes: takeover p50, simulated over measured", value: ((two!.p50S + three!.p50S) / 2 * 1_000 / costs.takeover.p50 - 1) * 100, unit: "% off" }
      ]),
      ...points.filter(({ nodes }) => [2, 3, 10, 30, 100, 300].includes(nodes)).flatMap(figuresOf)
    ],
    parameters: { seed, loadShare, paidShare, keysPerNode, steeredNodes, accountsInUse, warmSeconds: warmS, seconds: measuredS, databaseCores: around.databaseCores, source },
    ...from === undefined ? { missing: ["how far it is off: run cluster first"] } : {}
  }
}

const deviation = ({ nodes, keys, perSecond, of, ratio }: Measured, measured: ReadonlyArray<Measured>, costs: Costs) => {
  const run = (count: number, rate: number): Outcome => {
    const random = new Random(seed)
    const work = inTurn({ nodes: count, keys, perSecond: rate, paidShare: of === "paid" ? 1 : 0 }, random)
    return new Gateway(count, work, costs, around, random).run(warmS, measuredS)
  }
  const one = measured.find((each) => each.nodes === 1 && each.of === of && each.keys === keys)!
  const simulated = run(nodes, perSecond)
  return { ratio: simulated.cpuPerCall / run(1, one.perSecond).cpuPerCall / ratio - 1, passedOn: simulated.passedOnShare }
}

const grow = (costs: Costs, sizes: ReadonlyArray<number>): ReadonlyArray<Point> => {
  const perCall = costs.call.free * (1 - paidShare) + costs.call.paid * paidShare
  const points = new Array<Point>()
  for (const nodes of sizes) {
    const random = new Random(seed)
    const shape = { nodes, keys: keysPerNode * nodes, perSecond: nodes * loadShare * 1e6 / perCall, paidShare }
    const run = (nodesOfKey: number): Outcome => new Gateway(nodes, brought(shape, nodesOfKey, random), costs, around, random).run(warmS, measuredS)
    const outcome = run(nodes)
    const one = points[0]?.cpuPerCall ?? outcome.cpuPerCall
    points.push({
      ...outcome, nodes, ratio: outcome.cpuPerCall / one, steeredRatio: nodes <= steeredNodes ? outcome.cpuPerCall / one : run(steeredNodes).cpuPerCall / one,
      redisShare: (costs.redis.locks + nodes * costs.redis.node + nodes ** 2 * costs.redis.record) / 1e6,
      kill: nodes === 1 ? undefined : afterKill(nodes, accountsInUse, beats, trials, random), join: afterJoin(nodes, accountsInUse, beats, trials, random)
    })
  }
  return points
}

const figuresOf = ({ nodes, ratio, steeredRatio, localShare, leasedShare, passedOnShare, asksPerCall, databaseCores, redisShare, busiestNode, p99FreeMs, p99PaidMs, kill }: Point): ReadonlyArray<Figure> => [
  { name: `${nodes} nodes / 1, CPU a call`, value: ratio, unit: "×" },
  ...(nodes <= steeredNodes ? [] : [{ name: `${nodes} nodes / 1, CPU a call, a key at ${steeredNodes} nodes`, value: steeredRatio, unit: "×" }]),
  { name: `${nodes} nodes: calls of own accounts`, value: localShare * 100, unit: "%" },
  { name: `${nodes} nodes: calls by lease`, value: leasedShare * 100, unit: "%" },
  { name: `${nodes} nodes: calls passed on`, value: passedOnShare * 100, unit: "%" },
  { name: `${nodes} nodes: lease asks per 1,000 calls`, value: asksPerCall * 1_000, unit: "" },
  { name: `${nodes} nodes: busiest node`, value: busiestNode * 100, unit: "% of its core" },
  { name: `${nodes} nodes: PostgreSQL`, value: databaseCores, unit: "cores" },
  { name: `${nodes} nodes: Redis`, value: redisShare * 100, unit: "% of its core" },
  { name: `${nodes} nodes: added to p99, free`, value: p99FreeMs, unit: "ms" },
  { name: `${nodes} nodes: added to p99, paid`, value: p99PaidMs, unit: "ms" },
  ...(kill === undefined ? [] : [{ name: `${nodes} nodes: without service after a kill, slowest of 8 accounts`, value: kill.p50S * 1_000, min: kill.minS * 1_000, max: kill.maxS * 1_000, unit: "ms" }])
]

const draw = (points: ReadonlyArray<Point>, source: string): string => {
  const line = (name: string, read: (point: Point) => number) => ({ name, values: points.map(read) })
  const bound = (name: string, value: number) => ({ name, values: points.map(() => value), isBound: true })
  return plot(`How it grows: 1 to ${points.at(-1)!.nodes} nodes, simulated`, `Every node brings its own callers; calls arrive at any node; ${source}.`, points.map(({ nodes }) => nodes), [
    { title: "CPU a call", unit: "× one node", lines: [line("calls arrive anywhere", ({ ratio }) => ratio), line(`a key at ${steeredNodes} nodes`, ({ steeredRatio }) => steeredRatio), bound("bar for two nodes", 1.3)] },
    {
      title: "Who serves a call", unit: "%", lines: [
        line("owner, where it arrives", ({ localShare }) => localShare * 100), line("by lease", ({ leasedShare }) => leasedShare * 100),
        line("passed on", ({ passedOnShare }) => passedOnShare * 100)
      ]
    },
    { title: "Share of a node's core", unit: "%", lines: [line("busiest node", ({ busiestNode }) => busiestNode * 100), line("all nodes", ({ meanNode }) => meanNode * 100)] },
    {
      title: "Cores in use", unit: "cores", isLog: true, lines: [
        line("PostgreSQL", ({ databaseCores }) => databaseCores), line("Redis", ({ redisShare }) => redisShare), bound("PostgreSQL has", around.databaseCores), bound("Redis has", 1)
      ]
    },
    { title: "Added to p99", unit: "ms", isLog: true, lines: [line("free", ({ p99FreeMs }) => p99FreeMs), line("paid", ({ p99PaidMs }) => p99PaidMs)] },
    {
      title: "Without service", unit: "s", lines: [
        line("a node is killed, p50", ({ kill }) => kill?.p50S ?? NaN), line("slowest", ({ kill }) => kill?.maxS ?? NaN), line("a node joins, p50", ({ join }) => join.p50S), bound("bar", 10)
      ]
    }
  ])
}
