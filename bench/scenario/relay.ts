/**
 * Relay: what one metered free call costs the gateway in CPU, against a relay
 * that does nothing else and against other proxies, in the same run.
 *
 * CPU a call and not calls/s is compared: a neighbour on the machine takes the
 * second away, the first it only blurs. What is measured has a core to itself;
 * the load, the agent and PostgreSQL share the other. Two that are compared take
 * turns in short rounds, and the ratio is taken round by round, so that both
 * have met the same neighbours.
 */
import { confine, cpuMicros, findCores, treeMicros } from "../rig/cores.ts"
import { startGateway } from "../rig/gateway.ts"
import type { Options } from "../rig/options.ts"
import { type Figure, type Report, spread } from "../rig/Report.ts"
import type { Rig } from "../rig/Rig.ts"
import { flawless, wrk } from "../rig/wrk.ts"
import { body } from "../rig/agent.ts"
import { peers } from "./peers.ts"

/** The compiler has seen the hot path some ten thousand times by then. */
export const warmUpSeconds = 5
const peerRounds = 2

export interface Contestant {
  readonly name: string
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  /** Microseconds so far. */
  readonly cpu: () => number
}

/** One round of load against one of them. */
export interface Turn {
  readonly calls: number
  readonly microsPerCall: number
  readonly callsPerSecond: number
}

/** An agent, and the bare relay to it on the core of what is measured; this process loads from another. A text says why that can't be had. */
export const openArena = async (rig: Rig) => {
  const cores = findCores()
  if (typeof cores === "string") return cores
  confine(process.pid, cores.load)
  rig.onEnd(() => confine(process.pid, cores.all))
  const agent = await rig.program("programs/agent")
  const bareRelay = await rig.program("programs/bareRelay", String(agent.port))
  confine(bareRelay.pid, cores.measured)
  const bare = (headers: Contestant["headers"]): Contestant =>
    ({ name: "bare relay", url: `http://127.0.0.1:${bareRelay.port}/v1/proxy/BENCH`, headers, cpu: () => cpuMicros(bareRelay.pid) })
  return { cores, agent, bare }
}

export const relay = async (rig: Rig, options: Options): Promise<Report> => {
  const arena = await openArena(rig)
  if (typeof arena === "string") return { figures: [], parameters: {}, missing: [arena] }
  const { cores, agent } = arena
  const { seconds, rounds, connections } = options
  const gateway = await startGateway(rig, { billing: "free", agentPort: agent.port, profile: options.profile ? options.results : undefined })
  confine(gateway.pid, cores.measured)
  const headers = { "content-type": "application/json", authorization: `Bearer ${await gateway.process.key(gateway.owner)}` }
  const metered: Contestant = { name: "gateway", url: gateway.callUrl, headers, cpu: () => cpuMicros(gateway.pid) }
  const bare = arena.bare(headers)
  await turn(metered, options, Math.min(warmUpSeconds, seconds))
  await turn(bare, options, Math.min(warmUpSeconds, seconds))

  const before = gateway.cpu().postgres
  gateway.toggleProfile()
  const [ours, theirs] = await takeTurns(metered, bare, options, rounds)
  gateway.toggleProfile()
  const postgres = (gateway.cpu().postgres - before) / ours.reduce((sum, { calls }) => sum + calls, 0)
  const others = options.peers ? await comparePeers(rig, options, metered, agent.port, cores.measured) : { figures: [], missing: ["the peers: --no-peers"] }
  return {
    figures: [
      ratio(ours, theirs, "bare relay", { atMost: 1.15 }),
      ...figuresOf("gateway", ours),
      { name: "gateway's PostgreSQL, CPU a call", value: postgres, unit: "µs" },
      ...figuresOf("bare relay", theirs),
      ...others.figures
    ],
    parameters: { connections, rounds, seconds, bodyBytes: body.length },
    missing: others.missing
  }
}

export const turn = async ({ name, url, headers, cpu }: Contestant, { connections }: Options, seconds: number): Promise<Turn> => {
  const before = cpu()
  const load = flawless(await wrk({ url, script: "post.lua", connections, seconds, headers, env: { BODY: body } }), name)
  return { calls: load.requests, microsPerCall: (cpu() - before) / load.requests, callsPerSecond: load.requests / load.seconds }
}

const takeTurns = async (a: Contestant, b: Contestant, options: Options, rounds: number): Promise<readonly [ReadonlyArray<Turn>, ReadonlyArray<Turn>]> => {
  const turns: [Array<Turn>, Array<Turn>] = [[], []]
  for (let round = 0; round < rounds; round++) {
    turns[0].push(await turn(a, options, options.seconds))
    turns[1].push(await turn(b, options, options.seconds))
  }
  return turns
}

export const ratio = (ours: ReadonlyArray<Turn>, theirs: ReadonlyArray<Turn>, name: string, bar?: Figure["bar"], who = "gateway"): Figure =>
  spread(`${who} / ${name}, CPU a call`, "×", ours.map(({ microsPerCall }, round) => microsPerCall / theirs[round]!.microsPerCall), bar)

export const figuresOf = (name: string, turns: ReadonlyArray<Turn>): ReadonlyArray<Figure> => [
  spread(`${name}, CPU a call`, "µs", turns.map(({ microsPerCall }) => microsPerCall)),
  spread(`${name}, calls/s on one core`, "/s", turns.map(({ callsPerSecond }) => callsPerSecond))
]

/** Each in turns with the gateway; one that can't be had says why. */
const comparePeers = async (rig: Rig, options: Options, metered: Contestant, agentPort: number, core: number): Promise<{ readonly figures: ReadonlyArray<Figure>; readonly missing: ReadonlyArray<string> }> => {
  const figures = new Array<Figure>()
  const missing = new Array<string>()
  for (const { name, start, path, headers } of peers) {
    try {
      const peer = await start(rig, agentPort)
      confine(peer.pid, core)
      const contestant: Contestant = { name, url: `http://127.0.0.1:${peer.port}${path}`, headers: headers(agentPort), cpu: () => treeMicros(peer.pid) }
      await turn(contestant, options, Math.min(warmUpSeconds, options.seconds))
      const [ours, theirs] = await takeTurns(metered, contestant, options, peerRounds)
      await peer.stop()
      figures.push(ratio(ours, theirs, name), ...figuresOf(name, theirs))
    } catch (cause) {
      missing.push(`${name}: ${cause instanceof Error ? cause.message : String(cause)}`)
    }
  }
  return { figures, missing }
}
