/**
 * Charging a turn whose agent is done: one commit of the charge, its order, its
 * usage and the session's counts, on the account as it is then.
 *
 * Guarantee. `done` is called exactly once. `charged`: all of it is durable.
 * `failed`: nothing of it, and nothing was charged. `unknown`: all of it or
 * nothing; the session's rows say which. What was certainly not committed, or
 * not covered by the session's hold, is decided again, a few times: the hold is
 * topped up first, where the money is decided by then. What can't be held again
 * is not charged.
 */
import { createHash } from "node:crypto"
import type { Account } from "../../domain/account.ts"
import type { Agent } from "../../domain/agent.ts"
import type { Credits } from "../../domain/credits.ts"
import { HoldLost, NotCommitted } from "../../domain/errors.ts"
import type { TransactionId } from "../../domain/ids.ts"
import { shownSpendable } from "../../domain/lease.ts"
import { type Decided, decide, isRefusal } from "../../domain/ledger.ts"
import { isDue, share, splitOf } from "../../domain/terms.ts"
import type { CommitOutcome, CommitRows } from "../../store/Commit.ts"
import { metrics } from "../../telemetry/Metrics.ts"
import { attempt } from "../attempt.ts"
import type { SubjectId } from "../Caller.ts"
import { newId } from "../Ids.ts"
import type { ChatParts } from "./Chat.ts"
import type { ChatError, FinishedTurn } from "./ChatClient.ts"
import type { ChatTurn } from "./ChatTurn.ts"
import type { SessionHold } from "./SessionHold.ts"

export interface Due {
  readonly turn: ChatTurn
  readonly hold: SessionHold
  readonly term: bigint
  readonly messageIndex: number
  /** By the session's turns before. */
  readonly consumed: Credits
}

export type Charged =
  | { readonly _tag: "charged"; readonly finished: FinishedTurn }
  /** `isRefused`: by the session's own row, which is closed or another node's. */
  | { readonly _tag: "failed"; readonly error: ChatError; readonly isRefused: boolean }
  | { readonly _tag: "unknown" }

const attemptsMax = 3

export const chargeTurn = (parts: ChatParts, due: Due, done: (charged: Charged) => void, attempts = 1): void => {
  const { holder } = due.hold
  const failed = (error: ChatError, isRefused = false): void => {
    metrics.callsLostToCrash.inc()
    done({ _tag: "failed", error, isRefused })
  }
  const again = (error: ChatError): void => attempts === attemptsMax
    ? failed(error)
    : attempt(due.hold.topUp(), () => chargeTurn(parts, due, done, attempts + 1), () => failed(error))
  const act = (account: Account, nowMs: number): void => capture(parts, due, account, nowMs, (outcome, finished) => {
    switch (outcome._tag) {
      case "committed": return done({ _tag: "charged", finished })
      case "unknown": return done({ _tag: "unknown" })
      case "aborted": return failed(new NotCommitted({ retryAfterMs: 1_000 }), true)
      case "refused": return again(new NotCommitted({ retryAfterMs: 1_000 }))
    }
  }, again)
  const account = parts.spending.resident(holder, Date.now())
  if (account !== undefined) return act(account, Date.now())
  attempt(parts.spending.ask(holder, act), () => {}, failed)
}

const capture = (
  parts: ChatParts, due: Due, account: Account, nowMs: number, committed: (outcome: CommitOutcome, finished: FinishedTurn) => void, uncovered: (error: HoldLost) => void
): void => {
  const { turn, hold } = due
  // Who earns is the agent's owner of now, whatever the price was when the session began.
  const agent = parts.agents.resident(hold.agent.id) ?? hold.agent
  const outcome = hold.price === 0n ? undefined : decide(account, {
    _tag: "Bill", holdId: hold.id, transactionId: newId<TransactionId>(), orderId: turn.id, amount: hold.price, earnerId: agent.ownerId, split: splitOf(agent, nowMs)
  }, nowMs)
  if (outcome !== undefined && isRefusal(outcome)) return uncovered(new HoldLost({ retryAfterMs: 1_000 }))
  const outputText = turn.text
  const outputHash = `sha256:${createHash("sha256").update(outputText).digest("hex")}`
  const finished = finishedTurn(account, hold, {
    orderId: turn.id, messageId: turn.messageId, messageIndex: due.messageIndex, outputHash, charged: hold.price,
    sessionTotal: due.consumed + hold.price, replayed: false
  })
  parts.spending.submit(account, rowsOf(due, agent, outcome, outputText, outputHash, nowMs), outcome, (result) => committed(result, finished))
}

/** What its client is told, with the account as it is now. */
export const finishedTurn = (account: Account, hold: SessionHold, turn: Omit<FinishedTurn, "remaining" | "held">): FinishedTurn =>
  ({ ...turn, remaining: shownSpendable(account), held: account.holds.get(hold.id)?.amount ?? 0n })

const rowsOf = ({ turn, hold, term, messageIndex }: Due, agent: Agent, outcome: Decided | undefined, outputText: string, outputHash: string, nowMs: number): CommitRows => {
  const transaction = outcome?.transaction
  // The hold may be of another key than the one that sent the message.
  const subjectId: SubjectId = transaction?.subjectId ?? hold.holder.subjectId
  return {
    turns: [{
      id: turn.id, sessionId: hold.sessionId, term, subjectId, agentId: agent.id, messageId: turn.messageId, messageIndex, prompt: turn.prompt,
      amount: hold.price, fee: share(hold.price, splitOf(agent, nowMs)).fee, outputHash, outputText, createdAtMs: turn.startedAtMs, completedAtMs: nowMs
    }],
    ...(transaction === undefined ? {} : {
      transactions: [transaction],
      budgets: outcome!.budgets,
      usage: [{
        id: transaction.id, accountId: hold.holder.accountId, subjectId, agentId: agent.id, call: "chat", status: turn.status, cost: hold.price,
        latencyMs: Math.max(0, nowMs - turn.startedAtMs), atMs: nowMs,
        due: isDue(agent, turn.status) ? { fee: transaction.fee, recorded: false } : undefined
      }]
    })
  }
}
