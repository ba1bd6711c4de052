/** News between nodes through a real Redis that drops their connections, freezes and forgets. */
import { describe, expect, it } from "vitest"
import type { News } from "../../../src/cluster/Bus.ts"
import { type RingNode, startNode, until } from "../../support/RingNode.ts"
import { startTestRedis } from "../../support/redis.ts"

const agent = (version: bigint): News => ({ _tag: "agent", id: "agent", version })
/** What Redis took without saying so comes twice. */
const versionsOf = ({ news }: RingNode) => [...new Set(news.flatMap((each) => each._tag === "agent" ? [each.version] : []))]
const missedOf = ({ news }: RingNode) => news.filter(({ _tag }) => _tag === "missed").length
const range = (length: number) => Array.from({ length }, (_, n) => BigInt(n))

const pair = async () => {
  const redis = await startTestRedis()
  const a = await startNode(redis, "a")
  const b = await startNode(redis, "b")
  // Whatever was to be heard of the start was heard.
  a.bus.tell({ _tag: "webhooks", accountId: "start" })
  await until(() => b.news.length > 0)
  b.news.length = 0
  return { redis, a, b, end: async () => {
    await Promise.all([a.end(), b.end()])
    await redis.stop()
  } }
}

describe.concurrent("news", { timeout: 60_000 }, () => {
  it("of one node arrive at the others in their order, whole, and not at itself", async () => {
    const { a, b, end } = await pair()
    for (const version of range(1_000)) a.bus.tell(agent(2n ** 62n + version))
    a.bus.tell({ _tag: "recall", accountId: "account", subjectId: undefined })
    await until(() => b.news.at(-1)?._tag === "recall")
    expect(versionsOf(b)).toEqual(range(1_000).map((version) => 2n ** 62n + version))
    expect(b.news.at(-1)).toEqual({ _tag: "recall", accountId: "account", subjectId: undefined })
    expect(versionsOf(a)).toEqual([])
    await end()
  })

  it("to one node arrive there alone", async () => {
    const { redis, a, b, end } = await pair()
    const c = await startNode(redis, "c")
    a.bus.tellNode("b", agent(1n))
    a.bus.tell(agent(2n))
    await until(() => versionsOf(b).length === 2 && versionsOf(c).length > 0)
    expect(versionsOf(b)).toEqual([1n, 2n])
    expect(versionsOf(c)).toEqual([2n])
    await c.end()
    await end()
  })

  it("that were dropped with the listeners' connections are told as missed", async () => {
    const { redis, a, b, end } = await pair()
    await redis.command("client", "kill", "type", "pubsub")
    a.bus.tell(agent(1n))
    await until(() => missedOf(b) > 0)
    a.bus.tell(agent(2n))
    await until(() => versionsOf(b).includes(2n))
    await end()
  })

  it("that nobody else published, only counted, are missed at the next beats", async () => {
    const { redis, b, end } = await pair()
    await redis.command("incr", "tollgate:news")
    await until(() => missedOf(b) > 0)
    const before = missedOf(b)
    await redis.command("incr", "tollgate:news")
    await until(() => missedOf(b) > before)
    await end()
  })

  it("after a Redis that was emptied are heard, and what may have been lost is missed", async () => {
    const { redis, a, b, end } = await pair()
    for (const version of range(5)) a.bus.tell(agent(version))
    await until(() => versionsOf(b).length === 5)
    await redis.command("flushall")
    a.bus.tell(agent(9n))
    await until(() => versionsOf(b).at(-1) === 9n)
    await until(() => missedOf(b) > 0)
    await end()
  })

  it("told while Redis is away are told or missed when it is back", async () => {
    const { redis, a, b, end } = await pair()
    await redis.halt()
    for (const version of range(300)) a.bus.tell(agent(version))
    await redis.start()
    // Who was not listening yet when they were told has missed them.
    await until(() => missedOf(b) > 0)
    a.bus.tell(agent(300n))
    await until(() => versionsOf(b).at(-1) === 300n)
    await end()
  })

  it("of which more wait than may are forgotten, and every node hears that it missed some", async () => {
    const { a, b, end } = await pair()
    a.link.freeze()
    for (const version of range(10_001)) a.bus.tell(agent(version))
    const before = versionsOf(b).length
    a.link.thaw()
    await until(() => missedOf(b) > 0)
    a.bus.tell(agent(77_777n))
    await until(() => versionsOf(b).at(-1) === 77_777n)
    expect(versionsOf(b).length).toBeLessThan(before + 1_000)
    await end()
  })
})
