/**
 * People of acf in a `World`: owners by name with a key of a role, and services
 * of theirs that a test scripts.
 */
import { randomUUID } from "node:crypto"
import { newId } from "../../src/kernel/Ids.ts"
import { newAdminKey } from "../../src/kernel/market/AdminKey.ts"
import type { Role } from "../../src/kernel/market/Keys.ts"
import { addAdminKey } from "../../src/store/market/AdminKeyStore.ts"
import type { Asked, Reply, Respond, World } from "./World.ts"

export interface OwnerOptions {
  /** Another key of an owner who has this name already, or a new owner's; a new name unless given. */
  readonly name?: string
  /** `buyer` unless given. */
  readonly role?: Role
  /** Calls in 60 s, at most 300; as many as the world allows unless given. */
  readonly rateLimit?: number
}

export interface Owner {
  readonly name: string
  readonly accountId: string
  readonly keyId: string
  /** `key_id:secret`, as the header wants it. */
  readonly token: string
  /** Calls a path below acf's mount (`/api/v1/teams`) with the key. */
  readonly call: (method: string, path: string, body?: unknown, headers?: Readonly<Record<string, string>>) => Promise<Reply>
}

const operators = new WeakMap<World, Promise<string>>()

/** Of the first admin, whom no call can make: as `npm run admin-key` does it. */
const operatorKey = (world: World): Promise<string> => {
  const known = operators.get(world) ?? (async () => {
    const nowMs = Date.now()
    const { made, row } = newAdminKey(nowMs)
    await addAdminKey(world.sql, "operator", row, { newId, atMs: nowMs })
    return made.key
  })()
  operators.set(world, known)
  return known
}

export const owner = async (world: World, { name = `owner-${randomUUID()}`, role = "buyer", rateLimit }: OwnerOptions = {}): Promise<Owner> => {
  const made = await world.call("POST", "/acf/api/v1/keys", { token: await operatorKey(world), body: { owner_id: name, role, rate_limit: rateLimit ?? 300 }, headers: { "x-forwarded-for": "192.0.2.255" } })
  if (made.status !== 201) throw new Error(`expected 201, got ${made.status} ${made.text}`)
  const { key_id: keyId, secret } = made.json
  const token = `${keyId}:${secret}`
  const [row] = await world.sql<Array<{ account_id: string }>>`select account_id from owners where dialect = 'acf' and name = ${name}`
  const accountId = row!.account_id
  if (rateLimit === undefined) await world.alter({ accountId }, (sql) => sql`update api_keys set rate_limit = null where dialect = 'acf' and key_prefix = ${keyId}`)
  return { name, accountId, keyId, token, call: (method, path, body, headers = {}) => world.call(method, `/acf${path}`, { token, body, headers }) }
}

export interface ServiceOptions {
  readonly name?: string
  /** Dollars, e.g. `"0.05"`. */
  readonly price?: string
  readonly freeTierCalls?: number
  readonly category?: string
  readonly tags?: ReadonlyArray<string>
  readonly paymentMethod?: string
  readonly description?: string
  readonly respond?: Respond
  /** Where it listens, instead of a scripted service's address. */
  readonly endpoint?: string
}

export interface ScriptedService {
  readonly id: string
  readonly owner: Owner
  readonly endpoint: string
  /** What it was asked so far. */
  readonly asked: ReadonlyArray<Asked>
}

const echo: Respond = ({ body }) => ({ headers: { "content-type": "application/json" }, body: JSON.stringify({ output: body }) })

/** A service of an owner that has a provider's key. */
export const service = async (world: World, provider: Owner, options: ServiceOptions = {}): Promise<ScriptedService> => {
  const { name = "A service", price = "0.05", freeTierCalls = 0, category = "ai", tags = [], paymentMethod = "x402", description = "Scripted by a test", respond = echo } = options
  const asked: Array<Asked> = []
  const endpoint = options.endpoint ?? world.endpoint((call) => {
    asked.push(call)
    return respond(call)
  })
  const made = await provider.call("POST", "/api/v1/services", {
    name, description, endpoint, price_per_call: price, category, tags, payment_method: paymentMethod, free_tier_calls: freeTierCalls
  })
  if (made.status !== 201) throw new Error(`expected 201, got ${made.status} ${made.text}`)
  return { id: made.json.id, owner: provider, endpoint, asked }
}

/** The operator's own secret, for worlds whose buyers pay from credits. */
export const adminSecret = "the operator's own secret"

/** Credits a buyer as the operator does, in a world with that secret. */
export const credit = async (world: World, { name }: Pick<Owner, "name">, usd: string): Promise<void> => {
  const credited = await world.call("POST", `/acf/api/v1/admin/credit?${new URLSearchParams({ buyer_id: name, amount: usd })}`, { headers: { "x-admin-key": adminSecret } })
  if (credited.status !== 200) throw new Error(`expected 200, got ${credited.status} ${credited.text}`)
}
