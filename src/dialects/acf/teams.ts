/** Teams: made and changed by their owner, read by anybody. */
import { Effect } from "effect"
import { endpoint } from "../../http/endpoint.ts"
import { Teams, type WholeTeam } from "../../kernel/market/Teams.ts"
import * as wire from "./wire/teams.ts"

const tag = "Teams"
const readErrors = ["NotFound", "StoreUnavailable"] as const
const changeErrors = ["NotFound", "NotOwner"] as const

const teamView = ({ owner, createdAt, updatedAt, ...same }: WholeTeam["team"]) => ({ ...same, owner_id: owner, created_at: createdAt, updated_at: updatedAt })
const memberView = ({ teamId, agentId, joinedAt, ...same }: WholeTeam["members"][number]) => ({ ...same, team_id: teamId, agent_id: agentId, joined_at: joinedAt })
const ruleView = ({ targetAgentId, ...same }: WholeTeam["rules"][number]) => ({ ...same, target_agent_id: targetAgentId })
const gateView = ({ gateType, gateOrder, ...same }: WholeTeam["gates"][number]) => ({ ...same, gate_type: gateType, gate_order: gateOrder })

export const teams = [
  endpoint({
    id: "acf.teams.create", method: "POST", path: "/api/v1/teams", auth: "key", uncounted: true, status: 201,
    docs: { summary: "Create a team", tag },
    payload: wire.NewTeam, success: wire.CreatedTeam, errors: ["RuleBroken"],
    handle: ({ payload }, { caller }) => Teams.use((teams) => teams.create(caller, payload)),
    view: teamView
  }),
  endpoint({
    id: "acf.teams.list", method: "GET", path: "/api/v1/teams", auth: "optional", uncounted: true,
    docs: { summary: "List your teams", description: "Newest first, without archived ones. Empty without a key.", tag },
    query: wire.TeamQuery, success: wire.Teams,
    handle: ({ query }, { caller }) => caller === undefined ? Effect.succeed([]) : Teams.use((teams) => teams.list(caller.accountId, query.limit)),
    view: (rows) => ({ teams: rows.map(teamView), count: rows.length })
  }),
  endpoint({
    id: "acf.teams.get", method: "GET", path: "/api/v1/teams/{team_id}", auth: "public",
    docs: { summary: "Get a team", description: "With its members, routing rules and quality gates.", tag },
    params: wire.WithTeam, success: wire.WholeTeam, errors: readErrors,
    handle: ({ params }) => Teams.use((teams) => teams.get(params.team_id)),
    view: ({ team, members, rules, gates }) => ({
      ...teamView(team), members: members.map(memberView), routing_rules: rules.map(ruleView), quality_gates: gates.map(gateView)
    })
  }),
  endpoint({
    id: "acf.teams.update", method: "PATCH", path: "/api/v1/teams/{team_id}", auth: "key", uncounted: true,
    docs: { summary: "Change a team", description: "By its owner. Fields that are left out stay as they are.", tag },
    params: wire.WithTeam, payload: wire.TeamPatch, success: wire.Team, errors: [...changeErrors, "RuleBroken"],
    handle: ({ params, payload }, { caller }) => Teams.use((teams) => teams.patch(caller, params.team_id, payload)),
    view: teamView
  }),
  endpoint({
    id: "acf.teams.delete", method: "DELETE", path: "/api/v1/teams/{team_id}", auth: "key", uncounted: true,
    docs: { summary: "Archive a team", description: "By its owner. It is no longer listed, and can still be read.", tag },
    params: wire.WithTeam, success: wire.Archived, errors: changeErrors,
    handle: ({ params }, { caller }) => Teams.use((teams) => teams.archive(caller, params.team_id)).pipe(Effect.as(params.team_id)),
    view: (id) => ({ status: "archived", id })
  }),
  endpoint({
    id: "acf.teams.add_member", method: "POST", path: "/api/v1/teams/{team_id}/members", auth: "key", uncounted: true, status: 201,
    docs: { summary: "Add a member", description: "By the team's owner. An agent is in a team once.", tag },
    params: wire.WithTeam, payload: wire.NewMember, success: wire.CreatedMember, errors: [...changeErrors, "RuleBroken", "AlreadyExists"],
    handle: ({ params, payload: { agent_id, role, skills } }, { caller }) =>
      Teams.use((teams) => teams.addMember(caller, params.team_id, { agentId: agent_id, role, skills })).pipe(Effect.map((id) => ({ id, ...params, agent_id })))
  }),
  endpoint({
    id: "acf.teams.members", method: "GET", path: "/api/v1/teams/{team_id}/members", auth: "public",
    docs: { summary: "List a team's members", tag },
    params: wire.WithTeam, success: wire.Members, errors: readErrors,
    handle: ({ params }) => Teams.use((teams) => teams.members(params.team_id)),
    view: (rows) => ({ members: rows.map(memberView), count: rows.length })
  }),
  endpoint({
    id: "acf.teams.remove_member", method: "DELETE", path: "/api/v1/teams/{team_id}/members/{agent_id}", auth: "key", uncounted: true,
    docs: { summary: "Remove a member", description: "By the team's owner.", tag },
    params: wire.WithMember, success: wire.Removed, errors: changeErrors,
    handle: ({ params }, { caller }) => Teams.use((teams) => teams.removeMember(caller, params.team_id, params.agent_id)),
    view: () => ({ status: "removed" })
  }),
  endpoint({
    id: "acf.teams.add_rule", method: "POST", path: "/api/v1/teams/{team_id}/rules", auth: "key", uncounted: true, status: 201,
    docs: { summary: "Add a routing rule", description: "By the team's owner: tasks with one of the keywords go to the agent.", tag },
    params: wire.WithTeam, payload: wire.NewRule, success: wire.CreatedRule, errors: [...changeErrors, "RuleBroken"],
    handle: ({ params, payload: { name, keywords, target_agent_id, priority } }, { caller }) =>
      Teams.use((teams) => teams.addRule(caller, params.team_id, { name, keywords, targetAgentId: target_agent_id, priority })).pipe(Effect.map((id) => ({ id, name })))
  }),
  endpoint({
    id: "acf.teams.rules", method: "GET", path: "/api/v1/teams/{team_id}/rules", auth: "public",
    docs: { summary: "List a team's routing rules", description: "The highest priority first.", tag },
    params: wire.WithTeam, success: wire.Rules, errors: readErrors,
    handle: ({ params }) => Teams.use((teams) => teams.rules(params.team_id)),
    view: (rows) => ({ rules: rows.map(ruleView), count: rows.length })
  }),
  endpoint({
    id: "acf.teams.remove_rule", method: "DELETE", path: "/api/v1/teams/{team_id}/rules/{rule_id}", auth: "key", uncounted: true,
    docs: { summary: "Remove a routing rule", description: "By the team's owner.", tag },
    params: wire.WithRule, success: wire.Removed, errors: changeErrors,
    handle: ({ params }, { caller }) => Teams.use((teams) => teams.removeRule(caller, params.team_id, params.rule_id)),
    view: () => ({ status: "removed" })
  }),
  endpoint({
    id: "acf.teams.add_gate", method: "POST", path: "/api/v1/teams/{team_id}/gates", auth: "key", uncounted: true, status: 201,
    docs: { summary: "Add a quality gate", description: "By the team's owner.", tag },
    params: wire.WithTeam, payload: wire.NewGate, success: wire.CreatedGate, errors: [...changeErrors, "RuleBroken"],
    handle: ({ params, payload: { gate_type, threshold, gate_order, config } }, { caller }) =>
      Teams.use((teams) => teams.addGate(caller, params.team_id, { gateType: gate_type, threshold, gateOrder: gate_order, config })).pipe(Effect.map((id) => ({ id, gate_type })))
  }),
  endpoint({
    id: "acf.teams.gates", method: "GET", path: "/api/v1/teams/{team_id}/gates", auth: "public",
    docs: { summary: "List a team's quality gates", description: "The lowest order first.", tag },
    params: wire.WithTeam, success: wire.Gates, errors: readErrors,
    handle: ({ params }) => Teams.use((teams) => teams.gates(params.team_id)),
    view: (rows) => ({ gates: rows.map(gateView), count: rows.length })
  }),
  endpoint({
    id: "acf.teams.remove_gate", method: "DELETE", path: "/api/v1/teams/{team_id}/gates/{gate_id}", auth: "key", uncounted: true,
    docs: { summary: "Remove a quality gate", description: "By the team's owner.", tag },
    params: wire.WithGate, success: wire.Removed, errors: changeErrors,
    handle: ({ params }, { caller }) => Teams.use((teams) => teams.removeGate(caller, params.team_id, params.gate_id)),
    view: () => ({ status: "removed" })
  })
]
