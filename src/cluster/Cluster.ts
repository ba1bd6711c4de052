/**
 * This node among many: who owns which account, how to ask an owner, and how a
 * node comes and goes. One node alone owns everything (`layerAlone`).
 *
 * effect/cluster's Sharding divides the shards; their locks, with term and time
 * to live, are in Redis. Redis decides who should own; the fencing token in
 * Postgres decides who may write.
 */
import { Context, Effect, Layer, type Result } from "effect"
import type { GatewayError } from "../domain/errors.ts"
import type { LeaseAsk, LeaseGrant } from "./AccountRpc.ts"

/** Another node, as it announced itself. */
export interface Peer {
  readonly nodeId: string
  /** Of its cluster RPC. */
  readonly host: string
  readonly port: number
  /** Where it takes calls that other nodes pass on, on the same host. */
  readonly hopPort: number
}

/** `moving`: nobody may decide right now, or this node can't know who may. */
export type Owner = "here" | "moving" | Peer

export interface AccountHandlers {
  readonly lease: (accountId: string, ask: LeaseAsk) => Effect.Effect<LeaseGrant, GatewayError>
  /** Answers what calls in flight at the owner hold of the account, leases apart. */
  readonly borrow: (accountId: string, nodeId: string) => Effect.Effect<bigint, GatewayError>
  readonly giveBack: (accountId: string, nodeId: string) => Effect.Effect<void>
}

/** How an owner is asked, wherever it is. */
export interface Owners extends AccountHandlers {
  /** Asks that nobody waits for, of accounts with the same owner; answers in their order. One that takes long fails and keeps none of the others waiting. At most `asksTogetherMax`. */
  readonly leases: (asks: ReadonlyArray<AccountLeaseAsk>) => Effect.Effect<ReadonlyArray<Result.Result<LeaseGrant, GatewayError>>, GatewayError>
}

export interface AccountLeaseAsk {
  readonly accountId: string
  readonly ask: LeaseAsk
}

/** They fit into a frame (Wire.ts), with room to spare. */
export const asksTogetherMax = 200

export class Cluster extends Context.Service<Cluster, {
  /** Whether there may be other nodes at all. */
  readonly isMany: boolean
  /** Who owns the account now. Memory only, cheap enough for every decision; past the trust window nothing is "here". */
  readonly ownerOf: (accountId: string) => Owner
  /** Other nodes that live. */
  readonly peers: () => ReadonlyArray<Peer>
  /** False once the node's record in Redis has expired or was removed; true for this node. While Redis does not answer, nobody is declared dead. */
  readonly isAlive: (nodeId: string) => boolean
  /** Asks the owner, wherever it is. Fails with `Overloaded` when it can't be reached in time; whether it acted is then unknown. */
  readonly ask: Owners
  /** What this node does as an owner. Set once, before `join`. */
  readonly serve: (handlers: AccountHandlers) => void
  /** Called when shards leave this node, before their locks are let go: `isLeaving` tells which ids. The lock waits for the promise, at most `limits.handoffMs`. */
  readonly onLeaving: (listener: (isLeaving: (accountId: string) => boolean) => Promise<void>) => void
  /** Called whenever answers of `ownerOf` may have changed. */
  readonly onMoved: (listener: () => void) => void
  /** Starts to own shards. `hopPort` is announced with it. */
  readonly join: (hopPort: number) => Effect.Effect<void>
  /** Hands every shard over and stops owning; `ownerOf` keeps answering. Runs once. */
  readonly leave: Effect.Effect<void>
  /** What nodes prove to each other that they belong together. Another one after Redis was emptied, if a new node was the first to fill it. */
  readonly secret: () => string
  /** Why this node can't be trusted to know who owns what; `undefined`: it can. */
  readonly trouble: () => string | undefined
}>()("tollgate/cluster/Cluster") {
  static readonly layerAlone = Layer.succeed(Cluster, Cluster.of({
    isMany: false,
    ownerOf: () => "here",
    peers: () => [],
    isAlive: () => true,
    ask: { lease: () => Effect.die("alone"), leases: () => Effect.die("alone"), borrow: () => Effect.die("alone"), giveBack: () => Effect.void },
    serve: () => {},
    onLeaving: () => {},
    onMoved: () => {},
    join: () => Effect.void,
    leave: Effect.void,
    secret: () => "",
    trouble: () => undefined
  }))
}
