/**
 * A gateway that is newer than its tables, and one that is older. Earlier
 * releases are this one's program with the migrations they had; their rows are
 * written by hand, in the shape of the first migration, which later ones must
 * carry along.
 */
import { execFile } from "node:child_process"
import { createHash, randomUUID } from "node:crypto"
import { appendFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { describe, expect, it } from "vitest"
import type { Sql } from "../../src/store/Postgres.ts"
import { GatewayProcess, until } from "../support/GatewayProcess.ts"
import { answers } from "../support/LoopbackAgent.ts"
import { booked, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage()

const files = readdirSync("src/store/migrations").filter((name) => name.endsWith(".sql")).toSorted()

interface Release {
  /** `npm run migrate` of it. */
  readonly migrate: (env: Readonly<Record<string, string>>) => Promise<{ readonly code: number; readonly out: string; readonly err: string }>
  /** The folder of its migrations, to be changed. */
  readonly migrations: string
}

/** Lies in the project, where its packages are found. */
const release = (names: ReadonlyArray<string>): Release => {
  mkdirSync(resolve(".cache"), { recursive: true })
  const folder = mkdtempSync(resolve(".cache/release-"))
  stage.onEnd(() => rmSync(folder, { recursive: true }))
  const migrations = join(folder, "migrations")
  cpSync("dist/migrate.js", join(folder, "migrate.js"))
  for (const name of names) cpSync(join("src/store/migrations", name), join(migrations, name))
  return {
    migrations,
    migrate: (env) => new Promise((done) => {
      execFile(process.execPath, [join(folder, "migrate.js")], { env: { PATH: process.env["PATH"], ...env } }, (error, out, err) =>
        done({ code: error === null ? 0 : Number(error.code), out, err }))
    })
  }
}

const key = "autx_live_of_an_earlier_release"

interface Rows { readonly buyer: string; readonly seller: string; readonly agent: string; readonly charge: string; readonly pending: string }

/** A buyer with a key, who paid a seller's agent once and has an order running. */
const writeRows = async (sql: Sql, endpointUrl: string): Promise<Rows> => {
  const [buyer, seller, agent, subject, deposit, charge, reserve, pending, batch] = Array.from({ length: 9 }, () => randomUUID())
  const rows = { buyer: buyer!, seller: seller!, agent: agent!, charge: charge!, pending: pending! }
  const hash = createHash("sha256").update(key).digest()
  await sql.begin(async (tx) => {
    await tx`insert into accounts (id, token, available, reserved) values (${rows.buyer}, 7, 9800000, 100000), (${rows.seller}, 3, 0, 0)`
    await tx`insert into earnings (account_id, posted) values (${rows.buyer}, 0), (${rows.seller}, 72000)`
    await tx`insert into users (id, account_id, email, password_hash) values (${randomUUID()}, ${rows.buyer}, 'buyer@example.com', 'none'), (${randomUUID()}, ${rows.seller}, 'seller@example.com', 'none')`
    await tx`insert into api_keys (id, account_id, dialect, name, key_hash, key_prefix, scopes) values (${subject!}, ${rows.buyer}, 'autx', 'old', ${hash}, 'autx_live_of', '{proxy,orders}')`
    await tx`insert into agents (id, owner_id, dialect, ticker, name, description, category, endpoint_url, price, auth_tier) values (${rows.agent}, ${rows.seller}, 'autx', 'OLDEST', 'Oldest', 'Was there before', 'Test', ${endpointUrl}, 100000, 'jwt_default')`
    await tx`insert into batches (id, fee, buyback, deposits, withdrawals, refused) values (${batch!}, 10000, 18000, -10000000, 0, '{}')`
    await tx`insert into transactions (id, batch_id, account_id, type, available, reserved, earner_id, earned, fee, buyback, deposits, withdrawals, balance_after, agent_id, order_id, subject_id, created_at) values
      (${deposit!}, ${batch!}, ${rows.buyer}, 'deposit', 10000000, 0, null, 0, 0, 0, -10000000, 0, 10000000, null, null, null, now()),
      (${rows.charge}, ${batch!}, ${rows.buyer}, 'charge', -100000, 0, ${rows.seller}, 72000, 10000, 18000, 0, 0, 9900000, ${rows.agent}, null, ${subject!}, now()),
      (${reserve!}, ${batch!}, ${rows.buyer}, 'reserve', -100000, 100000, null, 0, 0, 0, 0, 0, 9800000, ${rows.agent}, ${rows.pending}, ${subject!}, now())`
    await tx`insert into orders (id, account_id, subject_id, agent_id, token, status, prompt, payment_method, amount, fee, created_at) values (${rows.pending}, ${rows.buyer}, ${subject!}, ${rows.agent}, 7, 'pending', 'work', 'credits', 100000, 10000, now())`
    await tx`insert into usage (id, account_id, subject_id, agent_id, call, status, cost, latency_ms, created_at) values (${rows.charge}, ${rows.buyer}, ${subject!}, ${rows.agent}, 'proxy', 200, 100000, 5, now())`
    await tx`insert into usage_hourly_by_agent (hour, agent_id, calls, errors, cost, latency_ms) values (date_trunc('hour', now()), ${rows.agent}, 1, 0, 100000, 5)`
    await tx`insert into usage_hourly_by_account (hour, account_id, calls, errors, cost) values (date_trunc('hour', now()), ${rows.buyer}, 1, 0, 100000)`
    await tx`insert into agent_totals (agent_id, calls, cost) values (${rows.agent}, 1, 100000)`
  })
  return rows
}

describe("a gateway on the tables of an earlier release", () => {
  it.for(files.slice(0, -1))("as of %s brings them up to date, and keeps their rows and money", { timeout: 60_000 }, async (last) => {
    const [{ env, sql }, agent] = await Promise.all([stage.database(), stage.agent(answers("done"))])
    expect((await release(files.slice(0, 1)).migrate(env)).code).toBe(0)
    const { buyer, charge, pending } = await writeRows(sql, agent.url)
    expect((await release(files.slice(0, files.indexOf(last) + 1)).migrate(env)).code).toBe(0)
    const gateway = await stage.gateway(env)
    expect((await sql<Array<{ name: string }>>`select name from migrations order by name`).map(({ name }) => name)).toEqual(files)
    // The order's gateway is gone: it is given back.
    await until(async () => (await sql`select from orders where id = ${pending} and status = 'failed'`).length === 1)
    expect(await booked(sql, buyer)).toEqual({ available: 9_900_000n, reserved: 0n })
    expect(await sql`select available from transactions where id = ${charge}`).toEqual([{ available: -100_000n }])
    expect(await gateway.ask(200, "GET", "/v1/agents/OLDEST")).toMatchObject({ name: "Oldest", service_price: 0.1 })
    const { status, headers } = await gateway.call("POST", "/v1/proxy/OLDEST", { token: key, body: { prompt: "work" } })
    expect([status, headers["x-autx-cost-usd"], headers["x-autx-balance-usd"]]).toEqual([200, "0.10", "9.80"])
    await expectCleanBooks(sql)
    await gateway.stop()
  })
})

describe("tables that don't belong to this release are refused in one line, and left as they are:", () => {
  const firstLine = async (env: Readonly<Record<string, string>>): Promise<string> => {
    const failure = await GatewayProcess.start(env).then(() => "it started", (cause: Error) => cause.message)
    return /^tollgate: .*$/m.exec(failure)?.[0] ?? failure
  }

  it("those of a newer one", async () => {
    const { env, sql } = await stage.database()
    const newer = release(files)
    writeFileSync(join(newer.migrations, "9999_later.sql"), "create table later (id int)")
    expect((await newer.migrate(env)).out).toContain("applied 9999_later.sql\n")
    const line = "these tables were made by a newer version (migration 9999_later.sql), and there is no way back: use that version or a newer one"
    expect(await firstLine(env)).toBe(`tollgate: the database can't be used: ${line}`)
    expect(await release(files).migrate(env)).toEqual({ code: 1, out: "", err: `migrate: ${line}\n` })
    expect(await sql`select name from migrations where name = '9999_later.sql'`).toHaveLength(1)
  })

  it("those of a migration that was changed since", async () => {
    const { env } = await stage.database()
    const other = release(files)
    appendFileSync(join(other.migrations, files[0]!), "\n-- as it was before\n")
    expect((await other.migrate(env)).code).toBe(0)
    const line = `migration ${files[0]} was changed after it was applied; restore it and add a new file instead`
    expect(await firstLine(env)).toBe(`tollgate: the database can't be used: ${line}`)
    expect(await release(files).migrate(env)).toEqual({ code: 1, out: "", err: `migrate: ${line}\n` })
  })
})
