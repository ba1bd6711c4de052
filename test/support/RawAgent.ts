/**
 * An agent made of a bare socket, so that it can misbehave in ways no HTTP
 * server would, and a caller's side that records what it was told.
 */
import { type AddressInfo, type Server, type Socket, createServer } from "node:net"
import { once } from "node:events"
import type { AgentUnavailable } from "../../src/domain/errors.ts"
import { type Exchange, type UpstreamCall, type UpstreamHandler, type UpstreamLimits, parseTarget, upstreamLimits } from "../../src/kernel/upstream/Upstream.ts"
import { makeUpstreamGuard } from "../../src/kernel/upstream/UpstreamGuard.ts"
import { UpstreamLanes } from "../../src/kernel/upstream/UpstreamLanes.ts"
import { type Resolve, makeResolve } from "../../src/kernel/upstream/UpstreamResolver.ts"
import { AnswerFilter } from "../../src/kernel/upstream/hopByHop.ts"

/** One request as it arrived: head and the body bytes that came with it so far. */
export interface RawRequest {
  readonly socket: Socket
  readonly text: string
  /** Counts all requests of the agent, from 1. */
  readonly nth: number
}

export class RawAgent {
  readonly requests: Array<string> = []
  readonly sockets: Array<Socket> = []
  readonly #server: Server
  readonly #arrivals: Array<() => void> = []

  constructor(behave: (request: RawRequest) => void) {
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      this.sockets.push(socket)
      socket.on("error", () => {}).on("end", () => socket.end())
      socket.on("data", (bytes) => {
        const text = bytes.toString("latin1")
        if (!/^[A-Z]+ \S+ HTTP\/1\.1\r\n/.test(text)) return
        behave({ socket, text, nth: this.requests.push(text) })
        for (const arrived of this.#arrivals.splice(0)) arrived()
      })
    })
  }

  async listen(): Promise<this> {
    this.#server.listen(0, "127.0.0.1")
    await once(this.#server, "listening")
    return this
  }
  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }
  get url(): string {
    return `http://127.0.0.1:${this.port}/run`
  }
  /** Resolves when the agent has seen this many requests. */
  async seen(count: number): Promise<void> {
    while (this.requests.length < count) await new Promise<void>((arrived) => this.#arrivals.push(arrived))
  }
  close(): void {
    for (const socket of this.sockets) socket.destroy()
    this.#server.close()
  }
}

/** A head of 200 with these header lines. */
export const head = (...lines: ReadonlyArray<string>): string => `HTTP/1.1 200 OK\r\n${lines.map((line) => `${line}\r\n`).join("")}\r\n`

/** Writes the block again and again, as fast as the other side takes it, until that hangs up. */
export const pour = (socket: Socket, block: string): void => {
  const more = (): void => {
    while (!socket.destroyed) if (!socket.write(block)) return void socket.once("drain", more)
  }
  more()
}

/** Writes the block at intervals, until the other side hangs up. */
export const drip = (socket: Socket, block: string, everyMs: number): void => {
  const dripping = setInterval(() => socket.write(block), everyMs)
  socket.once("close", () => clearInterval(dripping))
}

/** Resolves when both sides of the connection have ended. */
export const hungUp = async (socket: Socket): Promise<void> => {
  if (!socket.closed) await once(socket, "close")
}

export const answer = (body: string, head = ""): string => `HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n${head}\r\n${body}`

/** What a call came to. `error` excludes a complete answer. */
export interface Outcome {
  readonly status: number
  readonly headers: ReadonlyArray<readonly [string, string]>
  readonly contentLength: number | undefined
  readonly body: string
  readonly error: AgentUnavailable | undefined
}

/** Takes everything unless `takes` says otherwise; `done` settles at the call's end. */
export class RecordingHandler implements UpstreamHandler {
  readonly chunks: Array<Uint8Array> = []
  readonly done: Promise<Outcome>
  readonly headed: Promise<number>
  exchange!: Exchange
  endings = 0
  takes: (bytes: Uint8Array) => boolean = () => true
  #head: Omit<Outcome, "body" | "error"> = { status: 0, headers: [], contentLength: undefined }
  #headArrived!: (status: number) => void
  #settle!: (outcome: Outcome) => void

  constructor() {
    this.done = new Promise((settle) => { this.#settle = settle })
    this.headed = new Promise((arrived) => { this.#headArrived = arrived })
  }
  get bytes(): number {
    return this.chunks.reduce((sum, chunk) => sum + chunk.length, 0)
  }
  head(status: number, headers: Outcome["headers"], contentLength: number | undefined): void {
    this.#head = { status, headers, contentLength }
    this.#headArrived(status)
  }
  chunk(bytes: Uint8Array): boolean {
    this.chunks.push(bytes)
    return this.takes(bytes)
  }
  end(): void {
    this.#finish(undefined)
  }
  failed(error: AgentUnavailable): void {
    this.#finish(error)
  }
  #finish(error: AgentUnavailable | undefined): void {
    this.endings++
    this.#settle({ ...this.#head, body: Buffer.concat(this.chunks).toString("latin1"), error })
  }
}

/** Lanes with short limits and a fine sweep, allowed to reach 127.0.0.1. */
export class Gateway {
  readonly lanes: UpstreamLanes

  constructor(options: Partial<UpstreamLimits> & { readonly allow?: ReadonlyArray<string>; readonly resolve?: Resolve } = {}) {
    const { allow = ["127.0.0.1"], resolve = makeResolve(), ...limits } = options
    const guard = makeUpstreamGuard({ upstreamAllow: allow, upstreamAllowOwners: undefined }, resolve)
    this.lanes = new UpstreamLanes(guard, { ...upstreamLimits({ agentConcurrency: 64 }), tickMs: 5, ...limits })
  }

  call(url: string, over: Partial<UpstreamCall> = {}, handler = new RecordingHandler()): RecordingHandler {
    handler.exchange = this.lanes.send({
      agentId: "agent-1", agent: "ECHO", ownerId: "owner-1", target: parseTarget(url), query: "", method: "POST",
      headers: ["content-type", "text/plain"], body: Buffer.from("hi"), answer: new AnswerFilter([]), ...over
    }, handler)
    return handler
  }
}
