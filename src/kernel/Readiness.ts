/**
 * Whether this node should be sent calls. Asked by `/ready` on each probe, so
 * `check` must answer from memory. A node that is not ready still answers what
 * reaches it; readiness steers balancers, it refuses nobody.
 */
import { Context } from "effect"

export class Readiness extends Context.Service<Readiness, {
  /** `reasons` say what is missing, for an operator; empty when ready. */
  check(): { readonly ready: boolean; readonly reasons: ReadonlyArray<string> }
}>()("tollgate/kernel/Readiness") {}
