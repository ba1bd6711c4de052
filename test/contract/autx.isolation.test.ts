/**
 * One account learns nothing of another's. Ada owns one of everything; Bob calls
 * every operation of the OpenAPI document, with a login and with a key that may
 * do everything, and puts each of Ada's ids wherever one fits: paths, cursors,
 * bodies. No answer may hold anything of hers but what is public of her agent,
 * and nothing of hers may change.
 */
import { afterAll, beforeAll, expect, it } from "vitest"
import { autx } from "../../src/dialects/autx/index.ts"
import { type Person, type World, makeWorld } from "../support/World.ts"
import { type Attempt, type OpenApi, attemptsWith } from "./Attempts.ts"
import { settledOrder } from "./Autx.ts"
import { makeGate } from "./Example.ts"

let world: World
let ada: Person
let bob: Person
let document: OpenApi
/** Hers, and nobody else's to see. */
let secrets: ReadonlyArray<string>
/** What Bob tries as ids: all of the above and what is public. */
let ids: ReadonlyArray<string>
const gate = makeGate()

beforeAll(async () => {
  world = await makeWorld()
  ada = await world.user()
  bob = await world.user()
  document = (await world.call("GET", "/autx/openapi.json")).json
  const read = async (path: string): Promise<any> => (await world.call("GET", `/v1${path}`, { token: ada.accessToken })).json
  await ada.fund("10.00")
  const key = await ada.key("*")
  const agent = await world.agent({ owner: ada, price: "0.50" })
  const slow = await world.agent({ price: "0.50", respond: async () => {
    await gate.opened
    return { body: "done" }
  } })
  const order = async (agentId: string): Promise<string> =>
    (await world.call("POST", "/v1/orders", { token: key.key, body: { agent_id: agentId, prompt: "Ada's own words" }, headers: { "idempotency-key": `adas-${agentId}` } })).json.id
  const [finished, pending] = [await order(agent.id), await order(slow.id)]
  await settledOrder(world, ada.accessToken, finished)
  const listed = [...await read("/credits/transactions"), ...await read("/credits/holds"), ...await read("/audit")].map(({ id }) => id)
  secrets = [...new Set([
    ada.id, ada.email, ada.password, ada.accessToken, ada.refreshToken, key.id, key.key, key.key.slice(0, 16), finished, pending, "Ada's own words", ...listed
  ])]
  ids = [...secrets.filter((secret) => /^[\w-]{1,60}$/.test(secret)), agent.id, agent.ticker, ada.accountId, ada.email, `adas-${agent.id}`]
})
afterAll(async () => {
  gate.open()
  await world.stop()
})

/** But for the letter that anybody may ask for who knows her address. */
const adasThings = () => world.sql`
  select (select json_agg(o order by id) from orders o where account_id = ${ada.accountId}) as orders,
         (select json_agg(k order by id) from api_keys k where account_id = ${ada.accountId}) as keys,
         (select json_agg(t order by id) from transactions t where account_id = ${ada.accountId}) as transactions,
         (select json_agg(a order by id) from agents a where owner_id = ${ada.accountId}) as agents,
         (select json_agg(l order by id) from audit_log l where account_id = ${ada.accountId} and action <> 'user.reset_requested') as audit,
         (select json_agg(l order by id) from logins l where user_id = ${ada.id}) as logins,
         (select json_agg(u) from users u where id = ${ada.id}) as users,
         (select available || ' ' || reserved from accounts where id = ${ada.accountId}) as balance`

/** What Bob writes there comes back to him as his own words. */
const freeTexts = new Set(["name", "description", "category", "prompt", "payment_method"])

const attempt = async ({ operation, method, token, path, body, headers }: Attempt): Promise<void> => {
  const reply = await world.call(method, `/v1${path}`, { token, ...(method === "GET" ? {} : { body: body ?? {} }), ...(headers === undefined ? {} : { headers }) })
  const told = `${JSON.stringify(Object.fromEntries(reply.headers))} ${reply.text}`
  expect(secrets.filter((secret) => told.includes(secret)), `${operation} ${path} ${JSON.stringify(body)} → ${reply.status} ${reply.text}`).toEqual([])
  expect(reply.status, `${operation} ${path}`).not.toBe(500)
}

it("answers every operation of the document without a trace of another account", { timeout: 120_000 }, async () => {
  const before = await adasThings()
  const all = attemptsWith(document, ids, [bob.accessToken, (await bob.key("*")).key], freeTexts)
  expect(new Set(all.map(({ operation }) => operation)).size).toBe(autx.rows.length)
  for (let at = 0; at < all.length; at += 32) await Promise.all(all.slice(at, at + 32).map(attempt))
  expect(await adasThings()).toEqual(before)
})

it("shows of an agent to others what it shows to everybody", async () => {
  const { json: [agent] } = await world.call("GET", "/v1/agents?sort=new&limit=1", { token: bob.accessToken })
  expect(Object.keys(agent).toSorted()).toEqual([
    "auth_tier", "category", "created_at", "description", "endpoint_url", "free_tier_calls", "id", "manifest", "name", "owner_id", "service_price", "status", "ticker", "total_requests", "total_revenue"
  ])
})
