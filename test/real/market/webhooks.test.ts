/** Webhooks as their owners see them: subscribing, being told, and the log. Receivers are real and fail on purpose. */
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { keepUp } from "../../../src/store/Upkeep.ts"
import { type Owner, owner, service } from "../../support/acf.ts"
import { until } from "../../support/GatewayProcess.ts"
import { isSigned, WebhookReceiver } from "../../support/WebhookReceiver.ts"
import { type World, makeWorld } from "../../support/World.ts"

const secret = "whsec_my_webhook_secret"

let world: World
let receiver: WebhookReceiver
beforeAll(async () => {
  [world, receiver] = await Promise.all([makeWorld({ settings: { webhookAllowHttp: true, acfIpBurst: 100_000 } }), WebhookReceiver.start()])
})
afterAll(async () => {
  receiver.close()
  await world.stop()
})

const wanted = (more: object = {}) => ({ url: `${receiver.origin}/hook`, events: ["service.called"], secret, ...more })
const subscribe = async (subscriber: Owner, more: object = {}): Promise<any> => {
  const reply = await subscriber.call("POST", "/api/v1/webhooks", wanted(more))
  expect(reply.status, reply.text).toBe(201)
  return reply.json
}
/** A path of the receiver that nobody else is told at. */
const freshPath = (): string => `/${randomUUID()}`
const log = async (subscriber: Owner, webhookId: string, query = ""): Promise<ReadonlyArray<any>> =>
  (await subscriber.call("GET", `/api/v1/webhooks/${webhookId}/deliveries${query}`)).json.deliveries
/** As the commits of events would, and then one that wakes the sender. */
const write = async (webhookId: string, count: number): Promise<ReadonlyArray<string>> => {
  const facts = { account: randomUUID(), score: 8.72, previous: 8.7 }
  const rows = await world.sql<Array<{ id: string }>>`
    insert into deliveries (id, webhook_id, event, facts, created_at, next_attempt_at)
    select ('00000000-0000-7000-8000-' || lpad(to_hex(n) || ${randomUUID().slice(-8)}, 12, '0'))::uuid, ${webhookId}, 'reputation.updated', ${world.sql.json(facts)}, now(), now()
    from generate_series(1, ${count}::int) n returning id`
  return rows.map(({ id }) => id).toSorted()
}

describe("a subscription", () => {
  it("is answered as documented, with its events once and sorted, listed newest first, and its secret is never shown and sealed in the database", async () => {
    const me = await owner(world, { name: "my-agent" })
    const first = await subscribe(me, { events: ["service.called", "payment.completed", "service.called"] })
    expect(first).toEqual({
      id: expect.any(String), owner_id: "my-agent", url: `${receiver.origin}/hook`, events: ["payment.completed", "service.called"], active: true,
      created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+\+00:00$/)
    })
    const second = await subscribe(me)
    const list = await me.call("GET", "/api/v1/webhooks")
    expect(list.json).toEqual({ webhooks: [second, first], count: 2 })
    expect(list.text).not.toContain(secret)
    const [row] = await world.sql<Array<{ secret: Buffer }>>`select secret from webhooks where id = ${first.id}`
    expect(row!.secret.includes(secret)).toBe(false)
  })

  it("is ended by its owner alone, who alone sees it and its log; and both are audited", async () => {
    const [me, other] = await Promise.all([owner(world), owner(world, { role: "admin" })])
    const { id } = await subscribe(me)
    expect((await other.call("GET", "/api/v1/webhooks")).json).toEqual({ webhooks: [], count: 0 })
    for (const path of [`/api/v1/webhooks/${id}`, `/api/v1/webhooks/${randomUUID()}`, "/api/v1/webhooks/x%27--"]) {
      expect(await other.call("DELETE", path)).toMatchObject({ status: 404, json: { detail: "Webhook not found" } })
      expect(await other.call("GET", `${path}/deliveries`)).toMatchObject({ status: 404, json: { detail: "Webhook not found" } })
    }
    expect(await me.call("DELETE", `/api/v1/webhooks/${id}`)).toMatchObject({ status: 200, json: { status: "deleted", webhook_id: id } })
    expect((await me.call("DELETE", `/api/v1/webhooks/${id}`)).status).toBe(404)
    expect((await me.call("GET", `/api/v1/webhooks/${id}/deliveries`)).status).toBe(404)
    const audited = await world.sql<Array<{ action: string; details: unknown }>>`select action, details from audit_log where account_id = ${me.accountId} and action like 'webhook.%' order by id`
    expect(audited).toEqual([{ action: "webhook.create", details: { events: ["service.called"] } }, { action: "webhook.delete", details: {} }])
  })

  it("is one of at most 20 of its owner, also when 30 come at once", async () => {
    const me = await owner(world)
    const replies = await Promise.all(Array.from({ length: 30 }, () => me.call("POST", "/api/v1/webhooks", wanted())))
    expect(replies.filter(({ status }) => status === 201).length).toBe(20)
    expect(replies.filter(({ status, json }) => status === 400 && json.detail.includes("20 webhooks")).length).toBe(10)
    const { webhooks: [newest], count } = (await me.call("GET", "/api/v1/webhooks")).json
    expect(count).toBe(20)
    await me.call("DELETE", `/api/v1/webhooks/${newest.id}`)
    await subscribe(me)
  })

  it.each([
    ["an event that nobody knows", 400, { events: ["service.called", "service.sold"] }],
    ["no event", 400, { events: [] }],
    ["events that are no list", 422, { events: "service.called" }],
    ["a private address", 400, { url: "https://10.0.0.1/hook" }],
    ["the address of a cloud's metadata, spelled as a number", 400, { url: "https://2852039166/hook" }],
    ["credentials in its URL", 400, { url: "https://me:secret@example.com/hook" }],
    ["another scheme", 400, { url: "ftp://example.com/hook" }],
    ["no URL", 400, { url: "my webhook" }],
    ["a URL of 10 kB", 422, { url: `https://example.com/${"x".repeat(10_000)}` }],
    ["an empty secret", 422, { secret: "" }],
    ["a secret of 10 kB", 422, { secret: "x".repeat(10_000) }],
    ["a secret that is no text", 422, { secret: 12345678 }]
  ])("with %s is refused", async (_, status, more) => {
    const me = await owner(world)
    expect(await me.call("POST", "/api/v1/webhooks", wanted(more))).toMatchObject({ status, json: { detail: expect.any(String) } })
    expect((await me.call("GET", "/api/v1/webhooks")).json.count).toBe(0)
  })
})

describe("a call of a service", () => {
  it("is told to its buyer's and its provider's webhooks, signed, as documented, once each, and to nobody else's", async () => {
    const [buyer, provider, stranger] = await Promise.all([owner(world, { name: "buyer-1" }), owner(world, { name: "provider-1", role: "provider" }), owner(world)])
    const [paths, { id: serviceId }] = [[freshPath(), freshPath(), freshPath(), freshPath()] as const, await service(world, provider, { price: "0.05" })]
    const [mine] = await Promise.all([
      subscribe(buyer, { url: receiver.origin + paths[0], events: ["service.called", "payment.completed"] }), subscribe(provider, { url: receiver.origin + paths[1], secret: "another" }),
      subscribe(stranger, { url: receiver.origin + paths[2] }), subscribe(provider, { url: receiver.origin + paths[3], events: ["settlement.completed"] })
    ])
    const called = await buyer.call("POST", `/api/v1/proxy/${serviceId}/run`, { n: 1 })
    expect(called.status).toBe(200)
    const [[toBuyer], [toProvider]] = await Promise.all([receiver.received(paths[0], 1), receiver.received(paths[1], 1)])
    const payload = {
      usage_id: called.headers.get("x-acf-usage-id"), service_id: serviceId, buyer_id: "buyer-1", provider_id: "provider-1",
      amount_usd: 0.05, payment_method: "x402", status_code: 200, latency_ms: expect.any(Number)
    }
    expect(toBuyer!.json).toEqual({ event: "service.called", payload, data: payload, timestamp: expect.stringMatching(/\+00:00$/), webhook_id: mine.id, id: expect.any(String) })
    expect(Object.keys(toBuyer!.json)).toEqual(["event", "payload", "timestamp", "webhook_id", "id", "data"])
    expect(toBuyer!.headers).toMatchObject({
      "content-type": "application/json", "x-acf-event": "service.called", "x-acf-timestamp": toBuyer!.json.timestamp, "x-acf-delivery": toBuyer!.json.id
    })
    expect([isSigned(toBuyer!, secret), isSigned(toBuyer!, "another"), isSigned(toProvider!, "another")]).toEqual([true, false, true])
    expect(toProvider!.json.payload).toEqual(payload)
    await until(async () => (await log(buyer, mine.id))[0].status === "delivered")
    expect(await log(buyer, mine.id)).toEqual([{
      id: toBuyer!.json.id, event: "service.called", created_at: toBuyer!.json.timestamp, attempts: 1, status: "delivered", next_attempt_at: null,
      last_status: 200, last_error: null, delivered_at: expect.stringMatching(/\+00:00$/)
    }])
    // No other row was written for anybody.
    const [others] = await world.sql<Array<{ count: number }>>`
      select count(*)::int from deliveries where facts->>'usage_id' = ${called.headers.get("x-acf-usage-id")} and id not in (${toBuyer!.json.id}, ${toProvider!.json.id})`
    expect(others!.count).toBe(0)
  })

  it("of one's own service is told once, and not any more once the webhook is gone", async () => {
    const me = await owner(world, { role: "provider" })
    const [path, { id: serviceId }] = [freshPath(), await service(world, me)]
    const { id } = await subscribe(me, { url: receiver.origin + path })
    await me.call("GET", `/api/v1/proxy/${serviceId}/`)
    await receiver.received(path, 1)
    const [row] = await world.sql<Array<{ count: number }>>`select count(*)::int from deliveries where webhook_id = ${id}`
    expect(row!.count).toBe(1)
    await me.call("DELETE", `/api/v1/webhooks/${id}`)
    await me.call("GET", `/api/v1/proxy/${serviceId}/`)
    const [after] = await world.sql<Array<{ count: number }>>`select count(*)::int from deliveries where webhook_id = ${id}`
    expect(after!.count).toBe(1)
  })
})

describe("a receiver that fails", () => {
  it("is tried again after 1, 2 and 4 s by the database's clock, then given up; what comes behind waits for that, and others wait for nothing", { timeout: 60_000 }, async () => {
    // What the log forgets: when each attempt ended, and how long the delivery was to wait from there.
    await world.sql.unsafe(`
      create table attempts_seen (delivery_id uuid, attempts int, wait_s float8);
      create function see_attempt() returns trigger language plpgsql as $$ begin
        if new.last_error is not null and new.failed_at is null then insert into attempts_seen values (new.id, new.attempts, extract(epoch from new.next_attempt_at - now())); end if;
        return new;
      end $$;
      create trigger see_attempt after update of next_attempt_at on deliveries for each row execute function see_attempt()`)
    const me = await owner(world, { role: "provider" })
    const { id: serviceId } = await service(world, me, { freeTierCalls: 1_000 })
    const [down, late, cut, moved, well] = [freshPath(), freshPath(), freshPath(), freshPath(), freshPath()]
    receiver.take = async ({ path }, nth) => {
      if (path === down) return nth <= 4 ? 503 : 200
      if (path === late) return nth <= 3 ? 404 : 204
      if (path === cut) return nth === 1 ? "reset" : "endless"
      if (path === moved) return nth === 1 ? { status: 302, headers: { location: `${receiver.origin}/elsewhere` } } : 299
      return 200
    }
    const ids: Record<string, string> = {}
    for (const path of [down, late, cut, moved, well]) ids[path] = (await subscribe(me, { url: receiver.origin + path })).id
    for (let call = 0; call < 2; call++) await me.call("GET", `/api/v1/proxy/${serviceId}/`)
    // Long before the others have been given up.
    await receiver.received(well, 2)
    expect(receiver.at(down).length).toBeLessThan(4)
    await Promise.all([receiver.received(down, 5), receiver.received(late, 5), receiver.received(cut, 3), receiver.received(moved, 3)])
    await until(async () => (await Promise.all(Object.values(ids).map((id) => log(me, id)))).flat().every(({ status }) => status !== "pending"))
    const order = (path: string): ReadonlyArray<number> => {
      const [first] = receiver.at(path)
      return receiver.at(path).map(({ json }) => json.id === first!.json.id ? 1 : 2)
    }
    expect([down, late, cut, moved, well].map(order)).toEqual([[1, 1, 1, 1, 2], [1, 1, 1, 1, 2], [1, 1, 2], [1, 1, 2], [1, 2]])
    const outcomes = async (path: string) => (await log(me, ids[path]!)).map(({ status, attempts, last_status }) => [status, attempts, last_status])
    expect(await Promise.all([down, late, cut, moved, well].map(outcomes))).toEqual([
      [["delivered", 1, 200], ["failed", 4, 503]], [["delivered", 1, 204], ["delivered", 4, 204]],
      [["delivered", 1, 200], ["delivered", 2, 200]], [["delivered", 1, 299], ["delivered", 2, 299]], [["delivered", 1, 200], ["delivered", 1, 200]]
    ])
    expect(receiver.at("/elsewhere")).toEqual([])
    expect(receiver.atOnceMax).toBe(1)
    // The same bytes each time.
    expect(new Set(receiver.at(down).slice(0, 4).map(({ bytes, headers }) => `${headers["x-acf-signature"]} ${bytes}`)).size).toBe(1)
    const waits = async (path: string) => (await world.sql<Array<{ wait_s: number }>>`select wait_s from attempts_seen where delivery_id = ${receiver.at(path)[0]!.json.id} order by attempts`).map(({ wait_s }) => wait_s)
    expect(await Promise.all([down, late, cut].map(waits))).toEqual([[1, 2, 4], [1, 2, 4], [1]])
  })
})

describe("the log", () => {
  it("has the newest first, as many as asked for within 1 to 100, and loses what is over after 7 days, and all of a webhook that is gone after an hour", async () => {
    const me = await owner(world)
    // Nobody listens there.
    const { id } = await subscribe(me, { url: "http://127.0.0.1:1/hook", events: ["reputation.updated"] })
    const ids = await write(id, 120)
    expect((await log(me, id, "?limit=2")).map(({ id }) => id)).toEqual([ids[119], ids[118]])
    expect((await log(me, id, "?limit=1000")).length).toBe(100)
    expect((await log(me, id, "?limit=-1")).length).toBe(1)
    expect((await me.call("GET", `/api/v1/webhooks/${id}/deliveries?limit=x`)).status).toBe(422)
    await world.sql`update deliveries set delivered_at = now() - interval '7 days 1 minute' where webhook_id = ${id} and id <= ${ids[9]!}`
    await world.sql`update deliveries set failed_at = now() - interval '6 days' where webhook_id = ${id} and id > ${ids[9]!} and id <= ${ids[19]!}`
    await keepUp(world.sql, Date.now())
    const left = async () => (await world.sql<Array<{ id: string }>>`select id from deliveries where webhook_id = ${id} order by id`).map(({ id }) => id)
    expect(await left()).toEqual(ids.slice(10))
    await me.call("DELETE", `/api/v1/webhooks/${id}`)
    await keepUp(world.sql, Date.now())
    expect((await left()).length).toBe(110)
    await world.sql`update webhooks set deleted_at = now() - interval '61 minutes' where id = ${id}`
    await keepUp(world.sql, Date.now())
    expect(await left()).toEqual([])
    expect(await world.sql`select id from webhooks where id = ${id}`).toEqual([])
  })
})

describe("a gateway with its own settings", () => {
  it("takes https addresses of the outside only, and none without a key to seal secrets", async () => {
    const strict = await makeWorld({ settings: { secretsKey: undefined, upstreamAllow: [], databaseUrl: "postgres://database.test/tollgate" } })
    try {
      const me = await owner(strict)
      const create = (url: string) => me.call("POST", "/api/v1/webhooks", wanted({ url }))
      expect(await create("http://example.com/hook")).toMatchObject({ status: 400, json: { detail: expect.stringContaining("https") } })
      expect((await create("https://127.0.0.1/hook")).status).toBe(400)
      expect((await create("https://printer.local/hook")).status).toBe(400)
      expect((await create("https://example.com:22/hook")).status).toBe(400)
      expect((await create("https://example.com/hook")).status).toBe(503)
    } finally {
      await strict.stop()
    }
  })
})
