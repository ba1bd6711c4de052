/** What happened is told, in order and by one node at a time, whatever goes away in between. */
import { Effect, Exit, Layer, ManagedRuntime } from "effect"
import { randomUUID } from "node:crypto"
import { describe, expect, it } from "vitest"
import { Config, readSettings } from "../../src/config.ts"
import { webhookDress } from "../../src/dialects/acf/wire/webhooks.ts"
import { Secrets } from "../../src/kernel/identity/Secrets.ts"
import { makeUpstreamGuard, UpstreamGuard } from "../../src/kernel/upstream/UpstreamGuard.ts"
import { Courier } from "../../src/kernel/webhooks/Courier.ts"
import { webhookSecretPurpose } from "../../src/kernel/webhooks/Sender.ts"
import { Webhooks } from "../../src/kernel/webhooks/Webhooks.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { claimDeliveries, settleDelivery } from "../../src/store/market/DeliveryStore.ts"
import { type Connection, Postgres, type Sql } from "../../src/store/Postgres.ts"
import { log } from "../../src/telemetry/log.ts"
import { startCutProxy } from "../support/CutProxy.ts"
import { until } from "../support/GatewayProcess.ts"
import { newAccount } from "../support/ledgerRows.ts"
import { NameServer } from "../support/NameServer.ts"
import { type StageDatabase, useStage } from "../support/Stage.ts"
import { type Take, WebhookReceiver, isSigned } from "../support/WebhookReceiver.ts"

log.level = "silent"
const stage = useStage()
const env = { SECRETS_KEY: "k".repeat(32), DATABASE_URL: "postgres://database.test/tollgate", UPSTREAM_ALLOW: "127.0.0.1", WEBHOOK_ALLOW_HTTP: "true" }

const database = async (): Promise<StageDatabase> => {
  const made = await stage.database()
  await migrate(made.sql)
  return made
}
const receiverThat = async (take?: Take): Promise<WebhookReceiver> => {
  const receiver = await WebhookReceiver.start(take)
  stage.onEnd(() => receiver.close())
  return receiver
}
/** A node's webhooks. It looks for deliveries at once, and then every 5 s. `name` goes with what it sends. */
const startNode = async (connection: Connection, name = "a node") => {
  const dress = { ...webhookDress, headers: (...told: Parameters<typeof webhookDress.headers>) => ({ ...webhookDress.headers(...told), "User-Agent": name }) }
  const runtime = ManagedRuntime.make(Webhooks.layer(dress).pipe(
    Layer.provideMerge(Layer.mergeAll(Secrets.layer, UpstreamGuard.layer)), Layer.provideMerge(Postgres.layer(connection)), Layer.provideMerge(Layer.succeed(Config, readSettings(env)))
  ))
  stage.onEnd(() => runtime.dispose())
  const webhooks = await runtime.runPromise(Webhooks)
  return { webhooks, seal: (id: string, secret: string) => runtime.runPromise(Secrets.use((secrets) => secrets.seal(webhookSecretPurpose, id, secret))), stop: () => runtime.dispose() }
}
/** Webhooks that lead there, each with so many deliveries that are due, in the order of their ids. */
const prepare = async ({ options, sql }: StageDatabase, urls: ReadonlyArray<string>, count: number, createdAt = "now()"): Promise<ReadonlyArray<string>> => {
  const { seal, stop } = await startNode(options)
  const accountId = await newAccount(sql)
  const ids = await Promise.all(urls.map(async (url) => {
    const id = randomUUID()
    await sql`insert into webhooks (id, account_id, url, events, secret, created_at) values (${id}, ${accountId}, ${url}, '{reputation.updated}', ${await seal(id, "the secret")}, now())`
    return id
  }))
  await stop()
  await sql`
    insert into deliveries (id, webhook_id, event, facts, created_at, next_attempt_at)
    select (lpad(to_hex(n), 8, '0') || right(gen_random_uuid()::text, 28))::uuid, w.id, 'reputation.updated', ${sql.json({ account: accountId, score: 8.72, previous: 8.7 })}, ${sql.unsafe(createdAt)}, now()
    from webhooks w, generate_series(1, ${count}::int) n`
  return ids
}
const pathOf = (n: number): string => `/hook/${n}`
/** As when its lease is over. */
const endLeases = (sql: Sql) => sql`update webhooks set busy_until = now()`
const idsOf = async (sql: Sql, webhookId: string): Promise<ReadonlyArray<string>> =>
  (await sql<Array<{ id: string }>>`select id from deliveries where webhook_id = ${webhookId} order by id`).map(({ id }) => id)
const pending = async (sql: Sql): Promise<number> =>
  (await sql<Array<{ count: number }>>`select count(*)::int from deliveries where delivered_at is null and failed_at is null`)[0]!.count

/** A receiver's answer that a test gives later. */
const holdAnswer = () => {
  let release = (): void => {}
  let reached = (): void => {}
  const held = new Promise<number>((done) => { release = () => done(200) })
  const arrived = new Promise<void>((done) => { reached = done })
  return { arrived, release, take: () => {
    reached()
    return held
  } }
}

describe("calls of a gateway that is killed", () => {
  it("between a receiver's answer and its mark are told again with the same id, and all others exactly once and in order", { timeout: 60_000 }, async () => {
    const { env: place, options, sql } = await stage.database()
    const names = await new NameServer({ "looks-public.test": ["10.0.0.1"] }).listen()
    stage.onEnd(() => names.close())
    const settings = { ...env, ...names.env, ...place, PROXY_BILLING: "free" }
    const { take, release } = holdAnswer()
    const [gateway, agent, receiver] = await Promise.all([stage.gateway(settings), stage.agent(), receiverThat(async (_, nth) => {
      if (nth === 3) await gateway.kill9()
      return nth === 1 ? take() : 200
    })])
    const [buyer, seller] = await Promise.all([gateway.person(), gateway.person()])
    const [{ id: agentId }, key, { seal, stop }] = await Promise.all([gateway.list(seller, agent.url, "0.50"), gateway.key(buyer), startNode(options)])
    const subscribe = async (url: string): Promise<string> => {
      const id = randomUUID()
      await sql`insert into webhooks (id, account_id, url, events, secret, created_at) values (${id}, ${buyer.accountId}, ${url}, '{service.called}', ${await seal(id, "the secret")}, now())`
      return id
    }
    const webhookId = await subscribe(receiver.origin + pathOf(1))
    const insideId = await subscribe("http://looks-public.test/hook")
    await stop()
    // As another node that has added them.
    await sql`select pg_notify('tollgate_changed', ${`webhooks:${buyer.accountId}`})`
    const call = () => gateway.ask(200, "POST", `/v1/proxy/${agentId}`, { token: key, body: {} })
    const told = async (id: string): Promise<ReadonlyArray<string>> => idsOf(sql, id)
    await until(async () => {
      await call()
      return (await told(insideId)).length > 0
    })
    for (let n = 0; n < 5; n++) await call()
    await until(async () => (await told(webhookId)).length >= 6)
    // A name that leads inside is refused when it is connected to.
    await until(async () => (await sql`select from deliveries where webhook_id = ${insideId} and last_error = 'the address is not public'`).length > 0)
    const ids = await told(webhookId)
    release()
    await gateway.ended
    const [row] = await sql<Array<{ attempts: number; lease_s: number }>>`
      select d.attempts, extract(epoch from w.busy_until - now())::float8 as lease_s from deliveries d join webhooks w on w.id = d.webhook_id where d.id = ${ids[2]!} and d.delivered_at is null`
    expect(row!.attempts).toBe(1)
    // Still claimed by the dead one.
    expect(row!.lease_s).toBeGreaterThan(20)
    await endLeases(sql)
    const next = await stage.gateway(settings)
    const received = await receiver.received(pathOf(1), ids.length + 1)
    expect(received.map(({ json }) => json.id)).toEqual([...ids.slice(0, 3), ...ids.slice(2)])
    expect(received.every((one) => isSigned(one, "the secret") && one.json.payload.buyer_id === buyer.accountId)).toBe(true)
    await until(async () => (await next.metric('tollgate_webhook_deliveries_total\\{outcome="delivered"\\}')) === ids.length - 2)
    expect(names.asked).toContain("looks-public.test")
  })
})

describe("deliveries of several nodes", () => {
  it("go out once each, in order, never two at a time to one webhook, by all of the nodes", async () => {
    const base = await database()
    // Nobody is answered before both have sent something: each has four attempts under way to one origin at the most.
    const senders = new Set<string>()
    let bothSend = (): void => {}
    const both = new Promise<void>((done) => { bothSend = done })
    const receiver = await receiverThat(async ({ headers }) => {
      if (senders.add(headers["user-agent"]!).size === 2) bothSend()
      await both
      return 200
    })
    const ids = await prepare(base, Array.from({ length: 10 }, (_, n) => receiver.origin + pathOf(n)), 12)
    await Promise.all([startNode(base.options, "one"), startNode(base.options, "two")])
    await Promise.all(ids.map((_, n) => receiver.received(pathOf(n), 12)))
    await until(async () => await pending(base.sql) === 0)
    for (const [n, id] of ids.entries()) expect(receiver.at(pathOf(n)).map(({ json }) => json.id)).toEqual(await idsOf(base.sql, id))
    expect(receiver.atOnceMax).toBe(1)
    expect(await base.sql`select from deliveries where attempts <> 1`).toEqual([])
  })

  it("that were created in one node are known in the other, as is their end", async () => {
    const { options, sql } = await database()
    const [{ webhooks: here }, { webhooks: there }] = await Promise.all([startNode(options), startNode(options)])
    const accountId = await newAccount(sql)
    const caller = { accountId, kind: "key" as const, dialect: "acf", subjectId: randomUUID() as never, loginId: undefined, expiresAtMs: Infinity }
    const { id } = await Effect.runPromise(here.create(caller, { url: "http://127.0.0.1:1/hook", events: ["service.called", "reputation.updated"], secret: "the secret" }))
    expect(here.subscriptions(accountId, "service.called")).toEqual([id])
    // As a gateway that hears of it.
    there.heard(accountId)
    await until(() => Promise.resolve(there.subscriptions(accountId, "reputation.updated").length === 1))
    const facts = { account: accountId, score: 8.72, previous: 8.7 }
    expect(there.deliveriesOf("reputation.updated", [accountId, accountId], facts, 5)).toEqual([{ id: expect.any(String), webhookId: id, event: "reputation.updated", facts, atMs: 5 }])
    expect(there.deliveriesOf("reputation.updated", [await newAccount(sql)], facts, 5)).toEqual([])
    await Effect.runPromise(here.remove(caller, id))
    expect(here.subscriptions(accountId, "service.called")).toEqual([])
    there.heard(undefined)
    await until(() => Promise.resolve(there.subscriptions(accountId, "reputation.updated").length === 0))
  })
})

describe("a delivery", () => {
  it("is marked when the database is back, and not sent again, when that went away while it was sent", async () => {
    const base = await database()
    const proxy = await startCutProxy(base.options)
    stage.onEnd(() => proxy.close())
    const { take, arrived, release } = holdAnswer()
    const receiver = await receiverThat(take)
    await prepare(base, [receiver.origin + pathOf(1)], 1)
    await startNode(proxy.options)
    await arrived
    const cut = proxy.arm("beforeSend", "delivered_at = case")
    release()
    await cut
    expect(await pending(base.sql)).toBe(1)
    await until(async () => await pending(base.sql) === 0)
    expect(receiver.told.length).toBe(1)
  })

  it("under way when a node stops has some time to end, and is marked", async () => {
    const base = await database()
    const { take, arrived, release } = holdAnswer()
    const receiver = await receiverThat(take)
    await prepare(base, [receiver.origin + pathOf(1)], 2)
    const { stop } = await startNode(base.options)
    await arrived
    const stopped = stop()
    release()
    await stopped
    expect([await pending(base.sql), receiver.told.length]).toEqual([1, 1])
    expect(await base.sql`select from webhooks where busy_until is not null`).toEqual([])
  })

  it("whose sender's lease is over is the next sender's: the first one neither marks it nor frees the webhook", async () => {
    const base = await database()
    const [webhookId] = await prepare(base, ["http://127.0.0.1:1/hook"], 1)
    const claim = () => claimDeliveries([webhookId!], 60_000)
    const found = await Effect.runPromise(Effect.gen(function*() {
      const [first] = yield* claim()
      const whileLeased = yield* claim()
      yield* Effect.promise(() => endLeases(base.sql))
      const [second] = yield* claim()
      yield* settleDelivery(first!, { status: 200, error: undefined, retryMs: undefined })
      return { attempts: [first!.attempts, second!.attempts], others: [...whileLeased, ...yield* claim()] }
    }).pipe(Effect.provide(Postgres.layer(base.options))))
    expect(found).toEqual({ attempts: [1, 2], others: [] })
    expect(await pending(base.sql)).toBe(1)
  })

  it("that became visible behind a younger one waits until that has ended", async () => {
    const base = await database()
    const { take, arrived, release } = holdAnswer()
    const receiver = await receiverThat(take)
    const [webhookId] = await prepare(base, [receiver.origin + pathOf(1)], 1)
    await startNode(base.options)
    await arrived
    const older = "00000000-0000-7000-8000-000000000000"
    await base.sql`insert into deliveries (id, webhook_id, event, facts, created_at, next_attempt_at) select ${older}, webhook_id, event, facts, created_at, now() from deliveries`
    const other = await startNode(base.options)
    other.webhooks.wake([{ id: older, webhookId: webhookId!, event: "reputation.updated", facts: {}, atMs: 0 }])
    // The other node's look has come and gone when it stops.
    await other.stop()
    expect(receiver.told.length).toBe(1)
    release()
    await until(async () => await pending(base.sql) === 0)
    expect(receiver.told.map(({ json }) => json.id)[1]).toBe(older)
    expect(receiver.atOnceMax).toBe(1)
  })

  it("is given up when 10,000 younger ones wait behind it, unless it is under way", { timeout: 60_000 }, async () => {
    const base = await database()
    const { take, arrived, release } = holdAnswer()
    const receiver = await receiverThat(take)
    const [webhookId] = await prepare(base, [receiver.origin + pathOf(1)], 10_040, "now() - interval '1 hour'")
    const ids = await idsOf(base.sql, webhookId!)
    await startNode(base.options)
    await arrived
    const failed = async () => (await base.sql<Array<{ id: string }>>`select id from deliveries where failed_at is not null and last_error = 'backlog' order by id`).map(({ id }) => id)
    await until(async () => (await failed()).length > 0)
    // The first look gives 40 up; the oldest may be under way by then.
    const underWay = receiver.told[0]!.json.id
    expect(await failed()).toEqual(underWay === ids[0] ? ids.slice(1, 40) : ids.slice(0, 40))
    expect([ids[0], ids[40]]).toContain(underWay)
    release()
  })
})

describe("an attempt", () => {
  const message = (url: string) => ({ url, trusted: true, headers: { "Content-Type": "application/json" }, body: Buffer.from("{}") })
  const courierOf = (timeoutMs: number, address?: string): Courier => {
    const guard = makeUpstreamGuard({ upstreamAllow: address === undefined ? ["127.0.0.1"] : [], upstreamAllowOwners: undefined }, (_host, _system, done) => done(null, [{ address: address ?? "127.0.0.1", family: 4 }]))
    const courier = new Courier(guard, timeoutMs)
    stage.onEnd(() => courier.close())
    return courier
  }
  const whyOf = async (courier: Courier, url: string): Promise<unknown> => {
    const exit = await Effect.runPromiseExit(Effect.flip(courier.send(message(url))))
    return Exit.isSuccess(exit) ? exit.value.why : exit
  }

  it("ends in its time when no answer comes", async () => {
    const receiver = await receiverThat(() => "hang")
    expect(await whyOf(courierOf(50), `${receiver.origin}/x`)).toBe("no answer in time")
  })

  it("says why no answer came", async () => {
    const receiver = await receiverThat(() => "reset")
    expect(await whyOf(courierOf(10_000), `${receiver.origin}/x`)).toBe("ECONNRESET")
    expect(await whyOf(courierOf(10_000), `${receiver.origin.replace("http", "https")}/x`)).toMatch(/^E/)
    expect(await whyOf(courierOf(10_000), "http://127.0.0.1:1/x")).toBe("ECONNREFUSED")
  })

  it("never connects to an address of the inside, whatever name leads there", async () => {
    const receiver = await receiverThat()
    const { port } = new URL(receiver.origin)
    for (const address of ["127.0.0.1", "10.0.0.1", "169.254.169.254"]) expect(await whyOf(courierOf(10_000, address), `http://looks-public.test:${port}/x`)).toBe("the address is not public")
    expect(await whyOf(courierOf(10_000, "127.0.0.1"), `http://127.0.0.1:${port}/x`)).toBe("the address is not public")
    expect(receiver.told).toEqual([])
  })

  it("uses the connection of the one before it, and another one when that is gone", async () => {
    const receiver = await receiverThat()
    const courier = courierOf(10_000)
    const ports: Array<unknown> = []
    receiver.take = (_, nth) => nth === 3 ? "reset" : 200
    for (let n = 0; n < 3; n++) ports.push(await Effect.runPromise(courier.send(message(`${receiver.origin}/x`))))
    expect(ports).toEqual([200, 200, 200])
    // The third was cut on the kept connection, and sent again at once.
    expect(receiver.told.length).toBe(4)
  })
})
