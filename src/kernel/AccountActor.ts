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
 */
import { Context, Data, Effect, Layer } from "effect"
import { type AskError, Directory } from "../actor/Directory.ts"
import { Placement } from "../actor/Placement.ts"
import { Config, limits } from "../config.ts"
import type { Account, Subject, SubjectId } from "../domain/account.ts"
import { NotCommitted, type NotFound, OutcomeUnknown, type StoreUnavailable } from "../domain/errors.ts"
import type { AccountId, HoldId } from "../domain/ids.ts"
import { type Decided, adopt, decide, placeHold } from "../domain/ledger.ts"
import { callsInWindow } from "../domain/rateLimit.ts"
import { type ActivationRow, activateAccount } from "../store/AccountStore.ts"
import type { CommitOutcome, CommitRows } from "../store/Commit.ts"
import { Committer } from "../store/Committer.ts"
import { Postgres } from "../store/Postgres.ts"
import { gauge, metrics } from "../telemetry/Metrics.ts"
import { Holds } from "./Holds.ts"

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
  /** Called after each activation, before any command of it. */
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
    const settings = yield* Config
    const postgres = yield* Postgres

    const givenUp = new Map<AccountId, Account>()
    const activated: Array<(account: Account) => void> = []
    const onRevoked: Array<(subjectId: SubjectId) => void> = []
    const directory = new Directory<AccountId, Account, NotFound | StoreUnavailable>({
      name: "account",
      load: (id) => activateAccount(id).pipe(
        Effect.provideService(Postgres, postgres),
        Effect.map((row) => {
          metrics.activations.inc()
          const account = accountOf(row, holds, settings.keyRateLimitDefault)
          for (const listener of activated) listener(account)
          return account
        })
      ),
      tokenOf: (account) => account.token,
      isIdle: (account) => account.holds.size === 0 && account.orders.size === 0 && allWindowsEmpty(account),
      passivated: (id) => holds.forget(id)
    }, placement.locate, limits)

    committer.onLost((id, token) => {
      const account = directory.resident(id, Date.now())
      if (!directory.discard(id, token)) return
      metrics.discards.inc({ reason: "commit" })
      if (account !== undefined && !committer.available()) givenUp.set(id, account)
    })
    gauge("tollgate_actors_active", "Accounts resident on this node", () => directory.residentCount)
    gauge("tollgate_mailbox_commands", "Commands that wait for an activation", () => directory.mailboxDepth)

    const submit = (account: Account, rows: CommitRows, decided: Decided | undefined, done: CommitDone): void => {
      committer.submit({
        accountId: account.id,
        token: account.token,
        rows,
        done: (outcome) => {
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
        const account = directory.resident(id, Date.now())
        if (account === undefined) holds.holdsOf(id).delete(holdId)
        else decide(account, { _tag: "Release", holdId }, 0)
      },
      writable: () => committer.available(),
      onActivated: (listener) => { activated.push(listener) },
      revoked: (subjectId) => { for (const listener of onRevoked) listener(subjectId) },
      onRevoked: (listener) => { onRevoked.push(listener) },
      forget: (id, token) => token === undefined ? directory.forget(id) : void directory.discard(id, token),
      forgetAll: () => directory.forgetAll(),
      passivateIdle: (nowMs) => directory.passivateIdle(nowMs)
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

/** Builds the state of a new activation from its rows and what this node still holds for the account. */
const accountOf = (row: ActivationRow, table: Holds["Service"], limitDefault: number): Account => {
  const holds = table.holdsOf(row.id)
  const subjects = new Map(row.subjects.map((subject): [Subject["id"], Subject] => [subject.id, {
    id: subject.id,
    kind: subject.kind,
    scopes: subject.scopes === undefined || subject.scopes.includes("*") ? undefined : new Set(subject.scopes),
    revoked: subject.revoked,
    expiresAtMs: subject.expiresAtMs,
    limit: subject.rateLimit ?? limitDefault,
    window: table.windowOf(row.id, subject.id),
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
    held: 0n,
    holds,
    calls: table.callsOf(row.id),
    orders: new Map(row.orders.map((order) => [order.id, order])),
    subjects
  }
  for (const hold of [...holds.values()]) placeHold(account, hold)
  return account
}
