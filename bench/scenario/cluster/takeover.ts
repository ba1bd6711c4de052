/**
 * How long an account is without service when its node is killed (-9): until a
 * paid call of it is answered by another node. Each kill looks at several
 * accounts of the victim, none of which had a lease elsewhere, and takes the
 * slowest; other accounts are called by the way at all nodes.
 *
 * The victim is the oldest node, and a new one joins before the next kill. The
 * money is checked account by account in the database: every answered call has
 * its charge, and no account has more charges than calls that were answered or
 * may have been.
 */
import { createHash } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import { Random } from "../../../test/support/Random.ts"
import { body } from "../../rig/agent.ts"
import { audit } from "../../rig/books.ts"
import { addCallers } from "../../rig/callers.ts"
import type { BenchCluster, BenchNode } from "../../rig/cluster.ts"
import { type Figure, median } from "../../rig/Report.ts"
import { names } from "./names.ts"
import { keysOf } from "./owners.ts"
import type { Setup } from "./Setup.ts"

const accountsWatched = 8
/** Enough that some are the victim's, with three nodes too. */
const accountsTried = 80
const accountsBeside = 40
const callersBeside = 4
const pauseMs = 20
/** Far beyond the bar; a cluster that needs longer has failed. */
const overdueMs = 30_000

/** Paid calls of one key by how they ended. */
interface Calls {
  answered: number
  /** No answer, or one that is no success: charged once at most. */
  unknown: number
}

export const takeover = async (setups: ReadonlyArray<Setup>, kills: number): Promise<ReadonlyArray<Figure>> => {
  const share = setups.map((_, at) => Math.floor((kills + at) / setups.length))
  const found = await Promise.all(setups.map(({ cluster }, at) => killInTurn(cluster, share[at]!)))
  const slowest = found.flatMap(({ times }) => times)
  return [
    { name: names.takeover, value: median(slowest), min: Math.min(...slowest), max: Math.max(...slowest), unit: "ms", bar: { atMost: 10_000 } },
    { name: "takeover: kills", value: slowest.length, unit: "" },
    { name: "takeover: calls answered meanwhile", value: found.reduce((sum, { answered }) => sum + answered, 0), unit: "" },
    { name: "takeover: double charges", value: found.reduce((sum, { doubles }) => sum + doubles, 0), unit: "", bar: { atMost: 0 } }
  ]
}

const killInTurn = async (cluster: BenchCluster, kills: number) => {
  const random = new Random(1)
  const calls = new Map<string, Calls>()
  const times = new Array<number>()
  const call = async (node: BenchNode, token: string): Promise<boolean> => {
    const counts = calls.get(token) ?? { answered: 0, unknown: 0 }
    calls.set(token, counts)
    const status = await node.process.call("POST", cluster.paths.paid, { token, body: JSON.parse(body) as object }).then((reply) => reply.status, () => 0)
    counts[status === 200 ? "answered" : "unknown"]++
    return status === 200
  }
  const beside = await addCallers(cluster.sql, accountsBeside)
  for (let kill = 0; kill < kills; kill++) {
    const victim = cluster.nodes[0]!
    const watched = await keysOf(cluster, victim, "here", await addCallers(cluster.sql, accountsTried), accountsWatched)
    if (watched.length === 0) throw new Error("a node owns nothing: its death would say nothing")
    let isOver = false
    const callers = Array.from({ length: callersBeside }, async () => {
      while (!isOver) await Promise.all([call(random.of(cluster.nodes), random.of(beside)), sleep(pauseMs)])
    })
    const beganMs = performance.now()
    const dying = cluster.kill(victim)
    const served = await Promise.all(watched.map(async (key) => {
      while (!await call(random.of(cluster.nodes), key)) {
        if (performance.now() - beganMs > overdueMs) throw new Error(`an account was not served ${overdueMs} ms after its node was killed`)
        await sleep(pauseMs)
      }
      return performance.now() - beganMs
    }))
    times.push(Math.max(...served))
    isOver = true
    await Promise.all([dying, ...callers])
    await join(cluster)
  }
  await audit(cluster.env)
  return { times, ...await compare(cluster, calls) }
}

/** Answers when the new node owns accounts. */
const join = async (cluster: BenchCluster): Promise<void> => {
  const node = await cluster.join()
  const untilMs = performance.now() + overdueMs
  while ((await keysOf(cluster, node, "here", await addCallers(cluster.sql, accountsWatched), 1)).length === 0) {
    if (performance.now() > untilMs) throw new Error(`a node that joined owns nothing after ${overdueMs} ms`)
  }
}

const compare = async ({ sql }: BenchCluster, calls: ReadonlyMap<string, Calls>) => {
  const byHash = new Map([...calls].map(([key, counts]) => [createHash("sha256").update(key).digest("hex"), counts]))
  const rows = await sql<Array<{ hash: string; charges: number }>>`
    select encode(k.key_hash, 'hex') as hash, count(t.id)::int as charges
    from api_keys k left join transactions t on t.account_id = k.account_id and t.type = 'charge'
    where encode(k.key_hash, 'hex') = any(string_to_array(${[...byHash.keys()].join()}, ',')) group by 1`
  let [answered, doubles] = [0, 0]
  for (const { hash, charges } of rows) {
    const counts = byHash.get(hash)!
    if (charges < counts.answered) throw new Error(`${counts.answered} paid calls of an account were answered, but only ${charges} charged`)
    answered += counts.answered
    doubles += Math.max(0, charges - counts.answered - counts.unknown)
  }
  if (doubles > 0) throw new Error(`${doubles} charges too many`)
  return { answered, doubles }
}
