import { Effect, Layer } from "effect"
import { describe, expect, it } from "vitest"
import { Bus, type News } from "../../../src/cluster/Bus.ts"
import type { AgentId } from "../../../src/domain/ids.ts"
import { Agents } from "../../../src/kernel/AgentActor.ts"
import { Postgres } from "../../../src/store/Postgres.ts"

const id = "0197a1b2-0000-7000-8000-000000000001" as string as AgentId

/** A row of `agents` as the database answers it. */
const row = (version: bigint, suspended = false) => ({
  id, owner_id: "owner", dialect: "autx", ticker: "TICK", name: "Tick", description: "", category: "", endpoint_url: "http://127.0.0.1:9/", price: 1n,
  free_tier_calls: 0, auth_tier: "jwt_default", status: "active", suspended, manifest: null, provider: null, provider_key: null, version, created_at: new Date(0), updated_at: new Date(0),
  tags: [], payment_method: "credits", provider_since: null, calls: null, cost: null
})

/** The actors, and the queries that wait for the test to answer them. */
const open = () => {
  const queries: Array<(found: ReadonlyArray<object>) => void> = []
  const run = () => Effect.callback<unknown>((resume) => { queries.push((found) => resume(Effect.succeed(found))) })
  const postgres = Layer.succeed(Postgres, { run, attempt: run } as unknown as Postgres["Service"])
  const heard: Array<(news: News) => void> = []
  const told: Array<News> = []
  const bus = Layer.succeed(Bus, { tell: (news) => { told.push(news) }, tellNode: () => {}, onNews: (listener) => { heard.push(listener) } })
  const hear = (news: News): void => { for (const listener of heard) listener(news) }
  const agents = Effect.runSync(Effect.provide(Agents, Layer.fresh(Agents.layer).pipe(Layer.provide(Layer.merge(postgres, bus)))))
  const find = (name: string) => Effect.runPromise(agents.find(name))
  return { agents, queries, find, told, hear }
}

describe("an agent", () => {
  it("is known by its id and by its ticker in any case once it was found", async () => {
    const { agents, queries, find } = open()
    const found = find("tick")
    queries[0]!([row(1n)])
    expect(await found).toMatchObject({ version: 1n })
    for (const name of [id, id.toUpperCase(), "TICK", "tick"]) expect(agents.resident(name)?.id).toBe(id)
    await find("TICK")
    expect(queries).toHaveLength(1)
  })

  it("that was forgotten while it was looked up is looked up again by the next call", async () => {
    const { agents, queries, find } = open()
    for (const forget of [() => agents.forget(id), () => agents.forgetAll()]) {
      queries.length = 0
      agents.forget(id)
      const first = find("TICK")
      forget()
      queries[0]!([row(1n)])
      expect((await first).suspended).toBe(false)
      expect(agents.resident("TICK")).toBeUndefined()
      const second = find("TICK")
      queries[1]!([row(2n, true)])
      expect((await second).suspended).toBe(true)
      expect(agents.resident("TICK")?.suspended).toBe(true)
    }
  })

  it("that was forgotten while a change of it was committed is looked up again by the next call", async () => {
    const { agents, queries, find } = open()
    const found = find("TICK")
    queries[0]!([row(1n)])
    const agent = await found
    const change = agents.decided({ ...agent, name: "Changed", version: 2n })
    agents.forget(id)
    change.settled(true)
    expect(agents.resident("TICK")).toBeUndefined()
  })

  it("is told to other nodes once it is durable, and looked up again when they tell of a version that isn't known here, or that news were missed", async () => {
    const { agents, queries, find, told, hear } = open()
    const found = find("TICK")
    queries[0]!([row(1n)])
    const agent = await found
    agents.decided({ ...agent, version: 2n }).settled(true)
    agents.decided({ ...agent, version: 3n }).settled(false)
    expect(told).toEqual([{ _tag: "agent", id, version: 2n }])
    agents.publish({ ...agent, version: 2n })
    hear({ _tag: "agent", id, version: 2n })
    expect(agents.resident("TICK")?.version).toBe(2n)
    hear({ _tag: "agent", id, version: 3n })
    expect(agents.resident("TICK")).toBeUndefined()
    agents.publish({ ...agent, version: 3n })
    hear({ _tag: "missed" })
    expect(agents.resident("TICK")).toBeUndefined()
  })

  it("is changed on top of the newest version that was decided or is known", () => {
    const { agents } = open()
    const [first, second, third] = [1n, 2n, 3n].map((version) => ({ ...row(version), version })) as unknown as ReadonlyArray<Parameters<typeof agents.publish>[0]> as [never, never, never]
    expect(agents.newest(first)).toBe(first)
    agents.publish(second)
    expect(agents.newest(first)).toBe(second)
    const change = agents.decided(third)
    expect(agents.newest(first)).toBe(third)
    change.settled(false)
    expect(agents.newest(first)).toBe(first)
    agents.publish(third)
    agents.publish(second)
    expect(agents.resident(id)).toBe(third)
  })
})
