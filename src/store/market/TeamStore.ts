/**
 * Teams and what they are made of: members, routing rules, quality gates.
 *
 * What changes a team holds its row's lock: changes of one team come one after
 * the other, so that a count is a bound, and each is one transaction with its
 * audit row.
 */
import { Effect } from "effect"
import type { StoreUnavailable } from "../../domain/errors.ts"
import { type AccountId, isUuid } from "../../domain/ids.ts"
import { insertAudit } from "../AuditStore.ts"
import type { AuditRow } from "../Commit.ts"
import { Postgres, type Sql, begin } from "../Postgres.ts"

type Json = Readonly<Record<string, unknown>>

export interface Team {
  readonly id: string
  readonly owner: string
  readonly name: string
  readonly description: string
  readonly config: Json
  readonly status: "active" | "archived"
  readonly createdAt: Date
  readonly updatedAt: Date
}
export interface Member {
  readonly id: string
  readonly teamId: string
  readonly agentId: string
  readonly role: string
  readonly skills: ReadonlyArray<string>
  readonly joinedAt: Date
}
export interface Rule {
  readonly id: string
  readonly name: string
  readonly keywords: ReadonlyArray<string>
  readonly targetAgentId: string
  readonly priority: number
  readonly enabled: boolean
}
export interface Gate {
  readonly id: string
  readonly gateType: string
  readonly threshold: number
  readonly gateOrder: number
  readonly config: Json
  readonly enabled: boolean
}
export type NewTeam = Pick<Team, "name" | "description" | "config">
export type NewMember = Pick<Member, "agentId" | "role" | "skills">
export type NewRule = Pick<Rule, "name" | "keywords" | "targetAgentId" | "priority">
export type NewGate = Pick<Gate, "gateType" | "threshold" | "gateOrder" | "config">
export type TeamPatch = Partial<NewTeam & Pick<Team, "status">>

/** Why nothing was written: no room for one more, there already, not there. */
export type Unwritten = "full" | "taken" | "absent"
/** A part of a change's transaction; answers why it did not write. */
export type Write<R = Unwritten> = (transaction: Sql) => Promise<R | undefined>

const columns = (sql: Sql) => sql`
  t.id, p.name as owner, t.name, t.description, t.config, t.status, t.created_at as "createdAt", t.updated_at as "updatedAt"`

const selectTeam = (sql: Sql, teamId: string) => sql<Array<Team>>`
  select ${columns(sql)} from teams t join parties p on p.account_id = t.account_id where t.id = ${teamId}`

const selectTeams = (sql: Sql, ownerId: AccountId, limit: number) => sql<Array<Team>>`
  select ${columns(sql)} from teams t join parties p on p.account_id = t.account_id
  where t.account_id = ${ownerId} and t.status = 'active'
  order by t.id desc limit ${limit}`

const selectMembers = (sql: Sql, teamId: string) => sql<Array<Member>>`
  select id, team_id as "teamId", agent_id as "agentId", role, skills, joined_at as "joinedAt" from team_members where team_id = ${teamId} order by id`

const selectRules = (sql: Sql, teamId: string) => sql<Array<Rule>>`
  select id, name, keywords, target_agent_id as "targetAgentId", priority, enabled from team_rules where team_id = ${teamId} order by priority desc, id`

const selectGates = (sql: Sql, teamId: string) => sql<Array<Gate>>`
  select id, gate_type as "gateType", threshold, gate_order as "gateOrder", config, enabled from team_gates where team_id = ${teamId} order by gate_order, id`

/** What is no id finds nothing. */
const read = <A>(teamId: string, select: (sql: Sql) => Promise<ReadonlyArray<A>>): Effect.Effect<ReadonlyArray<A>, StoreUnavailable, Postgres> =>
  isUuid(teamId) ? Postgres.use(({ run }) => run(select)) : Effect.succeed([])

export const findTeam = (teamId: string): Effect.Effect<Team | undefined, StoreUnavailable, Postgres> =>
  read(teamId, (sql) => selectTeam(sql, teamId)).pipe(Effect.map(([team]) => team))

/** Newest first, without archived ones. */
export const listTeams = (ownerId: AccountId, limit: number): Effect.Effect<ReadonlyArray<Team>, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => selectTeams(sql, ownerId, limit)))

/** In the order in which they came. */
export const listMembers = (teamId: string) => read(teamId, (sql) => selectMembers(sql, teamId))
/** The highest priority first. */
export const listRules = (teamId: string) => read(teamId, (sql) => selectRules(sql, teamId))
/** The lowest order first. */
export const listGates = (teamId: string) => read(teamId, (sql) => selectGates(sql, teamId))

/** Refused when the owner has `teamsMax` already that are not archived. */
export const insertTeam = (id: string, ownerId: AccountId, { name, description, config }: NewTeam, teamsMax: number, audit: AuditRow): Effect.Effect<"full" | undefined, StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) => run((sql) => begin(sql, async (tx) => {
    await tx`select from owners where dialect = 'acf' and account_id = ${ownerId} for no key update`
    const inserted = await tx`
      insert into teams (id, account_id, name, description, config, created_at, updated_at)
      select ${id}::uuid, ${ownerId}::uuid, ${name}, ${description}, ${tx.json(config as never)}::jsonb, ${new Date(audit.atMs)}::timestamptz, ${new Date(audit.atMs)}::timestamptz
      where (select count(*) from teams where account_id = ${ownerId} and status = 'active') < ${teamsMax}
      returning id`
    if (inserted.length === 0) return "full"
    await insertAudit(tx, ownerId, audit)
    return undefined
  })))

/** Does `write` to a team of this owner; answers why not, also when there is no such team or it is another's. */
export const changeTeam = <R>(teamId: string, ownerId: AccountId, audit: AuditRow, write: Write<R>): Effect.Effect<R | "missing" | "foreign" | undefined, StoreUnavailable, Postgres> =>
  !isUuid(teamId) ? Effect.succeed("missing") : Postgres.use(({ run }) => run((sql) => begin(sql, async (tx) => {
    const [team] = await tx<Array<{ owner: AccountId }>>`select account_id as owner from teams where id = ${teamId} for no key update`
    if (team === undefined) return "missing"
    if (team.owner !== ownerId) return "foreign"
    const unwritten = await write(tx)
    if (unwritten === undefined) await insertAudit(tx, ownerId, audit)
    return unwritten
  })))

export const updateTeam = (teamId: string, { name, description, config, status }: TeamPatch, atMs: number): Write => async (sql) => {
  await sql`
    update teams set name = coalesce(${name ?? null}, name), description = coalesce(${description ?? null}, description),
      config = coalesce(${config === undefined ? null : sql.json(config as never)}::jsonb, config), status = coalesce(${status ?? null}, status), updated_at = ${new Date(atMs)}
    where id = ${teamId}`
  return undefined
}

const isFull = async (sql: Sql, table: "team_members" | "team_rules" | "team_gates", teamId: string, partsMax: number): Promise<boolean> =>
  (await sql`select from ${sql(table)} where team_id = ${teamId} limit ${partsMax}`).length === partsMax

export const insertMember = (id: string, teamId: string, { agentId, role, skills }: NewMember, partsMax: number, atMs: number): Write => async (sql) => {
  if (await isFull(sql, "team_members", teamId, partsMax)) return "full"
  const inserted = await sql`
    insert into team_members (id, team_id, agent_id, role, skills, joined_at)
    values (${id}, ${teamId}, ${agentId}, ${role}, ${skills as Array<string>}::text[], ${new Date(atMs)})
    on conflict (team_id, agent_id) do nothing returning id`
  return inserted.length === 0 ? "taken" : undefined
}

export const insertRule = (id: string, teamId: string, { name, keywords, targetAgentId, priority }: NewRule, partsMax: number, atMs: number): Write => async (sql) => {
  if (await isFull(sql, "team_rules", teamId, partsMax)) return "full"
  await sql`
    insert into team_rules (id, team_id, name, keywords, target_agent_id, priority, created_at)
    values (${id}, ${teamId}, ${name}, ${keywords as Array<string>}::text[], ${targetAgentId}, ${priority}, ${new Date(atMs)})`
  return undefined
}

export const insertGate = (id: string, teamId: string, { gateType, threshold, gateOrder, config }: NewGate, partsMax: number, atMs: number): Write => async (sql) => {
  if (await isFull(sql, "team_gates", teamId, partsMax)) return "full"
  await sql`
    insert into team_gates (id, team_id, gate_type, threshold, gate_order, config, created_at)
    values (${id}, ${teamId}, ${gateType}, ${threshold}, ${gateOrder}, ${sql.json(config as never)}, ${new Date(atMs)})`
  return undefined
}

export const deleteMember = (teamId: string, agentId: string): Write => async (sql) =>
  (await sql`delete from team_members where team_id = ${teamId} and agent_id = ${agentId} returning id`).length === 0 ? "absent" : undefined

export const deletePart = (table: "team_rules" | "team_gates", teamId: string, id: string): Write => async (sql) =>
  !isUuid(id) || (await sql`delete from ${sql(table)} where team_id = ${teamId} and id = ${id} returning id`).length === 0 ? "absent" : undefined
