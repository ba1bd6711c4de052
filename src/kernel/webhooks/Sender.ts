/**
 * Tells webhooks what happened.
 *
 * Overview. The commit of an event writes a delivery for each webhook that wants
 * to know. A worker in each node takes webhooks that have some in turns
 * (`Lanes.ts`), claims the oldest delivery of each, posts it (`Courier.ts`), and
 * writes how that ended. What this node's own commits write is sent at once; what
 * others left is found by a look every few seconds.
 *
 *   pending ──claim──▶ claimed ──below 300──▶ delivered
 *    ▲                   │
 *    ├── 1, 2, 4 s ◀─────┤ any other answer, or none in 10 s
 *    ├── lease ends ◀────┘ the node died
 *    └───────────────▶ failed: after the fourth attempt, or when too many wait behind it
 *
 * Guarantee. At least once, always under the delivery's own id. Those of one
 * webhook are sent one by one, oldest first: the next one is not sent before the
 * one before it was delivered or has failed. Two nodes never send to one webhook
 * at the same time. A delivery is sent twice when a node dies, stands still for
 * longer than the lease, or loses the database for as long, between the answer
 * and its mark.
 *
 * Failure cases. A receiver that is away or slow holds up its own webhooks only.
 * No database: the worker looks again every few seconds. A stop: attempts under
 * way have some seconds to end, then their lease runs out. A crash counts the
 * attempt that it broke off.
 *
 * Why the lease is the webhook's and not the delivery's: a delivery that became
 * visible late may be older than the one under way.
 */
import { type Cause, Effect, Fiber, FiberSet, Queue, Schedule } from "effect"
import { createHmac } from "node:crypto"
import { isTaken, retryMs } from "../../domain/webhook.ts"
import type { DeliveryRow } from "../../store/Commit.ts"
import { type ClaimedDelivery, claimDeliveries, deliveriesWaiting, failBacklog, type Outcome, settleDelivery, waitingWebhooks } from "../../store/market/DeliveryStore.ts"
import { log } from "../../telemetry/log.ts"
import { gauge, metrics } from "../../telemetry/Metrics.ts"
import { Secrets } from "../identity/Secrets.ts"
import { UpstreamGuard } from "../upstream/UpstreamGuard.ts"
import { Courier } from "./Courier.ts"
import { Lanes, type Turn } from "./Lanes.ts"
import type { Subscriptions } from "./Subscriptions.ts"

/** How a dialect words a delivery. */
export interface WebhookDress {
  readonly body: (delivery: ClaimedDelivery) => string
  /** `signature`: of the body's bytes, by the webhook's secret. */
  readonly headers: (delivery: ClaimedDelivery, signature: string) => Readonly<Record<string, string>>
}

/** What a sealed secret is bound to. */
export const webhookSecretPurpose = "webhook_secret"

/** Attempts under way in this node, and to one origin. */
const laneLimits = { underWayMax: 32, perOriginMax: 4 }
const answerMs = 10_000
/** An answer that took longer makes its origin a slow one. */
const slowMs = 1_000
/** A mark, when the database is away. */
const markEveryMs = 2_000
const marksMax = 10
/** Longer than an attempt and its marks take. */
const leaseMs = 60_000
const lookEveryMs = 5_000
/** Webhooks with pending deliveries that one statement looks at. */
const pageWebhooks = 1_000
/** Deliveries of one webhook that wait; above it the oldest fail. */
const backlogMax = 10_000
/** Webhooks whose backlog is measured in one look: each costs some milliseconds. */
const backlogsPerPage = 50
const waitingCountMax = 100_000
/** So that a timer is not early. */
const marginMs = 20
const graceMs = 5_000

export interface Sender {
  /** These were committed. Without it they wait for the next look. */
  readonly wake: (deliveries: ReadonlyArray<DeliveryRow>) => void
}

const later = (cause: Cause.Cause<unknown>): void => log.warn({ cause: String(cause) }, "webhooks can't be sent to now, will be tried again")

/** Sends while the scope is open. */
export const startSender = Effect.fnUntraced(function*(dress: WebhookDress, subscriptions: Subscriptions) {
  const guard = yield* UpstreamGuard
  const courier = yield* Effect.acquireRelease(Effect.sync(() => new Courier(guard, answerMs)), (courier) => Effect.sync(() => courier.close()))
  const attempts = yield* FiberSet.make<void>()
  const wakes = yield* Queue.sliding<void>(1)
  const lanes = new Lanes(laneLimits)
  const timers = new Set<NodeJS.Timeout>()
  let stopping = false
  const wake = (): void => void Queue.offerUnsafe(wakes, undefined)
  const offer = (webhookId: string, url: string): void => lanes.offer(webhookId, new URL(url).origin)

  const ended = (turn: Turn, { wasSlow, retryMs }: Attempted): void => {
    lanes.done(turn, wasSlow)
    const again = (): void => {
      lanes.offer(turn.webhookId, turn.origin)
      wake()
    }
    if (retryMs === undefined) return again()
    if (stopping) return
    const timer = setTimeout(() => {
      timers.delete(timer)
      again()
    }, retryMs + marginMs)
    timers.add(timer)
  }
  const send = (turn: Turn, delivery: ClaimedDelivery) => attempt(dress, courier, delivery).pipe(Effect.matchCause({
    onSuccess: (attempted) => ended(turn, attempted),
    onFailure: (cause) => {
      later(cause)
      lanes.done(turn)
    }
  }))
  const round = Effect.gen(function*() {
    const turns = stopping ? [] : lanes.take()
    if (turns.length === 0) return
    const claimed = yield* claimDeliveries(turns.map(({ webhookId }) => webhookId), leaseMs).pipe(
      Effect.catchCause((cause) => Effect.as(Effect.sync(() => later(cause)), new Array<ClaimedDelivery>())))
    const byWebhook = new Map(claimed.map((delivery) => [delivery.webhookId, delivery]))
    for (const turn of turns) {
      const delivery = byWebhook.get(turn.webhookId)
      if (delivery === undefined) lanes.done(turn)
      else yield* FiberSet.run(attempts, send(turn, delivery))
    }
    wake()
  })

  yield* lookForWaiting(offer, wake).pipe(Effect.forkScoped)
  const worker = yield* Queue.take(wakes).pipe(Effect.andThen(round), Effect.repeat({ until: () => stopping }), Effect.forkScoped)
  yield* Effect.addFinalizer(() => {
    stopping = true
    wake()
    for (const timer of timers) clearTimeout(timer)
    return Fiber.await(worker).pipe(Effect.andThen(FiberSet.awaitEmpty(attempts)), Effect.timeoutOption(graceMs))
  })
  return {
    wake: (deliveries) => {
      for (const { webhookId } of deliveries) {
        const url = subscriptions.urlOf(webhookId)
        if (url !== undefined) offer(webhookId, url)
      }
      wake()
    }
  } satisfies Sender
})

/** Finds, every now and then, what nobody here was told of, and gives up what too much waits behind. */
const lookForWaiting = (offer: (webhookId: string, url: string) => void, wake: () => void) => {
  let waiting = NaN
  gauge("tollgate_webhook_deliveries_waiting", `Deliveries to webhooks, of all gateways, that are still to be made; counted up to ${waitingCountMax}`, () => waiting)
  let page: string | undefined
  return Effect.gen(function*() {
    const { webhooks, next } = yield* waitingWebhooks(page, pageWebhooks)
    page = next
    for (const { webhookId, url, isDue } of webhooks) if (isDue) offer(webhookId, url)
    wake()
    const late = webhooks.filter(({ isLate }) => isLate).map(({ webhookId }) => webhookId)
    for (const webhookId of someOf(late, backlogsPerPage)) metrics.webhookDeliveries.inc({ outcome: "failed" }, yield* failBacklog(webhookId, backlogMax))
  }).pipe(
    Effect.repeat({ while: () => page !== undefined }),
    Effect.andThen(deliveriesWaiting(waitingCountMax)),
    Effect.map((count) => { waiting = count }),
    Effect.catchCause((cause) => Effect.sync(() => later(cause))),
    Effect.repeat(Schedule.spaced(lookEveryMs))
  )
}

interface Attempted {
  readonly wasSlow: boolean
  /** It is to be tried again then. */
  readonly retryMs: number | undefined
}

/** Posts the delivery, and writes how that ended. */
const attempt = Effect.fnUntraced(function*(dress: WebhookDress, courier: Courier, delivery: ClaimedDelivery) {
  const began = performance.now()
  const outcome = yield* deliver(dress, courier, delivery)
  const wasSlow = outcome.error !== undefined || performance.now() - began > slowMs
  // What is delivered and not marked would be delivered again.
  yield* settleDelivery(delivery, outcome).pipe(Effect.retry({ schedule: Schedule.spaced(markEveryMs), times: marksMax }))
  note(delivery, outcome)
  return { wasSlow, retryMs: outcome.retryMs }
})

const deliver = Effect.fnUntraced(function*(dress: WebhookDress, courier: Courier, delivery: ClaimedDelivery) {
  const failed = (error: string, status?: number): Outcome => ({ status, error, retryMs: retryMs(delivery.attempts) })
  const [secrets, guard] = [yield* Secrets, yield* UpstreamGuard]
  return yield* secrets.open(webhookSecretPurpose, delivery.webhookId, delivery.sealedSecret).pipe(
    Effect.flatMap((secret) => {
      const body = Buffer.from(dress.body(delivery))
      const signature = createHmac("sha256", secret).update(body).digest("hex")
      return courier.send({ url: delivery.url, trusted: guard.trusts(delivery.accountId), headers: dress.headers(delivery, signature), body })
    }),
    Effect.map((status): Outcome => isTaken(status) ? { status, error: undefined, retryMs: undefined } : failed(`status ${status}`, status)),
    Effect.catchTag("NotTaken", ({ why }) => Effect.succeed(failed(why))),
    Effect.catchDefect((defect) => Effect.sync(() => {
      log.error({ err: defect, delivery: delivery.id }, "a delivery can't be written")
      return failed("the delivery can't be written")
    }))
  )
})

const note = ({ id, webhookId, attempts }: ClaimedDelivery, { error, retryMs }: Outcome): void => {
  if (retryMs === undefined) metrics.webhookDeliveries.inc({ outcome: error === undefined ? "delivered" : "failed" })
  if (error !== undefined) log.debug({ delivery: id, webhook: webhookId, attempts, why: error }, retryMs === undefined ? "a delivery was given up" : "a delivery was not taken, will be tried again")
}

/** So many, any of them. */
const someOf = <A>(items: ReadonlyArray<A>, max: number): ReadonlyArray<A> => {
  const start = items.length <= max ? 0 : Math.floor(Math.random() * items.length)
  return [...items.slice(start), ...items.slice(0, start)].slice(0, max)
}
