/**
 * The money that a session has set aside: five turns' worth at its opening and
 * before each turn, or as much as there is for at least one. It expires some
 * time after the session would have been closed; that is only a safety net, the
 * session's end releases it.
 */
import { Effect } from "effect"
import { limits } from "../../config.ts"
import type { Agent } from "../../domain/agent.ts"
import type { Credits } from "../../domain/credits.ts"
import type { BudgetExceeded, InsufficientCredits } from "../../domain/errors.ts"
import type { AccountId, HoldId, SessionId } from "../../domain/ids.ts"
import { decide, isRefusal } from "../../domain/ledger.ts"
import type { Caller } from "../Caller.ts"
import { type LedgerError } from "../Ledger.ts"
import type { ChatParts } from "./Chat.ts"

export interface SessionHold {
  readonly id: HoldId
  readonly accountId: AccountId
  readonly sessionId: SessionId
  readonly caller: Caller
  readonly agent: Agent
  /** Of one turn; 0 holds nothing. */
  readonly price: Credits
}

/** Longer than any turn. */
const marginMs = 600_000

/** What is held after it. A hold under another key or login is released first. */
export const topUpHold = ({ accounts, ledger, settings }: ChatParts, { id, accountId, sessionId, caller, agent, price }: SessionHold): Effect.Effect<Credits, LedgerError | InsufficientCredits | BudgetExceeded> => {
  if (price === 0n) return Effect.succeed(0n)
  const lifeMs = (settings.chatIdleSeconds + settings.chatResumeSeconds) * 1_000 + marginMs
  return ledger.withEarnings(accountId, accounts.act(accountId, (account, nowMs): Effect.Effect<Credits, InsufficientCredits | BudgetExceeded> => {
    const before = account.holds.get(id)
    if (before !== undefined && before.subjectId !== caller.subjectId) decide(account, { _tag: "Release", holdId: id }, nowMs)
    const outcome = decide(account, {
      _tag: "TopUp", unit: price, units: limits.chatTurnsHeld,
      hold: {
        id, subjectId: caller.subjectId, amount: 0n, call: "chat", agentId: agent.id, agent: agent.ticker, sessionId,
        createdAtMs: nowMs, expiresAtMs: nowMs + lifeMs
      }
    }, nowMs)
    return isRefusal(outcome) ? Effect.fail(outcome as InsufficientCredits | BudgetExceeded) : Effect.succeed(account.holds.get(id)!.amount)
  }))
}
