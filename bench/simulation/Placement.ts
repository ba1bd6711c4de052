/**
 * Which node owns a key's account: accounts fall into shards by chance, shards
 * are dealt out evenly and what is left over by chance, as the ring
 * does it.
 */
import type { Random } from "../../test/support/Random.ts"

export const shardCount = 300

const dealShards = (nodes: number, random: Random): Int32Array => {
  const even = Math.floor(shardCount / nodes)
  const owners = new Int32Array(shardCount)
  for (let shard = 0; shard < shardCount; shard++) owners[shard] = shard < even * nodes ? shard % nodes : random.below(nodes)
  return owners
}

export const placeKeys = (keys: number, nodes: number, random: Random): Int32Array => {
  const owners = dealShards(nodes, random)
  return Int32Array.from({ length: keys }, () => owners[random.below(shardCount)]!)
}
