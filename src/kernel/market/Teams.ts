/**
 * Teams of agents: who is in them, where their tasks go, what their output must
 * reach. A team is a description that its owner keeps here and anybody may read;
 * nothing in the gateway acts on it.
 *
 * Every change is the owner's, durable when answered, and audited in the same
 * transaction. Whether a team exists is said before whose it is, and that before
 * what is wrong with the change. An archived team is no longer listed, and stays
 * what it was otherwise.
 */
import { Clock, Context, Effect, Layer } from "effect"
import { limits } from "../../config.ts"
import { AlreadyExists, NotFound, NotOwner, type RuleBroken, type StoreUnavailable } from "../../domain/errors.ts"
import type { AccountId } from "../../domain/ids.ts"
import * as store from "../../store/market/TeamStore.ts"
import type { Gate, Member, NewGate, NewMember, NewRule, NewTeam, Rule, Team, TeamPatch, Unwritten, Write } from "../../store/market/TeamStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { auditRow } from "../AuditTrail.ts"
import type { Caller } from "../Caller.ts"
import { newId } from "../Ids.ts"
import { broken } from "./rules.ts"

const roles: ReadonlyArray<string> = ["leader", "worker", "reviewer", "router"]
const gateTypes: ReadonlyArray<string> = ["quality_score", "latency", "error_rate", "coverage", "custom"]
const thresholdMax = 10

export interface WholeTeam {
  readonly team: Team
  readonly members: ReadonlyArray<Member>
  readonly rules: ReadonlyArray<Rule>
  readonly gates: ReadonlyArray<Gate>
}

export type TeamRead<A> = Effect.Effect<A, NotFound | StoreUnavailable>
export type TeamChange<A> = Effect.Effect<A, Refusal | StoreUnavailable>
type Refusal = NotFound | NotOwner | RuleBroken | AlreadyExists

const blank = (name: string | undefined): RuleBroken | undefined => name?.trim() === "" ? broken("name", "must not be blank") : undefined
const outside = (set: ReadonlyArray<string>, field: string, value: string): RuleBroken | undefined =>
  set.includes(value) ? undefined : broken(field, `must be one of ${set.join(", ")}`)

/** What a change is about, in the words of a refusal: `team` itself, or a part of it. */
interface About {
  readonly action: string
  readonly teamId: string
  readonly what: "team" | "team member" | "routing rule" | "quality gate"
  readonly id: string
}

const refusalOf = ({ teamId, what, id }: About, reason: Unwritten | "missing" | "foreign" | RuleBroken): Refusal => {
  switch (reason) {
    case "missing": return new NotFound({ what: "team", id: teamId })
    case "foreign": return new NotOwner({ what: "team", id: teamId })
    case "absent": return new NotFound({ what, id })
    case "taken": return new AlreadyExists({ what, id })
    case "full": return broken("team", `has ${limits.teamPartsMax} of these already`)
    default: return reason
  }
}

export class Teams extends Context.Service<Teams, {
  readonly create: (caller: Caller, wanted: NewTeam) => TeamChange<Team>
  /** The owner's, newest first. */
  readonly list: (ownerId: AccountId, limit: number) => Effect.Effect<ReadonlyArray<Team>, StoreUnavailable>
  readonly get: (teamId: string) => TeamRead<WholeTeam>
  readonly members: (teamId: string) => TeamRead<ReadonlyArray<Member>>
  readonly rules: (teamId: string) => TeamRead<ReadonlyArray<Rule>>
  readonly gates: (teamId: string) => TeamRead<ReadonlyArray<Gate>>
  readonly patch: (caller: Caller, teamId: string, patch: TeamPatch) => TeamChange<Team>
  readonly archive: (caller: Caller, teamId: string) => TeamChange<void>
  /** Each answers the id of what was added. */
  readonly addMember: (caller: Caller, teamId: string, wanted: NewMember) => TeamChange<string>
  readonly addRule: (caller: Caller, teamId: string, wanted: NewRule) => TeamChange<string>
  readonly addGate: (caller: Caller, teamId: string, wanted: NewGate) => TeamChange<string>
  readonly removeMember: (caller: Caller, teamId: string, agentId: string) => TeamChange<void>
  readonly removeRule: (caller: Caller, teamId: string, ruleId: string) => TeamChange<void>
  readonly removeGate: (caller: Caller, teamId: string, gateId: string) => TeamChange<void>
}>()("tollgate/kernel/market/Teams") {
  static readonly layer = Layer.effect(Teams, Effect.gen(function*() {
    const postgres = yield* Postgres
    const stored = Effect.provideService(Postgres, postgres)

    const find = (teamId: string): TeamRead<Team> => store.findTeam(teamId).pipe(stored, Effect.flatMap((team) =>
      team === undefined ? Effect.fail(new NotFound({ what: "team", id: teamId })) : Effect.succeed(team)))
    const ofTeam = <A>(list: (teamId: string) => Effect.Effect<ReadonlyArray<A>, StoreUnavailable, Postgres>) => (teamId: string): TeamRead<ReadonlyArray<A>> =>
      find(teamId).pipe(Effect.andThen(list(teamId).pipe(stored)))

    const change = (caller: Caller, about: About, rule: RuleBroken | undefined, write: (atMs: number) => Write): TeamChange<string> => Effect.gen(function*() {
      const atMs = yield* Clock.currentTimeMillis
      const audit = auditRow(caller, about.action, about.teamId, atMs, about.what === "team" ? {} : { id: about.id })
      const refused = yield* store.changeTeam<Unwritten | RuleBroken>(about.teamId, caller.accountId, audit, rule === undefined ? write(atMs) : () => Promise.resolve(rule)).pipe(stored)
      return refused === undefined ? about.id : yield* Effect.fail(refusalOf(about, refused))
    })

    return Teams.of({
      create: Effect.fn("Teams.create")(function*(caller, wanted) {
        const rule = blank(wanted.name)
        if (rule !== undefined) return yield* rule
        const id = newId()
        const audit = auditRow(caller, "team.create", id, yield* Clock.currentTimeMillis)
        const refused = yield* store.insertTeam(id, caller.accountId, wanted, limits.teamsPerOwnerMax, audit).pipe(stored)
        if (refused !== undefined) return yield* broken("owner", `has ${limits.teamsPerOwnerMax} teams already: archive one first`)
        return yield* find(id)
      }),
      list: (ownerId, limit) => store.listTeams(ownerId, limit).pipe(stored),
      get: Effect.fn("Teams.get")(function*(teamId) {
        const team = yield* find(teamId)
        return yield* Effect.all({
          team: Effect.succeed(team), members: store.listMembers(teamId), rules: store.listRules(teamId), gates: store.listGates(teamId)
        }, { concurrency: "unbounded" }).pipe(stored)
      }),
      members: ofTeam(store.listMembers),
      rules: ofTeam(store.listRules),
      gates: ofTeam(store.listGates),
      patch: (caller, teamId, patch) => change(caller, { action: "team.update", teamId, what: "team", id: teamId }, blank(patch.name), (atMs) => store.updateTeam(teamId, patch, atMs)).pipe(
        Effect.andThen(find(teamId))
      ),
      archive: (caller, teamId) => change(caller, { action: "team.archive", teamId, what: "team", id: teamId }, undefined, (atMs) => store.updateTeam(teamId, { status: "archived" }, atMs)),
      addMember: (caller, teamId, wanted) => Effect.suspend(() => {
        const id = newId()
        return change(caller, { action: "team.add_member", teamId, what: "team member", id }, outside(roles, "role", wanted.role),
          (atMs) => store.insertMember(id, teamId, wanted, limits.teamPartsMax, atMs))
      }),
      addRule: (caller, teamId, wanted) => Effect.suspend(() => {
        const id = newId()
        return change(caller, { action: "team.add_rule", teamId, what: "routing rule", id }, blank(wanted.name),
          (atMs) => store.insertRule(id, teamId, wanted, limits.teamPartsMax, atMs))
      }),
      addGate: (caller, teamId, wanted) => Effect.suspend(() => {
        const id = newId()
        const rule = outside(gateTypes, "gate_type", wanted.gateType)
          ?? (wanted.threshold >= 0 && wanted.threshold <= thresholdMax ? undefined : broken("threshold", `must be from 0 to ${thresholdMax}`))
        return change(caller, { action: "team.add_gate", teamId, what: "quality gate", id }, rule, (atMs) => store.insertGate(id, teamId, wanted, limits.teamPartsMax, atMs))
      }),
      removeMember: (caller, teamId, agentId) => change(caller, { action: "team.remove_member", teamId, what: "team member", id: agentId }, undefined, () => store.deleteMember(teamId, agentId)),
      removeRule: (caller, teamId, ruleId) => change(caller, { action: "team.remove_rule", teamId, what: "routing rule", id: ruleId }, undefined, () => store.deletePart("team_rules", teamId, ruleId)),
      removeGate: (caller, teamId, gateId) => change(caller, { action: "team.remove_gate", teamId, what: "quality gate", id: gateId }, undefined, () => store.deletePart("team_gates", teamId, gateId))
    })
  }))
}
