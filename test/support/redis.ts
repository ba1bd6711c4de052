/**
 * A real Redis for tests that kill, freeze and empty theirs. It is found or
 * unpacked as the product does; a test is never skipped for want of one.
 */
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { launch, untilDeath } from "../../scripts/redis/RedisServer.ts"
import { findRedis } from "../../scripts/redis/findRedis.ts"

export interface TestRedis {
  /** What REDIS_URL takes. */
  readonly url: string
  readonly socket: string
  readonly pid: () => number
  /** Kills it; it stays away until `start`, and is empty then. */
  readonly halt: () => Promise<void>
  readonly start: () => Promise<void>
  /** SIGSTOP: connections stay open, nothing is answered until `thaw`. */
  readonly freeze: () => void
  readonly thaw: () => void
  /** One command, without arguments that hold spaces: `command("flushall")`. Answers in Redis's own protocol. */
  readonly command: (...words: ReadonlyArray<string>) => Promise<string>
  readonly stop: () => Promise<void>
}

export const startTestRedis = async (): Promise<TestRedis> => {
  const [program, prefix] = await Promise.all([findRedis(), untilDeath()])
  const folder = mkdtempSync(join(tmpdir(), "tollgate-redis-"))
  const socket = join(folder, "redis.sock")
  let server = launch(program, prefix, socket)
  await server.ready
  const signal = (name: NodeJS.Signals): void => void server.child.kill(name)
  const halt = async (): Promise<void> => {
    signal("SIGKILL")
    await server.ended
  }
  return {
    url: `unix://${socket}`,
    socket,
    pid: () => server.child.pid ?? 0,
    halt,
    start: async () => {
      server = launch(program, prefix, socket)
      await server.ready
    },
    freeze: () => signal("SIGSTOP"),
    thaw: () => signal("SIGCONT"),
    command: async (...words) => {
      const connection = connect(socket)
      connection.write(`${words.join(" ")}\r\n`)
      const [answer] = await once(connection, "data") as [Buffer]
      connection.destroy()
      return answer.toString().trimEnd()
    },
    stop: async () => {
      await halt()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
