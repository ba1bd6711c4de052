/**
 * Chat: what sessions over WebSocket cost, idle and talking, with everything a
 * paid turn has: authentication, holds, one order and one durable charge a turn,
 * history, resume. Beside it the same agent relayed by a bare relay, by `ws` and
 * by Socket.IO, which do none of that.
 *
 * One process is all clients and the agent (bench/programs/chatLoad.ts), so that
 * fifteen thousand sockets need less than the server that is measured. Where CPU
 * is compared the contestant has one core for itself and the load, the agent and
 * PostgreSQL share the other; where turns a second are counted nothing is pinned.
 * PostgreSQL is with the gateway for the first chunk, as in `latency`.
 *
 * The scenario fails unless every text arrived whole, every billed order was
 * charged exactly once and no other was, and the audit finds nothing.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { auditBooks } from "../rig/books.ts"
import { type Cores, confine, findCores } from "../rig/cores.ts"
import { type BenchGateway, startGateway } from "../rig/gateway.ts"
import type { Options } from "../rig/options.ts"
import type { Figure, Report } from "../rig/Report.ts"
import { Rig } from "../rig/Rig.ts"
import { ChatLoad, type Contestant, accounts, gatewayContestant, price, priceMicros, startOthers } from "./chat/contestants.ts"
import { firstChunkFigures, firstChunkShape } from "./chat/firstChunk.ts"
import { idleFigures, sessionsMax, turnShape } from "./chat/idle.ts"
import { talkFigures } from "./chat/streams.ts"

/** As many at once as one agent may have by default, and some less. */
const speakers = 500
/** A model that writes fifty tokens a second, for five seconds. */
const pacedShape = { chunks: 250, gapMs: 20 } as const
/** The agent writes as fast as it is read. */
const floodShape = { chunks: 1_000, gapMs: 0 } as const

export const chat = async (rig: Rig, options: Options): Promise<Report> => {
  const cores = findCores()
  if (typeof cores === "string") return { figures: [], parameters: {}, missing: [cores] }
  confine(process.pid, cores.load)
  rig.onEnd(() => confine(process.pid, cores.all))
  const { rounds, seconds, connections } = options
  const idle = await alone(rig, (own) => measureIdle(own, options))
  const talking = await alone(rig, (own) => measureTalking(own, options, cores))
  return {
    figures: [...idle.figures, ...talking.figures],
    parameters: {
      accounts, sessions: sessionsMax, speakers, connections, rounds, seconds, price, fsync: true,
      turn: shown(turnShape), paced: shown(pacedShape), flood: shown(floodShape), firstChunk: shown(firstChunkShape)
    },
    missing: [...new Set([...idle.missing, ...talking.missing])]
  }
}

interface Part {
  readonly figures: ReadonlyArray<Figure>
  readonly missing: ReadonlyArray<string>
}

/** With processes of its own, which are gone before the next part begins. */
const alone = async (rig: Rig, part: (own: Rig) => Promise<Part>): Promise<Part> => {
  const own = new Rig()
  rig.onEnd(() => own.end())
  const measured = await part(own)
  await own.end()
  return measured
}

const measureIdle = async (rig: Rig, options: Options): Promise<Part> => {
  const load = await ChatLoad.start(rig)
  const gateway = await startGateway(rig, { billing: "paid", agentPort: load.port, price })
  const ours = await gatewayContestant(rig, gateway)
  const figures = [...await idleFigures(load, ours)]
  await checkBooks(rig, gateway, load, ours)
  await load.counts(ours, "close")
  const { contestants, missing } = await startOthers(rig, load.port, options.peers)
  for (const contestant of contestants) {
    figures.push(...await idleFigures(load, contestant))
    await load.counts(contestant, "close")
  }
  return { figures, missing }
}

const measureTalking = async (rig: Rig, options: Options, cores: Cores): Promise<Part> => {
  const { connections } = options
  const load = await ChatLoad.start(rig)
  const gateway = await startGateway(rig, { billing: "paid", agentPort: load.port, price, profile: options.profile ? options.results : undefined })
  const ours = await gatewayContestant(rig, gateway)
  const { contestants: others, missing } = await startOthers(rig, load.port, options.peers)
  const contestants = [ours, ...others]
  for (const { pid } of contestants) confine(pid, cores.measured)
  gateway.toggleProfile()
  const paced = await talkFigures(load, contestants, { title: "paced", speakers, shape: pacedShape, unit: "chunk", cpuBar: { atMost: 6 } }, options)
  gateway.toggleProfile()
  const flood = await talkFigures(load, contestants, { title: "flood", speakers: connections, shape: floodShape, unit: "chunk" }, options)
  for (const pid of gateway.pids()) confine(pid, cores.measured)
  const firstChunk = await firstChunkFigures(load, contestants, speakers, options)
  for (const pid of [...gateway.pids(), ...others.map(({ pid }) => pid), load.pid]) confine(pid, cores.all)
  const beside = { name: "gateway's PostgreSQL", cpu: () => gateway.cpu().postgres }
  const turns = await talkFigures(load, contestants, { title: "turns", speakers: connections, shape: turnShape, unit: "turn", beside }, options)
  const charged = await checkBooks(rig, gateway, load, ours)
  return { figures: [...paced, ...flood, ...firstChunk, ...turns, { name: "turns that were billed and charged once, audit clean", value: charged, unit: "" }], missing }
}

/** Answers how many orders were billed: each was charged once, at its price, and no other was. */
const checkBooks = async (rig: Rig, gateway: BenchGateway, load: ChatLoad, { name }: Contestant): Promise<number> => {
  const file = join(rig.folder(), "orders")
  await load.ask({ crowd: name, do: "tellOrders", file })
  const billed = readFileSync(file, "utf8").split("\n").sort()
  const charges = await gateway.sql<Array<{ order_id: string; micros: string }>>`
    select order_id, (-available)::text as micros from transactions where type = 'charge' order by order_id::text collate "C"`
  const wrong = charges.findIndex(({ order_id, micros }, at) => order_id !== billed[at] || BigInt(micros) !== priceMicros)
  if (wrong >= 0 || charges.length !== billed.length) throw new Error(`${billed.length} bills, but ${charges.length} charges; the first that differs is ${JSON.stringify(charges[wrong])}`)
  await auditBooks(gateway)
  return billed.length
}

const shown = ({ chunks, gapMs }: { readonly chunks: number; readonly gapMs: number }): string => `${chunks} chunks, ${gapMs} ms apart`
