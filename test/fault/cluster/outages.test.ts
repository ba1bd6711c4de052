/**
 * Three nodes under steady load while one of them, or Redis, is away: who serves
 * meanwhile, what nobody may notice, and what is told to those who do.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { limits } from "../../../src/config.ts"
import { type Cluster, type ClusterNode, startCluster } from "../../support/ClusterProcesses.ts"
import { until } from "../../support/GatewayProcess.ts"
import { Random } from "../../support/Random.ts"
import { useStage } from "../../support/Stage.ts"
import { line } from "./checker.ts"
import { type Buyer, Crowd, type Sold } from "./Crowd.ts"
import type { Attempt } from "./History.ts"
import { judge, keepEvidence } from "./verdict.ts"
import { Works } from "./Works.ts"

const stage = useStage(afterAll)

let cluster: Cluster
beforeAll(async () => {
  cluster = await startCluster({ nodes: 3 })
  stage.onEnd(() => cluster.end())
})

/** Eight buyers, whoever owns their accounts, and an agent that does not fail. */
const arrange = async () => {
  const random = new Random()
  const works = await new Works(random.fork(), 0).listen()
  stage.onEnd(() => works.close())
  const nodes = { count: () => 3, at: (nth: number) => cluster.nodes[nth]!.isRunning ? cluster.nodes[nth]!.gateway : undefined }
  const crowd = new Crowd(nodes, works, random, 20)
  const [[sold], ...buyers] = await Promise.all([crowd.seller(), ...Array.from({ length: 8 }, () => crowd.buyer("100"))]) as [ReadonlyArray<Sold>, ...ReadonlyArray<Buyer>]
  return { crowd, works, buyers, sold: sold! }
}

/** Their calls at every node, from now on until `end`. Each waits so long for its answer. */
const load = async (scene?: Awaited<ReturnType<typeof arrange>>, waitMs = 30_000) => {
  const { crowd, works, buyers, sold } = scene ?? await arrange()
  const callers = Array.from({ length: 12 }, (_, nth) => crowd.call(buyers[nth % buyers.length]!, sold, waitMs))
  stage.onEnd(() => crowd.stop())
  const { attempts } = crowd.history
  return {
    attempts, works,
    refusals: (): ReadonlyArray<Attempt> => attempts.filter(({ outcome }) => outcome.tag !== "ok"),
    /** Resolves when so many more calls have passed. */
    more: (count: number): Promise<void> => {
      const from = attempts.length
      return until(async () => attempts.slice(from).filter(({ outcome }) => outcome.tag === "ok").length >= count)
    },
    /** Resolves when so many that reached a node have passed in a row. */
    calm: (count: number): Promise<void> => until(async () => {
      const last = attempts.filter(({ outcome }) => outcome.tag !== "unreached").slice(-count)
      return last.length === count && last.every(({ outcome }) => outcome.tag === "ok")
    }),
    end: async (name: string, ...others: ReadonlyArray<Works>): Promise<void> => {
      crowd.stop()
      await Promise.all(callers)
      const served = [works, ...others].flatMap((works) => works.served)
      const verdict = await judge(cluster, crowd, served)
      console.log(name, JSON.stringify(verdict.tally))
      if (verdict.findings.length > 0) await keepEvidence(cluster, name, verdict, crowd, served)
      expect(verdict.findings).toEqual([])
    }
  }
}

describe("Redis", () => {
  it("silent for a second is noticed by nobody: not one call is refused", { timeout: 60_000 }, async () => {
    const { calm, more, refusals, end } = await load()
    await calm(100)
    const before = refusals().length
    cluster.redis.freeze()
    await sleep(1_000)
    cluster.redis.thaw()
    await more(100)
    expect(refusals().slice(before)).toEqual([])
    await end("redis silent for 1 s")
  })

  it("away for longer than locks are trusted: calls are told to come back, and service resumes by itself when it does, empty", { timeout: 90_000 }, async () => {
    const { calm, refusals, end } = await load()
    await calm(100)
    const before = refusals().length
    await cluster.redis.halt()
    await until(async () => refusals().slice(before).filter(({ outcome }) => outcome.tag === "refused" && outcome.status === 503).length >= 20)
    for (const { gateway } of cluster.nodes) expect((await gateway.call("GET", "/ready")).status).toBe(503)
    await cluster.redis.start()
    await calm(200)
    for (const { outcome } of refusals().slice(before)) expect(outcome).toMatchObject({ tag: "refused", status: 503, hasRetryAfter: true })
    await cluster.ready()
    await end("redis away")
  })

  it("wiped under load: who owns what is agreed on anew, nothing is lost, and nobody is told more than to come back", { timeout: 90_000 }, async () => {
    const { calm, refusals, end } = await load()
    await calm(100)
    const before = refusals().length
    await cluster.redis.command("flushall")
    await calm(200)
    for (const { outcome } of refusals().slice(before)) expect(outcome).toMatchObject({ tag: "refused", status: 503, hasRetryAfter: true })
    await end("redis wiped")
  })
})

/** The node that does not pass a call of this buyer on to another. */
const ownerOf = async ({ ticker }: Pick<Sold, "ticker">, { key }: Buyer): Promise<ClusterNode> => {
  for (;;) {
    for (const node of cluster.nodes) {
      const before = await passedOn(node)
      const { status } = await node.gateway.call("POST", `/v1/proxy/${ticker}`, { token: key, body: { prompt: "probe" } })
      if (status === 200 && await passedOn(node) === before) return node
    }
  }
}

const passedOn = async ({ gateway }: ClusterNode): Promise<number> => {
  const { text } = await gateway.call("GET", "/metrics")
  return [...text.matchAll(/^tollgate_calls_passed_on_total\{.*\} (\d+)$/gm)].reduce((sum, [, count]) => sum + Number(count), 0)
}

/** Connections that ended as a call was sent on them, and that reached nobody: whoever sees that may just call again. */
const resets = new Set(["UND_ERR_SOCKET", "ECONNRESET", "ECONNREFUSED"])

/** Notes by which connection, and so by which node, each charge under an account's token is written. What is taken from a lease names that instead. */
const witnessTerms = async (): Promise<() => Promise<ReadonlyArray<object>>> => {
  await cluster.sql.unsafe(`
    create table written (account_id uuid, token bigint, pid int);
    create function witness() returns trigger language plpgsql as
      $$ begin insert into written select new.account_id, token, pg_backend_pid() from accounts where id = new.account_id; return null; end $$;
    create trigger witness after insert on transactions for each row when (new.lease_id is null) execute function witness()`)
  stage.onEnd(() => cluster.sql.unsafe("drop trigger witness on transactions"))
  return () => cluster.sql`select account_id, token, array_agg(distinct pid) as pids from written group by account_id, token having count(distinct pid) > 1`
}

describe("a node", () => {
  it("frozen past its locks wakes up to accounts that are others' now: nothing is written by an owner of before, nothing is charged twice", { timeout: 120_000 }, async () => {
    const writtenByTwo = await witnessTerms()
    const scene = await arrange()
    const { crowd, buyers } = scene
    const works = await new Works(new Random(), 0).listen()
    stage.onEnd(() => works.close())
    const seller = crowd.people.find(({ accountId }) => accountId === crowd.owners.get(scene.sold.id))!
    const [free, paid] = await Promise.all([crowd.list(seller, works, "0"), crowd.list(seller, works, "0.03")])
    const frozen = await ownerOf(free, buyers[0]!)
    works.served.length = 0
    const tokens = async (): Promise<ReadonlyMap<string, bigint>> => {
      const rows = await cluster.sql<Array<{ id: string; token: bigint }>>`select id, token from accounts where id = any(${buyers.map(({ accountId }) => accountId)}::uuid[])`
      return new Map(rows.map(({ id, token }) => [id, token]))
    }
    const { attempts, calm, end } = await load(scene, 3_000)
    await calm(100)
    works.keep()
    const under = buyers.map((buyer) => crowd.callOnce(buyer, paid, frozen.index, 80_000))
    await until(async () => works.served.length === buyers.length)
    const before = await tokens()
    frozen.freeze()
    const frozenMs = performance.now()
    try {
      // Everybody is served again by the other two.
      await until(async () => buyers.every(({ accountId }) =>
        attempts.some((attempt) => attempt.accountId === accountId && attempt.node !== frozen.index && attempt.outcome.tag === "ok" && attempt.beganMs > frozenMs + limits.shardLockTtlMs)))
      const taken = await tokens()
      expect(buyers.filter(({ accountId }) => taken.get(accountId)! > before.get(accountId)!).length).toBeGreaterThan(0)
      works.release()
      // The answers lie in its sockets when it wakes up.
      await until(async () => works.served.every(({ isAnswered }) => isAnswered))
    } finally {
      frozen.thaw()
    }
    // Who owns the account now decides, and that may be the thawed node again, under a token of its own; or the call is refused.
    for (const outcome of await Promise.all(under)) if (outcome.tag !== "ok") expect(outcome).toMatchObject({ tag: "refused", status: 503, hasRetryAfter: true })
    await calm(100)
    await end("a node frozen past its locks", works)
    expect(await writtenByTwo()).toEqual([])
  })

  it("after another is stopped and started under load: no call that was acknowledged is lost, fewer than one of 1,000 fails, and each may be repeated", { timeout: 180_000 }, async () => {
    const { calm, more, attempts, works, end } = await load()
    await calm(100)
    const from = attempts.length
    for (const node of cluster.nodes) {
      await node.stop()
      await calm(50)
      await node.start()
      await cluster.ready()
      // Whoever restarts nodes one by one looks whether all is well before the next.
      await more(700)
    }
    const made = attempts.slice(from)
    const served = new Set(works.served.map(({ attemptId }) => attemptId))
    const isUnreached = ({ id, outcome }: Attempt): boolean => outcome.tag === "unreached" || outcome.tag === "unknown" && resets.has(outcome.why) && !served.has(id)
    const reached = made.filter((attempt) => !isUnreached(attempt))
    const failed = reached.filter(({ outcome }) => outcome.tag !== "ok")
    await end("a rolling restart")
    console.log(`rolling restart: ${reached.length} calls, ${made.length - reached.length} connections refused or reset, ${failed.length} calls failed: ${failed.map(line).join("; ")}`)
    for (const { outcome } of failed) expect(outcome).toMatchObject({ tag: "refused", status: 503, hasRetryAfter: true })
    expect(failed.length).toBeLessThanOrEqual(reached.length / 1_000)
  })
})
