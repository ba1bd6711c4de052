/**
 * An account that another node owns, in the hands of this one for one change:
 * a payment to it, a key for it, a link with it.
 *
 *     ask its owner ──▶ local here, by exception ──▶ the change runs and commits ──▶ dropped ──▶ given back
 *
 * Guarantee. The change runs on an activation of its own, which knows what calls
 * in flight at the owner hold, so that what they have set aside is not spent. It
 * holds nothing itself, runs no recovery, and is gone before the account is
 * given back. Changes of one account at the same time share the loan. Given back
 * also when the change fails or is interrupted; nobody waits for that but who
 * wants the account next.
 *
 * Failure cases. The ask is lost, or its answer: it failed, and what the owner
 * may have done ends when it is told, or by itself. A change that takes longer
 * than `borrowMs`: its next command fails, and its commit is refused once the
 * owner has decided something. Not for changes within changes of one account
 * that take as long.
 */
import { Deferred, Effect } from "effect"
import { type Directory, placementUnknown } from "../../actor/Directory.ts"
import type { Place } from "../../actor/Placement.ts"
import type { AccountHandlers } from "../../cluster/Cluster.ts"
import { limits } from "../../config.ts"
import type { Account } from "../../domain/account.ts"
import type { Credits } from "../../domain/credits.ts"
import type { Overloaded } from "../../domain/errors.ts"
import type { AccountId } from "../../domain/ids.ts"
import { metrics } from "../../telemetry/Metrics.ts"
import type { CommitsInFlight } from "./CommitsInFlight.ts"

interface Loan {
  /** Changes that use it. */
  users: number
  readonly untilMs: number
  /** What calls in flight at the owner hold. */
  held: Credits
  readonly taken: Deferred.Deferred<void, Overloaded>
  readonly over: Deferred.Deferred<void>
}

/** The owner counts from later than this node, but by another clock. */
const clockMarginMs = 250

export class Borrowing {
  readonly #loans = new Map<AccountId, Loan>()
  readonly #directory: Directory<AccountId, Account, unknown>
  readonly #locate: (id: string) => Place
  readonly #commits: CommitsInFlight
  readonly #ask: AccountHandlers
  readonly #nodeId: string

  constructor(directory: Directory<AccountId, Account, unknown>, locate: (id: string) => Place, commits: CommitsInFlight, ask: AccountHandlers, nodeId: string) {
    this.#directory = directory
    this.#locate = locate
    this.#commits = commits
    this.#ask = ask
    this.#nodeId = nodeId
  }

  /** Runs `effect` while this node may decide on the account. `Overloaded`: it may not, and nothing was done. */
  borrowed<A, E, R>(id: AccountId, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | Overloaded, R> {
    return Effect.suspend((): Effect.Effect<A, E | Overloaded, R> => {
      const place = this.#locate(id)
      if (place === "local") return effect
      if (place !== "moving") return Effect.acquireUseRelease(this.#take(id), () => effect, (loan) => Effect.sync(() => this.#used(id, loan)))
      return Effect.ignore(this.#directory.ask(id, () => {})).pipe(
        Effect.flatMap(() => this.#locate(id) === "moving" ? Effect.fail(placementUnknown()) : this.borrowed(id, effect))
      )
    })
  }

  /** What others hold of an account that is here on loan; `undefined` when it isn't. */
  heldElsewhere(id: AccountId): Credits | undefined {
    return this.#locate(id) === "local" ? undefined : this.#loans.get(id)?.held
  }

  /** To be called whenever a place may have changed. What was borrowed and is ours by now is no loan any more. */
  moved(): void {
    for (const id of this.#loans.keys()) if (this.#locate(id) === "local") this.#directory.forget(id)
  }

  #take(id: AccountId): Effect.Effect<Loan, Overloaded> {
    return Effect.suspend((): Effect.Effect<Loan, Overloaded> => {
      const known = this.#loans.get(id)
      if (known?.users === 0) return Effect.andThen(Deferred.await(known.over), this.#take(id))
      if (known !== undefined) {
        if (performance.now() >= known.untilMs) return Effect.fail(placementUnknown())
        known.users++
        return Effect.as(Deferred.await(known.taken), known)
      }
      const sentMs = performance.now()
      const loan: Loan = { users: 1, untilMs: sentMs + limits.borrowMs - clockMarginMs, held: 0n, taken: Deferred.makeUnsafe(), over: Deferred.makeUnsafe() }
      this.#loans.set(id, loan)
      metrics.borrows.inc()
      return this.#ask.borrow(id, this.#nodeId).pipe(
        Effect.map((held) => {
          loan.held = held
          this.#directory.except(id, "local", loan.untilMs)
        }),
        Effect.mapError(placementUnknown),
        Effect.onExit((exit) => {
          if (exit._tag === "Failure") this.#abandon(id, loan)
          return Deferred.done(loan.taken, exit)
        }),
        Effect.as(loan)
      )
    })
  }

  #abandon(id: AccountId, loan: Loan): void {
    this.#loans.delete(id)
    Deferred.doneUnsafe(loan.over, Effect.void)
    // It may have been lent all the same.
    Effect.runFork(this.#ask.giveBack(id, this.#nodeId))
  }

  #used(id: AccountId, loan: Loan): void {
    if (--loan.users > 0) return
    this.#directory.forget(id)
    this.#directory.restore(id)
    Effect.runFork(Effect.promise(() => Promise.all([this.#directory.loaded(id), this.#commits.settled(id)])).pipe(
      Effect.andThen(this.#ask.giveBack(id, this.#nodeId)),
      Effect.ensuring(Effect.sync(() => {
        this.#loans.delete(id)
        Deferred.doneUnsafe(loan.over, Effect.void)
      }))
    ))
  }
}
