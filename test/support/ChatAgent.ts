/**
 * A chat agent that answers each turn as a test tells it, while it runs: it
 * streams events, waits, ends, or breaks off. Turns are met in the order in
 * which they came.
 */
import { once } from "node:events"
import { type IncomingHttpHeaders, type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http"
import type { AddressInfo } from "node:net"

export interface TurnBody {
  readonly prompt: string
  readonly session_id: string
  readonly stream: boolean
  readonly history: ReadonlyArray<{ readonly role: string; readonly content: string }>
}

/** One turn that an agent was asked for. */
export class AskedTurn {
  readonly headers: IncomingHttpHeaders
  readonly body: TurnBody
  readonly response: ServerResponse
  /** The gateway has hung up, or the answer has ended. */
  readonly gone: Promise<unknown>

  constructor(headers: IncomingHttpHeaders, body: TurnBody, response: ServerResponse) {
    this.headers = headers
    this.body = body
    this.response = response
    this.gone = once(response, "close")
  }

  /** One event, as OpenAI's chunks have it. `false`: the gateway takes no more for now. */
  say(text: string): boolean {
    if (!this.response.headersSent) this.response.writeHead(200, { "content-type": "text/event-stream" })
    return this.response.write(`data: ${JSON.stringify({ choices: [{ delta: { content: text } }] })}\n\n`)
  }

  /** The last of it, and the end, in one write. */
  end(text = ""): void {
    if (text !== "") this.response.cork()
    if (text !== "") this.say(text)
    this.response.end("data: [DONE]\n\n")
  }

  /** A whole answer in one form. */
  answer(contentType: string, body: string, status = 200): void {
    this.response.writeHead(status, { "content-type": contentType }).end(body)
  }

  die(): void {
    this.response.destroy()
  }
}

export class ChatAgent {
  /** All turns, in order of arrival. */
  readonly turns: Array<AskedTurn> = []
  /** What it does with a turn by itself; the test does the rest. */
  behave: (turn: AskedTurn) => void
  readonly #server: Server
  readonly #arrivals = new Set<() => void>()
  #met = 0

  constructor(behave: (turn: AskedTurn) => void = () => {}) {
    this.behave = behave
    this.#server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => void this.#take(request, response))
  }

  async listen(): Promise<this> {
    this.#server.listen(0, "127.0.0.1")
    await once(this.#server, "listening")
    return this
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/chat`
  }

  /** The first turn that this has not answered yet. */
  async next(): Promise<AskedTurn> {
    const at = this.#met++
    while (this.turns.length <= at) await new Promise<void>((arrived) => this.#arrivals.add(arrived))
    return this.turns[at]!
  }

  close(): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Array<Buffer> = []
    request.on("error", () => {}).on("data", (part: Buffer) => parts.push(part))
    response.on("error", () => {})
    await once(request, "end")
    const turn = new AskedTurn(request.headers, JSON.parse(Buffer.concat(parts).toString("utf8")) as TurnBody, response)
    this.turns.push(turn)
    this.behave(turn)
    for (const arrived of this.#arrivals) arrived()
    this.#arrivals.clear()
  }
}

/** Repeats the prompt, word by word. */
export const echoes = (turn: AskedTurn): void => {
  for (const word of turn.body.prompt.split(/(?<= )/)) turn.say(word)
  turn.end()
}
