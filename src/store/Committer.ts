/**
 * The Committer: group commit for all actors of a node, fenced by their tokens,
 * and by leases where another node owns the account.
 *
 * Overview. Actors submit commit requests; while one batch is in flight the
 * next fills. A flush is one statement (`batchSql.ts`) in a transaction of its
 * own: a request is durable entirely or not at all.
 *
 *     submit ─▶ waiting ─▶ in flight ─┬─ acknowledged ──▶ committed | refused (stale token, lease closed)
 *                                     ├─ not executed ──▶ sent once more, then refused
 *                                     ├─ aborted ───────▶ sent again account by account, lease by lease
 *                                     └─ in doubt ──────▶ fence all its accounts and leases, look the batch up
 *
 * Guarantee. `done` is called exactly once for each request, with an outcome
 * that is true. A request of an activation whose token is no longer current, or
 * that spends from a lease which is closed or has less, changes nothing. An
 * account or a lease with any request that did not commit is given up
 * (`onLost`): its requests that still wait are refused before they are sent, so
 * nothing is ever committed on top of a decision that was lost. An account's
 * leases and its own activation, should both be here, are given up apart.
 *
 * Failure cases. Connection cut after the send: the accounts' tokens are raised
 * and the leases made unusable first (which waits for a batch that still runs,
 * and refuses one that has not begun), then the batch's row says what happened. If the database stays away
 * past `outcomeDeadlineMs` callers learn `unknown`; accounts stay fenced by
 * their next activation. While no answer comes, everything that waits is
 * refused at once and `available()` is false. A server that keeps the connection
 * and does not answer is refused more after `commitStallMs`, and its connection
 * is given up as cut after `commitAnswerTimeoutMs`. A database that answers but
 * takes no writes (read-only, disk full) is as good as away: only an empty batch
 * that became durable ends an outage, on a connection of its own, because a
 * server that was demoted keeps the old ones. A committer with nothing to do
 * asks after the database, so that an idle node knows too.
 *
 * Why not one transaction per command: an fsync costs more than a hundred
 * decisions.
 */
import { Context, Effect, Layer } from "effect"
import { randomUUID } from "node:crypto"
import { limits } from "../config.ts"
import type { AccountId, LeaseId, Token } from "../domain/ids.ts"
import { log } from "../telemetry/log.ts"
import { gauge, metrics } from "../telemetry/Metrics.ts"
import type { CommitOutcome, CommitRequest } from "./Commit.ts"
import { batchParameters } from "./batchParameters.ts"
import { batchSql } from "./batchSql.ts"
import { Postgres, type Sql, verdictOf } from "./Postgres.ts"

const committed: CommitOutcome = { _tag: "committed" }
const refused: CommitOutcome = { _tag: "refused" }
const unknown: CommitOutcome = { _tag: "unknown" }

/** With a lease that is what was lost; else the account's activation of this token. */
export type LostListener = (accountId: AccountId, token: Token, lease: LeaseId | undefined) => void

export class Committer extends Context.Service<Committer, {
  readonly submit: (request: CommitRequest) => void
  /** False while the database does not answer: what would be submitted now would be refused. */
  readonly available: () => boolean
  /** Called for each account whose activation must be dropped, and each lease, before any of its callers is answered. */
  readonly onLost: (listener: LostListener) => void
  /** Resolves when nothing waits and nothing is in flight. */
  readonly drained: Effect.Effect<void>
}>()("tollgate/store/Committer") {
  static readonly layer = Layer.effect(Committer, Effect.gen(function*() {
    const { writes, renewWrites } = yield* Postgres
    const committer = yield* Effect.acquireRelease(
      Effect.sync(() => new GroupCommit(writes, renewWrites)),
      (committer) => Effect.sync(() => { committer.closed = true })
    )
    yield* Effect.acquireRelease(Effect.sync(() => setInterval(() => committer.askAfter(), idleProbeMs)), (timer) => Effect.sync(() => clearInterval(timer)))
    gauge("tollgate_commits_waiting", "Commit requests waiting for the next batch", () => committer.waiting.length)
    return Committer.of({
      submit: (request) => committer.submit(request),
      available: () => committer.outageSince === undefined && !committer.isStalled,
      onLost: (listener) => { committer.listeners.push(listener) },
      drained: Effect.promise(() => committer.drained())
    })
  }))
}

/** Between two attempts to reach a database that went away. */
const reconnectMs = 20
/** Between two attempts to write to one that is away. */
const outageProbeMs = 100
const idleProbeMs = 1_000

const sleep = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms) })

class GroupCommit {
  waiting: Array<CommitRequest> = []
  readonly listeners: Array<LostListener> = []
  outageSince: number | undefined = undefined
  closed = false
  private running = false
  private idle: Array<() => void> = []
  private askedAt: number | undefined = undefined
  private readonly sql: Sql
  private readonly renew: () => void

  constructor(sql: Sql, renew: () => void) {
    this.sql = sql
    this.renew = renew
  }

  /** The database took a statement and says nothing: what is submitted now would only wait. */
  get isStalled(): boolean {
    return this.askedAt !== undefined && performance.now() - this.askedAt > limits.commitStallMs
  }

  /** A server that is frozen keeps its connections: past the deadline the statement's outcome is unknown. */
  private async answer<A>(statement: PromiseLike<A>): Promise<A> {
    this.askedAt = performance.now()
    const overdue = setTimeout(this.renew, limits.commitAnswerTimeoutMs)
    try {
      return await statement
    } finally {
      clearTimeout(overdue)
      this.askedAt = undefined
    }
  }

  submit(request: CommitRequest): void {
    if (this.outageSince !== undefined || this.waiting.length >= limits.committerQueueMax) {
      // The decision is already adopted: its account must be given up, or later commits would build on it.
      queueMicrotask(() => this.lose([request], refused))
      return
    }
    this.waiting.push(request)
    if (this.running) return
    this.running = true
    setImmediate(() => { void this.run() })
  }

  /** Whether the database is there, when nothing else would find out. */
  askAfter(): void {
    if (this.running || this.closed) return
    this.running = true
    void this.answer(this.sql`select 1`).catch(() => this.outage([], refused)).then(() => this.run())
  }

  drained(): Promise<void> {
    return this.running ? new Promise((resolve) => { this.idle.push(resolve) }) : Promise.resolve()
  }

  private async run(): Promise<void> {
    while (this.waiting.length > 0) {
      const batch = this.waiting.length <= limits.batchCommitsMax ? this.waiting : this.waiting.slice(0, limits.batchCommitsMax)
      this.waiting = batch === this.waiting ? [] : this.waiting.slice(batch.length)
      for (const part of partsOf(batch)) {
        await this.flush(part, true).catch((defect: unknown) => {
          log.fatal({ err: defect }, "committer failed")
          this.lose(part, unknown)
        })
      }
    }
    this.running = false
    for (const resolve of this.idle.splice(0)) resolve()
  }

  /** Sends one batch and tells each of its requests the outcome. */
  private async flush(batch: ReadonlyArray<CommitRequest>, mayRetry: boolean): Promise<void> {
    const batchId = randomUUID()
    const began = performance.now()
    try {
      const stale = await this.send(batchId, batch)
      metrics.commitSeconds.observe((performance.now() - began) / 1000)
      metrics.batchCommits.observe(batch.length)
      metrics.batches.inc({ outcome: "committed" })
      this.settle(batch, stale)
    } catch (error) {
      const verdict = verdictOf(error)
      metrics.batches.inc({ outcome: verdict })
      log.warn({ err: error, verdict, commits: batch.length }, "batch not acknowledged")
      if (verdict === "unknown") return this.lookUp(batchId, batch)
      if (verdict === "aborted") return this.separate(batch, error)
      if (!mayRetry) return this.outage(batch, refused)
      await sleep(reconnectMs)
      return this.flush(batch, false)
    }
  }

  /** Answers the accounts that the fence refused. */
  private async send(batchId: string, batch: ReadonlyArray<CommitRequest>): Promise<ReadonlySet<string>> {
    const tokens = newestTokens(batch)
    for (const request of batch) assertSound(request)
    // Two terms of one account in a batch: the earlier is stale already.
    const current = batch.filter((request) => request.lease !== undefined || tokens.get(request.accountId) === request.token)
    const { present, leases, parameters } = batchParameters(current)
    const [row] = await this.answer(this.sql.unsafe<Array<{ refused: ReadonlyArray<string> }>>(batchSql(present, leases), [batchId, ...parameters], { prepare: true }))
    return new Set(row!.refused)
  }

  private settle(batch: ReadonlyArray<CommitRequest>, stale: ReadonlySet<string>): void {
    const lost: Array<CommitRequest> = []
    const tokens = newestTokens(batch)
    for (const request of batch) {
      if (stale.has(request.accountId) || request.lease === undefined && tokens.get(request.accountId) !== request.token) lost.push(request)
      else request.done(committed)
    }
    this.lose(lost, refused)
  }

  /** The server refused the statement: whose rows were at fault is found by sending each account's or lease's alone. */
  private async separate(batch: ReadonlyArray<CommitRequest>, error: unknown): Promise<void> {
    const fences = new Map<AccountId | LeaseId, Array<CommitRequest>>()
    for (const request of batch) {
      const fence = request.lease ?? request.accountId
      const own = fences.get(fence)
      if (own === undefined) fences.set(fence, [request])
      else own.push(request)
    }
    if (fences.size > 1) {
      for (const own of fences.values()) await this.flush(own, true)
      return
    }
    const constraint = (error as { readonly constraint_name?: string }).constraint_name
    this.lose(batch, { _tag: "aborted", constraint })
  }

  /** The batch was sent and no answer came. Fences its accounts and leases, then reads its row. */
  private async lookUp(batchId: string, batch: ReadonlyArray<CommitRequest>): Promise<void> {
    const began = performance.now()
    this.outageSince = began
    this.loseWaiting()
    this.giveUp(batch)
    const accounts = Array.from(newestTokens(batch).keys())
    const leases = Array.from(leasesOf(batch).keys())
    for (;;) {
      try {
        await this.answer(this.sql`
          with locked as (select id from accounts where id = any(${accounts}::uuid[]) order by id for update)
          update accounts a set token = a.token + 1 from locked where a.id = locked.id`)
        if (leases.length > 0) await this.answer(this.sql`
          with locked as (select id from leases where id = any(${leases}::uuid[]) order by id for update)
          update leases l set is_open = false from locked where l.id = locked.id`)
        const [row] = await this.answer(this.sql<Array<{ refused: ReadonlyArray<string> }>>`select refused from batches where id = ${batchId}`)
        this.outageSince = undefined
        return row === undefined ? this.lose(batch, refused) : this.settle(batch, new Set(row.refused))
      } catch (error) {
        if (this.closed || performance.now() - began > limits.outcomeDeadlineMs) {
          log.error({ err: error, batchId }, "outcome of a batch could not be learned in time")
          return this.outage(batch, unknown)
        }
        await sleep(reconnectMs)
      }
    }
  }

  /** The database is away: everything is refused until it can be written to again. */
  private async outage(batch: ReadonlyArray<CommitRequest>, outcome: CommitOutcome): Promise<void> {
    this.outageSince ??= performance.now()
    this.loseWaiting()
    this.lose(batch, outcome)
    while (!this.closed) {
      try {
        await this.send(randomUUID(), [])
        this.outageSince = undefined
        return
      } catch {
        this.renew()
        await sleep(outageProbeMs)
      }
    }
  }

  private loseWaiting(): void {
    const waiting = this.waiting
    this.waiting = []
    this.lose(waiting, refused)
  }

  private lose(requests: ReadonlyArray<CommitRequest>, outcome: CommitOutcome): void {
    if (requests.length === 0) return
    this.giveUp(requests)
    for (const request of requests) request.done(outcome)
  }

  /** Drops the activations and leases behind these requests, and with them what they still have waiting. */
  private giveUp(requests: ReadonlyArray<CommitRequest>): void {
    const tokens = newestTokens(requests)
    const leases = leasesOf(requests)
    for (const listener of this.listeners) {
      for (const [accountId, token] of tokens) listener(accountId, token, undefined)
      for (const [lease, { accountId, token }] of leases) listener(accountId, token, lease)
    }
    const isLost = ({ accountId, token, lease }: CommitRequest): boolean => lease === undefined ? token <= (tokens.get(accountId) ?? -1n) : leases.has(lease)
    const dropped = this.waiting.filter(isLost)
    if (dropped.length === 0) return
    this.waiting = this.waiting.filter((request) => !isLost(request))
    for (const request of dropped) request.done(refused)
  }
}

/** Of the activations. */
const newestTokens = (requests: ReadonlyArray<CommitRequest>): ReadonlyMap<AccountId, Token> => {
  const tokens = new Map<AccountId, Token>()
  for (const { accountId, token, lease } of requests) {
    if (lease === undefined && (tokens.get(accountId) ?? token) <= token) tokens.set(accountId, token)
  }
  return tokens
}

/** What is spent from, each with one of its requests. */
const leasesOf = (requests: ReadonlyArray<CommitRequest>): ReadonlyMap<LeaseId, CommitRequest> => {
  const leases = new Map<LeaseId, CommitRequest>()
  for (const request of requests) if (request.lease !== undefined) leases.set(request.lease, request)
  return leases
}

/** A statement refuses accounts: one that just moved, and is both decided here and spent from by lease, takes two. */
const partsOf = (batch: ReadonlyArray<CommitRequest>): ReadonlyArray<ReadonlyArray<CommitRequest>> => {
  if (leasesOf(batch).size === 0) return [batch]
  const decidedHere = newestTokens(batch)
  const isApart = ({ accountId, lease }: CommitRequest): boolean => lease !== undefined && decidedHere.has(accountId)
  const apart = batch.filter(isApart)
  return apart.length === 0 ? [batch] : [batch.filter((request) => !isApart(request)), apart]
}

/**
 * Looked at before it is sent: a machine that breaks this must not reach the database. The sides of every transaction
 * sum to zero, an order's money moves only with its end, a call is recorded only with what it moved, and a lease is only
 * charged, never for more than itself: what its account and its key have is the owner's to change.
 */
const assertSound = ({ lease, rows }: CommitRequest): void => {
  if (lease !== undefined && [rows.budgets, rows.leases, rows.orders, rows.finished, rows.keys, rows.revoked, rows.agents].some((some) => some !== undefined && some.length > 0)) {
    throw new Error(`lease ${lease} is not enough for these rows`)
  }
  for (const t of rows.transactions ?? []) {
    if (lease !== undefined && (t.type !== "charge" || t.available > 0n || t.reserved !== 0n)) throw new Error(`transaction ${t.id} (${t.type}) is no charge of lease ${lease}`)
    if (t.available + t.reserved + t.earned + t.fee + t.buyback + t.deposits + t.withdrawals !== 0n) {
      throw new Error(`transaction ${t.id} (${t.type}) does not sum to zero`)
    }
    if ((t.type === "complete" || t.type === "refund") && rows.finished?.some(({ id }) => id === t.orderId) !== true) {
      throw new Error(`transaction ${t.id} (${t.type}) ends no order`)
    }
  }
  for (const { id } of rows.usage ?? []) {
    if (rows.transactions?.some((t) => t.id === id) !== true) throw new Error(`usage ${id} belongs to no transaction`)
  }
}
