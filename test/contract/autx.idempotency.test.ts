/** `Idempotency-Key` on every row that honours it, derived from the rows. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { autx } from "../../src/dialects/autx/index.ts"
import type { Endpoint } from "../../src/http/endpoint.ts"
import { field, formType } from "../support/Form.ts"
import { type Person, type World, makeWorld } from "../support/World.ts"
import { makeGate } from "./Example.ts"
import { agents } from "./examples/agents.ts"
import { money } from "./examples/money.ts"

const examples = { ...agents, ...money }
const rows = autx.rows.filter((row): row is Endpoint => row.kind === "endpoint" && row.idempotent)

let world: World
let caller: Person
beforeAll(async () => {
  world = await makeWorld()
  caller = await world.user()
})
afterAll(() => world.stop())

it("is honoured by every row that creates or charges", () => {
  expect(rows.map(({ id }) => id).toSorted()).toEqual(["autx.agents.create", "autx.api_keys.create", "autx.credits.deposit_test", "autx.orders.create", "autx.orders.create_multipart"])
})

const made = async (): Promise<number> => {
  const [row] = await world.sql<Array<{ count: bigint }>>`
    select (select count(*) from agents) + (select count(*) from api_keys) + (select count(*) from orders) + (select count(*) from transactions where type <> 'complete') as count`
  return Number(row!.count)
}

it("never stores an answer with a key in it", async () => {
  const { key } = (await world.call("POST", "/v1/api-keys", { token: caller.accessToken, body: { name: "a key" }, headers: { "idempotency-key": "secret" } })).json
  expect(key).toMatch(/^autx_live_/)
  expect(await world.sql`select key, status from idempotency_answers where account_id = ${caller.accountId}`).toEqual([])
  expect(await world.sql`select key from idempotency_keys where account_id = ${caller.accountId}`).toEqual([{ key: "secret" }])
})

/** The same with one field more, which may be one that nobody asked for. */
const withField = (body: object, name: string, value: string): object =>
  body instanceof Buffer ? Buffer.concat([field(name, value), body]) : { ...body, [name]: value }

const reused = "This Idempotency-Key came before with another request: repeat that request unchanged, or use another key"

describe.each(rows.map((row) => [`${row.method} ${row.path}`, row] as const))("%s", (_, row) => {
  /** A body that works for anybody, each time with another ticker where there is one. */
  let tickers = 0
  const freshBody = async (): Promise<object> =>
    withField((await examples[row.id]!.success.request(world, caller)).body as object, "ticker", `T${8 + rows.indexOf(row)}A${tickers++}`)
  const post = (person: Person, key: string, body: object) =>
    world.call("POST", `/v1${row.path}`, { token: person.accessToken, body, headers: { ...(body instanceof Buffer ? formType() : {}), "idempotency-key": key } })

  it("takes effect once for one key", async () => {
    const body = await freshBody()
    const key = `once-${row.id}`
    const first = await post(caller, key, body)
    expect([first.status, first.headers.get("idempotent-replayed")], first.text).toEqual([row.status, null])
    const before = await made()
    const again = await post(caller, key, body)
    if (row.secret) {
      expect([again.status, again.json]).toEqual([409, { detail: `The first call with this Idempotency-Key is done, and its answer can't be repeated. It made ${first.json.id}`, result_id: first.json.id }])
    } else {
      expect([again.status, again.text, again.headers.get("idempotent-replayed")]).toEqual([first.status, first.text, "true"])
    }
    const other = await post(caller, key, withField(body, "different", "true"))
    expect([other.status, other.json]).toEqual([409, { detail: reused }])
    expect(await made()).toBe(before)
  })

  it("lets two accounts use one key", async () => {
    for (const person of [await world.user(), await world.user()]) {
      await person.fund("5.00")
      const reply = await post(person, "everybody's", await freshBody())
      expect([reply.status, reply.headers.get("idempotent-replayed")]).toEqual([row.status, null])
    }
  })

  it("answers 409 at once while the first call is under way, and leaves no trace of that", async () => {
    const person = await world.user()
    await person.fund("5.00")
    const body = await freshBody()
    const [locked, unlock] = [makeGate(), makeGate()]
    const lock = world.sql.begin(async (tx) => {
      await tx`select from accounts where id = ${person.accountId} for update`
      locked.open()
      await unlock.opened
    })
    await locked.opened
    // Whichever comes second is answered first: the other one waits for the lock.
    const both = [post(person, "slow", body), post(person, "slow", body)]
    const refused = await Promise.race(both)
    unlock.open()
    await lock
    const statuses = (await Promise.all(both)).map(({ status }) => status)
    expect([refused.status, refused.json]).toEqual([409, { detail: "The first call with this Idempotency-Key is still running: try again in a second", retry_after: 1 }])
    expect(statuses.toSorted()).toEqual([row.status, 409])
    expect((await post(person, "slow", body)).json.detail).not.toBe(refused.json.detail)
  })

  it("does nothing for a call that was refused, so that the key may be tried again", async () => {
    const person = await world.user()
    const body = await freshBody()
    await world.alter(person, (sql) => sql`update accounts set status = 'suspended' where id = ${person.accountId}`)
    expect((await post(person, "again", body)).status).toBe(403)
    await world.alter(person, (sql) => sql`update accounts set status = 'active' where id = ${person.accountId}`)
    await person.fund("5.00")
    const reply = await post(person, "again", body)
    expect([reply.status, reply.headers.get("idempotent-replayed")]).toEqual([row.status, null])
  })

  it.each([["", "an empty key"], ["k".repeat(256), "a key of 256 characters"], ["two words", "a key with a space"]])("refuses %j", async (key) => {
    const reply = await post(caller, key, await freshBody())
    expect([reply.status, reply.json.errors[0].loc]).toEqual([422, ["header", "idempotency-key"]])
  })
})
