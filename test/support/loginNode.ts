/**
 * What a gateway node knows about logins, on a database of its own: real
 * services, with the letters it sends and the accounts it reloads in queues.
 * Time is the test's clock.
 */
import { Context, Effect, Layer, Queue, type Scope } from "effect"
import { Config, readSettings, type Settings } from "../../src/config.ts"
import type { AccountId } from "../../src/domain/ids.ts"
import { AccountReload } from "../../src/kernel/AccountReload.ts"
import { Passwords } from "../../src/kernel/identity/Passwords.ts"
import { Secrets } from "../../src/kernel/identity/Secrets.ts"
import { Tokens } from "../../src/kernel/identity/Tokens.ts"
import { Users } from "../../src/kernel/identity/Users.ts"
import { type Letter, Mail } from "../../src/mail/Mail.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { connect, type Connection, Postgres } from "../../src/store/Postgres.ts"
import { freshDatabase } from "./postgres.ts"

/** A migrated database that is dropped with the test. */
export const database: Effect.Effect<Connection, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(freshDatabase),
  ({ drop }) => Effect.promise(drop)
).pipe(Effect.tap(({ options }) => Effect.promise(async () => {
  const sql = connect(options, { max: 1, statementTimeoutMs: 10_000, name: "tollgate-migrations" })
  await migrate(sql).finally(() => sql.end())
})), Effect.map(({ options }) => options))

export interface Overrides {
  readonly settings?: Partial<Settings>
  readonly mail?: Layer.Layer<Mail>
  /** Wraps the node's store, to take it away. */
  readonly store?: (postgres: Postgres["Service"]) => Postgres["Service"]
}

/** As configured by `DATABASE_URL` alone, unless overridden. */
export const startNode = Effect.fnUntraced(function*(connection: Connection, overrides: Overrides = {}) {
  const letters = yield* Queue.unbounded<Letter>()
  const reloads = yield* Queue.unbounded<AccountId>()
  const settings = { ...readSettings({ DATABASE_URL: "postgres://database.test/tollgate" }), ...overrides.settings }
  const store = Layer.effect(Postgres, Effect.map(Postgres, overrides.store ?? ((postgres) => postgres))).pipe(
    Layer.provide(Postgres.layer(connection))
  )
  const outside = Layer.mergeAll(
    Layer.succeed(Config, settings),
    Layer.succeed(AccountReload, { changed: (accountId) => Effect.asVoid(Queue.offer(reloads, accountId)) }),
    overrides.mail ?? Layer.succeed(Mail, { send: (letter) => Effect.asVoid(Queue.offer(letters, letter)) }),
    store
  )
  const node = Users.layer.pipe(
    Layer.provideMerge(Tokens.layer),
    Layer.provideMerge(Layer.merge(Secrets.layer, Passwords.layer)),
    Layer.provideMerge(outside)
  )
  const services = yield* Layer.build(Layer.fresh(node))
  return {
    users: Context.get(services, Users),
    tokens: Context.get(services, Tokens),
    secrets: Context.get(services, Secrets),
    postgres: Context.get(services, Postgres),
    letters,
    reloads
  }
})

/** The token of the link in a letter. */
export const tokenIn = (letter: Letter): string => /\?token=(\S+)/.exec(letter.text)?.[1] ?? ""
