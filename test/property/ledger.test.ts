/**
 * The ledger machine against the auditor: random command lists over one
 * account, its keys and a small database that commits late, loses what was not
 * committed, and is sometimes spent from elsewhere before the next activation,
 * or by another node from a lease.
 *
 * A tenth of the lists by default, all of them with TOLLGATE_FULL=1; a failure prints
 * its seed and the shortest list, and `SEED=… npm test -- <this file>` runs it again.
 */
import fc from "fast-check"
import { isDeepStrictEqual } from "node:util"
import { describe, expect, it } from "vitest"
import type { Account, Hold, Lease, PendingOrder, Subject, SubjectId, Transaction } from "../../src/domain/account.ts"
import { type Budget, periodStartMs, spend, spentAt } from "../../src/domain/budget.ts"
import type { AccountId, AgentId, HoldId, KeyId, LeaseId, OrderId, Token, TransactionId, UserId } from "../../src/domain/ids.ts"
import { adopt, closeLease, type Command, type Decided, decide, isRefusal, type Outcome, periodWithRoom, placeHold, placeLease } from "../../src/domain/ledger.ts"
import { makeRateWindow } from "../../src/domain/rateLimit.ts"
import { autxSplit } from "../../src/domain/terms.ts"
import { Auditor, type Opening, type Prediction, type Standing } from "../support/Auditor.ts"

/** 10⁵ comparisons a run: the reporting ones of vitest only once something differs. */
const same = (found: unknown, wanted: unknown, when: string): void => {
  if (!isDeepStrictEqual(found, wanted)) expect(found, when).toStrictEqual(wanted)
}
const holds = (claim: boolean, what: string): void => {
  if (!claim) expect.fail(`not so: ${what}`)
}

const accountId = "account" as AccountId
const agentId = "agent" as AgentId
const startMs = Date.UTC(2028, 1, 28, 23, 59, 50)

const opening: Opening = {
  accountId,
  available: 300n,
  subjects: [
    {
      id: "key-three" as KeyId,
      kind: "key",
      budgets: [
        { window: "day", amount: 60n, periodStartMs: Date.UTC(2028, 1, 28), spent: 5n },
        { window: "month", amount: 150n, periodStartMs: Date.UTC(2028, 0, 1), spent: 150n },
        { window: "total", amount: 400n, periodStartMs: 0, spent: 0n }
      ]
    },
    { id: "key-day" as KeyId, kind: "key", budgets: [{ window: "day", amount: 40n, periodStartMs: Date.UTC(2028, 1, 27), spent: 33n }] },
    { id: "login" as UserId, kind: "login", budgets: [] }
  ]
}

type Step =
  | { readonly step: "hold" | "reserve"; readonly subject: number; readonly amount: bigint }
  | { readonly step: "release" | "complete" | "refund"; readonly pick: number }
  | { readonly step: "capture" | "bill"; readonly pick: number; readonly percent: number }
  /** Of a session that has had a hold, or of a new one. */
  | { readonly step: "topUp"; readonly pick: number; readonly subject: number; readonly unit: bigint; readonly units: number }
  | { readonly step: "deposit" | "withdraw" | "fee" | "sweep"; readonly amount: bigint; readonly adjusts: boolean }
  | { readonly step: "adopt"; readonly pick: number }
  /** To a lease that there is, or to a new one. */
  | { readonly step: "grant"; readonly pick: number; readonly subject: number; readonly amount: bigint }
  /** So many percent of what its node has not spent. */
  | { readonly step: "giveBack"; readonly pick: number; readonly percent: number }
  | { readonly step: "spendLease"; readonly pick: number; readonly percent: number }
  | { readonly step: "closeLease"; readonly pick: number }
  | { readonly step: "clock"; readonly move: "forward" | "back" | "beforeMidnight" | "midnight" | "month"; readonly ms: number }
  | { readonly step: "reload"; readonly durable: number; readonly elsewhere: bigint; readonly subject: number }

const pick = fc.nat(9)
const amount = fc.oneof(fc.bigInt(1n, 12n), fc.bigInt(1n, 120n), fc.bigInt(0n, 1n))
const of = <const Name extends string, Fields extends object>(name: Name, fields: { [K in keyof Fields]: fc.Arbitrary<Fields[K]> }) =>
  fc.record(fields).map((values) => ({ step: name, ...values }))

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: of("hold", { subject: fc.nat(2), amount }) },
  { weight: 6, arbitrary: of("capture", { pick, percent: fc.oneof(fc.constant(100), fc.nat(130)) }) },
  { weight: 4, arbitrary: of("topUp", { pick: fc.nat(3), subject: fc.nat(2), unit: fc.bigInt(1n, 12n), units: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 5, arbitrary: of("bill", { pick: fc.nat(2), percent: fc.oneof(fc.constant(20), fc.nat(130)) }) },
  { weight: 2, arbitrary: of("release", { pick }) },
  { weight: 5, arbitrary: of("reserve", { subject: fc.nat(2), amount }) },
  { weight: 3, arbitrary: of("complete", { pick }) },
  { weight: 3, arbitrary: of("refund", { pick }) },
  { weight: 3, arbitrary: of("deposit", { amount, adjusts: fc.boolean() }) },
  { weight: 1, arbitrary: of("withdraw", { amount, adjusts: fc.boolean() }) },
  { weight: 1, arbitrary: of("fee", { amount, adjusts: fc.constant(false) }) },
  { weight: 1, arbitrary: of("sweep", { amount, adjusts: fc.constant(false) }) },
  { weight: 4, arbitrary: of("grant", { pick: fc.nat(4), subject: fc.nat(2), amount }) },
  { weight: 3, arbitrary: of("giveBack", { pick: fc.nat(2), percent: fc.nat(110) }) },
  { weight: 4, arbitrary: of("spendLease", { pick: fc.nat(2), percent: fc.nat(100) }) },
  { weight: 2, arbitrary: of("closeLease", { pick: fc.nat(2) }) },
  { weight: 7, arbitrary: of("adopt", { pick }) },
  { weight: 3, arbitrary: of("clock", { move: fc.constantFrom("forward", "back", "beforeMidnight", "midnight", "month"), ms: fc.nat(4_000) }) },
  { weight: 1, arbitrary: of("reload", { durable: fc.nat(30), elsewhere: fc.oneof(fc.constant(0n), amount), subject: fc.nat(2) }) }
)

/** The rows that an activation is loaded from, with the constraints of the schema. */
class Rows {
  available = opening.available
  reserved = 0n
  readonly books = { earned: {} as Record<string, bigint>, fee: 0n, buyback: 0n, deposits: 0n, withdrawals: 0n }
  readonly budgets = new Map(opening.subjects.flatMap((subject) => subject.budgets.map((budget) => [`${subject.id} ${budget.window}` as string, { ...budget }] as const)))
  readonly orders = new Map<OrderId, PendingOrder>()
  /** With what their nodes spent, which the owner is not told before it closes them. */
  readonly leases = new Map<LeaseId, Lease & { taken: bigint }>()
  readonly #ids = new Set<string>()
  readonly #ends = new Map<OrderId, string>()

  commit({ transaction, budgets, lease }: Decided, order: PendingOrder | undefined): void {
    if (lease !== undefined) return this.#change(lease)
    if (transaction === undefined) throw new Error("a decision without a transaction was committed")
    if (this.#ids.has(transaction.id)) throw new Error(`transaction ${transaction.id} exists`)
    this.#ids.add(transaction.id)
    this.available += transaction.available
    this.reserved += transaction.reserved
    for (const side of ["fee", "buyback", "deposits", "withdrawals"] as const) this.books[side] += transaction[side]
    const { earnerId } = transaction
    if (transaction.earned !== 0n) this.books.earned[earnerId!] = (this.books.earned[earnerId!] ?? 0n) + transaction.earned
    if (transaction.type === "reserve") this.orders.set(transaction.orderId!, order!)
    if (transaction.type === "complete" || transaction.type === "refund") {
      holds(this.orders.delete(transaction.orderId!), "an ended order was pending")
      holds(!this.#ends.has(transaction.orderId!), "an order ends once")
      this.#ends.set(transaction.orderId!, transaction.type)
    }
    if (transaction.type === "charge" && transaction.orderId !== undefined) {
      holds(!this.#ends.has(transaction.orderId) && !this.orders.has(transaction.orderId), "a turn is charged once, and was never reserved")
      this.#ends.set(transaction.orderId, transaction.type)
    }
    for (const change of budgets) this.spend(`${change.keyId} ${change.window}`, change.periodStartMs, change.amount)
    holds(this.available >= 0n && this.reserved >= 0n, "no amount of the account is negative")
    same(this.reserved, [...this.orders.values()].reduce((sum, { amount }) => sum + amount, 0n), "reserved belongs to pending orders")
  }

  #change({ id, subjectId, nodeId, isNew, amount, grantedAtMs }: NonNullable<Decided["lease"]>): void {
    const row = this.leases.get(id)
    holds(isNew === (row === undefined), "a lease begins once, and is changed while it has a row")
    this.leases.set(id, { id, subjectId, nodeId, amount: (row?.amount ?? 0n) + amount, taken: row?.taken ?? 0n, grantedAtMs: Math.max(row?.grantedAtMs ?? 0, grantedAtMs) })
    this.available -= amount
    holds(this.available >= 0n, "no more is granted than there is")
  }

  /** Deletes the row; answers what was spent. */
  close(id: LeaseId, nowMs: number): bigint {
    const { subjectId, amount, taken, grantedAtMs } = this.leases.get(id)!
    this.leases.delete(id)
    this.available += amount - taken
    if (taken > 0n) {
      for (const [name, { window, periodStartMs: begun }] of this.budgets) {
        if (name === `${subjectId} ${window}`) this.spend(name, Math.max(begun, periodStartMs(window, nowMs), periodStartMs(window, grantedAtMs)), taken)
      }
    }
    return taken
  }

  spend(name: string, periodStartMs: number, amount: bigint): void {
    const row = this.budgets.get(name)!
    if (periodStartMs > row.periodStartMs) this.budgets.set(name, { ...row, periodStartMs, spent: amount })
    else if (periodStartMs === row.periodStartMs) this.budgets.set(name, { ...row, spent: row.spent + amount })
    else holds(amount <= 0n, "nothing is charged to a period that is over")
    const { spent, amount: limit } = this.budgets.get(name)!
    holds(spent >= 0n && spent <= limit, `budget ${name} is between 0 and its amount`)
  }
}

const activate = (rows: Rows, holds: Iterable<Hold>, token: number): Account => {
  const subjects = new Map<SubjectId, Subject>(opening.subjects.map(({ id, kind, budgets }) => [id, {
    id, kind, scopes: undefined, revoked: false, expiresAtMs: Infinity, limit: 1_000, window: makeRateWindow(), held: 0n,
    budgets: budgets.map(({ window }): Budget => ({ ...rows.budgets.get(`${id} ${window}`)! }))
  }]))
  const account: Account = {
    id: accountId, token: BigInt(token) as Token, suspended: false, emailVerified: true,
    available: rows.available, reserved: rows.reserved, held: 0n, holds: new Map(), orders: new Map(rows.orders), subjects, leases: new Map(), calls: new Map()
  }
  for (const { taken: _, ...lease } of rows.leases.values()) placeLease(account, lease)
  for (const hold of holds) placeHold(account, hold)
  return account
}

const standingOf = (account: Account, nowMs: number): Standing => ({
  available: account.available,
  reserved: account.reserved,
  held: account.held,
  holds: [...account.holds.keys()].sort(),
  leases: Object.fromEntries([...account.leases.values()].map(({ id, amount }) => [id, amount])),
  orders: [...account.orders.keys()].sort(),
  heldBy: Object.fromEntries([...account.subjects.values()].map((subject) => [subject.id, subject.held])),
  spent: Object.fromEntries([...account.subjects.values()].flatMap((subject) =>
    subject.budgets.map((budget) => [`${subject.id} ${budget.window}`, spentAt(budget, nowMs)] as const)
  ))
})

/** The machine's answer in the auditor's words. How long to wait for a lost hold is the machine's own choice. */
const told = (outcome: Outcome): Prediction => {
  if (!isRefusal(outcome)) return { _tag: "Accepted", transaction: outcome.transaction, charges: outcome.budgets }
  return outcome._tag === "HoldLost" ? { _tag: "HoldLost" } : { ...outcome }
}

/** One run: the machine, the auditor, the rows, and the commits that are on their way. */
class Run {
  readonly rows = new Rows()
  readonly auditor = new Auditor(opening)
  readonly table = new Map<HoldId, Hold>()
  account = activate(this.rows, [], 1)
  nowMs = startMs
  terms = 1
  made = 0
  /** Decisions in order; the first `committed` are in the rows. */
  decisions: Array<{ readonly command: Command; readonly decided: Decided; readonly order: PendingOrder | undefined; adopted: boolean }> = []
  committed = 0
  /** Holds that were open when another node spent from the account: nobody may cover them any more. */
  uncovered: ReadonlyArray<HoldId> = []
  readonly everHeld: Array<Hold> = []
  readonly everOpened: Array<Hold> = []
  readonly everOrdered: Array<PendingOrder> = []
  readonly everLeased: Array<LeaseId> = []

  take(step: Step): void {
    this.#take(step)
    same(standingOf(this.account, this.nowMs), this.auditor.standing(this.nowMs), `after ${step.step}`)
    holds(this.account.available >= 0n && this.account.reserved >= 0n && this.account.held >= 0n, "no amount is negative")
    if (!this.uncovered.some((holdId) => this.table.has(holdId))) {
      holds(this.isCovered(), `what is held is covered after ${step.step}`)
    }
  }

  /** Everything decided becomes durable, and a last activation reads it. */
  finish(): void {
    this.#reload(Infinity)
    same(this.rows.books, this.auditor.books(), "the other books")
  }

  isCovered(): boolean {
    if (this.account.held > this.account.available) return false
    for (const { budgets, held } of this.account.subjects.values()) {
      for (const budget of budgets) if (spentAt(budget, this.nowMs) + held > budget.amount) return false
    }
    return true
  }

  #take(step: Step): void {
    switch (step.step) {
      case "adopt": return this.#adopt(step.pick)
      case "clock": this.nowMs = moved(step, this.nowMs); return
      case "spendLease": return this.#spendLease(step)
      case "closeLease": return this.#closeLease(step.pick)
      case "reload":
        this.#reload(step.durable)
        return this.#spendElsewhere(step.elsewhere, opening.subjects[step.subject]!.id)
      default: return this.#command(this.#commandOf(step))
    }
  }

  #commandOf(step: Exclude<Step, { step: "adopt" | "clock" | "reload" | "spendLease" | "closeLease" }>): Command {
    const number = ++this.made
    const transactionId = `t${number}` as TransactionId
    const earning = { earnerId: `earner-${number % 3}` as AccountId, split: number % 4 === 0 ? { creator: 33n, buyback: 0n } : autxSplit }
    switch (step.step) {
      case "hold": {
        return { _tag: "Hold", hold: { ...this.#newHold(number, step.subject), amount: step.amount } }
      }
      case "topUp": {
        const open = recent(this.everOpened, step.pick)
        const made = this.#newHold(number, step.subject)
        const session = open === undefined ? made : { ...open, createdAtMs: made.createdAtMs, expiresAtMs: made.expiresAtMs }
        return { _tag: "TopUp", hold: session, unit: step.unit, units: step.units }
      }
      case "reserve": {
        const { id: subjectId } = opening.subjects[step.subject]!
        return { _tag: "Reserve", transactionId, order: { id: `o${number}` as OrderId, subjectId, agentId, agent: "AGENT", amount: step.amount, createdAtMs: this.nowMs } }
      }
      case "release": return { _tag: "Release", holdId: recent([...this.everOpened, ...this.everHeld], step.pick)?.id ?? "never" as HoldId }
      case "capture": {
        const hold = recent(this.everHeld, step.pick)
        const amount = (hold?.amount ?? 3n) * BigInt(step.percent) / 100n
        return { _tag: "Capture", holdId: hold?.id ?? "never" as HoldId, amount, ...earning }
      }
      case "bill": {
        const holdId = recent(this.everOpened, step.pick)?.id ?? "never" as HoldId
        const amount = (this.table.get(holdId)?.amount ?? 3n) * BigInt(step.percent) / 100n
        return { _tag: "Bill", holdId, transactionId, orderId: `o${number}` as OrderId, amount, ...earning }
      }
      case "complete": return { _tag: "Complete", transactionId, orderId: recent(this.everOrdered, step.pick)?.id ?? "never" as OrderId, ...earning }
      case "refund": return { _tag: "Refund", transactionId, orderId: recent(this.everOrdered, step.pick)?.id ?? "never" as OrderId }
      case "deposit": return { _tag: "Deposit", transactionId, amount: step.amount, type: step.adjusts ? "adjustment" : "deposit", reference: "in" }
      case "withdraw": return { _tag: "Withdraw", transactionId, amount: step.amount, type: step.adjusts ? "adjustment" : "withdrawal", reference: "out" }
      case "fee": return { _tag: "Fee", transactionId, amount: step.amount, reference: "listing" }
      case "sweep": return { _tag: "Sweep", transactionId, amount: step.amount, earnerId: accountId }
      case "grant": {
        const known = this.account.leases.get(recent(this.everLeased, step.pick) ?? "never" as LeaseId)
        const lease = known ?? { id: `lease-${number}` as LeaseId, subjectId: opening.subjects[step.subject]!.id, nodeId: "other" }
        return { _tag: "Grant", lease, amount: step.amount }
      }
      case "giveBack": {
        const leaseId = recent(this.everLeased, step.pick) ?? "never" as LeaseId
        const amount = (this.account.leases.get(leaseId)?.amount ?? 3n) - (this.rows.leases.get(leaseId)?.taken ?? 0n)
        // More than the lease has is refused; less, but more than its node has left, is a lie that no node tells.
        return { _tag: "GiveBack", leaseId, amount: step.percent > 100 ? 1_000n : amount * BigInt(step.percent) / 100n }
      }
    }
  }

  /** A lease's node spends what it knows of: what is durable, and not on its way back. */
  #spendLease({ pick, percent }: Extract<Step, { step: "spendLease" }>): void {
    const row = this.rows.leases.get(recent(this.everLeased, pick) ?? "never" as LeaseId)
    if (row === undefined) return
    const known = this.account.leases.get(row.id)!.amount
    const rest = (known < row.amount ? known : row.amount) - row.taken
    row.taken += rest * BigInt(percent) / 100n
  }

  /** Once what was decided before is settled. */
  #closeLease(pick: number): void {
    for (const decision of this.decisions) if (!decision.adopted) this.#adopt(0)
    const id = recent(this.everLeased, pick) ?? "never" as LeaseId
    const lease = this.account.leases.get(id)
    if (lease === undefined) return
    const atMs = periodWithRoom(this.account, lease.subjectId, this.nowMs)
    const spent = this.rows.close(id, atMs)
    closeLease(this.account, id, spent, atMs)
    this.auditor.closed(id, spent, this.nowMs)
  }

  #newHold(number: number, subject: number): Hold {
    return {
      id: `h${number}` as HoldId, subjectId: opening.subjects[subject]!.id, amount: 0n, call: "proxy", agentId, agent: "AGENT",
      createdAtMs: this.nowMs, expiresAtMs: this.nowMs + 150_000
    }
  }

  #command(command: Command): void {
    const prediction = this.auditor.predict(command, this.nowMs)
    const outcome = decide(this.account, command, this.nowMs)
    same(told(outcome), prediction, command._tag)
    if (isRefusal(outcome)) return
    if (command._tag === "Hold") {
      this.#remember(command.hold.id)
      this.everHeld.push(command.hold)
    }
    if (command._tag === "TopUp") {
      if (!this.everOpened.some(({ id }) => id === command.hold.id)) this.everOpened.push(command.hold)
      this.#remember(command.hold.id)
      holds(this.table.get(command.hold.id)!.expiresAtMs === command.hold.expiresAtMs, "a top-up moves the expiry")
    }
    if (command._tag === "Bill") this.#remember(command.holdId)
    if (command._tag === "Release" || command._tag === "Capture") this.table.delete(command.holdId)
    if (command._tag === "Reserve") this.everOrdered.push(command.order)
    if (command._tag === "Grant" && outcome.lease!.isNew) this.everLeased.push(command.lease.id)
    if (outcome.transaction === undefined && outcome.lease === undefined) return
    if (outcome.transaction !== undefined) holds(sidesSum(outcome.transaction) === 0n, "the sides sum to zero")
    this.decisions.push({ command, decided: outcome, order: command._tag === "Reserve" ? command.order : undefined, adopted: false })
  }

  /** The node's table is the very one that the activation changes. */
  #remember(holdId: HoldId): void {
    this.table.set(holdId, this.account.holds.get(holdId)!)
  }

  #adopt(pick: number): void {
    const waiting = this.decisions.filter((decision) => !decision.adopted)
    const decision = waiting[pick % Math.max(1, waiting.length)]
    if (decision === undefined) return
    this.#commitThrough(this.decisions.indexOf(decision) + 1)
    decision.adopted = true
    adopt(this.account, decision.decided)
    this.auditor.adopt(decision.command)
  }

  /** Commits leave in the order of decisions. */
  #commitThrough(count: number): void {
    for (; this.committed < Math.min(count, this.decisions.length); this.committed++) {
      const { decided, order } = this.decisions[this.committed]!
      this.rows.commit(decided, order)
    }
  }

  #reload(further: number): void {
    this.#commitThrough(this.committed + further)
    this.auditor.reload(new Set(this.decisions.slice(0, this.committed).map(({ command }) => command)))
    this.decisions = []
    this.committed = 0
    this.account = activate(this.rows, this.table.values(), ++this.terms)
    same(standingOf(this.account, this.nowMs), this.auditor.standing(this.nowMs), "after an activation")
  }

  /** As much of `wanted` as the rows allow. */
  #spendElsewhere(wanted: bigint, subjectId: SubjectId): void {
    // Leases are held there too.
    const { budgets, held } = activate(this.rows, [], 0).subjects.get(subjectId)!
    const amount = [this.rows.available, ...budgets.map((budget) => budget.amount - spentAt(budget, this.nowMs) - held)].reduce((least, room) => room < least ? room : least, wanted)
    if (amount === 0n) return
    const transaction: Transaction = {
      id: `t${++this.made}` as TransactionId, type: "charge", available: -amount, reserved: 0n, earnerId: undefined, earned: 0n, fee: amount,
      buyback: 0n, deposits: 0n, withdrawals: 0n, agentId, orderId: undefined, subjectId, reference: undefined, atMs: this.nowMs
    }
    for (const budget of budgets) spend(budget, amount, this.nowMs)
    const charges = budgets.map(({ window, periodStartMs }) => ({ keyId: subjectId as KeyId, window, periodStartMs, amount }))
    this.rows.commit({ transaction, budgets: charges, lease: undefined }, undefined)
    this.auditor.spentElsewhere(transaction, charges)
    this.uncovered = [...this.table.keys()]
    this.account = activate(this.rows, this.table.values(), ++this.terms)
  }
}

const recent = <A>(list: ReadonlyArray<A>, pick: number): A | undefined => list[list.length - 1 - pick]

const sidesSum = (transaction: Transaction): bigint =>
  transaction.available + transaction.reserved + transaction.earned + transaction.fee + transaction.buyback + transaction.deposits + transaction.withdrawals

const moved = ({ move, ms }: Extract<Step, { step: "clock" }>, nowMs: number): number => {
  const now = new Date(nowMs)
  const midnight = Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate() + 1)
  switch (move) {
    case "forward": return nowMs + ms
    case "back": return nowMs - ms
    case "beforeMidnight": return midnight - 1
    case "midnight": return midnight
    case "month": return Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1)
  }
}

const lists = process.env["TOLLGATE_FULL"] === "1" ? 10_000 : 1_000
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31)

describe("the ledger machine", () => {
  it(`agrees with the auditor after every step of ${lists} command lists`, () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 50, maxLength: 90 }), (steps) => {
        const run = new Run()
        for (const step of steps) run.take(step)
        run.finish()
      }),
      { numRuns: lists, seed }
    )
  }, 600_000)
})
