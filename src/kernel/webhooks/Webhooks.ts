/**
 * Webhooks: who is told of what.
 *
 * A call decides what is to be told of it in the middle of its own decision, so
 * each node keeps who wants to know in memory (`Subscriptions.ts`). What is
 * answered by `deliveriesOf` goes into the commit of the event; after that
 * `wake` has it sent at once (`Sender.ts`).
 *
 * Guarantee. A webhook that was created or removed counts in this node when the
 * caller is answered, and in others as soon as they hear of it; deliveries that
 * another node wrote meanwhile are dropped with the webhook. Its secret is
 * sealed, and shown to nobody.
 */
import { Clock, Context, Effect, FiberSet, Layer, Schedule, Semaphore } from "effect"
import { Config } from "../../config.ts"
import { AddressForbidden, type NotConfigured, NotFound, type RuleBroken, type StoreUnavailable } from "../../domain/errors.ts"
import type { AccountId } from "../../domain/ids.ts"
import { type WebhookEvent, type WebhookFacts, eventsOf, webhookEvents } from "../../domain/webhook.ts"
import type { DeliveryRow } from "../../store/Commit.ts"
import { type LoggedDelivery, listDeliveries } from "../../store/market/DeliveryStore.ts"
import { type Webhook, findSubscribed, insertWebhook, listWebhooks, removeWebhook } from "../../store/market/WebhookStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { log } from "../../telemetry/log.ts"
import { auditRow } from "../AuditTrail.ts"
import type { Caller } from "../Caller.ts"
import { newId } from "../Ids.ts"
import { Secrets } from "../identity/Secrets.ts"
import { brokenInBody } from "../market/rules.ts"
import { UpstreamGuard } from "../upstream/UpstreamGuard.ts"
import { type WebhookDress, startSender, webhookSecretPurpose } from "./Sender.ts"
import { Subscriptions } from "./Subscriptions.ts"

/** Of one owner (contracts/acf.md, Webhooks). */
const perOwnerMax = 20
const reloadEveryMs = 1_000

export interface NewWebhook {
  readonly url: string
  readonly events: ReadonlyArray<string>
  readonly secret: string
}

const none: ReadonlyArray<DeliveryRow> = []

export class Webhooks extends Context.Service<Webhooks, {
  /** Ids of the webhooks that tell the account of the event. Costs two look-ups in memory. */
  readonly subscriptions: (accountId: AccountId, event: WebhookEvent) => ReadonlyArray<string>
  /** What the event's commit is to write: one for each webhook of any of these accounts. */
  readonly deliveriesOf: <E extends WebhookEvent>(event: E, accountIds: ReadonlyArray<AccountId>, facts: WebhookFacts[E], nowMs: number) => ReadonlyArray<DeliveryRow>
  /** These were committed: they are sent at once. Others are found within some seconds. */
  readonly wake: (deliveries: ReadonlyArray<DeliveryRow>) => void
  /** An account's webhooks have changed, or anybody's. */
  readonly heard: (accountId: AccountId | undefined) => void
  readonly create: (caller: Caller, wanted: NewWebhook) => Effect.Effect<Webhook, RuleBroken | AddressForbidden | NotConfigured | StoreUnavailable>
  /** The caller's, newest first. */
  readonly list: (caller: Caller) => Effect.Effect<ReadonlyArray<Webhook>, StoreUnavailable>
  /** Nothing more is sent to it, but for an attempt under way. */
  readonly remove: (caller: Caller, id: string) => Effect.Effect<void, NotFound | StoreUnavailable>
  /** What was told and what is to be told, newest first. */
  readonly deliveries: (caller: Caller, id: string, limit: number) => Effect.Effect<ReadonlyArray<LoggedDelivery>, NotFound | StoreUnavailable>
}>()("tollgate/kernel/webhooks/Webhooks") {
  static readonly layer = (dress: WebhookDress) => Layer.effect(Webhooks, Effect.gen(function*() {
    const guard = yield* UpstreamGuard
    const secrets = yield* Secrets
    const postgres = yield* Postgres
    const { webhookAllowHttp } = yield* Config
    const subscriptions = new Subscriptions()
    // One after the other: of two answers about an account the later one stands.
    const loads = yield* Semaphore.make(1)
    const load = (accountId: AccountId | undefined) => loads.withPermits(1)(
      Effect.map(findSubscribed(accountId), (webhooks) => subscriptions.replace(accountId, webhooks))
    ).pipe(Effect.provideService(Postgres, postgres))
    /** What fails is not lost: the node hears of every change, its own included, and reads until it has it. */
    const loadNow = (accountId: AccountId) => Effect.ignore(load(accountId))
    yield* load(undefined)
    const sender = yield* startSender(dress, subscriptions)
    const reloads = yield* FiberSet.makeRuntime<never>()

    const judge = (caller: Caller, url: string): RuleBroken | AddressForbidden | undefined => {
      if (URL.canParse(url) && new URL(url).protocol === "http:" && !webhookAllowHttp) return brokenInBody("url", "must be an https address")
      return URL.canParse(url) && guard.check(new URL(url), caller.accountId) === "ok" ? undefined : new AddressForbidden({ field: "url", address: url })
    }
    const owned = (caller: Caller, id: string) => listWebhooks(caller.accountId).pipe(
      Effect.flatMap((webhooks) => webhooks.some((webhook) => webhook.id === id) ? Effect.void : Effect.fail(new NotFound({ what: "webhook", id }))))

    return Webhooks.of({
      subscriptions: (accountId, event) => subscriptions.of(accountId, event),
      deliveriesOf: (event, accountIds, facts, nowMs) => {
        const webhookIds = accountIds.flatMap((accountId) => subscriptions.of(accountId, event))
        if (webhookIds.length === 0) return none
        return Array.from(new Set(webhookIds), (webhookId) => ({ id: newId<string>(), webhookId, event, facts, atMs: nowMs }))
      },
      wake: sender.wake,
      heard: (accountId) => {
        reloads(load(accountId).pipe(
          Effect.tapError((error) => Effect.sync(() => log.warn({ err: error }, "webhooks can't be read, will be tried again"))),
          Effect.retry(Schedule.spaced(reloadEveryMs))
        ))
      },
      create: Effect.fn("Webhooks.create")(function*(caller, { url, events: names, secret }) {
        const refusal = judge(caller, url)
        if (refusal !== undefined) return yield* Effect.fail(refusal)
        const events = eventsOf(names)
        if ("unknown" in events) return yield* brokenInBody("events", `each must be one of ${webhookEvents.join(", ")}`)
        if (events.length === 0) return yield* brokenInBody("events", "at least one is needed")
        const id = newId<string>()
        const sealedSecret = yield* secrets.seal(webhookSecretPurpose, id, secret)
        const nowMs = yield* Clock.currentTimeMillis
        const owner = yield* insertWebhook(caller.accountId, { id, url, events, sealedSecret, createdAtMs: nowMs }, perOwnerMax, auditRow(caller, "webhook.create", id, nowMs, { events }))
        if (owner === undefined) return yield* brokenInBody("url", `an owner may have ${perOwnerMax} webhooks; delete one first`)
        yield* loadNow(caller.accountId)
        return { id, owner, url, events, createdAt: new Date(nowMs) }
      }, Effect.provideService(Postgres, postgres)),
      list: (caller) => listWebhooks(caller.accountId).pipe(Effect.provideService(Postgres, postgres)),
      remove: Effect.fn("Webhooks.remove")(function*(caller, id) {
        const nowMs = yield* Clock.currentTimeMillis
        const isRemoved = yield* removeWebhook(caller.accountId, id, auditRow(caller, "webhook.delete", id, nowMs))
        if (!isRemoved) return yield* new NotFound({ what: "webhook", id })
        yield* loadNow(caller.accountId)
      }, Effect.provideService(Postgres, postgres)),
      deliveries: Effect.fn("Webhooks.deliveries")(function*(caller, id, limit) {
        yield* owned(caller, id)
        return yield* listDeliveries(id, limit)
      }, Effect.provideService(Postgres, postgres))
    })
  }))
}
