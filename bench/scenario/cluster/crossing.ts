/**
 * What it costs that a call arrives at a node which does not own its account,
 * on each side: the call is passed on (a hop), or a lease is asked for.
 *
 * Two nodes, A and B, and keys whose accounts B owns. At one and the same rate:
 * the calls at B, which owns them; at A with so many keys that none is worth a
 * lease, so that each is passed on; at A with few keys, so that all are leased.
 * What a node uses when nothing happens is taken off, and is a figure too.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import type { Task, Timed } from "../../programs/openLoop.ts"
import { body } from "../../rig/agent.ts"
import { addCallers } from "../../rig/callers.ts"
import type { BenchNode } from "../../rig/cluster.ts"
import { cpuMicros } from "../../rig/cores.ts"
import type { Options } from "../../rig/options.ts"
import { type Figure, median, spread } from "../../rig/Report.ts"
import type { Rig } from "../../rig/Rig.ts"
import { names } from "./names.ts"
import { keysOf } from "./owners.ts"
import { type Setup, metricNames } from "./Setup.ts"

const perSecond = 600
/** Fewer than two calls a second each. */
const quietKeys = 350
/** Six calls a second each. */
const busyKeys = 100
const callersAdded = 1_200

interface Used {
  readonly calls: number
  readonly from: number
  readonly to: number
  readonly asks: number
  readonly passedOn: number
}

export const crossing = async (rig: Rig, { cluster }: Setup, { rounds, seconds, connections }: Options): Promise<ReadonlyArray<Figure>> => {
  const [from, to] = cluster.nodes as [BenchNode, BenchNode]
  const client = await rig.program("programs/openLoop")
  const keys = await keysOf(cluster, from, "elsewhere", await addCallers(cluster.sql, callersAdded), quietKeys)
  if (keys.length < quietKeys) throw new Error(`of ${callersAdded} accounts only ${keys.length} belong to the other node`)
  const folder = rig.folder()
  const fileOf = (name: string, some: ReadonlyArray<string>): string => {
    writeFileSync(join(folder, name), some.join("\n"))
    return join(folder, name)
  }
  const [quiet, busy] = [fileOf("quiet", keys), fileOf("busy", keys.slice(0, busyKeys))]
  const use = async (act: () => Promise<number>): Promise<Used> => {
    const read = async () => {
      const metrics = await from.metrics()
      return { from: cpuMicros(from.pid), to: cpuMicros(to.pid), asks: metrics(metricNames.asks), passedOn: metrics(metricNames.passedOn) }
    }
    const before = await read()
    const calls = await act()
    const after = await read()
    return { calls, from: after.from - before.from, to: after.to - before.to, asks: after.asks - before.asks, passedOn: after.passedOn - before.passedOn }
  }
  const rest = (): Promise<Used> => use(() => sleep(seconds * 1_000, 0))
  const load = (node: BenchNode, file: string): Promise<Used> => use(async () => {
    const task: Task = { port: node.process.port, path: cluster.paths.free, keys: file, body, perSecond, seconds, connections }
    const timed = await client.ask(task) as Timed
    if (timed.errors > 0) throw new Error(`${timed.errors} of ${timed.sent} calls failed: ${JSON.stringify(timed.statuses)}`)
    return timed.sent
  })

  await load(from, quiet)
  const turns = new Array<{ readonly idle: Used; readonly local: Used; readonly hop: Used; readonly leased: Used }>()
  for (let round = 0; round < Math.ceil(rounds / 2); round++) {
    turns.push({ idle: await rest(), local: await load(to, quiet), hop: await load(from, quiet), leased: await load(from, busy) })
  }
  const idle = median(turns.flatMap(({ idle }) => [idle.from, idle.to]))
  if (turns.some(({ hop }) => hop.passedOn < hop.calls / 2)) throw new Error("calls of quiet keys were not passed on: nothing is known of a hop")
  const costs = turns.map(({ local, hop, leased }) => {
    const call = (local.to - idle) / local.calls
    const kept = hop.calls - hop.passedOn
    const [hopFrom, hopTo] = [(hop.from - idle - kept * call) / hop.passedOn, (hop.to - idle) / hop.passedOn]
    // Until there is a lease calls are passed on.
    const served = leased.calls - leased.passedOn
    return {
      call, hopFrom, hopTo,
      askFrom: (leased.from - idle - served * call - leased.passedOn * hopFrom) / leased.asks,
      askTo: (leased.to - idle - leased.passedOn * hopTo) / leased.asks,
      asksPerKey: leased.asks / seconds / busyKeys
    }
  })
  const each = (name: string, unit: string, read: (cost: (typeof costs)[number]) => number): Figure => spread(name, unit, costs.map(read))
  return [
    each(names.hop.local, "µs", ({ call }) => call),
    each(names.hop.from, "µs", ({ hopFrom }) => hopFrom),
    each(names.hop.to, "µs", ({ hopTo }) => hopTo),
    each(names.ask.from, "µs", ({ askFrom }) => askFrom),
    each(names.ask.to, "µs", ({ askTo }) => askTo),
    each(names.ask.perKey, "/s", ({ asksPerKey }) => asksPerKey),
    spread(names.idle.cpu, "ms", turns.map(({ idle }) => (idle.from + idle.to) / 2 / seconds / 1_000))
  ]
}

/** What nodes tell Redis when nothing happens, in all set-ups that have one at once. */
export const idleRedis = async (setups: ReadonlyArray<Setup>, seconds: number): Promise<ReadonlyArray<Figure>> => {
  const read = () => Promise.all(setups.map(({ cluster }) => cluster.redisUsed()))
  const before = await read()
  await sleep(seconds * 1_000)
  const after = await read()
  return setups.flatMap(({ name, cluster }, at): ReadonlyArray<Figure> => [
    { name: names.idle.redis(name), value: (after[at]!.commands - before[at]!.commands) / seconds / cluster.nodes.length, unit: "/s" },
    { name: names.idle.redisCpu(name), value: (after[at]!.micros - before[at]!.micros) / seconds / 1_000, unit: "ms" }
  ])
}
