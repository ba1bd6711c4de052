/**
 * What a session costs that says nothing: resident memory of the server's
 * process, over what it had before the first. Memory of the kernel for the
 * sockets is not in it.
 *
 * Sessions are opened in steps, and a session's memory is the median of what the
 * steps added. The sum is told too, but the collector's own doings are in it: the
 * heap for young objects grows in some steps, old garbage goes in another.
 * Before the first one the server has worked a little, so that its code is
 * compiled.
 */
import { readFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import type { Opened } from "../../load/Crowd.ts"
import { type Figure, spread } from "../../rig/Report.ts"
import { type ChatLoad, type Contestant, flawless } from "./contestants.ts"

export const sessionsMax = 15_000
const stepSessions = 2_500
/** Where the sum is told. */
const sums = new Set([5_000, 10_000, sessionsMax])
const warmUpSessions = 200
const warmUpTurns = 25
const settleMs = 3_000
const sampleMs = 250
const talkersAtOnce = 128
export const turnShape = { chunks: 20, gapMs: 0 } as const

export const idleFigures = async (load: ChatLoad, contestant: Contestant): Promise<ReadonlyArray<Figure>> => {
  const { name } = contestant
  await warmUp(load, contestant)
  const before = await settledBytes(contestant.pid)
  const bytes = [before]
  let [ms, micros] = [0, -contestant.cpu()]
  for (let total = stepSessions; total <= sessionsMax; total += stepSessions) {
    ms += (await load.open(contestant, total)).ms
    bytes.push(await settledBytes(contestant.pid))
  }
  micros += contestant.cpu()
  const added = bytes.slice(1).map((after, at) => (after - bytes[at]!) / stepSessions / 1_024)
  return [
    { name: `${name}: memory before the first session`, value: before / 1_024 ** 2, unit: "MiB" },
    spread(`${name}: memory an idle session, of each ${counted(stepSessions)} more`, "KiB", added, name === "gateway" ? { atMost: 6 } : undefined),
    ...bytes.flatMap((after, step) => sums.has(step * stepSessions) ? [perSession(`${name}: all memory since then, a session, ${counted(step * stepSessions)} idle`, after - before, step * stepSessions)] : []),
    { name: `${name}: CPU a session opened`, value: micros / sessionsMax, unit: "µs" },
    { name: `${name}: sessions opened`, value: sessionsMax / ms * 1_000, unit: "/s" },
    ...(name === "gateway" ? await lifeFigures(load, contestant, before) : [])
  ]
}

/** What becomes of all these sessions when they talk, and when their sockets are cut. */
const lifeFigures = async (load: ChatLoad, contestant: Contestant, before: number): Promise<ReadonlyArray<Figure>> => {
  const { name, pid } = contestant
  await oneTurnEach(load, contestant)
  const talked = await settledBytes(pid) - before
  const microsBefore = contestant.cpu()
  const resumed = await load.ask({ crowd: name, do: "dropAndResume" }) as Opened
  const micros = contestant.cpu() - microsBefore
  await load.counts(contestant)
  // Every one of them is alive: it answers, and is charged.
  await oneTurnEach(load, contestant)
  return [
    perSession(`${name}: all memory since then, a session, idle again after a turn each`, talked, sessionsMax),
    { name: `${counted(sessionsMax)} sockets dropped at once, the last is resumed`, value: resumed.ms / 1_000, unit: "s", bar: { atMost: 10 } },
    { name: "CPU a session resumed", value: micros / sessionsMax, unit: "µs" },
    { name: "openings that were sent away for a moment then", value: resumed.refusals, unit: "" }
  ]
}

const counted = (sessions: number): string => sessions.toLocaleString("en")

const perSession = (name: string, bytes: number, sessions: number): Figure => ({ name, value: bytes / 1_024 / sessions, unit: "KiB" })

const oneTurnEach = async (load: ChatLoad, { name }: Contestant): Promise<void> => {
  flawless(name, await load.ask({ crowd: name, do: "oneTurnEach", shape: turnShape, atOnce: talkersAtOnce }))
}

const warmUp = async (load: ChatLoad, contestant: Contestant): Promise<void> => {
  await load.open(contestant, warmUpSessions)
  for (let turn = 0; turn < warmUpTurns; turn++) await oneTurnEach(load, contestant)
  await load.counts(contestant, "close")
}

const settledBytes = async (pid: number): Promise<number> => {
  let lowest = Infinity
  for (const untilMs = performance.now() + settleMs; performance.now() < untilMs; await sleep(sampleMs)) lowest = Math.min(lowest, residentBytes(pid))
  return lowest
}

const residentBytes = (pid: number): number => Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1_024
