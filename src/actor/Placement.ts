/**
 * Which node decides for an actor. One node alone answers "local" for every
 * id; in a cluster the shard's owner does. Cheap enough to be asked at every
 * decision: it reads memory only.
 */
import { Context, Effect, Layer } from "effect"
import { Cluster, type Peer } from "../cluster/Cluster.ts"

/** `local`: decide here. `moving`: nobody may decide right now. Otherwise the owner. */
export type Place = "local" | "moving" | Peer

export class Placement extends Context.Service<Placement, {
  readonly locate: (id: string) => Place
  /** Called whenever a place may have changed. */
  readonly onMoved: (listener: () => void) => void
}>()("tollgate/actor/Placement") {
  static readonly layer = Layer.effect(Placement, Effect.map(Cluster, ({ isMany, ownerOf, onMoved }) => Placement.of({
    locate: isMany ? (id) => {
      const owner = ownerOf(id)
      return owner === "here" ? "local" : owner
    } : () => "local",
    onMoved
  })))

  static readonly layerLocal = Layer.provide(Placement.layer, Cluster.layerAlone)
}
