/**
 * What it costs when a node comes or goes as planned, under load on those that
 * stay: calls that fail, what is added to p99 and to the slowest call, and the
 * CPU that the others spend beside the calls.
 *
 * An open loop of paid calls on two nodes of three, some keys busy and leased,
 * most quiet, so that their calls are passed on. In turns: nothing happens; the
 * third node leaves half a second after the load began; a third node joins.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Random } from "../../../test/support/Random.ts"
import type { Task, Timed } from "../../programs/openLoop.ts"
import { body } from "../../rig/agent.ts"
import { chargedIn } from "../../rig/books.ts"
import { addCallers } from "../../rig/callers.ts"
import { cpuMicros } from "../../rig/cores.ts"
import type { Options } from "../../rig/options.ts"
import { type Figure, spread } from "../../rig/Report.ts"
import type { Rig } from "../../rig/Rig.ts"
import { type Setup, shuffle } from "./Setup.ts"

/** Of each of the two nodes that stay. */
const perSecond = 300
const busyKeys = 20
const quietKeys = 200
/** Calls of a busy key for one of a quiet key. */
const busyTimes = 10
/** Longer than a move takes. */
const secondsMin = 4
const leadMs = 500

interface Phase {
  readonly sent: number
  readonly errors: number
  readonly statuses: Readonly<Record<string, number>>
  readonly p99Ms: number
  readonly maxMs: number
  /** Of the two that stay, µs. */
  readonly cpu: number
}

export const handoff = async (rig: Rig, { cluster }: Setup, { rounds, seconds }: Options): Promise<ReadonlyArray<Figure>> => {
  const stay = cluster.nodes.slice(0, 2)
  const clients = await Promise.all(stay.map(() => rig.program("programs/openLoop")))
  const keys = await addCallers(cluster.sql, busyKeys + quietKeys)
  const keysFile = join(rig.folder(), "keys")
  writeFileSync(keysFile, shuffle(keys.flatMap((key, at) => Array.from({ length: at < busyKeys ? busyTimes : 1 }, () => key)), new Random(1)).join("\n"))
  const length = Math.max(secondsMin, seconds)
  const cpu = (): number => stay.reduce((sum, { pid }) => sum + cpuMicros(pid), 0)
  const phase = async (happens: () => Promise<unknown>): Promise<Phase> => {
    const before = cpu()
    const timed = Promise.all(stay.map(({ process }, at) => {
      const task: Task = { port: process.port, path: cluster.paths.paid, keys: keysFile, body, perSecond, seconds: length, connections: 64 }
      return clients[at]!.ask(task) as Promise<Timed>
    }))
    await Promise.all([timed, sleep(leadMs).then(happens)])
    const all = await timed
    const sum = (read: (timed: Timed) => number): number => all.reduce((total, each) => total + read(each), 0)
    const statuses: Record<string, number> = {}
    for (const each of all) for (const [status, count] of Object.entries(each.statuses)) statuses[status] = (statuses[status] ?? 0) + count
    return {
      sent: sum(({ sent }) => sent), errors: sum(({ errors }) => errors), statuses, cpu: cpu() - before,
      p99Ms: Math.max(...all.map(({ p99Ms }) => p99Ms)), maxMs: Math.max(...all.map(({ maxMs }) => maxMs))
    }
  }

  const charged = (await chargedIn(cluster.sql)).calls
  await phase(async () => {})
  const turns = new Array<{ readonly quiet: Phase; readonly leave: Phase; readonly join: Phase }>()
  for (let round = 0; round < Math.ceil(rounds / 3); round++) {
    turns.push({ quiet: await phase(async () => {}), leave: await phase(() => cluster.leave(cluster.nodes.at(-1)!)), join: await phase(() => cluster.join()) })
  }
  const phases = turns.flatMap(({ quiet, leave, join }) => [quiet, leave, join])
  const [sent, errors] = [phases.reduce((sum, each) => sum + each.sent, 0), phases.reduce((sum, each) => sum + each.errors, 0)]
  const charges = (await chargedIn(cluster.sql)).calls - charged
  if (charges < sent - errors) throw new Error(`${sent - errors} paid calls were answered, but only ${charges} charged`)
  return (["leave", "join"] as const).flatMap((what): ReadonlyArray<Figure> => [
    spread(`handoff: a node that ${what}s, failed calls`, "%", turns.map((turn) => turn[what].errors / turn[what].sent * 100), { atMost: 0.1 }),
    spread(`handoff: a node that ${what}s, added to p99`, "ms", turns.map((turn) => turn[what].p99Ms - turn.quiet.p99Ms)),
    spread(`handoff: a node that ${what}s, slowest call`, "ms", turns.map((turn) => turn[what].maxMs)),
    spread(`handoff: a node that ${what}s, CPU of the others`, "ms", turns.map((turn) => (turn[what].cpu - turn.quiet.cpu) / 1_000))
  ])
}
