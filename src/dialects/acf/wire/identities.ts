/** Agents' identities on the wire: what a caller may send, with a bound on everything, and what it gets. */
import { Schema } from "effect"
import { object, orElse, text } from "../../../http/rows/fields.ts"
import { JsonObject, Limit, Offset, OwnerId, PathId, Time } from "./fields.ts"
import { Score } from "./reputation.ts"

const AgentId = Schema.String.annotate({ description: "The agent's id", examples: ["550e8400-e29b-41d4-a716-446655440000"] })
const Name = text(200).annotate({ examples: ["My AI Agent"] })
const Capabilities = Schema.Array(text(100, 1)).check(Schema.isMaxLength(100)).annotate({ examples: [["nlp", "inference"]] })
const Wallet = Schema.NullOr(text(200, 1)).annotate({ description: "Where it is paid in USDC" })
const Status = text(50).annotate({ description: "`active`, `suspended` or `deactivated`" })

export const WithAgent = Schema.Struct({ agent_id: PathId })
export const AgentQuery = Schema.Struct({ status: Status.pipe(orElse("active")), limit: Limit(50), offset: Offset })
export const AgentSearch = Schema.Struct({
  q: text(200).annotate({ description: "A part of the name or of the id, in any case; nothing is found without it" }).pipe(orElse("")), limit: Limit(20)
})

export const NewAgent = Schema.Struct({
  display_name: Name,
  identity_type: text(50).annotate({ description: "`api_key_only`, `kya_jwt` or `did_vc`" }).pipe(orElse("api_key_only")),
  capabilities: Capabilities.pipe(orElse([])),
  wallet_address: Wallet.pipe(orElse(null)),
  metadata: JsonObject.pipe(orElse({}))
}).annotate(object("AcfNewAgent"))
export const AgentPatch = Schema.Struct({
  display_name: Schema.optionalKey(Name), capabilities: Schema.optionalKey(Capabilities), wallet_address: Schema.optionalKey(Wallet),
  status: Schema.optionalKey(Status), metadata: Schema.optionalKey(JsonObject)
}).annotate(object("AcfAgentPatch"))

const fields = {
  agent_id: AgentId, display_name: Schema.String, identity_type: Schema.String, capabilities: Schema.Array(Schema.String),
  wallet_address: Schema.NullOr(Schema.String), verified: Schema.Boolean.annotate({ description: "An admin vouched for it" }),
  reputation_score: Score, status: Schema.String, created_at: Time, updated_at: Time
}
export const Agent = Schema.Struct(fields).annotate({ identifier: "AcfAgent" })
export const Agents = Schema.Struct({ agents: Schema.Array(Agent), count: Schema.Int }).annotate({ identifier: "AcfAgents" })
export const VerifiedAgent = Schema.Struct({ ...fields, owner_id: OwnerId }).annotate({ identifier: "AcfVerifiedAgent" })
export const OwnAgent = Schema.Struct({ ...fields, owner_id: OwnerId, metadata: Schema.Record(Schema.String, Schema.Unknown) }).annotate({ identifier: "AcfOwnAgent" })
export const Deactivated = Schema.Struct({ status: Schema.Literal("deactivated"), agent_id: AgentId }).annotate({ identifier: "AcfDeactivatedAgent" })
