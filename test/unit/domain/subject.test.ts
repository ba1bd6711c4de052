/** The guard ladder: which rung answers when several would, and that only the last one counts. */
import { describe, expect, it } from "vitest"
import type { Account, Subject } from "../../../src/domain/account.ts"
import type { AccountId, KeyId, Token } from "../../../src/domain/ids.ts"
import { callsInWindow, makeRateWindow } from "../../../src/domain/rateLimit.ts"
import { admitSubject, type Need } from "../../../src/domain/subject.ts"

const nowMs = 1_800_000_000_000

const accountOf = (flaws: Partial<Account> = {}): Account => ({
  id: "account" as AccountId, token: 1n as Token, suspended: false, emailVerified: true, available: 0n, reserved: 0n, held: 0n,
  holds: new Map(), calls: new Map(), orders: new Map(), subjects: new Map(), leases: new Map(), ...flaws
})
const subjectOf = (flaws: Partial<Subject> = {}): Subject => ({
  id: "key" as KeyId, kind: "key", scopes: new Set(["proxy"]), revoked: false, expiresAtMs: nowMs + 1, limit: 2, window: makeRateWindow(),
  budgets: [], held: 0n, ...flaws
})
const full = () => {
  const window = makeRateWindow()
  window.second = Math.floor(nowMs / 1000)
  window.counts[window.second % window.counts.length] = 2
  window.total = 2
  return window
}

/** From the first rung to the last: what is wrong, and what is answered. */
const rungs: ReadonlyArray<{ readonly wrong: string; readonly answer: object; readonly subject?: () => Partial<Subject>; readonly account?: Partial<Account>; readonly need?: Partial<Need> }> = [
  { wrong: "revoked", answer: { _tag: "Unauthenticated", reason: "revoked" }, subject: () => ({ revoked: true }) },
  { wrong: "expired", answer: { _tag: "Unauthenticated", reason: "expired" }, subject: () => ({ expiresAtMs: nowMs }) },
  { wrong: "suspended", answer: { _tag: "AccountSuspended" }, account: { suspended: true } },
  { wrong: "a key where a login is wanted", answer: { _tag: "LoginRequired" }, need: { auth: "login" } },
  { wrong: "without the scope", answer: { _tag: "ScopeMissing", scope: "orders" }, need: { scope: "orders" } },
  { wrong: "unverified", answer: { _tag: "EmailUnverified" }, account: { emailVerified: false }, need: { verified: true } },
  { wrong: "over its rate", answer: { _tag: "RateLimited", limit: 2, windowMs: 60_000, retryAfterMs: 61_000 }, subject: () => ({ window: full() }) }
]

const admit = (wrongs: typeof rungs) => {
  const subject = subjectOf(Object.assign({}, ...wrongs.map((rung) => rung.subject?.())))
  const account = accountOf(Object.assign({}, ...wrongs.map((rung) => rung.account)))
  const need: Need = Object.assign({ auth: "loginOrKey" }, ...wrongs.map((rung) => rung.need))
  const before = callsInWindow(subject.window, nowMs)
  const refusal = admitSubject(account, subject, need, nowMs)
  return { refusal, counted: callsInWindow(subject.window, nowMs) - before }
}

describe("admitting a subject", () => {
  it.each(rungs.map((rung, index) => ({ ...rung, index })))("answers first that it is $wrong, whatever else is wrong after that", ({ answer, index }) => {
    expect(admit(rungs.slice(index, index + 1)).refusal).toMatchObject(answer)
    expect(admit(rungs.slice(index)).refusal).toMatchObject(answer)
  })

  it.each(rungs)("counts nothing when it is $wrong", (rung) => {
    expect(admit([rung]).counted).toBe(0)
  })

  it("counts exactly one call when nothing is wrong", () => {
    expect(admit([])).toEqual({ refusal: undefined, counted: 1 })
  })

  it("asks a login, which has every scope, for none", () => {
    const login = subjectOf({ kind: "login", scopes: undefined })
    expect(admitSubject(accountOf(), login, { auth: "login", scope: "orders" }, nowMs)).toBeUndefined()
  })

  it("asks for a verified email only where it is needed", () => {
    expect(admitSubject(accountOf({ emailVerified: false }), subjectOf(), { auth: "loginOrKey" }, nowMs)).toBeUndefined()
  })

  it("refuses the call after the last one of the window until the time it names", () => {
    const subject = subjectOf({ expiresAtMs: Infinity })
    const call = (atMs: number) => admitSubject(accountOf(), subject, { auth: "loginOrKey" }, atMs)
    expect([call(nowMs), call(nowMs + 400)]).toEqual([undefined, undefined])
    const refusal = call(nowMs + 500)
    expect(refusal).toMatchObject({ _tag: "RateLimited", retryAfterMs: 60_500 })
    expect(call(nowMs + 500 + 60_499)).toMatchObject({ _tag: "RateLimited", retryAfterMs: 1 })
    expect(call(nowMs + 500 + 60_500)).toBeUndefined()
  })
})
