/** The checker itself: a good run passes, and each thing that can be wrong with it is found. */
import { describe, expect, it } from "vitest"
import type { Books } from "./books.ts"
import { type Run, check } from "./checker.ts"
import { type Attempt, History, type Outcome, type Served } from "./History.ts"

type Change<A> = { -readonly [K in keyof A]: A[K] extends ReadonlyArray<infer B> ? Array<{ -readonly [L in keyof B]: B[L] }> : A[K] }
interface Draft extends Omit<Run, "books" | "served" | "history"> {
  readonly attempts: Array<{ -readonly [K in keyof Attempt]: Attempt[K] }>
  readonly served: Array<{ -readonly [K in keyof Served]: Served[K] }>
  readonly revocations: History["revocations"]
  readonly books: Change<Books>
  readonly budgets: Map<string, bigint>
}

const ok = (effectId: string | undefined, cost: bigint): Outcome => ({ tag: "ok", effectId, cost, text: "did it", isReplay: false })
const refused = (status: number, detail = "no"): Outcome => ({ tag: "refused", status, detail, hasRetryAfter: true })
const cut: Outcome = { tag: "unknown", why: "cut" }

const buyer = { accountId: "buyer", subjectId: "key" }
const at = (beganMs: number) => ({ node: 0, beganMs, endedMs: beganMs + 10 })
const row = { account_id: "buyer", available: 0n, reserved: 0n, earner_id: null, earned: 0n, agent_id: null, order_id: null, subject_id: null }
const paid = { available: -100n, earner_id: "seller", earned: 72n, agent_id: "agent", subject_id: "key" }
const call = { kind: "call" as const, agentId: "agent", price: 100n, ...buyer }

/** A deposit, a call without a key, one with a key that was cut and repeated, one cut for good that was charged, an order, a refusal. */
const good = (): Draft => ({
  attempts: [
    { ...buyer, kind: "deposit", intent: "d", id: "d/0", isNamed: true, agentId: undefined, price: 450n, ...at(0), outcome: ok(undefined, 450n) },
    { ...call, intent: "a", id: "a/1", isNamed: false, ...at(20), outcome: ok("t-a", 100n) },
    { ...call, intent: "b", id: "b/2", isNamed: true, ...at(40), outcome: cut },
    { ...call, intent: "b", id: "b/3", isNamed: true, ...at(60), outcome: { tag: "ok", effectId: "t-b", cost: 100n, text: "did it", isReplay: true } },
    { ...call, intent: "c", id: "c/4", isNamed: false, ...at(80), outcome: cut },
    { ...call, kind: "order", intent: "o", id: "o/5", isNamed: false, ...at(100), outcome: ok("order-o", 100n) },
    { ...call, intent: "e", id: "e/6", isNamed: false, ...at(120), outcome: refused(402) }
  ],
  served: [
    { intent: "a", attemptId: "a/1", isAnswered: true }, { intent: "b", attemptId: "b/2", isAnswered: true },
    { intent: "c", attemptId: "c/4", isAnswered: true }, { intent: "o", attemptId: undefined, isAnswered: true }
  ],
  revocations: [],
  owners: new Map([["agent", "seller"]]),
  budgets: new Map(),
  books: {
    accounts: [{ id: "buyer", available: 50n, reserved: 0n, posted: 0n }, { id: "seller", available: 0n, reserved: 0n, posted: 288n }],
    transactions: [
      { ...row, id: "t-d", type: "deposit", available: 450n },
      ...["t-a", "t-b", "t-c"].map((id) => ({ ...row, ...paid, id, type: "charge" })),
      { ...row, id: "t-o", type: "reserve", available: -100n, reserved: 100n, order_id: "order-o", agent_id: "agent", subject_id: "key" },
      { ...row, id: "t-o2", type: "complete", reserved: -100n, earner_id: "seller", earned: 72n, order_id: "order-o", agent_id: "agent", subject_id: "key" }
    ],
    orders: [{ id: "order-o", account_id: "buyer", status: "completed", prompt: "o", message_id: null, amount: 100n }],
    named: [{ account_id: "buyer", key: "d", result_id: "t-d" }, { account_id: "buyer", key: "b", result_id: "t-b" }],
    budgets: []
  }
})

const found = ({ attempts, revocations, ...run }: Draft): string => {
  const history = new History()
  history.attempts.push(...attempts)
  history.revocations.push(...revocations)
  return check({ ...run, history }).join("\n")
}

const outcome = (id: string, outcome: Outcome) => ({ attempts }: Draft): void => { attempts.find((attempt) => attempt.id === id)!.outcome = outcome }
const drop = <A>(rows: Array<A>, which: (row: A) => boolean): void => { rows.splice(rows.findIndex(which), 1) }

const broken: ReadonlyArray<readonly [string, (draft: Draft) => unknown, RegExp]> = [
  ["an acknowledged call that is not in the books", ({ books }) => drop(books.transactions, ({ id }) => id === "t-a"), /acknowledged, and lost: call a/],
  ["an acknowledged order that is not in the books", ({ books }) => drop(books.orders, () => true), /acknowledged, and lost: order o/],
  ["an acknowledged deposit that is not in the books", ({ books }) => drop(books.named, ({ key }) => key === "d"), /acknowledged, and lost: deposit d/],
  ["a call with a key that was done twice", outcome("b/2", ok("t-c", 100n)), /call b was done 2 times/],
  ["a call with a key that was told two answers", outcome("b/2", { tag: "ok", effectId: "t-b", cost: 100n, text: "another", isReplay: false }), /answered in different ways/],
  ["a call with a key that was new twice", ({ attempts }) => attempts.push({ ...attempts[3]!, id: "b/9", outcome: ok("t-b", 100n) }, { ...attempts[3]!, id: "b/8", outcome: ok("t-b", 100n) }), /2 times as if for the first time/],
  ["a refused call that was charged", outcome("c/4", refused(503)), /charges that nobody was told of, 0 calls of unknown outcome/],
  ["a refused call with a key that was charged", (draft) => { outcome("b/2", refused(503))(draft); outcome("b/3", refused(503))(draft) }, /refused, and done all the same: call b/],
  ["a bill that is not the price", outcome("a/1", ok("t-a", 99n)), /told to cost 99/],
  ["a charge that is not the price", ({ books }) => { books.transactions[1]!.available = -101n }, /moved 101 instead of 100/],
  ["an order that nobody made", ({ books }) => books.orders.push({ ...books.orders[0]!, id: "x", prompt: "x" }), /order x is nobody's/],
  ["an order that never ended", ({ books }) => { books.orders[0]!.status = "pending" }, /pending for ever/],
  ["a deposit that nobody made", ({ books }) => books.transactions.push({ ...row, id: "t-x", type: "deposit", available: 1n }), /deposit t-x is nobody's/],
  ["a request that reached its agent twice", ({ served }) => served.push({ ...served[0]! }), /sent to the agent 2 times: call a/],
  ["an order that reached its agent twice", ({ served }) => served.push({ ...served[3]! }), /order o was sent to its agent 2 times/],
  ["a refused call that reached its agent", ({ served }) => served.push({ intent: "e", attemptId: "e/6", isAnswered: false }), /refused, and sent to the agent/],
  ["a request that nobody sent", ({ served }) => served.push({ intent: "x", attemptId: "x", isAnswered: false }), /which nobody wanted/],
  ["a charge for what its agent did not do", ({ served }) => { served[2]!.isAnswered = false }, /and 0 such calls that the agent answered/],
  ["an order that was completed without its agent", ({ served }) => { served[3]!.isAnswered = false }, /order o was charged, and its agent never answered/],
  ["an answer without its agent", ({ served }) => { served[0]!.isAnswered = false }, /answered without its agent/],
  ["a balance that is not what happened", ({ books }) => { books.accounts[0]!.available = 51n }, /account buyer has 51/],
  ["earnings that are not what happened", ({ books }) => { books.accounts[1]!.posted = 289n }, /account seller has 0 and has earned 289/],
  ["a balance below zero", ({ books }) => { books.accounts[0]!.available = -1n }, /account buyer is left with available -1/],
  ["something left reserved", ({ books }) => { books.accounts[0]!.reserved = 1n }, /reserved 1/],
  ["more spent than there was", ({ attempts }) => { attempts[0]!.beganMs = 200 }, /more spending than it had money/],
  ["a refusal while money was there", ({ attempts }) => { attempts[0]!.price = 550n }, /refused for want of 100 while account buyer had 150 free/],
  ["an error of the gateway", outcome("e/6", refused(500)), /an error of the gateway/],
  ["a good key called wrong", outcome("e/6", refused(401)), /a good key was called wrong/],
  ["a refusal that nobody foresaw", outcome("e/6", refused(404)), /nobody foresaw this/],
  ["a 503 that does not say when to come back", outcome("e/6", { tag: "refused", status: 503, detail: "", hasRetryAfter: false }), /no Retry-After/],
  ["a revoked key that is good for more than a second", ({ attempts, revocations }) => {
    revocations.push({ subjectId: "key", answeredMs: -2_000 })
    attempts.splice(1, Infinity, { ...attempts[1]!, ...at(20) })
  }, /revoked 2020 ms before: call a.*\n.*sent to the agent/],
  ["a revoked key that is refused for another reason", ({ revocations }) => revocations.push({ subjectId: "key", answeredMs: -890 }), /revoked 1010 ms before: call e\/6 .*\(refused 402/],
  ["a budget that was exceeded", ({ budgets, books }) => {
    budgets.set("key", 399n)
    books.budgets.push({ key_id: "key", amount: 399n, spent: 400n })
  }, /spent 400 of a budget of 399/],
  ["a budget that does not know what was spent", ({ budgets, books }) => {
    budgets.set("key", 500n)
    books.budgets.push({ key_id: "key", amount: 500n, spent: 300n })
  }, /says 300 instead of 400/]
]

describe("the checker", () => {
  it("finds nothing in a run that is right", () => {
    expect(found(good())).toBe("")
  })

  it.each(broken)("finds %s", (_, damage, finding) => {
    const draft = good()
    damage(draft)
    expect(found(draft)).toMatch(finding)
  })
})
