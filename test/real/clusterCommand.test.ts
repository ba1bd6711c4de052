/** `npm run cluster`: what one command starts, keeps running, and takes along when it ends. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import packageJson from "../../package.json" with { type: "json" }
import { until } from "../support/GatewayProcess.ts"
import { familyOf, freshDatabase } from "../support/postgres.ts"
import { startTestRedis } from "../support/redis.ts"

/** The command as a process, and what it said. */
class Command {
  readonly child: ChildProcess
  readonly ended: Promise<number | null>
  out = ""
  err = ""
  readonly #waiting = new Set<() => void>()

  constructor(env: Readonly<Record<string, string>>, ...args: ReadonlyArray<string>) {
    const inherited = { PATH: process.env["PATH"] }
    this.child = spawn(process.execPath, ["dist/cluster.js", ...args], { env: { ...inherited, ...env }, stdio: ["ignore", "pipe", "pipe"] })
    this.child.stdout!.on("data", (chunk) => this.#hear(() => { this.out += chunk }))
    this.child.stderr!.on("data", (chunk) => this.#hear(() => { this.err += chunk }))
    this.ended = once(this.child, "close").then(([code]) => code as number | null)
    void this.ended.then(() => this.#hear(() => {}))
  }

  /** Resolves when what was said holds so many matches. */
  async said(pattern: RegExp, times = 1): Promise<void> {
    const count = (): number => [...(this.out + this.err).matchAll(new RegExp(pattern, "g"))].length
    while (count() < times) {
      if (this.child.exitCode !== null) throw new Error(`it ended with ${this.child.exitCode} before it said ${pattern}:\n${this.err}`)
      await new Promise<void>((heard) => this.#waiting.add(heard))
    }
  }

  pidOf(node: number): number {
    return Number(new RegExp(`node ${node} \\(pid (\\d+)\\)`).exec(this.out)![1])
  }

  #hear(act: () => void): void {
    act()
    for (const heard of this.#waiting) heard()
    this.#waiting.clear()
  }
}

/** What is there as a file of /proc and is no zombie. */
const runs = (pid: number): boolean => {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))
  } catch {
    return false
  }
}

const freePort = async (): Promise<string> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as { readonly port: number }
  await new Promise((done) => server.close(done))
  return String(port)
}

const commands: Array<Command> = []
const start = (env: Readonly<Record<string, string>>, ...args: ReadonlyArray<string>): Command => {
  const command = new Command(env, ...args)
  commands.push(command)
  return command
}

afterEach(async () => {
  for (const { child, ended } of commands.splice(0)) {
    child.kill("SIGKILL")
    await ended
  }
})

it("is started as npm start is", () => {
  const { start, cluster } = packageJson.scripts
  expect(cluster).toBe(start.replace(/main$/, "cluster"))
})

it("refuses numbers of nodes that can't be meant, in one line", async () => {
  await Promise.all([["0"], ["17"], ["two"], ["2", "3"]].map(async (args) => {
    const command = start({}, ...args)
    expect([await command.ended, command.out, command.err], args.join(" ")).toEqual([1, "", "tollgate: usage: npm run cluster -- N, with N from 1 to 16\n"])
  }))
})

describe("with nothing else on the machine", () => {
  let folder: string
  let env: Readonly<Record<string, string>>
  let url: string

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "tollgate-cluster-"))
    const port = await freePort()
    env = { DATA_DIR: folder, PORT: port }
    url = `http://127.0.0.1:${port}`
  })
  afterAll(() => rmSync(folder, { recursive: true, maxRetries: 20 }))

  /** A paid call of the demo, over a connection of its own. */
  const order = async (): Promise<number> => {
    const { api_key } = JSON.parse(readFileSync(join(folder, "demo.json"), "utf8")) as { readonly api_key: string }
    const headers = { authorization: `Bearer ${api_key}`, "content-type": "application/json", connection: "close" }
    const answer = await fetch(`${url}/v1/orders/`, { method: "POST", headers, body: JSON.stringify({ agent_id: "SUMM", prompt: "One. Two." }) })
    await answer.text()
    return answer.status
  }
  /** Which process a new connection comes to. */
  const startTime = async (): Promise<string> => {
    const text = await fetch(`${url}/metrics`, { headers: { connection: "close" } }).then((answer) => answer.text())
    return /^process_start_time_seconds (\S+)$/m.exec(text)![1]!
  }

  it("starts nodes that share a port and a demo, brings back what dies, and stops in order", { timeout: 120_000 }, async () => {
    const command = start(env, "2")
    await command.said(/2 nodes on port/)
    expect(command.out).toContain("A free call through the gateway to the agent ECHO")
    expect(await order()).toBe(201)
    const seen = new Set<string>()
    await until(async () => seen.add(await startTime()).size === 2)

    // A node and Redis die: both come back, and calls go on.
    const redis = familyOf(command.child.pid!).find((pid) => pid !== command.child.pid && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("redis"))!
    process.kill(command.pidOf(2), "SIGKILL")
    process.kill(redis, "SIGKILL")
    await Promise.all([command.said(/node 2 ended with SIGKILL; it starts again/), command.said(/Redis was restarted/), command.said(/node 2 \| .*"msg":"listening"/, 2)])
    await until(async () => await order() === 201)

    const others = familyOf(command.child.pid!)
    expect(others.length).toBeGreaterThanOrEqual(5) // Itself, two nodes, PostgreSQL, Redis.
    command.child.kill("SIGINT")
    expect(await command.ended).toBe(0)
    expect(others.filter(runs)).toEqual([])
    for (const node of [1, 2]) expect(command.err).toMatch(new RegExp(`node ${node} \\| .*"msg":"stopping"`))
  })

  it("killed, leaves nothing that runs, and what it kept is there at the next start", { timeout: 120_000 }, async () => {
    const command = start(env, "2")
    await command.said(/2 nodes on port/)
    const others = familyOf(command.child.pid!)
    command.child.kill("SIGKILL")
    await until(async () => !others.some(runs))

    const next = start(env, "1")
    await next.said(/1 node on port/)
    expect(await order()).toBe(201)
    next.child.kill("SIGTERM")
    expect(await next.ended).toBe(0)
  })

  it("says in one line that a setting is bad or the port another's, and leaves nothing that runs", { timeout: 60_000 }, async () => {
    const [bad, none] = [start({ ...env, PORT: "many" }), start({ ...env, PORT: "0" })]
    expect([await bad.ended, bad.err]).toEqual([1, `tollgate: PORT="many" is not allowed: a whole number from 0 to 65535\n`])
    expect([await none.ended, none.err]).toEqual([1, "tollgate: PORT=0 is not allowed: the nodes share one port, so name it\n"])

    const taken = createServer().listen(0, "127.0.0.1")
    await once(taken, "listening")
    const { port } = taken.address() as { readonly port: number }
    const command = start({ ...env, PORT: String(port) })
    expect(await command.ended).toBe(1)
    expect(command.err).toContain(`node 1 | tollgate: HOST=127.0.0.1 PORT=${port} can't be listened on`)
    expect(command.err.trimEnd().split("\n").at(-1)).toBe("tollgate: node 1 ended with 1 before it listened")
    taken.close()
  })
})

it("uses the database and the Redis that it is told of, and makes no demo in them", { timeout: 60_000 }, async () => {
  const [database, redis] = await Promise.all([freshDatabase(), startTestRedis()])
  try {
    const { host, port, user, database: name } = database.options
    const command = start({ PORT: await freePort(), DATABASE_URL: `postgres://${user}@/${name}?host=${host}&port=${port}`, REDIS_URL: redis.url }, "2")
    await command.said(/2 nodes on port/)
    expect(familyOf(command.child.pid!)).toHaveLength(3)
    expect(command.out).toMatch(/^ {2}2 nodes on port \d+: node 1 \(pid \d+\), node 2 \(pid \d+\)\n\n$/)
    expect(await redis.command("dbsize")).not.toBe(":0")
    command.child.kill("SIGINT")
    expect(await command.ended).toBe(0)
  } finally {
    await Promise.all([redis.stop(), database.drop()])
  }
})
