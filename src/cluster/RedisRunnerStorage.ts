/**
 * What effect's Sharding knows of nodes and locks, from `Membership`: it decides
 * by them which shards a node should have, and asks for their locks here.
 *
 * Guarantee. `release` returns when the lock is free and its commits had settled.
 * `refresh` never fails: past the trust window it leaves Sharding its belief,
 * which nobody decides by (`ownerOf` says "moving"), and once Redis answers it
 * tells what is still held. Failing instead would make Sharding give up every
 * shard and take them one step after the other.
 *
 * A node's health is its record's life, so nothing is stored of it.
 */
import { Effect, Layer } from "effect"
import { ClusterError, MachineId, Runner, RunnerAddress, RunnerHealth, RunnerStorage, ShardId } from "effect/cluster"
import type { Membership, NodeRecord } from "./Membership.ts"

const group = "default"

export const runnerOf = ({ host, port }: Pick<NodeRecord, "host" | "port">) => new Runner.Runner({ address: RunnerAddress.make(host, port), groups: [group], weight: 1 })

const failure = (cause: unknown) => new ClusterError.PersistenceError({ cause })
const numbersOf = (shards: Iterable<ShardId.ShardId>): ReadonlyArray<number> => Array.from(shards, ({ id }) => id)
const shardsOf = (numbers: ReadonlyArray<number>) => numbers.map((number) => ShardId.make(group, number))

/** `isHost`: for the Sharding that owns shards; it must see itself until it has handed over. */
export const runnerStorage = (membership: Membership, isHost: boolean): RunnerStorage.RunnerStorage["Service"] => RunnerStorage.RunnerStorage.of({
  // The node has joined when its Sharding starts; a runner's number tells apart ids that we don't store.
  register: () => Effect.succeed(MachineId.make(0)),
  unregister: () => Effect.void,
  getRunners: Effect.sync(() => [...membership.nodes.values()].filter((node) => !node.isLeaving || isHost && node.nodeId === membership.nodeId).map((node) => [runnerOf(node), true] as const)),
  setRunnerHealth: () => Effect.void,
  acquire: (_, shards) => Effect.map(Effect.tryPromise({ try: (signal) => membership.acquire(numbersOf(shards), signal), catch: failure }), shardsOf),
  refresh: (_, shards) => Effect.sync(() => {
    const kept = membership.reconcile(new Set(numbersOf(shards)))
    return [...shards].filter(({ id }) => kept.has(id))
  }),
  release: (_, { id }) => Effect.tryPromise({ try: () => membership.release(id), catch: failure }),
  releaseAll: () => Effect.tryPromise({ try: () => membership.releaseAll(), catch: failure })
})

export const layerRunnerHealth = (membership: Membership) => Layer.succeed(RunnerHealth.RunnerHealth, {
  isAlive: ({ host, port }) => Effect.sync(() => [...membership.nodes.values()].some((node) => node.host === host && node.port === port))
})
