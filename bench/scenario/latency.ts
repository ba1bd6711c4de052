/**
 * Latency: what the gateway adds to a call at half of its capacity, free and
 * paid, in an open loop (how: bench/programs/openLoop.ts).
 *
 * The capacity is that of this very set-up, measured first with a closed loop.
 * Then direct calls to the agent and calls through the gateway take turns at
 * half that rate; a figure is the difference of the two percentiles of a round.
 * Client and agent have one core, the gateway has the other. Its PostgreSQL is
 * with the client for free calls, which never wait for it, as in `relay`; for
 * paid calls, which do, it shares the gateway's core.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Task, Timed } from "../programs/openLoop.ts"
import { body } from "../rig/agent.ts"
import { addCallers } from "../rig/callers.ts"
import { type Cores, confine, findCores } from "../rig/cores.ts"
import { startGateway } from "../rig/gateway.ts"
import type { Options } from "../rig/options.ts"
import { type Figure, type Report, spread } from "../rig/Report.ts"
import { Rig } from "../rig/Rig.ts"
import { wrkByKeys } from "../rig/wrk.ts"

const accounts = 1_000
/** More than are ever in use: a call should wait in the gateway, where it is seen, not in the client. */
const openLoopConnections = 256
const warmUpSeconds = 6
const barsMs = { free: 1, paid: 10 } as const

export const latency = async (rig: Rig, options: Options): Promise<Report> => {
  const cores = findCores()
  if (typeof cores === "string") return { figures: [], parameters: {}, missing: [cores] }
  confine(process.pid, cores.load)
  rig.onEnd(() => confine(process.pid, cores.all))
  const figures = new Array<Figure>()
  for (const billing of ["free", "paid"] as const) {
    const own = new Rig()
    rig.onEnd(() => own.end())
    figures.push(...await measure(own, options, cores, billing))
    await own.end()
  }
  const { rounds, seconds, connections } = options
  return { figures, parameters: { accounts, rounds, seconds, connections, openLoopConnections, bodyBytes: body.length } }
}

const measure = async (rig: Rig, options: Options, cores: Cores, billing: "free" | "paid"): Promise<ReadonlyArray<Figure>> => {
  const { rounds, seconds, connections } = options
  const client = await rig.program("programs/openLoop")
  const gateway = await startGateway(rig, { billing, agentPort: client.port })
  for (const pid of billing === "free" ? [gateway.pid] : gateway.pids()) confine(pid, cores.measured)
  const keysFile = join(rig.folder(), "keys")
  writeFileSync(keysFile, (await addCallers(gateway.sql, accounts)).join("\n"))

  const load = await wrkByKeys({ url: gateway.callUrl, keysFile, body, connections, warmUpSeconds, seconds }).ended
  const capacity = load.counted["measured"]! / seconds
  const run = async (port: number, path: string): Promise<Timed> => {
    const task: Task = { port, path, keys: keysFile, body, perSecond: Math.floor(capacity / 2), seconds, connections: openLoopConnections }
    const timed = await client.ask(task) as Timed
    if (timed.errors > 0) throw new Error(`${timed.errors} of ${timed.sent} calls failed at ${task.perSecond}/s: ${JSON.stringify(timed.statuses)}`)
    return timed
  }
  const direct = new Array<Timed>()
  const through = new Array<Timed>()
  for (let round = 0; round < rounds; round++) {
    direct.push(await run(client.port, "/run"))
    through.push(await run(gateway.process.port, new URL(gateway.callUrl).pathname))
  }
  const added = (read: (timed: Timed) => number): ReadonlyArray<number> => through.map((timed, round) => read(timed) - read(direct[round]!))
  return [
    { name: `${billing}: capacity of this set-up`, value: capacity, unit: "/s" },
    spread(`${billing}: direct p50`, "ms", direct.map(({ p50Ms }) => p50Ms)),
    spread(`${billing}: direct p99`, "ms", direct.map(({ p99Ms }) => p99Ms)),
    spread(`${billing}: added at half of it, p50`, "ms", added(({ p50Ms }) => p50Ms)),
    spread(`${billing}: added at half of it, p99`, "ms", added(({ p99Ms }) => p99Ms), { atMost: barsMs[billing] })
  ]
}
