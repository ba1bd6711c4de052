/** The free tier one step at a time; `test/property/freeTier.test.ts` has the random histories. */
import { describe, expect, it } from "vitest"
import { type CallCounts, claimFreeCall, countCall, giveBackFreeCall, knowsCalls, learnCalls } from "../../../src/domain/freeTier.ts"
import type { AgentId, Token } from "../../../src/domain/ids.ts"

const id = "agent" as AgentId
const token = (n: number): Token => BigInt(n) as Token
const tier = (freeTierCalls: number) => ({ id, freeTierCalls })

const known = (count: number): CallCounts => {
  const calls: CallCounts = new Map()
  learnCalls(calls, id, count, token(1))
  return calls
}

describe("the free tier", () => {
  it("gives nothing of an agent that was not looked up, and counts nothing of it", () => {
    const calls: CallCounts = new Map()
    expect(claimFreeCall(calls, tier(10))).toBe(false)
    expect(countCall(calls, id)).toBe(false)
    giveBackFreeCall(calls, id)
    expect(calls.size).toBe(0)
  })

  it("is what the agent gives less what was called before, and ends there", () => {
    const calls = known(8)
    expect([1, 2, 3].map(() => claimFreeCall(calls, tier(10)))).toEqual([true, true, false])
  })

  it("counts calls that were paid, also while the agent gives none, so that a tier that comes back is no larger", () => {
    const calls = known(1)
    for (let n = 0; n < 3; n++) expect(countCall(calls, id)).toBe(true)
    expect(claimFreeCall(calls, tier(4))).toBe(false)
    expect(claimFreeCall(calls, tier(5))).toBe(true)
  })

  it("gives a call back that was never made, and never more than there were", () => {
    const calls = known(0)
    claimFreeCall(calls, tier(1))
    giveBackFreeCall(calls, id)
    giveBackFreeCall(calls, id)
    expect([claimFreeCall(calls, tier(1)), claimFreeCall(calls, tier(1))]).toEqual([true, false])
  })

  it("is looked up once for each activation, and the larger count stands: rows of calls come later than the calls", () => {
    const calls = known(5)
    expect([knowsCalls(calls, id, token(1)), knowsCalls(calls, id, token(2))]).toEqual([true, false])
    learnCalls(calls, id, 3, token(2))
    expect(knowsCalls(calls, id, token(2))).toBe(true)
    expect(claimFreeCall(calls, tier(5))).toBe(false)
    learnCalls(calls, id, 9, token(3))
    expect(claimFreeCall(calls, tier(9))).toBe(false)
  })
})
