/**
 * How many commit requests of each account wait for their outcome, so that an
 * account can be let go of when all of them have one: a commit that comes after
 * the next owner's activation would be refused.
 */
import type { AccountId } from "../../domain/ids.ts"

export class CommitsInFlight {
  readonly #counts = new Map<AccountId, number>()
  readonly #waiting = new Map<AccountId, Array<() => void>>()

  begun(id: AccountId): void {
    this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1)
  }

  ended(id: AccountId): void {
    const left = this.#counts.get(id)! - 1
    if (left > 0) this.#counts.set(id, left)
    else this.#counts.delete(id)
    if (this.#waiting.size === 0) return
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    for (const resolve of waiting ?? []) resolve()
  }

  /** Accounts with any. */
  ids(): Array<AccountId> {
    return [...this.#counts.keys()]
  }

  /** Resolves when the next one ends. */
  next(id: AccountId): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(id)
      if (waiting === undefined) this.#waiting.set(id, [resolve])
      else waiting.push(resolve)
    })
  }

  /** Resolves when none is in flight. */
  async settled(id: AccountId): Promise<void> {
    while (this.#counts.has(id)) await this.next(id)
  }
}
