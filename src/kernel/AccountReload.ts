/**
 * How a change that was written past an account's actor reaches it: the actor,
 * if it is resident anywhere, drops what it remembers and activates again.
 * Called after the commit; returns when no call can be decided by the old state.
 */
import { Context, type Effect } from "effect"
import type { AccountId } from "../domain/ids.ts"

export class AccountReload extends Context.Service<AccountReload, {
  readonly changed: (accountId: AccountId) => Effect.Effect<void>
}>()("tollgate/kernel/AccountReload") {}
