/**
 * Money of the market's buyers: what they have, what they announce to pay in,
 * and what an operator credits them with.
 */
import { Context, Effect, Layer } from "effect"
import { timingSafeEqual } from "node:crypto"
import { Config } from "../../config.ts"
import { type Credits, microPerUsd } from "../../domain/credits.ts"
import { type GatewayError, NotConfigured, NotFound, NotOwner, type RuleBroken, Unauthenticated } from "../../domain/errors.ts"
import type { AccountId } from "../../domain/ids.ts"
import { type Decided, decide } from "../../domain/ledger.ts"
import { addDeposit, findTotals } from "../../store/market/DepositStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { UsageBuffer } from "../../store/UsageBuffer.ts"
import { Accounts } from "../AccountActor.ts"
import { auditRow } from "../AuditTrail.ts"
import type { Caller } from "../Caller.ts"
import { newId } from "../Ids.ts"
import { hashOfKey } from "../identity/Credentials.ts"
import { Throttle } from "../identity/Throttle.ts"
import { Ledger } from "../Ledger.ts"
import { Owners } from "./Owners.ts"
import { broken } from "./rules.ts"

export interface BuyerBalance {
  readonly buyer: string
  readonly available: Credits
  readonly deposited: Credits
  readonly spent: Credits
}
export interface PendingDeposit {
  readonly id: string
  readonly amount: Credits
}
export interface Credited {
  readonly buyer: string
  readonly amount: Credits
  readonly available: Credits
}

/** Of one deposit or credit. */
const amountMax: Credits = 10_000n * microPerUsd

const checkAmount = (amount: Credits): Effect.Effect<void, RuleBroken> => amount > 0n && amount <= amountMax ? Effect.void
  : Effect.fail(broken("amount", "must be more than 0 and at most 10000"))

export class Deposits extends Context.Service<Deposits, {
  /** A buyer's own; `NotOwner` for any other, whether there is one or not. */
  readonly balance: (caller: Caller, buyer: string) => Effect.Effect<BuyerBalance, GatewayError>
  /** Notes that the buyer wants to pay in. Nothing is credited before it is paid. */
  readonly announce: (caller: Caller, buyer: string, amount: Credits) => Effect.Effect<PendingDeposit, GatewayError>
  /** By whoever knows the operator's secret. Durable when answered; not idempotent. */
  readonly credit: (secret: string, remoteAddress: string, buyer: string, amount: Credits) => Effect.Effect<Credited, GatewayError>
}>()("tollgate/kernel/market/Deposits") {
  static readonly layer = Layer.effect(Deposits, Effect.gen(function*() {
    const accounts = yield* Accounts
    const ledger = yield* Ledger
    const owners = yield* Owners
    const postgres = yield* Postgres
    const throttle = yield* Throttle
    const usage = yield* UsageBuffer
    const { acfAdminSecret } = yield* Config

    const own = Effect.fnUntraced(function*(caller: Caller, buyer: string) {
      const name = yield* owners.nameOf(caller.accountId)
      return name === buyer ? name : yield* new NotOwner({ what: "account", id: buyer })
    })
    const prove = (secret: string): Effect.Effect<void, NotConfigured | Unauthenticated> => {
      if (acfAdminSecret === undefined) return Effect.fail(new NotConfigured({ setting: "ACF_ADMIN_SECRET" }))
      return timingSafeEqual(hashOfKey(secret), hashOfKey(acfAdminSecret)) ? Effect.void : Effect.fail(new Unauthenticated({ reason: secret === "" ? "missing" : "invalid" }))
    }
    const deposit = (accountId: AccountId, amount: Credits) => accounts.act(accountId, (account, nowMs) => {
      const outcome = decide(account, { _tag: "Deposit", transactionId: newId(), amount, type: "adjustment", reference: "credited by the operator" }, nowMs) as Decided
      return accounts.commit(account, {
        transactions: [outcome.transaction!],
        audit: [{ id: newId(), actor: "operator", action: "account.credit", target: accountId, details: { transaction_id: outcome.transaction!.id, amount: String(amount) }, atMs: nowMs }]
      }, outcome)
    })

    return Deposits.of({
      balance: Effect.fn("Deposits.balance")(function*(caller, buyer) {
        const name = yield* own(caller, buyer)
        yield* usage.flush
        const totals = yield* findTotals(caller.accountId).pipe(Effect.provideService(Postgres, postgres))
        const { available } = yield* ledger.balance(caller.accountId)
        return { buyer: name, available, ...totals }
      }),
      announce: Effect.fn("Deposits.announce")(function*(caller, buyer, amount) {
        yield* own(caller, buyer)
        yield* checkAmount(amount)
        const id = newId()
        const atMs = Date.now()
        yield* addDeposit({ id, accountId: caller.accountId, amount, atMs, audit: auditRow(caller, "deposit.announce", id, atMs, { amount: String(amount) }) }).pipe(
          Effect.provideService(Postgres, postgres)
        )
        return { id, amount }
      }),
      credit: Effect.fn("Deposits.credit")(function*(secret, remoteAddress, buyer, amount) {
        yield* throttle.key(remoteAddress, prove(secret))
        yield* checkAmount(amount)
        const accountId = yield* owners.find(buyer)
        if (accountId === undefined) return yield* new NotFound({ what: "buyer", id: buyer })
        const { available } = yield* accounts.borrowed(accountId, Effect.andThen(deposit(accountId, amount), ledger.balance(accountId)))
        return { buyer, amount, available }
      })
    })
  }))
}
