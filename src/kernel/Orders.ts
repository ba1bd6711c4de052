/**
 * Paid orders: the price is reserved and durable before the 201, then the agent
 * is asked, then the order is completed (and shared out) or failed (and
 * refunded in full).
 *
 *     create ─commit─▶ pending ─┬─ agent answered 2xx ─commit─▶ completed
 *                               └─ anything else ──────commit─▶ failed, refunded
 *
 * Guarantee. Every order ends in exactly one of the two, with exactly one
 * charge or one refund, and its agent is asked at most once.
 *
 * Failure cases. The node dies: the order still carries the token of the
 * activation that ran it; the next activation of the account, which has a
 * higher one, fails and refunds it, and never sends it again. A final commit
 * that is refused or in doubt is decided again on the re-activated account,
 * which knows whether the order is still pending. On the same node an order
 * outlives re-activations: `running` tells it from an orphan. The account moves
 * to another node: that waits a moment for the order's end; after it the next
 * owner has failed and refunded the order, and its end is nobody's here. Pending
 * orders that came with a shard, e.g. of a node that died, are recovered when it
 * arrives.
 *
 * An order with files is created when its form has begun, and answered when the
 * form is complete. A form that breaks off or is refused on the way fails its
 * order, and is refused when the refund is durable; when the agent has completed
 * the order without the rest of its form, it stands.
 */
import { Context, Effect, Fiber, Layer, Queue, Schedule } from "effect"
import { createHash } from "node:crypto"
import { Placement } from "../actor/Placement.ts"
import { limits } from "../config.ts"
import type { Account, PendingOrder } from "../domain/account.ts"
import { type Agent, isCallable } from "../domain/agent.ts"
import { AgentPaused, BodyTooLarge, type BudgetExceeded, Draining, type GatewayError, InputNotAccepted, type InsufficientCredits, NotFound, Overloaded, StoreUnavailable } from "../domain/errors.ts"
import type { AccountId, OrderId, TransactionId } from "../domain/ids.ts"
import { decide, isRefusal } from "../domain/ledger.ts"
import type { OrderAnswer } from "../domain/order.ts"
import { isDue, share, splitOf } from "../domain/terms.ts"
import { accountsWithPendingOrders } from "../store/AccountStore.ts"
import { type OrderStatus, type StoredOrder, findOrder, listOrders } from "../store/OrderStore.ts"
import { Postgres } from "../store/Postgres.ts"
import { log } from "../telemetry/log.ts"
import { gauge, metrics } from "../telemetry/Metrics.ts"
import { type AccountError, Accounts, type CommitError } from "./AccountActor.ts"
import { Agents } from "./AgentActor.ts"
import type { Caller } from "./Caller.ts"
import { newId } from "./Ids.ts"
import { type IdempotentCall, idempotencyRows } from "./Idempotency.ts"
import { Spending } from "./lease/Spending.ts"
import { OrderRun, type Ran, promptBody } from "./OrderRun.ts"
import { OrderUpload, type UploadedFiles } from "./OrderUpload.ts"
import type { Header } from "./Relay.ts"

export type OrderView = StoredOrder

export interface NewOrder {
  /** Id or ticker. */
  readonly agent: string
  readonly prompt: string
  readonly paymentMethod: string
  /** The caller's trace context: the agent gets it. */
  readonly trace: ReadonlyArray<Header>
}

export type OrderError = AccountError | CommitError | StoreUnavailable | AgentPaused | InsufficientCredits | BudgetExceeded | InputNotAccepted | BodyTooLarge | Overloaded | Draining

interface Reserved {
  readonly order: PendingOrder
  readonly view: OrderView
}

export class Orders extends Context.Service<Orders, {
  /** Durable when answered; the agent is asked afterwards. */
  readonly create: (caller: Caller, wanted: NewOrder, idempotency: IdempotentCall | undefined) => Effect.Effect<OrderView, OrderError>
  /** The price is durable before the agent is asked; answered when the form is complete. Any error leaves nothing charged. */
  readonly createWithFiles: (caller: Caller, wanted: NewOrder, files: UploadedFiles, idempotency: IdempotentCall | undefined) => Effect.Effect<OrderView, GatewayError>
  readonly get: (caller: Caller, id: string) => Effect.Effect<OrderView, NotFound | StoreUnavailable>
  readonly list: (caller: Caller, query: { readonly status: OrderStatus | undefined; readonly limit: number; readonly after: string | undefined }) =>
    Effect.Effect<ReadonlyArray<OrderView>, StoreUnavailable>
  /** Activates every account of this node that a crash left with pending orders, which fails and refunds them. Answers how many accounts. */
  readonly recover: Effect.Effect<number, StoreUnavailable>
  /** Takes no new orders and waits for the running ones, at most `drainMs`. */
  readonly drain: Effect.Effect<void>
}>()("tollgate/kernel/Orders") {
  static readonly layer = Layer.effect(Orders, Effect.gen(function*() {
    const accounts = yield* Accounts
    const agents = yield* Agents
    const spending = yield* Spending
    const orderRun = yield* OrderRun
    const placement = yield* Placement
    const postgres = yield* Postgres
    const running = new Map<OrderId, AccountId>()
    const recovering = new Set<OrderId>()
    let draining = false
    let onIdle: (() => void) | undefined
    gauge("tollgate_orders_running", "Orders whose agent is being asked by this node", () => running.size)

    const ended = (id: OrderId): void => {
      running.delete(id)
      if (running.size === 0) onIdle?.()
    }

    const isElsewhere = (accountId: AccountId): boolean => typeof placement.locate(accountId) !== "string"

    /** Ends an order, again and again until the account knows it as ended. False: that is another node's to do. */
    const finish = (accountId: AccountId, order: PendingOrder, agent: Agent | undefined, answer: OrderAnswer, status: number): Effect.Effect<boolean> =>
      accounts.act(accountId, (account, nowMs): Effect.Effect<void, CommitError> => finishOnce(accounts, account, order, agent, answer, status, nowMs)).pipe(
        Effect.retry({ while: (error) => error._tag !== "NotFound" && !isElsewhere(accountId), schedule: Schedule.spaced(500) }),
        Effect.as(true),
        Effect.catch((error) => Effect.sync(() => {
          log.error({ orderId: order.id, tag: error._tag }, isElsewhere(accountId) ? "the order's account has moved: its owner refunds it" : "order could not be ended")
          return false
        }))
      )

    accounts.onActivated((account) => {
      for (const order of account.orders.values()) {
        if (running.has(order.id) || recovering.has(order.id)) continue
        recovering.add(order.id)
        metrics.callsLostToCrash.inc()
        log.warn({ orderId: order.id, accountId: account.id }, "order lost to a crash: failed and refunded")
        setImmediate(() => Effect.runFork(
          finish(account.id, order, undefined, { _tag: "failed", error: "the gateway stopped while the order ran" }, 503)
            .pipe(Effect.ensuring(Effect.sync(() => recovering.delete(order.id))))
        ))
      }
    })

    /** `ran` is how it comes to its end. */
    const run = (accountId: AccountId, order: PendingOrder, agent: Agent, ran: Effect.Effect<Ran>): Fiber.Fiber<Ran> =>
      Effect.runFork(ran.pipe(
        Effect.flatMap((ended) => Effect.map(finish(accountId, order, agent, ended.answer, ended.status), (isEnded) => isEnded ? ended : undone)),
        Effect.ensuring(Effect.sync(() => ended(order.id)))
      ))

    const reserve = (caller: Caller, wanted: NewOrder, agent: Agent, idempotency: IdempotentCall | undefined) =>
      spending.withMoney(caller, agent.price, accounts.act(caller.accountId, (account, nowMs): Effect.Effect<Reserved, CommitError | InsufficientCredits | BudgetExceeded | Overloaded> => {
        if (account.orders.size >= limits.ordersRunningPerAccountMax) return Effect.fail(new Overloaded({ what: "orders running", retryAfterMs: 1_000 }))
        const order: PendingOrder = {
          id: newId<OrderId>(), subjectId: caller.subjectId, agentId: agent.id, agent: agent.ticker, amount: agent.price, createdAtMs: nowMs
        }
        const outcome = decide(account, { _tag: "Reserve", transactionId: newId<TransactionId>(), order }, nowMs)
        if (isRefusal(outcome)) return Effect.fail(outcome as InsufficientCredits | BudgetExceeded)
        const view = viewOf(order, agent, wanted)
        running.set(order.id, caller.accountId)
        return accounts.commit(account, {
          transactions: [outcome.transaction!],
          budgets: outcome.budgets,
          orders: [{ ...order, fee: view.fee, prompt: wanted.prompt, paymentMethod: wanted.paymentMethod }],
          idempotency: idempotencyRows(idempotency, order.id, view, nowMs)
        }, outcome).pipe(
          Effect.onError(() => Effect.sync(() => {
            ended(order.id)
            // Of unknown outcome: if it was durable after all, the next activation finds and refunds it.
            accounts.forget(caller.accountId)
          })),
          Effect.as({ order, view })
        )
      }))

    /** The agent, when orders are taken at all and by it. */
    const callable = Effect.fnUntraced(function*(wanted: NewOrder) {
      if (draining) return yield* new Draining({ retryAfterMs: 1_000 })
      if (!accounts.writable()) return yield* new StoreUnavailable({ retryAfterMs: 1_000 })
      const agent = yield* agents.find(wanted.agent)
      return isCallable(agent) ? agent : yield* new AgentPaused({ agent: agent.ticker })
    })

    const recover = accountsWithPendingOrders.pipe(
      Effect.provideService(Postgres, postgres),
      Effect.map((ids) => ids.filter((id) => placement.locate(id) === "local")),
      Effect.tap((ids) => Effect.forEach(ids, (id) => accounts.ask(id, () => {}).pipe(
        Effect.catch((error) => error._tag === "NotFound" || placement.locate(id) !== "local" ? Effect.void : Effect.fail(new StoreUnavailable({ retryAfterMs: 1_000 })))
      ), { concurrency: 4 })),
      Effect.map((ids) => ids.length)
    )
    yield* recoverWhenMoved(placement, recover)

    return Orders.of({
      create: Effect.fn("Orders.create")(function*(caller, wanted, idempotency) {
        const agent = yield* callable(wanted)
        if (agent.manifest?.input?.type === "multipart") return yield* new InputNotAccepted({ wanted: "multipart" })
        const bytesMax = agent.manifest?.input?.max_size_bytes ?? Infinity
        if (Buffer.byteLength(wanted.prompt) > bytesMax) return yield* new BodyTooLarge({ bytesMax })
        const { order, view } = yield* reserve(caller, wanted, agent, idempotency)
        run(caller.accountId, order, agent, orderRun.ask(agent, caller.accountId, order.id, promptBody(wanted.prompt), wanted.trace))
        return view
      }),
      createWithFiles: Effect.fn("Orders.createWithFiles")(function*(caller, wanted, files, idempotency) {
        const agent = yield* callable(wanted)
        const upload = new OrderUpload(agent)
        const refusal = upload.refusal(wanted.prompt, files.begun)
        if (refusal !== undefined) return yield* refusal
        const { order, view } = yield* reserve(caller, wanted, agent, idempotency)
        const asked = orderRun.ask(agent, caller.accountId, order.id, upload, wanted.trace)
        const running = run(caller.accountId, order, agent, Effect.raceFirst(asked, upload.brokenOff))
        upload.start(wanted.prompt, files)
        const error = yield* Effect.promise(() => upload.received)
        if (error === undefined) return view
        const { answer } = yield* Fiber.join(running)
        return answer._tag === "completed" ? view : yield* error
      }),
      get: (caller, id) => findOrder(caller.accountId, id).pipe(
        Effect.provideService(Postgres, postgres),
        Effect.flatMap((order) => order === undefined ? Effect.fail(new NotFound({ what: "order", id })) : Effect.succeed(order))
      ),
      list: (caller, { status, limit, after }) => listOrders(caller.accountId, status, limit, after).pipe(Effect.provideService(Postgres, postgres)),
      recover,
      drain: Effect.suspend(() => {
        draining = true
        if (running.size === 0) return Effect.void
        return Effect.callback<void>((resume) => { onIdle = () => resume(Effect.void) }).pipe(Effect.timeoutOption(limits.drainMs), Effect.asVoid)
      })
    })
  }))
}

/** How an order ends whose account has moved away. */
const undone: Ran = { answer: { _tag: "failed", error: "the gateway stopped while the order ran" }, status: 503 }

/** Whenever places have changed, one time for all that changed meanwhile; until it has succeeded. */
const recoverWhenMoved = Effect.fnUntraced(function*(placement: Placement["Service"], recover: Effect.Effect<unknown, StoreUnavailable>) {
  const moved = yield* Queue.sliding<void>(1)
  placement.onMoved(() => { Queue.offerUnsafe(moved, undefined) })
  yield* Queue.take(moved).pipe(
    Effect.andThen(recover.pipe(Effect.retry(Schedule.spaced(1_000)))),
    Effect.forever,
    Effect.forkScoped
  )
})

/** One attempt, on the activation that is current now. An order it no longer has is ended already. */
const finishOnce = (
  accounts: Accounts["Service"], account: Account, order: PendingOrder, agent: Agent | undefined, answer: OrderAnswer, status: number, nowMs: number
): Effect.Effect<void, CommitError> => {
  const transactionId = newId<TransactionId>()
  const completed = answer._tag === "completed" && agent !== undefined
  const outcome = completed
    ? decide(account, { _tag: "Complete", transactionId, orderId: order.id, earnerId: agent.ownerId, split: splitOf(agent, nowMs) }, nowMs)
    : decide(account, { _tag: "Refund", transactionId, orderId: order.id }, nowMs)
  if (isRefusal(outcome)) return Effect.void
  const outputText = answer._tag === "completed" ? answer.outputText : undefined
  return accounts.commit(account, {
    transactions: [outcome.transaction!],
    budgets: outcome.budgets,
    finished: [{
      id: order.id,
      status: completed ? "completed" : "failed",
      fee: outcome.transaction!.fee,
      outputHash: outputText === undefined ? undefined : `sha256:${createHash("sha256").update(outputText).digest("hex")}`,
      outputText,
      error: answer._tag === "failed" ? answer.error : undefined,
      completedAtMs: nowMs
    }],
    usage: [{
      id: transactionId, accountId: account.id, subjectId: order.subjectId, agentId: order.agentId, call: "order", status,
      cost: completed ? order.amount : 0n, latencyMs: Math.max(0, nowMs - order.createdAtMs), atMs: nowMs,
      due: completed && isDue(agent, status) ? { fee: outcome.transaction!.fee, recorded: false } : undefined
    }]
  }, outcome).pipe(Effect.map(() => metrics.orders.inc({ status: completed ? "completed" : "failed" })))
}

const viewOf = (order: PendingOrder, agent: Agent, wanted: NewOrder): OrderView => ({
  id: order.id, agentId: agent.id, status: "pending", prompt: wanted.prompt, paymentMethod: wanted.paymentMethod,
  amount: order.amount, fee: share(order.amount, splitOf(agent, order.createdAtMs)).fee, outputHash: undefined, outputText: undefined, error: undefined,
  createdAt: new Date(order.createdAtMs), completedAt: undefined
})
