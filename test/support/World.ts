/**
 * A whole gateway on a port of its own, as `main.ts` assembles it, with a
 * database of its own, agents that a test scripts, and people who call. Nothing
 * is replaced; what a caller can't do (suspend an account, read a letter) is
 * done in the database.
 */
import { Effect, ManagedRuntime } from "effect"
import { createHash, randomBytes, randomUUID } from "node:crypto"
import { once } from "node:events"
import { type IncomingHttpHeaders, type IncomingMessage, type ServerResponse, createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { type Settings, readSettings } from "../../src/config.ts"
import { formatUsd } from "../../src/domain/credits.ts"
import type { AccountId } from "../../src/domain/ids.ts"
import { gatewayLayer } from "../../src/gateway.ts"
import { Server } from "../../src/http/Server.ts"
import { Accounts } from "../../src/kernel/AccountActor.ts"
import { type CheckResult, audit } from "../../src/store/Audit.ts"
import { type Sql, connect } from "../../src/store/Postgres.ts"
import { log } from "../../src/telemetry/log.ts"
import { type CutProxy, startCutProxy } from "./CutProxy.ts"
import { type TestDatabase, freshDatabase } from "./postgres.ts"

/** What an agent was asked. */
export interface Asked {
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
}
export interface Answered {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string | ReadonlyArray<string>>>
  readonly body?: string | Uint8Array
}
/** How an agent behaves: an answer, a promise of one, or `drop`: it hangs up. */
export type Respond = (asked: Asked) => Answered | "drop" | Promise<Answered | "drop">

export interface Reply {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  /** The body when it is JSON, else `undefined`. */
  readonly json: any
}
export interface CallOptions {
  readonly token?: string | undefined
  /** An object is sent as JSON; text and bytes as they are. */
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

export interface Person {
  readonly email: string
  readonly password: string
  readonly id: string
  readonly accountId: string
  readonly accessToken: string
  readonly refreshToken: string
  /** An API key with these scopes, of this person. */
  readonly key: (scopes?: string, more?: object) => Promise<{ readonly id: string; readonly key: string }>
  /** Adds test credits. */
  readonly fund: (usd: string) => Promise<void>
}

export interface ScriptedAgent {
  readonly id: string
  readonly ticker: string
  readonly owner: Person
  readonly endpointUrl: string
  readonly asked: Array<Asked>
  /** Resolves when the agent has been asked this many times. */
  readonly askedTimes: (count: number) => Promise<void>
}
export interface AgentOptions {
  readonly price?: number | string
  readonly respond?: Respond
  readonly owner?: Person
  readonly more?: object
}

export interface WorldOptions {
  readonly settings?: Partial<Settings>
}

export interface World {
  readonly port: number
  readonly url: string
  readonly publicUrl: string
  readonly sql: Sql
  /** Stands between the gateway and its database. */
  readonly store: CutProxy
  readonly call: (method: string, path: string, options?: CallOptions) => Promise<Reply>
  readonly user: (options?: { readonly verified?: boolean }) => Promise<Person>
  readonly agent: (options?: AgentOptions) => Promise<ScriptedAgent>
  /** Where an agent would listen that is not listed yet. */
  readonly endpoint: (respond?: Respond) => string
  /** The token of a link as it would have been mailed. */
  readonly link: (person: Person, purpose: "verify" | "reset") => Promise<string>
  /** Changes an account past its actor, which loads it again for the next call. */
  readonly alter: (person: Pick<Person, "accountId">, change: (sql: Sql) => Promise<unknown>) => Promise<void>
  readonly audit: () => Promise<ReadonlyArray<CheckResult>>
  readonly stop: () => Promise<void>
}

const publicUrl = "https://gateway.test"
const echo: Respond = ({ body }) => ({ headers: { "content-type": "application/json" }, body: JSON.stringify({ output: body }) })

/** Demo-like, on any free port; callers may name their own address, as behind a proxy. */
const settingsOf = (overrides: Partial<Settings>): Settings => ({
  ...readSettings({
    PORT: "0", DATABASE_URL: "postgres://database.test/tollgate", PUBLIC_URL: publicUrl, SECRETS_KEY: "k".repeat(32), ENABLE_TEST_CREDITS: "true",
    AUTO_VERIFY_EMAIL: "true", UPSTREAM_ALLOW: "127.0.0.1", KEY_RATE_LIMIT_DEFAULT: "100000", TRUSTED_PROXIES: "127.0.0.1",
    ACF_IP_RATE: "1000000", ACF_IP_BURST: "1000000"
  }),
  ...overrides
})

/** One server for all agents of a world; each has a path, and is asked for all that is below it. */
const startAgents = async () => {
  const scripts = new Map<string, { readonly respond: Respond; readonly asked: Array<Asked>; readonly arrivals: Array<() => void> }>()
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const script = scripts.get(/^\/agent\/\d+/.exec(request.url ?? "")?.[0] ?? "")
    const chunks: Array<Buffer> = []
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
    const asked: Asked = { method: request.method ?? "", url: request.url ?? "", headers: request.headers, body: Buffer.concat(chunks).toString("utf8") }
    script?.asked.push(asked)
    for (const arrived of script?.arrivals.splice(0) ?? []) arrived()
    const answered = await (script?.respond(asked) ?? { status: 404 })
    if (answered === "drop") return void request.socket.destroy()
    response.writeHead(answered.status ?? 200, answered.headers as Record<string, string | Array<string>> | undefined).end(answered.body ?? "")
  }
  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy()) // The gateway gave the call up.
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const add = (respond: Respond) => {
    const script = { respond, asked: new Array<Asked>(), arrivals: new Array<() => void>() }
    const path = `/agent/${scripts.size + 1}`
    scripts.set(path, script)
    return { ...script, endpointUrl: `${origin}${path}` }
  }
  return {
    add,
    stop: () => {
      server.closeAllConnections()
      server.close()
    }
  }
}

const jsonOf = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const caller = (url: string) => async (method: string, path: string, { token, body, headers = {} }: CallOptions = {}): Promise<Reply> => {
  const raw = body === undefined || typeof body === "string" || body instanceof Uint8Array
  const response = await fetch(`${url}${path}`, {
    method,
    redirect: "manual",
    headers: {
      ...(raw ? {} : { "content-type": "application/json" }),
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...headers
    },
    ...(body === undefined ? {} : { body: raw ? body as string : JSON.stringify(body) })
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, text, json: jsonOf(text) }
}

const expectStatus = (reply: Reply, status: number): any => {
  if (reply.status !== status) throw new Error(`expected ${status}, got ${reply.status} ${reply.text}`)
  return reply.json
}

const people = (call: World["call"], sql: Sql) => async ({ verified = true }: { readonly verified?: boolean } = {}): Promise<Person> => {
  const [email, password] = [`${randomUUID()}@example.com`, randomBytes(9).toString("base64url")]
  const { access_token: accessToken, refresh_token: refreshToken, user } = expectStatus(await call("POST", "/v1/auth/register", { body: { email, password } }), 201)
  if (!verified) await sql`update users set email_verified_at = null where id = ${user.id}`
  const [row] = await sql<Array<{ account_id: string }>>`select account_id from users where id = ${user.id}`
  return {
    email, password, accessToken, refreshToken, id: user.id, accountId: row!.account_id,
    key: async (scopes = "*", more = {}) => expectStatus(await call("POST", "/v1/api-keys", { token: accessToken, body: { name: "a key", scopes, ...more } }), 201),
    fund: async (amount) => expectStatus(await call("POST", "/v1/credits/deposit-test", { token: accessToken, body: { amount } }), 201)
  }
}

export const makeWorld = async ({ settings: overrides = {} }: WorldOptions = {}): Promise<World> => {
  log.level = "error"
  const database: TestDatabase = await freshDatabase()
  const store = await startCutProxy(database.options)
  const agents = await startAgents()
  const settings = settingsOf(overrides)
  const runtime = ManagedRuntime.make(gatewayLayer(settings, store.options))
  const { port } = await runtime.runPromise(Server)
  const sql = connect(database.options, { max: 2, statementTimeoutMs: 30_000, name: "tollgate-test" })
  const url = `http://127.0.0.1:${port}`
  const call = caller(url)
  const user = people(call, sql)
  let tickers = 0

  const agent = async ({ price = 0, respond = echo, owner, more = {} }: AgentOptions = {}): Promise<ScriptedAgent> => {
    const { asked, arrivals, endpointUrl } = agents.add(respond)
    const person = owner ?? await user()
    if (settings.launchFee > 0n) await person.fund(formatUsd(settings.launchFee))
    const ticker = `T${(++tickers).toString(36).toUpperCase().padStart(4, "0")}`
    const body = { name: `Agent ${ticker}`, ticker, description: "Scripted by a test", category: "Test", endpoint_url: endpointUrl, service_price: price, ...more }
    const { id } = expectStatus(await call("POST", "/v1/agents", { token: person.accessToken, body }), 201)
    const askedTimes = async (count: number): Promise<void> => {
      while (asked.length < count) await new Promise<void>((arrived) => arrivals.push(arrived))
    }
    return { id, ticker, owner: person, endpointUrl, asked, askedTimes }
  }

  return {
    port, url, publicUrl, sql, store, call, user, agent,
    endpoint: (respond = echo) => agents.add(respond).endpointUrl,
    link: async (person, purpose) => {
      const token = randomBytes(32).toString("base64url")
      const hash = createHash("sha256").update(token).digest()
      await sql`insert into email_tokens (token_hash, user_id, purpose, created_at, expires_at) values (${hash}, ${person.id}, ${purpose}, now(), now() + interval '1 hour')`
      return token
    },
    alter: async (person, change) => {
      await change(sql)
      await runtime.runPromise(Accounts.use((accounts) => Effect.sync(() => accounts.forget(person.accountId as AccountId))))
    },
    audit: () => audit(sql),
    stop: async () => {
      await runtime.dispose()
      agents.stop()
      await sql.end()
      await store.close()
      await database.drop()
    }
  }
}
