/**
 * A Redis server of our own, for nodes on this machine: reached by a Unix socket
 * that only this user may open, without a TCP port, and without a byte on disk:
 * what nodes keep in it is rebuilt when it starts empty.
 *
 * Guarantee: once `startRedis` answers, it accepts connections. A server that
 * dies is started again on the same socket until `stop`. It ends with the
 * process that started it, also when that is killed (on Linux; the kernel does
 * it, through setpriv).
 */
import { type ChildProcess, execFile, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { RedisFailure, type RedisProgram, findRedis } from "./findRedis.ts"

export interface RedisServer {
  /** What REDIS_URL takes. */
  readonly url: string
  readonly socket: string
  /** The server's process; while it is being restarted, the last one's. */
  readonly pid: () => number
  /** Safe to call twice. */
  readonly stop: () => Promise<void>
}

export interface RedisOptions {
  /** Lines for a human who waits. */
  readonly onProgress?: (line: string) => void
  /** The server had died and accepts connections again. */
  readonly onRestart?: () => void
}

const restartMinMs = 100
const restartMaxMs = 2_000

/** Takes some 30 ms, besides what finding the program takes. The answer keeps this process alive until it is stopped. */
export const startRedis = async ({ onProgress, onRestart = () => {} }: RedisOptions = {}): Promise<RedisServer> => {
  const program = await findRedis(onProgress)
  const folder = mkdtempSync(join(tmpdir(), "tollgate-redis-"))
  const removeFolder = (): void => rmSync(folder, { recursive: true, force: true })
  const prefix = await untilDeath()
  const socket = join(folder, "redis.sock")
  let server = launch(program, prefix, socket)
  await server.ready.catch((cause: unknown) => {
    removeFolder()
    throw cause
  })

  const killNow = (): void => void server.child.kill("SIGKILL")
  process.once("exit", killNow)

  const stopping = new AbortController()
  let delayMs = restartMinMs
  const watch = async (): Promise<void> => {
    for (;;) {
      await server.ended
      if (!stopping.signal.aborted) await sleep(delayMs, undefined, { signal: stopping.signal }).catch(() => {})
      if (stopping.signal.aborted) return
      delayMs = Math.min(delayMs * 2, restartMaxMs)
      server = launch(program, prefix, socket)
      server.ready.then(() => {
        delayMs = restartMinMs
        onRestart()
      }, () => {}) // It has ended then, and is tried again.
    }
  }
  const watched = watch()
  return {
    url: `unix://${socket}`,
    socket,
    pid: () => server.child.pid ?? 0,
    stop: async () => {
      stopping.abort()
      killNow() // There is nothing that it could lose.
      await watched
      process.off("exit", killNow)
      removeFolder()
    }
  }
}

interface Launched {
  readonly child: ChildProcess
  /** Accepts connections; fails when it ended before. */
  readonly ready: Promise<void>
  readonly ended: Promise<void>
}

/** A session of its own: Ctrl-C in a terminal reaches the nodes first. */
export const launch = ({ bin, env }: RedisProgram, prefix: ReadonlyArray<string>, socket: string): Launched => {
  rmSync(socket, { force: true })
  const [command = bin, ...args] = [...prefix, bin, "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700", "--save", "", "--appendonly", "no", "--daemonize", "no"]
  const child = spawn(command, args, { cwd: "/", detached: true, env, stdio: ["ignore", "pipe", "ignore"] })
  const lines: Array<string> = []
  const ended = new Promise<void>((done) => {
    child.once("exit", () => done())
    child.once("error", (cause) => {
      lines.push(cause.message)
      done()
    })
  })
  const ready = new Promise<void>((done, fail) => {
    createInterface({ input: child.stdout! }).on("line", (line) => {
      if (lines.push(line) > 20) lines.shift()
      if (/ready to accept connections/i.test(line)) done()
    }).once("close", () => fail(new RedisFailure(`the Redis server did not start: ${lines.at(-1) ?? "no reason given"}`)))
  })
  ready.catch(() => {}) // Whoever waits for it sees it.
  return { child, ready, ended }
}

/** The words before a command that make it end with this process, where there is such a program. */
export const untilDeath = (): Promise<ReadonlyArray<string>> => {
  const prefix = ["setpriv", "--pdeathsig", "KILL", "--"]
  return new Promise((done) => execFile("setpriv", [...prefix.slice(1), "true"], (error) => done(error === null ? prefix : [])))
}
