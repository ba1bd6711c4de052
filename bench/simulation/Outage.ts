/**
 * How long accounts are without service when a node dies, or joins.
 *
 *     kill ──▶ its locks and record expire ──▶ others notice, deal its shards anew ──▶ new owner locks ──▶ all read the table ──▶ account is loaded
 *              ttl after its last refresh      next beat of each                       next look          next beat of the caller's node
 *
 * Every node has its beats at moments of its own. Accounts are loaded when their
 * first call comes, all in one queue at PostgreSQL. What the program's nodes
 * tell each other at once ("locks were taken") makes it shorter than the beats
 * alone: a caller's node reads the table then.
 */
import type { Random } from "../../test/support/Random.ts"
import { shardCount } from "./Placement.ts"

export interface Beats {
  readonly lockTtlS: number
  readonly refreshS: number
  /** Living nodes are compared with those known, and shards dealt anew, so often. */
  readonly assignS: number
  /** A node tries so often for locks that it should have. */
  readonly acquireS: number
  /** News from one node to all. */
  readonly newsS: number
  /** A node that leaves a shard waits for what it has under way. */
  readonly settleS: number
  /** PostgreSQL, for one account. */
  readonly loadS: number
  readonly databaseCores: number
}

export interface Gap {
  readonly minS: number
  readonly p50S: number
  readonly maxS: number
  /** Of all accounts, those that had it. */
  readonly share: number
}

/** As the bench measures it: of each kill the slowest of so many accounts counts. */
const accountsWatched = 8

/** Over `trials` kills of one of `nodes`, with so many accounts in use on each. */
export const afterKill = (nodes: number, accountsPerNode: number, beats: Beats, trials: number, random: Random): Gap => {
  const gaps = new Array<number>()
  for (let trial = 0; trial < trials; trial++) {
    const expiredS = beats.lockTtlS - random.next() * beats.refreshS
    const noticedS = Array.from({ length: nodes - 1 }, () => expiredS + random.next() * beats.assignS)
    const servedS = Array.from({ length: accountsWatched }, () => {
      const lockedS = noticedS[random.below(nodes - 1)]! + random.next() * beats.acquireS
      return lockedS + beats.newsS + loadS(accountsPerNode, beats, random)
    })
    gaps.push(Math.max(...servedS))
  }
  return gapOf(gaps, 1 / nodes)
}

/** One more node than `nodes` comes: what moves to it is let go of by its owners, in order. */
export const afterJoin = (nodes: number, accountsPerNode: number, beats: Beats, trials: number, random: Random): Gap => {
  const gaps = new Array<number>()
  const moved = Math.max(1, Math.floor(shardCount / (nodes + 1)))
  for (let trial = 0; trial < trials; trial++) {
    // Each shard is let go of at its owner's beat and taken at the new node's next look.
    for (let shard = 0; shard < moved; shard++) {
      gaps.push(random.next() * beats.settleS + random.next() * beats.acquireS + beats.newsS + loadS(accountsPerNode * nodes / (nodes + 1), beats, random))
    }
  }
  return gapOf(gaps, moved / shardCount)
}

/** Where in the queue of loads an account comes is chance. */
const loadS = (accounts: number, { loadS, databaseCores }: Beats, random: Random): number => loadS * (1 + random.next() * accounts / databaseCores)

const gapOf = (gaps: Array<number>, share: number): Gap => {
  gaps.sort((a, b) => a - b)
  return { minS: gaps[0]!, p50S: gaps[gaps.length >> 1]!, maxS: gaps.at(-1)!, share }
}
