/** Money as text, and its sharing: nothing is rounded, nothing gets lost. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { formatUsd, microPerUsd, parseUsd, usdMax, usdNumber } from "../../src/domain/credits.ts"
import { autxSplit, share } from "../../src/domain/terms.ts"

const amount = fc.oneof(fc.bigInt(0n, usdMax), fc.bigInt(0n, 2_000_000n), fc.bigInt(usdMax - 2_000_000n, usdMax))
const runs = { numRuns: process.env["TOLLGATE_FULL"] === "1" ? 20_000 : 2_000 }

describe("an amount as text", () => {
  it("is read back as the amount it was written from", () => {
    fc.assert(fc.property(amount, (micro) => { expect(parseUsd(formatUsd(micro))).toBe(micro) }), runs)
  })

  it("has two to six decimals and no needless zero", () => {
    fc.assert(fc.property(amount, (micro) => { expect(formatUsd(micro)).toMatch(/^(0|[1-9]\d*)\.\d\d(\d{0,3}[1-9])?$/) }), runs)
  })

  it("of a debit is that of the credit with a minus sign", () => {
    fc.assert(fc.property(amount, (micro) => {
      fc.pre(micro > 0n)
      expect(formatUsd(-micro)).toBe(`-${formatUsd(micro)}`)
    }), runs)
  })

  it("counts each digit at its place", () => {
    fc.assert(fc.property(fc.bigInt(0n, 999_999_999n), fc.stringMatching(/^[0-9]{1,6}$/), fc.nat(20), (dollars, decimals, zeros) => {
      const micro = [...decimals].reduce((sum, digit, place) => sum + BigInt(digit) * 10n ** BigInt(5 - place), dollars * microPerUsd)
      const trailing = decimals.length === 6 ? "0".repeat(zeros) : ""
      expect(parseUsd(`${dollars}.${decimals}${trailing}`)).toBe(micro)
      expect(parseUsd(String(dollars))).toBe(dollars * microPerUsd)
    }), runs)
  })

  it("survives a JSON number up to the largest amount", () => {
    fc.assert(fc.property(amount, (micro) => { expect(parseUsd(String(usdNumber(micro)))).toBe(micro) }), runs)
  })

  it("is refused when any character of it is not a digit or the one point", () => {
    const character = fc.oneof(fc.constantFrom(..."+-eE,_ \t\n\r\u00a0\u2212\u0661\uff11\u0967'$xn"), fc.string({ unit: "grapheme", minLength: 1, maxLength: 1 }))
    fc.assert(fc.property(amount, character, fc.nat(), (micro, inserted, position) => {
      fc.pre(!/^[0-9.]$/.test(inserted))
      const text = formatUsd(micro)
      const at = position % (text.length + 1)
      expect(parseUsd(text.slice(0, at) + inserted + text.slice(at))).toBeUndefined()
    }), runs)
  })

  it("is refused with a seventh decimal that matters", () => {
    fc.assert(fc.property(fc.stringMatching(/^[0-9]{6,12}$/), fc.constantFrom(..."123456789"), (decimals, last) => {
      expect(parseUsd(`1.${decimals}${last}`)).toBeUndefined()
    }), runs)
  })

  it.each([
    "", ".", "1.", ".5", "1..2", "1.2.3", "-1", "+1", "-0", "1e3", "1E-3", "1e+2", "0x10", "1_000", "1,000", "1,5", " 1", "1 ", "1\n", "\u00a01",
    "NaN", "Infinity", "null", "true", "1n", "$1", "\u0661\u0662", "\uff11\uff12", "\u09671", "1\u00b2", "0.0000001", "1.2345678", "1000000000.000001", "10000000000", "99999999999"
  ])("is refused as %j", (text) => {
    expect(parseUsd(text)).toBeUndefined()
  })

  it("may be the largest amount, and no more", () => {
    expect(parseUsd("1000000000")).toBe(usdMax)
    expect(parseUsd("1000000000.000000")).toBe(usdMax)
    expect(parseUsd(formatUsd(usdMax + 1n))).toBeUndefined()
  })
})

describe("sharing an amount", () => {
  const split = fc.tuple(fc.bigInt(0n, 100n), fc.bigInt(0n, 100n)).filter(([creator, buyback]) => creator + buyback <= 100n)

  it("neither loses nor invents a unit, and owes nobody", () => {
    fc.assert(fc.property(amount, split, (micro, [creator, buyback]) => {
      const shares = share(micro, { creator, buyback })
      expect(shares.earned + shares.fee + shares.buyback).toBe(micro)
      for (const part of Object.values(shares)) expect(part).toBeGreaterThanOrEqual(0n)
    }), runs)
  })

  it("rounds both shares down, so that the platform keeps less than two units more", () => {
    fc.assert(fc.property(amount, split, (micro, [creator, buyback]) => {
      const shares = share(micro, { creator, buyback })
      const hundredths = shares.fee * 100n - micro * (100n - creator - buyback)
      expect(hundredths >= 0n && hundredths < 200n).toBe(true)
    }), runs)
  })

  it("gives the creator 72 %, the buyback 18 % and the platform 10 % of an autx call", () => {
    expect(share(10_000n, autxSplit)).toEqual({ earned: 7_200n, buyback: 1_800n, fee: 1_000n })
    expect(share(1n, autxSplit)).toEqual({ earned: 0n, buyback: 0n, fee: 1n })
  })
})
