/**
 * Many chat sessions of one place, and what may be done with them: opened all at
 * once or a few at a time, kept talking, timed, dropped and brought back.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { backoffMs, reconnectMs } from "../../sdk/typescript/src/backoff.ts"
import { ChatSession, type Place, type Refusal } from "./ChatSession.ts"
import { DirectCall } from "./DirectCall.ts"
import { Turn, type TurnListener, type TurnShape } from "./Turn.ts"
import { type Percentiles, percentilesOf, whenDue } from "./whenDue.ts"

export interface Counts {
  readonly turns: number
  /** Of the agent's, whatever frames they came in. */
  readonly chunks: number
  readonly frames: number
  readonly failures: number
  /** What the first of them were. */
  readonly reasons: ReadonlyArray<string>
}

export interface Opened {
  /** Until the last was ready. */
  readonly ms: number
  /** Openings that were tried again. */
  readonly refusals: number
}

export interface TimedTurns extends Percentiles {
  readonly turns: number
}

/** Who can be asked for a turn. */
interface Speaker {
  say(turn: Turn): void
}

const reasonsMax = 5
/** Then its session can't be resumed any more. */
const retriesMax = 20
/** Turns that are still out when none was due and none ended for so long are lost. */
const lateMs = 15_000

export class Crowd implements TurnListener {
  readonly orders: Array<string> = []
  readonly #place: Place
  readonly #keys: ReadonlyArray<string>
  readonly #sessions: Array<ChatSession> = []
  #counts = { turns: 0, chunks: 0, frames: 0, failures: 0 }
  readonly #reasons: Array<string> = []
  /** Who said it, and says the next one if that is wanted. */
  readonly #speakers = new Map<Turn, Speaker>()
  #ended: ((turn: Turn, speaker: Speaker) => void) | undefined

  constructor(place: Place, keys: ReadonlyArray<string>) {
    this.#place = place
    this.#keys = keys
  }

  /** Until there are `total`, at most `atOnce` under way. */
  async open(total: number, atOnce: number): Promise<Opened> {
    const first = this.#sessions.length
    for (let at = first; at < total; at++) {
      this.#sessions.push(new ChatSession(this.#place, this.#keys[at % this.#keys.length] ?? "", {
        failed: (reason) => this.#failed(reason),
        billed: (orderId) => this.orders.push(orderId)
      }))
    }
    return this.#openAll(this.#sessions.slice(first), atOnce, false)
  }

  /** All sockets are cut in one step; each session comes back by itself, after the time that the SDKs wait. */
  async dropAndResume(): Promise<Opened> {
    const beganMs = performance.now()
    for (const session of this.#sessions) session.drop()
    const { refusals } = await this.#openAll(this.#sessions, this.#sessions.length, true)
    return { ms: performance.now() - beganMs, refusals }
  }

  /** For good: what a session had set aside is released. */
  async close(): Promise<void> {
    await Promise.all(this.#sessions.splice(0).map((session) => session.close()))
  }

  /** The first `speakers` sessions talk without a pause, each in its own time. */
  talk(speakers: number, shape: TurnShape): void {
    const sessions = this.#sessions.slice(0, speakers)
    this.#ended = (_, speaker) => this.#say(speaker, shape, performance.now())
    for (const [at, session] of sessions.entries()) {
      // The first turns are of different lengths, and begin a little apart: ends and chunks then spread over time.
      const chunks = shape.gapMs === 0 ? shape.chunks : Math.ceil(shape.chunks * (at + 1) / sessions.length)
      setTimeout(() => this.#say(session, { ...shape, chunks }, performance.now()), at * shape.gapMs / sessions.length)
    }
  }

  /** Nobody begins another turn; answers when the last one under way has ended. */
  async rest(): Promise<void> {
    this.#ended = undefined
    await this.#silence()
  }

  /** One turn of each session, `atOnce` under way. */
  async oneTurnEach(shape: TurnShape, atOnce: number): Promise<void> {
    const waiting = [...this.#sessions]
    const next = (): void => {
      const session = waiting.pop()
      if (session !== undefined) this.#say(session, shape, performance.now())
    }
    this.#ended = next
    for (let at = 0; at < atOnce; at++) next()
    await this.#silence()
  }

  /** An open loop: turns are said when they are due, by whoever is silent; times are from then to the first chunk. */
  time(shape: TurnShape, perSecond: number, seconds: number): Promise<TimedTurns> {
    return this.#time(this.#sessions, shape, perSecond, seconds)
  }

  /** The same over `lines` connections to the agent itself. */
  async timeDirectly(agentPort: number, lines: number, shape: TurnShape, perSecond: number, seconds: number): Promise<TimedTurns> {
    const speakers = await Promise.all(Array.from({ length: lines }, () => DirectCall.open(agentPort)))
    return this.#time(speakers, shape, perSecond, seconds).finally(() => { for (const speaker of speakers) speaker.drop() })
  }

  counts(): Counts {
    return { ...this.#counts, reasons: this.#reasons }
  }

  heard(chunks: number): void {
    this.#counts.frames++
    this.#counts.chunks += chunks
  }

  ended(turn: Turn, isWhole: boolean): void {
    this.#counts.turns++
    if (!isWhole) this.#failed(`not the text that the agent sent: ${turn.prompt}`)
    const speaker = this.#speakers.get(turn)!
    this.#speakers.delete(turn)
    this.#ended?.(turn, speaker)
  }

  #say(speaker: Speaker, shape: TurnShape, dueMs: number): void {
    const turn = new Turn(shape, dueMs, this)
    this.#speakers.set(turn, speaker)
    speaker.say(turn)
  }

  #failed(reason: string): void {
    this.#counts.failures++
    if (this.#reasons.length < reasonsMax) this.#reasons.push(reason)
  }

  async #time(speakers: ReadonlyArray<Speaker>, shape: TurnShape, perSecond: number, seconds: number): Promise<TimedTurns> {
    const idle = [...speakers]
    const waiting: Array<number> = []
    const total = Math.round(perSecond * seconds)
    const times = new Float64Array(total)
    let ended = 0
    this.#ended = (turn, speaker) => {
      times[ended++] = turn.firstMs - turn.dueMs
      const dueMs = waiting.shift()
      if (dueMs === undefined) idle.push(speaker)
      else this.#say(speaker, shape, dueMs)
    }
    await whenDue({
      total, gapMs: 1_000 / perSecond, lateMs,
      send: (dueMs) => {
        const speaker = idle.shift()
        if (speaker === undefined) waiting.push(dueMs)
        else this.#say(speaker, shape, dueMs)
      },
      isOver: () => ended === total
    })
    this.#ended = undefined
    if (ended < total) this.#failed(`${total - ended} of ${total} turns did not end`)
    return { turns: ended, ...percentilesOf(times.subarray(0, ended)) }
  }

  async #openAll(sessions: ReadonlyArray<ChatSession>, atOnce: number, wereDropped: boolean): Promise<Opened> {
    const beganMs = performance.now()
    let [next, refusals] = [0, 0]
    await Promise.all(Array.from({ length: Math.min(atOnce, sessions.length) }, async () => {
      while (next < sessions.length) await this.#openStubbornly(sessions[next++]!, wereDropped, () => { refusals++ })
    }))
    return { ms: performance.now() - beganMs, refusals }
  }

  async #openStubbornly(session: ChatSession, wasDropped: boolean, refused: () => void): Promise<void> {
    if (wasDropped) await sleep(reconnectMs(0))
    for (let attempt = wasDropped ? 1 : 0; ; attempt++) {
      const refusal = await session.open().then(() => undefined, (reason: Refusal) => reason)
      if (refusal === undefined) return
      refused()
      if (attempt === retriesMax) return this.#failed(`not opened: ${refusal.reason}`)
      await sleep(Math.max(refusal.retryAfterMs ?? 0, wasDropped ? reconnectMs(attempt) : backoffMs(attempt)))
    }
  }

  async #silence(): Promise<void> {
    let [seen, seenMs] = [this.#counts.turns, performance.now()]
    while (this.#speakers.size > 0) {
      await sleep(5)
      if (this.#counts.turns > seen) [seen, seenMs] = [this.#counts.turns, performance.now()]
      if (performance.now() < seenMs + lateMs) continue
      this.#failed(`${this.#speakers.size} turns did not end`)
      this.#speakers.clear()
    }
  }
}
