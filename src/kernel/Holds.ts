/**
 * The node's hold table: the money that calls in flight on this node have set
 * aside, the rate windows of their callers, and how often these have called
 * agents with a free tier. All live outside the actor's discardable state and
 * are re-applied when the account is activated again on this node. A crash
 * forgets them: an open hold is then simply released.
 *
 * What an activation, or a leased account, has been given of the table is the
 * table's own: an account leaves it only when nobody uses it, nothing is held
 * and its windows are empty. So the holds of an account that has moved to
 * another node stay until their calls end, and its windows until they have run
 * out.
 */
import { Context, Layer } from "effect"
import type { Hold, SubjectId } from "../domain/account.ts"
import type { CallCounts } from "../domain/freeTier.ts"
import type { AccountId, HoldId } from "../domain/ids.ts"
import { type RateWindow, callsBySecond, callsInWindow, makeRateWindow } from "../domain/rateLimit.ts"
import { gauge } from "../telemetry/Metrics.ts"

interface Entry {
  readonly holds: Map<HoldId, Hold>
  readonly windows: Map<SubjectId, RateWindow>
  readonly calls: CallCounts
}

export class Holds extends Context.Service<Holds, {
  /** The account's holds: the very map that its activations use. */
  readonly holdsOf: (accountId: AccountId) => Map<HoldId, Hold>
  readonly windowOf: (accountId: AccountId, subjectId: SubjectId) => RateWindow
  /** The account's call counts: the very map that its activations use. */
  readonly callsOf: (accountId: AccountId) => CallCounts
  /** Every window of the account that has calls, by their seconds. */
  readonly callsBySecond: (accountId: AccountId, nowMs: number) => ReadonlyArray<readonly [SubjectId, ReturnType<typeof callsBySecond>]>
  /** Who says yes of an account still uses what it was given. */
  readonly keepFor: (isUser: (accountId: AccountId) => boolean) => void
  /** Somebody uses the account no more. Kept while anything of it counts. */
  readonly forget: (accountId: AccountId) => void
  /** Forgets every account of which nothing counts any more. */
  readonly sweep: () => void
  /** Of calls alone: a chat session has its hold also while no turn runs. */
  readonly callCount: () => number
  /** Holds past their expiry. */
  readonly expired: (nowMs: number) => ReadonlyArray<{ readonly accountId: AccountId; readonly subjectId: SubjectId; readonly holdId: HoldId }>
}>()("tollgate/kernel/Holds") {
  static readonly layer = Layer.sync(Holds, () => {
    const entries = new Map<AccountId, Entry>()
    const users: Array<(accountId: AccountId) => boolean> = []
    const forget = (accountId: AccountId, nowMs: number): void => {
      const entry = entries.get(accountId)
      if (entry === undefined || entry.holds.size > 0 || users.some((isUser) => isUser(accountId))) return
      for (const window of entry.windows.values()) if (callsInWindow(window, nowMs) > 0) return
      entries.delete(accountId)
    }
    const entryOf = (accountId: AccountId): Entry => {
      const known = entries.get(accountId)
      if (known !== undefined) return known
      const entry: Entry = { holds: new Map(), windows: new Map(), calls: new Map() }
      entries.set(accountId, entry)
      return entry
    }
    const openCount = (): number => {
      let count = 0
      for (const entry of entries.values()) count += entry.holds.size
      return count
    }
    const callCount = (): number => {
      let count = 0
      for (const entry of entries.values()) for (const hold of entry.holds.values()) if (hold.call !== "chat") count++
      return count
    }
    gauge("tollgate_holds_open", "Holds of calls in flight and of chat sessions on this node", openCount)
    return Holds.of({
      holdsOf: (accountId) => entryOf(accountId).holds,
      windowOf: (accountId, subjectId) => {
        const { windows } = entryOf(accountId)
        const known = windows.get(subjectId)
        if (known !== undefined) return known
        const window = makeRateWindow()
        windows.set(subjectId, window)
        return window
      },
      callsOf: (accountId) => entryOf(accountId).calls,
      callsBySecond: (accountId, nowMs) => Array.from(entries.get(accountId)?.windows ?? [], ([id, window]) => [id, callsBySecond(window, nowMs)] as const)
        .filter(([, seconds]) => seconds.length > 0),
      keepFor: (isUser) => { users.push(isUser) },
      forget: (accountId) => forget(accountId, Date.now()),
      sweep: () => {
        const nowMs = Date.now()
        for (const accountId of entries.keys()) forget(accountId, nowMs)
      },
      callCount,
      expired: (nowMs) => {
        const found: Array<{ accountId: AccountId; subjectId: SubjectId; holdId: HoldId }> = []
        for (const [accountId, entry] of entries) {
          for (const hold of entry.holds.values()) if (hold.expiresAtMs <= nowMs) found.push({ accountId, subjectId: hold.subjectId, holdId: hold.id })
        }
        return found
      }
    })
  })
}
