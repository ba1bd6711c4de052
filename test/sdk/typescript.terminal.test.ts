/** `npm run chat` as a process, against the real gateway: by a pipe and in a terminal. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process"
import { once } from "node:events"
import { writeFileSync } from "node:fs"
import type { ServerResponse } from "node:http"
import { join, resolve } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { GatewayProcess, Person } from "../support/GatewayProcess.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)

let gateway: GatewayProcess
let owner: Person
/** DATA_DIR of a demo whose key has nothing to pay with. */
let demoDir: string

beforeAll(async () => {
  gateway = await stage.gateway({ ...(await stage.database()).env, SECRETS_KEY: "k".repeat(32) })
  owner = await gateway.person()
  demoDir = stage.directory()
  writeFileSync(join(demoDir, "demo.json"), JSON.stringify({ base_url: gateway.url, api_key: await gateway.key(owner) }))
})

/** A program and what it has printed, on both streams, without its colours. */
class Terminal {
  readonly ended: Promise<number | null>
  output = ""
  errors = ""
  readonly #child: ChildProcessWithoutNullStreams
  #wake = (): void => {}

  constructor(command: string, args: ReadonlyArray<string>, env: Record<string, string>) {
    this.#child = spawn(command, args, { cwd: stage.directory(), env: { PATH: process.env["PATH"], ...env } })
    stage.onEnd(() => this.#child.kill("SIGKILL"))
    this.#child.stdout.setEncoding("utf8").on("data", (text: string) => this.#take(() => { this.output += text }))
    this.#child.stderr.setEncoding("utf8").on("data", (text: string) => this.#take(() => { this.errors += text }))
    this.#child.stdin.on("error", () => {})
    this.ended = once(this.#child, "close").then(([code]) => {
      this.#wake()
      return code as number | null
    })
  }

  type(text: string): void {
    this.#child.stdin.write(text)
  }

  endInput(): void {
    this.#child.stdin.end()
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name)
  }

  async sees(text: string): Promise<void> {
    while (!this.output.includes(text)) {
      if (this.#child.exitCode !== null) throw new Error(`it ended after ${JSON.stringify(this.output)} ${this.errors}`)
      await new Promise<void>((wake) => { this.#wake = wake })
    }
  }

  #take(add: () => void): void {
    add()
    this.#wake()
  }
}

const program = resolve("dist/chat.js")

const chat = (args: ReadonlyArray<string>, env: Record<string, string> = {}): Terminal => new Terminal(process.execPath, [program, ...args], env)

/** Somebody with $1, and a key. */
const buyer = async (): Promise<{ readonly person: Person; readonly env: Record<string, string> }> => {
  const person = await gateway.person("1.00")
  return { person, env: { TOLLGATE_API_KEY: await gateway.key(person), PUBLIC_URL: gateway.url } }
}

/** An agent that says what the test makes it say. */
const speaker = async (price: string): Promise<{ readonly ticker: string; readonly asked: () => Promise<ServerResponse> }> => {
  const waiting: Array<ServerResponse> = []
  let arrived = (): void => {}
  const agent = await stage.agent((response) => {
    response.writeHead(200, { "content-type": "text/plain" }).flushHeaders()
    waiting.push(response)
    arrived()
  })
  const { ticker } = await gateway.list(owner, agent.url, price)
  return {
    ticker,
    asked: async () => {
      while (waiting.length === 0) await new Promise<void>((done) => { arrived = done })
      return waiting.shift()!
    }
  }
}

const sessionOf = async ({ token }: Person) => (await gateway.ask(200, "GET", "/v1/sessions", { token }))[0]

describe("with a pipe", () => {
  it("each line is a message; answers stream, costs are told, the end of the input closes the session", async () => {
    const { ticker, asked } = await speaker("0.01")
    const { person, env } = await buyer()
    const terminal = chat([ticker.toLowerCase()], env)
    terminal.type("Hello\n\nAgain\n")
    const first = await asked()
    first.write("The ")
    await terminal.sees("The ")
    first.end("Federal")
    await terminal.sees("The Federal\n$0.01 · session $0.01 · balance $0.95\n")
    terminal.endInput()
    ;(await asked()).end("Reserve\n")
    expect(await terminal.ended).toBe(0)
    expect([terminal.output, terminal.errors]).toEqual(["The Federal\n$0.01 · session $0.01 · balance $0.95\nReserve\n$0.01 · session $0.02 · balance $0.94\n", ""])
    expect(await sessionOf(person)).toMatchObject({ status: "closed", message_count: 2 })
    expect(await gateway.balance(person)).toEqual({ balance_usd: "0.98", reserved_usd: "0.00" })
  })

  it("Ctrl-C cancels the running turn, and twice ends the session", async () => {
    const { ticker, asked } = await speaker("0.01")
    const { person, env } = await buyer()
    const terminal = chat([ticker], env)
    terminal.type("Hello\n")
    ;(await asked()).write("Half an")
    await terminal.sees("Half an")
    terminal.signal("SIGINT")
    await terminal.sees("Half an\n[cancelled, nothing was charged]\n")
    terminal.type("Again\nMore\nNever sent\n")
    ;(await asked()).write("Again half")
    await terminal.sees("Again half")
    terminal.signal("SIGINT")
    ;(await asked()).write("More")
    await terminal.sees("More")
    terminal.signal("SIGINT")
    expect(await terminal.ended).toBe(0)
    expect(terminal.errors).toBe("")
    expect(await sessionOf(person)).toMatchObject({ status: "closed", consumed_usd: "0.00" })
    expect(await gateway.balance(person)).toEqual({ balance_usd: "1.00", reserved_usd: "0.00" })
  })

  it("a turn that fails is told, and the next line is sent", async () => {
    const { ticker, asked } = await speaker("0.00")
    const terminal = chat([ticker], (await buyer()).env)
    terminal.type("Hello\nAgain\n")
    terminal.endInput()
    const first = await asked()
    first.write("Half")
    await terminal.sees("Half")
    first.destroy()
    ;(await asked()).end("Whole")
    expect(await terminal.ended).toBe(0)
    expect(terminal.output).toMatch(/^Half\n\[The agent \w+ broke off [^\n]*\]\nWhole\n\$0\.00 · session \$0\.00 · balance \$1\.00\n$/)
  })

  it("an agent can't steer the terminal", async () => {
    const { ticker, asked } = await speaker("0.00")
    const terminal = chat([ticker], (await buyer()).env)
    terminal.type("Hello\n")
    terminal.endInput()
    ;(await asked()).end("a\x1b]0;title\x07b\x1b[2Jc\r\x9bd\u202Ee\tf\ng")
    expect(await terminal.ended).toBe(0)
    expect(terminal.output).toMatch(/^a\]0;titleb\[2Jcde\tf\ng\n\$/)
  })
})

describe("what is wrong is one line", () => {
  it.concurrent.each([
    ["no ticker", [], {}, /^chat: usage: npm run chat -- <ticker>/],
    ["an unknown option", ["SUMM", "--kay", "x"], {}, /^chat: Unknown option '--kay'.*usage: /],
    ["no key", ["SUMM"], {}, /^chat: an API key is needed: --key, TOLLGATE_API_KEY, or a demo in /],
    ["no gateway", ["SUMM", "--key", "k", "--url", "http://127.0.0.1:9"], {}, /^chat: no gateway answers at http:\/\/127\.0\.0\.1:9: start it with npm start/],
    ["no URL", ["SUMM", "--key", "k", "--url", "gateway"], {}, /^chat: "gateway" is not an http or https URL/],
    ["a bad setting", ["SUMM"], { PORT: "many" }, /^chat: PORT/]
  ])("%s", async (_, args, env, line) => {
    const terminal = chat(args, env)
    expect(await terminal.ended).toBe(1)
    expect(terminal.output).toBe("")
    expect(terminal.errors).toMatch(line)
    expect(terminal.errors.split("\n")).toHaveLength(2)
  })

  it("the demo's key and gateway are found in DATA_DIR, and the gateway's own words are told", async () => {
    const { ticker } = await speaker("0.10")
    const lacksFunds = await gateway.person()
    writeFileSync(join(demoDir, "demo.json"), JSON.stringify({ base_url: gateway.url, api_key: await gateway.key(lacksFunds) }))
    const [poor, stranger, wrongKey] = [chat([ticker], { DATA_DIR: demoDir }), chat(["NOBODY"], { DATA_DIR: demoDir }), chat([ticker], { DATA_DIR: demoDir, AUTX_API_KEY: "wrong" })]
    expect([await poor.ended, await stranger.ended, await wrongKey.ended]).toEqual([1, 1, 1])
    expect(poor.errors).toBe("chat: Insufficient credits (insufficient_credits)\n")
    expect(stranger.errors).toMatch(/^chat: No such agent.*\(agent_not_found\)\n$/)
    expect(wrongKey.errors).toMatch(/^chat: .*\(auth_failed\)\n$/)
  })

  it("a session that ends while nobody writes ends the program", async () => {
    const { ticker, asked } = await speaker("0.00")
    const { person, env } = await buyer()
    const terminal = chat([ticker], env)
    terminal.type("Hello\n")
    ;(await asked()).end("Yes\n")
    await terminal.sees("balance")
    await gateway.call("DELETE", `/v1/sessions/${(await sessionOf(person)).id}`, { token: person.token })
    expect(await terminal.ended).toBe(1)
    expect(terminal.errors).toMatch(/^chat: The session is closed.*\(session_closed\)\n$/)
  })
})

describe("in a terminal", () => {
  it("it prompts; Ctrl-C cancels an answer, Ctrl-D ends", async () => {
    const { ticker, asked } = await speaker("0.01")
    const { person, env } = await buyer()
    const terminal = new Terminal("script", ["-qec", `${process.execPath} ${program} ${ticker}`, "/dev/null"], env)
    await terminal.sees("> ")
    terminal.type("Hello\r")
    ;(await asked()).write("Half")
    await terminal.sees("Half")
    terminal.type("\x03")
    await terminal.sees("cancelled, nothing was charged")
    terminal.type("Again\r")
    ;(await asked()).end("Whole")
    await terminal.sees("session $0.01")
    terminal.type("\x04")
    expect(await terminal.ended).toBe(0)
    expect(terminal.output).toContain("\x1b[2m$0.01 · session $0.01 · balance $0.95")
    expect(await sessionOf(person)).toMatchObject({ status: "closed", message_count: 1 })
  })

  it("Ctrl-C while nothing runs warns, and ends when it comes again", async () => {
    const { ticker } = await speaker("0.01")
    const { person, env } = await buyer()
    const terminal = new Terminal("script", ["-qec", `${process.execPath} ${program} ${ticker}`, "/dev/null"], env)
    await terminal.sees("> ")
    terminal.type("\x03")
    await terminal.sees("Ctrl-C again")
    terminal.type("\x03")
    expect(await terminal.ended).toBe(0)
    expect(await sessionOf(person)).toMatchObject({ status: "closed" })
  })
})
