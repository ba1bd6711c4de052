/**
 * What a scenario stands on: processes, and folders, each ended or removed when
 * the scenario is over, whatever became of it. Only what was started here is
 * ended, by its own pid.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { dirname, join, resolve } from "node:path"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"

const readyMs = 30_000
const complaintCharsMax = 4_096

export interface Running {
  readonly pid: number
  readonly port: number
  /** One JSON line to a program of ours, one back. */
  readonly ask: (task: object) => Promise<any>
  readonly stop: () => Promise<void>
}

export class Rig {
  readonly #cleanups: Array<() => unknown> = []

  /** To be done at the end, latest first. */
  onEnd(cleanup: () => unknown): void {
    this.#cleanups.push(cleanup)
  }

  /** One that fails keeps nobody from the others; the first failure is thrown at the end. */
  async end(): Promise<void> {
    const failures = new Array<unknown>()
    for (const cleanup of this.#cleanups.splice(0).reverse()) {
      try {
        await cleanup()
      } catch (cause) {
        failures.push(cause)
      }
    }
    if (failures.length > 0) throw failures[0]
  }

  /** On the disk that the tree is on: a temporary folder may be in memory, where an fsync costs nothing. */
  folder(): string {
    const path = mkdtempSync(resolve(".cache", "bench-data-"))
    this.onEnd(() => rmSync(path, { recursive: true, force: true, maxRetries: 20 }))
    return path
  }

  /** One of bench/programs or bench/micro; it says its port when it listens, and ends with us. */
  program(name: string, ...args: ReadonlyArray<string>): Promise<Running> {
    return this.server(process.execPath, [programPath(name), ...args], "listening")
  }

  /** Starts a server and waits for the line `{"port":…}`, or, for those of others, until `port` accepts. */
  async server(command: string, args: ReadonlyArray<string>, ready: "listening" | { readonly port: number }, env: NodeJS.ProcessEnv = {}): Promise<Running> {
    // Its input ends with this process, however that ends; our own programs end then too.
    const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ["pipe", "pipe", "pipe"] })
    let complaint = ""
    child.stderr.on("data", (chunk) => { complaint = (complaint + chunk).slice(-complaintCharsMax) })
    const stop = stopper(child)
    this.onEnd(stop)
    const ended = new Promise<never>((_, fail) => {
      child.once("error", fail).once("exit", (code) => fail(new Error(`${command} ended with ${code}: ${complaint}`)))
    })
    ended.catch(() => {}) // Whoever waits for it sees it; a stop later on is no failure.
    const lines = createInterface({ input: child.stdout })
    const next = async (): Promise<any> => JSON.parse((await once(lines, "line"))[0] as string)
    const overdue = sleep(readyMs, undefined, { ref: false }).then(() => Promise.reject(new Error(`${command} was not ready after ${readyMs} ms: ${complaint}`)))
    const port = await Promise.race([ended, overdue, ready === "listening" ? next().then(({ port }) => port as number) : accepting(ready.port)])
    const ask = (task: object): Promise<any> => {
      child.stdin.write(`${JSON.stringify(task)}\n`)
      return Promise.race([next(), ended])
    }
    return { pid: child.pid!, port, ask, stop }
  }
}

export const programPath = (name: string): string => join(dirname(process.argv[1]!), `${name}.js`)

const accepting = async (port: number): Promise<number> => {
  const until = performance.now() + readyMs
  while (performance.now() < until && !await accepts(port)) await sleep(50)
  return port
}

const accepts = (port: number): Promise<boolean> => new Promise((done) => {
  const socket = connect(port, "127.0.0.1", () => {
    socket.destroy()
    done(true)
  }).once("error", () => done(false))
})

const stopper = (child: ChildProcess) => async (): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
  const ended = once(child, "exit")
  child.kill("SIGTERM")
  const impatient = setTimeout(() => child.kill("SIGKILL"), 5_000)
  await ended
  clearTimeout(impatient)
}
