/**
 * A gateway whose services a test calls past HTTP: its actors, its ledger, its
 * orders, on a real database that other nodes and operators may change too.
 */
import { Context, Effect, Exit, ManagedRuntime } from "effect"
import { randomUUID } from "node:crypto"
import { type Settings, readSettings } from "../../src/config.ts"
import type { Account } from "../../src/domain/account.ts"
import type { AccountId, UserId } from "../../src/domain/ids.ts"
import { gatewayLayer } from "../../src/gateway.ts"
import { Server } from "../../src/http/Server.ts"
import { Accounts } from "../../src/kernel/AccountActor.ts"
import type { Caller } from "../../src/kernel/Caller.ts"
import { ApiKeys, type NewApiKey } from "../../src/kernel/identity/ApiKeys.ts"
import { Ledger } from "../../src/kernel/Ledger.ts"
import { Listings } from "../../src/kernel/Listings.ts"
import { Orders } from "../../src/kernel/Orders.ts"
import type { Connection, Sql } from "../../src/store/Postgres.ts"
import { log } from "../../src/telemetry/log.ts"
import { newAccount } from "./ledgerRows.ts"

const settingsOf = (overrides: Partial<Settings>): Settings => ({
  ...readSettings({ PORT: "0", DATABASE_URL: "postgres://database.test/tollgate", SECRETS_KEY: "k".repeat(32), ENABLE_TEST_CREDITS: "true", UPSTREAM_ALLOW: "127.0.0.1" }),
  ...overrides
})

export const startKernel = async (connection: Connection, overrides: Partial<Settings> = {}, cluster?: Parameters<typeof gatewayLayer>[2]) => {
  log.level = "silent"
  const runtime = ManagedRuntime.make(gatewayLayer(settingsOf(overrides), connection, cluster))
  const services = await runtime.context()
  const accounts = Context.get(services, Accounts)
  const keys = Context.get(services, ApiKeys)
  return {
    accounts,
    keys,
    url: `http://127.0.0.1:${Context.get(services, Server).port}`,
    ledger: Context.get(services, Ledger),
    listings: Context.get(services, Listings),
    orders: Context.get(services, Orders),
    services,
    /** Runs a turn on an account. */
    turn: <A>(id: AccountId, turn: (account: Account, nowMs: number) => A): Promise<A> => Effect.runPromise(accounts.ask(id, turn)),
    newKey: (caller: Caller, more: Partial<NewApiKey> = {}) =>
      Effect.runPromise(keys.create(caller, { dialect: "autx", name: "a key", scopes: ["*"], expiresInDays: undefined, rateLimit: undefined, budgets: [], ...more }, undefined)),
    stop: () => runtime.dispose()
  }
}

export type KernelNode = Awaited<ReturnType<typeof startKernel>>

/** A verified person with an account of their own, as their login calls. */
export const newPerson = async (sql: Sql, available = 0n): Promise<Caller> => {
  const accountId = await newAccount(sql, available)
  const subjectId = randomUUID() as string as UserId
  await sql`insert into users (id, account_id, email, password_hash, email_verified_at) values (${subjectId}, ${accountId}, ${`${subjectId}@example.com`}, 'none', now())`
  return { accountId, kind: "login", dialect: undefined, subjectId, loginId: undefined, expiresAtMs: Infinity }
}

let tickers = 0

/** An agent of `owner` that listens at `endpointUrl`. */
export const newAgent = async ({ listings }: KernelNode, owner: Caller, endpointUrl: string, price: bigint) => {
  const ticker = `K${(++tickers).toString(36).toUpperCase()}`.padEnd(2, "0")
  const { agent } = await Effect.runPromise(listings.create(owner, {
    dialect: "autx", ticker, name: ticker, description: "", category: "Test", endpointUrl, price, freeTierCalls: 0, authTier: "jwt_default", manifest: undefined, tags: [], paymentMethod: "credits"
  }, undefined))
  return agent
}

/** The error that an effect fails with. */
export const refusalOf = async <E>(effect: Effect.Effect<unknown, E>): Promise<E> => {
  const exit = await Effect.runPromiseExit(effect)
  if (Exit.isSuccess(exit)) throw new Error("it was expected to fail")
  const [reason] = exit.cause.reasons
  if (reason?._tag !== "Fail") throw new Error("it was expected to fail with an error", { cause: exit.cause })
  return reason.error
}
