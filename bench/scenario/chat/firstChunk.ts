/**
 * Time to the first chunk, over what the agent itself needs to send it, at half
 * of what each contestant can do: in an open loop, timed from when the prompt was
 * due. Turns asked of the agent directly take turns with those through the
 * contestant, at the same rate; a figure is the difference of a round's
 * percentiles.
 */
import { setTimeout as sleep } from "node:timers/promises"
import type { TimedTurns } from "../../load/Crowd.ts"
import type { TurnShape } from "../../load/Turn.ts"
import { type Figure, spread } from "../../rig/Report.ts"
import type { ChatLoad, Contestant } from "./contestants.ts"

/** The chunks go on for a while after the first, as an agent's do. */
export const firstChunkShape: TurnShape = { chunks: 20, gapMs: 5 }
const warmUpMs = 1_500
const peerRounds = 2

export const firstChunkFigures = async (load: ChatLoad, contestants: ReadonlyArray<Contestant>, speakers: number, options: { readonly rounds: number; readonly seconds: number }): Promise<ReadonlyArray<Figure>> => {
  const figures = new Array<Figure>()
  for (const contestant of contestants) figures.push(...await figuresOf(load, contestant, speakers, options))
  return figures
}

const figuresOf = async (load: ChatLoad, contestant: Contestant, speakers: number, { rounds, seconds }: { readonly rounds: number; readonly seconds: number }): Promise<ReadonlyArray<Figure>> => {
  const { name } = contestant
  const isGateway = name === "gateway"
  await load.open(contestant, speakers)
  const capacity = await capacityOf(load, contestant, speakers, seconds)
  const task = { crowd: name, shape: firstChunkShape, perSecond: Math.floor(capacity / 2), seconds } as const
  const direct = new Array<TimedTurns>()
  const through = new Array<TimedTurns>()
  for (let round = 0; round < (isGateway ? rounds : Math.min(rounds, peerRounds)); round++) {
    direct.push(await load.ask({ ...task, do: "timeDirectly", agentPort: load.port, lines: speakers }))
    through.push(await load.ask({ ...task, do: "time" }))
    await load.counts(contestant)
  }
  await load.counts(contestant, "close")
  const added = (read: (timed: TimedTurns) => number): ReadonlyArray<number> => through.map((timed, round) => read(timed) - read(direct[round]!))
  return [
    { name: `first chunk: ${name}, capacity of this set-up`, value: capacity, unit: "turns/s" },
    spread(`first chunk: direct p50 beside ${name}`, "ms", direct.map(({ p50Ms }) => p50Ms)),
    spread(`first chunk: direct p99 beside ${name}`, "ms", direct.map(({ p99Ms }) => p99Ms)),
    spread(`first chunk: ${name}, added p50`, "ms", added(({ p50Ms }) => p50Ms)),
    spread(`first chunk: ${name}, added p99`, "ms", added(({ p99Ms }) => p99Ms), isGateway ? { atMost: 3 } : undefined)
  ]
}

/** A closed loop of all sessions. */
const capacityOf = async (load: ChatLoad, contestant: Contestant, speakers: number, seconds: number): Promise<number> => {
  await load.ask({ crowd: contestant.name, do: "talk", speakers, shape: firstChunkShape })
  await sleep(warmUpMs)
  const beganMs = performance.now()
  const before = await load.counts(contestant)
  await sleep(seconds * 1_000)
  const after = await load.counts(contestant)
  const capacity = (after.turns - before.turns) / (performance.now() - beganMs) * 1_000
  await load.counts(contestant, "rest")
  return capacity
}
