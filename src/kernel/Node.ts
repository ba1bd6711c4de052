/** This process among those that share the database: a new name at every start. */
import { Context, Layer } from "effect"
import { newId } from "./Ids.ts"

export class Node extends Context.Service<Node, { readonly id: string }>()("tollgate/kernel/Node") {
  static readonly layer = Layer.sync(Node, () => Node.of({ id: newId<string>() }))
}
