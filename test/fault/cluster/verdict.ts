/**
 * The end of a run: the cluster must come to rest by itself, every node must
 * tell everybody the same balance, and the checker and the auditor must find
 * nothing.
 */
import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { audit } from "../../../src/store/Audit.ts"
import type { Cluster } from "../../support/ClusterProcesses.ts"
import { readBooks } from "./books.ts"
import { check } from "./checker.ts"
import { type Crowd, micro } from "./Crowd.ts"
import type { Served } from "./History.ts"

/** Locks expire, a dead node is noticed, its accounts and leases are taken over; and this machine is busy. */
const recoveryMs = 30_000

export interface Verdict {
  readonly findings: ReadonlyArray<string>
  readonly tally: Readonly<Record<string, number>>
}

/** Waits for something that the cluster does by itself; `undefined` when it did, else what is still missing. */
const settled = async (what: string, missing: () => Promise<string | undefined>): Promise<string | undefined> => {
  const deadline = performance.now() + recoveryMs
  for (;;) {
    const left = await missing().catch((cause: unknown) => String(cause))
    if (left === undefined) return undefined
    if (performance.now() > deadline) return `${what} after ${recoveryMs} ms: ${left}`
    await sleep(50)
  }
}

/** What is not well yet, or not at rest. */
const unrest = async (cluster: Cluster, accountIds: ReadonlyArray<string>): Promise<string | undefined> => {
  for (const { index, gateway } of cluster.nodes.filter(({ isRunning }) => isRunning)) {
    const { status, text } = await gateway.call("GET", "/ready", { signal: AbortSignal.timeout(5_000) })
    if (status !== 200) return `node ${index} is not ready: ${text}`
    const holds = await gateway.metric("tollgate_holds_open")
    if (holds !== 0) return `${holds} holds at node ${index}`
  }
  const [row] = await cluster.sql<Array<{ orders: number; leases: number }>>`
    select (select count(*)::int from orders where status = 'pending') as orders, (select count(*)::int from leases where account_id = any(${accountIds}::uuid[])) as leases`
  if (row!.orders + row!.leases > 0) return `${row!.orders} pending orders, ${row!.leases} leases`
  return undefined
}

/** Every node tells everybody the same balance, and that nothing of it is set aside. */
const balances = async (cluster: Cluster, { people }: Crowd): Promise<ReadonlyMap<string, bigint>> => {
  const told = new Map<string, bigint>()
  for (const { gateway, index } of cluster.nodes.filter(({ isRunning }) => isRunning)) {
    for (const person of people) {
      const { balance_usd, reserved_usd } = await gateway.balance(person)
      const known = told.get(person.accountId)
      if (reserved_usd !== "0.00" || known !== undefined && known !== micro(balance_usd)) throw new Error(`node ${index} says ${balance_usd}, reserved ${reserved_usd}, of ${person.accountId}; another said ${known}`)
      told.set(person.accountId, micro(balance_usd))
    }
  }
  return told
}

export const judge = async (cluster: Cluster, crowd: Crowd, served: ReadonlyArray<Served>): Promise<Verdict> => {
  const accountIds = crowd.people.map(({ accountId }) => accountId)
  const findings: Array<string> = []
  const restless = await settled("not at rest", () => unrest(cluster, accountIds))
  if (restless !== undefined) findings.push(restless)
  let told: ReadonlyMap<string, bigint> = new Map()
  const differing = await settled("balances differ", async () => {
    told = await balances(cluster, crowd)
    return undefined
  })
  if (differing !== undefined) findings.push(differing)
  const books = await readBooks(cluster.sql, accountIds)
  for (const { id, available } of books.accounts) if (told.has(id) && told.get(id) !== available) findings.push(`the nodes say that account ${id} has ${told.get(id)}, its row has ${available}`)
  findings.push(...check({ history: crowd.history, served, books, owners: crowd.owners, budgets: crowd.budgets }))
  findings.push(...(await audit(cluster.sql)).filter(({ ok }) => !ok).map(({ name, found }) => `audit: not ${name}: ${found}`))
  return { findings, tally: crowd.history.tally() }
}

/** For whoever looks into it: who did what, and what each node said. */
export const keepEvidence = async (cluster: Cluster, name: string, { findings }: Verdict, crowd: Crowd, served: ReadonlyArray<Served>): Promise<void> => {
  const path = join(mkdtempSync(join(tmpdir(), "tollgate-fault-")), `${name}.json`)
  const logs = cluster.nodes.filter(({ isRunning }) => isRunning).map(({ gateway }) => gateway.stderr().split("\n").slice(-500))
  const leases = await cluster.sql`select l.*, a.token from leases l join accounts a on a.id = l.account_id`
  const evidence = { name, findings, leases, attempts: crowd.history.attempts, revocations: crowd.history.revocations, served, logs }
  writeFileSync(path, JSON.stringify(evidence, (_, value: unknown) => typeof value === "bigint" ? String(value) : value, 1))
  console.log(`what happened is in ${JSON.stringify(path)}`)
}
