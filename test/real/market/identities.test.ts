/** Agents' identities over HTTP: who may register, read and change them, and what is refused. */
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Owner, owner, service } from "../../support/acf.ts"
import { type World, makeWorld } from "../../support/World.ts"

const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?\+00:00$/)
const uuid = expect.stringMatching(/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
const hostile = `%_'"\\;-- <b>&amp;\u202e\u{1f916}`

describe("agents' identities", () => {
  let world: World
  let ada: Owner
  let bob: Owner
  let admin: Owner

  beforeAll(async () => {
    world = await makeWorld()
    ;[ada, bob, admin] = await Promise.all([owner(world), owner(world, { role: "provider" }), owner(world, { role: "admin" })])
  })
  afterAll(() => world.stop())

  const read = (path: string) => world.call("GET", `/acf/api/v1/agents${path}`)
  const register = async (who: Owner, body: object = {}): Promise<any> => {
    const reply = await who.call("POST", "/api/v1/agents", { display_name: "An agent", ...body })
    expect(reply.status, reply.text).toBe(201)
    return reply.json
  }
  const idsOf = ({ json }: { readonly json: any }): ReadonlyArray<string> => json.agents.map(({ agent_id }: { agent_id: string }) => agent_id)

  it("are shown to their owner with owner_id and metadata, and to everybody without", async () => {
    const made = await register(ada, {
      display_name: hostile, identity_type: "did_vc", capabilities: ["nlp", hostile, "{}", "null", ""].slice(0, 4), wallet_address: "0x12", metadata: { a: [1, { b: null }], [hostile]: "x" }
    })
    const shown = {
      agent_id: uuid, display_name: hostile, identity_type: "did_vc", capabilities: ["nlp", hostile, "{}", "null"], wallet_address: "0x12",
      verified: false, reputation_score: 0, status: "active", created_at: time, updated_at: time
    }
    expect(made).toEqual({ ...shown, owner_id: ada.name, metadata: { a: [1, { b: null }], [hostile]: "x" } })
    expect((await read(`/${made.agent_id}`)).json).toEqual({ ...shown, agent_id: made.agent_id })
    expect((await read(`/${made.agent_id.toUpperCase()}`)).json.agent_id).toBe(made.agent_id)
    expect((await read("")).json.agents[0]).toEqual({ ...shown, agent_id: made.agent_id })
    expect((await register(ada)).metadata).toEqual({})
    expect(await register(ada, { wallet_address: null })).toMatchObject({ identity_type: "api_key_only", capabilities: [], wallet_address: null })
  })

  it.each([
    ["a blank name", 400, { display_name: " \t " }, "display_name"],
    ["no name", 422, { display_name: undefined }, "display_name"],
    ["a name of 10 kB", 422, { display_name: "x".repeat(10_240) }, "display_name"],
    ["a name with a NUL", 422, { display_name: "a\0" }, "display_name"],
    ["an unknown type", 400, { identity_type: "passport" }, "identity_type"],
    ["a type that is no text", 422, { identity_type: 7 }, "identity_type"],
    ["1,000 capabilities", 422, { capabilities: Array(1_000).fill("x") }, "capabilities"],
    ["a capability that is no text", 422, { capabilities: [{}] }, "capabilities"],
    ["a wallet of 10 kB", 422, { wallet_address: "0".repeat(10_240) }, "wallet_address"],
    ["metadata that is no object", 422, { metadata: ["x"] }, "metadata"],
    ["metadata of more than 16 KiB", 422, { metadata: { x: "é".repeat(8_192) } }, "metadata"]
  ] as const)("are refused with %s: %i", async (_, status, body, field) => {
    const reply = await ada.call("POST", "/api/v1/agents", { display_name: "An agent", ...body })
    expect([reply.status, reply.json.detail]).toEqual([status, expect.stringContaining(field)])
  })

  it("are refused with metadata that is nested without end, and taken with the deepest and longest that is allowed", async () => {
    const nested = (levels: number): string => `{"display_name":"An agent","metadata":${'{"a":'.repeat(levels)}1${"}".repeat(levels)}}`
    const send = (body: string) => ada.call("POST", "/api/v1/agents", body, { "content-type": "application/json" })
    const replies = await Promise.all([send(nested(32)), send(nested(33)), send(nested(8_000)), send(`{"display_name":"An agent","metadata":{"a":1e999}}`)])
    expect(replies.map(({ status }) => status)).toEqual([201, 422, 422, 422])
    const metadata = { x: "y".repeat(16 * 1024 - 8) }
    expect((await register(ada, { metadata })).metadata).toEqual(metadata)
    expect((await ada.call("POST", "/api/v1/agents", { display_name: "An agent", metadata: { x: `${metadata.x}y` } })).status).toBe(422)
  })

  it("are listed by status, newest first, a page at a time, with the limit taken into 1 to 100", async () => {
    const ids = new Array<string>()
    for (let i = 0; i < 3; i++) ids.unshift((await register(bob)).agent_id)
    expect(idsOf(await read("?limit=3"))).toEqual(ids)
    expect(idsOf(await read("?limit=1&offset=1"))).toEqual([ids[1]])
    expect(idsOf(await read("?limit=2&offset=-7"))).toEqual(ids.slice(0, 2))
    expect((await read("?limit=-5")).json.count).toBe(1)
    expect((await read("?offset=999999999")).json).toEqual({ agents: [], count: 0 })
    expect((await read("?limit=100000")).json.count).toBeGreaterThan(3)
    await bob.call("PATCH", `/api/v1/agents/${ids[1]}`, { status: "suspended" })
    expect(idsOf(await read("?limit=2"))).toEqual([ids[0], ids[2]])
    expect(idsOf(await read("?status=suspended"))).toEqual([ids[1]])
    const refusals = await Promise.all(["?status=gone", "?status=", "?limit=many", "?offset=1.5", `?status=${"x".repeat(300)}`].map(read))
    expect(refusals.map(({ status }) => status)).toEqual([400, 400, 422, 422, 422])
  })

  it("are found by a part of their name or id, in any case, and signs mean themselves", async () => {
    const word = randomUUID()
    const [percent, plain] = [await register(ada, { display_name: `${word} 100%_sure\\` }), await register(ada, { display_name: `${word} 100 xsure É` })]
    const find = (q: string, more = "") => read(`/search?q=${encodeURIComponent(q)}${more}`)
    expect(idsOf(await find(word.toUpperCase()))).toEqual([plain.agent_id, percent.agent_id])
    expect(idsOf(await find(word, "&limit=1"))).toEqual([plain.agent_id])
    expect(idsOf(await find(` ${word} 100%_ `))).toEqual([percent.agent_id])
    expect(idsOf(await find(`${word} 100_`))).toEqual([])
    expect(idsOf(await find("100%_sure\\"))).toEqual([percent.agent_id])
    expect(idsOf(await find("XSURE É"))).toEqual([plain.agent_id])
    expect(idsOf(await find(percent.agent_id))).toEqual([percent.agent_id])
    expect(idsOf(await find(percent.agent_id.slice(9).toUpperCase()))).toEqual([percent.agent_id])
    for (const nothing of ["", "%20%09"]) expect((await read(`/search?q=${nothing}`)).json).toEqual({ agents: [], count: 0 })
    expect((await read("/search")).json).toEqual({ agents: [], count: 0 })
    expect((await find("'; drop table identities; --")).json.count).toBe(0)
    expect([(await read("/search?q=%00")).status, (await find("x".repeat(1_000))).status]).toEqual([422, 422])
    await ada.call("DELETE", `/api/v1/agents/${plain.agent_id}`)
    expect(idsOf(await find(word))).toEqual([percent.agent_id])
  })

  it("are changed by any key of their owner, and only where the change says so", async () => {
    const made = await register(ada, { capabilities: ["a"], wallet_address: "0x1", metadata: { a: 1 } })
    const path = `/api/v1/agents/${made.agent_id}`
    const other = await owner(world, { name: ada.name })
    expect((await other.call("PATCH", path, {})).json).toEqual({ ...made, updated_at: time })
    expect((await ada.call("PATCH", path, { display_name: "Another", capabilities: [], wallet_address: null, metadata: { b: 2 }, status: "suspended" })).json).toEqual({
      ...made, display_name: "Another", capabilities: [], wallet_address: null, metadata: { b: 2 }, status: "suspended", updated_at: time
    })
    const refusals = await Promise.all([{ display_name: " " }, { status: "gone" }, { metadata: 1 }, { capabilities: "x" }].map((body) => ada.call("PATCH", path, body)))
    expect(refusals.map(({ status }) => status)).toEqual([400, 400, 422, 422])
    expect((await read(`/${made.agent_id}`)).json).toMatchObject({ display_name: "Another", status: "suspended" })
  })

  it("are nobody else's to change: unknown 404, another's 403, without a key 401", async () => {
    const { agent_id } = await register(ada)
    const missing = [randomUUID(), "no-id", "%27"]
    for (const [method, body] of [["PATCH", { status: "gone" }], ["DELETE", undefined]] as const) {
      for (const who of [bob, admin]) expect(await who.call(method, `/api/v1/agents/${agent_id}`, body)).toMatchObject({ status: 403, json: { detail: "Not your agent" } })
      for (const id of missing) expect(await bob.call(method, `/api/v1/agents/${id}`, body)).toMatchObject({ status: 404, json: { detail: "Agent not found" } })
      expect((await world.call(method, `/acf/api/v1/agents/${agent_id}`, { body })).status).toBe(401)
    }
    for (const id of missing) expect(await read(`/${id}`)).toMatchObject({ status: 404, json: { detail: "Agent not found" } })
    expect((await world.call("POST", "/acf/api/v1/agents", { body: { display_name: "An agent" } })).status).toBe(401)
    expect((await read(`/${agent_id}`)).json.status).toBe("active")
  })

  it("stay readable when they are deactivated, which may be done twice, and can come back", async () => {
    const { agent_id } = await register(ada)
    for (let i = 0; i < 2; i++) {
      expect(await ada.call("DELETE", `/api/v1/agents/${agent_id}`)).toMatchObject({ status: 200, json: { status: "deactivated", agent_id } })
    }
    expect((await read(`/${agent_id}`)).json.status).toBe("deactivated")
    expect(idsOf(await read(""))).not.toContain(agent_id)
    expect(idsOf(await read("?status=deactivated"))).toContain(agent_id)
    expect((await ada.call("PATCH", `/api/v1/agents/${agent_id}`, { status: "active" })).json.status).toBe("active")
  })

  it("are verified by admins alone, until they have another name or wallet", async () => {
    const { agent_id } = await register(ada, { wallet_address: "0x1" })
    const path = `/api/v1/agents/${agent_id}`
    const verify = (who: Owner, id = agent_id) => who.call("POST", `/api/v1/agents/${id}/verify`)
    expect([(await verify(ada)).status, (await verify(bob)).status, (await world.call("POST", `/acf${path}/verify`)).status]).toEqual([403, 403, 401])
    expect(await verify(admin, randomUUID())).toMatchObject({ status: 404, json: { detail: "Agent not found" } })
    const verified = (await verify(admin)).json
    expect(verified).toMatchObject({ agent_id, verified: true, owner_id: ada.name })
    expect(verified).not.toHaveProperty("metadata")
    expect((await ada.call("PATCH", path, { display_name: "An agent", wallet_address: "0x1", metadata: {}, capabilities: ["x"] })).json.verified).toBe(true)
    expect((await ada.call("PATCH", path, { display_name: "An admin" })).json.verified).toBe(false)
    await verify(admin)
    expect((await ada.call("PATCH", path, { wallet_address: null })).json.verified).toBe(false)
  })

  it("leave an audit row for their owner, whoever acted", async () => {
    const carol = await owner(world)
    const { agent_id } = await register(carol)
    await carol.call("PATCH", `/api/v1/agents/${agent_id}`, { display_name: "Another" })
    await admin.call("POST", `/api/v1/agents/${agent_id}/verify`)
    await carol.call("DELETE", `/api/v1/agents/${agent_id}`)
    const rows = await world.sql<Array<{ action: string; key: string; details: object }>>`
      select l.action, k.key_prefix as key, l.details from audit_log l join api_keys k on l.actor = 'key:' || k.id where l.account_id = ${carol.accountId} and l.target = ${agent_id} order by l.id`
    expect([...rows]).toEqual([
      { action: "identity.create", key: carol.keyId, details: {} },
      { action: "identity.update", key: carol.keyId, details: { fields: ["displayName"] } },
      { action: "identity.verify", key: admin.keyId, details: {} },
      { action: "identity.deactivate", key: carol.keyId, details: { fields: ["status"] } }
    ])
  })

  it("are at most 1,000 of one owner", async () => {
    const dora = await owner(world)
    await world.sql`
      insert into identities (id, account_id, display_name, identity_type, capabilities, metadata, status, created_at, updated_at)
      select gen_random_uuid(), ${dora.accountId}, 'many', 'did_vc', '{}', '{}', 'deactivated', now(), now() from generate_series(1, 999)`
    await register(dora)
    expect(await dora.call("POST", "/api/v1/agents", { display_name: "One more" })).toMatchObject({ status: 400, json: { detail: expect.stringContaining("1000") } })
    await register(ada)
  })

  it("show their owner's score, and stay its own when its account is linked with a login's", async () => {
    const { id } = await service(world, bob, { price: "0" })
    await world.sql`insert into agent_totals (agent_id, calls, cost, succeeded, errors, latency_ms) values (${id}, 100, 0, 85, 16, 85000)`
    const [first, second] = [await register(bob), await register(bob)]
    for (const { agent_id } of [first, second]) expect((await read(`/${agent_id}`)).json.reputation_score).toBe(8.67)
    expect(second.reputation_score).toBe(8.67)
    const person = await world.user()
    const old = await register(ada)
    expect((await world.call("POST", "/v1/account/links", { token: person.accessToken, body: { dialect: "acf", key: bob.token } })).status).toBe(201)
    expect((await read(`/${first.agent_id}`)).json.reputation_score).toBe(8.67)
    expect(await bob.call("PATCH", `/api/v1/agents/${first.agent_id}`, {})).toMatchObject({ status: 200, json: { owner_id: bob.name } })
    expect((await bob.call("PATCH", `/api/v1/agents/${old.agent_id}`, {})).status).toBe(403)
  })
})
