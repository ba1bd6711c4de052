/** Discovery on the wire. */
import { Schema } from "effect"
import { orElse, read, text } from "../../../http/rows/fields.ts"
import { Limit, Offset, OwnerId } from "./fields.ts"
import { CategoryFilter, SearchText, Service } from "./services.ts"

const flags: Readonly<Record<string, boolean>> = { true: true, "1": true, false: false, "0": false }
const Free = Schema.String.annotate({ description: "`true`: only services with free calls" }).pipe(
  Schema.decodeTo(Schema.Boolean, read((flag) => flags[flag.toLowerCase()], "Expected true or false", String)),
  orElse("false")
)
const Price = text(50).annotate({ description: "Per call, in US dollars", examples: ["0.01"] }).pipe(orElse(""))

export const DiscoveryQuery = Schema.Struct({
  q: SearchText,
  category: CategoryFilter,
  tags: text(1_000).annotate({ description: "Separated by commas: any of them", examples: ["nlp,sentiment"] }).pipe(orElse("")),
  min_price: Price,
  max_price: Price,
  payment_method: text(50).annotate({ description: "`x402`, `paypal`, `nowpayments`, `stripe`, `both` or `credits`" }).pipe(orElse("")),
  has_free_tier: Free,
  sort_by: text(50).annotate({ description: "`created_at` (newest first), `price` or `name`" }).pipe(orElse("created_at")),
  limit: Limit(50),
  offset: Offset
})

export const Found = Schema.Struct({
  services: Schema.Array(Service), total: Schema.Natural.annotate({ description: "On all pages" }), offset: Schema.Natural, limit: Schema.Natural
}).annotate({ identifier: "AcfFound" })

export const Categories = Schema.Struct({
  categories: Schema.Array(Schema.Struct({ category: Schema.String, count: Schema.Natural }))
}).annotate({ identifier: "AcfCategories" })

export const TrendingQuery = Schema.Struct({ limit: Limit(10) })
export const Trending = Schema.Struct({
  trending: Schema.Array(Schema.Struct({
    service: Service,
    call_count: Schema.Natural.annotate({ description: "Answered below 500, today and the six days (UTC) before" }),
    avg_latency_ms: Schema.Finite
  })),
  count: Schema.Natural
}).annotate({ identifier: "AcfTrending" })

export const WithAgent = Schema.Struct({ agent_id: OwnerId.annotate({ description: "An owner's name, or an agent's id" }) })
export const RecommendationsQuery = Schema.Struct({ limit: Limit(5) })
export const Recommendations = Schema.Struct({
  recommendations: Schema.Array(Service), count: Schema.Natural
}).annotate({ identifier: "AcfRecommendations" })
