/** Buyers' money: balance, deposits, and the operator's credit. */
import { endpoint } from "../../http/endpoint.ts"
import { Deposits } from "../../kernel/market/Deposits.ts"
import { commitErrors } from "./errors.ts"
import * as wire from "./wire/money.ts"

const tag = "Balance"

export const money = [
  endpoint({
    id: "acf.balance.get", method: "GET", path: "/api/v1/balance/{buyer_id}", auth: "key", uncounted: true,
    docs: { summary: "Get your balance", tag },
    params: wire.WithBuyer, success: wire.Balance, errors: ["NotOwner", ...commitErrors],
    handle: ({ params }, { caller }) => Deposits.use((deposits) => deposits.balance(caller, params.buyer_id)),
    view: ({ buyer, available, deposited, spent }) => ({ buyer_id: buyer, balance: available, total_deposited: deposited, total_spent: spent })
  }),
  endpoint({
    id: "acf.deposits.create", method: "POST", path: "/api/v1/deposits", auth: "key", uncounted: true, status: 200, decimals: true,
    docs: { summary: "Announce a deposit", description: "More than 0 and at most 10000 dollars, for oneself. It is credited when it is paid.", tag },
    payload: wire.NewDeposit, success: wire.Deposit, errors: ["NotOwner", "RuleBroken"],
    handle: ({ payload }, { caller }) => Deposits.use((deposits) => deposits.announce(caller, payload.buyer_id, payload.amount)),
    view: ({ id, amount }) => ({
      deposit_id: id, amount, status: "pending", checkout_url: null, message: "Quote this deposit_id to the operator, who credits it when it is paid."
    })
  }),
  endpoint({
    id: "acf.admin.credit", method: "POST", path: "/api/v1/admin/credit", auth: "public",
    docs: { summary: "Credit a buyer", description: "By the operator: the header `X-Admin-Key` has the secret that the gateway was started with.", tag },
    query: wire.CreditQuery, success: wire.Credited,
    errors: ["NotConfigured", "Unauthenticated", "TooManyAttempts", "RuleBroken", "NotFound", "StoreUnavailable", ...commitErrors],
    handle: ({ query }, { header, remoteAddress }) => Deposits.use((deposits) => deposits.credit(header("x-admin-key") ?? "", remoteAddress, query.buyer_id, query.amount)),
    view: ({ buyer, amount, available }) => ({ buyer_id: buyer, credited: amount, new_balance: available })
  })
]
