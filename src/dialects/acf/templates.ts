/** Templates: teams and services to begin with. The same for everybody, as the reference lists them. */
import { Effect } from "effect"
import { endpoint } from "../../http/endpoint.ts"
import * as wire from "./wire/templates.ts"

const tag = "Templates"

const reaching = (...thresholds: ReadonlyArray<number>) => thresholds.map((threshold) => ({ type: "quality_score", threshold }))

const teamTemplates = [
  { name: "solo", agents: 1, quality_gates: reaching(7), description: "Single agent for individual developers" },
  { name: "small_team", agents: 4, quality_gates: reaching(8, 8.5), description: "Collaborative team with keyword routing" },
  { name: "enterprise", agents: 6, quality_gates: reaching(8.5, 9, 9), description: "Production-grade with skill-based routing" }
]
const serviceTemplates = [
  { name: "ai_api", category: "ai", price_per_call: "0.05", free_tier_calls: 100 },
  { name: "data_pipeline", category: "data", price_per_call: "0.10", free_tier_calls: 50 },
  { name: "content_api", category: "content", price_per_call: "0.02", free_tier_calls: 200 }
]

export const templates = [
  endpoint({
    id: "acf.templates.teams", method: "GET", path: "/api/v1/templates/teams", auth: "public",
    docs: { summary: "List team templates", tag },
    success: wire.TeamTemplates,
    handle: () => Effect.succeed({ templates: teamTemplates })
  }),
  endpoint({
    id: "acf.templates.services", method: "GET", path: "/api/v1/templates/services", auth: "public",
    docs: { summary: "List service templates", tag },
    success: wire.ServiceTemplates,
    handle: () => Effect.succeed({ templates: serviceTemplates })
  })
]
