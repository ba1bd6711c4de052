/** Services on the wire. Where one listens is never told. */
import { Schema } from "effect"
import { Amount, Count, Id, object, orElse, text } from "../../../http/rows/fields.ts"
import { Limit, Offset, PathId, PlainUsd, Time } from "./fields.ts"

export const WithService = Schema.Struct({ service_id: PathId })

const Name = text(200).annotate({ description: "For people", examples: ["Sentiment Analysis API"] })
const Description = text(10_000).annotate({ description: "What the service does", examples: ["Analyze text sentiment with confidence scores"] })
const Endpoint = text(2_048, 1).annotate({ description: "Where the provider listens: http or https. Never shown", examples: ["https://my-api.example.com/v1"] })
const Category = text(100).annotate({ description: "One word of the provider's", examples: ["ai"] })
const Tag = text(100, 1)
const Tags = Schema.Array(Tag).check(Schema.isMaxLength(50)).annotate({ description: "At most 50", examples: [["nlp", "sentiment"]] })
const FreeTierCalls = Count(0, 1_000_000)
const PaymentMethod = text(50).annotate({ description: "`x402`, `paypal`, `nowpayments`, `stripe`, `both` or `credits`", examples: ["x402"] })
const Status = text(50).annotate({ description: "`active`, `paused` or `removed`", examples: ["active"] })

export const NewService = Schema.Struct({
  name: Name,
  description: Description.pipe(orElse("")),
  endpoint: Endpoint,
  price_per_call: Amount,
  category: Category.pipe(orElse("")),
  tags: Tags.pipe(orElse([])),
  payment_method: PaymentMethod.pipe(orElse("x402")),
  free_tier_calls: FreeTierCalls.pipe(orElse(0))
}).annotate(object("AcfNewService"))

export const ServicePatch = Schema.Struct({
  name: Schema.optionalKey(Name),
  description: Schema.optionalKey(Description),
  endpoint: Schema.optionalKey(Endpoint),
  price_per_call: Schema.optionalKey(Amount),
  status: Schema.optionalKey(Status),
  category: Schema.optionalKey(Category),
  tags: Schema.optionalKey(Tags),
  free_tier_calls: Schema.optionalKey(FreeTierCalls)
}).annotate(object("AcfServicePatch"))

export const SearchText = text(200).annotate({ description: "Words that are all in the name or the description" }).pipe(orElse(""))
export const CategoryFilter = Category.annotate({ description: "`uncategorized`: those without any" }).pipe(orElse(""))

export const ServiceQuery = Schema.Struct({
  query: SearchText, category: CategoryFilter, status: Status.pipe(orElse("active")), limit: Limit(50), offset: Offset
})

export const Service = Schema.Struct({
  id: Id,
  provider_id: Schema.String.annotate({ description: "The owner's name", examples: ["my-agent"] }),
  name: Schema.String, description: Schema.String,
  price_per_call: PlainUsd, free_tier_calls: Schema.Natural,
  pricing: Schema.Struct({ price_per_call: PlainUsd, currency: Schema.Literal("USDC"), payment_method: Schema.String, free_tier_calls: Schema.Natural }),
  status: Schema.Literals(["active", "paused", "removed"]), category: Schema.String, tags: Schema.Array(Schema.String),
  created_at: Time, updated_at: Time
}).annotate({ identifier: "AcfService" })

export const Services = Schema.Struct({
  services: Schema.Array(Service), count: Schema.Natural.annotate({ description: "On this page" }), offset: Schema.Natural, limit: Schema.Natural
}).annotate({ identifier: "AcfServices" })

export const RemovedService = Schema.Struct({ status: Schema.Literal("removed"), id: Id }).annotate({ identifier: "AcfRemovedService" })
