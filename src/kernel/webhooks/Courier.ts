/**
 * Takes a message to its receiver: one POST, and the status of the answer.
 *
 * Guarantees: the guard judges the URL each time and every resolved address at
 * each connect; certificates are verified; redirects are answers. An attempt ends
 * within its time, a body that is longer than a few kilobytes is not read. An
 * idle connection is kept for the next message for some seconds, and one that was
 * made for a trusted owner (see `UpstreamGuard`) is for trusted owners only.
 */
import { Data, Effect } from "effect"
import { Agent as PlainAgent, type ClientRequest, request as requestPlain } from "node:http"
import { Agent as TlsAgent, request as requestTls } from "node:https"
import { ForbiddenAddress, type UpstreamGuard } from "../upstream/UpstreamGuard.ts"

export interface Message {
  readonly url: string
  readonly trusted: boolean
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
}

/** No answer came: why, in words that the webhook's owner may read. */
export class NotTaken extends Data.TaggedError("NotTaken")<{ readonly why: string; readonly isStale: boolean }> {}

/** Below the 5 s after which common servers close an idle connection. */
const keepAliveMs = 4_000
const answerBytesMax = 16 * 1024

const whyOf = (error: NodeJS.ErrnoException): string =>
  error instanceof ForbiddenAddress ? "the address is not public" : error.code ?? "the connection failed"

/** The connections of one kind of owner. */
class Connections {
  readonly plain = new PlainAgent({ keepAlive: true, timeout: keepAliveMs })
  readonly tls = new TlsAgent({ keepAlive: true, timeout: keepAliveMs, rejectUnauthorized: true })

  close(): void {
    this.plain.destroy()
    this.tls.destroy()
  }
}

export class Courier {
  readonly #guard: UpstreamGuard["Service"]
  readonly #timeoutMs: number
  readonly #trusted = new Connections()
  readonly #others = new Connections()

  constructor(guard: UpstreamGuard["Service"], timeoutMs: number) {
    this.#guard = guard
    this.#timeoutMs = timeoutMs
  }

  /** The status that the receiver answered. Sent a second time when a kept connection turned out to be gone. */
  send(message: Message): Effect.Effect<number, NotTaken> {
    const once = Effect.callback<number, NotTaken>((resume) => {
      const request = this.#begin(message, (outcome) => resume(typeof outcome === "number" ? Effect.succeed(outcome) : Effect.fail(outcome)))
      return Effect.sync(() => request?.destroy())
    })
    return Effect.retry(once, { times: 1, while: ({ isStale }) => isStale })
  }

  close(): void {
    this.#trusted.close()
    this.#others.close()
  }

  /** Calls `ended` once, when the answer's end has come or nothing more will. */
  #begin({ url: text, trusted, headers, body }: Message, ended: (outcome: number | NotTaken) => void): ClientRequest | undefined {
    const url = new URL(text)
    const lookup = this.#guard.lookupFor(url, trusted)
    if (lookup === undefined) {
      ended(new NotTaken({ why: "the address is not public", isStale: false }))
      return undefined
    }
    const connections = trusted ? this.#trusted : this.#others
    const isPlain = url.protocol === "http:"
    const request = (isPlain ? requestPlain : requestTls)(url, {
      method: "POST", lookup, agent: isPlain ? connections.plain : connections.tls, headers: { ...headers, "content-length": body.length }
    })
    let status: number | undefined
    let failure: NotTaken | undefined
    const overdue = setTimeout(() => request.destroy(Object.assign(new Error(), { code: "no answer in time" })), this.#timeoutMs)
    request.on("response", (response) => {
      status = response.statusCode
      let bytes = 0
      response.on("data", ({ length }: Buffer) => {
        bytes += length
        if (bytes > answerBytesMax) response.destroy()
      }).on("error", () => {}) // Its status has come: how its body ends says nothing.
    }).on("error", (error: NodeJS.ErrnoException) => {
      failure = new NotTaken({ why: whyOf(error), isStale: request.reusedSocket && error.code === "ECONNRESET" })
    }).on("close", () => {
      clearTimeout(overdue)
      ended(status ?? failure ?? new NotTaken({ why: "the connection was closed", isStale: false }))
    }).end(body)
    return request
  }
}
