/** The operators' commands, as processes, beside a gateway that runs: it knows what they did a moment later, and the books stay right. */
import { execFile } from "node:child_process"
import { randomUUID } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest"
import { startEmbedded } from "../../src/store/Embedded.ts"
import { findSuspendable, suspend } from "../../src/store/OperatorStore.ts"
import { type Person, type World, makeWorld } from "../support/World.ts"
import { type TestDatabase, freshDatabase } from "../support/postgres.ts"

interface Ended { readonly code: number; readonly out: string; readonly err: string }

const run = (env: Readonly<Record<string, string>>, ...args: ReadonlyArray<string>): Promise<Ended> => new Promise((done) => {
  const { DATABASE_URL: _, DATA_DIR: __, ...inherited } = process.env
  execFile(process.execPath, ["scripts/run.mjs", ...args], { env: { ...inherited, ...env } }, (error, out, err) =>
    done({ code: error === null ? 0 : Number(error.code), out, err }))
})

/** What is told a moment later, on another connection than the one that changed it. */
const soon = (check: () => Promise<void>): Promise<void> => vi.waitFor(check, { timeout: 10_000, interval: 10 })

describe("beside a gateway", () => {
  let world: World
  let command: (...args: ReadonlyArray<string>) => Promise<Ended>

  beforeAll(async () => {
    world = await makeWorld({ settings: { proxyBilling: "paid" } })
    const { host, port, user, database } = world.store.options
    const env = { DATABASE_URL: `postgres:///${database}`, PGHOST: host, PGPORT: String(port), PGUSER: user }
    command = (...args) => run(env, ...args)
  })
  afterAll(() => world.stop())

  const expectCleanBooks = async (): Promise<void> => expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])
  const balanceOf = async (person: Person): Promise<string> => (await world.call("GET", "/v1/credits/balance", { token: person.accessToken })).json.balance_usd
  const statusOf = async (token: string, path = "/v1/credits/balance", method = "GET"): Promise<number> => (await world.call(method, path, { token })).status
  const listed = async (): Promise<ReadonlyArray<string>> => (await world.call("GET", "/v1/agents/?limit=100")).json.map((agent: { ticker: string }) => agent.ticker)

  const suspendAgent = async (name: string, suspended: boolean): Promise<void> => {
    const found = (await findSuspendable(world.sql, name))!
    expect(await suspend(world.sql, found, suspended, { auditId: randomUUID(), atMs: Date.now() })).toBe(true)
  }

  describe("npm run credit", () => {
    it("adds to a balance that the gateway has in memory, and says so in the account's own records", async () => {
      const person = await world.user()
      await person.fund("1.00")
      const { code, out, err } = await command("credit", person.email.toUpperCase(), "5.250001", "refund", "of June")
      expect([code, err]).toEqual([0, ""])
      expect(out).toMatch(new RegExp(`^credited \\$5\\.250001: ${person.email} has \\$6\\.250001 available \\(transaction [0-9a-f-]{36}\\)\n$`))
      await soon(async () => expect(await balanceOf(person)).toBe("6.250001"))
      const transactions = (await world.call("GET", "/v1/credits/transactions", { token: person.accessToken })).json
      expect(transactions[0]).toMatchObject({ type: "deposit", amount_usd: "5.250001" })
      const [row] = await world.sql`select type, balance_after, reference from transactions where id = ${transactions[0].id}`
      expect(row).toEqual({ type: "adjustment", balance_after: 6_250_001n, reference: "refund of June" })
      const [entry] = (await world.call("GET", "/v1/audit", { token: person.accessToken })).json
      expect(entry).toMatchObject({ actor: "operator", action: "account.credit", details: { amount_usd: "5.250001", reason: "refund of June", transaction_id: transactions[0].id } })
      await expectCleanBooks()
    })

    it("takes back what is there, to the last unit, and never more", async () => {
      const person = await world.user()
      await person.fund("1.00")
      expect(await command("credit", person.email, "-1.000001", "a mistake")).toEqual({
        code: 1, out: "", err: `credit: ${person.email} has $1.00 available, so $1.000001 can't be taken back; nothing was done\n`
      })
      expect(await balanceOf(person)).toBe("1.00")
      expect((await command("credit", person.email, "-1", "a mistake")).out).toContain(`took back $1.00: ${person.email} has $0.00 available`)
      await soon(async () => expect(await balanceOf(person)).toBe("0.00"))
      await expectCleanBooks()
    })

    it("neither loses nor doubles a charge of the calls that run meanwhile", async () => {
      const person = await world.user()
      await person.fund("20.00")
      const { key } = await person.key("proxy")
      const agent = await world.agent({ price: "0.01" })
      let paid = 0
      let running = true
      const calling = Promise.all(Array.from({ length: 8 }, async () => {
        while (running) {
          const { status } = await world.call("POST", `/v1/proxy/${agent.ticker}`, { token: key, body: "hi" })
          expect([200, 503]).toContain(status)
          if (status === 200) paid++
        }
      }))
      for (const usd of ["1.00", "-0.50", "2.00", "-0.25"]) expect((await command("credit", person.email, usd, "while calls run")).code).toBe(0)
      running = false
      await calling
      expect(paid).toBeGreaterThan(0)
      const microUsd = BigInt(22_250_000 - 10_000 * paid)
      await soon(async () => expect(await world.sql`select available from accounts where id = ${person.accountId}`).toEqual([{ available: microUsd }]))
      expect(Number(await balanceOf(person))).toBe(Number(microUsd) / 1_000_000)
      await expectCleanBooks()
    })

    it("says what to look for when the answer to its commit is lost", async () => {
      const person = await world.user()
      const cut = world.store.arm("beforeAnswer", "commit\0")
      const { code, err } = await command("credit", person.email, "3", "answered late")
      await cut
      expect(code).toBe(1)
      const [, id] = /^credit: the connection was lost before the answer came .* transaction ([0-9a-f-]{36})\n$/.exec(err)!
      expect(await world.sql`select available from transactions where id = ${id!}`).toEqual([{ available: 3_000_000n }])
      await soon(async () => expect(await balanceOf(person)).toBe("3.00"))
      await expectCleanBooks()
    })

    it("refuses what it can't read in one line, and does nothing", async () => {
      const person = await world.user()
      const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
        [[], /^credit: usage: npm run credit -- <email> <usd> <reason>[^\n]*\n$/],
        [[person.email, "5"], /^credit: usage: /],
        [[person.email, "5", " "], /^credit: usage: /],
        [["nobody", "5", "why"], /^credit: "nobody" is not an email address; usage: [^\n]*\n$/],
        [[person.email, "0", "why"], /^credit: "0" is not an amount in dollars with at most 6 decimals, other than 0; usage: [^\n]*\n$/],
        [[person.email, "--5", "why"], /^credit: "--5" is not an amount/],
        [[person.email, "1e3", "why"], /^credit: "1e3" is not an amount/],
        [[person.email, "5", "two\nlines"], /^credit: the reason must be one line of at most 200 characters\n$/],
        [["nobody@example.com", "5", "why"], /^credit: nobody is registered as nobody@example\.com\n$/]
      ]
      for (const [args, line] of wrong) {
        const { code, out, err } = await command("credit", ...args)
        expect([code, out]).toEqual([1, ""])
        expect(err).toMatch(line)
      }
      expect(await world.sql`select from transactions where account_id = ${person.accountId}`).toEqual([])
    })
  })

  describe("npm run suspend", () => {
    it("has every call of an account refused, by key and by login, until it is lifted", async () => {
      const person = await world.user()
      const { key } = await person.key()
      expect([await statusOf(key), await statusOf(person.accessToken)]).toEqual([200, 200])
      expect(await command("suspend", person.email)).toEqual({ code: 0, out: `account ${person.accountId} (${person.email}) is suspended: its calls are refused\n`, err: "" })
      await soon(async () => expect([await statusOf(key), await statusOf(person.accessToken)]).toEqual([403, 403]))
      const login = await world.call("POST", "/v1/auth/login", { body: { email: person.email, password: person.password } })
      expect(await statusOf(login.json.access_token)).toBe(403)
      expect((await command("suspend", person.accountId)).out).toContain("was suspended already")
      expect((await command("suspend", "--lift", person.accountId)).out).toContain("is no longer suspended")
      await soon(async () => expect([await statusOf(key), await statusOf(person.accessToken)]).toEqual([200, 200]))
      expect((await command("suspend", person.email, "--lift")).out).toContain("was not suspended")
      const entries: ReadonlyArray<{ action: string }> = (await world.call("GET", "/v1/audit", { token: person.accessToken })).json
      expect(entries.map(({ action }) => action).filter((action) => action.startsWith("account."))).toEqual(["account.reinstate", "account.suspend"])
    })

    it("pauses an agent for everybody and hides it, until it is lifted, while its owner may still call others", async () => {
      const agent = await world.agent()
      const { key } = await (await world.user()).key()
      const call = () => statusOf(key, `/v1/proxy/${agent.ticker}`, "POST")
      expect([await call(), await listed()]).toEqual([200, expect.arrayContaining([agent.ticker])])
      expect((await command("suspend", agent.ticker.toLowerCase())).out).toBe(`agent ${agent.id} (${agent.ticker}) is suspended: calls to it are refused, and lists hide it\n`)
      await soon(async () => expect(await call()).toBe(503))
      expect(await listed()).not.toContain(agent.ticker)
      expect((await world.call("PATCH", `/v1/agents/${agent.id}`, { token: agent.owner.accessToken, body: { name: "Still here" } })).status).toBe(404)
      expect(await statusOf(agent.owner.accessToken)).toBe(200)
      expect((await command("suspend", agent.id, "--lift")).out).toContain("is no longer suspended")
      await soon(async () => expect(await call()).toBe(200))
      expect(await world.sql`select version from agents where id = ${agent.id}`).toEqual([{ version: 3n }])
      const entries: ReadonlyArray<{ action: string; target: string }> = (await world.call("GET", "/v1/audit", { token: agent.owner.accessToken })).json
      expect(entries.filter(({ target }) => target === agent.id).map(({ action }) => action)).toEqual(["agent.reinstate", "agent.suspend", "agent.create"])
    })

    it("is neither undone by a change of the agent's owner that is on its way, nor lets that be told as done", async () => {
      const agent = await world.agent()
      const { key } = await (await world.user()).key()
      const call = () => statusOf(key, `/v1/proxy/${agent.ticker}`, "POST")
      expect(await call()).toBe(200)
      const locker = await world.sql.reserve()
      const waiting = (name: string) => soon(async () => {
        await locker`select pg_stat_clear_snapshot()`
        expect(await locker`select from pg_stat_activity where datname = current_database() and application_name = ${name} and wait_event_type = 'Lock'`).toHaveLength(1)
      })
      await locker`begin`
      await locker`select from accounts where id = ${agent.owner.accountId} for update`
      const suspended = suspendAgent(agent.ticker, true)
      await waiting("tollgate-test")
      const patched = world.call("PATCH", `/v1/agents/${agent.id}`, { token: agent.owner.accessToken, body: { name: "Too late" } })
      await waiting("tollgate-committer")
      await locker`commit`
      locker.release()
      await suspended
      expect((await patched).status).toBe(503)
      await soon(async () => expect(await call()).toBe(503))
      expect(await world.sql`select suspended, version, name = 'Too late' as late from agents where id = ${agent.id}`).toEqual([{ suspended: true, version: 2n, late: false }])
    })

    it("refuses what it can't find or read in one line", async () => {
      expect(await command("suspend")).toMatchObject({ code: 1, out: "", err: expect.stringMatching(/^suspend: usage: [^\n]*\n$/) as string })
      expect(await command("suspend", "A", "B")).toMatchObject({ code: 1, err: expect.stringMatching(/^suspend: usage: /) as string })
      expect(await command("suspend", "--left", "A")).toMatchObject({ code: 1, err: expect.stringMatching(/^suspend: usage: /) as string })
      expect(await command("suspend", "NOBODY")).toMatchObject({ code: 1, out: "", err: expect.stringMatching(/^suspend: there is no account and no agent "NOBODY"; usage: [^\n]*\n$/) as string })
    })
  })

  describe("a gateway whose ear was cut off", () => {
    const listeners = () => world.sql<Array<{ pid: number }>>`select pid from pg_stat_activity where datname = current_database() and query ilike 'listen%'`

    it("learns what was changed after its listening connection was ended, and while there was none", async () => {
      const [agent, other] = [await world.agent(), await world.agent()]
      const { key } = await (await world.user()).key()
      const call = (ticker: string) => statusOf(key, `/v1/proxy/${ticker}`, "POST")
      expect([await call(agent.ticker), await call(other.ticker)]).toEqual([200, 200])
      const [listener, ...more] = await listeners()
      expect(more).toEqual([])
      await Promise.all([world.sql`select pg_terminate_backend(${listener!.pid})`, suspendAgent(agent.ticker, true)])
      await soon(async () => expect(await call(agent.ticker)).toBe(503))
      await soon(async () => expect((await listeners()).map(({ pid }) => pid)).not.toEqual([listener!.pid]))
      await suspendAgent(other.ticker, true)
      await soon(async () => expect(await call(other.ticker)).toBe(503))
    })

    it("learns what was changed during outages of the database that outlast many attempts to reach it", async () => {
      const agent = await world.agent()
      const { key } = await (await world.user()).key()
      const call = () => statusOf(key, `/v1/proxy/${agent.ticker}`, "POST")
      expect(await call()).toBe(200)
      for (let outage = 0; outage < 2; outage++) {
        world.store.sever()
        await suspendAgent(agent.ticker, outage === 0)
        for (let attempt = 0; attempt < 20; attempt++) expect(await statusOf(`autx_live_${randomUUID()}`)).toBe(503)
        world.store.restore()
        await soon(async () => expect(await call()).toBe(outage === 0 ? 503 : 200))
      }
    })
  })
})

describe("npm run migrate", () => {
  let folder: string
  let database: TestDatabase
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "tollgate-operators-"))
    database = await freshDatabase()
  })
  afterAll(async () => {
    rmSync(folder, { recursive: true, force: true })
    await database.drop()
  })

  it("makes the tables of an empty database once, also when two run at once, and other commands say that they are missing", async () => {
    expect(await run(database.env, "credit", "ada@example.com", "1", "too early")).toMatchObject({ code: 1, err: expect.stringMatching(/^credit: [^\n]*relation "accounts" does not exist\n$/) as string })
    const both = await Promise.all([run(database.env, "migrate"), run(database.env, "migrate")])
    expect(both.map(({ code, err }) => [code, err])).toEqual([[0, ""], [0, ""]])
    const lines = both.map(({ out }) => out).sort()
    expect(lines[0]).toMatch(/^applied 0001_kernel\.sql\napplied 0002_logins\.sql\n(applied .*\n)*migrate: \d+ applied\n$/)
    expect(lines[1]).toBe("migrate: everything was applied already\n")
    expect(await run(database.env, "migrate", "now")).toEqual({ code: 1, out: "", err: "migrate: usage: npm run migrate\n" })
  })

  it("finds the embedded server of the gateway that runs on DATA_DIR", async () => {
    expect(await run({ DATA_DIR: folder }, "migrate")).toEqual({ code: 1, out: "", err: `migrate: no gateway runs on ${folder}: start it, or set DATABASE_URL or DATA_DIR\n` })
    const server = await startEmbedded({ dataDir: join(folder, "postgres"), durable: false })
    try {
      expect(await run({ DATA_DIR: folder }, "migrate")).toMatchObject({ code: 0, out: expect.stringMatching(/migrate: \d+ applied\n$/) as string })
    } finally {
      await server.stop()
    }
  })
})
