/**
 * Paid: how many paid calls a second are charged durably before they are
 * answered, with everything (gateway, PostgreSQL, agent, load) on this
 * machine's cores and fsync on.
 *
 * A thousand accounts call in turn, because one account's calls would share one
 * row. Nothing is pinned: the system shares the cores out, as it would for an
 * operator. At the end every call that was sent has its answer, and the sum of
 * all charges must equal the number of answers times the price, and the audit
 * must find nothing: else the scenario fails, however fast it was.
 */
import { closeSync, fdatasyncSync, openSync, writeFileSync, writeSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { body } from "../rig/agent.ts"
import { auditBooks, chargedIn } from "../rig/books.ts"
import { addCallers } from "../rig/callers.ts"
import { findCores } from "../rig/cores.ts"
import { type BenchGateway, startGateway } from "../rig/gateway.ts"
import type { Options } from "../rig/options.ts"
import { type Report, median, spread } from "../rig/Report.ts"
import type { Rig } from "../rig/Rig.ts"
import { wrkByKeys } from "../rig/wrk.ts"

const accounts = 1_000
const warmUpSeconds = 6
const priceMicros = 10_000n

export const paid = async (rig: Rig, options: Options): Promise<Report> => {
  const cores = findCores()
  if (typeof cores === "string") return { figures: [], parameters: {}, missing: [cores] }
  const { rounds, seconds, connections } = options
  const agent = await rig.program("programs/agent")
  const gateway = await startGateway(rig, { billing: "paid", agentPort: agent.port, price: "0.01", profile: options.profile ? options.results : undefined })
  const folder = rig.folder()
  const keysFile = join(folder, "keys")
  writeFileSync(keysFile, (await addCallers(gateway.sql, accounts)).join("\n"))

  const { beginMs, ended } = wrkByKeys({ url: gateway.callUrl, keysFile, body, connections, warmUpSeconds, seconds: rounds * seconds })
  await sleep(beginMs - Date.now())
  gateway.toggleProfile()
  const points = [await pointOf(gateway)]
  for (let round = 1; round <= rounds; round++) {
    await sleep(beginMs + round * seconds * 1_000 - Date.now())
    points.push(await pointOf(gateway))
  }
  gateway.toggleProfile()
  const load = await ended
  const answered = load.counted["warm"]! + load.counted["measured"]!
  await checkCharges(gateway, answered)

  const between = (read: (from: Point, to: Point) => number) => points.slice(1).map((point, at) => read(points[at]!, point))
  return {
    figures: [
      spread("paid calls, durable before answered", "/s", between((from, to) => (to.commits - from.commits) / (to.atMs - from.atMs) * 1_000), { atLeast: 12_000 }),
      spread("gateway, CPU a call", "µs", between((from, to) => (to.gateway - from.gateway) / (to.commits - from.commits))),
      spread("PostgreSQL, CPU a call", "µs", between((from, to) => (to.postgres - from.postgres) / (to.commits - from.commits))),
      spread("batches", "/s", between((from, to) => (to.batches - from.batches) / (to.atMs - from.atMs) * 1_000)),
      spread("calls a batch", "", between((from, to) => (to.commits - from.commits) / (to.batches - from.batches))),
      { name: "answered and charged, audit clean", value: answered, unit: "calls" },
      { name: "8 KiB and fdatasync on this disk", value: syncMicros(folder), unit: "µs" }
    ],
    parameters: { accounts, connections, rounds, seconds, price: Number(priceMicros) / 1e6, bodyBytes: body.length, fsync: true }
  }
}

interface Point {
  readonly atMs: number
  readonly commits: number
  readonly batches: number
  readonly gateway: number
  readonly postgres: number
}

/** Each call is one commit of one transaction. */
const pointOf = async (gateway: BenchGateway): Promise<Point> => {
  const { text } = await gateway.process.call("GET", "/metrics")
  const value = (name: string): number => Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1] ?? NaN)
  return { atMs: performance.now(), commits: value("tollgate_batch_commits_sum"), batches: value("tollgate_batch_commits_count"), ...gateway.cpu() }
}

const checkCharges = async (gateway: BenchGateway, answered: number): Promise<void> => {
  const { calls, micros } = await chargedIn(gateway.sql)
  if (calls !== answered || micros !== BigInt(answered) * priceMicros) throw new Error(`${answered} answers of ${priceMicros} µ$ each, but ${calls} charges of ${micros} µ$ together`)
  await auditBooks(gateway)
}

/** What one durable write costs here, without a database. */
const syncMicros = (folder: string): number => {
  const file = openSync(join(folder, "sync"), "w")
  const block = Buffer.alloc(8_192)
  const times = Array.from({ length: 100 }, (_, at) => {
    const began = performance.now()
    writeSync(file, block, 0, block.length, at * block.length)
    fdatasyncSync(file)
    return (performance.now() - began) * 1_000
  })
  closeSync(file)
  return median(times)
}
