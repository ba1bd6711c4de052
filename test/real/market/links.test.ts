/**
 * Two accounts become one: whoever is logged in to autx shows a key of acf. The
 * money of both is one balance, exactly; the keys, services and history of both
 * go on; and whatever was under way is neither lost nor doubled.
 */
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest"
import { type Owner, adminSecret, credit, owner, service } from "../../support/acf.ts"
import { type Person, type Reply, type World, makeWorld } from "../../support/World.ts"

let world: World
beforeAll(async () => { world = await makeWorld({ settings: { acfSettlement: "prepaid", acfAdminSecret: adminSecret, proxyBilling: "paid" } }) })
afterAll(async () => {
  await expectCleanBooks()
  await world.stop()
})

const expectCleanBooks = async (): Promise<void> => expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])

let addresses = 0
const link = ({ accessToken }: Person, key: string, body: object = {}): Promise<Reply> => {
  const headers = { "x-forwarded-for": `198.51.100.${++addresses % 250}` }
  return world.call("POST", "/v1/account/links", { token: accessToken, headers, body: { dialect: "acf", key, ...body } })
}
const balanceOf = async (person: Person): Promise<string> => (await world.call("GET", "/v1/credits/balance", { token: person.accessToken })).json.balance_usd
const call = (by: Owner, { id }: { readonly id: string }, headers?: Readonly<Record<string, string>>): Promise<Reply> => by.call("POST", `/api/v1/proxy/${id}`, { text: "x" }, headers)
const statuses = (replies: ReadonlyArray<Reply>): ReadonlyArray<number> => replies.map(({ status }) => status)
const provider = (): Promise<Owner> => owner(world, { role: "provider" })
const spentBy = async (by: Owner): Promise<{ total_calls: number; total_spent_usd: string; buyer_id: string }> => (await by.call("GET", "/api/v1/usage/me")).json
const dollars = (micros: bigint | number): string => (Number(micros) / 1e6).toFixed(2)

describe("linking", () => {
  it("makes both balances one, with what each has earned, and both credentials good for it at once", async () => {
    const [mine, person, buyer] = await Promise.all([provider(), world.user(), owner(world)])
    const [sold, agent] = await Promise.all([service(world, mine, { price: "0.05" }), world.agent({ price: "0.50", owner: person })])
    await Promise.all([credit(world, mine, "3.000001"), person.fund("2"), credit(world, buyer, "10")])
    // Earned and not looked at since: 0.05 by the service, 0.36 by the agent.
    expect(statuses([await call(buyer, sold), await call(buyer, agent)])).toEqual([200, 200])
    const linked = await link(person, mine.token)
    expect([linked.status, linked.json]).toEqual([201, { dialect: "acf", owner_id: mine.name, balance_usd: "5.410001" }])
    expect(await balanceOf(person)).toBe("5.410001")
    expect((await mine.call("GET", `/api/v1/balance/${mine.name}`)).json).toEqual({ buyer_id: mine.name, balance: 5.410001, total_deposited: 5.000001, total_spent: 0 })
    // Either credential spends it, and what either earns from now on is in it.
    const other = await service(world, await provider(), { price: "5.40" })
    expect((await call(mine, other)).status).toBe(200)
    expect(await balanceOf(person)).toBe("0.010001")
    expect((await call(mine, other)).status).toBe(402)
    expect(statuses([await call(buyer, sold), await call(buyer, agent)])).toEqual([200, 200])
    expect((await link(person, mine.token)).json.balance_usd).toBe("0.420001")
    await expectCleanBooks()
  })

  it("keeps services, further keys and history, and changes nothing the second time", async () => {
    const [mine, person, admin] = await Promise.all([provider(), world.user(), owner(world, { role: "admin" })])
    const [second, sold, elsewhere] = await Promise.all([owner(world, { name: mine.name }), service(world, mine), provider().then((by) => service(world, by, { price: "0.01", freeTierCalls: 2 }))])
    const agent = await world.agent({ price: "0.01" })
    await Promise.all([credit(world, mine, "1"), person.fund("1")])
    expect(statuses([await call(mine, elsewhere), await world.call("POST", `/v1/proxy/${agent.ticker}`, { token: person.accessToken, body: {} })])).toEqual([200, 200])
    expect(statuses(await Promise.all([link(person, mine.token), link(person, second.token), link(person, mine.token)]))).toEqual([201, 201, 201])
    for (const key of [mine.token, second.token]) expect((await link(person, key)).json).toMatchObject({ owner_id: mine.name, balance_usd: "1.99" })
    const [merges] = await world.sql`select count(*)::int as count from audit_log where action = 'account.link' and account_id = ${person.accountId}`
    expect(merges).toEqual({ count: 1 })

    expect((await second.call("PATCH", `/api/v1/services/${sold.id}`, { name: "still mine" })).status).toBe(403) // a buyer's key
    expect((await mine.call("PATCH", `/api/v1/services/${sold.id}`, { name: "still mine" })).json).toMatchObject({ provider_id: mine.name, name: "still mine" })
    expect(await spentBy(mine)).toMatchObject({ buyer_id: mine.name, total_calls: 2, total_spent_usd: "0.01" })
    // One free call was made before, as the owner that was: there is one left of two.
    const free = [await call(mine, elsewhere), await call(second, elsewhere)]
    expect(free.map(({ headers }) => headers.get("x-acf-free-tier"))).toEqual(["true", "false"])
    expect(await spentBy(second)).toMatchObject({ total_calls: 4, total_spent_usd: "0.02" })
    const more = await admin.call("POST", "/api/v1/keys", { owner_id: mine.name })
    expect(more.status).toBe(201)
    expect((await world.call("GET", "/acf/api/v1/usage/me", { token: `${more.json.key_id}:${more.json.secret}` })).json).toMatchObject({ total_calls: 4 })
  })

  it("is refused with 409 when either is linked with somebody else already, and nothing moves", async () => {
    const [mine, other, person, rival] = await Promise.all([owner(world), owner(world), world.user(), world.user()])
    await Promise.all([credit(world, mine, "1"), credit(world, other, "2")])
    expect((await link(person, mine.token)).status).toBe(201)
    expect(statuses([await link(rival, mine.token), await link(person, other.token)])).toEqual([409, 409])
    expect([await balanceOf(person), await balanceOf(rival)]).toEqual(["1.00", "0.00"])
    expect((await link(rival, other.token)).json).toMatchObject({ balance_usd: "2.00" })
  })

  it("takes a good key of acf: 401 for any other, and 429 for the sixth in a minute; 422 for another product", async () => {
    const [mine, person] = await Promise.all([owner(world), world.user()])
    const headers = { "x-forwarded-for": "192.0.2.9" }
    const guess = (key: string) => world.call("POST", "/v1/account/links", { token: person.accessToken, headers, body: { dialect: "acf", key } })
    const autxKey = (await person.key()).key
    expect(statuses([await guess("acf_0123456789abcdef:sec_x"), await guess(`${mine.token}x`), await guess(autxKey), await guess(person.accessToken), await guess("")])).toEqual([401, 401, 401, 401, expect.toSatisfy((status) => status === 401 || status === 422)])
    while ((await guess("acf_0123456789abcdef:sec_y")).status === 401) continue
    const refused = await guess(mine.token)
    expect([refused.status, Number(refused.headers.get("retry-after")) >= 1]).toEqual([429, true])
    expect(statuses([await link(person, mine.token, { dialect: "autx" }), await link(person, mine.token, { dialect: "nothing" })])).toEqual([422, 422])
    // Who may link is who is logged in: a key of either product is not that.
    expect((await world.call("POST", "/v1/account/links", { token: autxKey, body: { dialect: "acf", key: mine.token } })).status).toBe(403)
    expect((await world.call("POST", "/v1/account/links", { token: mine.token, body: { dialect: "acf", key: mine.token } })).status).toBe(401)
    expect((await link(person, mine.token)).status).toBe(201)
  })

  it("is refused while either account is suspended", async () => {
    const [mine, person] = await Promise.all([owner(world), world.user()])
    await world.alter(mine, (sql) => sql`update accounts set status = 'suspended' where id = ${mine.accountId}`)
    expect((await link(person, mine.token)).status).toBe(403)
    await world.alter(mine, (sql) => sql`update accounts set status = 'active' where id = ${mine.accountId}`)
    expect((await link(person, mine.token)).status).toBe(201)
  })
})

describe("links that are made at once", () => {
  const balances = (people: ReadonlyArray<Person>): Promise<ReadonlyArray<string>> => Promise.all(people.map(balanceOf))

  it("of one owner with several people: one of them wins, and has it all", async () => {
    const [mine, ...people] = await Promise.all([owner(world), world.user(), world.user(), world.user(), world.user()])
    await credit(world, mine, "4")
    const replies = await Promise.all(people.map((person) => link(person, mine.token)))
    expect([...statuses(replies)].sort()).toEqual([201, 409, 409, 409])
    expect([...await balances(people)].sort()).toEqual(["0.00", "0.00", "0.00", "4.00"])
  })

  it("of several owners with one person: one of them wins, and the others keep what is theirs", async () => {
    const [person, ...owners] = await Promise.all([world.user(), owner(world), owner(world), owner(world), owner(world)])
    await Promise.all(owners.map((each) => credit(world, each, "1")))
    const replies = await Promise.all(owners.map(({ token }) => link(person, token)))
    expect([...statuses(replies)].sort()).toEqual([201, 409, 409, 409])
    expect(await balanceOf(person)).toBe("1.00")
    const left = await Promise.all(owners.map((each) => each.call("GET", `/api/v1/balance/${each.name}`)))
    expect(left.map(({ json }) => json.balance)).toEqual([1, 1, 1, 1])
  })
})

describe("calls that are under way while their accounts become one", () => {
  it("are charged once or not at all, and told so, whether their buyer or their provider is merged", async () => {
    const [mine, person, seller] = await Promise.all([provider(), world.user(), provider()])
    const slow = () => new Promise<object>((done) => setImmediate(() => setImmediate(done, {})))
    const [sold, bought, agent] = await Promise.all([
      service(world, mine, { price: "0.01", respond: slow }), service(world, seller, { price: "0.02", freeTierCalls: 5, respond: slow }), world.agent({ price: "0.03", respond: slow })
    ])
    const buyers = await Promise.all([owner(world), owner(world)])
    await Promise.all([credit(world, mine, "5"), person.fund("5"), ...buyers.map((buyer) => credit(world, buyer, "5"))])
    const mineTo = { "0": bought, "1": agent }
    let done = 0
    let linking: Promise<Reply> | undefined
    const replies = await Promise.all(Array.from({ length: 150 }, async (_, n) => {
      const reply = n % 3 === 0 ? await call(buyers[n % 2]!, sold)
        : n % 3 === 1 ? await call(mine, mineTo[n % 2 === 0 ? "0" : "1"])
        : await world.call("POST", `/v1/proxy/${n % 2 === 0 ? bought.id : agent.id}`, { token: person.accessToken, body: {} })
      if (++done === 20) linking = link(person, mine.token)
      return reply
    }))
    expect((await linking!).status).toBe(201)
    const charged = (reply: Reply): bigint => BigInt(Math.round(Number(reply.headers.get("x-acf-amount") ?? reply.headers.get("x-autx-cost-usd") ?? 0) * 1e6))
    const told = (of: (n: number) => boolean): bigint => replies.reduce((sum, reply, n) => of(n) && reply.status === 200 ? sum + charged(reply) : sum, 0n)
    for (const { status } of replies) expect([200, 503]).toContain(status)
    const spent = told((n) => n % 3 !== 0)
    const earned = told((n) => n % 3 === 0)
    // A link looks at what was earned in the last second, too.
    expect((await link(person, mine.token)).json.balance_usd).toBe(dollars(10_000_000n - spent + earned))
    expect(await spentBy(mine)).toMatchObject({ total_spent_usd: dollars(spent) })
    await expectCleanBooks()
  })

  it("with an idempotency key are the same call after it: the answer is repeated, and nothing is charged again", async () => {
    const [mine, person, seller] = await Promise.all([provider(), world.user(), provider()])
    const [bought] = await Promise.all([service(world, seller, { price: "0.02" }), credit(world, mine, "1")])
    const key = { "idempotency-key": randomUUID() }
    const made = await mine.call("POST", "/api/v1/services", { name: "Made once", description: "By its key", endpoint: world.endpoint(), price_per_call: "0.01", category: "ai" }, { "idempotency-key": randomUUID() })
    const first = await call(mine, bought, key)
    expect([made.status, first.status, (await link(person, mine.token)).status]).toEqual([201, 200, 201])
    const again = await call(mine, bought, key)
    expect([again.status, again.headers.get("idempotent-replayed"), again.headers.get("x-acf-usage-id")]).toEqual([200, "true", first.headers.get("x-acf-usage-id")])
    expect(bought.asked).toHaveLength(1)
    expect(await balanceOf(person)).toBe("0.98")
    await expectCleanBooks()
  })

  /** Links, and holds the link's commit back until `meanwhile` is over. */
  const linkAround = async (person: Person, mine: Owner, meanwhile: () => Promise<void>): Promise<Reply> => {
    await world.sql.unsafe("create function wait_at_commit() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock(8); return null; end $$")
    await world.sql.unsafe(`create constraint trigger wait_at_commit after update of merged_into on accounts deferrable initially deferred for each row when (new.id = '${mine.accountId}') execute function wait_at_commit()`)
    let linking!: Promise<Reply>
    await world.sql.begin(async (sql) => {
      await sql`select pg_advisory_xact_lock(8)`
      linking = link(person, mine.token)
      await waitFor("'tollgate'")
      await meanwhile()
    })
    const linked = await linking
    await vi.waitFor(async () => expect(await world.sql`select from accounts where merged_into = ${person.accountId}`).toHaveLength(1), { timeout: 10_000, interval: 10 })
    await world.sql`drop function wait_at_commit cascade`
    return linked
  }
  /** Until a statement of these connections waits for a lock. */
  const waitFor = (connections: string): Promise<void> => vi.waitFor(async () => expect(await world.sql.unsafe(
    `select from pg_stat_activity where datname = current_database() and application_name = ${connections} and wait_event_type = 'Lock'`
  )).toHaveLength(1), { timeout: 10_000, interval: 10 })

  it("a link whose answer from the database is lost is made, and may be made again", async () => {
    const [mine, person] = await Promise.all([owner(world), world.user()])
    await Promise.all([credit(world, mine, "1"), person.fund("1")])
    const linked = await linkAround(person, mine, async () => {
      world.store.sever()
      setImmediate(world.store.restore)
    })
    expect([201, 503]).toContain(linked.status)
    let again = await link(person, mine.token)
    while (again.status === 503) again = await link(person, mine.token)
    expect([again.status, again.json.balance_usd]).toEqual([201, "2.00"])
    expect((await mine.call("GET", `/api/v1/balance/${mine.name}`)).json).toMatchObject({ balance: 2 })
    await expectCleanBooks()
  })

  it("what is decided on the account that goes, and not written yet, is refused and leaves nothing on it", async () => {
    const [mine, person] = await Promise.all([owner(world), world.user()])
    await mine.call("GET", "/api/v1/usage/me")
    let making!: Promise<Reply>
    const linked = await linkAround(person, mine, async () => {
      making = mine.call("POST", "/api/v1/keys", { owner_id: mine.name })
      await waitFor("'tollgate-committer'")
    })
    expect([linked.status, (await making).status]).toEqual([201, 503])
    expect(await world.sql`select from api_keys where account_id = ${mine.accountId}`).toHaveLength(0)
    expect((await mine.call("POST", "/api/v1/keys", { owner_id: mine.name })).status).toBe(201)
    await expectCleanBooks()
  })

  it("the first calls after a link work, and late news of it make no account that was activated since activate again", async () => {
    const bought = await service(world, await provider(), { price: "0.01" })
    const [mine, person, other] = await Promise.all([owner(world), world.user(), owner(world)])
    await Promise.all([credit(world, mine, "1"), person.fund("1"), credit(world, other, "1")])
    expect((await link(person, mine.token)).status).toBe(201)
    const { accessToken: token } = person
    const first = [call(mine, bought), world.call("POST", `/v1/proxy/${bought.id}`, { token, body: {} }), call(mine, bought), world.call("POST", `/v1/proxy/${bought.id}`, { token, body: {} })]
    expect(statuses(await Promise.all(first))).toEqual([200, 200, 200, 200])
    expect(await balanceOf(person)).toBe("1.96")

    const activations = async (): Promise<number> => Number(/^tollgate_activations_total (\d+)$/m.exec((await world.call("GET", "/metrics")).text)![1])
    expect((await call(other, bought)).status).toBe(200)
    const before = await activations()
    const [{ token: latest }] = await world.sql<[{ token: bigint }]>`select token from accounts where id = ${person.accountId}`
    await world.sql`select pg_notify('tollgate_changed', ${`account:${person.accountId}:${latest - 1n}`})`
    // News come in order: this account must be activated again, so the one before has been heard.
    await world.sql`select pg_notify('tollgate_changed', ${`account:${other.accountId}`})`
    await vi.waitFor(async () => {
      await call(other, bought)
      expect(await activations()).toBe(before + 1)
    }, { timeout: 10_000, interval: 10 })
    expect((await call(mine, bought)).status).toBe(200)
    expect(await activations()).toBe(before + 1)
  })
})

it("the audit finds what a merged account must not have", async () => {
  const [mine, person] = await Promise.all([provider(), world.user()])
  const sold = await service(world, mine)
  expect((await link(person, mine.token)).status).toBe(201)
  const [from, into] = [mine.accountId, person.accountId]
  const broken = [
    (to: string) => world.sql`update agents set owner_id = ${to} where id = ${sold.id}`,
    (to: string) => world.sql`update owners set account_id = ${to} where name = ${mine.name}`,
    (to: string) => world.sql`update api_keys set account_id = ${to} where key_prefix = ${mine.keyId}`
  ]
  for (const give of broken) {
    await give(from)
    const found = (await world.audit()).filter(({ ok }) => !ok)
    await give(into)
    expect(found.map(({ name }) => name)).toContain("an account that was merged into another has no keys, agents, subscriptions or name left")
  }
  await expect(world.sql`update accounts set available = 1 where id = ${mine.accountId}`).rejects.toThrow("accounts_merged_is_empty")
})
