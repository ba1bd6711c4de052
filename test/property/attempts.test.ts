/**
 * The throttle against a list of all that happened: random attempts on a few
 * subjects, ended in any order, while the clock moves.
 */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { attemptSubjectsMax, attemptWindowMs, attemptsMax, beginAttempt, endAttempt, forgiveAttempts, makeAttempts, subjectOfAddress } from "../../src/domain/attempts.ts"

const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant("begin" as const), subject: fc.nat(2) }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant("end" as const), pick: fc.nat(), counted: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("forgive" as const), subject: fc.nat(2) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.oneof(fc.nat(2_000), fc.nat(attemptWindowMs)) }) }
)

describe("the throttle", () => {
  it("lets exactly those attempts pass that keep every window within the limit, however many are under way", () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const attempts = makeAttempts()
      let nowMs = 0
      const underWay: Array<string> = []
      let counted: Array<{ name: string; atMs: number }> = []
      for (const action of steps) {
        if (action.do === "wait") nowMs += action.ms
        else if (action.do === "forgive") {
          forgiveAttempts(attempts, String(action.subject))
          counted = counted.filter(({ name }) => name !== String(action.subject))
        } else if (action.do === "begin") {
          const name = String(action.subject)
          const failed = counted.filter((entry) => entry.name === name && entry.atMs + attemptWindowMs > nowMs)
          const running = underWay.filter((other) => other === name).length
          const waitMs = beginAttempt(attempts, name, nowMs)
          expect(waitMs === 0).toBe(failed.length + running < attemptsMax)
          if (failed.length === attemptsMax) expect(waitMs).toBe(failed[0]!.atMs + attemptWindowMs - nowMs)
          if (waitMs === 0) underWay.push(name)
        } else if (underWay.length > 0) {
          const [name] = underWay.splice(action.pick % underWay.length, 1) as [string]
          endAttempt(attempts, name, action.counted, nowMs)
          if (action.counted) counted.push({ name, atMs: nowMs })
        }
      }
      for (const name of underWay) endAttempt(attempts, name, false, nowMs)
      for (const name of ["0", "1", "2"]) forgiveAttempts(attempts, name)
      expect(attempts.subjects.size).toBe(0)
    }), { numRuns: process.env["TOLLGATE_FULL"] === "1" ? 5_000 : 300, ...(process.env["SEED"] === undefined ? {} : { seed: Number(process.env["SEED"]) }) })
  })

  it("remembers a bounded number of subjects: the one that was idle longest is forgotten, never one with an attempt under way", () => {
    const attempts = makeAttempts()
    beginAttempt(attempts, "under way", 0)
    for (let index = 0; index < attemptSubjectsMax; index++) {
      beginAttempt(attempts, `subject ${index}`, 0)
      endAttempt(attempts, `subject ${index}`, true, 0)
    }
    expect(attempts.subjects.size).toBe(attemptSubjectsMax)
    expect(attempts.subjects.has("under way")).toBe(true)
    expect(attempts.subjects.has("subject 0")).toBe(false)
    expect(attempts.subjects.has("subject 1")).toBe(true)
  })

  it("counts an IPv6 network as one subject and IPv4 addresses apart, in every spelling", () => {
    const same = ["2001:db8:0:7::1", "2001:0db8:0000:0007:ffff:0000:0000:0001", "2001:DB8:0:7:1:2:3:4"].map(subjectOfAddress)
    expect(new Set(same)).toEqual(new Set(["2001:db8:0:7::/64"]))
    expect(subjectOfAddress("2001:db8::7:1")).toBe("2001:db8:0:0::/64")
    expect(subjectOfAddress("fe80::1")).toBe("fe80:0:0:0::/64")
    const apart = ["192.0.2.1", "192.0.2.2", "::1", "::ffff:192.0.2.1", "::ffff:192.0.2.2", "0000:0000:0000:0000:0000:ffff:c000:0201", "0000:0000:0000:0000:0000:ffff:c000:0202"]
    expect(new Set(apart.map(subjectOfAddress)).size).toBe(apart.length)
  })
})
