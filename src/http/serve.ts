/**
 * The uWS bridge: from a request to the row that answers it.
 *
 * Everything needed is copied from `req` before the handler returns. What a row
 * throws ends here as a defect: the dialect's generic 500 with the request id,
 * logged once, and the process goes on.
 *
 * Pipelining: uWS answers pipelined requests in order only while each is answered
 * on its own turn; a request behind one that is still running ends the
 * connection. Nothing is answered twice or mixed up; the caller sees a cut.
 */
import type { HttpRequest, HttpResponse, us_socket_context_t } from "uWebSockets.js"
import { Draining, InvalidRequest, MethodNotAllowed, NotFound } from "../domain/errors.ts"
import type { Edge } from "./Edge.ts"
import { Exchange } from "./Exchange.ts"
import { problemOf, readHead, type RequestHead } from "./headers.ts"
import type { Told } from "./hop/hopHead.ts"
import type { Mount, Mounts } from "./rows/mounts.ts"
import type { Upgrade } from "./rows/Target.ts"

/** Answers OPTIONS: a preflight of an allowed origin, or which methods the path has. */
const serveOptions = (exchange: Exchange, mount: Mount): void => {
  const { head, edge } = exchange
  const methods = mount.router.methods(head.path)
  if (methods.length === 0) return exchange.fail(new NotFound({ what: "path", id: head.path.slice(0, 200) }))
  if (head.header("access-control-request-method") === undefined || !edge.cors.allows(head.origin)) {
    // Only the agent could say what it takes, and it is not asked.
    if (mount.router.match(methods[0]!, head.path)?.target.isRelayed === true) return exchange.fail(new MethodNotAllowed({ allow: methods.filter((method) => method !== "HEAD") }))
    return exchange.send(204, [["allow", methods.join(", ")]], null)
  }
  exchange.send(204, edge.cors.preflightHeaders(methods, head.header("access-control-request-headers")), null)
}

const route = (exchange: Exchange, mount: Mount, upgrade: Upgrade | undefined): void => {
  const { head, edge } = exchange
  const match = mount.router.match(head.method, head.path)
  exchange.dialect = match?.target.dialect ?? mount.dialectAt(head.path)
  exchange.target = match?.target
  // What another node passes on was looked at there, and has a longer head.
  const problem = exchange.isHopped ? undefined : problemOf(head, edge.limits)
  if (problem !== undefined) {
    exchange.isUntrusted = true
    // Not on this turn: uWS would serve what is pipelined behind it. While this call is open it ends the connection instead.
    setImmediate(() => exchange.fail(problem))
    return
  }
  const refusal = exchange.dialect === undefined || exchange.isHopped ? undefined : edge.addressLimits.get(exchange.dialect)?.take(exchange.remoteAddress, exchange.receivedAtMs)
  if (refusal !== undefined) return exchange.fail(refusal)
  if (head.method === "OPTIONS") return serveOptions(exchange, mount)
  if (match === undefined) return exchange.fail(new NotFound({ what: "path", id: head.path.slice(0, 200) }))
  if (match.kind === "methodNotAllowed") return exchange.fail(new MethodNotAllowed({ allow: match.allow }))
  if (match.kind === "malformed") {
    return exchange.fail(new InvalidRequest({ malformed: true, issues: [{ loc: ["path", match.param], msg: "Not valid percent-encoded text" }] }))
  }
  // A stopping node still says that it is stopping: pages (health, readiness, metrics) go on.
  if (edge.draining && match.target.dialect !== undefined) return exchange.failHere(new Draining({ retryAfterMs: 1_000 }))
  match.target.serve(exchange, match.params, upgrade)
}

const begin = (edge: Edge, mounts: Mounts, response: HttpResponse, head: RequestHead, told: Told | undefined, upgrade: Upgrade | undefined): void => {
  const exchange = new Exchange(edge, response, head, told)
  try {
    route(exchange, mounts.at(exchange.head.host), upgrade)
  } catch (error) {
    exchange.defect(error)
  }
}

/** The handlers of the two ports. */
export interface Handlers {
  readonly any: (response: HttpResponse, request: HttpRequest) => void
  readonly upgrade: (response: HttpResponse, request: HttpRequest, context: us_socket_context_t) => void
  /** Where other nodes pass calls on. A connection that is no node's is closed without a word. */
  readonly hopped: (response: HttpResponse, request: HttpRequest) => void
}

export const handlers = (edge: Edge, mounts: Mounts): Handlers => ({
  any: (response, request) => begin(edge, mounts, response, readHead(request), undefined, undefined),
  upgrade: (response, request, context) => begin(edge, mounts, response, readHead(request), undefined, { key: request.getHeader("sec-websocket-key"), context }),
  hopped: (response, request) => {
    const head = readHead(request)
    const told = edge.hop.told(head)
    if (told === undefined) response.close()
    else begin(edge, mounts, response, head, told, undefined)
  }
})
