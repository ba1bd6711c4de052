/**
 * The port: one uWS app that serves every dialect and the gateway's own pages.
 * One node of many has a second one, where the others pass calls on.
 *
 * Drain, once: the port closes, `/ready` turns 503, calls that still arrive on
 * open connections are refused with `Draining`, event streams end, the sessions
 * of sockets are told, and calls under way, handlers whose caller has left and
 * sockets have `drainMs` to end. Then sockets are closed with 1001, and every
 * connection is cut. The layer's end
 * drains by itself; `drain` lets `main` do it before other layers stop.
 */
import { Context, Effect, Layer } from "effect"
import type uws from "uWebSockets.js"
import { createRequire } from "node:module"
import { Cluster } from "../cluster/Cluster.ts"
import { Config, type Settings } from "../config.ts"
import { Admission } from "../kernel/Admission.ts"
import { Idempotency } from "../kernel/Idempotency.ts"
import { Readiness } from "../kernel/Readiness.ts"
import { Relay } from "../kernel/Relay.ts"
import { gauge } from "../telemetry/Metrics.ts"
import { compileCors } from "./cors.ts"
import type { Dialect } from "./dialect.ts"
import { Edge, edgeLimits, type EdgeLimits } from "./Edge.ts"
import { pagesOf } from "./pages.ts"
import { trustProxies } from "./address/remoteAddress.ts"
import { compileMounts } from "./rows/mounts.ts"
import { type SocketData, WebSocketHub } from "./rows/serveSocket.ts"
import { type Handlers, handlers } from "./serve.ts"

/** The port can't be had: taken, or not ours to take. One line for the operator. */
export class ListenFailed extends Error {
  override readonly name = "ListenFailed"
  /** `where`: settings and their values. */
  constructor(where: string) {
    super(`${where} can't be listened on: in use, not allowed, or no address of this machine`)
  }
}

/**
 * uWS reads it when it is loaded: how much it keeps of a request's head that comes in pieces. By itself that is 4 KiB, and a
 * longer head is refused or not as the network cuts it. This is more than the edge's own bounds and what nodes add let through.
 */
process.env["UWS_HTTP_MAX_HEADERS_SIZE"] = String(32 * 1024)
const uWS = createRequire(import.meta.url)("uWebSockets.js") as typeof uws

export interface ServerOptions<R> {
  readonly dialects: ReadonlyArray<Dialect<R>>
  readonly version: string
  readonly limits?: Partial<EdgeLimits>
}

export class Server extends Context.Service<Server, {
  /** The port that was opened; differs from the setting when that is 0. */
  readonly port: number
  /** Where other nodes pass calls on; `undefined`: there are none. */
  readonly hopPort: number | undefined
  /** Refuses new calls and waits for those under way, at most `drainMs`. Runs once; later calls wait for the same drain. */
  readonly drain: Effect.Effect<void>
}>()("tollgate/http/Server") {
  static readonly layer = <R>(options: ServerOptions<R>) => Layer.effect(Server, make(options))
}

/** Nodes of one gateway share their port on one host; two gateways with different data would answer in turns. */
const shared = 0
const exclusive = 1
/** A form that uWS takes and its types leave out. */
type ListenOn = (host: string, port: number, options: number, done: (socket: uws.us_listen_socket | false) => void) => unknown

const listen = (app: uws.TemplatedApp, host: string, port: number, options: number, where: string): Effect.Effect<uws.us_listen_socket, ListenFailed> =>
  Effect.callback((resume) => {
    const listenOn = app.listen as unknown as ListenOn
    listenOn.call(app, host, port, options, (socket) => {
      resume(socket === false ? Effect.fail(new ListenFailed(where)) : Effect.succeed(socket))
    })
  })

/** Beside the port of the cluster, or a free one. Open until the end, so that a stopping node can say so to the others. Answers the port. */
const listenForNodes = Effect.fnUntraced(function*(hopped: Handlers["hopped"], { clusterHost: host, clusterPort }: Settings) {
  const port = clusterPort === 0 ? 0 : clusterPort + 1
  const app = yield* Effect.acquireRelease(Effect.sync(() => uWS.App().any("/*", hopped)), (app) => Effect.sync(() => app.close()))
  return uWS.us_socket_local_port(yield* listen(app, host, port, exclusive, clusterPort === 0 ? `CLUSTER_HOST=${host}` : `CLUSTER_HOST=${host}, port ${port} (CLUSTER_PORT + 1)`))
})

const make = Effect.fnUntraced(function*<R>({ dialects, version, limits }: ServerOptions<R>) {
  const settings = yield* Config
  const cluster = yield* Cluster
  const edge = new Edge({
    limits: { ...edgeLimits, ...limits },
    settings,
    dialects,
    cluster,
    cors: compileCors(settings, dialects.flatMap((dialect) => dialect.rateHeaders({ limit: 1, remaining: 1, resetMs: 1 }).map(([name]) => name.toLowerCase()))),
    admission: yield* Admission,
    idempotency: yield* Idempotency,
    relay: yield* Relay,
    context: yield* Effect.context<R>(),
    remoteAddress: trustProxies(settings.trustedProxies)
  })
  const hub = new WebSocketHub(edge.limits.socketPingSeconds)
  const pages = pagesOf({
    settings, dialects, version,
    readiness: yield* Readiness,
    isDraining: () => edge.draining,
    flush: () => mounts.targets.forEach((target) => target.meter.flush())
  })
  const mounts = compileMounts(dialects, pages, settings)
  const { any, upgrade, hopped } = handlers(edge, mounts)
  gauge("tollgate_calls_under_way", "Calls whose answer or handler is not complete", () => edge.underWay)
  gauge("tollgate_sockets_open", "Live WebSockets", () => hub.size)

  const app = yield* Effect.acquireRelease(
    Effect.sync(() => uWS.App().ws<SocketData>("/*", { ...hub.behavior(edge), upgrade }).any("/*", any)),
    (app) => Effect.sync(() => {
      app.close()
      edge.close()
    })
  )
  yield* Effect.acquireRelease(Effect.sync(() => setInterval(() => hub.pingSome(), 1_000)), (timer) => Effect.sync(() => clearInterval(timer)))
  const socket = yield* listen(app, settings.host, settings.port, cluster.isMany ? shared : exclusive, `HOST=${settings.host} PORT=${settings.port}`)
  const hopPort = cluster.isMany ? yield* listenForNodes(hopped, settings) : undefined
  const drain = yield* Effect.cached(Effect.suspend(() => {
    uWS.us_listen_socket_close(socket)
    edge.draining = true
    for (const stop of [...edge.streams]) stop()
    return Effect.all([edge.idle, hub.stopped], { concurrency: 2, discard: true }).pipe(
      Effect.race(Effect.sleep(edge.limits.drainMs)),
      Effect.tap(() => Effect.sync(() => hub.closeAll(1001, "server_shutdown")))
    )
  }))
  yield* Effect.addFinalizer(() => drain)
  return Server.of({ port: uWS.us_socket_local_port(socket), hopPort, drain })
})
