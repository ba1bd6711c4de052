/**
 * For random histories of calls every score that is served is what plain SQL
 * over the calls themselves says it is. The calls are written as gateways write
 * them: some with a commit, some by the buffer of free calls.
 *
 * A failing run prints its seed; `SEED=…` runs it again.
 */
import { Context, Layer, ManagedRuntime } from "effect"
import fc from "fast-check"
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { UsageRow } from "../../src/store/Commit.ts"
import { Committer } from "../../src/store/Committer.ts"
import { Postgres } from "../../src/store/Postgres.ts"
import { UsageBuffer } from "../../src/store/UsageBuffer.ts"
import { type Owner, owner, service } from "../support/acf.ts"
import { submitted, takeToken } from "../support/ledgerRows.ts"
import { type World, makeWorld } from "../support/World.ts"

const numRuns = process.env["TOLLGATE_FULL"] === "1" ? 100 : 6
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31)

const months = ["2026-01", "2026-02", "2026-03"]
const firstMs = Date.parse("2025-12-30T00:00:00Z")
const spanMs = Date.parse("2026-04-02T00:00:00Z") - firstMs

/** Often one at the edge of a month. */
const time = fc.oneof(
  fc.nat(spanMs - 1).map((ms) => firstMs + ms),
  fc.tuple(fc.constantFrom(...months), fc.integer({ min: -2, max: 1 })).map(([month, ms]) => Date.parse(`${month}-01T00:00:00Z`) + ms)
)
const call = fc.record({
  service: fc.nat(), status: fc.constantFrom(200, 204, 302, 399, 400, 404, 429, 499, 500, 502, 504), latencyMs: fc.oneof(fc.nat(40), fc.nat(25_000)),
  cost: fc.bigInt({ min: 0n, max: 5_000_000n }), atMs: time, isCommitted: fc.boolean(), isDue: fc.boolean()
})
const history = fc.record({
  /** Of each owner: its services, and the statuses of its identities. */
  owners: fc.array(fc.record({
    services: fc.nat(3), identities: fc.array(fc.constantFrom("active", "active", "suspended", "deactivated"), { maxLength: 3 }), isLinked: fc.nat(3).map((nth) => nth === 0)
  }), { minLength: 1, maxLength: 4, size: "max" }),
  calls: fc.array(call, { maxLength: 60, size: "max" })
})

/** The scores, from rows of `usage`: one division of whole numbers each, which is exact. */
const plain = `
  count(*)::int as call_count,
  coalesce(round((3 * greatest(0, 10 * count(*) - sum(latency_ms) / 1000.0) + 40.0 * count(*) filter (where status < 400) + 30.0 * count(*) filter (where status < 500)) / nullif(10 * count(*), 0), 2), 0)::float as overall_score,
  coalesce(round(greatest(0, 10 * count(*) - sum(latency_ms) / 1000.0) / nullif(count(*), 0), 2), 0)::float as latency_score,
  coalesce(round(10.0 * count(*) filter (where status < 400) / nullif(count(*), 0), 2), 0)::float as reliability_score,
  coalesce(round(10.0 * count(*) filter (where status < 500) / nullif(count(*), 0), 2), 0)::float as response_quality`

type Of<A> = A extends fc.Arbitrary<infer T> ? T : never
interface Expected { call_count: number; overall_score: number; latency_score: number; reliability_score: number; response_quality: number }

interface Listed { readonly id: string }
interface Played {
  readonly owner: Owner
  /** What leads to the owner: its name, its account's id, its identities'. */
  readonly names: ReadonlyArray<string>
  readonly identities: ReadonlyArray<string>
  readonly services: ReadonlyArray<Listed>
}

describe("the reputation of any history of calls", () => {
  let world: World
  const node = () => ManagedRuntime.make(Layer.mergeAll(Committer.layer, UsageBuffer.layer).pipe(Layer.provideMerge(Postgres.layer(world.store.options))))
  let writer: ReturnType<typeof node>

  beforeAll(async () => {
    world = await makeWorld()
    writer = node()
  })
  afterAll(async () => {
    await writer.dispose()
    await world.stop()
  })

  const get = async (path: string): Promise<any> => {
    const reply = await world.call("GET", `/acf/api/v1/${path}`)
    expect(reply.status, reply.text).toBe(200)
    return reply.json
  }
  /** Over the calls of these services, in this month. */
  const recomputed = async (services: ReadonlyArray<string>, period: string): Promise<Expected> => {
    const [row] = await world.sql.unsafe<Array<Expected>>(
      `select ${plain} from usage where agent_id = any(string_to_array($1, ',')::uuid[]) and ($2 = 'all-time' or to_char(created_at at time zone 'utc', 'YYYY-MM') = $2)`, [services.join(), period])
    return { ...row! }
  }

  /** Owners as the history has them; one that is linked with a login has that one's agent too. */
  const play = async ({ owners, calls }: Of<typeof history>): Promise<ReadonlyArray<Played>> => {
    const played = new Array<Played>()
    for (const wanted of owners) {
      const self = await owner(world, { role: "provider" })
      const services: Array<Listed> = await Promise.all(Array.from({ length: wanted.services }, () => service(world, self)))
      const identities = new Array<string>()
      for (const status of wanted.identities) {
        const { agent_id } = (await self.call("POST", "/api/v1/agents", { display_name: "Any" })).json
        if (status !== "active") await self.call("PATCH", `/api/v1/agents/${agent_id}`, { status })
        identities.push(agent_id)
      }
      const names = [self.name, ...identities]
      if (wanted.isLinked) {
        const person = await world.user()
        services.push(await world.agent({ owner: person }))
        expect((await world.call("POST", "/v1/account/links", { token: person.accessToken, body: { dialect: "acf", key: self.token } })).status).toBe(201)
        names.push(person.accountId)
      }
      played.push({ owner: self, services, identities, names })
    }
    const services = played.flatMap(({ services }) => services)
    if (services.length > 0) await write(services, calls)
    return played
  }
  const write = async (services: ReadonlyArray<Listed>, calls: ReadonlyArray<Of<typeof call>>): Promise<void> => {
    const context = await writer.context()
    const [committer, buffer] = [Context.get(context, Committer), Context.get(context, UsageBuffer)]
    const buyer = await owner(world)
    const accountId = buyer.accountId as never
    const token = await takeToken(world.sql, accountId)
    const commits = calls.map(({ service, isCommitted, isDue, ...same }) => {
      const row: UsageRow = {
        ...same, id: randomUUID(), accountId, subjectId: accountId, agentId: services[service % services.length]!.id as never, call: "proxy",
        due: isDue ? { fee: same.cost / 10n, recorded: true } : undefined
      }
      if (isCommitted) return submitted(committer.submit, accountId, token, { calls: [row] })
      buffer.add(row)
    })
    for (const outcome of await Promise.all(commits)) if (outcome !== undefined) expect(outcome._tag).toBe("committed")
    await writer.runPromise(buffer.flush)
    expect((await world.sql`select from usage where account_id = ${accountId}`).count).toBe(calls.length)
  }

  it("is what a plain recomputation over the calls says: of agents, owners, services, months, and on the leaderboard", async () => {
    await fc.assert(fc.asyncProperty(history, async (story) => {
      for (const { owner, names, identities, services } of await play(story)) {
        const ids = services.map(({ id }) => id)
        const [oldest] = await world.sql<Array<{ id: string }>>`select id from identities where id = any(string_to_array(${identities.join()}, ',')::uuid[]) and status = 'active' order by id limit 1`
        await Promise.all(["all-time", ...months].map(async (period) => {
          const expected = await recomputed(ids, period)
          for (const name of names) expect(await get(`agents/${name}/reputation?period=${period}`)).toEqual({ agent_id: name, service_id: "", ...expected, period })
          for (const id of ids) {
            expect(await get(`services/${id}/reputation?period=${period}`)).toEqual({ service_id: id, period, records: [{ agent_id: oldest?.id ?? owner.name, ...await recomputed([id], period) }] })
          }
        }))
        const { overall_score: overall } = await recomputed(ids, "all-time")
        for (const id of identities) expect((await get(`agents/${id}`)).reputation_score).toBe(overall)
      }
      const leaders = await world.sql.unsafe<Array<object>>(`
        select i.id as agent_id, i.display_name, s.overall_score as reputation_score, i.verified
        from identities i cross join lateral (
          select ${plain} from (select u.status, u.latency_ms from usage u where u.agent_id in (select id from agents where owner_id = i.account_id)) calls
        ) s where i.status = 'active' order by s.overall_score desc, s.call_count desc, i.id limit 100`)
      expect(await get("reputation/leaderboard?limit=100")).toEqual({ leaderboard: leaders.map((row) => ({ ...row })), count: leaders.length })
    }), { numRuns, seed })
  }, 300_000)
})
