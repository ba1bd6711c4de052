/** Teams as they are kept: order, bounds, owners, the audit log, and changes at the same time. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { limits } from "../../../src/config.ts"
import { type Owner, owner } from "../../support/acf.ts"
import { type World, makeWorld } from "../../support/World.ts"

let world: World
let ada: Owner
let bob: Owner
beforeAll(async () => {
  world = await makeWorld()
  ;[ada, bob] = await Promise.all([owner(world), owner(world)])
})
afterAll(() => world.stop())

const team = async (by = ada, body: object = { name: "A team" }): Promise<string> => (await by.call("POST", "/api/v1/teams", body)).json.id
const read = async (path: string) => (await world.call("GET", `/acf/api/v1/teams${path}`)).json
const detailOf = async (reply: ReturnType<Owner["call"]>) => {
  const { status, json } = await reply
  return [status, json.detail]
}
const actionsOf = async (id: string) => (await world.sql`select action from audit_log where target = ${id} order by id`).map(({ action }) => action)

const member = (agent: string, more = {}) => ({ agent_id: agent, ...more })
const rule = (name: string, more = {}) => ({ name, keywords: ["nlp"], target_agent_id: "agent", ...more })
const gate = (more = {}) => ({ gate_type: "latency", threshold: 5, ...more })

describe("a team", () => {
  it("is read whole by anybody, its rules by priority and its gates by order", async () => {
    const id = await team(ada, { name: "Readers", description: "They read", config: { any: ["thing", null, 1.5] } })
    const base = `/api/v1/teams/${id}`
    for (const [path, body] of [
      ["members", member("one", { role: "leader", skills: ["nlp", "a \"quoted\", {one}\\"] })], ["members", member("two")],
      ["rules", rule("low", { priority: -1 })], ["rules", rule("none")], ["rules", rule("high", { priority: 9 })], ["rules", rule("none too")],
      ["gates", gate({ gate_order: 2 })], ["gates", gate({ gate_type: "custom", threshold: 0 })], ["gates", gate({ gate_order: 1, threshold: 10, config: { p: 99 } })]
    ] as const) expect((await ada.call("POST", `${base}/${path}`, body)).status).toBe(201)
    const whole = await read(`/${id}`)
    expect(whole).toMatchObject({ name: "Readers", owner_id: ada.name, description: "They read", config: { any: ["thing", null, 1.5] }, status: "active" })
    expect(whole.members.map((each: any) => [each.agent_id, each.role, each.skills])).toEqual([["one", "leader", ["nlp", "a \"quoted\", {one}\\"]], ["two", "worker", []]])
    expect(whole.routing_rules.map((each: any) => [each.name, each.priority, each.enabled])).toEqual([["high", 9, true], ["none", 0, true], ["none too", 0, true], ["low", -1, true]])
    expect(whole.quality_gates.map((each: any) => [each.gate_order, each.gate_type, each.threshold, each.config])).toEqual([[0, "custom", 0, {}], [1, "latency", 10, { p: 99 }], [2, "latency", 5, {}]])
    expect(await read(`/${id}/members`)).toEqual({ members: whole.members, count: 2 })
    expect(await read(`/${id}/rules`)).toEqual({ rules: whole.routing_rules, count: 4 })
    expect(await read(`/${id}/gates`)).toEqual({ gates: whole.quality_gates, count: 3 })
  })

  it("changes in the fields that are given, and in no other", async () => {
    const id = await team(ada, { name: "Before", description: "stays", config: { stays: true } })
    const before = await read(`/${id}`)
    const changed = await ada.call("PATCH", `/api/v1/teams/${id}`, { name: "After" })
    const { members, routing_rules, quality_gates, ...rest } = before
    expect(changed.json).toEqual({ ...rest, name: "After", updated_at: changed.json.updated_at })
    expect(Date.parse(changed.json.updated_at)).toBeGreaterThanOrEqual(Date.parse(before.updated_at))
    expect((await ada.call("PATCH", `/api/v1/teams/${id}`, { config: {} })).json).toMatchObject({ name: "After", description: "stays", config: {} })
  })

  it("that is archived is listed no more, and can be read", async () => {
    const cleo = await owner(world)
    const [first, second] = [await team(cleo), await team(cleo)]
    const listed = async (query = "") => (await cleo.call("GET", `/api/v1/teams${query}`)).json.teams.map(({ id }: { id: string }) => id)
    expect(await listed()).toEqual([second, first])
    expect(await listed("?limit=1")).toEqual([second])
    expect((await cleo.call("DELETE", `/api/v1/teams/${second}`)).json).toEqual({ status: "archived", id: second })
    expect(await listed()).toEqual([first])
    expect(await read(`/${second}`)).toMatchObject({ id: second, status: "archived" })
    expect(await actionsOf(second)).toEqual(["team.create", "team.archive"])
  })

  it("is listed to its owner, to nobody without a key", async () => {
    const id = await team()
    expect((await ada.call("GET", "/api/v1/teams")).json.teams.map((each: any) => each.id)).toContain(id)
    expect((await bob.call("GET", "/api/v1/teams")).json).toEqual({ teams: [], count: 0 })
    expect(await read("")).toEqual({ teams: [], count: 0 })
  })

  it("stays its owner's when the owner's account is merged with another product's", async () => {
    const [eve, person] = await Promise.all([owner(world), world.user()])
    const id = await team(eve)
    expect((await world.call("POST", "/v1/account/links", { token: person.accessToken, body: { dialect: "acf", key: eve.token } })).status).toBe(201)
    expect((await eve.call("GET", "/api/v1/teams")).json.teams).toMatchObject([{ id, owner_id: eve.name }])
    expect((await eve.call("PATCH", `/api/v1/teams/${id}`, { name: "Merged" })).json).toMatchObject({ name: "Merged", owner_id: eve.name })
    expect(await detailOf(ada.call("PATCH", `/api/v1/teams/${id}`, { name: "Mine" }))).toEqual([403, "Not your team"])
  })
})

describe("a change of a team", () => {
  it("is refused for the team first, then for its owner, then for what it says", async () => {
    const id = await team()
    const bad = { members: member("x", { role: "boss" }), rules: rule(" "), gates: gate({ gate_type: "speed" }) }
    for (const [part, body] of Object.entries(bad)) {
      const path = (of: string) => `/api/v1/teams/${of}/${part}`
      for (const unknown of ["nobody", "019afe00-0000-7000-8000-000000000000"]) expect(await detailOf(bob.call("POST", path(unknown), body))).toEqual([404, "Team not found"])
      expect(await detailOf(bob.call("POST", path(id), body))).toEqual([403, "Not your team"])
      expect((await ada.call("POST", path(id), body)).status).toBe(400)
      expect(await read(`/${id}/${part}`)).toEqual({ [part]: [], count: 0 })
    }
    expect(await actionsOf(id)).toEqual(["team.create"])
  })

  it.each([["gate_type", "QUALITY_SCORE"], ["gate_type", ""], ["threshold", -0.01], ["threshold", 10.01], ["threshold", 1e308]])("with a gate's %s of %j is a bad one", async (field, value) => {
    const id = await team()
    expect(await detailOf(ada.call("POST", `/api/v1/teams/${id}/gates`, gate({ [field]: value })))).toEqual([400, expect.stringMatching(new RegExp(`^${field}: must be`))])
  })

  it("takes nothing away that is another team's", async () => {
    const [mine, other] = [await team(), await team(ada)]
    const added = async (part: string, body: object) => (await ada.call("POST", `/api/v1/teams/${other}/${part}`, body)).json.id
    const [ruleId, gateId] = [await added("rules", rule("r")), await added("gates", gate())]
    await added("members", member("agent/1"))
    expect(await detailOf(ada.call("DELETE", `/api/v1/teams/${mine}/rules/${ruleId}`))).toEqual([404, "Routing rule not found"])
    expect(await detailOf(ada.call("DELETE", `/api/v1/teams/${mine}/gates/${gateId}`))).toEqual([404, "Quality gate not found"])
    expect(await detailOf(ada.call("DELETE", `/api/v1/teams/${mine}/members/agent%2F1`))).toEqual([404, "Team member not found"])
    expect(await detailOf(bob.call("DELETE", `/api/v1/teams/${other}/rules/${ruleId}`))).toEqual([403, "Not your team"])
    for (const path of [`rules/${ruleId}`, `gates/${gateId}`, "members/agent%2F1"]) {
      expect((await ada.call("DELETE", `/api/v1/teams/${other}/${path}`)).json).toEqual({ status: "removed" })
    }
    expect(await read(`/${other}`)).toMatchObject({ members: [], routing_rules: [], quality_gates: [] })
    expect(await actionsOf(other)).toEqual(["team.create", "team.add_rule", "team.add_gate", "team.add_member", "team.remove_rule", "team.remove_gate", "team.remove_member"])
    expect(await actionsOf(mine)).toEqual(["team.create"])
  })
})

describe("at the same time", () => {
  it("the same agent is added once", async () => {
    const id = await team()
    const replies = await Promise.all(Array.from({ length: 8 }, () => detailOf(ada.call("POST", `/api/v1/teams/${id}/members`, member("same")))))
    expect(replies.filter(([status]) => status === 201)).toHaveLength(1)
    expect(replies.filter(([status]) => status === 409)).toEqual(Array.from({ length: 7 }, () => [409, "Team member exists already"]))
    expect((await read(`/${id}/members`)).count).toBe(1)
  })

  it("no team gets more members, rules or gates than it may have", async () => {
    const id = await team()
    const most = limits.teamPartsMax - 2
    await world.sql`insert into team_members (id, team_id, agent_id, role, skills, joined_at) select gen_random_uuid(), ${id}, 'm' || i, 'worker', '{}', now() from generate_series(1, ${most}::int) i`
    await world.sql`insert into team_rules (id, team_id, name, keywords, target_agent_id, priority, created_at) select gen_random_uuid(), ${id}, 'r', '{}', 'a', 0, now() from generate_series(1, ${most}::int)`
    await world.sql`insert into team_gates (id, team_id, gate_type, threshold, gate_order, config, created_at) select gen_random_uuid(), ${id}, 'custom', 0, 0, '{}', now() from generate_series(1, ${most}::int)`
    for (const [part, body] of [["members", (i: number) => member(`new ${i}`)], ["rules", (i: number) => rule(`new ${i}`)], ["gates", () => gate()]] as const) {
      const replies = await Promise.all(Array.from({ length: 6 }, (_, i) => detailOf(ada.call("POST", `/api/v1/teams/${id}/${part}`, body(i)))))
      expect(replies.filter(([status]) => status === 201), part).toHaveLength(2)
      expect(replies.filter(([status]) => status === 400)).toEqual(Array.from({ length: 4 }, () => [400, `team: has ${limits.teamPartsMax} of these already`]))
      expect((await read(`/${id}/${part}`)).count).toBe(limits.teamPartsMax)
    }
  })

  it("no owner gets more teams than it may have, and room again by archiving one", async () => {
    const dora = await owner(world)
    const id = await team(dora)
    await world.sql`insert into teams (id, account_id, name, description, config, created_at, updated_at) select gen_random_uuid(), ${dora.accountId}, 't', '', '{}', now(), now() from generate_series(1, ${limits.teamsPerOwnerMax - 3}::int)`
    const create = () => detailOf(dora.call("POST", "/api/v1/teams", { name: "One more" }))
    const replies = await Promise.all(Array.from({ length: 6 }, create))
    expect(replies.map(([status]) => status).toSorted()).toEqual([201, 201, 400, 400, 400, 400])
    expect(await create()).toEqual([400, `owner: has ${limits.teamsPerOwnerMax} teams already: archive one first`])
    await dora.call("DELETE", `/api/v1/teams/${id}`)
    expect((await create())[0]).toBe(201)
  })
})

describe("a team's config", () => {
  const nested = (levels: number) => `${"{\"a\":".repeat(levels)}1${"}".repeat(levels)}`
  const create = async (config: string) => (await world.call("POST", "/acf/api/v1/teams", { token: ada.token, body: `{"name": "T", "config": ${config}}`, headers: { "content-type": "application/json" } })).status

  it("is any object within its bounds, and nothing else", async () => {
    const big = (bytes: number) => JSON.stringify({ a: "x".repeat(bytes - 8) })
    const answers: ReadonlyArray<readonly [config: string, status: number]> = [
      [big(16_384), 201], [big(16_385), 422], [nested(32), 201], [nested(33), 422], [nested(5_000), 422], ["{\"n\": 1e400}", 422], ["[]", 422], ["null", 422], ["\"x\"", 422], ["5", 422],
      ["{\"__proto__\": {\"status\": \"archived\"}}", 201], ["{\"a\\u0000\": 1}", 422], ["{\"a\": \"\\ud800\"}", 422]
    ]
    for (const [config, status] of answers) expect(await create(config), config.slice(0, 40)).toBe(status)
  })
})
