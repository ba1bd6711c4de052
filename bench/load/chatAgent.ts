/**
 * The chat's agent: streams chunks in the shape of OpenAI's as its prompt asks,
 * `TOKEN CHUNKS GAP_MS`. The first chunk leaves at once, the others one by one
 * with the gap between them, and the end one gap after the last; without a gap
 * all leave as fast as they are taken.
 *
 * Each chunk holds 20 characters that name the turn's token and the chunk's
 * number, so a text that lost, doubled, mixed up or swapped anything is not the
 * expected one. All streams share one timer: the agent runs on the load's core.
 */
import uWS from "uWebSockets.js"

export const chunkChars = 20

/** `token` has eight characters; four in base 36 are enough for a million and a half chunks. */
const piece = (token: string, at: number): string => `${token}:${at.toString(36).padStart(4, "0")} words `

export const promptOf = (token: string, chunks: number, gapMs: number): string => `${token} ${chunks} ${gapMs}`

export const textOf = (token: string, chunks: number): string => {
  let text = ""
  for (let at = 0; at < chunks; at++) text += piece(token, at)
  return text
}

const eventOf = (delta: string, finish: string): string =>
  `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":[{"index":0,"delta":${delta},"finish_reason":${finish}}]}\n\n`

const end = `${eventOf("{}", `"stop"`)}data: [DONE]\n\n`

/** Kept low, so that a reader that is slow is seen at once. */
const burstEvents = 64

class Stream {
  readonly gapMs: number
  isOver = false
  isRushing = false
  readonly #response: uWS.HttpResponse
  readonly #token: string
  readonly #chunks: number
  #sent = 0

  constructor(response: uWS.HttpResponse, prompt: string) {
    const [token = "", chunks, gapMs] = prompt.split(" ")
    this.#response = response
    this.#token = token
    this.#chunks = Number(chunks)
    this.gapMs = Number(gapMs)
  }

  begin(): void {
    this.#response.cork(() => {
      // The server closes what rests for ten seconds; a client that is told doesn't ask over it just then.
      this.#response.writeHeader("content-type", "text/event-stream").writeHeader("keep-alive", "timeout=8")
      this.#writeNext()
    })
  }

  /** The next chunk, or the end. */
  step(): void {
    this.#response.cork(() => this.#writeNext())
  }

  /** All that is left, in corked bursts; goes on when the reader takes more. */
  rush(): boolean {
    this.isRushing = true
    let isTaken = true
    while (isTaken && !this.isOver) {
      this.#response.cork(() => {
        for (let event = 0; event < burstEvents && isTaken && !this.isOver; event++) isTaken = this.#writeNext()
      })
    }
    return isTaken
  }

  #writeNext(): boolean {
    if (this.#sent < this.#chunks) return this.#response.write(eventOf(`{"content":"${piece(this.#token, this.#sent++)}"}`, "null"))
    this.isOver = true
    this.#response.end(end)
    return true
  }
}

/** Streams by the millisecond in which each is due again. */
class Pacer {
  readonly #due = new Map<number, Array<Stream>>()
  /** Up to here all that was due has been done. */
  #nowMs = 0
  #timer: NodeJS.Timeout | undefined

  add(stream: Stream): void {
    const nowMs = Math.floor(performance.now())
    if (this.#timer === undefined) {
      this.#nowMs = nowMs
      this.#timer = setInterval(() => this.#tick(), 1)
    }
    this.#put(nowMs + stream.gapMs, stream)
  }

  /** Every stream ends now, whole. */
  rush(): void {
    for (const streams of this.#due.values()) {
      for (const stream of streams) if (!stream.isOver) stream.rush()
    }
  }

  #put(dueMs: number, stream: Stream): void {
    const at = Math.max(dueMs, this.#nowMs + 1)
    const streams = this.#due.get(at)
    if (streams === undefined) this.#due.set(at, [stream])
    else streams.push(stream)
  }

  #tick(): void {
    for (const toMs = Math.floor(performance.now()); this.#nowMs < toMs;) {
      const streams = this.#due.get(++this.#nowMs)
      if (streams === undefined) continue
      this.#due.delete(this.#nowMs)
      for (const stream of streams) {
        if (stream.isOver) continue
        stream.step()
        if (!stream.isOver) this.#put(this.#nowMs + stream.gapMs, stream)
      }
    }
    if (this.#due.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}

export interface ChatAgent {
  readonly app: uWS.TemplatedApp
  /** Streams that are under way end at once, whole. */
  readonly rush: () => void
}

export const chatAgent = (): ChatAgent => {
  const pacer = new Pacer()
  const app = uWS.App().post("/*", (response) => {
    let stream: Stream | undefined
    response.onAborted(() => { if (stream !== undefined) stream.isOver = true })
    let head = ""
    response.onData((bytes, isLast) => {
      // The prompt comes first; a history of any length may follow.
      if (head === "") head = Buffer.from(bytes).toString("latin1", 0, 256)
      if (!isLast) return
      const running = stream = new Stream(response, /"prompt":"([^"]*)"/.exec(head)?.[1] ?? "")
      response.onWritable(() => running.isOver || !running.isRushing || running.rush())
      running.begin()
      if (running.gapMs > 0) pacer.add(running)
      else running.rush()
    })
  })
  return { app, rush: () => pacer.rush() }
}
