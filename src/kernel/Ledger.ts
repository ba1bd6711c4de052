/**
 * What a person does with an account's money: see it, add to it. The rules are
 * in `domain/ledger.ts`; here each becomes a turn on the account and a commit.
 */
import { Context, Deferred, Effect, Layer } from "effect"
import { Config } from "../config.ts"
import type { Account, Hold, PendingOrder } from "../domain/account.ts"
import type { Credits } from "../domain/credits.ts"
import { InvalidRequest, NotFound, type StoreUnavailable } from "../domain/errors.ts"
import type { AccountId, TransactionId } from "../domain/ids.ts"
import { type Decided, decide } from "../domain/ledger.ts"
import { type ListedTransaction, listTransactions, postedEarnings } from "../store/LedgerStore.ts"
import { Postgres } from "../store/Postgres.ts"
import { type AccountError, Accounts, type CommitError } from "./AccountActor.ts"
import type { Caller } from "./Caller.ts"
import { newId } from "./Ids.ts"
import { type IdempotentCall, idempotencyRows } from "./Idempotency.ts"

export interface Balance {
  /** Free to spend. */
  readonly available: Credits
  /** Held by calls in flight, and reserved by pending orders. */
  readonly reserved: Credits
}

export type LedgerError = AccountError | CommitError | StoreUnavailable

const depositMax: Credits = 10_000_000_000n

/** At most this often an account's earnings are looked at on its own initiative. */
const sweepIntervalMs = 1_000

export class Ledger extends Context.Service<Ledger, {
  readonly balance: (accountId: AccountId) => Effect.Effect<Balance, LedgerError>
  readonly holds: (accountId: AccountId) => Effect.Effect<{ readonly holds: ReadonlyArray<Hold>; readonly orders: ReadonlyArray<PendingOrder> }, LedgerError>
  readonly transactions: (accountId: AccountId, limit: number, after: string | undefined) => Effect.Effect<ReadonlyArray<ListedTransaction>, StoreUnavailable>
  /** Adds test money: > 0 and ≤ $10,000. Durable when answered. `NotFound` unless the operator allows it. */
  readonly depositTest: (caller: Caller, amount: Credits, idempotency: IdempotentCall | undefined) => Effect.Effect<Balance, LedgerError | InvalidRequest>
  /** Money from the operator, e.g. the demo's. Durable when answered. */
  readonly grant: (accountId: AccountId, amount: Credits, reference: string) => Effect.Effect<void, LedgerError>
  /** Moves posted earnings to available credits; at most once a second for an account, unless it is urgent. Answers what was moved, to all who asked while it was. */
  readonly sweep: (accountId: AccountId, isUrgent?: boolean) => Effect.Effect<Credits, LedgerError>
}>()("tollgate/kernel/Ledger") {
  static readonly layer = Layer.effect(Ledger, Effect.gen(function*() {
    const accounts = yield* Accounts
    const postgres = yield* Postgres
    const settings = yield* Config
    const sweeps = new Map<AccountId, number>()
    /** Two sweeps at once would move the same earnings; who comes meanwhile gets the outcome of the one. */
    const underWay = new Map<AccountId, Deferred.Deferred<Credits, LedgerError>>()

    const sweep = (accountId: AccountId, isUrgent = false): Effect.Effect<Credits, LedgerError> => Effect.suspend(() => {
      const same = underWay.get(accountId)
      if (same !== undefined) return Deferred.await(same)
      const nowMs = Date.now()
      if (!isUrgent && nowMs - (sweeps.get(accountId) ?? 0) < sweepIntervalMs) return Effect.succeed(0n)
      forgetOld(sweeps, nowMs)
      sweeps.set(accountId, nowMs)
      const sweeping = Deferred.makeUnsafe<Credits, LedgerError>()
      underWay.set(accountId, sweeping)
      // The others wait for this one, so it goes on when its own caller leaves.
      return moveEarnings(accountId).pipe(
        Effect.onExit((exit) => {
          underWay.delete(accountId)
          return Deferred.done(sweeping, exit)
        }),
        Effect.uninterruptible
      )
    })

    const moveEarnings = Effect.fn("Ledger.moveEarnings")(function*(accountId: AccountId) {
      const posted = yield* postedEarnings(accountId).pipe(Effect.provideService(Postgres, postgres))
      for (const { earnerId, amount } of posted) {
        yield* accounts.act(accountId, (account, atMs) => {
          const outcome = decide(account, { _tag: "Sweep", transactionId: newId(), amount, earnerId }, atMs) as Decided
          return accounts.commit(account, { transactions: [outcome.transaction!] }, outcome)
        })
      }
      return posted.reduce((sum, { amount }) => sum + amount, 0n)
    })

    const balance = Effect.fn("Ledger.balance")(function*(accountId: AccountId) {
      yield* sweep(accountId)
      return yield* accounts.ask(accountId, balanceOf)
    })

    return Ledger.of({
      balance,
      sweep,
      holds: (accountId) => accounts.ask(accountId, (account) => ({ holds: [...account.holds.values()], orders: [...account.orders.values()] })),
      transactions: (accountId, limit, after) => listTransactions(accountId, limit, after).pipe(Effect.provideService(Postgres, postgres)),
      grant: (accountId, amount, reference) => accounts.act(accountId, (account, nowMs) => {
        const outcome = decide(account, { _tag: "Deposit", transactionId: newId(), amount, type: "adjustment", reference }, nowMs) as Decided
        return accounts.commit(account, { transactions: [outcome.transaction!] }, outcome)
      }),
      depositTest: Effect.fn("Ledger.depositTest")(function*(caller, amount, idempotency) {
        if (!settings.enableTestCredits) return yield* new NotFound({ what: "route", id: "deposit-test" })
        if (amount <= 0n || amount > depositMax) {
          return yield* new InvalidRequest({ malformed: false, issues: [{ loc: ["body", "amount"], msg: "must be more than 0 and at most 10000" }] })
        }
        return yield* accounts.act(caller.accountId, (account, nowMs) => {
          const transactionId = newId<TransactionId>()
          const outcome = decide(account, { _tag: "Deposit", transactionId, amount, type: "deposit", reference: "test credits" }, nowMs) as Decided
          const before = balanceOf(account)
          const after: Balance = { ...before, available: before.available + amount }
          return accounts.commit(account, {
            transactions: [outcome.transaction!],
            idempotency: idempotencyRows(idempotency, transactionId, after, nowMs)
          }, outcome).pipe(Effect.as(after))
        })
      })
    })
  }))
}

/** What other nodes have leased is free to spend: their calls and ours alike, as far as they have told. */
const balanceOf = (account: Account): Balance => {
  let [leased, spent] = [0n, 0n]
  for (const lease of account.leases.values()) {
    leased += lease.amount
    spent += lease.spent ?? 0n
  }
  return { available: account.available - account.held + leased - spent, reserved: account.held - leased + account.reserved }
}

const forgetOld = (sweeps: Map<AccountId, number>, nowMs: number): void => {
  if (sweeps.size < 10_000) return
  for (const [id, atMs] of sweeps) if (nowMs - atMs >= sweepIntervalMs) sweeps.delete(id)
}
