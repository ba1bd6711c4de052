/** The corners of the ledger machine that a random list reaches only seldom. The whole of it: test/property/ledger.test.ts. */
import { describe, expect, it } from "vitest"
import type { Account, Hold, Lease, Subject } from "../../../src/domain/account.ts"
import type { Budget } from "../../../src/domain/budget.ts"
import type { AccountId, AgentId, HoldId, KeyId, LeaseId, OrderId, Token, TransactionId } from "../../../src/domain/ids.ts"
import { type Command, closeLease, decide, placeHold, placeLease } from "../../../src/domain/ledger.ts"
import { makeRateWindow } from "../../../src/domain/rateLimit.ts"
import { autxSplit } from "../../../src/domain/terms.ts"

const at = (text: string): number => Date.parse(text)
const keyId = "key" as KeyId
const agentId = "agent" as AgentId

const accountOf = (available: bigint, budget: Budget): Account => {
  const subject: Subject = { id: keyId, kind: "key", scopes: undefined, revoked: false, expiresAtMs: Infinity, limit: 60, window: makeRateWindow(), budgets: [budget], held: 0n }
  return {
    id: "account" as AccountId, token: 1n as Token, suspended: false, emailVerified: true, available, reserved: 0n, held: 0n,
    holds: new Map(), calls: new Map(), orders: new Map(), subjects: new Map([[keyId, subject]]), leases: new Map()
  }
}
const holdOf = (amount: bigint, nowMs: number): Hold => ({
  id: "hold" as HoldId, subjectId: keyId, amount, call: "proxy", agentId, agent: "AGENT", createdAtMs: nowMs, expiresAtMs: nowMs + 150_000
})
const capture = (amount: bigint): Command => ({ _tag: "Capture", holdId: "hold" as HoldId, amount, earnerId: "owner" as AccountId, split: autxSplit })
const daySpent = (day: string, spent: bigint): Budget => ({ window: "day", amount: 40n, periodStartMs: at(`${day}T00:00:00Z`), spent })

const midnight = at("2026-03-01T00:00:00Z")

describe("a hold of a new day", () => {
  it("is captured in that day although the clock has stepped back over midnight", () => {
    const account = accountOf(100n, daySpent("2026-02-28", 33n))
    decide(account, { _tag: "Hold", hold: holdOf(40n, midnight + 5) }, midnight + 5)
    expect(decide(account, capture(40n), midnight - 20)).toMatchObject({ budgets: [{ periodStartMs: midnight, amount: 40n }] })
    expect(account.subjects.get(keyId)!.budgets[0]!.spent).toBe(40n)
  })

  it("keeps its day when it is placed on a new activation", () => {
    const account = accountOf(100n, daySpent("2026-02-28", 33n))
    placeHold(account, holdOf(40n, midnight + 5))
    expect(decide(account, capture(40n), midnight - 20)).toMatchObject({ budgets: [{ periodStartMs: midnight, amount: 40n }] })
  })
})

describe("a hold on an activation that found less than the last one knew", () => {
  it("is lost when the money is gone, and stays until it is released", () => {
    const account = accountOf(9n, daySpent("2026-03-01", 0n))
    placeHold(account, holdOf(10n, midnight))
    expect(decide(account, capture(10n), midnight)).toMatchObject({ _tag: "HoldLost" })
    expect(account).toMatchObject({ available: 9n, held: 10n })
    decide(account, { _tag: "Release", holdId: "hold" as HoldId }, midnight)
    expect(account).toMatchObject({ available: 9n, held: 0n })
  })

  it("is lost when its key's budget was spent elsewhere", () => {
    const account = accountOf(100n, daySpent("2026-03-01", 31n))
    placeHold(account, holdOf(10n, midnight))
    expect(decide(account, capture(10n), midnight)).toMatchObject({ _tag: "HoldLost" })
    expect(decide(account, capture(9n), midnight)).toMatchObject({ budgets: [{ amount: 9n }] })
    expect(account.subjects.get(keyId)!.budgets[0]!.spent).toBe(40n)
  })

  it("is never captured for more than it holds", () => {
    const account = accountOf(100n, daySpent("2026-03-01", 0n))
    placeHold(account, holdOf(10n, midnight))
    expect(decide(account, capture(11n), midnight)).toMatchObject({ _tag: "HoldLost" })
    expect(account).toMatchObject({ available: 100n, held: 10n })
  })
})

describe("a lease", () => {
  const leaseOf = (amount: bigint, grantedAtMs: number): Lease => ({ id: "lease" as LeaseId, subjectId: keyId, nodeId: "node", amount, grantedAtMs })
  const grant = (amount: bigint): Command => ({ _tag: "Grant", lease: { id: "lease" as LeaseId, subjectId: keyId, nodeId: "node" }, amount })

  it("has money that is not there for a hold that outlived its activation", () => {
    const account = accountOf(9n, daySpent("2026-03-01", 0n))
    placeLease(account, leaseOf(20n, midnight))
    placeHold(account, holdOf(10n, midnight))
    expect(decide(account, capture(10n), midnight)).toMatchObject({ _tag: "HoldLost" })
    expect(decide(account, capture(9n), midnight)).toMatchObject({ transaction: { available: -9n } })
  })

  it("has a part of its key's budget that is not there for such a hold", () => {
    const account = accountOf(100n, daySpent("2026-03-01", 11n))
    placeLease(account, leaseOf(20n, midnight))
    placeHold(account, holdOf(10n, midnight))
    expect(decide(account, capture(10n), midnight)).toMatchObject({ _tag: "HoldLost" })
    expect(decide(account, capture(9n), midnight)).toMatchObject({ budgets: [{ amount: 9n }] })
    closeLease(account, "lease" as LeaseId, 20n, midnight)
    expect(account.subjects.get(keyId)!.budgets[0]!.spent).toBe(40n)
  })

  it("keeps the day that it was granted in on a new activation whose clock has stepped back, and is charged there", () => {
    const account = accountOf(100n, daySpent("2026-02-28", 33n))
    placeLease(account, leaseOf(40n, midnight + 5))
    closeLease(account, "lease" as LeaseId, 40n, midnight - 20)
    expect(account.subjects.get(keyId)!.budgets[0]).toMatchObject({ periodStartMs: midnight, spent: 40n })
  })

  it("is dated into the day that had room for it, by a clock that is behind", () => {
    const account = accountOf(100n, daySpent("2026-03-01", 33n))
    expect(decide(account, grant(7n), midnight - 20)).toMatchObject({ lease: { isNew: true, amount: 7n, grantedAtMs: midnight } })
    expect(decide(account, grant(0n), midnight - 20)).toMatchObject({ lease: { isNew: false, amount: 0n, grantedAtMs: midnight } })
  })

  it("is the whole of what its account can lend: one unit more is refused and changes nothing", () => {
    const account = accountOf(30n, daySpent("2026-03-01", 0n))
    decide(account, grant(30n), midnight)
    expect(decide(account, grant(1n), midnight)).toMatchObject({ _tag: "InsufficientCredits", available: 0n, held: 30n })
    expect(account).toMatchObject({ available: 30n, held: 30n })
    expect(account.leases.get("lease" as LeaseId)).toMatchObject({ amount: 30n })
  })
})

describe("a budget's refusal", () => {
  it("names the end of the period that is charged, also for a clock that is behind it", () => {
    const account = accountOf(100n, daySpent("2026-03-01", 40n))
    const refusal = decide(account, {
      _tag: "Reserve",
      transactionId: "t" as TransactionId,
      order: { id: "order" as OrderId, subjectId: keyId, agentId, agent: "AGENT", amount: 1n, createdAtMs: midnight - 20 }
    }, midnight - 20)
    expect(refusal).toMatchObject({ _tag: "BudgetExceeded", spent: 40n, required: 1n, resetsAtMs: at("2026-03-02T00:00:00Z") })
  })
})
