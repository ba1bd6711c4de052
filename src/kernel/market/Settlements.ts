/**
 * Settlements: what a provider is owed for a period, and that it was paid
 * (contracts/acf.md, Settlements).
 *
 *   pending ──pay──▶ completed          (`processing` and `failed` are set by hand)
 *
 * Guarantee. A call is in at most one settlement, and a settlement is paid at
 * most once, whoever asks on whatever node. Of calls that were charged in
 * credits the provider has had its part since the call; paying takes it from its
 * credits, in the very commit that completes the settlement, so that it is never
 * had twice. Nobody's commission changes afterwards: each due has its own fee.
 *
 * Failure cases. A call that began in the period and is written after the
 * settlement belongs to a later one whose period overlaps. A provider that has
 * spent what it was credited can't be paid until it is back. An account that is
 * suspended is paid like any other: the row says that the money has left, and
 * the books must not say otherwise. Two nodes that pay at once take the account
 * from each other; who was refused looks again, and finds it completed.
 */
import { Context, Effect, Layer, Schedule, Semaphore } from "effect"
import { type Commission, commissionAt } from "../../domain/commission.ts"
import { formatUsd } from "../../domain/credits.ts"
import { type InsufficientCredits, NotCommitted, NotFound, type RuleBroken, type StoreUnavailable } from "../../domain/errors.ts"
import type { AccountId, TransactionId } from "../../domain/ids.ts"
import { type Decided, decide, isRefusal } from "../../domain/ledger.ts"
import { type SettlementStatus, settlementStatuses } from "../../domain/settlement.ts"
import { findProviderSince } from "../../store/AgentStore.ts"
import { type Settlement, createSettlement, findSettlement, listSettlements } from "../../store/market/SettlementStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { UsageBuffer } from "../../store/UsageBuffer.ts"
import { type AccountError, Accounts, type CommitAborted, type CommitError } from "../AccountActor.ts"
import { auditRow } from "../AuditTrail.ts"
import type { Caller } from "../Caller.ts"
import { newId } from "../Ids.ts"
import { Ledger, type LedgerError } from "../Ledger.ts"
import { Webhooks } from "../webhooks/Webhooks.ts"
import { roleOf } from "./Keys.ts"
import { Owners } from "./Owners.ts"
import { broken } from "./rules.ts"

export interface NewPeriod {
  /** A name, or an account's id. */
  readonly provider: string
  readonly startMs: number
  readonly endMs: number
}

export interface SettlementFilter {
  /** For admins; others see their own whatever they ask for. */
  readonly provider: string | undefined
  readonly status: string | undefined
  readonly limit: number
}

export interface ProviderCommission {
  readonly provider: string
  /** `undefined`: it has registered no service yet. */
  readonly registered: { readonly sinceMs: number; readonly commission: Commission } | undefined
}

type PayError = LedgerError | NotFound

/** Of a commit that another node's, or a neighbour's, took the account away from. */
const again = Schedule.exponential("20 millis").pipe(Schedule.jittered)
const attemptsMore = 4

const missing = ({ required, available }: InsufficientCredits): RuleBroken => broken("settlement", `the provider has spent what it was credited: `
  + `it has ${formatUsd(available)} of ${formatUsd(required)}, ${formatUsd(required - available)} are missing`)

export class Settlements extends Context.Service<Settlements, {
  /** Settles every call of the period that no other settlement has. Durable when answered. A provider that nobody knows has no calls. */
  readonly create: (caller: Caller, wanted: NewPeriod) => Effect.Effect<Settlement, RuleBroken | StoreUnavailable>
  /** Newest first: an admin's key sees all, any other its own account's. */
  readonly list: (caller: Caller, filter: SettlementFilter) => Effect.Effect<ReadonlyArray<Settlement>, RuleBroken | AccountError>
  /** Durable when answered, with what it takes from the provider's credits. `NotFound`: no such settlement, or paid already. `RuleBroken`: too little is left there; nothing was changed. */
  readonly pay: (caller: Caller, id: string, paymentTx: string) => Effect.Effect<void, RuleBroken | PayError>
  readonly commission: (provider: string) => Effect.Effect<ProviderCommission, StoreUnavailable>
}>()("tollgate/kernel/market/Settlements") {
  static readonly layer = Layer.effect(Settlements, Effect.gen(function*() {
    const accounts = yield* Accounts
    const ledger = yield* Ledger
    const owners = yield* Owners
    const postgres = yield* Postgres
    const usage = yield* UsageBuffer
    const webhooks = yield* Webhooks

    /** Two commits of one batch that pay the same settlement would take each other along. */
    const paying = yield* Semaphore.make(1)

    /** A provider by the one name that its settlements have, however it was asked for. */
    const providerOf = Effect.fnUntraced(function*(name: string) {
      const accountId = yield* owners.find(name)
      return { accountId, name: accountId === undefined ? name : yield* owners.nameOf(accountId) }
    })

    const isAdmin = (caller: Caller): Effect.Effect<boolean, AccountError> =>
      accounts.ask(caller.accountId, (account) => roleOf(account.subjects.get(caller.subjectId)?.scopes ?? []) === "admin")

    const create = Effect.fn("Settlements.create")(function*(caller: Caller, { provider, startMs, endMs }: NewPeriod) {
      if (startMs >= endMs) return yield* broken("period_start", "must be before period_end")
      yield* usage.flush
      const { accountId, name } = yield* providerOf(provider)
      const [id, atMs] = [newId<string>(), Date.now()]
      const audit = auditRow(caller, "settlement.create", id, atMs, { provider: name, period_start: new Date(startMs), period_end: new Date(endMs) })
      const settlement = yield* createSettlement({ id, provider: name, accountId, startMs, endMs, atMs }, accountId ?? caller.accountId, audit)
      return settlement ?? (yield* broken("period_start", "the provider has a settlement of this period already"))
    }, Effect.provideService(Postgres, postgres))

    const list = Effect.fn("Settlements.list")(function*(caller: Caller, { provider, status, limit }: SettlementFilter) {
      if (status !== undefined && !isStatus(status)) return yield* broken("status", `must be one of ${settlementStatuses.join(", ")}`)
      if (!(yield* isAdmin(caller))) return yield* listSettlements({ accountId: caller.accountId, provider: undefined, status, limit })
      const name = provider === undefined ? undefined : (yield* providerOf(provider)).name
      return yield* listSettlements({ accountId: undefined, provider: name, status, limit })
    }, Effect.provideService(Postgres, postgres))

    /** One look and one commit: on the provider's account, or the admin's own when nobody is to be paid. `afresh`: nothing is believed that this node remembers of it. */
    const payOnce = Effect.fnUntraced(function*(caller: Caller, id: string, paymentTx: string, afresh: boolean) {
      const settlement = yield* findSettlement(id)
      if (settlement === undefined || !isPayable(settlement)) return yield* new NotFound({ what: "settlement", id })
      const { credited, accountId = caller.accountId } = settlement
      const swept = Effect.suspend(() => {
        if (afresh) accounts.forget(accountId)
        return credited > 0n ? ledger.sweep(accountId, true) : Effect.void
      })
      const paid = accounts.act(accountId, (account, nowMs): Effect.Effect<void, CommitError | CommitAborted | InsufficientCredits> => {
        const outcome = credited === 0n ? undefined
          : decide(account, { _tag: "Withdraw", transactionId: newId<TransactionId>(), amount: credited, type: "withdrawal", reference: `settlement ${id}` }, nowMs)
        if (outcome !== undefined && isRefusal(outcome)) return Effect.fail(outcome as InsufficientCredits)
        const deliveries = settlement.accountId === undefined ? []
          : webhooks.deliveriesOf("settlement.completed", [accountId], factsOf(settlement, accountId, paymentTx), nowMs)
        return accounts.tryCommit(account, {
          ...(outcome?.transaction === undefined ? {} : { transactions: [outcome.transaction] }),
          paidSettlements: [{ id, paymentTx, atMs: nowMs }],
          deliveries,
          audit: [auditRow(caller, "settlement.pay", id, nowMs, { payment_tx: paymentTx, credited: formatUsd(credited) })]
        }, outcome as Decided | undefined).pipe(Effect.tap(() => Effect.sync(() => webhooks.wake(deliveries))))
      })
      yield* accounts.borrowed(accountId, Effect.andThen(swept, paid))
    }, Effect.provideService(Postgres, postgres))

    const pay = (caller: Caller, id: string, paymentTx: string, afresh: boolean): Effect.Effect<void, PayError | InsufficientCredits> => paying.withPermit(payOnce(caller, id, paymentTx, afresh)).pipe(
      // Certainly not done: paid meanwhile, or refused with a neighbour. The next look tells which.
      Effect.retry({ schedule: again, times: attemptsMore, while: ({ _tag }) => _tag === "NotCommitted" || _tag === "CommitAborted" }),
      Effect.catchTag("CommitAborted", () => Effect.fail(new NotCommitted({ retryAfterMs: 1_000 })))
    )

    return Settlements.of({
      create,
      list,
      pay: Effect.fn("Settlements.pay")((caller: Caller, id: string, paymentTx: string) => pay(caller, id, paymentTx, false).pipe(
        // What another node has written meanwhile counts too.
        Effect.catchTag("InsufficientCredits", () => pay(caller, id, paymentTx, true)),
        Effect.catchTag("InsufficientCredits", (short) => Effect.fail(missing(short)))
      )),
      commission: Effect.fn("Settlements.commission")(function*(provider) {
        const { accountId, name } = yield* providerOf(provider)
        const sinceMs = accountId === undefined ? undefined : yield* findProviderSince(accountId)
        return { provider: name, registered: sinceMs === undefined ? undefined : { sinceMs, commission: commissionAt(sinceMs, Date.now()) } }
      }, Effect.provideService(Postgres, postgres))
    })
  }))
}

/** What is told of it: amounts in micro-dollars. */
const factsOf = ({ id, total, fee }: Settlement, provider: AccountId, paymentTx: string) =>
  ({ settlement_id: id, provider, total: String(total), fee: String(fee), net: String(total - fee), payment_tx: paymentTx })

const isStatus = (text: string): text is SettlementStatus => settlementStatuses.some((status) => status === text)
const isPayable = ({ status }: Settlement): boolean => status === "pending" || status === "processing"
