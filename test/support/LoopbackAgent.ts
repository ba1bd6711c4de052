/**
 * An agent of a test: an HTTP server on loopback that answers as it is told,
 * may keep its callers waiting, and knows every request it got.
 */
import { once } from "node:events"
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http"
import type { AddressInfo } from "node:net"

/** Called at a request's head; the body flows by unread unless this reads it. */
export type Behave = (response: ServerResponse, request: IncomingMessage) => void

export const answers = (body: string, status = 200): Behave => (response) =>
  response.writeHead(status, { "content-type": "text/plain", "content-length": Buffer.byteLength(body) }).end(body)

export class LoopbackAgent {
  /** The gateway's id of each request, in order of arrival. */
  readonly asked: Array<string> = []
  behave: Behave
  readonly #server: Server
  readonly #arrivals: Array<() => void> = []
  #kept: Array<readonly [ServerResponse, IncomingMessage]> | undefined

  constructor(behave: Behave = answers("done")) {
    this.behave = behave
    this.#server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
      request.on("error", () => {}).resume()
      this.asked.push(String(request.headers["x-autx-request-id"]))
      if (this.#kept === undefined) this.behave(response, request)
      else this.#kept.push([response, request])
      for (const arrived of this.#arrivals.splice(0)) arrived()
    })
  }

  async listen(): Promise<this> {
    this.#server.listen(0, "127.0.0.1")
    await once(this.#server, "listening")
    return this
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/run`
  }

  /** Resolves when this many requests have arrived. */
  async seen(count: number): Promise<void> {
    while (this.asked.length < count) await new Promise<void>((arrived) => this.#arrivals.push(arrived))
  }

  /** From now on callers wait, until `release`. */
  keep(): void {
    this.#kept ??= []
  }

  release(): void {
    const kept = this.#kept ?? []
    this.#kept = undefined
    for (const [response, request] of kept) this.behave(response, request)
  }

  close(): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }
}
