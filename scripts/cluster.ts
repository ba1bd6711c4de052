/**
 * `npm run cluster -- N`: the gateway as N processes (2 unless told) that share
 * one port, one database and one Redis. What is not named by DATABASE_URL and
 * REDIS_URL this command runs itself: the embedded PostgreSQL in DATA_DIR, as
 * `npm start` does, and a Redis that is found or unpacked.
 *
 * Guarantee: a node or a server that dies is started again. SIGINT and SIGTERM
 * stop the nodes, then the servers; a second one ends everything at once. Nothing
 * outlives this process, also when it is killed.
 *
 * The first node starts alone: it meets what is wrong with the settings, makes
 * the tables and prepares the demo; the others follow side by side.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { Assignment } from "../src/Assignment.ts"
import { BadSetting, readSettings } from "../src/config.ts"
import type { DemoFile } from "../src/kernel/Demo.ts"
import { startDemoUpstream } from "../src/runtime/DemoUpstream.ts"
import { startEmbedded } from "../src/store/Embedded.ts"
import { EmbeddedFailure } from "../src/store/PostgresBinaries.ts"
import { greeting } from "../src/web/greeting.ts"
import { NodeFailure, NodeProcess } from "./cluster/NodeProcess.ts"
import { startRedis } from "./redis/RedisServer.ts"
import { RedisFailure } from "./redis/findRedis.ts"

const nodesMax = 16

class UsageFailure extends Error {}

const say = (line: string): void => { process.stderr.write(`${line}\n`) }

const nodes: Array<NodeProcess> = []
/** Of the servers; run in reverse. */
const cleanups: Array<() => Promise<unknown>> = []

const countIn = (args: ReadonlyArray<string>): number => {
  const [text = "2", ...rest] = args
  const count = /^\d{1,2}$/.test(text) ? Number(text) : 0
  if (rest.length > 0 || count < 1 || count > nodesMax) throw new UsageFailure(`usage: npm run cluster -- N, with N from 1 to ${nodesMax}`)
  return count
}

const run = async (count: number): Promise<void> => {
  const settings = readSettings(process.env)
  if (settings.port === 0) throw new BadSetting("PORT=0 is not allowed: the nodes share one port, so name it")
  const database = settings.databaseUrl === undefined
    ? await startEmbedded({ dataDir: join(settings.dataDir, "postgres"), onProgress: say, onRestart: () => say("the embedded database was restarted") })
    : undefined
  if (database !== undefined) cleanups.push(database.stop)
  const redis = settings.redisUrl === undefined ? await startRedis({ onProgress: say, onRestart: () => say("Redis was restarted") }) : undefined
  if (redis !== undefined) cleanups.push(redis.stop)
  const upstream = settings.demo ? await startDemoUpstream() : undefined
  if (upstream !== undefined) cleanups.push(upstream.stop)

  const start = (index: number): Promise<void> => {
    const assignment: Assignment = {
      settings: {
        ...(redis === undefined ? {} : { redisUrl: redis.url }),
        // Each its own and the one after it; 0 is any that is free.
        clusterPort: settings.clusterPort === 0 ? 0 : settings.clusterPort + 2 * index
      },
      connection: database?.options ?? null,
      demo: upstream === undefined ? null : { upstreamPort: upstream.port, prepares: index === 0 }
    }
    const node = new NodeProcess(`node ${index + 1}`, assignment, say)
    nodes.push(node)
    return node.listening
  }
  await start(0)
  await Promise.all(Array.from({ length: count - 1 }, (_, at) => start(at + 1)))
  if (settings.demo) process.stdout.write(greeting(settings, JSON.parse(readFileSync(join(settings.dataDir, "demo.json"), "utf8")) as DemoFile))
  const names = nodes.map(({ name, pid }) => `${name} (pid ${pid})`)
  process.stdout.write(`  ${count} node${count === 1 ? "" : "s"} on port ${settings.port}: ${names.join(", ")}\n\n`)
}

let stopping: Promise<void> | undefined
const stop = (code: number): Promise<void> => stopping ??= (async () => {
  const failed = (cause: unknown): void => say(`tollgate: ${String(cause)}`)
  await Promise.all(nodes.map((node) => node.stop().catch(failed)))
  for (const cleanup of cleanups.reverse()) await cleanup().catch(failed)
  process.exit(code)
})()

const onSignal = (): void => {
  if (stopping === undefined) return void stop(0)
  for (const node of nodes) node.kill()
  process.exit(1)
}
process.on("SIGINT", onSignal)
process.on("SIGTERM", onSignal)

const expected = [BadSetting, EmbeddedFailure, RedisFailure, NodeFailure, UsageFailure]
try {
  await run(countIn(process.argv.slice(2)))
} catch (cause) {
  // A stop in the middle of the start ends nodes before they listen.
  if (stopping === undefined) say(`tollgate: ${expected.some((kind) => cause instanceof kind) ? (cause as Error).message : (cause as Error).stack}`)
  await stop(1)
}
