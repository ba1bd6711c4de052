/**
 * What it costs to carry chunks from the agent's stream to the sockets, and how
 * many turns a second are charged before their `done`. Contestants take turns in
 * short rounds; CPU is that of their own process, over the chunks that arrived
 * while it was measured, whatever frames they came in. A turn's own cost
 * (request, charge, history) is in it, spread over its chunks.
 */
import { setTimeout as sleep } from "node:timers/promises"
import type { Counts } from "../../load/Crowd.ts"
import type { TurnShape } from "../../load/Turn.ts"
import { type Figure, spread } from "../../rig/Report.ts"
import type { ChatLoad, Contestant } from "./contestants.ts"

const peerRounds = 2
const warmUpMs = 1_500

export interface Talk {
  /** Stands before the names of its figures. */
  readonly title: string
  readonly speakers: number
  readonly shape: TurnShape
  readonly unit: "chunk" | "turn"
  readonly perSecondBar?: Figure["bar"]
  readonly cpuBar?: Figure["bar"]
  /** Microseconds so far of who works for the gateway beside it. */
  readonly beside?: { readonly name: string; readonly cpu: () => number }
}

interface Round {
  readonly perSecond: number
  readonly micros: number
  readonly besideMicros: number
}

export const talkFigures = async (load: ChatLoad, contestants: ReadonlyArray<Contestant>, talk: Talk, { rounds, seconds }: { readonly rounds: number; readonly seconds: number }): Promise<ReadonlyArray<Figure>> => {
  // New sessions for each thing measured: a long history goes to the agent with every prompt.
  for (const contestant of contestants) await load.open(contestant, talk.speakers)
  const taken = new Map(contestants.map((contestant) => [contestant, new Array<Round>()]))
  for (let round = 0; round < rounds; round++) {
    for (const contestant of contestants.filter(({ isPeer }) => !isPeer || round < peerRounds)) taken.get(contestant)!.push(await oneRound(load, contestant, talk, seconds))
  }
  for (const contestant of contestants) await load.counts(contestant, "close")
  const { title, unit, perSecondBar, cpuBar, beside } = talk
  const [ours = []] = taken.values()
  return [...taken].flatMap(([{ name }, theirs]) => {
    const isGateway = name === "gateway"
    return [
      spread(`${title}: ${name}, CPU a ${unit}`, "µs", theirs.map(({ micros }) => micros), isGateway ? cpuBar : undefined),
      ...(isGateway && beside !== undefined ? [spread(`${title}: ${beside.name}, CPU a ${unit}`, "µs", theirs.map(({ besideMicros }) => besideMicros))] : []),
      ...(isGateway ? [] : [spread(`${title}: gateway / ${name}, CPU a ${unit}`, "×", theirs.map(({ micros }, round) => ours[round]!.micros / micros))]),
      spread(`${title}: ${name}, ${unit}s`, "/s", theirs.map(({ perSecond }) => perSecond), isGateway ? perSecondBar : undefined)
    ]
  })
}

const oneRound = async (load: ChatLoad, contestant: Contestant, { speakers, shape, unit, beside }: Talk, seconds: number): Promise<Round> => {
  const look = async () => {
    const counts = await load.counts(contestant)
    return { atMs: performance.now(), count: countOf(counts, unit), micros: contestant.cpu(), beside: beside?.cpu() ?? 0 }
  }
  await load.ask({ crowd: contestant.name, do: "talk", speakers, shape })
  await sleep(warmUpMs)
  const from = await look()
  await sleep(seconds * 1_000)
  const to = await look()
  await load.counts(contestant, "rest")
  const count = to.count - from.count
  return { perSecond: count / (to.atMs - from.atMs) * 1_000, micros: (to.micros - from.micros) / count, besideMicros: (to.beside - from.beside) / count }
}

const countOf = ({ chunks, turns }: Counts, unit: Talk["unit"]): number => unit === "chunk" ? chunks : turns
