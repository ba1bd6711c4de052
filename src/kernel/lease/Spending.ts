/**
 * The account that a call on this node spends from, whoever owns it: the
 * activation itself when it is owned here, else what the owner has leased to
 * this node of it. Relay and chat decide and commit on what this gives them and
 * need not know which it is; everything else asks `Accounts`, at the owner.
 *
 * Guarantee. No more is held or spent here than the owner granted, and nothing
 * is believed of a subject for longer than `leaseTrustMs` after its owner said
 * so. A commit names the lease it spends from and is refused once that is closed.
 */
import { Context, Effect, Layer, Schedule } from "effect"
import { Bus } from "../../cluster/Bus.ts"
import { Cluster, type Peer } from "../../cluster/Cluster.ts"
import { limits } from "../../config.ts"
import type { Account, SubjectId } from "../../domain/account.ts"
import type { Credits } from "../../domain/credits.ts"
import { BudgetExceeded, type GatewayError, InsufficientCredits, NotCommitted, OutcomeUnknown, Overloaded, Unauthenticated } from "../../domain/errors.ts"
import type { AccountId, HoldId, LeaseId } from "../../domain/ids.ts"
import { type Decided, decide } from "../../domain/ledger.ts"
import type { CommitOutcome, CommitRows } from "../../store/Commit.ts"
import { Committer } from "../../store/Committer.ts"
import { leasesOf } from "../../store/LeaseStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { log } from "../../telemetry/log.ts"
import { gauge, metrics } from "../../telemetry/Metrics.ts"
import { type AccountError, Accounts, type CommitDone, type CommitError } from "../AccountActor.ts"
import type { Caller } from "../Caller.ts"
import { Holds } from "../Holds.ts"
import { Ledger, type LedgerError } from "../Ledger.ts"
import { Node } from "../Node.ts"
import { Grants } from "./Grants.ts"
import { type Leased, LeasedAccounts } from "./LeasedAccounts.ts"

export type Spender = Pick<Caller, "accountId" | "subjectId">

export class Spending extends Context.Service<Spending, {
  /** The account to decide on at once, if it is owned here or leased with credits or commits in mind; `undefined` when somebody must be asked. Not for admission: what it says of the subject may be old. */
  readonly resident: (spender: Spender, nowMs: number) => Account | undefined
  /** Runs a turn on it, getting a lease first when there is none. */
  readonly ask: <A>(spender: Spender, turn: (account: Account, nowMs: number) => A) => Effect.Effect<A, AccountError>
  /** As `ask`, for a turn that answers an effect. */
  readonly act: <A, E>(spender: Spender, turn: (account: Account, nowMs: number) => Effect.Effect<A, E>) => Effect.Effect<A, E | AccountError>
  readonly submit: (account: Account, rows: CommitRows, decided: Decided | undefined, done: CommitDone) => void
  readonly commit: (account: Account, rows: CommitRows, decided?: Decided) => Effect.Effect<void, CommitError>
  /** Releases a hold wherever the account is decided now. */
  readonly release: (spender: Spender, holdId: HoldId) => void
  /**
   * Runs `attempt`; when it is short, gets what can be got and runs it again: posted earnings are swept and leases
   * recalled by the owner, and of another node's account at least `needed` is leased. Short again: only the owner's word is the answer.
   */
  readonly withMoney: <A, E>(spender: Spender, needed: Credits, attempt: Effect.Effect<A, E>) => Effect.Effect<A, E | LedgerError>
  /** False while nothing can be committed. */
  readonly writable: () => boolean
  /** Who owns the account, when it is not this node. */
  readonly peerOf: (spender: Spender) => Peer | undefined
  /** What this node may admit a call of the subject by, without asking: what the owner said within `leaseTrustMs`, when it granted a call that is left. The call is taken. */
  readonly admitNow: (spender: Spender) => Account | undefined
  /** As `admitNow`, asking the owner when it must; without `counted` no call is taken. `undefined`: the subject is gone. `RateLimited`: the owner's word. */
  readonly admit: (spender: Spender, counted: boolean) => Effect.Effect<Account | undefined, GatewayError>
  /** A call that `admitNow` took is passed on to the owner. `price`: what it lacked here, so that the next ones need not be; 0 when it lacked nothing. */
  readonly passedOn: (spender: Spender, price: Credits, needsRow: boolean) => void
  /** A call that nothing here could admit. From some a second on a lease is asked for. */
  readonly missed: (spender: Spender) => void
  /** Gets back what is not in use elsewhere of an account owned here, if anything is out. False: somebody who may have more did not answer. */
  readonly recall: (account: Account, subjectId?: SubjectId) => Effect.Effect<boolean, GatewayError>
  readonly areOut: (account: Account, subjectId?: SubjectId) => boolean
  /** Completes when no node admits the subject any more, `leaseTrustMs` at most. */
  readonly revoked: (accountId: AccountId, subjectId: SubjectId) => Effect.Effect<void>
}>()("tollgate/kernel/lease/Spending") {
  static readonly layer = Layer.effect(Spending, Effect.suspend(() => make))
}

const isShort = (error: unknown): error is InsufficientCredits | BudgetExceeded => error instanceof InsufficientCredits || error instanceof BudgetExceeded

/** For one decision. */
const leasesTried = 5

/** Forgotten leases that are given back at once. */
const asksAtOnce = 64

/** Rows of one look for leases that this node forgot. */
const forgottenMax = 500
/** Before all of them. */
const noLease = "00000000-0000-0000-0000-000000000000" as LeaseId

const make = Effect.gen(function*() {
  const accounts = yield* Accounts
  const bus = yield* Bus
  const cluster = yield* Cluster
  const committer = yield* Committer
  const grants = yield* Grants
  const holds = yield* Holds
  const ledger = yield* Ledger
  const node = yield* Node
  const postgres = yield* Postgres
  const leased = new LeasedAccounts(cluster, holds, node.id)
  gauge("tollgate_leases_held", "Subjects of other nodes' accounts that this node decides for", () => leased.size)

  cluster.serve({
    lease: (accountId, ask) => grants.lease(accountId as AccountId, ask),
    borrow: (accountId, nodeId) => accounts.lendOut(accountId as AccountId, nodeId),
    giveBack: (accountId, nodeId) => accounts.takeBack(accountId as AccountId, nodeId)
  })
  const quietly = (effect: Effect.Effect<unknown, GatewayError>): void => {
    Effect.runFork(effect.pipe(Effect.catch((error) => Effect.sync(() => log.debug({ error: error._tag }, "an account's owner was not reached")))))
  }
  bus.onNews((news) => {
    if (news._tag === "recall" && news.subjectId !== undefined) quietly(leased.recalled(news.accountId as AccountId, news.subjectId as SubjectId))
    else if (news._tag === "revoked") {
      leased.distrust(news.subjectId as SubjectId)
    } else if (news._tag === "missed") leased.distrust()
  })
  committer.onLost((accountId, _token, lease) => {
    if (lease !== undefined) leased.lost(accountId)
  })

  cluster.onMoved(() => leased.recount())

  const isElsewhere = (accountId: AccountId): boolean => cluster.isMany && cluster.ownerOf(accountId) !== "here"

  /** One with a lease that covers what is held here of the subject. */
  const covered = (spender: Spender): Leased | undefined => {
    const entry = leased.find(spender)
    return entry?.subject !== undefined && entry.account.lease !== undefined && entry.account.available >= entry.account.held ? entry : undefined
  }

  /** Gets a lease that is worth `needed` on top of what is held. Short of it: the owner's refusal. */
  const lease = (spender: Spender, needed: Credits): Effect.Effect<Leased, GatewayError> => Effect.suspend(() => {
    const entry = leased.entryOf(spender)
    entry.lastUsedMs = performance.now()
    entry.wantsRow = true
    const has = entry.account.lease === undefined ? 0n : entry.account.available
    const missing = entry.account.held + needed - has
    const creditsNeeded = missing > 0n ? missing : 0n
    const { credits = 0n } = leased.wishOf(entry)
    return leased.ask(entry, { credits: credits > creditsNeeded ? credits : creditsNeeded, creditsNeeded, row: true }).pipe(
      Effect.flatMap(({ refusal, subject }) => {
        if (refusal !== null) return Effect.fail(refusal)
        if (subject === null) return Effect.fail(new Unauthenticated({ reason: "revoked" }))
        return Effect.succeed(entry)
      })
    )
  })

  const leasedAccount = (spender: Spender): Effect.Effect<Account, AccountError> => Effect.suspend(() => {
    const entry = covered(spender)
    if (entry !== undefined) return Effect.succeed(entry.account)
    return lease(spender, 0n).pipe(
      // What is held here can't be covered any more: what is decided on it is refused, or held anew.
      Effect.catch((error) => isShort(error) ? Effect.as(leased.ask(leased.entryOf(spender), { row: true }), leased.entryOf(spender)) : Effect.fail(error)),
      Effect.map(({ account }) => account),
      Effect.mapError((error): AccountError => error._tag === "NotFound" || error._tag === "MailboxFull" || error._tag === "StoreUnavailable" || error._tag === "Overloaded"
        ? error : new Overloaded({ what: "placement", retryAfterMs: 1_000 }))
    )
  })

  const ask: Spending["Service"]["ask"] = (spender, turn) => Effect.suspend(() => !isElsewhere(spender.accountId)
    ? accounts.ask(spender.accountId, turn)
    : Effect.flatMap(leasedAccount(spender), (account) => isElsewhere(spender.accountId)
      ? Effect.succeed(turn(account, Date.now()))
      // It came here meanwhile: what is held of it is counted by its activation.
      : accounts.ask(spender.accountId, turn)))

  const submit: Spending["Service"]["submit"] = (account, rows, decided, done) => {
    if (account.slice === undefined) return accounts.submit(account, rows, decided, done)
    if (account.lease === undefined) return queueMicrotask(() => done({ _tag: "refused" }))
    const entry = leased.find({ accountId: account.id, subjectId: account.subjects.keys().next().value! })
    if (entry !== undefined) entry.commitsInFlight++
    committer.submit({
      accountId: account.id, token: account.token, lease: account.lease, rows,
      done: (outcome) => {
        if (entry !== undefined) {
          entry.commitsInFlight--
          if (outcome._tag === "committed") for (const { available } of rows.transactions ?? []) entry.spent -= available
        }
        done(outcome)
      }
    })
  }

  // Submitted when it is called, as `Accounts.commit` does it: commits leave in the order of decisions.
  const commit: Spending["Service"]["commit"] = (account, rows, decided) => {
    if (account.slice === undefined) return accounts.commit(account, rows, decided)
    const outcome = new Promise<CommitOutcome>((resolve) => submit(account, rows, decided, resolve))
    return Effect.flatMap(Effect.promise(() => outcome), ({ _tag }) => _tag === "committed" ? Effect.void
      : Effect.fail(_tag === "unknown" ? new OutcomeUnknown({ retryAfterMs: 5_000 }) : new NotCommitted({ retryAfterMs: 1_000 })))
  }

  const recall = (account: Account, subjectId?: SubjectId): Effect.Effect<boolean, GatewayError> =>
    grants.areOut(account, subjectId) ? grants.recall(account.id, subjectId) : Effect.succeed(true)

  /** By the owner: earnings first, then what others have. */
  const withOwnMoney = <A, E>({ accountId }: Spender, attempt: Effect.Effect<A, E>): Effect.Effect<A, E | LedgerError> => attempt.pipe(
    Effect.catch((short) => !(short instanceof InsufficientCredits) ? Effect.fail(short)
      : Effect.flatMap(ledger.sweep(accountId), (moved) => moved > 0n ? attempt : Effect.fail(short))),
    Effect.catch((short) => isShort(short) ? withRecalled(accountId, attempt, limits.recallsMax) : Effect.fail(short))
  )

  /** What was out a moment ago may have come back since, and what comes back another may take first. */
  const withRecalled = <A, E>(accountId: AccountId, attempt: Effect.Effect<A, E>, times: number): Effect.Effect<A, E | LedgerError> => Effect.flatMap(
    accounts.ask(accountId, (account) => grants.areOut(account)),
    (areOut): Effect.Effect<A, E | LedgerError> => areOut
      ? Effect.flatMap(Effect.catch(grants.recall(accountId), () => Effect.succeed(false)), (isAll) => Effect.catch(attempt, (short): Effect.Effect<A, E | LedgerError> => {
        if (!isShort(short)) return Effect.fail(short)
        if (!isAll) return Effect.fail(new NotCommitted({ retryAfterMs: 1_000 }))
        return times > 1 ? withRecalled(accountId, attempt, times - 1) : Effect.fail(short)
      }))
      : attempt
  )

  /** Whatever is granted another call of the node may take first: only the owner says that there is no more. */
  const withLease = <A, E>(spender: Spender, needed: Credits, attempt: Effect.Effect<A, E>, times: number): Effect.Effect<A, E | LedgerError> => Effect.catch(attempt, (short) => {
    if (!isShort(short)) return Effect.fail(short)
    return times === 0 ? Effect.fail(new NotCommitted({ retryAfterMs: 1_000 })) : Effect.flatMap(lease(spender, needed) as Effect.Effect<Leased, LedgerError>, () => withLease(spender, needed, attempt, times - 1))
  })

  const admit = (spender: Spender, counted: boolean): Effect.Effect<Account | undefined, GatewayError> => Effect.suspend(() => {
    const entry = leased.entryOf(spender)
    if (leased.trusted(spender) !== undefined && (!counted || leased.takeCall(entry))) return Effect.succeed(entry.account)
    // Whoever spends gets a lease for that; reading a page must not.
    const { calls = 1 } = leased.wishOf(entry)
    return leased.ask(entry, { ...counted ? { calls, callsNeeded: 1 } : { calls: 1 }, row: false }).pipe(Effect.flatMap(({ subject, refusal }): Effect.Effect<Account | undefined, GatewayError> => {
      if (subject === null) return Effect.succeed(undefined)
      if (!counted) return Effect.succeed(entry.account)
      if (refusal !== null && refusal._tag === "RateLimited") return Effect.fail(refusal)
      return leased.takeCall(entry) ? Effect.succeed(entry.account) : Effect.fail(new Overloaded({ what: "placement", retryAfterMs: 1_000 }))
    }))
  })

  /** Its activation closes what this node had of it before. */
  const owned = (accountId: AccountId): void => quietly(accounts.ask(accountId, () => {}))

  let looked = noLease
  /** Leases of this node that it knows nothing of: the answer that told of them was lost, or it was the account's owner for a moment. Whoever owns it now closes them. */
  const giveBackForgotten = Effect.gen(function*() {
    const found = yield* leasesOf(node.id, looked, forgottenMax).pipe(Effect.provideService(Postgres, postgres))
    looked = found.length < forgottenMax ? noLease : found.at(-1)!.leaseId
    const forgotten = found.filter((spender) => leased.find(spender) === undefined)
    yield* Effect.forEach(forgotten, ({ accountId, subjectId }) => Effect.ignore(leased.recalled(accountId, subjectId)), { concurrency: asksAtOnce, discard: true })
  })

  if (cluster.isMany) {
    yield* Effect.forkScoped(Effect.repeat(Effect.sync(() => leased.look(performance.now(), owned)), Schedule.spaced(limits.leaseTickMs)))
    yield* Effect.forkScoped(Effect.repeat(Effect.ignore(giveBackForgotten), Schedule.spaced(limits.leaseSweepMs)))
  }
  yield* Effect.forkScoped(grants.sweep.pipe(
    Effect.catchCause((cause) => Effect.sync(() => log.warn({ cause: String(cause) }, "leases of dead nodes were not looked after, will be tried again"))),
    Effect.repeat(Schedule.spaced(cluster.isMany ? limits.leaseSweepMs : limits.passivateSweepMs))
  ))

  return Spending.of({
    resident: (spender, nowMs) => isElsewhere(spender.accountId) ? covered(spender)?.account : accounts.resident(spender.accountId, nowMs),
    ask,
    act: (spender, turn) => Effect.flatten(ask(spender, turn)),
    submit,
    commit,
    release: (spender, holdId) => {
      const entry = isElsewhere(spender.accountId) ? leased.find(spender) : undefined
      if (entry === undefined) accounts.release(spender.accountId, holdId)
      else decide(entry.account, { _tag: "Release", holdId }, Date.now())
    },
    withMoney: (spender, needed, attempt) => Effect.suspend(() => {
      if (!isElsewhere(spender.accountId)) return withOwnMoney(spender, attempt)
      const entry = leased.entryOf(spender)
      if (needed > entry.price) entry.price = needed
      return withLease(spender, needed, attempt, leasesTried)
    }),
    writable: accounts.writable,
    peerOf: ({ accountId }) => {
      if (!cluster.isMany) return undefined
      const owner = cluster.ownerOf(accountId)
      return typeof owner === "string" ? undefined : owner
    },
    admitNow: (spender) => {
      const entry = leased.trusted(spender)
      return entry !== undefined && leased.takeCall(entry) ? entry.account : undefined
    },
    admit,
    passedOn: (spender, price, needsRow) => {
      const entry = leased.find(spender)
      if (entry === undefined) return
      if (price > entry.price) entry.price = price
      if (needsRow) entry.wantsRow = true
      leased.giveCallBack(entry)
    },
    missed: (spender) => {
      const entry = leased.entryOf(spender)
      entry.calls++
      entry.lastUsedMs = performance.now()
    },
    recall,
    areOut: grants.areOut,
    revoked: grants.revoked
  })
})
