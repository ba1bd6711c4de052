/**
 * News between nodes, through Redis pub/sub. News may be lost; that some was
 * lost is noticed: every message to all raises one counter in Redis, which each
 * node compares with what it has heard at least every half second. Whoever
 * missed one hears `missed`, and must then believe nothing it remembers.
 */
import { Context, Layer } from "effect"

export type News =
  /** An agent has this version. */
  | { readonly _tag: "agent"; readonly id: string; readonly version: bigint }
  /** An account's row was written past its actor; `token`: its own after the change. */
  | { readonly _tag: "account"; readonly id: string; readonly token: bigint | undefined }
  /** A key or a person's logins are good no more. */
  | { readonly _tag: "revoked"; readonly subjectId: string }
  | { readonly _tag: "webhooks"; readonly accountId: string }
  /** A session has another term, or is closed: whoever has an earlier one lets it go. */
  | { readonly _tag: "session"; readonly id: string; readonly term: bigint }
  /** Give back what is not in use of the leases of an account: all of its subjects, or one. */
  | { readonly _tag: "recall"; readonly accountId: string; readonly subjectId: string | undefined }
  | { readonly _tag: "missed" }

export class Bus extends Context.Service<Bus, {
  /** Tells every other node; kept and sent again until Redis has it. */
  readonly tell: (news: News) => void
  /** Tells one node, once. It may be lost without anybody noticing. */
  readonly tellNode: (nodeId: string, news: News) => void
  readonly onNews: (listener: (news: News) => void) => void
}>()("tollgate/cluster/Bus") {
  static readonly layerAlone = Layer.succeed(Bus, Bus.of({ tell: () => {}, tellNode: () => {}, onNews: () => {} }))
}
