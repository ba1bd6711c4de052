/**
 * The agents of a run, all in one server on loopback: each does what it is asked
 * for and writes that down. Some are slow, some fail, by chance.
 */
import { once } from "node:events"
import { type Server, type ServerResponse, createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import type { Random } from "../../support/Random.ts"
import type { Served } from "./History.ts"

/** The body of an agent's own failure: its callers get it as it is, and pay nothing. */
export const agentFailed = "agent failed"

/** By its caller's own name for an attempt. */
export const attemptHeader = "x-attempt"

export class Works {
  readonly served: Array<Served> = []
  readonly #server: Server
  readonly #random: Random
  readonly #failing: number
  #kept: Promise<void> = Promise.resolve()

  /** From now on callers wait, until `release`. */
  release: () => void = () => {}

  /** `failing`: how many of a hundred requests go wrong. */
  constructor(random: Random, failing = 2) {
    this.#random = random
    this.#failing = failing
    this.#server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
      const parts: Array<Buffer> = []
      request.on("error", () => {}).on("data", (part: Buffer) => parts.push(part)).on("end", () => {
        const { prompt } = JSON.parse(Buffer.concat(parts).toString("utf8")) as { readonly prompt: string }
        const served: Served = { intent: prompt, attemptId: request.headers[attemptHeader] as string | undefined, isAnswered: false }
        this.served.push(served)
        void this.#work(served, response.on("error", () => {}))
      })
    })
  }

  keep(): void {
    this.#kept = new Promise((release) => { this.release = release })
  }

  async listen(): Promise<this> {
    this.#server.listen(0, "127.0.0.1")
    await once(this.#server, "listening")
    return this
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/work`
  }

  close(): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }

  async #work(served: Served, response: ServerResponse): Promise<void> {
    const mood = this.#random.below(100)
    const ms = mood >= 97 ? 300 : this.#random.below(20)
    await Promise.all([sleep(ms), this.#kept])
    if (mood >= this.#failing) {
      served.isAnswered = true
      return void response.writeHead(200, { "content-type": "text/plain" }).end(`did ${served.intent}`)
    }
    if (mood % 2 === 0) response.destroy()
    else response.writeHead(500, { "content-type": "text/plain" }).end(agentFailed)
  }
}
