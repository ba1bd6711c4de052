/**
 * One owner learns nothing of another's but what is public. Ada owns one of
 * everything; Bob calls every operation of the OpenAPI document but the admins',
 * with a provider's key, and puts each of Ada's ids wherever one fits: paths,
 * queries, bodies. No answer may hold what is hers alone, and nothing of hers may
 * change.
 */
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, expect, it } from "vitest"
import { acf } from "../../src/dialects/acf/index.ts"
import { type Owner, type ScriptedService, owner, service } from "../support/acf.ts"
import { type World, makeWorld } from "../support/World.ts"
import { type Attempt, type OpenApi, attemptsWith } from "./Attempts.ts"
import { anyAddress } from "./Product.ts"

let world: World
let ada: Owner
let bob: Owner
let document: OpenApi
let hers: ScriptedService
/** Hers, and nobody else's to see. */
let secrets: ReadonlyArray<string>
/** What Bob tries as ids: all of the above that looks like one, and what is public. */
let ids: ReadonlyArray<string>

beforeAll(async () => {
  world = await makeWorld()
  ;[ada, bob] = await Promise.all([owner(world, { role: "provider" }), owner(world, { role: "provider" })])
  const admin = await owner(world, { role: "admin" })
  document = (await world.call("GET", "/acf/openapi.json")).json
  const made = async (path: string, body: object) => (await ada.call("POST", path, body)).json
  hers = await service(world, ada)
  // Ada calls her own service, so that nobody else has usage.
  const usageId = (await ada.call("GET", `/api/v1/proxy/${hers.id}/x`)).headers.get("x-acf-usage-id")!
  const agent = await made("/api/v1/agents", { display_name: "Ada's agent", metadata: { note: "Ada's own words" } })
  const team = await made("/api/v1/teams", { name: "Ada's team" })
  const [rule, gate] = [
    await made(`/api/v1/teams/${team.id}/rules`, { name: "r", keywords: ["k"], target_agent_id: "a" }), await made(`/api/v1/teams/${team.id}/gates`, { gate_type: "custom", threshold: 1 })
  ]
  await made(`/api/v1/teams/${team.id}/members`, { agent_id: agent.agent_id })
  const webhook = await made("/api/v1/webhooks", { url: "https://ada.example.com/hook", events: ["settlement.completed"], secret: "whsec of Ada's" })
  const delivery = randomUUID()
  await world.sql`insert into deliveries (id, webhook_id, event, facts, created_at, next_attempt_at, delivered_at) values (${delivery}, ${webhook.id}, 'service.called', '{}', now(), now(), now())`
  const settlement = (await admin.call("POST", "/api/v1/settlements", { provider_id: ada.name, period_start: "2020-01-01", period_end: "2100-01-01" })).json
  const deposit = await made("/api/v1/deposits", { buyer_id: ada.name, amount: "10" })
  const logged = (await world.sql<Array<{ id: string }>>`select id from audit_log where account_id = ${ada.accountId}`).map(({ id }) => id)
  const keyRows = (await world.sql<Array<{ id: string }>>`select id from api_keys where account_id = ${ada.accountId}`).map(({ id }) => id)
  secrets = [
    ada.token, ada.keyId, ada.accountId, usageId, webhook.id, "ada.example.com", "whsec of Ada's", delivery, settlement.id, deposit.deposit_id, "Ada's own words",
    hers.endpoint, ...logged, ...keyRows
  ]
  const tried = [ada.keyId, ada.accountId, usageId, webhook.id, delivery, settlement.id, deposit.deposit_id]
  ids = [...tried, ada.name, hers.id, agent.agent_id, team.id, rule.id, gate.id]
})
afterAll(async () => {
  expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])
  await world.stop()
})

/** But for calls of her service, which anybody may make. */
const adasThings = () => world.sql`
  select (select json_agg(k order by id) from api_keys k where account_id = ${ada.accountId}) as keys,
         (select json_agg(a order by id) from agents a where owner_id = ${ada.accountId}) as services,
         (select json_agg(i order by id) from identities i where account_id = ${ada.accountId}) as identities,
         (select json_agg(t order by id) from teams t where account_id = ${ada.accountId}) as teams,
         (select json_agg(m order by m.id) from team_members m join teams t on t.id = m.team_id where t.account_id = ${ada.accountId}) as members,
         (select json_agg(m order by m.id) from team_rules m join teams t on t.id = m.team_id where t.account_id = ${ada.accountId}) as rules,
         (select json_agg(m order by m.id) from team_gates m join teams t on t.id = m.team_id where t.account_id = ${ada.accountId}) as gates,
         (select json_agg(w order by id) from webhooks w where account_id = ${ada.accountId}) as webhooks,
         (select json_agg(s order by id) from settlements s where account_id = ${ada.accountId}) as settlements,
         (select json_agg(d order by id) from deposits d where account_id = ${ada.accountId}) as deposits,
         (select json_agg(l order by id) from audit_log l where account_id = ${ada.accountId}) as audit,
         (select available || ' ' || reserved from accounts where id = ${ada.accountId}) as balance`

/** What Bob writes there comes back to him as his own words. */
const freeTexts = new Set(["name", "display_name", "description", "category", "agent_id", "target_agent_id", "wallet_address", "url", "payment_tx"])

const attempt = async ({ operation, method, token, path, body, headers }: Attempt): Promise<void> => {
  const reply = await world.call(method, `/acf${path}`, { token, ...(method === "GET" ? {} : { body: body ?? {} }), headers: { ...anyAddress(), ...headers } })
  // What he asked for is his own words too.
  const told = `${JSON.stringify(Object.fromEntries(reply.headers))} ${reply.text}`
  const asked = decodeURIComponent(path)
  expect(secrets.filter((secret) => told.includes(secret) && !asked.includes(secret)), `${operation} ${path} ${JSON.stringify(body)} → ${reply.status} ${reply.text}`).toEqual([])
  expect(reply.status, `${operation} ${path} → ${reply.text}`).not.toBe(500)
}

it("answers every operation of the document without a trace of another owner", { timeout: 120_000 }, async () => {
  const before = await adasThings()
  const all = attemptsWith(document, ids, [bob.token], freeTexts)
  expect(new Set(all.map(({ operation }) => operation)).size).toBe(acf.rows.length)
  for (let at = 0; at < all.length; at += 32) await Promise.all(all.slice(at, at + 32).map(attempt))
  expect(await adasThings()).toEqual(before)
})

it("shows of an owner's things to others what it shows to everybody", async () => {
  const keysOf = async (path: string) => Object.keys((await bob.call("GET", path)).json).toSorted()
  expect(await keysOf(`/api/v1/services/${hers.id}`)).toEqual([
    "category", "created_at", "description", "free_tier_calls", "id", "name", "price_per_call", "pricing", "provider_id", "status", "tags", "updated_at"
  ])
  expect(await keysOf(`/api/v1/agents/${ids[9]}`)).toEqual([
    "agent_id", "capabilities", "created_at", "display_name", "identity_type", "reputation_score", "status", "updated_at", "verified", "wallet_address"
  ])
})
