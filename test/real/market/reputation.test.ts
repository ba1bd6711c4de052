/** Scores over HTTP, live after each call, and what subscribers are told of them. `test/property/reputation.test.ts` has the figures. */
import { ManagedRuntime } from "effect"
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { AccountId } from "../../../src/domain/ids.ts"
import { newId } from "../../../src/kernel/Ids.ts"
import { tellScore } from "../../../src/store/market/ReputationStore.ts"
import { Postgres } from "../../../src/store/Postgres.ts"
import { type Owner, owner, service } from "../../support/acf.ts"
import { WebhookReceiver } from "../../support/WebhookReceiver.ts"
import { type World, makeWorld } from "../../support/World.ts"

const zeros = { overall_score: 0, latency_score: 0, reliability_score: 0, response_quality: 0, call_count: 0 }

describe("reputation", () => {
  let world: World
  beforeAll(async () => { world = await makeWorld({ settings: { webhookAllowHttp: true } }) })
  afterAll(() => world.stop())

  const get = (path: string) => world.call("GET", `/acf/api/v1/${path}`)
  const newIdentity = async (who: Owner): Promise<string> => (await who.call("POST", "/api/v1/agents", { display_name: "An agent" })).json.agent_id
  /** As calls would have left it: the whole history of a service. */
  const setTotals = (id: string, calls: number, succeeded: number, errors: number, latencyMs: number) => world.sql`
    insert into agent_totals (agent_id, calls, cost, succeeded, errors, latency_ms) values (${id}, ${calls}, 0, ${succeeded}, ${errors}, ${latencyMs})
    on conflict (agent_id) do update set calls = excluded.calls, succeeded = excluded.succeeded, errors = excluded.errors, latency_ms = excluded.latency_ms`

  it("has each call as soon as it is answered", async () => {
    const provider = await owner(world, { role: "provider" })
    const statuses = [200, 404, 500, 201]
    const { id } = await service(world, provider, { price: "0", respond: () => ({ status: statuses.shift() ?? 200 }) })
    const buyer = await owner(world)
    const month = new Date().toISOString().slice(0, 7)
    const parts = new Array<unknown>()
    for (let calls = 1; calls <= 4; calls++) {
      await buyer.call("POST", `/api/v1/proxy/${id}/work`, {})
      const { json } = await get(`agents/${provider.name}/reputation?compute=true`)
      expect((await get(`services/${id}/reputation?period=${month}`)).json.records[0].call_count).toBe(calls)
      parts.push([json.call_count, json.reliability_score, json.response_quality])
    }
    expect(parts).toEqual([[1, 10, 10], [2, 5, 10], [3, 3.33, 6.67], [4, 5, 7.5]])
  })

  it("of whom nobody knows, or of no calls, is zeros", async () => {
    const provider = await owner(world, { role: "provider" })
    const [identity, { id }] = await Promise.all([newIdentity(provider), service(world, provider)])
    for (const name of [identity, provider.name, provider.accountId, randomUUID(), "nobody", "%27%20or%201=1"]) {
      expect(await get(`agents/${name}/reputation`)).toMatchObject({
        status: 200, json: { agent_id: decodeURIComponent(name), service_id: "", ...zeros, period: "all-time" }
      })
    }
    expect((await get(`services/${id}/reputation?period=1999-12`)).json).toEqual({ service_id: id, period: "1999-12", records: [{ agent_id: identity, ...zeros }] })
  })

  it("names a service's provider by its oldest active agent, else by its name", async () => {
    const provider = await owner(world, { role: "provider" })
    const { id } = await service(world, provider)
    const named = async () => (await get(`services/${id}/reputation`)).json.records[0].agent_id
    expect(await named()).toBe(provider.name)
    const [first, second] = [await newIdentity(provider), await newIdentity(provider)]
    expect(await named()).toBe(first)
    await provider.call("DELETE", `/api/v1/agents/${first}`)
    expect(await named()).toBe(second)
  })

  it("is that of an autx agent too, by its id, and of a removed service, but not of what is suspended or unknown", async () => {
    const { id, owner: person } = await world.agent()
    expect((await get(`services/${id}/reputation`)).json.records).toEqual([{ agent_id: person.accountId, ...zeros }])
    await world.sql`update agents set status = 'removed' where id = ${id}`
    expect((await get(`services/${id}/reputation`)).status).toBe(200)
    await world.sql`update agents set suspended = true where id = ${id}`
    for (const gone of [id, randomUUID(), "no-id"]) expect(await get(`services/${gone}/reputation`)).toMatchObject({ status: 404, json: { detail: "Service not found" } })
  })

  it.each(["2026-13", "2026-00", "2026", "2026-3", "26-03", "0000-01", "all", "", "2026-03-01", "%27%3B--"])("is refused for the period %j: 400", async (period) => {
    const { id } = await service(world, await owner(world, { role: "provider" }))
    for (const path of [`agents/nobody/reputation`, `services/${id}/reputation`]) {
      expect(await get(`${path}?period=${period}`)).toMatchObject({ status: 400, json: { detail: expect.stringContaining("period") } })
    }
  })

  it("ranks active agents by score, then calls, then age, at most as many as asked for", async () => {
    const ranked = async (calls: number, succeeded: number): Promise<ReadonlyArray<string>> => {
      const provider = await owner(world, { role: "provider" })
      await setTotals((await service(world, provider)).id, calls, succeeded, 0, 0)
      return [await newIdentity(provider), await newIdentity(provider)]
    }
    const [, best, proven] = [await ranked(9_000_000, 8_900_000), await ranked(2_000_000, 2_000_000), await ranked(3_000_000, 2_999_000)]
    const good = await ranked(1_000_000, 1_000_000)
    await world.sql`update identities set status = 'suspended' where id = ${best[0]!}`
    const admin = await owner(world, { role: "admin" })
    await admin.call("POST", `/api/v1/agents/${proven[1]}/verify`)
    const { json } = await get("reputation/leaderboard?limit=5")
    expect(json).toEqual({
      leaderboard: [
        { agent_id: proven[0], display_name: "An agent", reputation_score: 10, verified: false },
        { agent_id: proven[1], display_name: "An agent", reputation_score: 10, verified: true },
        { agent_id: best[1], display_name: "An agent", reputation_score: 10, verified: false },
        { agent_id: good[0], display_name: "An agent", reputation_score: 10, verified: false },
        { agent_id: good[1], display_name: "An agent", reputation_score: 10, verified: false }
      ],
      count: 5
    })
    for (const [limit, count] of [["0", 1], ["-3", 1], ["2", 2]] as const) expect((await get(`reputation/leaderboard?limit=${limit}`)).json.count).toBe(count)
    expect((await get("reputation/leaderboard?limit=1000")).json.count).toBeGreaterThan(5)
    expect((await get("reputation/leaderboard?limit=x")).status).toBe(422)
  })

  describe("is told", () => {
    let receiver: WebhookReceiver
    beforeAll(async () => { receiver = await WebhookReceiver.start() })
    afterAll(() => receiver.close())

    const subscribe = async (who: Owner, path: string, events: ReadonlyArray<string>): Promise<string> => {
      const reply = await who.call("POST", "/api/v1/webhooks", { url: `${receiver.origin}${path}`, events, secret: "whsec" })
      expect(reply.status, reply.text).toBe(201)
      return reply.json.id
    }

    it("when it moved by a hundredth since it was told last, over all services of the owner, to all its subscriptions", async () => {
      const provider = await owner(world, { role: "provider" })
      const [first, second] = [await service(world, provider), await service(world, provider)]
      const [, , deaf, gone] = await Promise.all([
        subscribe(provider, "/one", ["service.called", "reputation.updated"]), subscribe(provider, "/two", ["reputation.updated"]),
        subscribe(provider, "/deaf", ["service.called"]), subscribe(provider, "/gone", ["reputation.updated"])
      ])
      await provider.call("DELETE", `/api/v1/webhooks/${gone}`)
      const payloads = async (path: string, count: number) => (await receiver.received(path, count)).map(({ json }) => json.payload)
      const scores = (previous_score: number, overall_score: number) => ({ agent_id: provider.name, overall_score, previous_score })
      await setTotals(first.id, 10, 5, 5, 0)
      expect(await payloads("/one", 1)).toEqual([scores(0, 6.5)])
      // 6.4988 is 6.5 still: a change that shows is told next, with this one in it.
      await setTotals(first.id, 10, 5, 5, 40)
      await setTotals(second.id, 10, 10, 0, 0)
      for (const path of ["/one", "/two"]) expect(await payloads(path, 2)).toEqual([scores(0, 6.5), scores(6.5, 8.25)])
      expect((await world.sql`select from deliveries where webhook_id in (${deaf}, ${gone})`).count).toBe(0)
    })

    it("once, however many nodes saw the change, and not by one that saw an older one", async () => {
      const other = await owner(world, { role: "provider" })
      const webhookId = await subscribe(other, "/raced", ["service.called"])
      const node = ManagedRuntime.make(Postgres.layer(world.store.options))
      const tell = (told: number, score: number) => node.runPromise(tellScore({
        accountId: other.accountId as AccountId, told, score,
        deliveries: [{ id: newId(), webhookId, event: "reputation.updated", facts: { told, score }, atMs: Date.now() }]
      }))
      await Promise.all(Array.from({ length: 8 }, () => tell(0, 650)))
      await Promise.all(Array.from({ length: 8 }, () => tell(650, 700)))
      await Promise.all([tell(0, 650), tell(0, 700), tell(650, 900)])
      const rows = await world.sql<Array<{ facts: object }>>`select facts from deliveries where webhook_id = ${webhookId} order by id`
      expect(rows.map(({ facts }) => facts)).toEqual([{ told: 0, score: 650 }, { told: 650, score: 700 }])
      await node.dispose()
    })
  })
})
