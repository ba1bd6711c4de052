/** Who owns what, with a real Redis that goes away, freezes and forgets, and nodes that do. Each test has its own. */
import { Effect } from "effect"
import { once } from "node:events"
import { type AddressInfo, createServer } from "node:net"
import { describe, expect, it } from "vitest"
import { type RingNode, accounts, areSettled, granted, leaseAsk, startNode, until, watchLosses, watchOwners } from "../../support/RingNode.ts"
import { type TestRedis, startTestRedis } from "../../support/redis.ts"

/** A Redis and nodes that have joined one after the other and agree. */
const ring = async (names: ReadonlyArray<string>) => {
  const redis = await startTestRedis()
  const nodes: Array<RingNode> = []
  for (const name of names) nodes.push(await startNode(redis, name))
  for (const node of nodes) await node.join()
  await until(() => areSettled(nodes))
  const end = async (): Promise<void> => {
    await Promise.all(nodes.map((node) => node.end()))
    await redis.stop()
  }
  return { redis, nodes, end }
}

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}

const termsOf = async (redis: TestRedis): Promise<ReadonlyArray<number>> => {
  const terms: Array<number> = []
  for (let shard = 1; shard <= 300; shard++) terms.push(Number(/^\$\d+\r\n\S+ (\d+) /.exec(await redis.command("get", `tollgate:shard:${shard}`))?.[1] ?? NaN))
  return terms
}

describe.concurrent("placement", { timeout: 60_000 }, () => {
  it("a node that has not joined owns nothing, and knows who does", async () => {
    const { redis, nodes: [a], end } = await ring(["a"])
    const guest = await startNode(redis, "guest")
    expect(guest.owns()).toEqual([])
    expect(guest.cluster.ownerOf(accounts[0]!)).toMatchObject({ nodeId: "a", host: "127.0.0.1", hopPort: 4_000 })
    expect(guest.cluster.peers().map(({ nodeId }) => nodeId)).toEqual(["a"])
    expect([a!.cluster.isAlive("a"), guest.cluster.isAlive("guest"), guest.cluster.isAlive("a"), a!.cluster.isAlive("guest")]).toEqual([true, true, true, false])
    expect(guest.cluster.secret()).toBe(a!.cluster.secret())
    await guest.end()
    await end()
  })

  it("nodes divide the accounts, one that joins takes its part of all, and none ever has two owners", async () => {
    const { redis, nodes, end } = await ring(["a", "b"])
    const late = await startNode(redis, "c")
    nodes.push(late)
    const doubled = watchOwners(nodes)
    await late.join()
    await until(() => areSettled(nodes))
    expect(late.owns().length).toBeGreaterThan(accounts.length / 6)
    expect(doubled()).toEqual([])
    await end()
  })

  it("a node that leaves settles its accounts first, hands all over at once, and then knows the new owner", async () => {
    const { nodes, end } = await ring(["a", "b"])
    const [a, b] = nodes as [RingNode, RingNode]
    const doubled = watchOwners(nodes)
    let settled = (): void => {}
    let left: ReadonlyArray<string> | undefined
    a.cluster.onLeaving((isLeaving) => {
      left = accounts.filter(isLeaving)
      return new Promise((resolve) => { settled = resolve })
    })
    const before = a.owns()
    const leaving = a.leave()
    await until(() => left !== undefined)
    expect(left).toEqual(before)
    expect(a.owns()).toEqual([])
    settled()
    await leaving
    await until(() => areSettled(nodes))
    expect(b.owns()).toEqual(accounts)
    expect(b.cluster.isAlive("a")).toBe(false)
    expect(doubled()).toEqual([])
    await end()
  })

  it("a listener that never settles holds a lock no longer than a handoff may take", async () => {
    const { nodes, end } = await ring(["a", "b"])
    const [a, b] = nodes as [RingNode, RingNode]
    a.cluster.onLeaving(() => new Promise(() => {}))
    await a.leave()
    await until(() => b.owns().length === accounts.length)
    await end()
  })

  it("a node cut off from Redis stops owning before another takes over, at a higher term", async () => {
    const { redis, nodes, end } = await ring(["a", "b"])
    const [a, b] = nodes as [RingNode, RingNode]
    const doubled = watchOwners(nodes)
    const before = await termsOf(redis)
    a.link.freeze()
    await until(() => a.owns().length === 0)
    expect(b.owns().length).toBeLessThan(accounts.length)
    expect(a.cluster.ownerOf(accounts[0]!)).toBe("moving")
    expect(a.cluster.trouble()).toContain("Redis does not say who owns what")
    await until(() => b.owns().length === accounts.length)
    expect(b.cluster.isAlive("a")).toBe(false)
    const after = await termsOf(redis)
    expect(after.filter((term, n) => term > before[n]!).length).toBeGreaterThan(30)
    expect(after.filter((term, n) => term < before[n]!)).toEqual([])
    a.link.thaw()
    await until(() => areSettled(nodes))
    expect(a.cluster.trouble()).toBeUndefined()
    expect(doubled()).toEqual([])
    await end()
  })

  it("one that comes back at the same address has nothing of before until the old locks have expired", async () => {
    const redis = await startTestRedis()
    const port = await freePort()
    await redis.command("set", "tollgate:term", "7")
    for (let shard = 1; shard <= 300; shard++) await redis.command("set", `tollgate:shard:${shard}`, `"before 7 127.0.0.1:${port}"`, "px", "3000")
    const again = await startNode(redis, "again", { port })
    await again.join()
    await until(() => again.owns().length === accounts.length)
    expect(Math.min(...await termsOf(redis))).toBeGreaterThan(7)
    await again.end()
    await redis.stop()
  })

  it("a Redis that is gone for longer leaves nobody an owner, nobody dead, and comes back empty without help", async () => {
    const { redis, nodes, end } = await ring(["a", "b"])
    const [a, b] = nodes as [RingNode, RingNode]
    const doubled = watchOwners(nodes)
    await redis.halt()
    await until(() => accounts.every((account) => nodes.every(({ cluster }) => cluster.ownerOf(account) === "moving")))
    expect([a.cluster.isAlive("b"), b.cluster.isAlive("a")]).toEqual([true, true])
    await redis.start()
    await until(() => areSettled(nodes))
    expect(a.owns().length).toBeGreaterThan(0)
    expect(b.owns().length).toBeGreaterThan(0)
    expect(doubled()).toEqual([])
    await end()
  })
})

// One at a time: in a process that has no time for its nodes they lose what they should keep.
describe("placement keeps its owners", { timeout: 60_000 }, () => {
  it("while Redis is frozen for a second", async () => {
    const { redis, nodes, end } = await ring(["a", "b"])
    const lost = watchLosses(nodes)
    redis.freeze()
    const thawAt = performance.now() + 1_000
    await until(() => performance.now() > thawAt)
    redis.thaw()
    const { length } = nodes[0]!.news
    nodes[1]!.bus.tell({ _tag: "agent", id: "agent", version: 1n })
    await until(() => nodes[0]!.news.length > length)
    expect(lost()).toEqual([])
    await end()
  })

  it("when Redis is emptied: it is filled again, and nobody is taken for dead", async () => {
    const { redis, nodes, end } = await ring(["a", "b"])
    const lost = watchLosses(nodes)
    const dead = new Set<string>()
    const watch = setInterval(() => { if (!nodes[0]!.cluster.isAlive("b") || !nodes[1]!.cluster.isAlive("a")) dead.add("somebody") }, 10)
    await redis.command("flushall")
    // Locks, both nodes' records and their list, the secret and the terms.
    const isFull = async (): Promise<boolean> => Number((await redis.command("dbsize")).slice(1)) >= 305
    while (!await isFull()) await new Promise((resolve) => { setTimeout(resolve, 20) })
    await until(() => areSettled(nodes))
    clearInterval(watch)
    expect(lost()).toEqual([])
    expect(dead.size).toBe(0)
    expect(nodes.map(({ cluster }) => cluster.trouble())).toEqual([undefined, undefined])
    const late = await startNode(redis, "late")
    expect(late.cluster.secret()).toBe(nodes[0]!.cluster.secret())
    await late.end()
    await end()
  })

  it("when Redis is emptied and a new node is the first to fill it: all have its secret, and are asked on", async () => {
    const { redis, nodes, end } = await ring(["a", "b"])
    const ofB = accounts.find((account) => nodes[1]!.cluster.ownerOf(account) === "here")!
    await redis.command("flushall")
    await redis.command("set", "tollgate:secret", "of-a-node-that-came-first")
    await until(() => nodes.every(({ cluster }) => cluster.secret() === "of-a-node-that-came-first"))
    await until(() => areSettled(nodes))
    expect(await Effect.runPromise(nodes[0]!.cluster.ask.lease(ofB, leaseAsk))).toEqual(granted("b"))
    expect(nodes.map(({ cluster }) => cluster.trouble())).toEqual([undefined, undefined])
    await end()
  })
})
