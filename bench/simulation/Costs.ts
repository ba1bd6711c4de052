/**
 * What the simulation is fed with: the figures of the last run of `cluster`, and
 * guesses for what that does not measure. Without such a run the defaults are
 * used, which are of the machine that README's figures are of; the report says
 * which it was.
 */
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { names } from "../scenario/cluster/names.ts"

/** CPU times in µs unless a name says otherwise. */
export interface Costs {
  /** Of a call where its account is owned, in a cluster. */
  readonly call: { readonly free: number; readonly paid: number }
  /** A call that is passed on: where it arrives; at the owner, over what the call itself costs. */
  readonly hop: { readonly from: number; readonly to: number }
  readonly ask: { readonly from: number; readonly to: number }
  /** Of a second in which nothing happens, of a node. */
  readonly idle: number
  /** PostgreSQL's: of a batch, of each paid call in it, of the usage row of a free call. */
  readonly batch: number
  readonly paidRow: number
  readonly freeRow: number
  /** Redis's, of a second: of all locks, whoever has them; of each node; of each node for each that it reads of. */
  readonly redis: { readonly locks: number; readonly node: number; readonly record: number }
  /** Until a survivor serves an account of a killed node, ms: median and slowest. */
  readonly takeover: { readonly p50: number; readonly max: number } | undefined
}

/** What was measured with 1, 2 and 3 nodes, to compare with. */
export interface Measured {
  readonly of: "free" | "paid"
  readonly name: string
  readonly nodes: number
  readonly keys: number
  readonly perSecond: number
  /** CPU a call, over that of one node. */
  readonly ratio: number
  readonly passedOn: number
  readonly asks: number
}

export interface Source {
  readonly costs: Costs
  readonly measured: ReadonlyArray<Measured>
  /** When and of which commit; `undefined`: the defaults. */
  readonly from: string | undefined
}

export const defaults: Costs = {
  call: { free: 58, paid: 83 },
  hop: { from: 80, to: 20 },
  ask: { from: 120, to: 120 },
  idle: 3_000,
  batch: 1_060, paidRow: 48, freeRow: 19,
  redis: { locks: 1_500, node: 300, record: 1 },
  takeover: undefined
}

interface Line {
  readonly at: string
  readonly commit: string
  readonly parameters: { readonly busyKeys: number; readonly manyKeys: number; readonly nodes: number }
  readonly figures: ReadonlyArray<{ readonly name: string; readonly value: number; readonly max?: number }>
}

export const readCosts = (folder: string): Source => {
  const file = join(folder, "cluster.jsonl")
  if (!existsSync(file)) return { costs: defaults, measured: [], from: undefined }
  const line = JSON.parse(readFileSync(file, "utf8").trimEnd().split("\n").at(-1)!) as Line
  const value = (name: string): number => {
    const found = line.figures.find((figure) => figure.name === name)
    if (found === undefined) throw new Error(`the last run of cluster has no figure "${name}": run it again`)
    return found.value
  }
  return { costs: costsOf(line, value), measured: measuredOf(line, value), from: `${line.at}, commit ${line.commit.slice(0, 7)}` }
}

const costsOf = (line: Line, value: (name: string) => number): Costs => {
  const one = names.nodes(1)
  const idle = value(names.idle.cpu) * 1_000
  const callOf = (of: "free" | "paid"): number => Math.max(1, value(`${of}: ${one}, ${names.cpu}`) - idle / value(`${of}: ${one}, ${names.perSecond}`))
  const call = { free: callOf("free"), paid: callOf("paid") }
  // Hops and asks are taken at a low rate, where everything costs more: their ratio to a call is what counts.
  const scale = call.free / value(names.hop.local)
  const batches = [names.alone, ...Array.from({ length: line.parameters.nodes }, (_, at) => names.nodes(at + 1))]
    .map((setup) => ({ calls: value(`paid: ${setup}, ${names.callsPerBatch}`), micros: value(`paid: ${setup}, ${names.postgres}`) }))
  const slowest = line.figures.find(({ name }) => name === names.takeover)
  return {
    call,
    hop: { from: value(names.hop.from) * scale, to: Math.max(0, value(names.hop.to) - value(names.hop.local)) * scale },
    ask: { from: Math.max(0, value(names.ask.from)) * scale, to: value(names.ask.to) * scale },
    idle,
    ...perBatch(batches),
    freeRow: value(`free: ${one}, ${names.postgres}`),
    redis: { ...perNode(Array.from({ length: line.parameters.nodes }, (_, at) => value(names.idle.redisCpu(names.nodes(at + 1))) * 1_000)), record: defaults.redis.record },
    takeover: slowest === undefined ? undefined : { p50: slowest.value, max: slowest.max ?? slowest.value }
  }
}

/** `micros = paidRow + batch / calls`; what was measured may be too alike to tell the two apart. */
export const perBatch = (points: ReadonlyArray<{ readonly calls: number; readonly micros: number }>): Pick<Costs, "batch" | "paidRow"> => {
  const { slope, base } = fit(points.map(({ calls, micros }) => [1 / calls, micros]))
  return { batch: slope, paidRow: base }
}

const perNode = (micros: ReadonlyArray<number>): Pick<Costs["redis"], "locks" | "node"> => {
  const { slope, base } = fit(micros.map((each, at) => [at + 1, each]))
  return { node: slope, locks: base }
}

/** Least squares of `y = base + slope × x`, neither below zero. */
const fit = (points: ReadonlyArray<readonly [number, number]>): { readonly slope: number; readonly base: number } => {
  const mean = (read: (point: readonly [number, number]) => number): number => points.reduce((sum, point) => sum + read(point), 0) / points.length
  const [x, y] = [mean(([x]) => x), mean(([, y]) => y)]
  const spread = mean((point) => (point[0] - x) ** 2)
  const slope = spread === 0 ? 0 : mean((point) => (point[0] - x) * (point[1] - y)) / spread
  const kept = Math.min(Math.max(0, slope), y / x)
  return { slope: kept, base: y - kept * x }
}

const measuredOf = ({ parameters }: Line, value: (name: string) => number): ReadonlyArray<Measured> =>
  ([["free", "free", parameters.busyKeys], ["paid", "paid", parameters.busyKeys], [names.many, "free", parameters.manyKeys]] as const).flatMap(([name, of, keys]) =>
    Array.from({ length: parameters.nodes }, (_, at): Measured => {
      const setup = names.nodes(at + 1)
      const figure = (what: string): number => value(`${name}: ${setup}, ${what}`)
      return {
        name, of, keys, nodes: at + 1, perSecond: figure(names.perSecond), ratio: figure(names.cpu) / value(`${name}: ${names.nodes(1)}, ${names.cpu}`),
        passedOn: at === 0 ? 0 : figure(names.passedOn) / 100, asks: at === 0 ? 0 : figure(names.asks) / 1_000
      }
    }))
