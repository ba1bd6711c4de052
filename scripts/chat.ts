/**
 * `npm run chat -- <ticker> [--key <key>] [--url <url>]`: a chat with an agent in
 * the terminal. Answers stream; after each turn a dim line tells its cost, the
 * session's and the balance. It works with a pipe too: each line is a message,
 * and the end of the input ends the session.
 *
 * Ctrl-C cancels the running turn; twice, and Ctrl-D, end the session. The key is
 * `--key`, TOLLGATE_API_KEY, AUTX_API_KEY or that of the demo in DATA_DIR; the
 * gateway `--url`, the demo's, or the one of PORT and PUBLIC_URL. What goes wrong
 * is one line on standard error and exit code 1.
 *
 * What an agent says is printed without control characters: it can't move the
 * cursor, retitle the window, or pass itself off as anything else.
 */
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { type Interface, createInterface } from "node:readline"
import { parseArgs } from "node:util"
import { AutxClient, AutxError, type ChatSession } from "../sdk/typescript/src/AutxClient.ts"
import { BadSetting, readSettings } from "../src/config.ts"
import type { DemoFile } from "../src/kernel/Demo.ts"

const usage = "usage: npm run chat -- <ticker> [--key <key>] [--url <url>], e.g. npm run chat -- SUMM"

/** One line for whoever runs this. */
class ChatFailure extends Error {}

interface Wanted {
  readonly ticker: string
  readonly key: string
  /** The gateway's own, without a path of an API. */
  readonly url: string
}

const read = (args: Array<string>, env: NodeJS.ProcessEnv): Wanted => {
  const { values, positionals: [ticker, ...more] } = parsed(args)
  if (ticker === undefined || more.length > 0) throw new ChatFailure(usage)
  const settings = readSettings(env)
  const demo = demoIn(settings.dataDir)
  const key = values.key || env["TOLLGATE_API_KEY"] || env["AUTX_API_KEY"] || demo?.api_key
  if (key === undefined) throw new ChatFailure(`an API key is needed: --key, TOLLGATE_API_KEY, or a demo in ${settings.dataDir}`)
  const url = (values.url ?? demo?.base_url ?? settings.publicUrl).replace(/\/+$/, "")
  if (!URL.canParse(url) || !/^https?:/.test(url)) throw new ChatFailure(`${JSON.stringify(url)} is not an http or https URL; ${usage}`)
  return { ticker, key, url }
}

const demoIn = (dataDir: string): DemoFile | undefined => {
  const file = join(dataDir, "demo.json")
  try {
    return existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) as DemoFile : undefined
  } catch (cause) {
    throw new ChatFailure(`${file} can't be read (${String(cause)}): run this as the user who runs the gateway, or give --key and --url`)
  }
}

const parsed = (args: Array<string>) => {
  try {
    return parseArgs({ args, allowPositionals: true, options: { key: { type: "string" }, url: { type: "string" } } })
  } catch (cause) {
    throw new ChatFailure(`${(cause as Error).message}; ${usage}`)
  }
}

/** Line feeds and tabs may stay. */
const printable = (text: string): string => text.replace(/[^\P{Cc}\n\t]|\p{Bidi_Control}/gu, "")

const isTerminal = process.stdout.isTTY && process.stdin.isTTY
const hasColors = process.stdout.isTTY && !process.env["NO_COLOR"]
const dim = (text: string): string => hasColors ? `\x1b[2m${text}\x1b[22m` : text
const say = (text: string): void => void process.stdout.write(text)
const prompt = "> "

/** One turn, to its end. What is wrong with it alone is told, and the session goes on. */
const turn = async (session: ChatSession, line: string): Promise<void> => {
  const answer = session.send(line)
  let isLineOpen = false
  try {
    for await (const { delta, restarted } of answer) {
      if (restarted) say(dim("\n[the answer was lost with the gateway, and begins anew]\n"))
      const text = printable(delta)
      say(text)
      if (text !== "") isLineOpen = !text.endsWith("\n")
    }
  } catch (cause) {
    if (!(cause instanceof AutxError) || cause.closeCode !== undefined) throw cause
    return say(`${isLineOpen ? "\n" : ""}${dim(`[${printable(cause.detail)}]`)}\n`)
  }
  if (isLineOpen) say("\n")
  if (answer.isCancelled) return say(dim("[cancelled, nothing was charged]\n"))
  say(dim(`$${answer.amountCharged} · session $${session.sessionTotal} · balance $${session.creditsRemaining}\n`))
}

/** Ctrl-C: the running turn first, then the session, unless something was written in between. */
const interrupts = (session: ChatSession, input: Interface): void => {
  let isSecond = false
  const interrupt = (): void => {
    const running = session.turn
    if (isSecond || (running === undefined && !isTerminal)) return void session.close()
    isSecond = true
    if (running !== undefined) return void running.cancel()
    say(dim("\n[Ctrl-C again or Ctrl-D to end]\n"))
    input.prompt()
  }
  // In a terminal Ctrl-C comes as a key, else as a signal.
  input.on("SIGINT", interrupt).on("line", () => { isSecond = false })
  process.on("SIGINT", interrupt).once("SIGTERM", () => void session.close())
}

const converse = async ({ ticker, key, url }: Wanted): Promise<void> => {
  let input: Interface | undefined
  let end: { readonly error: AutxError | undefined } | undefined
  const session = new AutxClient({ apiKey: key, baseUrl: `${url}/v1`, maxRetries: 0 }).session(ticker, {
    onReconnecting: ({ attempt }) => { if (attempt === 1) say(dim("\n[the connection is lost; coming back]\n")) },
    onResumed: ({ discontinuity }) => say(dim(discontinuity ? "[the gateway was restarted; it is back]\n" : "[it is back]\n")),
    onNotice: ({ detail }) => say(dim(`[${printable(detail)}]\n`)),
    onClosed: (error) => {
      end = { error }
      input?.close()
    }
  })
  await session.open()
  const { agent } = session
  if (isTerminal) say(dim(`${printable(agent!.name)}, $${agent!.service_price} a message. Ctrl-C cancels an answer, Ctrl-D ends.\n`))
  input = createInterface({ input: process.stdin, output: process.stdout, prompt, terminal: isTerminal })
  interrupts(session, input)
  try {
    if (isTerminal) input.prompt()
    for await (const line of input) {
      if (line.trim() !== "") await turn(session, line)
      if (end !== undefined) break // Lines that came before it are not sent any more.
      if (isTerminal) input.prompt()
    }
  } finally {
    await session.close()
  }
  if (end?.error !== undefined) throw end.error
}

const complaint = (cause: unknown, url: string): string => {
  if (!(cause instanceof AutxError)) return String((cause as Error)?.stack ?? cause)
  if (cause.closeCode === 1006 || cause.code === "network") return `no gateway answers at ${url}: start it with npm start, or name it with --url`
  return `${printable(cause.detail)} (${cause.code})`
}

let url = ""
try {
  const wanted = read(process.argv.slice(2), process.env)
  url = wanted.url
  await converse(wanted)
} catch (cause) {
  console.error(`chat: ${cause instanceof ChatFailure || cause instanceof BadSetting ? cause.message : complaint(cause, url)}`)
  process.exitCode = 1
}
