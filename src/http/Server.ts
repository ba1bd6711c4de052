/**
 * The port: one uWS app that serves every dialect and the gateway's own pages.
 *
 * Drain, once: the port closes, `/ready` turns 503, calls that still arrive on
 * open connections are refused with `Draining`, event streams end, the sessions
 * of sockets are told, and calls under way, handlers whose caller has left and
 * sockets have `drainMs` to end. Then sockets are closed with 1001, and every
 * connection is cut. The layer's end
 * drains by itself; `drain` lets `main` do it before other layers stop.
 */
import { Context, Effect, Layer } from "effect"
import uWS from "uWebSockets.js"
import { Config } from "../config.ts"
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
import { handlers } from "./serve.ts"

/** The port can't be had: taken, or not ours to take. One line for the operator. */
export class ListenFailed extends Error {
  override readonly name = "ListenFailed"
  constructor(host: string, port: number) {
    super(`HOST=${host} PORT=${port} can't be listened on: in use, not allowed, or no address of this machine`)
  }
}

export interface ServerOptions<R> {
  readonly dialects: ReadonlyArray<Dialect<R>>
  readonly version: string
  readonly limits?: Partial<EdgeLimits>
}

export class Server extends Context.Service<Server, {
  /** The port that was opened; differs from the setting when that is 0. */
  readonly port: number
  /** Refuses new calls and waits for those under way, at most `drainMs`. Runs once; later calls wait for the same drain. */
  readonly drain: Effect.Effect<void>
}>()("tollgate/http/Server") {
  static readonly layer = <R>(options: ServerOptions<R>) => Layer.effect(Server, make(options))
}

/** uWS shares ports by default: two gateways with different data would answer in turns. */
const exclusivePort = 1
/** A form that uWS takes and its types leave out. */
type ListenOn = (host: string, port: number, options: number, done: (socket: uWS.us_listen_socket | false) => void) => unknown

const listen = (app: uWS.TemplatedApp, host: string, port: number): Effect.Effect<uWS.us_listen_socket, ListenFailed> =>
  Effect.callback((resume) => {
    const listenOn = app.listen as unknown as ListenOn
    listenOn.call(app, host, port, exclusivePort, (socket) => {
      resume(socket === false ? Effect.fail(new ListenFailed(host, port)) : Effect.succeed(socket))
    })
  })

const make = Effect.fnUntraced(function*<R>({ dialects, version, limits }: ServerOptions<R>) {
  const settings = yield* Config
  const edge = new Edge({
    limits: { ...edgeLimits, ...limits },
    settings,
    dialects,
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
  const { any, upgrade } = handlers(edge, mounts)
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
  const socket = yield* listen(app, settings.host, settings.port)
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
  return Server.of({ port: uWS.us_socket_local_port(socket), drain })
})
