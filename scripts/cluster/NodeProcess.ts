/**
 * One gateway of several on this machine: the program in a process of its own,
 * which is given its assignment, prints its lines with its name before them, and
 * is started again when it dies.
 *
 * Guarantee: it runs until `stop` or `kill`, with waits between starts that grow
 * while it does not live long. It never outlives this process (see Assignment).
 */
import { type ChildProcess, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { type Assignment, memberFlag } from "../../src/Assignment.ts"

/** It ended before it listened; what it said is printed already. */
export class NodeFailure extends Error {
  override readonly name = "NodeFailure"
}

const restartMinMs = 200
const restartMaxMs = 5_000
/** A node that lived this long is no crash loop: its next restart is soon again. */
const steadyMs = 10_000

const program = fileURLToPath(new URL("./main.js", import.meta.url))

export class NodeProcess {
  readonly name: string
  /** It listens, and what it prepares is prepared. Fails when it ended before. */
  readonly listening: Promise<void>
  readonly #stopping = new AbortController()
  readonly #say: (line: string) => void
  readonly #watched: Promise<void>
  #child: ChildProcess

  constructor(name: string, assignment: Assignment, say: (line: string) => void) {
    this.name = name
    this.#say = say
    this.#child = launch(name, assignment, say)
    this.listening = listeningOf(name, this.#child)
    this.#watched = this.listening.then(() => this.#watch({ ...assignment, demo: assignment.demo && { ...assignment.demo, prepares: false } }), () => {})
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** Lets it hand its accounts over and end its calls. Safe to call twice. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#child.kill("SIGTERM")
    await this.#watched
  }

  /** Ends it at once; what it acknowledged is durable all the same. */
  kill(): void {
    this.#stopping.abort()
    this.#child.kill("SIGKILL")
  }

  async #watch(assignment: Assignment): Promise<void> {
    const { signal } = this.#stopping
    let delayMs = restartMinMs
    for (let since = performance.now(); ; since = performance.now()) {
      const how = await endOf(this.#child)
      if (signal.aborted) return
      if (performance.now() - since > steadyMs) delayMs = restartMinMs
      this.#say(`${this.name} ended with ${how}; it starts again in ${delayMs} ms`)
      await sleep(delayMs, undefined, { signal }).catch(() => {})
      if (signal.aborted) return
      delayMs = Math.min(delayMs * 2, restartMaxMs)
      this.#child = launch(this.name, assignment, this.#say)
    }
  }
}

/** In a session of its own: Ctrl-C in a terminal reaches this process alone, which then stops all. */
const launch = (name: string, assignment: Assignment, say: (line: string) => void): ChildProcess => {
  const child = spawn(process.execPath, [...process.execArgv, program, memberFlag], { detached: true, stdio: ["ignore", "pipe", "pipe", "ipc"] })
  for (const output of [child.stdout, child.stderr]) createInterface({ input: output! }).on("line", (line) => say(`${name} | ${line}`))
  child.send(assignment, () => {}) // It may have ended already, which is noticed elsewhere.
  child.on("error", (cause) => say(`${name}: ${cause.message}`))
  return child
}

const listeningOf = (name: string, child: ChildProcess): Promise<void> => new Promise((listening, fail) => {
  child.once("message", () => listening())
  void endOf(child).then((how) => fail(new NodeFailure(`${name} ended with ${how} before it listened`)))
})

const endOf = (child: ChildProcess): Promise<string | number | null> => new Promise((done) => {
  if (child.exitCode !== null || child.signalCode !== null) done(child.signalCode ?? child.exitCode)
  else child.once("exit", (code, signal) => done(signal ?? code)).once("error", () => done("no start"))
})
