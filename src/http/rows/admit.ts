/**
 * From a request to its caller, or to its refusal. A resident caller is decided
 * on the spot, without a fiber; one that must be looked up or loaded first takes
 * one. From here on the answer carries the rate headers. One whose account is
 * another node's is passed on to it, before anything is read of its body.
 */
import { Cause, Exit } from "effect"
import type { Decision, Need } from "../../kernel/Admission.ts"
import type { Caller } from "../../kernel/Caller.ts"
import type { Dialect } from "../dialect.ts"
import type { Row } from "../endpoint.ts"
import type { Exchange } from "../Exchange.ts"

/** Nothing runs for a caller who left meanwhile. What `admitted` throws is a defect of this exchange. */
const decided = (exchange: Exchange, need: Need, decision: Decision, admitted: (caller: Caller) => void): void => {
  exchange.rate = decision.rate
  if (exchange.isDone) return
  try {
    if (decision.elsewhere !== undefined) exchange.edge.hop.pass(exchange, decision.elsewhere, undefined, () => admitLater(exchange, need, admitted))
    else if (decision.error?._tag === "Overloaded" && decision.error.what === "placement") exchange.failHere(decision.error)
    else if (decision.error !== undefined) exchange.fail(decision.error)
    else admitted(decision.caller!)
  } catch (error) {
    exchange.defect(error)
  }
}

export const needOf = (dialect: Dialect, row: Row): Need => ({ dialect: dialect.name, auth: dialect.keysOnly === true && row.auth === "optional" ? "key" : row.auth, scope: row.scope, verified: row.verified, uncounted: row.uncounted, passes: true, leased: row.kind === "relay" })

/** As `admit`, by what is known now. */
export const admitLater = (exchange: Exchange, need: Need, admitted: (caller: Caller) => void): void => {
  const { admission } = exchange.edge
  exchange.edge.run(admission.admit(exchange.head.authorization, need), (exit) => {
    if (Exit.isSuccess(exit)) decided(exchange, need, exit.value, admitted)
    else exchange.defect(Cause.squash(exit.cause))
  })
}

/** Not for public rows. */
export const admit = (exchange: Exchange, need: Need, admitted: (caller: Caller) => void): void => {
  const decision = exchange.edge.admission.admitNow(exchange.head.authorization, need, exchange.receivedAtMs)
  if (decision === undefined) admitLater(exchange, need, admitted)
  else decided(exchange, need, decision, admitted)
}
