/**
 * `stream` rows: server-sent events (HTML standard §9.2).
 *
 * Each value is one `data:` line of JSON. While the reader is slow the stream
 * isn't pulled, so nothing piles up; a reader that takes nothing for
 * `readerStallMs` is cut off. Comments keep silent streams open. An error before
 * the head is sent (`streamOpenMs`, or the first value) is an ordinary error
 * answer; a later one is an `error` event with the dialect's body, then the end.
 * The stream is interrupted when the caller leaves or the gateway drains.
 */
import { Cause, Effect, Exit, Result, Stream } from "effect"
import { InvalidRequest, MethodNotAllowed } from "../../domain/errors.ts"
import type { Caller } from "../../kernel/Caller.ts"
import type { Header } from "../../kernel/Relay.ts"
import type { Dialect } from "../dialect.ts"
import type { StreamRow } from "../endpoint.ts"
import type { Exchange } from "../Exchange.ts"
import type { Stallable } from "../StallWatch.ts"
import { admit, needOf } from "./admit.ts"
import { decoder, encoder, queryOf } from "./codecs.ts"
import { RowMeter } from "./RowMeter.ts"
import type { Target } from "./Target.ts"

// `x-accel-buffering`: nginx must not hold events back.
const headers: ReadonlyArray<Header> = [["content-type", "text/event-stream"], ["cache-control", "no-store"], ["x-accel-buffering", "no"]]

class EventWriter implements Stallable {
  idleTicks = 0
  watchedBefore: Stallable | undefined = undefined
  watchedAfter: Stallable | undefined = undefined
  isOpen = false
  readonly #exchange: Exchange
  #keepAlive: NodeJS.Timeout
  #resume: (() => void) | undefined = undefined
  #waiting = false
  #hooked = false

  constructor(exchange: Exchange) {
    this.#exchange = exchange
    const { streamKeepAliveMs, streamOpenMs } = exchange.edge.limits
    this.#keepAlive = setTimeout(() => {
      this.#comment()
      this.#keepAlive = setInterval(() => this.#comment(), streamKeepAliveMs)
    }, streamOpenMs)
  }

  /** Succeeds once the socket takes more. */
  readonly event = (text: string): Effect.Effect<void> => Effect.suspend(() => {
    this.#write(`data: ${text}\n\n`)
    if (!this.#waiting) return Effect.void
    return Effect.callback<void>((resume) => {
      this.#resume = () => resume(Effect.void)
    })
  })

  /** The last words, if any, and the end. */
  end(words: string): void {
    const exchange = this.#exchange
    this.close()
    if (exchange.isDone) return
    if (!this.isOpen) return exchange.send(200, headers, words)
    if (words !== "") this.#write(words)
    const { response } = exchange
    exchange.finish(200)
    response.cork(() => response.end())
  }

  close(): void {
    clearTimeout(this.#keepAlive)
    this.#exchange.edge.readers.delete(this)
  }

  stalled(): void {
    const { listener } = this.#exchange
    this.#exchange.abort()
    listener?.gone()
  }

  #comment(): void {
    if (!this.#waiting) this.#write(":\n\n")
  }

  #write(text: string): void {
    const exchange = this.#exchange
    if (exchange.isDone) return
    let taken = true
    exchange.response.cork(() => {
      if (!this.isOpen) exchange.writeHead(200, headers)
      this.isOpen = true
      taken = exchange.response.write(text)
    })
    if (taken) return
    this.#waiting = true
    exchange.edge.readers.add(this)
    if (this.#hooked) return
    this.#hooked = true
    exchange.response.onWritable(() => {
      this.#waiting = false
      exchange.edge.readers.delete(this)
      const resume = this.#resume
      this.#resume = undefined
      resume?.()
      return true
    })
  }
}

export const streamTarget = (dialect: Dialect, row: StreamRow): Target => {
  const need = needOf(dialect, row)
  const decodeParams = decoder(row.params, "path")
  const decodeQuery = decoder(row.query, "query")
  const encode = encoder(row.event)

  const run = (exchange: Exchange, caller: Caller | undefined, params: unknown, query: unknown): void => {
    const writer = new EventWriter(exchange)
    const call = { caller, requestId: exchange.requestId, path: exchange.head.path, remoteAddress: exchange.remoteAddress, trace: exchange.head.trace, header: (name: string) => exchange.head.header(name) }
    const events = Stream.suspend(() => row.handle({ params, query }, call))
    const { streams } = exchange.edge
    const stop = () => {
      writer.end("")
      fiber.interruptUnsafe()
    }
    const fiber = exchange.edge.run(
      Stream.runForEach(events, (value) => writer.event(JSON.stringify(encode(value)))),
      (exit) => {
        streams.delete(stop)
        writer.close()
        if (Exit.isSuccess(exit)) return writer.end("")
        if (exchange.isDone) return
        const error = Cause.findError(exit.cause)
        if (!writer.isOpen) return Result.isSuccess(error) ? exchange.fail(error.success) : exchange.defect(Cause.squash(exit.cause))
        const rendered = Result.isSuccess(error) ? exchange.rendered(error.success) : dialect.internalError(exchange.requestId)
        writer.end(`event: error\ndata: ${JSON.stringify(rendered.body)}\n\n`)
      }
    )
    if (exchange.isDone) return
    streams.add(stop)
    exchange.listener = {
      gone: () => {
        writer.close()
        fiber.interruptUnsafe()
      }
    }
  }

  const receive = (exchange: Exchange, caller: Caller | undefined, params: Readonly<Record<string, string>>): void => {
    const path = decodeParams(params)
    if (path instanceof InvalidRequest) return exchange.fail(path)
    const raw = queryOf(exchange.head.query)
    const query = raw instanceof InvalidRequest ? raw : decodeQuery(raw)
    if (query instanceof InvalidRequest) return exchange.fail(query)
    run(exchange, caller, path.value, query.value)
  }

  return {
    dialect,
    meter: new RowMeter(row.id),
    isStream: true,
    serve: (exchange, params) => {
      if (exchange.head.method !== row.method) return exchange.fail(new MethodNotAllowed({ allow: [row.method] }))
      if (row.auth === "public") return receive(exchange, undefined, params)
      admit(exchange, need, (caller) => receive(exchange, caller, params))
    }
  }
}
