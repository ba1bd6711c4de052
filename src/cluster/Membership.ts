/**
 * Which nodes live, and which of them holds the lock of which shard: as Redis
 * says, read twice a second and at once when something moved.
 *
 * Overview. Each node has a record and each shard a lock, both with a time to
 * live. One script, the beat, writes this node's record, keeps its locks, and
 * reads everybody's.
 *
 *     shard here:  free ── acquire ──▶ held ── release ──▶ leaving (listeners run) ──▶ free
 *                                       └── not confirmed within the trust window, or another's ──▶ lost
 *
 * Guarantee. `ownerOf` says "here" only while this node holds the lock and no
 * other node can: a lock is trusted until its time to live, counted from before
 * it was asked for, less a margin, by a clock that only goes forward. Of two
 * nodes at most one says "here", unless Redis was emptied: then both may until
 * their next beat, and the fencing tokens decide. A lock names the node by its
 * id, which is new at every start: who comes back at the same address has
 * nothing. Each change of hands has a higher term.
 *
 * Failure cases. Redis away or frozen: everything stays as it was read, within
 * the trust window; past it everything is "moving", until Redis answers again:
 * what nobody else has taken meanwhile is then locked anew. Redis emptied: records and locks that are trusted are written
 * again, and nobody is taken for dead for one time to live. A node that was
 * killed or frozen: its record and its locks expire together. A late or
 * repeated script changes nothing that is not this node's.
 */
import { limits } from "../config.ts"
import { log } from "../telemetry/log.ts"
import type { Owner, Peer } from "./Cluster.ts"
import type { Redis } from "./Redis.ts"

export const shardCount = 300
/** Twice as often as a shard's refresh, so that one beat may be lost. */
const beatMs = limits.shardRefreshMs / 2
/** After a beat that failed. */
const retryMs = 100
/** News of moves that come together cause one beat, and shards that are released together are one handoff. */
const gatherMs = 10
/** How long a lock is trusted after it was asked for. */
const trustMs = limits.shardLockTtlMs - limits.shardTrustMarginMs
/** Who acquires waits so long for more locks that others are about to let go; less than Sharding waits for the answer. */
const acquireMs = limits.shardRefreshMs - 200
const acquireRetryMs = 100
/** A node that leaves is told of so long before it lets go, so that others stand ready. */
const noticeMs = 250

export interface NodeRecord extends Peer {
  /** It still holds shards, and takes no more. */
  readonly isLeaving: boolean
}

/** `text`: "node term address". */
interface Lock {
  readonly text: string
  until: number
}

type Beat = readonly [records: ReadonlyArray<string>, locks: ReadonlyArray<string | null>, newsNumber: number, secret: string, wasKnown: number]

export type LeavingListener = (isLeaving: (shard: number) => boolean) => Promise<void>

interface Sent {
  readonly startedAt: number
  readonly isMember: boolean
  readonly locks: ReadonlyArray<readonly [shard: number, lock: Lock]>
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms) })

const nextMove = () => {
  let happened = (): void => {}
  const promise = new Promise<void>((resolve) => { happened = resolve })
  return { promise, happened }
}

export class Membership {
  readonly nodeId: string
  /** Living nodes, this one included while it is a member. */
  nodes: ReadonlyMap<string, NodeRecord> = new Map()
  secret: string
  readonly movedListeners: Array<() => void> = []
  readonly leavingListeners: Array<LeavingListener> = []
  /** Told the number of the last news, after each beat. */
  readonly beatListeners: Array<(newsNumber: number) => void> = []
  private readonly redis: Redis
  private record: NodeRecord | undefined
  private wasAnnounced = false
  private readonly held: Array<Lock | undefined> = Array(shardCount + 1).fill(undefined)
  private owners: ReadonlyArray<Peer | "moving"> = Array(shardCount + 1).fill("moving")
  private texts: ReadonlyArray<string | null> = []
  private records = ""
  private knownUntil = -Infinity
  private highestTerm = 0
  private nobodyDiesUntil = -Infinity
  private failure = "it has not been asked yet"
  private letting: { readonly shards: Set<number>; readonly done: Promise<void> } | undefined
  private isClosed = false
  private wake: () => void = () => {}
  private move = nextMove()
  /** By the acquisition that runs. */
  private wanted: ReadonlySet<number> = new Set()
  private strays: ReadonlySet<number> = new Set()
  /** Given up because they were not confirmed in time; locked again when Redis answers, unless another has them. */
  private readonly lapsed = new Set<number>()
  /** Their locks are being let go: what an acquisition that was under way says of them counts no more. */
  private readonly leaving = new Set<number>()

  /** `secret`: used when Redis has none; of all that are offered to an empty one the first is everybody's. */
  constructor(redis: Redis, nodeId: string, secret: string) {
    this.redis = redis
    this.nodeId = nodeId
    this.secret = secret
    redis.onReady(() => this.wake())
  }

  /** Answers after the first beat. */
  async start(): Promise<void> {
    await this.beat()
    void this.run()
  }

  close(): void {
    this.isClosed = true
    this.wake()
  }

  /** Something moved: another node says so. */
  heardMove(): void {
    this.wake()
    this.move.happened()
    this.move = nextMove()
  }

  ownerOf(shard: number): Owner {
    const now = performance.now()
    const lock = this.held[shard]
    if (lock !== undefined && now < lock.until) return "here"
    return now < this.knownUntil ? this.owners[shard] as Peer | "moving" : "moving"
  }

  get isTrusted(): boolean {
    return performance.now() < this.knownUntil
  }

  holds(shard: number): boolean {
    return this.held[shard] !== undefined
  }

  trouble(): string | undefined {
    return this.isTrusted ? undefined : `Redis does not say who owns what: ${this.failure}`
  }

  /** Answers when the record is in Redis, however long that takes. */
  async join(record: Peer): Promise<void> {
    this.record = { ...record, isLeaving: false }
    while (!this.nodes.has(this.nodeId) && !this.isClosed) await this.beat().catch(() => sleep(retryMs))
  }

  /** Hands everything over, all shards at once. Redis away: the locks and the record expire by themselves. */
  async leave(): Promise<void> {
    if (this.record === undefined) return
    this.record = { ...this.record, isLeaving: true }
    await this.beat().catch(() => {})
    if ([...this.nodes.values()].some((node) => !node.isLeaving)) await sleep(noticeMs)
    await this.releaseAll().catch(() => {})
    this.record = undefined
    await this.redis.run("leave", [this.nodeId]).catch(() => {})
  }

  /**
   * Locks these shards and answers which are held: when all are, when for `acquireMs` none could be added to those that are,
   * or none when this node leaves. Goes on until `signal` otherwise.
   */
  async acquire(wanted: ReadonlyArray<number>, signal: AbortSignal): Promise<ReadonlyArray<number>> {
    const asked = this.wanted = new Set(wanted)
    const missing = (): ReadonlyArray<number> => wanted.filter((shard) => !this.holds(shard))
    let left = missing().length
    let gainedAt = performance.now()
    while (this.takesShards && !signal.aborted) {
      const moved = this.move.promise
      await this.lock(missing()).catch((cause: unknown) => log.debug({ err: cause }, "shards not acquired"))
      const now = performance.now()
      if (missing().length < left) gainedAt = now
      left = missing().length
      if (left === 0 || left < wanted.length && now - gainedAt >= acquireMs) break
      await Promise.race([moved, sleep(acquireRetryMs)])
    }
    if (this.wanted === asked) this.wanted = new Set()
    return this.takesShards ? wanted.filter((shard) => this.holds(shard)) : []
  }

  /**
   * Which of the shards that Sharding believes to have it may go on believing in. A lock that twice was neither among them
   * nor wanted came too late for it, and goes.
   */
  reconcile(believed: ReadonlySet<number>): ReadonlySet<number> {
    if (!this.isTrusted) return believed
    const strays = new Set<number>()
    this.held.forEach((lock, shard) => { if (lock !== undefined && !believed.has(shard) && !this.wanted.has(shard)) strays.add(shard) })
    for (const shard of strays) if (this.strays.has(shard)) void this.release(shard).catch(() => {})
    this.strays = strays
    return new Set([...believed].filter((shard) => this.holds(shard) || this.lapsed.has(shard)))
  }

  /** Runs the listeners, then lets the lock go. */
  release(shard: number): Promise<void> {
    const letting = this.letting ??= this.letGo()
    letting.shards.add(shard)
    return letting.done
  }

  async releaseAll(): Promise<void> {
    await Promise.all(Array.from({ length: shardCount }, (_, index) => this.release(index + 1)))
  }

  private letGo() {
    const shards = new Set<number>()
    const done = sleep(gatherMs).then(async () => {
      this.letting = undefined
      const held = new Set([...shards].filter((shard) => this.holds(shard)))
      for (const shard of shards) {
        this.held[shard] = undefined
        this.lapsed.delete(shard)
        this.leaving.add(shard)
      }
      try {
        if (held.size > 0) await this.settle(held)
        // Who is no member has nothing.
        if (this.record !== undefined) await this.redis.run("release", [this.nodeId, ...shards])
      } finally {
        for (const shard of shards) this.leaving.delete(shard)
      }
    })
    return { shards, done }
  }

  private async settle(shards: ReadonlySet<number>): Promise<void> {
    this.moved()
    const settled = this.leavingListeners.map(async (listener) => listener((shard) => shards.has(shard)))
    await Promise.race([
      Promise.allSettled(settled).then((ends) => { for (const end of ends) if (end.status === "rejected") log.error({ err: end.reason as unknown }, "settling what leaves") }),
      sleep(limits.handoffMs)
    ])
  }

  private get takesShards(): boolean {
    return this.record !== undefined && !this.record.isLeaving
  }

  private async lock(wanted: ReadonlyArray<number>): Promise<void> {
    const shards = wanted.filter((shard) => !this.leaving.has(shard))
    if (shards.length === 0 || this.record === undefined) return
    const until = performance.now() + trustMs
    const pairs = await this.redis.run("acquire", [this.nodeId, `${this.record.host}:${this.record.port}`, limits.shardLockTtlMs, ...shards]) as ReadonlyArray<string>
    if (pairs.length === 0) return
    if (!this.takesShards) return void await this.redis.run("release", [this.nodeId, ...shards])
    for (let i = 0; i < pairs.length; i += 2) {
      const shard = Number(pairs[i])
      if (!this.leaving.has(shard)) this.held[shard] = { text: pairs[i + 1] as string, until }
    }
    this.moved()
  }

  /** The next beat does not wait for the answer of the last: one that comes late still counts, from when it was asked for. */
  private async run(): Promise<void> {
    for (;;) {
      await this.pause(beatMs)
      if (this.isClosed) return
      void this.beat().catch(() => setTimeout(() => this.wake(), retryMs))
    }
  }

  private async pause(ms: number): Promise<void> {
    const isWoken = await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), ms)
      this.wake = () => {
        clearTimeout(timer)
        resolve(true)
      }
    })
    this.wake = () => {}
    if (isWoken && !this.isClosed) await sleep(gatherMs)
  }

  private async beat(): Promise<void> {
    const sent: Sent = { startedAt: performance.now(), isMember: this.record !== undefined, locks: this.trustedLocks() }
    const record = this.record === undefined ? "" : JSON.stringify(this.record)
    const args = [this.nodeId, limits.shardLockTtlMs, record, this.secret, this.highestTerm, shardCount, ...sent.locks.flatMap(([shard, lock]) => [shard, lock.text])]
    const beat = await this.redis.run("beat", args).catch((cause: unknown) => {
      this.failure = cause instanceof Error ? cause.message : String(cause)
      throw cause
    }) as Beat
    this.read(beat, sent)
    const lapsed = [...this.lapsed]
    await this.lock(lapsed)
    for (const shard of lapsed) this.lapsed.delete(shard)
  }

  /** What is past its time is given up. */
  private trustedLocks(): Sent["locks"] {
    const now = performance.now()
    const locks: Array<readonly [number, Lock]> = []
    let isLost = !this.isTrusted && this.texts.length > 0
    if (isLost) this.texts = []
    this.held.forEach((lock, shard) => {
      if (lock === undefined) return
      if (now < lock.until) return void locks.push([shard, lock])
      this.held[shard] = undefined
      this.lapsed.add(shard)
      isLost = true
    })
    if (isLost) this.moved()
    return locks
  }

  private read([records, texts, newsNumber, secret, wasKnown]: Beat, sent: Sent): void {
    const until = sent.startedAt + trustMs
    let isMoved = this.keepLocks(texts, sent.locks, until)
    // It was announced and is forgotten: so may the others be, that are about to say so.
    if (this.wasAnnounced && sent.isMember && wasKnown === 0) this.nobodyDiesUntil = performance.now() + limits.shardLockTtlMs
    this.wasAnnounced = sent.isMember
    const isGrace = performance.now() < this.nobodyDiesUntil
    const recordsText = records.join()
    const isRecordsNew = recordsText !== this.records || isGrace
    if (isRecordsNew) {
      const living = records.map((text) => JSON.parse(text) as NodeRecord)
      this.nodes = new Map([...isGrace ? this.nodes : [], ...living.map((node) => [node.nodeId, node] as const)])
      // Who is kept out of grace is looked at again.
      this.records = isGrace ? "" : recordsText
    }
    if (isRecordsNew || texts.some((text, index) => text !== this.texts[index])) {
      this.texts = texts
      this.owners = ["moving", ...texts.map((text) => this.ownerBy(text))]
      isMoved = true
    }
    this.secret = secret
    this.knownUntil = until
    if (isMoved) this.moved()
    for (const listener of this.beatListeners) listener(newsNumber)
  }

  /** Answers whether any was lost to another. */
  private keepLocks(texts: Beat[1], locks: Sent["locks"], until: number): boolean {
    let isLost = false
    for (const [shard, lock] of locks) {
      if (this.held[shard] !== lock) continue
      if (texts[shard - 1] === lock.text) lock.until = until
      else {
        this.held[shard] = undefined
        isLost = true
      }
    }
    return isLost
  }

  private ownerBy(text: string | null): Peer | "moving" {
    if (text === null) return "moving"
    const [nodeId = "", term] = text.split(" ", 2)
    this.highestTerm = Math.max(this.highestTerm, Number(term))
    return nodeId === this.nodeId ? "moving" : this.nodes.get(nodeId) ?? "moving"
  }

  private moved(): void {
    for (const listener of this.movedListeners) {
      try {
        listener()
      } catch (cause) {
        log.error({ err: cause }, "owners moved")
      }
    }
  }
}
