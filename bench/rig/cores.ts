/**
 * Which core a process runs on, and what CPU it has used: Linux's own account
 * in /proc/PID/stat, user and system time in ticks of 10 ms. Not the wall clock:
 * a neighbour on the machine slows a call down, but hardly makes it dearer.
 */
import { execFileSync } from "node:child_process"
import { readFileSync, readdirSync } from "node:fs"

export interface Cores {
  /** Where the thing measured runs, alone. */
  readonly measured: number
  /** Where the load, the upstream and this process run. */
  readonly load: number
  readonly all: string
}

/** A reason when there is no such thing here. */
export const findCores = (): Cores | string => {
  if (process.platform !== "linux") return "CPU of a process and pinning it need Linux (/proc, taskset)"
  const all = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0"
  const cores = all.split(",").flatMap((range) => {
    const [first = 0, last = first] = range.split("-").map(Number)
    return Array.from({ length: last - first + 1 }, (_, at) => first + at)
  })
  const [load, measured] = cores
  return load === undefined || measured === undefined ? "two cores are needed, one for what is measured and one for the load" : { load, measured, all }
}

/** Every thread of the process, and all that it starts from now on. */
export const confine = (pid: number, cores: number | string): void => {
  execFileSync("taskset", ["-apc", String(cores), String(pid)], { stdio: "ignore" })
}

const ticksPerSecond = process.platform === "linux" ? Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" })) : 100

/** User and system time of one process so far, of its children that ended too if asked. */
const microsOf = (pid: number, withEnded: boolean): number => {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
  // The second field is a name in brackets that may hold anything; utime is field 14.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ").map(Number)
  const ticks = fields[11]! + fields[12]! + (withEnded ? fields[13]! + fields[14]! : 0)
  return ticks * 1e6 / ticksPerSecond
}

export const cpuMicros = (pid: number): number => microsOf(pid, false)

/** A process and everything below it. */
export const treeOf = (pid: number): ReadonlyArray<number> => [pid, ...childrenOf(pid).flatMap(treeOf)]

/** Of a whole tree, with what its ended members had used. One that ends while we look is in its parent's account at the next look. */
export const treeMicros = (pid: number): number => treeOf(pid).reduce((sum, each) => sum + ifAlive(() => microsOf(each, true), 0), 0)

const childrenOf = (pid: number): ReadonlyArray<number> => ifAlive(() =>
  readdirSync(`/proc/${pid}/task`).flatMap((thread) => readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8").split(" ").filter(Boolean).map(Number)), [])

const ifAlive = <A>(read: () => A, otherwise: A): A => {
  try {
    return read()
  } catch {
    return otherwise
  }
}
