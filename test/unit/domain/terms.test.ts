/** Whose terms a call has, and how its cost is shared. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { Agent } from "../../../src/domain/agent.ts"
import type { AccountId, AgentId } from "../../../src/domain/ids.ts"
import { autxSplit, isDue, proxyTerms, share, splitOf } from "../../../src/domain/terms.ts"

const [owner, caller] = ["owner", "caller"] as [AccountId, AccountId]
const at = (text: string): number => Date.parse(text)

const agent = (more: Partial<Agent>): Agent => ({
  id: "agent" as AgentId, ownerId: owner, dialect: "acf", ticker: "T", name: "T", description: "", category: "", endpointUrl: "https://example.com", price: 50_000n,
  freeTierCalls: 0, authTier: "none", status: "active", suspended: false, manifest: undefined, provider: undefined, providerKey: undefined, tags: [],
  paymentMethod: "x402", providerSinceMs: at("2026-01-31T12:00:00Z"), version: 1n, createdAtMs: at("2026-06-01T00:00:00Z"), updatedAtMs: 0, ...more
})
const autx = agent({ dialect: "autx", providerSinceMs: undefined })
const free = { price: 0n, recorded: false }

describe("a relayed call", () => {
  it("of an autx agent costs its price while the operator charges, and its owner nothing, whatever acf's settlement is", () => {
    for (const acf of ["record", "prepaid"] as const) {
      expect(proxyTerms(autx, caller, { autx: "free", acf })).toEqual(free)
      expect(proxyTerms(autx, caller, { autx: "paid", acf })).toEqual({ price: 50_000n, recorded: false })
      expect(proxyTerms(autx, owner, { autx: "paid", acf })).toEqual(free)
    }
  })

  it("of an acf service costs its price, its owner too, whatever autx charges: recorded or from credits", () => {
    for (const by of [caller, owner]) {
      for (const billing of ["free", "paid"] as const) {
        expect(proxyTerms(agent({}), by, { autx: billing, acf: "record" })).toEqual({ price: 50_000n, recorded: true })
        expect(proxyTerms(agent({}), by, { autx: billing, acf: "prepaid" })).toEqual({ price: 50_000n, recorded: false })
      }
    }
  })

  it("of anything without a price is free, and nothing is recorded at a cost", () => {
    for (const dialect of ["acf", "autx"]) expect(proxyTerms(agent({ dialect, price: 0n }), caller, { autx: "paid", acf: "record" })).toEqual(free)
  })

  it("is due to its provider when an acf service answered it below 500", () => {
    expect([200, 404, 499, 500, 504].map((status) => isDue(agent({}), status))).toEqual([true, true, true, false, false])
    expect(isDue(autx, 200)).toBe(false)
  })
})

describe("the cost of a call", () => {
  it("is shared by the provider's month, which counts from its first service and not from this one", () => {
    const creatorAt = (time: string) => splitOf(agent({}), at(time)).creator
    expect(["2026-01-31T12:00:00Z", "2026-02-27T23:59:59.999Z"].map(creatorAt)).toEqual([100n, 100n])
    expect(["2026-02-28T00:00:00Z", "2026-04-29T23:59:59.999Z"].map(creatorAt)).toEqual([95n, 95n])
    expect(["2026-04-30T00:00:00Z", "2030-01-01T00:00:00Z"].map(creatorAt)).toEqual([90n, 90n])
    expect(splitOf(agent({ providerSinceMs: undefined }), at("2026-06-02T00:00:00Z")).creator).toBe(100n)
    expect(splitOf(autx, at("2026-06-02T00:00:00Z"))).toBe(autxSplit)
  })

  it("is one split object for a rate, so that a batch can tell it by identity", () => {
    const inMonth4 = at("2026-05-05T00:00:00Z")
    expect(splitOf(agent({}), inMonth4)).toBe(splitOf(agent({ providerSinceMs: at("2025-01-01T00:00:00Z") }), inMonth4))
  })

  it("is shared whole: no unit is lost or invented, and the platform takes the remainder", () => {
    const splits = [autxSplit, ...["2026-02-01", "2026-03-15", "2026-08-01"].map((day) => splitOf(agent({}), at(day)))]
    fc.assert(fc.property(fc.bigInt({ min: 0n, max: 10n ** 14n }), fc.constantFrom(...splits), (amount, split) => {
      const { earned, fee, buyback } = share(amount, split)
      expect(earned + fee + buyback).toBe(amount)
      expect(earned * 100n <= amount * split.creator && buyback * 100n <= amount * split.buyback).toBe(true)
      const platform = 100n - split.creator - split.buyback
      expect(fee * 100n >= amount * platform && fee * 100n < amount * platform + 200n).toBe(true)
    }))
    expect(share(1n, autxSplit)).toEqual({ earned: 0n, buyback: 0n, fee: 1n })
    expect(share(99n, splits[2]!)).toEqual({ earned: 94n, buyback: 0n, fee: 5n })
  })
})
