/**
 * How accounts leave this node when their shard goes to another one, before the
 * shard's lock is let go.
 *
 *     leaving ─▶ (lent: its change ends) ─▶ (orders run: they end) ─▶ dropped ─▶ commits settle ─▶ windows written
 *
 * Guarantee. No turn is taken any more but those that end a running order; what
 * was submitted has its outcome before the next owner can activate the account,
 * so that nobody is refused because of the move. The rate windows go with the
 * account: the next owner reads them (`WindowStore`).
 *
 * Failure cases. All of it takes `handoffMs` at most. What has not settled by
 * then is refused by the next owner's token: its callers may try again; an order
 * that still runs is failed and refunded there. A node that dies, or loses its
 * lock, hands nothing over: windows restart, as after any crash.
 */
import type { Directory } from "../../actor/Directory.ts"
import { limits } from "../../config.ts"
import type { Account } from "../../domain/account.ts"
import type { AccountId } from "../../domain/ids.ts"
import type { HandedWindow } from "../../store/WindowStore.ts"
import { metrics } from "../../telemetry/Metrics.ts"
import type { CommitsInFlight } from "./CommitsInFlight.ts"
import type { Lending } from "./Lending.ts"

/** A change by a borrower is over in this time, though from a node whose shard leaves nobody hears of it. */
const loanMs = limits.handoffMs / 8
/** Orders may run so long; the rest of `handoffMs` is for their commits. */
const ordersMs = limits.handoffMs / 2

const sleep = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms).unref() })

export class Handover {
  readonly #directory: Directory<AccountId, Account, unknown>
  readonly #commits: CommitsInFlight
  readonly #lending: Lending
  readonly #windowsOf: (id: AccountId) => ReadonlyArray<HandedWindow>
  readonly #write: (windows: ReadonlyArray<HandedWindow>) => Promise<void>

  constructor(
    directory: Directory<AccountId, Account, unknown>, commits: CommitsInFlight, lending: Lending,
    windowsOf: (id: AccountId) => ReadonlyArray<HandedWindow>, write: (windows: ReadonlyArray<HandedWindow>) => Promise<void>
  ) {
    this.#directory = directory
    this.#commits = commits
    this.#lending = lending
    this.#windowsOf = windowsOf
    this.#write = write
  }

  /** Lets go of the accounts that leave; resolves when that is done, or `handoffMs` are over. */
  async leave(isLeaving: (id: string) => boolean): Promise<void> {
    const ids = [...new Set([...this.#directory.ids(), ...this.#commits.ids(), ...this.#lending.ids()])].filter(isLeaving)
    if (ids.length === 0) return
    await Promise.race([this.#all(ids), sleep(limits.handoffMs)])
  }

  async #all(ids: ReadonlyArray<AccountId>): Promise<void> {
    await Promise.all(ids.map((id) => this.#one(id)))
    const windows = ids.flatMap(this.#windowsOf)
    if (windows.length > 0) await this.#write(windows)
  }

  async #one(id: AccountId): Promise<void> {
    await Promise.race([this.#lending.over(id), sleep(loanMs)])
    await this.#ordersEnded(id)
    if (this.#directory.forget(id)) metrics.handoffs.inc()
    await Promise.all([this.#directory.loaded(id), this.#commits.settled(id)])
  }

  /** While its orders run the account is still decided on here. */
  async #ordersEnded(id: AccountId): Promise<void> {
    const runs = (): boolean => (this.#directory.peek(id)?.orders.size ?? 0) > 0
    if (!runs()) return
    const untilMs = performance.now() + ordersMs
    const overdue = sleep(ordersMs)
    this.#directory.except(id, "local", untilMs)
    while (runs() && performance.now() < untilMs) await Promise.race([this.#commits.next(id), overdue])
    this.#directory.restore(id)
  }
}
