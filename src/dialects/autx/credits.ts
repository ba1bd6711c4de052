/** Credits: the prepaid balance that pays for everything. */
import { Effect } from "effect"
import type { TransactionType } from "../../domain/account.ts"
import type { Credits } from "../../domain/credits.ts"
import { endpoint } from "../../http/endpoint.ts"
import { Ledger } from "../../kernel/Ledger.ts"
import { commitErrors } from "./errors.ts"
import { later } from "./later.ts"
import { page } from "./page.ts"
import * as wire from "./wire.ts"

const tag = "Credits"

/** The reference's words for what moved the spendable balance. An operator's adjustment is told by its direction. */
const wireTypes: Readonly<Record<TransactionType, (amount: Credits) => typeof wire.Transaction.Type["type"]>> = {
  deposit: () => "deposit",
  withdrawal: () => "withdrawal",
  charge: () => "charge",
  reserve: () => "charge",
  complete: () => "charge",
  refund: () => "refund",
  earning: () => "earning",
  fee: () => "fee",
  adjustment: (amount) => amount < 0n ? "withdrawal" : "deposit"
}

export const credits = [
  endpoint({
    id: "autx.credits.balance", method: "GET", path: "/credits/balance",
    docs: { summary: "Get your credit balance", description: "The balance excludes what is reserved.", tag },
    success: wire.Balance, errors: commitErrors,
    handle: (_, { caller }) => Ledger.use((ledger) => ledger.balance(caller.accountId)),
    view: ({ available, reserved }) => ({ balance_usd: available, reserved_usd: reserved, available_usdc: available, reserved_usdc: reserved })
  }),
  endpoint({
    id: "autx.credits.holds", method: "GET", path: "/credits/holds",
    docs: { summary: "List what your credits are reserved for", description: "Calls in flight and chat sessions, then pending orders, oldest first.", tag },
    query: wire.LimitQuery, success: wire.Holds, errors: commitErrors,
    handle: ({ query }, { caller }) => Ledger.use((ledger) => ledger.holds(caller.accountId)).pipe(Effect.map(({ holds, orders }) => [
      ...holds.map(({ id, amount, call, agent, sessionId, expiresAtMs }) => ({ id, amount_usd: amount, call, agent_ticker: agent, session_id: sessionId, expires_at: new Date(expiresAtMs) })),
      ...orders.map(({ id, amount, agent }) => ({ id, amount_usd: amount, call: "order", agent_ticker: agent, expires_at: null }))
    ].slice(0, query.limit)))
  }),
  endpoint({
    id: "autx.credits.transactions", method: "GET", path: "/credits/transactions",
    docs: { summary: "List the movements of your balance", description: "Newest first.", tag },
    query: wire.PageQuery, success: wire.Transactions,
    handle: ({ query }, { caller }) => Ledger.use((ledger) => ledger.transactions(caller.accountId, query.limit + 1, query.cursor)).pipe(
      Effect.flatMap((rows) => page("/credits/transactions", wire.PageQuery, query, rows, ({ id }) => ({ ...query, cursor: id })))
    ),
    view: (rows) => rows.map(({ id, type, amount, balanceAfter, ticker, orderId, sessionId, createdAt }) => ({
      id, type: wireTypes[type](amount), amount_usd: amount, balance_after: balanceAfter, agent_ticker: ticker, order_id: orderId, session_id: sessionId, created_at: createdAt
    }))
  }),
  endpoint({
    id: "autx.credits.deposit_test", method: "POST", path: "/credits/deposit-test", status: 201, decimals: true, idempotent: true,
    docs: { summary: "Add test credits", description: "More than 0, at most 10,000. For development: 404 unless `ENABLE_TEST_CREDITS` is true.", tag },
    payload: wire.TestDeposit, success: wire.Deposited, errors: ["NotFound", ...commitErrors],
    handle: ({ payload }, { caller, idempotency }) => Ledger.use((ledger) => ledger.depositTest(caller, payload.amount, idempotency)),
    view: ({ available }) => ({ balance_usd: available })
  }),
  later({ id: "autx.credits.deposit", method: "POST", path: "/credits/deposit", verified: true, status: 201, tag, feature: "Depositing on chain" }),
  later({ id: "autx.credits.checkout", method: "POST", path: "/credits/checkout", status: 201, tag, feature: "Paying by card" }),
  later({ id: "autx.credits.stripe_webhook", method: "POST", path: "/credits/stripe/webhook", auth: "public", status: 200, tag, feature: "Taking events from Stripe" }),
  later({ id: "autx.credits.withdraw", method: "POST", path: "/credits/withdraw", status: 201, tag, feature: "Withdrawing" }),
  later({ id: "autx.credits.wallets.challenge", method: "GET", path: "/credits/wallets/challenge", auth: "login", status: 200, tag, feature: "Linking a wallet" }),
  later({ id: "autx.credits.wallets.create", method: "POST", path: "/credits/wallets", auth: "login", status: 201, tag, feature: "Linking a wallet" })
]
