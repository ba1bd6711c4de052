/**
 * Whose turn it is to be sent to. Each webhook is sent to by one attempt at a
 * time, each origin by a few, all of them by a bounded number; origins take
 * turns, and so do the webhooks of one origin.
 *
 * An origin that failed the last time, or took long to answer, is slow. Slow
 * ones have at most half of the places, so that those who let every attempt run
 * into its time limit can't keep all others waiting.
 *
 * Nothing here waits or sends: `Sender.ts` does.
 */

/** Origins known as slow; above it the one that is known for longest is forgotten. */
const slowOriginsMax = 10_000

export interface LaneLimits {
  readonly underWayMax: number
  readonly perOriginMax: number
}

/** One attempt for a webhook. */
export interface Turn {
  readonly webhookId: string
  readonly origin: string
}

interface Lane {
  readonly origin: string
  /** Webhooks that wait, the first one first. */
  readonly waiting: Set<string>
  readonly underWay: Set<string>
}

export class Lanes {
  readonly #limits: LaneLimits
  readonly #lanes = new Map<string, Lane>()
  /** Lanes that have somebody waiting and a place left, the first one first. */
  readonly #quick = new Set<Lane>()
  readonly #slow = new Set<Lane>()
  readonly #slowOrigins = new Set<string>()
  #underWay = 0
  /** Webhooks that were slow when their attempt began. */
  readonly #slowUnderWay = new Set<string>()

  constructor(limits: LaneLimits) {
    this.#limits = limits
  }

  /** The webhook has something to be sent. One that is under way has its turn when that has ended. */
  offer(webhookId: string, origin: string): void {
    let lane = this.#lanes.get(origin)
    if (lane === undefined) this.#lanes.set(origin, lane = { origin, waiting: new Set(), underWay: new Set() })
    lane.waiting.add(webhookId)
    this.#queue(lane)
  }

  /** Whom to send to next, as many as there are places for: each is under way until `done`. */
  take(): ReadonlyArray<Turn> {
    const taken: Array<Turn> = []
    for (let lane = this.#next(); lane !== undefined; lane = this.#next()) {
      const webhookId = firstOf(lane)!
      lane.waiting.delete(webhookId)
      lane.underWay.add(webhookId)
      this.#underWay++
      if (this.#slowOrigins.has(lane.origin)) this.#slowUnderWay.add(webhookId)
      this.#queue(lane, true)
      taken.push({ webhookId, origin: lane.origin })
    }
    return taken
  }

  /** `wasSlow`: what the attempt showed; absent when none was made. */
  done({ webhookId, origin }: Turn, wasSlow?: boolean): void {
    const lane = this.#lanes.get(origin)!
    lane.underWay.delete(webhookId)
    this.#underWay--
    this.#slowUnderWay.delete(webhookId)
    if (wasSlow === true) this.#noteSlow(origin)
    else if (wasSlow === false) this.#slowOrigins.delete(origin)
    this.#queue(lane)
    if (lane.underWay.size === 0 && lane.waiting.size === 0) this.#lanes.delete(origin)
  }

  #next(): Lane | undefined {
    if (this.#underWay >= this.#limits.underWayMax) return undefined
    const slow = this.#slowUnderWay.size < this.#limits.underWayMax / 2 ? this.#slow.values().next().value : undefined
    return slow ?? this.#quick.values().next().value
  }

  /** Queues the lane where it belongs, if it can have a turn. One that is queued keeps its place unless it has just had one. */
  #queue(lane: Lane, hadTurn = false): void {
    const isSlow = this.#slowOrigins.has(lane.origin)
    const [queue, other] = isSlow ? [this.#slow, this.#quick] : [this.#quick, this.#slow]
    const isReady = lane.underWay.size < this.#limits.perOriginMax && firstOf(lane) !== undefined
    other.delete(lane)
    if (hadTurn || !isReady) queue.delete(lane)
    if (isReady) queue.add(lane)
  }

  #noteSlow(origin: string): void {
    if (this.#slowOrigins.size >= slowOriginsMax) this.#slowOrigins.delete(this.#slowOrigins.values().next().value!)
    this.#slowOrigins.add(origin)
  }
}

/** Who waits and is not under way. As many are passed over as are under way, at most. */
const firstOf = ({ waiting, underWay }: Lane): string | undefined => {
  for (const webhookId of waiting) if (!underWay.has(webhookId)) return webhookId
  return undefined
}
