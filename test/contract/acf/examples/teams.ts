/** Examples of teams. */
import { randomUUID } from "node:crypto"
import { type Owner, owner } from "../../../support/acf.ts"
import type { World } from "../../../support/World.ts"
import type { Examples, Refusal, RowExamples } from "../../Example.ts"

const team = async (by: Owner): Promise<string> => (await by.call("POST", "/api/v1/teams", { name: "My AI Team", description: "NLP processing team", config: { any: "thing" } })).json.id
const anothers = async (world: World): Promise<string> => team(await owner(world))
const pathOf = (id: string, rest = "") => `/api/v1/teams/${id}${rest}`

const shown = { id: "<id>", name: "My AI Team", owner_id: "<owner>", description: "NLP processing team", config: { any: "thing" }, status: "active", created_at: "<time>", updated_at: "<time>" }

const bodies = {
  members: { agent_id: "agent-1", role: "reviewer", skills: ["nlp"] },
  rules: { name: "NLP tasks", keywords: ["nlp", "text"], target_agent_id: "agent-1", priority: 10 },
  gates: { gate_type: "quality_score", threshold: 8.5, gate_order: 1, config: { strict: true } }
}
const parts = {
  members: { id: "<id>", team_id: "<id>", ...bodies.members, joined_at: "<time>" },
  rules: { id: "<id>", ...bodies.rules, enabled: true },
  gates: { id: "<id>", ...bodies.gates, enabled: true }
}
type Part = keyof typeof bodies
const add = async (by: Owner, id: string, part: Part): Promise<string> => (await by.call("POST", pathOf(id, `/${part}`), bodies[part])).json.id
const withParts = async (by: Owner): Promise<string> => {
  const id = await team(by)
  for (const part of ["members", "rules", "gates"] as const) await add(by, id, part)
  return id
}

const missing = (rest = "", more: object = {}): Refusal<Owner> => ({ request: () => ({ path: pathOf(randomUUID(), rest), ...more }), status: 404, answer: { detail: "Team not found" } })
const foreign = (rest = "", more: object = {}): Refusal<Owner> =>
  ({ request: async (world) => ({ path: pathOf(await anothers(world), rest), ...more }), status: 403, answer: { detail: "Not your team" } })
const broken = (rest: string, body: object, detail: string): Refusal<Owner> => ({ request: async (_, caller) => ({ path: pathOf(await team(caller), rest), body }), status: 400, answer: { detail } })

const adding = (part: Part, answer: object, more: object, detail: string): RowExamples<Owner> => ({
  success: { request: async (_, caller) => ({ path: pathOf(await team(caller), `/${part}`), body: bodies[part] }), answer },
  refusals: {
    NotFound: missing(`/${part}`, { body: bodies[part] }), NotOwner: foreign(`/${part}`, { body: bodies[part] }), RuleBroken: broken(`/${part}`, { ...bodies[part], ...more }, detail)
  }
})
const listing = (part: Part): RowExamples<Owner> => ({
  success: { request: async (_, caller) => ({ path: pathOf(await withParts(caller), `/${part}`) }), answer: { [part]: [parts[part]], count: 1 } },
  refusals: { NotFound: missing(`/${part}`) }
})
const removing = (part: Part, what: string): RowExamples<Owner> => ({
  success: {
    request: async (_, caller) => {
      const id = await team(caller)
      const partId = await add(caller, id, part)
      return { path: pathOf(id, `/${part}/${part === "members" ? bodies.members.agent_id : partId}`) }
    },
    answer: { status: "removed" }
  },
  refusals: {
    NotFound: { request: async (_, caller) => ({ path: pathOf(await team(caller), `/${part}/${randomUUID()}`) }), status: 404, answer: { detail: `${what} not found` } },
    NotOwner: foreign(`/${part}/${randomUUID()}`)
  }
})

const addMember = adding("members", { id: "<id>", team_id: "<id>", agent_id: "agent-1" }, { role: "boss" }, "role: must be one of leader, worker, reviewer, router")

export const teams: Examples<Owner> = {
  "acf.teams.create": {
    success: { request: () => ({ body: { name: "My AI Team" } }), answer: { id: "<id>", name: "My AI Team", owner_id: "<owner>" } },
    refusals: { RuleBroken: { request: () => ({ body: { name: " " } }), status: 400, answer: { detail: "name: must not be blank" } } }
  },
  "acf.teams.list": {
    success: {
      request: async (world) => {
        const caller = await owner(world)
        await team(caller)
        return { token: caller.token, path: "/api/v1/teams?limit=10" }
      },
      answer: { teams: [shown], count: 1 }
    },
    refusals: {}
  },
  "acf.teams.get": {
    success: {
      request: async (_, caller) => ({ path: pathOf(await withParts(caller)) }),
      answer: { ...shown, members: [parts.members], routing_rules: [parts.rules], quality_gates: [parts.gates] }
    },
    refusals: { NotFound: missing() }
  },
  "acf.teams.update": {
    success: { request: async (_, caller) => ({ path: pathOf(await team(caller)), body: { name: "Renamed", config: {} } }), answer: { ...shown, name: "Renamed", config: {} } },
    refusals: { NotFound: missing("", { body: {} }), NotOwner: foreign("", { body: { name: "Mine" } }), RuleBroken: broken("", { name: "" }, "name: must not be blank") }
  },
  "acf.teams.delete": {
    success: { request: async (_, caller) => ({ path: pathOf(await team(caller)) }), answer: { status: "archived", id: "<id>" } },
    refusals: { NotFound: missing(), NotOwner: foreign() }
  },
  "acf.teams.add_member": {
    ...addMember,
    refusals: {
      ...addMember.refusals,
      AlreadyExists: {
        request: async (_, caller) => ({ path: pathOf(await withParts(caller), "/members"), body: { agent_id: "agent-1", role: "leader" } }),
        status: 409, answer: { detail: "Team member exists already" }
      }
    }
  },
  "acf.teams.members": listing("members"),
  "acf.teams.remove_member": removing("members", "Team member"),
  "acf.teams.add_rule": adding("rules", { id: "<id>", name: "NLP tasks" }, { name: " " }, "name: must not be blank"),
  "acf.teams.rules": listing("rules"),
  "acf.teams.remove_rule": removing("rules", "Routing rule"),
  "acf.teams.add_gate": adding("gates", { id: "<id>", gate_type: "quality_score" }, { threshold: 10.5 }, "threshold: must be from 0 to 10"),
  "acf.teams.gates": listing("gates"),
  "acf.teams.remove_gate": removing("gates", "Quality gate")
}
