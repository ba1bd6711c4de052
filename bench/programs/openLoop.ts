/**
 * An open-loop client with its agent, in one process and one event loop, so
 * that the two never wait for each other's turn on a core.
 *
 * Open loop: calls are sent when they are due, whether or not earlier answers
 * came, and each is timed from when it was due. A gateway that stalls for 50 ms
 * is thus seen by every call that was due in these 50 ms, not by the one that
 * happened to wait (no coordinated omission). A call that finds no idle
 * connection waits, and the wait counts.
 *
 * The loop looks for answers and due calls about every 0.1 ms and sleeps in
 * between: a loop that spun would take its core from PostgreSQL, and Node's own
 * timers know only milliseconds. That granularity is in every figure, the direct
 * call's too.
 *
 * Reads one JSON line a task on standard input, and answers each with one.
 */
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { type Socket, connect } from "node:net"
import { createInterface } from "node:readline"
import { serveAgent } from "../rig/agent.ts"

export interface Task {
  readonly port: number
  readonly path: string
  /** A file with one key a line. */
  readonly keys: string
  readonly body: string
  readonly perSecond: number
  readonly seconds: number
  readonly connections: number
}

export interface Timed {
  readonly sent: number
  /** Without an answer, or with one that is no success. */
  readonly errors: number
  /** Answers by status. */
  readonly statuses: Readonly<Record<string, number>>
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
}

const napMs = 0.05
/** Answers that are still out this long after the last call was due count as errors. */
const lateMs = 10_000

/** One keep-alive connection with at most one call on it. */
class Line {
  dueMs = 0
  readonly #socket: Socket
  readonly #answered: (line: Line, status: string) => void
  #received = ""

  constructor(socket: Socket, answered: (line: Line, status: string) => void) {
    this.#socket = socket
    this.#answered = answered
    socket.setNoDelay(true).on("data", (chunk) => this.#read(chunk)).on("error", () => {})
  }

  send(request: Buffer, dueMs: number): void {
    this.dueMs = dueMs
    this.#socket.write(request)
  }

  destroy(): void {
    this.#socket.destroy()
  }

  /** Answers here have a content-length; what is longer than one read is put together. */
  #read(chunk: Buffer): void {
    this.#received += chunk.toString("latin1")
    const headEnd = this.#received.indexOf("\r\n\r\n")
    if (headEnd < 0) return
    const length = /\r\ncontent-length: (\d+)/i.exec(this.#received)?.[1]
    if (length === undefined || this.#received.length < headEnd + 4 + Number(length)) return
    const status = this.#received.slice(9, 12)
    this.#received = ""
    this.#answered(this, status)
  }
}

const run = async (task: Task): Promise<Timed> => {
  const requests = readFileSync(task.keys, "utf8").split("\n").map((key) => Buffer.from(
    `POST ${task.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${task.body.length}\r\n\r\n${task.body}`
  ))
  const total = Math.round(task.perSecond * task.seconds)
  const gapMs = 1_000 / task.perSecond
  const times = new Float64Array(total)
  const waiting: Array<number> = []
  let [sent, answered] = [0, 0]
  const statuses: Record<string, number> = {}
  const idle: Array<Line> = []
  const onAnswer = (line: Line, status: string): void => {
    times[answered++] = performance.now() - line.dueMs
    statuses[status] = (statuses[status] ?? 0) + 1
    const next = waiting.shift()
    if (next === undefined) idle.push(line)
    else line.send(requests[sent++ % requests.length]!, next)
  }
  const lines = await Promise.all(Array.from({ length: task.connections }, async () => {
    const socket = connect(task.port, "127.0.0.1")
    await once(socket, "connect")
    return new Line(socket, onAnswer)
  }))
  idle.push(...lines)

  const beganMs = performance.now()
  let due = 0
  const nap = new Int32Array(new SharedArrayBuffer(4))
  await new Promise<void>((done) => {
    const look = (): void => {
      const nowMs = performance.now()
      for (; due < total && beganMs + due * gapMs <= nowMs; due++) {
        // In turn, so that none is idle for so long that the server closes it.
        const line = idle.shift()
        if (line === undefined) waiting.push(beganMs + due * gapMs)
        else line.send(requests[sent++ % requests.length]!, beganMs + due * gapMs)
      }
      if (answered === total || nowMs > beganMs + task.seconds * 1_000 + lateMs) return done()
      Atomics.wait(nap, 0, 0, napMs)
      setImmediate(look)
    }
    look()
  })
  for (const line of lines) line.destroy()
  const sorted = times.subarray(0, answered).sort()
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN
  const good = Object.entries(statuses).reduce((sum, [status, count]) => status.startsWith("2") ? sum + count : sum, 0)
  return { sent, errors: total - good, statuses, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) }
}

serveAgent()
for await (const line of createInterface({ input: process.stdin })) console.log(JSON.stringify(await run(JSON.parse(line) as Task)))
