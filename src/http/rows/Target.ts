/** What a route leads to: a row of a dialect made ready at boot, or one of the gateway's own pages. */
import type { us_socket_context_t } from "uWebSockets.js"
import type { Dialect } from "../dialect.ts"
import type { Exchange } from "../Exchange.ts"
import type { RowMeter } from "./RowMeter.ts"

/** The request asks for a WebSocket. */
export interface Upgrade {
  readonly key: string
  readonly context: us_socket_context_t
}

export interface Target {
  readonly dialect: Dialect | undefined
  readonly meter: RowMeter
  /** Answered by an agent. */
  readonly isRelayed?: boolean
  /** Events without an end. */
  readonly isStream?: boolean
  /** Answers, now or later. What it throws is a defect. */
  serve(exchange: Exchange, params: Readonly<Record<string, string>>, upgrade: Upgrade | undefined): void
}
