/** Settlements and commission as acf's callers see them. */
import { Schema } from "effect"
import { instantOf } from "../../../domain/settlement.ts"
import { Id, object, read, text } from "../../../http/rows/fields.ts"
import { Limit, OwnerId, PathId, PlainUsd, Time } from "./fields.ts"

const Instant = text(40).annotate({
  description: "ISO 8601: a date, or a date and a time; without an offset it is UTC", examples: ["2026-03-01T00:00:00Z"]
}).pipe(Schema.decodeTo(Schema.Int, read(instantOf, "Expected a date or a time in ISO 8601", (ms: number) => new Date(ms).toISOString())))

export const NewSettlement = Schema.Struct({
  provider_id: OwnerId,
  period_start: Instant,
  period_end: Instant
}).annotate(object("AcfNewSettlement"))

export const SettlementStatus = Schema.Literals(["pending", "processing", "completed", "failed"])

export const CreatedSettlement = Schema.Struct({
  id: Id, provider_id: Schema.String, total_amount: PlainUsd, platform_fee: PlainUsd, net_amount: PlainUsd, call_count: Schema.Natural, status: SettlementStatus
}).annotate({ identifier: "AcfCreatedSettlement" })

export const SettlementQuery = Schema.Struct({
  provider_id: Schema.optionalKey(text(200).annotate({ description: "For admins; others see their own" })),
  status: Schema.optionalKey(text(40).annotate({ description: "pending, processing, completed or failed" })),
  limit: Limit(50)
})

export const Settlements = Schema.Struct({
  settlements: Schema.Array(Schema.Struct({
    id: Id, provider_id: Schema.String, period_start: Time, period_end: Time, total_amount: PlainUsd, platform_fee: PlainUsd, net_amount: PlainUsd,
    status: SettlementStatus, payment_tx: Schema.NullOr(Schema.String)
  }).annotate({ identifier: "AcfSettlement" })),
  count: Schema.Natural
}).annotate({ identifier: "AcfSettlements" })

export const WithSettlement = Schema.Struct({ settlement_id: PathId })
export const Payment = Schema.Struct({
  payment_tx: text(200, 1).annotate({ description: "Transaction hash or reference", examples: ["0xabc123"] })
}).annotate(object("AcfPayment"))
export const Paid = Schema.Struct({ status: Schema.Literal("completed"), payment_tx: Schema.String }).annotate({ identifier: "AcfPaid" })

export const WithProvider = Schema.Struct({ provider_id: PathId })

const Rate = Schema.String.annotate({ description: "Part of the price", examples: ["0.05"] })
export const Commission = Schema.Struct({
  provider_id: Schema.String, registered: Schema.Boolean, current_rate: Rate, current_tier: Schema.String,
  registration_date: Schema.NullOr(Time), month_number: Schema.NullOr(Schema.Natural), next_tier_date: Schema.NullOr(Time), next_tier_rate: Schema.NullOr(Rate)
}).annotate({ identifier: "AcfCommission" })
