/** What a node believes of its locks, against a Redis whose answers the test gives. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { Membership, shardCount } from "../../../src/cluster/Membership.ts"
import type { Redis } from "../../../src/cluster/Redis.ts"

type Args = ReadonlyArray<string | number | Buffer>

/** The locks of a Redis in memory; each call can be held back. */
class ScriptedRedis {
  readonly locks: Array<string | null> = Array(shardCount).fill(null)
  readonly calls: Array<string> = []
  isAway = false
  /** The answer of the next such script comes when this is called. */
  private readonly held = new Map<string, Promise<void>>()
  private term = 0

  hold(name: string): () => void {
    let answer = (): void => {}
    this.held.set(name, new Promise((resolve) => { answer = resolve }))
    return answer
  }

  readonly client: Redis = {
    run: async (name, args) => {
      this.calls.push(name)
      if (this.isAway) throw new Error("away")
      const answer = this.execute(name, args)
      const held = this.held.get(name)
      this.held.delete(name)
      await held
      return answer
    },
    publish: async () => 0,
    listen: async () => {},
    onMessage: () => {},
    onListening: () => {},
    checkListening: () => {},
    onReady: () => {},
    close: () => {}
  }

  private execute(name: string, args: Args): unknown {
    if (name === "beat") {
      for (let i = 6; i < args.length; i += 2) this.locks[Number(args[i]) - 1] ??= String(args[i + 1])
      return [args[2] === "" ? [] : [args[2]], [...this.locks], 0, args[3], 1]
    }
    if (name === "acquire") return args.slice(3).flatMap((shard) => {
      this.locks[Number(shard) - 1] ??= `${args[0]} ${++this.term} ${args[1]}`
      return this.locks[Number(shard) - 1]!.startsWith(`${args[0]} `) ? [String(shard), this.locks[Number(shard) - 1]] : []
    })
    if (name === "release") for (const shard of args.slice(1)) if (this.locks[Number(shard) - 1]?.startsWith(`${args[0]} `)) this.locks[Number(shard) - 1] = null
    return 0
  }
}

let redis: ScriptedRedis
let node: Membership
const acquire = (...shards: ReadonlyArray<number>) => node.acquire(shards, new AbortController().signal)

beforeEach(async () => {
  vi.useFakeTimers()
  redis = new ScriptedRedis()
  node = new Membership(redis.client, "node", "secret")
  await node.start()
  await node.join({ nodeId: "node", host: "127.0.0.1", port: 1, hopPort: 2 })
})
afterEach(() => {
  node.close()
  vi.useRealTimers()
})

describe("a node's locks", () => {
  it("are trusted for 2.5 s after the last beat was sent, and no longer when the process was stopped meanwhile", async () => {
    await acquire(1)
    await vi.advanceTimersByTimeAsync(10_000)
    expect(node.ownerOf(1)).toBe("here")
    // No timer fires in a process that is stopped; only the clock goes on.
    redis.isAway = true
    const stoppedAt = performance.now()
    vi.setSystemTime(0)
    const now = vi.spyOn(performance, "now")
    now.mockReturnValue(stoppedAt + 1_900)
    expect(node.ownerOf(1)).toBe("here")
    now.mockReturnValue(stoppedAt + 2_500)
    expect(node.ownerOf(1)).toBe("moving")
    now.mockRestore()
  })

  it("are locked anew by the first beat after an outage, except those that another has taken", async () => {
    await acquire(1, 2)
    redis.isAway = true
    await vi.advanceTimersByTimeAsync(5_000)
    expect([node.ownerOf(1), node.ownerOf(2), node.trouble()]).toEqual(["moving", "moving", "Redis does not say who owns what: away"])
    expect(node.reconcile(new Set([1, 2]))).toEqual(new Set([1, 2]))
    redis.locks.fill(null)
    redis.locks[1] = "other 9 127.0.0.1:3"
    redis.isAway = false
    await vi.advanceTimersByTimeAsync(200)
    expect([node.ownerOf(1), node.ownerOf(2), node.trouble()]).toEqual(["here", "moving", undefined])
    expect(node.reconcile(new Set([1, 2]))).toEqual(new Set([1]))
  })

  it("are let go when the listeners have settled, and are nobody's here from the start of it", async () => {
    await acquire(7)
    let settle = (): void => {}
    const leaving: Array<ReadonlyArray<boolean>> = []
    node.leavingListeners.push((isLeaving) => {
      leaving.push([isLeaving(7), isLeaving(8)])
      return new Promise((resolve) => { settle = resolve })
    })
    const released = node.release(7)
    await vi.advanceTimersByTimeAsync(1_000)
    expect(leaving).toEqual([[true, false]])
    expect([node.ownerOf(7), redis.locks[6]]).toEqual(["moving", "node 1 127.0.0.1:1"])
    settle()
    await released
    expect(redis.locks[6]).toBeNull()
  })

  it("released together are one handoff, whatever a listener throws", async () => {
    await acquire(1, 2, 3)
    let handoffs = 0
    node.leavingListeners.push(() => {
      handoffs++
      throw new Error("a listener's bug")
    })
    const released = Promise.all([node.release(1), node.release(2), node.release(3)])
    await vi.advanceTimersByTimeAsync(100)
    await released
    expect(handoffs).toBe(1)
    expect(redis.locks.every((lock) => lock === null)).toBe(true)
  })

  it("that are being let go are not held again by an acquisition that was under way", async () => {
    const acquireAnswers = redis.hold("acquire")
    const releaseAnswers = redis.hold("release")
    const acquired = acquire(5)
    const released = node.release(5)
    await vi.advanceTimersByTimeAsync(20)
    expect(redis.calls.filter((name) => name !== "beat")).toEqual(["acquire", "release"])
    acquireAnswers()
    await vi.advanceTimersByTimeAsync(0)
    expect(node.ownerOf(5)).toBe("moving")
    releaseAnswers()
    await released
    await vi.advanceTimersByTimeAsync(200)
    expect([await acquired, node.ownerOf(5)]).toEqual([[5], "here"])
  })

  it("that Sharding never learned of are let go", async () => {
    const giveUp = new AbortController()
    redis.locks[1] = "other 9 127.0.0.1:3"
    const acquired = node.acquire([1, 2], giveUp.signal)
    await vi.advanceTimersByTimeAsync(100)
    giveUp.abort()
    await vi.advanceTimersByTimeAsync(200)
    await acquired
    expect(node.ownerOf(1)).toBe("here")
    node.reconcile(new Set())
    await vi.advanceTimersByTimeAsync(100)
    expect(node.ownerOf(1)).toBe("here")
    node.reconcile(new Set())
    await vi.advanceTimersByTimeAsync(100)
    expect([node.ownerOf(1), redis.locks[0]]).toEqual(["moving", null])
  })

  it("are not taken by a node that leaves", async () => {
    await acquire(1)
    const answer = redis.hold("acquire")
    const acquired = acquire(2)
    const left = node.leave()
    await vi.advanceTimersByTimeAsync(100)
    answer()
    await vi.advanceTimersByTimeAsync(1_000)
    await left
    expect(await acquired).toEqual([])
    expect(redis.locks.filter((lock) => lock !== null)).toEqual([])
    expect([node.ownerOf(1), node.ownerOf(2)]).toEqual(["moving", "moving"])
  })
})
