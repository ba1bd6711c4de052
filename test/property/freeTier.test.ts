/**
 * The free tier against a plain list of all calls that were ever sent: claims
 * at any moment, calls that end in any order or are never sent, an account that
 * is given up and activated again, tiers that change, and crashes.
 */
import fc from "fast-check"
import { expect, it } from "vitest"
import { type CallCounts, claimFreeCall, countCall, giveBackFreeCall, knowsCalls, learnCalls } from "../../src/domain/freeTier.ts"
import type { AgentId, Token } from "../../src/domain/ids.ts"

interface Call {
  readonly id: AgentId
  /** In the database, where a crash finds it. */
  isRecorded: boolean
}

const agents = ["a", "b", "c"] as Array<string> as Array<AgentId>
const step = fc.oneof(
  { weight: 12, arbitrary: fc.record({ do: fc.constant("call" as const), agent: fc.nat(2) }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant("record" as const), pick: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("neverSent" as const), pick: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("activate" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("tier" as const), agent: fc.nat(2), tier: fc.integer({ min: 1, max: 12 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("crash" as const) }) }
)

it("a call is free exactly when fewer calls than the tier were sent before it", () => {
  fc.assert(fc.property(fc.array(step, { maxLength: 250 }), (steps) => {
    const tiers = new Map(agents.map((id) => [id, 4]))
    let calls: CallCounts = new Map()
    let token = 1n as Token
    let sent: Array<Call> = []
    const underWay = (): Array<Call> => sent.filter(({ isRecorded }) => !isRecorded)
    for (const action of steps) {
      if (action.do === "activate") token = token + 1n as Token
      else if (action.do === "tier") tiers.set(agents[action.agent]!, action.tier)
      else if (action.do === "crash") {
        calls = new Map()
        sent = sent.filter(({ isRecorded }) => isRecorded)
      } else if (action.do === "call") {
        const id = agents[action.agent]!
        const before = sent.filter((call) => call.id === id)
        if (!knowsCalls(calls, id, token)) learnCalls(calls, id, before.filter(({ isRecorded }) => isRecorded).length, token)
        const isFree = claimFreeCall(calls, { id, freeTierCalls: tiers.get(id)! })
        expect(isFree).toBe(before.length < tiers.get(id)!)
        if (!isFree) expect(countCall(calls, id)).toBe(true)
        sent.push({ id, isRecorded: false })
      } else {
        const call = underWay()[action.pick % Math.max(1, underWay().length)]
        if (call === undefined) continue
        if (action.do === "record") call.isRecorded = true
        else {
          giveBackFreeCall(calls, call.id)
          sent = sent.filter((other) => other !== call)
        }
      }
    }
  }), { numRuns: process.env["TOLLGATE_FULL"] === "1" ? 5_000 : 400, ...(process.env["SEED"] === undefined ? {} : { seed: Number(process.env["SEED"]) }) })
})
