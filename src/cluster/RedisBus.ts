/**
 * The bus on Redis. A script gives each news to all the next number and
 * publishes it, so that numbers and messages can't differ.
 *
 * Guarantee. News of one node arrive in their order, perhaps twice. Who misses
 * one hears `missed`: at once when the next has a number too high or when it
 * listens again after its connection was lost, else when two beats in a row
 * have told of a number that never came (<= 1 s). News wait here until Redis
 * has taken them, `waitingMax` at most: beyond it they are forgotten and only
 * the number is raised, so that every node hears `missed`.
 */
import { log } from "../telemetry/log.ts"
import type { Bus, News } from "./Bus.ts"
import type { Membership } from "./Membership.ts"
import type { Redis } from "./Redis.ts"
import { packNews, unpackNews } from "./Wire.ts"

const toAll = "tollgate:news"
const moved = "tollgate:moved"
const toNode = (nodeId: string): string => `tollgate:to:${nodeId}`
const waitingMax = 10_000
/** News of one script; some 100 bytes each. */
const batchMax = 256
const retryMs = 100
const space = 0x20

export const channelsOf = (nodeId: string): ReadonlyArray<string> => [toAll, moved, toNode(nodeId)]

export class RedisBus {
  private readonly redis: Redis
  private readonly nodeId: string
  private readonly listeners: Array<(news: News) => void> = []
  private waiting: Array<Buffer> = []
  private isForgetful = false
  private isSending = false
  private isClosed = false
  /** The number of the last news that was heard; `undefined`: none since it began to listen. */
  private heard: number | undefined
  /** What the last beat said since then. */
  private told: number | undefined

  constructor(redis: Redis, membership: Membership) {
    this.redis = redis
    this.nodeId = membership.nodeId
    redis.onMessage((channel, text) => {
      if (channel === toAll) this.hear(text)
      else if (channel === moved) membership.heardMove()
      else this.give(unpackNews(text))
    })
    redis.onListening(() => {
      this.heard = undefined
      this.told = undefined
      this.give({ _tag: "missed" })
    })
    membership.beatListeners.push((number) => this.compare(number))
  }

  get service(): Bus["Service"] {
    return {
      tell: (news) => this.tell(news),
      tellNode: (nodeId, news) => void this.redis.publish(toNode(nodeId), packNews(news)).catch((cause: unknown) => log.debug({ err: cause }, "news to one node")),
      onNews: (listener) => { this.listeners.push(listener) }
    }
  }

  close(): void {
    this.isClosed = true
  }

  private tell(news: News): void {
    if (this.waiting.length >= waitingMax) {
      this.waiting = []
      this.isForgetful = true
    }
    this.waiting.push(Buffer.concat([Buffer.from(`${this.nodeId} `), packNews(news)]))
    if (!this.isSending) void this.send()
  }

  private async send(): Promise<void> {
    this.isSending = true
    while (!this.isClosed && (this.waiting.length > 0 || this.isForgetful)) {
      const batch = this.isForgetful ? [] : this.waiting.slice(0, batchMax)
      const { waiting } = this
      try {
        await this.redis.run("tell", batch)
        if (batch.length === 0) this.isForgetful = false
        // Unless they were forgotten meanwhile.
        else if (waiting === this.waiting) waiting.splice(0, batch.length)
      } catch {
        await new Promise((resolve) => { setTimeout(resolve, retryMs) })
      }
    }
    this.isSending = false
  }

  /** "number sender news" */
  private hear(text: Buffer): void {
    const first = text.indexOf(space)
    const second = text.indexOf(space, first + 1)
    const number = Number(text.toString("latin1", 0, first))
    // Too high: some did not come. Too low: Redis was emptied and counts anew.
    if (this.heard !== undefined && number !== this.heard + 1) this.give({ _tag: "missed" })
    this.heard = number
    if (text.toString("latin1", first + 1, second) !== this.nodeId) this.give(unpackNews(text.subarray(second + 1)))
  }

  /** What the beat before told of must have arrived; what this one tells of may be on its way. */
  private compare(number: number): void {
    this.redis.checkListening()
    if (this.told !== undefined) {
      const wasEmptied = number < this.told
      if (wasEmptied || this.heard !== undefined && this.heard < this.told) this.give({ _tag: "missed" })
      this.heard = wasEmptied ? undefined : Math.max(this.heard ?? 0, this.told)
    }
    this.told = number
  }

  private give(news: News | undefined): void {
    for (const listener of this.listeners) {
      try {
        listener(news ?? { _tag: "missed" })
      } catch (cause) {
        log.error({ err: cause }, "news")
      }
    }
  }
}
