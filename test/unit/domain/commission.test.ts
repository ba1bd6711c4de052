/** The months of a provider: by the calendar in UTC, whatever the zone of the process. */
import { afterEach, describe, expect, it } from "vitest"
import { commissionAt, monthStartMs, nextTier } from "../../../src/domain/commission.ts"

const at = (text: string): number => Date.parse(text)
const iso = (ms: number): string => new Date(ms).toISOString()

/** Registered; then when months 2, 3 and 4 begin. */
const calendar: ReadonlyArray<readonly [since: string, second: string, third: string, fourth: string]> = [
  ["2026-03-01T00:00:00.000Z", "2026-04-01", "2026-05-01", "2026-06-01"],
  ["2026-03-15T23:59:59.999Z", "2026-04-15", "2026-05-15", "2026-06-15"],
  // A day that a month does not have is its last one, and only in that month.
  ["2027-01-28T12:00:00.000Z", "2027-02-28", "2027-03-28", "2027-04-28"],
  ["2027-01-29T12:00:00.000Z", "2027-02-28", "2027-03-29", "2027-04-29"],
  ["2027-01-30T12:00:00.000Z", "2027-02-28", "2027-03-30", "2027-04-30"],
  ["2027-01-31T12:00:00.000Z", "2027-02-28", "2027-03-31", "2027-04-30"],
  ["2026-12-31T18:30:00.000Z", "2027-01-31", "2027-02-28", "2027-03-31"],
  // With a leap day, and in a hundredth year without and with one.
  ["2028-01-29T12:00:00.000Z", "2028-02-29", "2028-03-29", "2028-04-29"],
  ["2028-01-31T12:00:00.000Z", "2028-02-29", "2028-03-31", "2028-04-30"],
  ["2028-02-29T00:00:00.000Z", "2028-03-29", "2028-04-29", "2028-05-29"],
  ["2100-01-31T00:00:00.000Z", "2100-02-28", "2100-03-31", "2100-04-30"],
  ["2000-01-31T00:00:00.000Z", "2000-02-29", "2000-03-31", "2000-04-30"],
  // Over the end of a year.
  ["2026-10-31T00:00:00.000Z", "2026-11-30", "2026-12-31", "2027-01-31"],
  ["2026-11-30T23:00:00.000Z", "2026-12-30", "2027-01-30", "2027-02-28"],
  // Beside hours that some zones leave out or have twice.
  ["2026-03-08T07:30:00.000Z", "2026-04-08", "2026-05-08", "2026-06-08"],
  ["2026-10-25T01:30:00.000Z", "2026-11-25", "2026-12-25", "2027-01-25"]
]

const zone = process.env["TZ"]
afterEach(() => {
  if (zone === undefined) delete process.env["TZ"]
  else process.env["TZ"] = zone
})

describe.each([["UTC", 0], ["America/New_York", 300], ["Pacific/Kiritimati", -840], ["Asia/Kathmandu", -345]])("in a process in %s", (name, minutes) => {
  it.each(calendar)("a provider since %s is in its second month from %s, in its third from %s, in its fourth from %s", (since, ...days) => {
    process.env["TZ"] = name
    expect(new Date(at("2026-01-15T00:00:00Z")).getTimezoneOffset(), "the process is in its zone").toBe(minutes)
    const starts = days.map((day) => at(`${day}T00:00:00.000Z`))
    expect([2, 3, 4].map((month) => iso(monthStartMs(at(since), month)))).toEqual(starts.map(iso))
    const monthOf = (ms: number): readonly [number, string] => {
      const { month, tier } = commissionAt(at(since), ms)
      return [month, tier.name]
    }
    expect(monthOf(at(since))).toEqual([1, "Month 1 (Free)"])
    const [second, third, fourth] = starts as [number, number, number]
    expect([monthOf(second - 1), monthOf(second)]).toEqual([[1, "Month 1 (Free)"], [2, "Months 2-3 (Growth)"]])
    expect([monthOf(third - 1), monthOf(third)]).toEqual([[2, "Months 2-3 (Growth)"], [3, "Months 2-3 (Growth)"]])
    expect([monthOf(fourth - 1), monthOf(fourth)]).toEqual([[3, "Months 2-3 (Growth)"], [4, "Standard"]])
  })
})

describe("a provider's commission", () => {
  it("never falls and never leaves out a month, day by day for a year and more from any day of two", () => {
    const dayMs = 86_400_000
    for (let since = at("2027-01-01T13:00:00Z"); since < at("2029-01-01T00:00:00Z"); since += dayMs) {
      let before = commissionAt(since, since)
      expect([before.month, before.percent]).toEqual([1, 0n])
      for (let now = at(iso(since).slice(0, 10)); now < since + 400 * dayMs; now += dayMs) {
        const after = commissionAt(since, now)
        if (after.month === before.month) continue
        expect([after.month, iso(now)]).toEqual([before.month + 1, iso(monthStartMs(since, after.month))])
        expect(after.percent >= before.percent).toBe(true)
        before = after
      }
      expect([before.month, before.percent]).toEqual([14, 10n])
    }
  })

  it("names the tier that comes next and its midnight, and none in the last", () => {
    const since = at("2026-12-31T18:30:00Z")
    const next = (now: string) => {
      const tier = nextTier(since, commissionAt(since, at(now)))
      return tier === undefined ? undefined : [tier.tier.percent, iso(tier.atMs)]
    }
    expect(next("2026-12-31T18:30:00Z")).toEqual([5n, "2027-01-31T00:00:00.000Z"])
    expect(next("2027-01-31T00:00:00Z")).toEqual([10n, "2027-03-31T00:00:00.000Z"])
    expect(next("2027-03-30T23:59:59.999Z")).toEqual([10n, "2027-03-31T00:00:00.000Z"])
    expect(next("2027-03-31T00:00:00Z")).toBeUndefined()
    expect(next("2127-03-31T00:00:00Z")).toBeUndefined()
  })

  it("is free for a clock that is behind the registration", () => {
    expect(commissionAt(at("2026-05-10T00:00:00Z"), at("2026-04-01T00:00:00Z"))).toMatchObject({ month: 1, percent: 0n })
    expect(commissionAt(at("2026-05-10T00:00:00Z"), at("2024-05-10T00:00:00Z"))).toMatchObject({ month: 1, percent: 0n })
  })
})
