/**
 * The free tier: the first `freeTierCalls` calls of an account to an agent cost
 * nothing. Every earlier call counts, free or not, whatever its answer was.
 *
 * Guarantee: claiming and counting are one step, so no more calls are free than
 * the agent gives, however many come at once. An agent that is not in the map
 * has to be looked up first; one that is in it is counted also while it has no
 * free tier, which may come back.
 */
import type { Agent } from "./agent.ts"
import type { AgentId, Token } from "./ids.ts"

/** Calls of one account to one agent so far. */
export interface CallCount {
  count: number
  /** Of the activation that looked it up: another one may have been elsewhere meanwhile. */
  token: Token
}
export type CallCounts = Map<AgentId, CallCount>

/** True: this call is free, and counted. */
export const claimFreeCall = (calls: CallCounts, { id, freeTierCalls }: Pick<Agent, "id" | "freeTierCalls">): boolean => {
  const known = calls.get(id)
  if (known === undefined || known.count >= freeTierCalls) return false
  known.count++
  return true
}

/** Counts a call that is not free; false when nobody looked the agent up yet. */
export const countCall = (calls: CallCounts, id: AgentId): boolean => {
  const known = calls.get(id)
  if (known !== undefined) known.count++
  return known !== undefined
}

/** A call that was counted was never made. */
export const giveBackFreeCall = (calls: CallCounts, id: AgentId): void => {
  const known = calls.get(id)
  if (known !== undefined && known.count > 0) known.count--
}

/** Takes up what was looked up under an activation. What this node has counted itself may be more: rows of calls come later. */
export const learnCalls = (calls: CallCounts, id: AgentId, count: number, token: Token): void => {
  const known = calls.get(id)
  if (known === undefined) calls.set(id, { count, token })
  else {
    known.count = Math.max(known.count, count)
    known.token = token
  }
}

export const knowsCalls = (calls: CallCounts, id: AgentId, token: Token): boolean => calls.get(id)?.token === token
