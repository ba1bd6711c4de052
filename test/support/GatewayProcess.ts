/**
 * The real program in a process of its own (`dist/main.js`, which `npm test`
 * builds first), to be called, stopped and killed. It listens on a free port,
 * which it tells by its own log line, and takes its database from `env`.
 *
 * Calls go over keep-alive sockets, one for each call in flight. A call that
 * gets no whole answer rejects.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"
import { type IncomingHttpHeaders, request } from "node:http"
import { createInterface } from "node:readline"
import type { Readable } from "node:stream"
import { setTimeout as sleep } from "node:timers/promises"
import { Pool } from "undici"
import packageJson from "../../package.json" with { type: "json" }

export interface Reply {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
  /** The body when it is JSON, else `undefined`. */
  readonly json: any
}

/** What a caller has of an answer, however it ended. `isWhole`: its framing says that nothing is missing. Status 0: not even a head came. */
export interface Taken {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
  readonly isWhole: boolean
}

type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE"

export interface CallOptions {
  readonly token?: string
  /** An object is sent as JSON; text and streams as they are. */
  readonly body?: object | string | Readable
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

export interface Person {
  readonly accountId: string
  /** An access token. */
  readonly token: string
}

export interface Listed {
  readonly id: string
  readonly ticker: string
}

/** Generous to tests: money is free, agents may be on loopback, nobody is limited, proxy calls cost their price. */
const defaults = {
  PORT: "0", PUBLIC_URL: "http://gateway.test", DEMO: "false", ENABLE_TEST_CREDITS: "true", AUTO_VERIFY_EMAIL: "true",
  UPSTREAM_ALLOW: "127.0.0.1", KEY_RATE_LIMIT_DEFAULT: "1000000000", PROXY_BILLING: "paid"
}

/** What `npm start` tells Node. */
const flags: ReadonlyArray<string> = /(?: --\S+)+/.exec(packageJson.scripts.start)![0].trim().split(" ")

/** Of everybody that `person` makes. */
export const password = "correct horse"

const stderrCharsMax = 1_000_000

export class GatewayProcess {
  readonly port: number
  readonly url: string
  /** The exit code, or `null` when a signal ended it. */
  readonly ended: Promise<number | null>
  readonly stderr: () => string
  readonly #child: ChildProcess
  readonly #pool: Pool

  /** Answers when the process listens. A gateway that ends before fails the start with what it said. */
  static async start(env: Readonly<Record<string, string>>): Promise<GatewayProcess> {
    const child = spawn(process.execPath, [...flags, "dist/main.js"], { env: { PATH: process.env["PATH"], ...defaults, ...env }, stdio: ["ignore", "ignore", "pipe"] })
    let stderr = ""
    const port = await new Promise<number>((listening, fail) => {
      createInterface({ input: child.stderr }).on("line", (line) => {
        if (stderr.length < stderrCharsMax) stderr += `${line}\n`
        if (line.includes('"msg":"listening"')) listening((JSON.parse(line) as { readonly port: number }).port)
      })
      child.once("error", fail).once("close", (code) => fail(new Error(`the gateway ended with ${code} before it listened:\n${stderr}`)))
    })
    return new GatewayProcess(child, port, () => stderr)
  }

  private constructor(child: ChildProcess, port: number, stderr: () => string) {
    this.#child = child
    this.port = port
    this.url = `http://127.0.0.1:${port}`
    this.stderr = stderr
    this.#pool = new Pool(this.url)
    this.ended = new Promise((done) => child.once("close", (code) => done(code)))
  }

  /** The memory that the process has now (Linux). */
  memoryBytes(): number {
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.#child.pid}/status`, "utf8"))?.[1]) * 1024
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name)
  }

  async kill9(): Promise<void> {
    this.#child.kill("SIGKILL")
    await this.ended
    await this.#pool.destroy()
  }

  /** Ctrl-C, or as told. Fails unless the program ends well. */
  async stop(signal: "SIGINT" | "SIGTERM" = "SIGINT"): Promise<void> {
    this.#child.kill(signal)
    const code = await this.ended
    await this.#pool.destroy()
    if (code !== 0) throw new Error(`the gateway ended with ${code}:\n${this.stderr()}`)
  }

  async call(method: Method, path: string, { token, body, headers = {}, signal }: CallOptions = {}): Promise<Reply> {
    const isJson = typeof body === "object" && !("pipe" in body)
    const answer = await this.#pool.request({
      method, path, signal,
      headers: { ...(isJson ? { "content-type": "application/json" } : {}), ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...headers },
      body: isJson ? JSON.stringify(body) : body ?? null
    })
    const text = await answer.body.text()
    return { status: answer.statusCode, headers: answer.headers, text, json: /^[[{]/.test(text) ? JSON.parse(text) : undefined }
  }

  /** Posts JSON over a connection of its own, and takes what comes; `onBytes` hears of each part of the body. */
  take(path: string, token: string, onBytes: () => void = () => {}): Promise<Taken> {
    return new Promise((done) => {
      const headers = { authorization: `Bearer ${token}`, "content-type": "application/json", "content-length": 2 }
      request({ port: this.port, method: "POST", path, agent: false, headers }, (answer) => {
        const parts: Array<Buffer> = []
        answer.on("data", (part: Buffer) => {
          parts.push(part)
          onBytes()
        }).on("error", () => {}).on("close", () =>
          done({ status: answer.statusCode ?? 0, headers: answer.headers, text: Buffer.concat(parts).toString("latin1"), isWhole: answer.complete }))
      }).on("error", () => done({ status: 0, headers: {}, text: "", isWhole: false })).end("{}")
    })
  }

  /** As `call`, and the body; any other status fails. */
  async ask(status: number, method: Method, path: string, options: CallOptions = {}): Promise<any> {
    const reply = await this.call(method, path, options)
    if (reply.status !== status) throw new Error(`${method} ${path}: expected ${status}, got ${reply.status} ${reply.text}`)
    return reply.json
  }

  /** Somebody new, with this much to spend. */
  async person(usd?: string): Promise<Person> {
    const { access_token: token } = await this.ask(201, "POST", "/v1/auth/register", { body: { email: `${randomUUID()}@example.com`, password } })
    const [, claims = ""] = (token as string).split(".")
    const person: Person = { token, accountId: (JSON.parse(Buffer.from(claims, "base64url").toString()) as { readonly account: string }).account }
    if (usd !== undefined) await this.fund(person, usd)
    return person
  }

  async fund({ token }: Person, usd: string): Promise<void> {
    await this.ask(201, "POST", "/v1/credits/deposit-test", { token, body: { amount: usd } })
  }

  /** An API key of all scopes. */
  async key({ token }: Person, ...budgets: ReadonlyArray<{ readonly amount_usd: string; readonly window: "day" | "month" | "total" }>): Promise<string> {
    return (await this.ask(201, "POST", "/v1/api-keys", { token, body: { name: "test", scopes: "*", budgets } })).key
  }

  async list({ token }: Person, endpointUrl: string, price: string): Promise<Listed> {
    const ticker = `T${randomUUID().slice(0, 8).toUpperCase()}`
    const body = { name: ticker, ticker, description: "Scripted", category: "Test", endpoint_url: endpointUrl, service_price: price }
    const { id } = await this.ask(201, "POST", "/v1/agents", { token, body })
    return { id, ticker }
  }

  async balance({ token }: Person): Promise<{ readonly balance_usd: string; readonly reserved_usd: string }> {
    const { balance_usd, reserved_usd } = await this.ask(200, "GET", "/v1/credits/balance", { token })
    return { balance_usd, reserved_usd }
  }

  async metric(name: string): Promise<number> {
    const { text } = await this.call("GET", "/metrics")
    return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1] ?? `${name} is missing`)
  }
}

/** Runs `one` for 0 … count − 1, `sockets` at a time; answers what each came to, an error as `undefined`. */
export const storm = async <A>(count: number, sockets: number, one: (n: number) => Promise<A>): Promise<ReadonlyArray<A | undefined>> => {
  const results = new Array<A | undefined>(count)
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < count) {
      const n = next++
      results[n] = await one(n).catch(() => undefined)
    }
  }
  await Promise.all(Array.from({ length: sockets }, worker))
  return results
}

/** How many replies had each status; calls without an answer count as `none`. */
export const tally = (replies: ReadonlyArray<Reply | undefined>): Readonly<Record<string, number>> => {
  const counts: Record<string, number> = {}
  for (const reply of replies) counts[reply?.status ?? "none"] = (counts[reply?.status ?? "none"] ?? 0) + 1
  return counts
}

/** Waits for what another process does by itself and tells nobody. The test's own timeout ends it. */
export const until = async (holds: () => Promise<boolean>): Promise<void> => {
  while (!await holds()) await sleep(20)
}
