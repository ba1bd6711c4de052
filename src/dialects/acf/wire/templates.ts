/** Templates on the wire. */
import { Schema } from "effect"

export const TeamTemplates = Schema.Struct({
  templates: Schema.Array(Schema.Struct({
    name: Schema.String, agents: Schema.Int,
    quality_gates: Schema.Array(Schema.Struct({ type: Schema.String, threshold: Schema.Finite })),
    description: Schema.String
  }))
}).annotate({ identifier: "AcfTeamTemplates" })

export const ServiceTemplates = Schema.Struct({
  templates: Schema.Array(Schema.Struct({
    name: Schema.String, category: Schema.String, price_per_call: Schema.String, free_tier_calls: Schema.Int
  }))
}).annotate({ identifier: "AcfServiceTemplates" })
