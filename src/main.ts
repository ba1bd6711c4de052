/**
 * The program: settings, database, gateway, and a stop that loses nothing.
 *
 * A node of many joins the others when its port is open, and is "listening" when
 * it has joined. A stop (SIGINT, SIGTERM) hands its accounts over while it still
 * serves, closes the port, lets calls in flight and running orders finish (at
 * most `drainMs`), writes what is buffered, and stops the embedded database last.
 * A second signal ends at once; what was acknowledged is durable all the same.
 */
// First, before any schema is compiled.
import "effect/schema/SchemaJITCompiler/enable"
import { Effect, ManagedRuntime } from "effect"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { type Assignment, takeAssignment, tellListening } from "./Assignment.ts"
import { Cluster } from "./cluster/Cluster.ts"
import { ClusterUnusable } from "./cluster/ClusterNode.ts"
import { BadSetting, type Settings, limits, readSettings } from "./config.ts"
import { DatabaseUnusable, gatewayLayer } from "./gateway.ts"
import { ListenFailed, Server } from "./http/Server.ts"
import { Chat } from "./kernel/chat/Chat.ts"
import { prepareDemo } from "./kernel/Demo.ts"
import { Orders } from "./kernel/Orders.ts"
import { UpstreamGuard } from "./kernel/upstream/UpstreamGuard.ts"
import { startDemoUpstream } from "./runtime/DemoUpstream.ts"
import { Committer } from "./store/Committer.ts"
import { startEmbedded } from "./store/Embedded.ts"
import { UsageBuffer } from "./store/UsageBuffer.ts"
import { log } from "./telemetry/log.ts"
import { greeting } from "./web/greeting.ts"

/** Longer than any step of a stop takes by its own bounds. */
const stepMs = 2 * limits.drainMs

type Cleanup = () => Promise<unknown>

const say = (line: string): void => { process.stderr.write(`${line}\n`) }

const openDatabase = async (settings: Settings, cleanups: Array<Cleanup>) => {
  if (settings.databaseUrl !== undefined) return settings.databaseUrl
  const server = await startEmbedded({
    dataDir: join(settings.dataDir, "postgres"),
    onProgress: say,
    onRestart: () => log.warn("the embedded database was restarted")
  })
  cleanups.push(server.stop)
  return server.options
}

/** Where the demo's agents are, and whether this process is the one that lists them. */
const openDemo = async (settings: Settings, cleanups: Array<Cleanup>): Promise<Assignment["demo"]> => {
  if (!settings.demo) return null
  const { port, stop } = await startDemoUpstream()
  cleanups.push(stop)
  return { upstreamPort: port, prepares: true }
}

const drain = Effect.gen(function*() {
  const server = yield* Server
  const orders = yield* Orders
  const chat = yield* Chat
  yield* Effect.all([server.drain, orders.drain, chat.drain], { concurrency: 3 })
  yield* UsageBuffer.use((usage) => usage.flush)
  yield* Committer.use((committer) => committer.drained)
})

const run = async (settings: Settings, assigned: Assignment | undefined, cleanups: Array<Cleanup>): Promise<void> => {
  const connection = assigned?.connection ?? await openDatabase(settings, cleanups)
  const demo = assigned === undefined ? await openDemo(settings, cleanups) : assigned.demo
  const runtime = ManagedRuntime.make(gatewayLayer(settings, connection))
  cleanups.push(() => runtime.dispose())
  const { port, hopPort } = await runtime.runPromise(Server)
  cleanups.push(() => runtime.runPromise(drain))
  if (hopPort !== undefined) {
    await runtime.runPromise(Cluster.use((cluster) => cluster.join(hopPort)))
    cleanups.push(() => runtime.runPromise(Cluster.use((cluster) => cluster.leave)))
  }
  void runtime.runPromise(Orders.use((orders) => orders.recover)).catch((cause: unknown) => log.warn({ err: cause }, "recovery of orders failed; activations will do it"))
  log.info({ host: settings.host, port, hopPort, demo: settings.demo }, "listening")
  if (demo !== null) {
    const upstream = `127.0.0.1:${demo.upstreamPort}`
    await runtime.runPromise(UpstreamGuard.use((guard) => Effect.sync(() => guard.allow(upstream))))
    const prepared = demo.prepares ? await runtime.runPromise(prepareDemo(`http://${upstream}`)) : undefined
    if (assigned === undefined && prepared !== undefined) process.stdout.write(greeting(settings, prepared))
  }
  if (assigned !== undefined) tellListening()
}

/** The one line for an operator, when the failure is one that an operator can mend. */
const lineOf = (cause: unknown): string | undefined => {
  if (cause instanceof BadSetting || cause instanceof ListenFailed || cause instanceof DatabaseUnusable || cause instanceof ClusterUnusable) return cause.message
  return cause instanceof Error && cause.name === "EmbeddedFailure" ? cause.message : undefined
}

/** What is over by then is over: a stop that hangs would have to be killed, and what was acknowledged is durable. */
const inTime = (step: Promise<unknown>): Promise<unknown> => Promise.race([step, sleep(stepMs).then(() => { throw new Error(`not over after ${stepMs} ms`) })])

const main = async (): Promise<void> => {
  const cleanups: Array<Cleanup> = []
  let stopping: Promise<void> | undefined
  const stop = (code: number): Promise<void> => stopping ??= (async () => {
    for (const cleanup of cleanups.reverse()) await inTime(cleanup()).catch((cause: unknown) => log.error({ err: cause }, "stop"))
    process.exit(code)
  })()
  const onSignal = (signal: string): void => {
    if (stopping !== undefined) process.exit(1)
    log.info({ signal }, "stopping")
    void stop(0)
  }
  process.on("SIGINT", onSignal)
  process.on("SIGTERM", onSignal)
  try {
    const assigned = await takeAssignment()
    await run({ ...readSettings(process.env), ...assigned?.settings }, assigned, cleanups)
  } catch (cause) {
    const line = lineOf(cause)
    if (line === undefined) log.fatal({ err: cause }, "the gateway can't start")
    else say(`tollgate: ${line}`)
    await stop(1)
  }
}

await main()
