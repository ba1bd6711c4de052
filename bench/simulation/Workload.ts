/** Who calls: which node a call arrives at, by which key, and when. */
import type { Random } from "../../test/support/Random.ts"

export interface Workload {
  readonly keys: number
  readonly paidShare: number
  /** Seconds until the next call, when it is so late. */
  readonly gap: (nowS: number) => number
  /** Decides of the next call `node` and `key`. */
  readonly pick: () => void
  node: number
  key: number
}

export interface Shape {
  readonly nodes: number
  readonly keys: number
  /** Of all nodes together, calls a second. */
  readonly perSecond: number
  readonly paidShare: number
}

/** Load that would begin all at once would find no lease, and bury the owners of the busiest keys. */
const rampS = 1

/**
 * Calls come by chance. Each node brings `keys / nodes` keys, whose k-th calls
 * 1/k as often as the first; each key's calls arrive at `nodesOfKey` nodes.
 */
export const brought = ({ nodes, keys, perSecond, paidShare }: Shape, nodesOfKey: number, random: Random): Workload => {
  const own = keys / nodes
  const popular = aliases(Float64Array.from({ length: own }, (_, at) => 1 / (at + 1)), random)
  const firstNode = Int32Array.from({ length: keys }, () => random.below(nodes))
  return {
    keys, paidShare, node: 0, key: 0,
    gap: (nowS) => -Math.log(1 - random.next()) / perSecond / Math.min(1, 0.05 + nowS / rampS),
    pick() {
      this.key = random.below(nodes) * own + popular()
      this.node = (firstNode[this.key]! + random.below(nodesOfKey)) % nodes
    }
  }
}

/** As the bench loads: at each node all keys in turn, in an order of its own; calls come evenly. */
export const inTurn = ({ nodes, keys, perSecond, paidShare }: Shape, random: Random): Workload => {
  const next = Array.from({ length: nodes }, () => random.below(keys))
  // A step that shares no divisor with the number of keys visits each once.
  const steps = next.map(() => stepFor(keys, random))
  return {
    keys, paidShare, node: 0, key: 0,
    gap: () => 1 / perSecond,
    pick() {
      const node = this.node = random.below(nodes)
      this.key = next[node] = (next[node]! + steps[node]!) % keys
    }
  }
}

const stepFor = (keys: number, random: Random): number => {
  const divisor = (a: number, b: number): number => b === 0 ? a : divisor(b, a % b)
  for (;;) {
    const step = 1 + random.below(keys)
    if (divisor(step, keys) === 1) return step
  }
}

/** Chooses by weight in constant time (Walker's aliases). */
const aliases = (weights: Float64Array, random: Random): () => number => {
  const count = weights.length
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  const share = weights.map((weight) => weight * count / total)
  const other = new Int32Array(count)
  const [small, large]: [Array<number>, Array<number>] = [[], []]
  share.forEach((value, at) => (value < 1 ? small : large).push(at))
  while (small.length > 0 && large.length > 0) {
    const [little, much] = [small.pop()!, large.at(-1)!]
    other[little] = much
    share[much] = share[much]! + share[little]! - 1
    if (share[much]! < 1) small.push(large.pop()!)
  }
  for (const at of [...small, ...large]) share[at] = 1
  return () => {
    const at = random.below(count)
    return random.next() < share[at]! ? at : other[at]!
  }
}
