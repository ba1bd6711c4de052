/**
 * effect/cluster as it is used here: one Sharding that owns shards and answers
 * asks (`layerHost`, from joining to leaving), and one that only asks
 * (`layerAsker`, as long as the node runs, so that a node that has left can
 * still give back what it has). Messages are never stored: who asks waits, and
 * asks again.
 *
 * Who owns an account is not taken from here but from the locks (Membership):
 * Sharding decides which node should hold a shard, brings an ask to that node,
 * and has it wait there until the shard has come.
 */
import { NodeSocket } from "@effect/platform-node-shared"
import { Effect, Layer, Logger, Option, Schedule } from "effect"
import { MessageStorage, RunnerAddress, RunnerHealth, RunnerServer, RunnerStorage, Runners, Sharding, ShardingConfig } from "effect/cluster"
import { RpcClient, RpcSerialization, RpcServer } from "effect/rpc"
import { Socket, type SocketServer } from "effect/socket"
import { limits } from "../config.ts"
import { log } from "../telemetry/log.ts"
import { type Membership, shardCount } from "./Membership.ts"
import { layerRunnerHealth, runnerStorage } from "./RedisRunnerStorage.ts"
import { serialization } from "./Wire.ts"

/** effect's defaults (35 s, 10 s, 60 s) are for entities that live in it; ours are decided elsewhere. */
const settings: Partial<ShardingConfig.ShardingConfig["Service"]> = {
  shardsPerGroup: shardCount,
  // Membership keeps the locks. Sharding compares its list with them so often, and a refresh, which takes no time, that has not
  // ended after as long means to it that every shard is lost: a process that got no processor for a second must not lose all.
  shardLockRefreshInterval: limits.shardLockTtlMs,
  shardLockExpiration: 3 * limits.shardLockTtlMs,
  // Reads memory, which the beat keeps: as fast as a node that comes or goes should be noticed.
  refreshAssignmentsInterval: 100,
  runnerHealthCheckInterval: limits.shardRefreshMs,
  // Paces the taking of shards that another node has not let go yet.
  entityMessagePollInterval: limits.shardRefreshMs / 2,
  // Handing a shard over takes milliseconds: nothing is gained by waiting for more nodes to join.
  runnerJoinDebounce: 0,
  // Who asked while a shard moved asks again so soon.
  sendRetryInterval: 50,
  // An entity keeps nothing: it may go as soon as nobody asks, and asks that still run when its shard leaves are not waited for long.
  entityMaxIdleTime: 5_000,
  entityTerminationTimeout: 200,
  // Accounts that are asked about in those seconds; some 6 KiB each.
  maxResidentEntities: 20_000,
  // Asks of one account that run at once.
  entityMailboxCapacity: 1_024,
  simulateRemoteSerialization: false
}

/** What effect says of shards and connections. Never louder: strangers' connections end with an error, too. */
const logger = Logger.make(({ message, cause }) => log.debug({ effect: message, reasons: cause.reasons.map(String) }, "cluster"))

const layerConfig = (runnerAddress: Option.Option<RunnerAddress.RunnerAddress>) => ShardingConfig.layer({ ...settings, runnerAddress })

/** A connection to each node that is asked. One that is silent is made anew within some 3 s. */
const clientProtocol = Layer.effect(Runners.RpcClientProtocol, Effect.map(RpcSerialization.RpcSerialization, (rpc) => ({
  codecFor: rpc.codecFor,
  make: ({ host, port }) => NodeSocket.makeNet({ host, port, openTimeout: 1_000 }).pipe(
    Effect.flatMap((socket) => RpcClient.makeProtocolSocket({ pingInterval: 1_000, pingTimeout: 1_500, retryPolicy: Schedule.spaced(200) }).pipe(
      Effect.provideService(Socket.Socket, socket),
      Effect.provideService(RpcSerialization.RpcSerialization, rpc)
    )),
    Effect.orDie
  )
})))

const layerMembership = (membership: Membership, isHost: boolean) => Layer.mergeAll(
  Layer.succeed(RunnerStorage.RunnerStorage, runnerStorage(membership, isHost)),
  isHost ? layerRunnerHealth(membership) : RunnerHealth.layerNoop,
  MessageStorage.layerNoop,
  Layer.succeed(RpcSerialization.RpcSerialization, serialization(() => membership.secret)),
  Logger.layer([logger])
)

export const layerAsker = (membership: Membership) => Sharding.layer.pipe(
  Layer.provide(Runners.layerRpc),
  Layer.provide(clientProtocol),
  Layer.provide(layerConfig(Option.none())),
  Layer.provide(layerMembership(membership, false))
)

/** `server`: listens already, at the address that the node has announced. `entities`: what it answers. */
export const layerHost = (membership: Membership, address: RunnerAddress.RunnerAddress, server: Layer.Layer<SocketServer.SocketServer>, entities: Layer.Layer<never, never, Sharding.Sharding>) =>
  Layer.merge(entities, RunnerServer.layer).pipe(
    Layer.provide(Sharding.layer),
    Layer.provide(Runners.layerNoop),
    Layer.provide(RpcServer.layerProtocolSocketServer),
    Layer.provide(server),
    Layer.provide(layerConfig(Option.some(address))),
    Layer.provide(layerMembership(membership, true))
  )
