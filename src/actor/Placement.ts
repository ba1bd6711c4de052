/**
 * Which node decides for an actor. One node alone answers "local" for every
 * id; in a cluster the shard's owner does. Cheap enough to be asked at every
 * decision: it reads memory only.
 */
import { Context, Layer } from "effect"

/** `local`: decide here. `moving`: nobody may decide right now. Otherwise the owner's address. */
export type Place = "local" | "moving" | { readonly node: string }

export class Placement extends Context.Service<Placement, {
  readonly locate: (id: string) => Place
}>()("tollgate/actor/Placement") {
  static readonly layerLocal = Layer.succeed(Placement, Placement.of({ locate: () => "local" }))
}
