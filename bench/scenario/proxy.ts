/**
 * Proxy: what a call of an acf service costs the gateway in CPU, by what is
 * agreed about its price: there is none; it is within the free tier; it is
 * recorded; it is taken from credits. Each as a ratio to the bare relay.
 *
 * Taken as `relay` takes its own figure, all in turns in the same rounds. The
 * last two are durable before they are answered, so that their part is mostly
 * PostgreSQL's, which is told apart there and not here. All calls are one
 * buyer's. The books are audited at the end.
 */
import { createHash, randomBytes } from "node:crypto"
import { body } from "../rig/agent.ts"
import { auditBooks } from "../rig/books.ts"
import { addCallers } from "../rig/callers.ts"
import { confine, cpuMicros } from "../rig/cores.ts"
import { type BenchGateway, startGateway } from "../rig/gateway.ts"
import type { Options } from "../rig/options.ts"
import type { Figure, Report } from "../rig/Report.ts"
import type { Rig } from "../rig/Rig.ts"
import { type Contestant, type Turn, figuresOf, openArena, ratio, turn, warmUpSeconds } from "./relay.ts"

const adminKey = `acf_0123456789abcdef:sec_${"operator".repeat(6)}`
const price = "0.000001"
/** The most that a service may give: minutes of load. */
const freeTierCalls = 1_000_000

export const proxy = async (rig: Rig, options: Options): Promise<Report> => {
  const arena = await openArena(rig)
  if (typeof arena === "string") return { figures: [], parameters: {}, missing: [arena] }
  const { cores, agent } = arena
  const { seconds, rounds, connections } = options
  const start = async (settlement: "record" | "prepaid"): Promise<BenchGateway> => {
    const env = { ACF_SETTLEMENT: settlement, ACF_ADMIN_KEY: adminKey, ACF_IP_RATE: "1000000000", ACF_IP_BURST: "1000000000" }
    const gateway = await startGateway(rig, { billing: "free", agentPort: agent.port, env })
    confine(gateway.pid, cores.measured)
    return gateway
  }
  const [recording, charging] = [await start("record"), await start("prepaid")]
  const [recorded, charged] = [await openMarket(recording, agent.port), await openMarket(charging, agent.port)]
  const bare = arena.bare(recorded.headers)
  const classes = [
    await recorded.offer("without a price", { price_per_call: "0" }), await recorded.offer("free tier", { price_per_call: price, free_tier_calls: freeTierCalls }),
    await recorded.offer("recorded", { price_per_call: price }), await charged.offer("prepaid", { price_per_call: price })
  ]

  let calls = 0
  for (const each of [bare, ...classes]) calls = Math.max(calls, (await turn(each, options, Math.min(warmUpSeconds, seconds))).calls)
  const turns = new Map<Contestant, Array<Turn>>([bare, ...classes].map((each) => [each, []]))
  for (let round = 0; round < rounds; round++) {
    for (const [each, taken] of turns) taken.push(await turn(each, options, seconds))
  }
  for (const gateway of [recording, charging]) await auditBooks(gateway)
  if (turns.get(classes[1]!)!.reduce((sum, taken) => sum + taken.calls, calls) > freeTierCalls) throw new Error("the free tier may have run out: fewer or shorter rounds")
  const bares = turns.get(bare)!
  return {
    figures: [
      ...classes.flatMap((each, at): ReadonlyArray<Figure> => [
        ratio(turns.get(each)!, bares, "bare relay", at < 2 ? { atMost: 1.3 } : undefined, each.name), ...figuresOf(each.name, turns.get(each)!)
      ]),
      ...figuresOf("bare relay", bares)
    ],
    parameters: { connections, rounds, seconds, price: Number(price), bodyBytes: body.length }
  }
}

const hashOf = (key: string): Buffer => createHash("sha256").update(key).digest()

interface Market {
  readonly headers: Readonly<Record<string, string>>
  /** Lists a service on these terms; the buyer's calls of it are what is measured. */
  readonly offer: (name: string, terms: object) => Promise<Contestant>
}

/** A provider, and a buyer with funds and a key without a limit, written as rows before the gateway knows of them. */
const openMarket = async ({ process: gateway, sql, pid }: BenchGateway, agentPort: number): Promise<Market> => {
  const [known] = await addCallers(sql, 1)
  const keyId = `acf_${randomBytes(8).toString("hex")}`
  const buyer = `${keyId}:sec_${randomBytes(32).toString("base64url")}`
  await sql`
    insert into api_keys (id, account_id, dialect, name, key_hash, key_prefix, scopes)
    select gen_random_uuid(), account_id, 'acf', 'bench', ${hashOf(buyer)}, ${keyId}, array['buyer'] from api_keys where key_hash = ${hashOf(known!)}`
  const made = await gateway.ask(201, "POST", "/acf/api/v1/keys", { token: adminKey, body: { owner_id: "a provider", role: "provider" } })
  const provider = `${made.key_id}:${made.secret}`
  const headers = { "content-type": "application/json", authorization: `Bearer ${buyer}` }
  return {
    headers,
    offer: async (name, terms) => {
      const listing = { name, description: "Measured", endpoint: `http://127.0.0.1:${agentPort}/run`, category: "bench", payment_method: "credits", ...terms }
      const { id } = await gateway.ask(201, "POST", "/acf/api/v1/services", { token: provider, body: listing })
      return { name, url: `${gateway.url}/acf/api/v1/proxy/${id}`, headers, cpu: () => cpuMicros(pid) }
    }
  }
}
