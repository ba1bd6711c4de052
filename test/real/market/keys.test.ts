/**
 * Keys of the market: who gets one, what a wrong one learns, and how fast one
 * may call. Callers name their own address, as behind a proxy that is trusted.
 */
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Owner, owner, service } from "../../support/acf.ts"
import { type Reply, type World, makeWorld } from "../../support/World.ts"

let world: World
let admin: Owner
let provider: Owner
beforeAll(async () => {
  world = await makeWorld()
  ;[admin, provider] = await Promise.all([owner(world, { role: "admin" }), owner(world, { role: "provider" })])
})
afterAll(async () => {
  expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])
  await world.stop()
})

let addresses = 0
/** Of somebody who has not failed yet. */
const newAddress = (): string => `198.51.${Math.floor(++addresses / 250)}.${1 + addresses % 250}`
const from = (address: string) => ({ "x-forwarded-for": address })

const create = (body: object, token?: string, address = newAddress()): Promise<Reply> => world.call("POST", "/acf/api/v1/keys", { body, headers: from(address), token })
const validate = (token: string, address = newAddress()): Promise<Reply> => {
  const [key_id = "", secret = ""] = token.split(":")
  return world.call("POST", "/acf/api/v1/keys/validate", { body: { key_id, secret }, headers: from(address) })
}
const tokenOf = ({ json }: Reply): string => `${json.key_id}:${json.secret}`
const newName = (): string => `somebody-${randomUUID()}`
const unpredictable = (token: string): string => `${token.slice(0, -4)}${token.endsWith("AAAA") ? "BBBB" : "AAAA"}`
const accountsOf = async (name: string): Promise<number> => (await world.sql`select from owners where dialect = 'acf' and name = ${name}`).length
const statuses = (replies: ReadonlyArray<Reply>): ReadonlyArray<number> => replies.map(({ status }) => status)

describe("a first key", () => {
  it("is a buyer's for anybody, good at once, and as the contract words it", async () => {
    const owner_id = newName()
    const made = await create({ owner_id })
    expect([made.status, made.json]).toEqual([201, {
      key_id: expect.stringMatching(/^acf_[0-9a-f]{16}$/), secret: expect.stringMatching(/^sec_[\w-]{43}$/), role: "buyer", rate_limit: 60, message: expect.any(String)
    }])
    const valid = await validate(tokenOf(made))
    expect([valid.status, valid.json]).toEqual([200, { valid: true, owner_id, role: "buyer", rate_limit: 60 }])
    const [row] = await world.sql`select expires_at - created_at = interval '365 days' as is_a_year from api_keys where key_prefix = ${made.json.key_id}`
    expect(row).toEqual({ is_a_year: true })
  })

  it("is a provider's for whoever shows a good key, and an admin's for admins", async () => {
    const buyer = await owner(world)
    const replies = await Promise.all([
      create({ owner_id: newName(), role: "provider" }), create({ owner_id: newName(), role: "provider" }, unpredictable(buyer.token)), create({ owner_id: newName(), role: "provider" }, buyer.token),
      create({ owner_id: newName(), role: "admin" }), create({ owner_id: newName(), role: "admin" }, buyer.token), create({ owner_id: newName(), role: "admin" }, provider.token), create({ owner_id: newName(), role: "admin" }, admin.token)
    ])
    expect(statuses(replies)).toEqual([401, 401, 201, 401, 403, 403, 201])
  })

  it("is one, and of one account, when twenty come for a name at once", async () => {
    const owner_id = newName()
    const replies = await Promise.all(Array.from({ length: 20 }, () => create({ owner_id })))
    expect([...statuses(replies)].sort()).toEqual([201, ...Array<number>(19).fill(403)])
    expect(await accountsOf(owner_id)).toBe(1)
    const [row] = await world.sql`select count(*)::int as keys from api_keys k join owners o using (account_id) where o.name = ${owner_id}`
    expect(row).toEqual({ keys: 1 })
  })

  it("is nobody's for a name that is blank, looks like an account's id or is the operator's own, and leaves nothing behind", async () => {
    const before = await world.sql`select from accounts`
    const names = ["", "   ", "\t\n", randomUUID(), randomUUID().toUpperCase(), provider.accountId]
    expect(statuses(await Promise.all(names.map((owner_id) => create({ owner_id }))))).toEqual(names.map(() => 400))
    expect(statuses([await create({ owner_id: "admin" }), await create({ owner_id: "admin" }, provider.token), await create({ owner_id: "x".repeat(201) }), await create({}), await create({ owner_id: 7 })])).toEqual([403, 403, 422, 422, 422])
    expect(await world.sql`select from accounts`).toHaveLength(before.length)
  })

  it("has a limit from 1 to 300 and a role that exists, else nothing is made", async () => {
    const owner_id = newName()
    const wrong = [{ rate_limit: 0 }, { rate_limit: 301 }, { rate_limit: -1 }, { rate_limit: 1e9 }, { role: "root" }, { role: "Buyer" }, { role: "" }]
    expect(statuses(await Promise.all(wrong.map((fields) => create({ owner_id, ...fields }))))).toEqual(wrong.map(() => 400))
    const misfit = [{ rate_limit: 1.5 }, { rate_limit: "60" }, { rate_limit: null }, { role: 1 }]
    expect(statuses(await Promise.all(misfit.map((fields) => create({ owner_id, ...fields }))))).toEqual(misfit.map(() => 422))
    expect(await accountsOf(owner_id)).toBe(0)
    expect((await create({ owner_id, rate_limit: 300 })).json).toMatchObject({ rate_limit: 300 })
  })

  it("that was never written, because the gateway ended before it, keeps its name for a minute and not for ever", async () => {
    const establish = async (age: string): Promise<string> => {
      const [name, id] = [newName(), randomUUID()]
      await world.sql`insert into accounts (id, created_at) values (${id}, now())`
      await world.sql`insert into earnings (account_id) values (${id})`
      await world.sql`insert into owners (dialect, name, account_id, created_at) values ('acf', ${name}, ${id}, now() - ${age}::interval)`
      return name
    }
    const [fresh, old] = await Promise.all([establish("30 seconds"), establish("2 minutes")])
    expect((await create({ owner_id: fresh })).status).toBe(403)
    const replies = await Promise.all(Array.from({ length: 10 }, () => create({ owner_id: old })))
    expect([...statuses(replies)].sort()).toEqual([201, ...Array<number>(9).fill(403)])
    // One that had a key which is no good any more is still its owner's.
    await world.sql`update api_keys set status = 'revoked', revoked_at = now() where account_id in (select account_id from owners where name = ${old})`
    await world.sql`update owners set created_at = now() - interval '1 year' where name = ${old}`
    expect((await create({ owner_id: old })).status).toBe(403)
  })
})

describe("a further key of an owner", () => {
  it("takes a good key of that owner or an admin's, whatever its role", async () => {
    const [mine, other] = await Promise.all([owner(world), owner(world, { role: "provider" })])
    for (const role of ["buyer", "provider"]) {
      const body = { owner_id: mine.name, role }
      const replies = await Promise.all([create(body), create(body, other.token), create(body, unpredictable(mine.token)), create(body, "acf_0000000000000000:sec_x"), create(body, mine.token), create(body, admin.token)])
      expect(statuses(replies)).toEqual([403, 403, 401, 401, 201, 201])
      const owned = await Promise.all(replies.slice(4).map((reply) => validate(tokenOf(reply))))
      expect(owned.map(({ json }) => json)).toEqual([{ valid: true, owner_id: mine.name, role, rate_limit: 60 }, { valid: true, owner_id: mine.name, role, rate_limit: 60 }])
    }
    expect((await create({ owner_id: mine.name, role: "admin" }, mine.token)).status).toBe(403)
  })
})

describe("a key that is no good", () => {
  it("gets the same answer whether its id is wrong or its secret", async () => {
    const { token } = await owner(world)
    const [id, secret] = token.split(":") as [string, string]
    const wrong = [`acf_0123456789abcdef:${secret}`, `${id}:sec_${"A".repeat(43)}`, "acf_0123456789abcdef:sec_x", `${id}:`, `:${secret}`, `${id.toUpperCase()}:${secret}`]
    const replies = await Promise.all(wrong.map((each) => validate(each)))
    for (const { status, text, headers } of replies) expect([status, text, headers.get("www-authenticate")]).toEqual([401, replies[0]!.text, "Bearer"])
    expect(replies[0]!.json).toEqual({ detail: expect.any(String) })
  })

  it("may be tried five times a minute from an address, on validate and creation together; others and the market itself go on", async () => {
    const [address, other] = [newAddress(), newAddress()]
    const good = (await owner(world)).token
    const bad = unpredictable(good)
    expect((await validate(good, address)).status).toBe(200)
    expect(statuses([
      await validate(bad, address), await create({ owner_id: newName() }, bad, address), await validate(bad, address),
      await create({ owner_id: newName(), role: "provider" }, undefined, address), await create({ owner_id: provider.name }, undefined, address)
    ])).toEqual([401, 401, 401, 401, 403])
    for (const reply of [await validate(bad, address), await validate(good, address), await create({ owner_id: newName() }, undefined, address)]) {
      expect([reply.status, reply.json.detail]).toEqual([429, "Rate limit exceeded. Try again later."])
      const wait = Number(reply.headers.get("retry-after"))
      expect(wait >= 1 && wait <= 60).toBe(true)
    }
    expect(statuses([await validate(good, other), await create({ owner_id: newName() }, undefined, other)])).toEqual([200, 201])
    expect((await world.call("GET", "/acf/api/v1/usage/me", { token: good, headers: from(address) })).status).toBe(200)
  })

  it("does not stand in the way of good ones that come at the same time; what comes after five failures does not pass", async () => {
    const address = newAddress()
    const good = (await owner(world)).token
    const replies = await Promise.all(Array.from({ length: 30 }, (_, n) => validate(n % 5 === 0 ? `${good}${n}` : good, address)))
    expect(replies.filter(({ status }) => status === 200).length).toBe(24)
    expect((await validate(good, address)).status).toBe(429)
  })

  it("is one that has expired, or another product's", async () => {
    const [made, person] = [await create({ owner_id: newName() }), await world.user()]
    await world.sql`update api_keys set expires_at = now() - interval '1 second' where key_prefix = ${made.json.key_id}`
    const autxKey = (await person.key()).key
    const replies = [
      await world.call("GET", "/acf/api/v1/usage/me", { token: tokenOf(made) }), await validate(tokenOf(made)),
      await world.call("GET", "/acf/api/v1/usage/me", { token: autxKey }), await world.call("GET", "/acf/api/v1/usage/me", { token: person.accessToken }), await create({ owner_id: newName() }, autxKey),
      await world.call("GET", "/v1/credits/balance", { token: provider.token })
    ]
    expect(statuses(replies)).toEqual([401, 401, 401, 401, 401, 401])
    expect(replies[0]!.json.detail).toContain("expired")
    for (const reply of replies.slice(2, 5)) expect(reply.json.detail).toContain("another product")
  })
})

it("a secret is nowhere in the database, in no spelling", async () => {
  const made = await create({ owner_id: newName(), wallet_address: "0xabc" })
  await validate(tokenOf(made))
  const { secret } = made.json as { readonly secret: string }
  const tables = await world.sql<Array<{ name: string }>>`select table_name as name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'`
  expect(tables.length).toBeGreaterThan(20)
  for (const spelling of [secret, secret.slice(4), Buffer.from(secret).toString("hex"), Buffer.from(secret).toString("base64").slice(0, 40)]) {
    for (const { name } of tables) expect([name, (await world.sql`select from ${world.sql(name)} t where t::text like ${`%${spelling}%`}`).length]).toEqual([name, 0])
  }
  const [row] = await world.sql`select key_hash = sha256(${`${made.json.key_id}:${secret}`}::bytea) as is_hashed, wallet_address from api_keys where key_prefix = ${made.json.key_id}`
  expect(row).toEqual({ is_hashed: true, wallet_address: "0xabc" })
})

describe("the limit", () => {
  it("of a key counts its calls through the proxy and its looks at usage, nothing else, and no other key's", async () => {
    const [buyer, { id }] = await Promise.all([owner(world, { rateLimit: 3 }), service(world, provider)])
    const other = await owner(world, { name: buyer.name, rateLimit: 3 })
    for (const path of ["/api/v1/agents", "/api/v1/services", `/api/v1/balance/${buyer.name}`, "/api/v1/webhooks", "/api/v1/teams"]) expect((await buyer.call("GET", path)).status).toBe(200)
    expect(statuses([await buyer.call("GET", `/api/v1/proxy/${id}`), await buyer.call("GET", "/api/v1/usage/me"), await buyer.call("POST", `/api/v1/proxy/${id}/x`, {})])).toEqual([200, 200, 200])
    for (const path of [`/api/v1/proxy/${id}`, "/api/v1/usage/me"]) {
      const refused = await buyer.call("GET", path)
      expect([refused.status, refused.json]).toEqual([429, { detail: "Rate limit exceeded. Try again later." }])
      const wait = Number(refused.headers.get("retry-after"))
      expect(wait >= 1 && wait <= 61).toBe(true)
    }
    expect((await buyer.call("GET", `/api/v1/balance/${buyer.name}`)).status).toBe(200)
    expect((await other.call("GET", "/api/v1/usage/me")).json).toMatchObject({ total_calls: 2 })
  })

  it("of an address is a bucket that comes before everything else, on acf alone", async () => {
    const small = await makeWorld({ settings: { acfIpRate: 1, acfIpBurst: 4 } })
    try {
      const get = (path: string, address: string, token?: string): Promise<Reply> => small.call("GET", path, { headers: from(address), token })
      const [first, neighbour] = ["203.0.113.7", "203.0.113.8"]
      // A token a second comes back meanwhile, and is soon used up.
      const untilRefused = async (ask: () => Promise<Reply>): Promise<{ readonly passed: number; readonly refused: Reply }> => {
        for (let passed = 0;; passed++) {
          const reply = await ask()
          if (reply.status === 429) return { passed, refused: reply }
        }
      }
      expect((await untilRefused(() => get("/acf/health", first))).passed).toBeGreaterThanOrEqual(4)
      // Neither an unknown route nor a wrong key is looked at.
      for (const path of ["/acf/health", "/acf/api/v1/usage/me", "/acf/nowhere", "/acf/api/v1/services"]) {
        const { refused } = await untilRefused(() => get(path, first, "acf_x:sec_y"))
        expect([refused.json, refused.headers.get("retry-after")]).toEqual([{ detail: "Rate limit exceeded. Try again later." }, "1"])
      }
      expect((await get("/acf/health", neighbour)).status).toBe(200)
      expect((await get("/v1/agents/", first)).status).toBe(200)
      let host = 0
      // Each from another address of one network: nobody of it was there before.
      expect((await untilRefused(() => get("/acf/health", `2001:db8:1:2::${(++host).toString(16)}`))).passed).toBeGreaterThanOrEqual(4)
    } finally {
      await small.stop()
    }
  })
})
