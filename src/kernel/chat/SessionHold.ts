/**
 * The money that a session has set aside: five turns' worth at its opening and
 * before each turn, or as much as there is for at least one. It is held for the
 * key or login that sent the last message, wherever that one's money is decided.
 *
 * It counts only as far as it is covered. When its account went to another node,
 * or its lease was closed, what was held is gone or no longer covered: nothing is
 * billed to it until it was topped up again. It expires some time after the
 * session would have been closed; that is only a safety net, the session's end
 * releases it.
 */
import { Effect } from "effect"
import { limits } from "../../config.ts"
import type { Account } from "../../domain/account.ts"
import type { Agent } from "../../domain/agent.ts"
import type { Credits } from "../../domain/credits.ts"
import type { BudgetExceeded, InsufficientCredits, RateLimited } from "../../domain/errors.ts"
import type { HoldId, SessionId } from "../../domain/ids.ts"
import { decide, isRefusal, spendable } from "../../domain/ledger.ts"
import type { Caller } from "../Caller.ts"
import { newId } from "../Ids.ts"
import type { AccountError } from "../AccountActor.ts"
import type { LedgerError } from "../Ledger.ts"
import type { ChatParts } from "./Chat.ts"

/** Longer than any turn. */
const marginMs = 600_000

export class SessionHold {
  readonly id = newId<HoldId>()
  readonly sessionId: SessionId
  readonly agent: Agent
  /** Of one turn; 0 holds nothing. */
  readonly price: Credits
  readonly #parts: ChatParts
  #holder: Caller

  constructor(parts: ChatParts, sessionId: SessionId, agent: Agent, caller: Caller) {
    this.#parts = parts
    this.sessionId = sessionId
    this.agent = agent
    this.price = agent.price
    this.#holder = caller
  }

  /** Whose money it is: of whoever it was topped up for last. */
  get holder(): Caller {
    return this.#holder
  }

  get held(): Effect.Effect<Credits, AccountError> {
    return this.#parts.spending.ask(this.#holder, (account) => account.holds.get(this.id)?.amount ?? 0n)
  }

  /** What is held after it. What was held for another key or login is released first. */
  topUp(caller: Caller = this.#holder): Effect.Effect<Credits, LedgerError | InsufficientCredits | BudgetExceeded | RateLimited> {
    return Effect.suspend(() => {
      if (caller.subjectId !== this.#holder.subjectId) this.release()
      this.#holder = caller
      if (this.price === 0n) return Effect.succeed(0n)
      const { spending } = this.#parts
      return spending.withMoney(caller, this.price, spending.act(caller, (account, nowMs) => this.#fill(account, nowMs)))
    })
  }

  release(): void {
    if (this.price > 0n) this.#parts.spending.release(this.#holder, this.id)
  }

  #fill(account: Account, nowMs: number): Effect.Effect<Credits, InsufficientCredits | BudgetExceeded> {
    // More is held than there is: of this hold only what is granted anew counts.
    if (spendable(account) < 0n) decide(account, { _tag: "Release", holdId: this.id }, nowMs)
    const { chatIdleSeconds, chatResumeSeconds } = this.#parts.settings
    const outcome = decide(account, {
      _tag: "TopUp", unit: this.price, units: limits.chatTurnsHeld,
      hold: {
        id: this.id, subjectId: this.#holder.subjectId, amount: 0n, call: "chat", agentId: this.agent.id, agent: this.agent.ticker, sessionId: this.sessionId,
        createdAtMs: nowMs, expiresAtMs: nowMs + (chatIdleSeconds + chatResumeSeconds) * 1_000 + marginMs
      }
    }, nowMs)
    return isRefusal(outcome) ? Effect.fail(outcome as InsufficientCredits | BudgetExceeded) : Effect.succeed(account.holds.get(this.id)!.amount)
  }
}
