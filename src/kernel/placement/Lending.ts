/**
 * An account that this node owns, in the hands of another node for one change.
 *
 *     owned ──lendOut──▶ let go of (commits settle, activation dropped) ──▶ lent ──takeBack──▶ owned
 *                                                                            └──borrowMs─────▶ owned
 *
 * Guarantee. While an account is lent no command of it runs here: they wait. One
 * borrower at a time; the same one may ask again, e.g. because the answer was
 * lost. What makes a borrower that overstays harmless is the fencing token: the
 * next activation here raises it.
 *
 * Failure cases. A borrower that dies or whose `takeBack` is lost: the account is
 * ours again after `borrowMs`. A `takeBack` that arrives late ends a later loan
 * of the same node: its commit is refused, and may be tried again.
 */
import { Effect } from "effect"
import { type Directory, placementUnknown } from "../../actor/Directory.ts"
import { limits } from "../../config.ts"
import type { Account } from "../../domain/account.ts"
import type { Credits } from "../../domain/credits.ts"
import type { Overloaded } from "../../domain/errors.ts"
import type { AccountId } from "../../domain/ids.ts"
import { log } from "../../telemetry/log.ts"
import type { Holds } from "../Holds.ts"
import type { CommitsInFlight } from "./CommitsInFlight.ts"

interface Loan {
  readonly nodeId: string
  timer: NodeJS.Timeout
  readonly onOver: Array<() => void>
}

export class Lending {
  readonly #loans = new Map<AccountId, Loan>()
  readonly #directory: Directory<AccountId, Account, unknown>
  readonly #commits: CommitsInFlight
  readonly #holds: Holds["Service"]

  constructor(directory: Directory<AccountId, Account, unknown>, commits: CommitsInFlight, holds: Holds["Service"]) {
    this.#directory = directory
    this.#commits = commits
    this.#holds = holds
  }

  /** Answers what calls in flight here hold of the account. */
  lendOut(id: AccountId, nodeId: string): Effect.Effect<Credits, Overloaded> {
    return Effect.suspend(() => {
      const known = this.#loans.get(id)
      if (known === undefined ? this.#directory.placeOf(id) !== "local" : known.nodeId !== nodeId) return Effect.fail(placementUnknown())
      const loan = known ?? { nodeId, timer: undefined as never, onOver: [] }
      clearTimeout(loan.timer)
      loan.timer = setTimeout(() => {
        log.warn({ accountId: id, nodeId }, "an account that was lent to another node did not come back")
        this.#end(id)
      }, limits.borrowMs)
      this.#loans.set(id, loan)
      this.#directory.forget(id)
      this.#directory.except(id, "moving", performance.now() + limits.borrowMs)
      return Effect.promise(() => Promise.all([this.#directory.loaded(id), this.#commits.settled(id)])).pipe(
        Effect.flatMap(() => this.#loans.get(id) === loan ? Effect.succeed(this.#heldOf(id)) : Effect.fail(placementUnknown()))
      )
    })
  }

  takeBack(id: AccountId, nodeId: string): void {
    if (this.#loans.get(id)?.nodeId === nodeId) this.#end(id)
  }

  /** What others have now. */
  ids(): Array<AccountId> {
    return [...this.#loans.keys()]
  }

  /** Resolves when nobody has the account on loan. */
  over(id: AccountId): Promise<void> {
    const loan = this.#loans.get(id)
    return loan === undefined ? Promise.resolve() : new Promise((resolve) => { loan.onOver.push(resolve) })
  }

  #end(id: AccountId): void {
    const loan = this.#loans.get(id)!
    clearTimeout(loan.timer)
    this.#loans.delete(id)
    this.#directory.restore(id)
    for (const resolve of loan.onOver) resolve()
  }

  #heldOf(id: AccountId): Credits {
    let held = 0n
    for (const { amount } of this.#holds.holdsOf(id).values()) held += amount
    return held
  }
}
