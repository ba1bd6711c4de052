/**
 * The node's hold table: the money that calls in flight on this node have set
 * aside, the rate windows of their callers, and how often these have called
 * agents with a free tier. All live outside the actor's discardable state and are re-applied when the account is activated again on
 * this node. A crash forgets them: an open hold is then simply released.
 */
import { Context, Layer } from "effect"
import type { Hold, SubjectId } from "../domain/account.ts"
import type { CallCounts } from "../domain/freeTier.ts"
import type { AccountId, HoldId } from "../domain/ids.ts"
import { type RateWindow, makeRateWindow } from "../domain/rateLimit.ts"
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
  /** For an account that is passivated: nothing is held and its windows are empty. */
  readonly forget: (accountId: AccountId) => void
  /** Of calls alone: a chat session has its hold also while no turn runs. */
  readonly callCount: () => number
  /** Holds past their expiry. */
  readonly expired: (nowMs: number) => ReadonlyArray<{ readonly accountId: AccountId; readonly holdId: HoldId }>
}>()("tollgate/kernel/Holds") {
  static readonly layer = Layer.sync(Holds, () => {
    const entries = new Map<AccountId, Entry>()
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
      forget: (accountId) => { entries.delete(accountId) },
      callCount,
      expired: (nowMs) => {
        const found: Array<{ accountId: AccountId; holdId: HoldId }> = []
        for (const [accountId, entry] of entries) {
          for (const hold of entry.holds.values()) if (hold.expiresAtMs <= nowMs) found.push({ accountId, holdId: hold.id })
        }
        return found
      }
    })
  })
}
