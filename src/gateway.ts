/**
 * The gateway as one layer, from settings and a database to an open port. Used
 * by `main.ts` and, on a database of their own, by the tests. Nothing here
 * decides anything: it says who gets what.
 */
import { Effect, Layer } from "effect"
import { Placement } from "./actor/Placement.ts"
import { Bus } from "./cluster/Bus.ts"
import { Cluster } from "./cluster/Cluster.ts"
import { clusterLayer } from "./cluster/ClusterNode.ts"
import { Config, type Settings } from "./config.ts"
import { acf } from "./dialects/acf/index.ts"
import { webhookDress } from "./dialects/acf/wire/webhooks.ts"
import { autx } from "./dialects/autx/index.ts"
import type { Dialect, NeedsOf } from "./http/dialect.ts"
import { Server } from "./http/Server.ts"
import { Accounts } from "./kernel/AccountActor.ts"
import { AccountReload } from "./kernel/AccountReload.ts"
import { Admission } from "./kernel/Admission.ts"
import { Agents } from "./kernel/AgentActor.ts"
import { AgentCredential } from "./kernel/upstream/AgentCredential.ts"
import { Chat } from "./kernel/chat/Chat.ts"
import { LateCancels } from "./kernel/chat/LateCancels.ts"
import { ApiKeys } from "./kernel/identity/ApiKeys.ts"
import { Credentials } from "./kernel/identity/Credentials.ts"
import { Holds } from "./kernel/Holds.ts"
import { Idempotency } from "./kernel/Idempotency.ts"
import { Ledger } from "./kernel/Ledger.ts"
import { Grants } from "./kernel/lease/Grants.ts"
import { Spending } from "./kernel/lease/Spending.ts"
import { Listings } from "./kernel/Listings.ts"
import { layerMaintenance } from "./kernel/Maintenance.ts"
import { layerEnvironmentKey } from "./kernel/market/AdminKey.ts"
import { Analytics } from "./kernel/market/Analytics.ts"
import { Dashboard } from "./kernel/market/Dashboard.ts"
import { Keys } from "./kernel/market/Keys.ts"
import { Deposits } from "./kernel/market/Deposits.ts"
import { Discovery } from "./kernel/market/Discovery.ts"
import { FreeCalls } from "./kernel/market/FreeCalls.ts"
import { Identities } from "./kernel/market/Identities.ts"
import { Links } from "./kernel/market/Links.ts"
import { Owners } from "./kernel/market/Owners.ts"
import { Portal } from "./kernel/market/Portal.ts"
import { Settlements } from "./kernel/market/Settlements.ts"
import { Reputation } from "./kernel/market/Reputation.ts"
import { Services } from "./kernel/market/Services.ts"
import { Teams } from "./kernel/market/Teams.ts"
import { Node } from "./kernel/Node.ts"
import { OrderRun } from "./kernel/OrderRun.ts"
import { Orders } from "./kernel/Orders.ts"
import { Outbox } from "./kernel/Outbox.ts"
import { Passwords } from "./kernel/identity/Passwords.ts"
import { Readiness } from "./kernel/Readiness.ts"
import { Relay } from "./kernel/Relay.ts"
import { Secrets } from "./kernel/identity/Secrets.ts"
import { Throttle } from "./kernel/identity/Throttle.ts"
import { Tokens } from "./kernel/identity/Tokens.ts"
import { Upstream } from "./kernel/upstream/Upstream.ts"
import { UpstreamGuard } from "./kernel/upstream/UpstreamGuard.ts"
import { Users } from "./kernel/identity/Users.ts"
import { Webhooks } from "./kernel/webhooks/Webhooks.ts"
import { Mail } from "./mail/Mail.ts"
import { Smtp } from "./mail/Smtp.ts"
import { listenForChanges } from "./store/Changes.ts"
import { Committer } from "./store/Committer.ts"
import { migrate } from "./store/Migrations.ts"
import { type Connection, Postgres, awaitServer } from "./store/Postgres.ts"
import { keepUp } from "./store/Upkeep.ts"
import { UsageBuffer } from "./store/UsageBuffer.ts"
import { version } from "./version.ts"

/** The database can't be reached, or not be used as this role. One line for the operator. */
export class DatabaseUnusable extends Error {
  override readonly name = "DatabaseUnusable"
}

/** The schema is current and today's partitions exist before anything reads or writes. */
const schema = Layer.effectDiscard(Postgres.use(({ reads }) => Effect.tryPromise({
  try: async () => {
    await awaitServer(reads)
    await migrate(reads)
    await keepUp(reads, Date.now())
  },
  catch: (cause) => new DatabaseUnusable(`the database can't be used: ${cause instanceof Error ? cause.message : String(cause)}`)
})))

/** What was written past an actor makes it activate again, wherever that was: the database and other nodes tell. */
const changes = Layer.unwrap(Effect.gen(function*() {
  const accounts = yield* Accounts
  const agents = yield* Agents
  const bus = yield* Bus
  const webhooks = yield* Webhooks
  const missed = (): void => {
    accounts.forgetAll()
    webhooks.heard(undefined)
  }
  bus.onNews((news) => {
    if (news._tag === "account") accounts.forget(news.id as never, news.token)
    else if (news._tag === "webhooks") webhooks.heard(news.accountId as never)
    else if (news._tag === "missed") missed()
  })
  return listenForChanges((change) => {
    if (change.what === "account") accounts.forget(change.id as never, change.token)
    else if (change.what === "agent") agents.forget(change.id as never)
    else if (change.what === "webhooks") webhooks.heard(change.id as never)
    else {
      agents.forgetAll()
      missed()
    }
  })
}))

const reload = Layer.effect(AccountReload, Effect.gen(function*() {
  const accounts = yield* Accounts
  const bus = yield* Bus
  return AccountReload.of({
    changed: (id) => Effect.sync(() => {
      accounts.forget(id)
      bus.tell({ _tag: "account", id, token: undefined })
    })
  })
}))

const readiness = Layer.effect(Readiness, Effect.gen(function*() {
  const accounts = yield* Accounts
  const cluster = yield* Cluster
  return Readiness.of({
    check: () => {
      const reasons = [...(accounts.writable() ? [] : ["the database does not answer"]), ...[cluster.trouble()].filter((trouble) => trouble !== undefined)]
      return { ready: reasons.length === 0, reasons }
    }
  })
}))

/** One node alone, or one of many. */
const clusterOf = ({ redisUrl, clusterHost, clusterPort }: Settings) => redisUrl === undefined
  ? Layer.mergeAll(Cluster.layerAlone, Bus.layerAlone)
  : Layer.unwrap(Node.use(({ id }) => Effect.succeed(clusterLayer({ redisUrl, clusterHost, clusterPort }, id))))

const dialects: ReadonlyArray<Dialect<NeedsOf<typeof autx> | NeedsOf<typeof acf>>> = [autx, acf]

/** `cluster`: another than the settings name, e.g. one that a test scripts. */
export const gatewayLayer = (settings: Settings, connection: Connection, cluster: ReturnType<typeof clusterOf> = clusterOf(settings)) => {
  const store = Layer.mergeAll(Committer.layer, UsageBuffer.layer).pipe(
    Layer.provideMerge(schema),
    Layer.provideMerge(Postgres.layer(connection))
  )
  const identity = Layer.mergeAll(Passwords.layer, Tokens.layer, Throttle.layer).pipe(Layer.provideMerge(Secrets.layer))
  const actors = Layer.mergeAll(Accounts.layer, Agents.layer).pipe(
    Layer.provideMerge(Layer.mergeAll(Holds.layer, Placement.layer)),
    Layer.provideMerge(cluster),
    Layer.provideMerge(Node.layer)
  )
  const spending = Spending.layer.pipe(Layer.provideMerge(Grants.layer), Layer.provideMerge(Ledger.layer))
  const upstream = Layer.mergeAll(Upstream.layer, AgentCredential.layer).pipe(Layer.provideMerge(UpstreamGuard.layer))
  const smtp = settings.smtpUrl === undefined ? undefined : Smtp.layer(settings.smtpUrl)
  const outbox = smtp === undefined ? Outbox.layerNone : Layer.provide(Outbox.layer, smtp)
  const money = Layer.mergeAll(Orders.layer, Relay.layer, Chat.layer.pipe(Layer.provide(Layer.mergeAll(LateCancels.layer, outbox)))).pipe(
    Layer.provideMerge(Layer.mergeAll(OrderRun.layer, Idempotency.layer, Admission.layer, FreeCalls.layer, Webhooks.layer(webhookDress)))
  )
  const mail = smtp === undefined ? Mail.layerLog : Layer.provide(Mail.layerSmtp, smtp)
  const management = Layer.mergeAll(ApiKeys.layer, Listings.layer, Users.layer.pipe(Layer.provide(Layer.mergeAll(reload, mail))))
  /** The market's own nouns. */
  const market = Layer.mergeAll(
    Dashboard.layer, Deposits.layer, Discovery.layer, Identities.layer, Keys.layer, Links.layer, Portal.layer, Reputation.layer, Services.layer, Settlements.layer, Teams.layer
  ).pipe(Layer.provideMerge(Analytics.layer), Layer.provideMerge(Owners.layer))
  const edge = Server.layer({ dialects, version }).pipe(
    Layer.provide(readiness)
  )
  return Layer.mergeAll(edge, layerMaintenance, layerEnvironmentKey, changes).pipe(
    Layer.provideMerge(market),
    Layer.provideMerge(Layer.mergeAll(money, management).pipe(Layer.provideMerge(Credentials.layer))),
    Layer.provideMerge(upstream),
    Layer.provideMerge(spending),
    Layer.provideMerge(actors),
    Layer.provideMerge(identity),
    Layer.provideMerge(store),
    Layer.provideMerge(Layer.succeed(Config, settings))
  )
}
