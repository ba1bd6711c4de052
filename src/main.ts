/**
 * The program: settings, database, gateway, and a stop that loses nothing.
 *
 * A stop (SIGINT, SIGTERM) closes the port, lets calls in flight and running
 * orders finish (at most `drainMs`), writes what is buffered, and stops the
 * embedded database last. A second signal ends at once; what was acknowledged
 * is durable all the same.
 */
// First, before any schema is compiled.
import "effect/schema/SchemaJITCompiler/enable"
import { Effect, ManagedRuntime } from "effect"
import { join } from "node:path"
import { BadSetting, type Settings, readSettings } from "./config.ts"
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

const drain = Effect.gen(function*() {
  const server = yield* Server
  const orders = yield* Orders
  const chat = yield* Chat
  yield* Effect.all([server.drain, orders.drain, chat.drain], { concurrency: 3 })
  yield* UsageBuffer.use((usage) => usage.flush)
  yield* Committer.use((committer) => committer.drained)
})

const run = async (settings: Settings, cleanups: Array<Cleanup>): Promise<void> => {
  const connection = await openDatabase(settings, cleanups)
  const upstream = settings.demo ? await startDemoUpstream() : undefined
  if (upstream !== undefined) cleanups.push(upstream.stop)
  const runtime = ManagedRuntime.make(gatewayLayer(settings, connection))
  cleanups.push(() => runtime.dispose())
  const { port } = await runtime.runPromise(Server)
  cleanups.push(() => runtime.runPromise(drain))
  void runtime.runPromise(Orders.use((orders) => orders.recover)).catch((cause: unknown) => log.warn({ err: cause }, "recovery of orders failed; activations will do it"))
  log.info({ host: settings.host, port, demo: settings.demo }, "listening")
  if (upstream === undefined) return
  const origin = `http://127.0.0.1:${upstream.port}`
  const demo = await runtime.runPromise(Effect.gen(function*() {
    yield* UpstreamGuard.use((guard) => Effect.sync(() => guard.allow(`127.0.0.1:${upstream.port}`)))
    return yield* prepareDemo(origin)
  }))
  process.stdout.write(greeting(settings, demo))
}

/** The one line for an operator, when the failure is one that an operator can mend. */
const lineOf = (cause: unknown): string | undefined => {
  if (cause instanceof BadSetting || cause instanceof ListenFailed || cause instanceof DatabaseUnusable) return cause.message
  return cause instanceof Error && cause.name === "EmbeddedFailure" ? cause.message : undefined
}

const main = async (): Promise<void> => {
  const cleanups: Array<Cleanup> = []
  let stopping: Promise<void> | undefined
  const stop = (code: number): Promise<void> => stopping ??= (async () => {
    for (const cleanup of cleanups.reverse()) await cleanup().catch((cause: unknown) => log.error({ err: cause }, "stop"))
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
    await run(readSettings(process.env), cleanups)
  } catch (cause) {
    const line = lineOf(cause)
    if (line === undefined) log.fatal({ err: cause }, "the gateway can't start")
    else say(`tollgate: ${line}`)
    await stop(1)
  }
}

await main()
