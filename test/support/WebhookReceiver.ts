/**
 * Who is told by webhooks, over real HTTP: it writes down what comes, in order,
 * and takes it or fails on purpose. Each path is a receiver of its own.
 */
import { createHmac } from "node:crypto"
import { once } from "node:events"
import { type IncomingHttpHeaders, type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http"
import type { AddressInfo } from "node:net"

export interface Told {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly bytes: Buffer
  /** The body. */
  readonly json: any
}

/** A status, a way to fail, or a promise of one. `hang`: no answer; `reset`: the connection is cut; `endless`: 200 and a body without end. */
export type Taking = number | "hang" | "reset" | "endless" | { readonly status: number; readonly headers: Readonly<Record<string, string>> }
/** `nth`: how many have come to this path, this one included. */
export type Take = (told: Told, nth: number) => Taking | Promise<Taking>

/** As a receiver would check it. */
export const isSigned = ({ bytes, headers }: Told, secret: string): boolean =>
  headers["x-acf-signature"] === createHmac("sha256", secret).update(bytes).digest("hex")

export class WebhookReceiver {
  readonly told: Array<Told> = []
  take: Take
  /** The most that were under way at once, to any one path. */
  atOnceMax = 0
  readonly #server: Server
  readonly #underWay = new Map<string, number>()
  #arrivals: Array<() => void> = []

  static async start(take: Take = () => 200): Promise<WebhookReceiver> {
    const receiver = new WebhookReceiver(take)
    receiver.#server.listen(0, "127.0.0.1")
    await once(receiver.#server, "listening")
    return receiver
  }

  private constructor(take: Take) {
    this.take = take
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch(() => response.destroy()) // Whoever sent it is gone.
    })
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  at(path: string): ReadonlyArray<Told> {
    return this.told.filter((told) => told.path === path)
  }

  /** Resolves when so many have come to the path. */
  async received(path: string, count: number): Promise<ReadonlyArray<Told>> {
    while (this.at(path).length < count) await new Promise<void>((arrived) => this.#arrivals.push(arrived))
    return this.at(path)
  }

  close(): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? ""
    const atOnce = (this.#underWay.get(path) ?? 0) + 1
    this.#underWay.set(path, atOnce)
    this.atOnceMax = Math.max(this.atOnceMax, atOnce)
    response.on("close", () => this.#underWay.set(path, this.#underWay.get(path)! - 1))
    const chunks: Array<Buffer> = []
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
    const bytes = Buffer.concat(chunks)
    const told: Told = { path, headers: request.headers, bytes, json: JSON.parse(bytes.toString()) }
    this.told.push(told)
    for (const arrived of this.#arrivals.splice(0)) arrived()
    const taking = await this.take(told, this.at(path).length)
    if (taking === "hang") return
    if (taking === "reset") return void request.socket.destroy()
    if (taking === "endless") return void this.#pour(response)
    if (typeof taking === "number") response.writeHead(taking).end("ok")
    else response.writeHead(taking.status, taking.headers).end()
  }

  #pour(response: ServerResponse): void {
    if (response.destroyed) return
    response.write(Buffer.alloc(64 * 1024), () => this.#pour(response))
  }
}
