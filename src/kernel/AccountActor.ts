/**
 * The actor of an account and its keys: one activation, one fencing token, one
 * row lock. Window, budgets and balance are decided in one synchronous step and
 * written in one commit.
 *
 * `resident` answers the state itself, to decide on directly; `ask` runs a turn
 * on it after activating it. A turn that decides something durable submits its
 * rows in that same turn, so that commits leave in the order of decisions.
 *
 * When a commit is refused, aborted or in doubt the Committer gives the account
 * up: the activation is dropped here, and the next command activates it again
 * under a higher token. Holds and windows outlive that (`Holds`).
 *
 * Of many nodes one owns the account (`Cluster`) and decides on it. How it
 * leaves this node is `placement/Handover`, how it is lent to another for one
 * change `Lending`, how this node borrows one `Borrowing`. A hold of an account
 * that has moved is lost: capturing it charges nothing, releasing it is no error.
 */
import { Context, Data, Effect, Layer } from "effect"
import { type AskError, Directory } from "../actor/Directory.ts"
import { Placement } from "../actor/Placement.ts"
import { Cluster } from "../cluster/Cluster.ts"
import { Config, limits } from "../config.ts"
import type { Account, Subject, SubjectId } from "../domain/account.ts"
import { NotCommitted, type NotFound, OutcomeUnknown, type Overloaded, type StoreUnavailable } from "../domain/errors.ts"
import type { AccountId, HoldId } from "../domain/ids.ts"
import type { Credits } from "../domain/credits.ts"
import { type Decided, adopt, decide, placeHold, placeLease } from "../domain/ledger.ts"
import { callsInWindow, goOnWith, makeRateWindow } from "../domain/rateLimit.ts"
import { type ActivationRow, activateAccount } from "../store/AccountStore.ts"
import type { CommitOutcome, CommitRows } from "../store/Commit.ts"
import { Committer } from "../store/Committer.ts"
import { Postgres } from "../store/Postgres.ts"
import { findHandedWindows, handWindows } from "../store/WindowStore.ts"
import { log } from "../telemetry/log.ts"
import { gauge, metrics } from "../telemetry/Metrics.ts"
import { Holds } from "./Holds.ts"
import { Node } from "./Node.ts"
import { Borrowing } from "./placement/Borrowing.ts"
import { CommitsInFlight } from "./placement/CommitsInFlight.ts"
import { Handover } from "./placement/Handover.ts"
import { Lending } from "./placement/Lending.ts"

/** The database refused the rows of one request by a constraint. Nothing was done. */
export class CommitAborted extends Data.TaggedError("CommitAborted")<{ readonly constraint: string | undefined }> {}

export type AccountError = NotFound | AskError
export type CommitError = NotCommitted | OutcomeUnknown

/** Called with the true outcome; `committed` has been adopted already. */
export type CommitDone = (outcome: CommitOutcome) => void

export class Accounts extends Context.Service<Accounts, {
  readonly resident: (id: AccountId, nowMs: number) => Account | undefined
  /**
   * The account to admit a call by, though not to decide money on: while nothing can be written, that is also the
   * state that was given up when the outage began, so that free calls go on.
   */
  readonly admitting: (id: AccountId, nowMs: number) => Account | undefined
  readonly ask: <A>(id: AccountId, turn: (account: Account, nowMs: number) => A) => Effect.Effect<A, AccountError>
  /** As `ask`, for a turn that answers an effect: it is decided in the turn and awaited after it. */
  readonly act: <A, E>(id: AccountId, turn: (account: Account, nowMs: number) => Effect.Effect<A, E>) => Effect.Effect<A, E | AccountError>
  /** Submits at once. Adopts `decided` when durable, then calls `done`. */
  readonly submit: (account: Account, rows: CommitRows, decided: Decided | undefined, done: CommitDone) => void
  /** Submits at once, when called, not when run; the effect waits for the outcome. */
  readonly commit: (account: Account, rows: CommitRows, decided?: Decided) => Effect.Effect<void, CommitError>
  /** As `commit`, for rows that a constraint may refuse. */
  readonly tryCommit: (account: Account, rows: CommitRows, decided?: Decided) => Effect.Effect<void, CommitError | CommitAborted>
  /** Releases a hold wherever the account is now: resident or dropped. */
  readonly release: (id: AccountId, holdId: HoldId) => void
  /** False while nothing can be committed: money is refused before it is held. */
  readonly writable: () => boolean
  /**
   * Runs a change of an account whoever owns it, for at most `limits.borrowMs`: what is asked of the account in it is
   * decided here. For accounts other than the caller's own, which is owned here. `Overloaded`: not now, nothing was done.
   */
  readonly borrowed: <A, E, R>(id: AccountId, effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | Overloaded, R>
  /** By its owner: lets another node have the account until it is taken back. Answers what calls in flight here hold of it. */
  readonly lendOut: (id: AccountId, nodeId: string) => Effect.Effect<Credits, Overloaded>
  readonly takeBack: (id: AccountId, nodeId: string) => Effect.Effect<void>
  /** Called after each activation of an account that is owned here, before any command of it. */
  readonly onActivated: (listener: (account: Account) => void) => void
  /** Tells everybody who listens that the subject may not be admitted any more. Called in the turn that decided it. */
  readonly revoked: (subjectId: SubjectId) => void
  readonly onRevoked: (listener: (subjectId: SubjectId) => void) => void
  /** `token`: only what is not newer than that. */
  readonly forget: (id: AccountId, token?: bigint) => void
  readonly forgetAll: () => void
  readonly passivateIdle: (nowMs: number) => number
}>()("tollgate/kernel/Accounts") {
  static readonly layer = Layer.effect(Accounts, Effect.gen(function*() {
    const holds = yield* Holds
    const committer = yield* Committer
    const placement = yield* Placement
    const cluster = yield* Cluster
    const node = yield* Node
    const settings = yield* Config
    const postgres = yield* Postgres

    const givenUp = new Map<AccountId, Account>()
    const activated: Array<(account: Account) => void> = []
    const onRevoked: Array<(subjectId: SubjectId) => void> = []
    const commits = new CommitsInFlight()
    const provided = Effect.provideService(Postgres, postgres)
    /** Of an account that is here on loan nothing is this node's: what its owner holds for calls in flight is set aside as a whole. */
    const activate = Effect.fnUntraced(function*(id: AccountId) {
      const row = yield* provided(activateAccount(id))
      metrics.activations.inc()
      const heldElsewhere = borrowing.heldElsewhere(id)
      if (heldElsewhere !== undefined) return accountOf(row, borrowedParts(heldElsewhere), settings.keyRateLimitDefault)
      const nowMs = Date.now()
      if (cluster.isMany) {
        for (const { subjectId, calls } of yield* provided(findHandedWindows(id))) goOnWith(holds.windowOf(id, subjectId), calls, nowMs)
      }
      const account = accountOf(row, ownParts(id, holds), settings.keyRateLimitDefault)
      // One that has left meanwhile is the next owner's to look after.
      if (directory.placeOf(id) === "local") for (const listener of activated) listener(account)
      return account
    })
    const directory = new Directory<AccountId, Account, NotFound | StoreUnavailable>({
      name: "account",
      load: activate,
      tokenOf: (account) => account.token,
      isIdle: (account) => account.holds.size === 0 && account.orders.size === 0 && allWindowsEmpty(account),
      passivated: () => {}
    }, placement.locate, limits)
    const lending = new Lending(directory, commits, holds)
    const borrowing = new Borrowing(directory, placement.locate, commits, cluster.ask, node.id)
    const handover = new Handover(
      directory, commits, lending,
      (accountId) => holds.callsBySecond(accountId, Date.now()).map(([subjectId, calls]) => ({ accountId, subjectId, calls })),
      (windows) => Effect.runPromise(provided(handWindows(windows)).pipe(
        Effect.catch((error) => Effect.sync(() => log.warn({ error: error._tag }, "rate windows were not handed over: they restart")))
      ))
    )
    holds.keepFor((id) => directory.isAwake(id))
    cluster.onLeaving((isLeaving) => handover.leave(isLeaving))
    placement.onMoved(() => {
      borrowing.moved()
      directory.moved()
    })

    committer.onLost((id, token, lease) => {
      if (lease !== undefined) return
      const account = directory.resident(id, Date.now())
      if (!directory.discard(id, token)) return
      metrics.discards.inc({ reason: "commit" })
      if (account !== undefined && !committer.available()) givenUp.set(id, account)
    })
    gauge("tollgate_actors_active", "Accounts resident on this node", () => directory.residentCount)
    gauge("tollgate_mailbox_commands", "Commands that wait for an activation", () => directory.mailboxDepth)

    const submit = (account: Account, rows: CommitRows, decided: Decided | undefined, done: CommitDone): void => {
      commits.begun(account.id)
      committer.submit({
        accountId: account.id,
        token: account.token,
        hasLeases: account.leases.size > 0,
        rows,
        done: (outcome) => {
          commits.ended(account.id)
          if (outcome._tag === "committed" && decided !== undefined) adopt(account, decided)
          done(outcome)
        }
      })
    }
    const tryCommit = (account: Account, rows: CommitRows, decided?: Decided): Effect.Effect<void, CommitError | CommitAborted> => {
      const outcome = new Promise<CommitOutcome>((resolve) => submit(account, rows, decided, resolve))
      return Effect.flatMap(Effect.promise(() => outcome), failureOf)
    }

    return Accounts.of({
      resident: (id, nowMs) => directory.resident(id, nowMs),
      admitting: (id, nowMs) => {
        const account = directory.resident(id, nowMs)
        if (account !== undefined || givenUp.size === 0) return account
        if (!committer.available()) return givenUp.get(id)
        givenUp.clear()
        return undefined
      },
      ask: (id, turn) => directory.ask(id, (account) => turn(account, Date.now())),
      act: (id, turn) => Effect.flatten(directory.ask(id, (account) => turn(account, Date.now()))),
      submit,
      tryCommit,
      commit: (account, rows, decided) => tryCommit(account, rows, decided).pipe(
        Effect.catchTag("CommitAborted", () => Effect.fail(new NotCommitted({ retryAfterMs: 1_000 })))
      ),
      release: (id, holdId) => {
        // Also while nobody may decide on it for a moment: it may be believed again after that.
        const account = directory.peek(id)
        if (account === undefined) holds.holdsOf(id).delete(holdId)
        else decide(account, { _tag: "Release", holdId }, 0)
      },
      writable: () => committer.available(),
      borrowed: (id, effect) => borrowing.borrowed(id, effect),
      lendOut: (id, nodeId) => lending.lendOut(id, nodeId),
      takeBack: (id, nodeId) => Effect.sync(() => lending.takeBack(id, nodeId)),
      onActivated: (listener) => { activated.push(listener) },
      revoked: (subjectId) => { for (const listener of onRevoked) listener(subjectId) },
      onRevoked: (listener) => { onRevoked.push(listener) },
      forget: (id, token) => { void (token === undefined ? directory.forget(id) : directory.discard(id, token)) },
      forgetAll: () => directory.forgetAll(),
      passivateIdle: (nowMs) => {
        const count = directory.passivateIdle(nowMs)
        holds.sweep()
        return count
      }
    })
  }))
}

const failureOf = (outcome: CommitOutcome): Effect.Effect<void, CommitError | CommitAborted> => {
  switch (outcome._tag) {
    case "committed": return Effect.void
    case "refused": return Effect.fail(new NotCommitted({ retryAfterMs: 1_000 }))
    case "aborted": return Effect.fail(new CommitAborted({ constraint: outcome.constraint }))
    case "unknown": return Effect.fail(new OutcomeUnknown({ retryAfterMs: 5_000 }))
  }
}

const allWindowsEmpty = (account: Account): boolean => {
  const nowMs = Date.now()
  for (const subject of account.subjects.values()) if (callsInWindow(subject.window, nowMs) > 0) return false
  return true
}

/** What of an activation is the node's, and outlives it. */
interface Parts extends Pick<Account, "holds" | "calls"> {
  readonly windowOf: (subjectId: SubjectId) => Subject["window"]
  /** Set aside beside the holds. */
  readonly held: Credits
}

const ownParts = (id: AccountId, table: Holds["Service"]): Parts =>
  ({ holds: table.holdsOf(id), calls: table.callsOf(id), windowOf: (subjectId) => table.windowOf(id, subjectId), held: 0n })

const borrowedParts = (held: Credits): Parts => ({ holds: new Map(), calls: new Map(), windowOf: makeRateWindow, held })

/** Builds the state of a new activation from its rows and what this node still holds for the account. */
const accountOf = (row: ActivationRow, { holds, calls, windowOf, held }: Parts, limitDefault: number): Account => {
  const subjects = new Map(row.subjects.map((subject): [Subject["id"], Subject] => [subject.id, {
    id: subject.id,
    kind: subject.kind,
    scopes: subject.scopes === undefined || subject.scopes.includes("*") ? undefined : new Set(subject.scopes),
    revoked: subject.revoked,
    expiresAtMs: subject.expiresAtMs,
    limit: subject.rateLimit ?? limitDefault,
    window: windowOf(subject.id),
    budgets: subject.budgets,
    held: 0n
  }]))
  const account: Account = {
    id: row.id,
    token: row.token,
    suspended: row.suspended,
    emailVerified: row.emailVerified,
    available: row.available,
    reserved: row.reserved,
    held,
    holds,
    calls,
    orders: new Map(row.orders.map((order) => [order.id, order])),
    subjects,
    leases: new Map()
  }
  for (const lease of row.leases) placeLease(account, lease)
  for (const hold of [...holds.values()]) placeHold(account, hold)
  return account
}
