/**
 * This process as one node of many: `Cluster` and `Bus` on Redis and
 * effect/cluster, put together.
 *
 * Asks. An ask goes to the handlers here when the account is owned here, else to
 * the node that should own it; while the account moves it is asked again until
 * `limits.ownerAskMs` have passed, and then fails with `Overloaded`. A handler's
 * answer counts only if the account was owned here before and after it.
 *
 * An ask may be delayed, come twice, or act although its answer is lost. That is
 * harmless: asks of a node for a subject are numbered, and one that comes after a
 * later one is refused; a lease is a row that its node finds again by account,
 * node and subject, and what nobody uses of it is given back, or taken back when
 * the node is dead; what an ask closes is closed by deleting the row, which
 * happens once. A late borrow ends by itself after `limits.borrowMs`, and a late
 * return only makes the owner activate again: the borrower's commits are then
 * refused by their token.
 *
 * The port of its RPC answers only frames with the cluster's secret (Wire.ts);
 * they are not encrypted: it belongs into a private network.
 */
import { NodeSocketServer } from "@effect/platform-node-shared"
import { Cause, Context, Effect, Exit, Layer, Result, Schedule, Schema, Scope } from "effect"
import { EntityId, RunnerAddress, Sharding } from "effect/cluster"
import { SocketServer } from "effect/socket"
import { randomBytes } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import { limits } from "../config.ts"
import { GatewayError, Overloaded } from "../domain/errors.ts"
import { log } from "../telemetry/log.ts"
import { AccountEntity, type LeaseAsk, type LeaseGrant } from "./AccountRpc.ts"
import { layerAsker, layerHost } from "./AccountShards.ts"
import { Bus } from "./Bus.ts"
import { type AccountHandlers, type AccountLeaseAsk, Cluster, type Owners } from "./Cluster.ts"
import { Membership } from "./Membership.ts"
import { type Redis, RedisUnavailable, openRedis } from "./Redis.ts"
import { channelsOf, RedisBus } from "./RedisBus.ts"

/** Redis can't be reached, or not be used. One line for the operator. */
export class ClusterUnusable extends Error {
  override readonly name = "ClusterUnusable"
  /** Trying again changes nothing. */
  readonly isFinal: boolean

  constructor(message: string, isFinal: boolean) {
    super(message)
    this.isFinal = isFinal
  }
}

export interface ClusterSettings {
  readonly redisUrl: string
  readonly clusterHost: string
  readonly clusterPort: number
}

/** Accounts whose shard is remembered, some 100 B each: hashing the id costs five times as much as finding it. */
const shardsKnownMax = 50_000
/** Redis may be up a moment later than its nodes; after it the start fails. */
const startMs = 10_000
const startRetryMs = 100
/** Between two attempts of an ask while the account moves. */
const askAgainMs = 50
/** Its RPC server has so long to close once everything is handed over. */
const closeMs = 1_000
/** Of asks that came together those are not waited for that take longer. */
const togetherMs = 500

const unplaced = new Overloaded({ what: "placement", retryAfterMs: limits.shardRefreshMs })
/** Between nodes only: who was asked does not own the account. Another may. */
const notOwned = new Overloaded({ what: "owner", retryAfterMs: limits.shardRefreshMs })
const isGatewayError = Schema.is(GatewayError)
const isNotOwned = (error: GatewayError): boolean => error._tag === notOwned._tag && error.what === notOwned.what

/** `nodeId`: new at every start, without spaces. */
export const clusterLayer = (settings: ClusterSettings, nodeId: string): Layer.Layer<Cluster | Bus, ClusterUnusable> => Layer.effectContext(Effect.gen(function*() {
  const startedBy = performance.now() + startMs
  const redis = yield* connected(settings.redisUrl)
  const membership = yield* Effect.acquireRelease(
    Effect.sync(() => new Membership(redis, nodeId, randomBytes(32).toString("hex"))),
    (membership) => Effect.sync(() => membership.close())
  )
  const bus = yield* Effect.acquireRelease(Effect.sync(() => new RedisBus(redis, membership)), (bus) => Effect.sync(() => bus.close()))
  yield* usable(async () => {
    await redis.listen(channelsOf(nodeId))
    await membership.start()
  }).pipe(Effect.retry({ schedule: Schedule.spaced(startRetryMs), while: ({ isFinal }) => !isFinal && performance.now() < startedBy }))

  const scope = yield* Effect.scope
  const asker = yield* Layer.buildWithMemoMap(layerAsker(membership), Layer.makeMemoMapUnsafe(), scope)
  const sharding = Context.get(asker, Sharding.Sharding)
  const shards = new Map<string, number>()
  const shardOf = (accountId: string): number => {
    const known = shards.get(accountId)
    if (known !== undefined) return known
    const shard = sharding.getShardId(EntityId.make(accountId), "default").id
    if (shards.size >= shardsKnownMax) shards.clear()
    shards.set(accountId, shard)
    return shard
  }
  const ownerOf = (accountId: string) => membership.ownerOf(shardOf(accountId))
  const clientOf = yield* Effect.provideContext(AccountEntity.client, asker)

  let handlers: AccountHandlers | undefined
  const asOwner = <A>(accountId: string, act: (handlers: AccountHandlers) => Effect.Effect<A, GatewayError>) => {
    const owned = Effect.suspend(() => ownerOf(accountId) === "here" && handlers !== undefined ? Effect.succeed(handlers) : Effect.fail(notOwned))
    return Effect.flatMap(owned, act).pipe(Effect.tap(() => owned))
  }
  const leaseAsOwner = (accountId: string, ask: LeaseAsk) => asOwner(accountId, ({ lease }) => lease(accountId, ask))
  const leasesAsOwner = (asks: ReadonlyArray<AccountLeaseAsk>) => Effect.suspend(() => {
    const answers = Array.from<unknown, Result.Result<LeaseGrant, GatewayError>>(asks, () => Result.fail(unplaced))
    const answered = Effect.forEach(asks, ({ accountId, ask }, at) => leaseAsOwner(accountId, ask).pipe(
      Effect.catchDefect((defect) => {
        log.error({ err: defect }, "ask of an account's owner")
        return Effect.fail(unplaced)
      }),
      Effect.result,
      Effect.map((answer) => { answers[at] = answer })
    ), { concurrency: "unbounded", discard: true })
    return Effect.as(Effect.timeoutOption(answered, togetherMs), answers)
  })
  const entities = AccountEntity.toLayer(AccountEntity.of({
    Lease: ({ address, payload }) => leaseAsOwner(address.entityId, payload),
    Leases: ({ payload }) => leasesAsOwner(payload.asks),
    Borrow: ({ address, payload }) => asOwner(address.entityId, ({ borrow }) => borrow(address.entityId, payload.nodeId)),
    Return: ({ address, payload }) => Effect.ignore(asOwner(address.entityId, ({ giveBack }) => giveBack(address.entityId, payload.nodeId)))
  }), { concurrency: "unbounded", disableFatalDefects: true })

  const ask = <A>(accountId: string, here: (handlers: AccountHandlers) => Effect.Effect<A, GatewayError>, there: (owner: ReturnType<typeof clientOf>) => Effect.Effect<A, unknown>) =>
    bounded(Effect.suspend((): Effect.Effect<A, unknown> => ownerOf(accountId) === "here" ? asOwner(accountId, here) : there(clientOf(accountId))))
  const owners: Owners = {
    lease: (accountId, payload) => ask(accountId, ({ lease }) => lease(accountId, payload), (owner) => owner.Lease(payload)),
    // To whom the first of them belongs: of the others each fails by itself when it has moved.
    leases: (asks) => asks.length === 0 ? Effect.succeed([]) : ask(asks[0]!.accountId, () => leasesAsOwner(asks), (owner) => owner.Leases({ asks })),
    borrow: (accountId, by) => ask(accountId, ({ borrow }) => borrow(accountId, by), (owner) => owner.Borrow({ nodeId: by })),
    giveBack: (accountId, by) => Effect.ignore(ask(accountId, ({ giveBack }) => giveBack(accountId, by), (owner) => owner.Return({ nodeId: by })))
  }

  let hosting: Scope.Closeable | undefined
  const join = (hopPort: number) => Effect.gen(function*() {
    hosting = yield* Scope.fork(scope)
    const server = yield* Scope.provide(NodeSocketServer.make({ host: settings.clusterHost, port: settings.clusterPort }), hosting)
    const port = server.address._tag === "UnixPathAddress" ? settings.clusterPort : server.address.port
    yield* Effect.promise(() => membership.join({ nodeId, host: settings.clusterHost, port, hopPort }))
    const host = layerHost(membership, RunnerAddress.make(settings.clusterHost, port), Layer.succeed(SocketServer.SocketServer, server), entities)
    yield* Layer.buildWithMemoMap(host, Layer.makeMemoMapUnsafe(), hosting)
  }).pipe(Effect.orDie)
  const leave = Effect.gen(function*() {
    yield* Effect.promise(() => membership.leave())
    const left = hosting
    hosting = undefined
    // Answers to a node that froze or vanished may never be taken, and effect's server waits for them uninterruptibly.
    if (left !== undefined) yield* Effect.promise(() => Promise.race([Effect.runPromise(Scope.close(left, Exit.void)), sleep(closeMs, undefined, { ref: false })]))
  })

  return Context.make(Cluster, Cluster.of({
    isMany: true,
    ownerOf,
    peers: () => [...membership.nodes.values()].filter((node) => node.nodeId !== nodeId),
    isAlive: (id) => id === nodeId || membership.nodes.has(id),
    ask: owners,
    serve: (served) => { handlers = served },
    onLeaving: (listener) => { membership.leavingListeners.push((isLeaving) => listener((accountId) => isLeaving(shardOf(accountId)))) },
    onMoved: (listener) => { membership.movedListeners.push(listener) },
    join,
    leave,
    secret: () => membership.secret,
    trouble: () => membership.trouble()
  })).pipe(Context.add(Bus, Bus.of(bus.service)))
}))

const unusable = (cause: unknown) => new ClusterUnusable(`Redis can't be used: ${cause instanceof Error ? cause.message : String(cause)}`, cause instanceof RedisUnavailable && cause.isRefusal)
const usable = <A>(run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: unusable })

const connected = (url: string) => Effect.acquireRelease(
  Effect.try({ try: () => openRedis(url), catch: unusable }),
  (redis: Redis) => Effect.sync(() => redis.close())
)

/** Asks again while the account moves, and answers within `limits.ownerAskMs` what the owner said, or `Overloaded`. What was given up is not waited for. */
const bounded = <A>(attempt: Effect.Effect<A, unknown>): Effect.Effect<A, GatewayError> => {
  const again: Effect.Effect<A, GatewayError> = Effect.catchCause(attempt, (cause) => {
    const error = Cause.findError(cause)
    const isKnown = Result.isSuccess(error) && isGatewayError(error.success)
    if (isKnown && !isNotOwned(error.success)) return Effect.fail(error.success)
    // Asked again, it would fail again.
    if (Cause.hasDies(cause)) {
      log.error({ err: Cause.squash(cause) }, "ask of an account's owner")
      return Effect.fail(unplaced)
    }
    return Effect.delay(again, askAgainMs)
  })
  return Effect.callback<A, GatewayError>((resume) => {
    const fiber = Effect.runFork(again)
    const giveUp = (): void => {
      clearTimeout(overdue)
      fiber.interruptUnsafe()
    }
    const overdue = setTimeout(() => {
      resume(Effect.fail(unplaced))
      giveUp()
    }, limits.ownerAskMs)
    fiber.addObserver((exit) => {
      clearTimeout(overdue)
      resume(exit)
    })
    return Effect.sync(giveUp)
  })
}
