/** Teams on the wire: what a caller may send, with a bound on everything, and what it gets. */
import { Schema } from "effect"
import { Id, object, orElse, text } from "../../../http/rows/fields.ts"
import { JsonObject, Limit, OwnerId, PathId, Time } from "./fields.ts"

const Name = text(200).annotate({ examples: ["My AI Team"] })
const Description = text(10_000)
const AgentId = text(200, 1).annotate({ description: "Any id that the team's owner knows the agent by" })
const Words = Schema.Array(text(100, 1)).check(Schema.isMaxLength(100))
const Order = Schema.Int.check(Schema.isBetween({ minimum: -1_000_000_000, maximum: 1_000_000_000 }))

export const WithTeam = Schema.Struct({ team_id: PathId })
export const WithMember = Schema.Struct({ team_id: PathId, agent_id: PathId })
export const WithRule = Schema.Struct({ team_id: PathId, rule_id: PathId })
export const WithGate = Schema.Struct({ team_id: PathId, gate_id: PathId })
export const TeamQuery = Schema.Struct({ limit: Limit(50) })

export const NewTeam = Schema.Struct({ name: Name, description: Description.pipe(orElse("")), config: JsonObject.pipe(orElse({})) }).annotate(object("AcfNewTeam"))
export const TeamPatch = Schema.Struct({
  name: Schema.optionalKey(Name), description: Schema.optionalKey(Description), config: Schema.optionalKey(JsonObject)
}).annotate(object("AcfTeamPatch"))
export const NewMember = Schema.Struct({
  agent_id: AgentId, role: text(50).annotate({ description: "`leader`, `worker`, `reviewer` or `router`" }).pipe(orElse("worker")), skills: Words.pipe(orElse([]))
}).annotate(object("AcfNewMember"))
export const NewRule = Schema.Struct({
  name: Name, keywords: Words, target_agent_id: AgentId, priority: Order.annotate({ description: "The highest is evaluated first" }).pipe(orElse(0))
}).annotate(object("AcfNewRule"))
export const NewGate = Schema.Struct({
  gate_type: text(50).annotate({ description: "`quality_score`, `latency`, `error_rate`, `coverage` or `custom`" }),
  threshold: Schema.Finite.annotate({ description: "0 to 10" }),
  gate_order: Order.annotate({ description: "The lowest comes first" }).pipe(orElse(0)), config: JsonObject.pipe(orElse({}))
}).annotate(object("AcfNewGate"))

const teamFields = {
  id: Id, name: Schema.String, owner_id: OwnerId, description: Schema.String, config: Schema.Record(Schema.String, Schema.Unknown),
  status: Schema.Literals(["active", "archived"]), created_at: Time, updated_at: Time
}
const Member = Schema.Struct({
  id: Id, team_id: Id, agent_id: Schema.String, role: Schema.String, skills: Schema.Array(Schema.String), joined_at: Time
}).annotate({ identifier: "AcfMember" })
const Rule = Schema.Struct({
  id: Id, name: Schema.String, keywords: Schema.Array(Schema.String), target_agent_id: Schema.String, priority: Schema.Int, enabled: Schema.Boolean
}).annotate({ identifier: "AcfRule" })
const Gate = Schema.Struct({
  id: Id, gate_type: Schema.String, threshold: Schema.Finite, gate_order: Schema.Int, config: Schema.Record(Schema.String, Schema.Unknown), enabled: Schema.Boolean
}).annotate({ identifier: "AcfGate" })

export const CreatedTeam = Schema.Struct({ id: Id, name: Schema.String, owner_id: OwnerId }).annotate({ identifier: "AcfCreatedTeam" })
export const Team = Schema.Struct(teamFields).annotate({ identifier: "AcfTeam" })
export const Teams = Schema.Struct({ teams: Schema.Array(Team), count: Schema.Int }).annotate({ identifier: "AcfTeams" })
export const WholeTeam = Schema.Struct({
  ...teamFields, members: Schema.Array(Member), routing_rules: Schema.Array(Rule), quality_gates: Schema.Array(Gate)
}).annotate({ identifier: "AcfWholeTeam" })
export const Archived = Schema.Struct({ status: Schema.Literal("archived"), id: Id }).annotate({ identifier: "AcfArchivedTeam" })
export const Removed = Schema.Struct({ status: Schema.Literal("removed") }).annotate({ identifier: "AcfRemovedPart" })

export const CreatedMember = Schema.Struct({ id: Id, team_id: Id, agent_id: Schema.String }).annotate({ identifier: "AcfCreatedMember" })
export const CreatedRule = Schema.Struct({ id: Id, name: Schema.String }).annotate({ identifier: "AcfCreatedRule" })
export const CreatedGate = Schema.Struct({ id: Id, gate_type: Schema.String }).annotate({ identifier: "AcfCreatedGate" })
export const Members = Schema.Struct({ members: Schema.Array(Member), count: Schema.Int }).annotate({ identifier: "AcfMembers" })
export const Rules = Schema.Struct({ rules: Schema.Array(Rule), count: Schema.Int }).annotate({ identifier: "AcfRules" })
export const Gates = Schema.Struct({ gates: Schema.Array(Gate), count: Schema.Int }).annotate({ identifier: "AcfGates" })
