/** Balances and deposits on the wire: amounts come as numbers or text, and go out as numbers. */
import { Schema } from "effect"
import { Amount, Id, UsdNumber, object } from "../../../http/rows/fields.ts"
import { OwnerId } from "./fields.ts"

export const WithBuyer = Schema.Struct({ buyer_id: OwnerId })

export const Balance = Schema.Struct({
  buyer_id: Schema.String, balance: UsdNumber, total_deposited: UsdNumber,
  total_spent: UsdNumber.annotate({ description: "From credits; recorded calls are not in it" })
}).annotate({ identifier: "AcfBalance" })

export const NewDeposit = Schema.Struct({ amount: Amount, buyer_id: OwnerId }).annotate(object("AcfNewDeposit"))
export const Deposit = Schema.Struct({
  deposit_id: Id, amount: UsdNumber, status: Schema.Literal("pending"),
  checkout_url: Schema.NullOr(Schema.String).annotate({ description: "Where to pay; `null` while the operator has set up no payment provider" }),
  message: Schema.String
}).annotate({ identifier: "AcfDeposit" })

export const CreditQuery = Schema.Struct({ buyer_id: OwnerId, amount: Amount })
export const Credited = Schema.Struct({ buyer_id: Schema.String, credited: UsdNumber, new_balance: UsdNumber }).annotate({ identifier: "AcfCredited" })
