/**
 * Cluster: what many nodes cost that act as one gateway. CPU a call, summed over
 * 1, 2 and 3 nodes, against one gateway that knows of no others; a call that is
 * passed on and a lease, on either side; the time until accounts of a killed
 * node are served again; what a node that comes or goes costs the others.
 *
 * All set-ups run at the same time, each with a PostgreSQL and a Redis of its
 * own, and are measured by turns; what one that is not loaded uses is a figure
 * too. After the load the books are compared with the answers.
 */
import { Random } from "../../test/support/Random.ts"
import { body } from "../rig/agent.ts"
import { confine, findCores } from "../rig/cores.ts"
import type { Options } from "../rig/options.ts"
import type { Figure, Report } from "../rig/Report.ts"
import type { Rig } from "../rig/Rig.ts"
import { crossing, idleRedis } from "./cluster/crossing.ts"
import { handoff } from "./cluster/handoff.ts"
import { names } from "./cluster/names.ts"
import { busyKeys, manyKeys, perCall } from "./cluster/perCall.ts"
import { Setup, type SetupName } from "./cluster/Setup.ts"
import { takeover } from "./cluster/takeover.ts"

const nodesMost = 3
const priceMicros = 10_000n
const killsPerRound = 4

export const cluster = async (rig: Rig, options: Options): Promise<Report> => {
  const cores = findCores()
  if (typeof cores === "string") return { figures: [], parameters: {}, missing: [cores] }
  confine(process.pid, cores.load)
  rig.onEnd(() => confine(process.pid, cores.all))
  const { rounds, seconds, connections, nodes = nodesMost } = options
  const agent = await rig.program("programs/agent")
  const random = new Random(1)
  const wanted: ReadonlyArray<SetupName> = [
    { name: names.alone, nodes: 1, isMany: false },
    ...Array.from({ length: nodes }, (_, at) => ({ name: names.nodes(at + 1), nodes: at + 1, isMany: true }))
  ]
  const setups = await Promise.all(wanted.map((name) => Setup.open(rig, name, { agentPort: agent.port, price: "0.01", core: cores.measured }, random)))
  const many = setups.slice(1)
  const kills = killsPerRound * rounds
  const figures: ReadonlyArray<Figure> = [
    ...await perCall(setups, options, priceMicros),
    ...await idleRedis(many, seconds),
    ...await crossing(rig, setups[2]!, options),
    ...nodes < 3 ? [] : await handoff(rig, setups[3]!, options),
    // From here on it is time that counts, and most of it is waiting.
    ...await takeover(unpinned(many.slice(1, 3), cores.all), kills)
  ]
  return {
    figures,
    parameters: { rounds, seconds, connections, nodes, busyKeys, manyKeys, kills, price: Number(priceMicros) / 1e6, bodyBytes: body.length },
    ...nodes < 3 ? { missing: ["a handoff: --nodes=3"] } : {}
  }
}

const unpinned = (setups: ReadonlyArray<Setup>, cores: string): ReadonlyArray<Setup> => {
  confine(process.pid, cores)
  for (const { cluster } of setups) cluster.unpin(cores)
  return setups
}
