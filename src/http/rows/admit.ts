/**
 * From a request to its caller, or to its refusal. A resident caller is decided
 * on the spot, without a fiber; one that must be looked up or loaded first takes
 * one. From here on the answer carries the rate headers.
 */
import { Cause, Exit } from "effect"
import type { Decision, Need } from "../../kernel/Admission.ts"
import type { Caller } from "../../kernel/Caller.ts"
import type { Dialect } from "../dialect.ts"
import type { Row } from "../endpoint.ts"
import type { Exchange } from "../Exchange.ts"

/** Nothing runs for a caller who left meanwhile. What `admitted` throws is a defect of this exchange. */
const decided = (exchange: Exchange, decision: Decision, admitted: (caller: Caller) => void): void => {
  exchange.rate = decision.rate
  if (exchange.isDone) return
  try {
    if (decision.error !== undefined) exchange.fail(decision.error)
    else admitted(decision.caller!)
  } catch (error) {
    exchange.defect(error)
  }
}

export const needOf = (dialect: Dialect, row: Row): Need => ({ dialect: dialect.name, auth: dialect.keysOnly === true && row.auth === "optional" ? "key" : row.auth, scope: row.scope, verified: row.verified, uncounted: row.uncounted })

/** Not for public rows. */
export const admit = (exchange: Exchange, need: Need, admitted: (caller: Caller) => void): void => {
  const { admission } = exchange.edge
  const { authorization } = exchange.head
  const decision = admission.admitNow(authorization, need, exchange.receivedAtMs)
  if (decision !== undefined) return decided(exchange, decision, admitted)
  exchange.edge.run(admission.admit(authorization, need), (exit) => {
    if (Exit.isSuccess(exit)) decided(exchange, exit.value, admitted)
    else exchange.defect(Cause.squash(exit.cause))
  })
}
