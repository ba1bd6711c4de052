/**
 * The demo of a fresh start: two agents answered by the gateway's own loopback
 * upstream, the account that lists them, one verified user with $10 and a key of
 * each product. What a newcomer needs is written to `DATA_DIR/demo.json` (0600).
 *
 * Seeded once: a later start finds the file, keeps users, keys and money as
 * they are, and only points the agents at the upstream's port of today.
 */
import { Effect } from "effect"
import { randomBytes } from "node:crypto"
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Config } from "../config.ts"
import { Accounts } from "./AccountActor.ts"
import type { AccountId } from "../domain/ids.ts"
import type { Caller } from "./Caller.ts"
import { ApiKeys } from "./identity/ApiKeys.ts"
import { Credentials } from "./identity/Credentials.ts"
import { Ledger } from "./Ledger.ts"
import { Listings } from "./Listings.ts"
import { Users } from "./identity/Users.ts"
import { Keys } from "./market/Keys.ts"
import { Links } from "./market/Links.ts"

/** The form of `demo.json`. Its fields are promised to scripts; `provider` is the account that lists the agents. */
export interface DemoFile {
  readonly base_url: string
  readonly email: string
  readonly password: string
  readonly api_key: string
  /** `key_id:secret` of the acf owner `demo`, a provider, who is the same account. */
  readonly acf_key: string
  readonly agents: ReadonlyArray<{ readonly ticker: string; readonly id: string }>
  readonly provider: { readonly email: string; readonly password: string }
}

const agents = [
  { ticker: "ECHO", path: "/echo", name: "Echo", price: 0n, description: "Answers what it was asked. Free." },
  { ticker: "SUMM", path: "/summ", name: "Summarizer", price: 10_000n, description: "Shortens a text to its most telling sentences." }
]
const startingCredits = 10_000_000n

const newPerson = (email: string) => ({ email, password: randomBytes(12).toString("base64url") })

const signUp = Effect.fnUntraced(function*({ email, password }: { readonly email: string; readonly password: string }) {
  const users = yield* Users
  const { accessToken } = yield* users.register(email, password, { remoteAddress: "127.0.0.1" }).pipe(
    Effect.catchTag("AlreadyExists", () => users.login(email, password, { remoteAddress: "127.0.0.1" }))
  )
  return yield* Credentials.use((credentials) => credentials.prove(`Bearer ${accessToken}`))
})

/** Whichever node owns the caller's account. */
const of = <A, E, R>(caller: Caller, effect: Effect.Effect<A, E, R>) => Accounts.use((accounts) => accounts.borrowed(caller.accountId, effect))

const seed = Effect.fn("Demo.seed")(function*(upstream: string) {
  const { publicUrl } = yield* Config
  const listings = yield* Listings
  const [user, provider] = [newPerson("demo@tollgate.example"), newPerson("agents@tollgate.example")]
  const owner = yield* signUp(provider)
  const caller = yield* signUp(user)
  const listed = yield* of(owner, Effect.forEach(agents, (agent) => listings.create(owner, {
    dialect: "autx", ticker: agent.ticker, name: agent.name, description: agent.description, category: "Demo", endpointUrl: upstream + agent.path,
    price: agent.price, freeTierCalls: 0, authTier: "jwt_default", manifest: undefined, tags: [], paymentMethod: "credits"
  }, undefined)))
  yield* of(caller, Ledger.use((ledger) => ledger.grant(caller.accountId as AccountId, startingCredits, "demo credits")))
  const key = yield* of(caller, ApiKeys.use((keys) => keys.create(caller, {
    dialect: "autx", name: "demo", scopes: ["proxy", "orders"], expiresInDays: undefined, rateLimit: undefined, budgets: []
  }, undefined)))
  return {
    base_url: publicUrl, ...user, api_key: key.key, acf_key: yield* introduce(user),
    agents: listed.map(({ agent }) => ({ ticker: agent.ticker, id: agent.id })), provider
  } satisfies DemoFile
})

/** The demo's user as an owner of acf: a name with a provider's key, and one account with the login. */
const introduce = Effect.fn("Demo.introduce")(function*({ email, password }: Pick<DemoFile, "email" | "password">) {
  const keys = yield* Keys
  const remoteAddress = "127.0.0.1"
  const wanted = { owner: "demo", rateLimit: 300, walletAddress: undefined }
  const first = yield* keys.create({ ...wanted, role: "buyer" }, { authorization: "", remoteAddress })
  const { key } = yield* keys.create({ ...wanted, role: "provider" }, { authorization: `Bearer ${first.key}`, remoteAddress })
  const caller = yield* signUp({ email, password })
  yield* Links.use((links) => links.link(caller, "acf", key, remoteAddress))
  return key
})

const pointAgents = Effect.fn("Demo.pointAgents")(function*(demo: DemoFile, upstream: string) {
  const listings = yield* Listings
  let owner: Caller | undefined
  for (const agent of agents) {
    const { agent: known } = yield* listings.get(agent.ticker)
    if (known.endpointUrl === upstream + agent.path) continue
    owner ??= yield* signUp(demo.provider)
    yield* of(owner, listings.patch(owner, agent.ticker, { endpointUrl: upstream + agent.path }))
  }
})

/** `upstream`: the demo upstream's origin. Answers what `demo.json` says. */
export const prepareDemo = Effect.fn("Demo.prepare")(function*(upstream: string) {
  const { dataDir, publicUrl } = yield* Config
  const file = join(dataDir, "demo.json")
  // A version before this one left no key of acf.
  const known = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) as Omit<DemoFile, "acf_key"> & Partial<DemoFile> : undefined
  const demo: DemoFile = known === undefined ? yield* seed(upstream) : { ...known, base_url: publicUrl, acf_key: known.acf_key ?? (yield* introduce(known)) }
  if (known !== undefined) yield* pointAgents(demo, upstream)
  writeFileSync(`${file}.new`, `${JSON.stringify(demo, null, 2)}\n`, { mode: 0o600 })
  renameSync(`${file}.new`, file)
  return demo
})
