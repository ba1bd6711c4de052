/**
 * `relay` rows: the hot path. With a resident caller everything up to the kernel's
 * relay happens on the turn that the request came in, without a fiber.
 */
import { BodyTooLarge, MethodNotAllowed } from "../../domain/errors.ts"
import type { Caller } from "../../kernel/Caller.ts"
import { AnswerFilter } from "../../kernel/upstream/hopByHop.ts"
import { UwsDownstream } from "../Downstream.ts"
import type { Dialect } from "../dialect.ts"
import type { RelayRow } from "../endpoint.ts"
import { admit, admitLater, needOf } from "./admit.ts"
import { RowMeter } from "./RowMeter.ts"
import type { Target } from "./Target.ts"

/** `owned`: header names that the edge writes itself on this dialect's answers. */
export const relayTarget = (dialect: Dialect, row: RelayRow, owned: ReadonlyArray<string>): Target => {
  if (row.auth === "public") throw new Error(`${row.id}: a relay needs a caller to account to`)
  const need = needOf(dialect, row)
  const dress = { ...row.dress, answer: new AnswerFilter([...row.drops, ...owned]) }
  return {
    dialect,
    meter: new RowMeter(row.id),
    isRelayed: true,
    serve: (exchange, params) => {
      // A HEAD would run the agent for an answer that nobody sees.
      if (exchange.head.method !== row.method) return exchange.fail(new MethodNotAllowed({ allow: row.allow }))
      const admitted = (caller: Caller): void => {
        const bytesMax = exchange.edge.limits.relayBodyBytesMax
        if ((exchange.head.contentLength ?? 0) > bytesMax) return exchange.fail(new BodyTooLarge({ bytesMax }))
        exchange.edge.relay.call(caller, row.agent(params), dress, new UwsDownstream(exchange, again), row.tail(params))
      }
      const again = (): void => admitLater(exchange, need, admitted)
      admit(exchange, need, admitted)
    }
  }
}
