/**
 * One account on four nodes: its owner and three that spend from leases, each
 * deciding by the same machine on what it knows, against one naive account that
 * knows everything at once. In between a database that only adds and subtracts,
 * and refuses what its constraints refuse.
 *
 * What is shown after every step: nothing was committed that the naive account
 * had no money or budget for; owner, leases and the naive account have the same
 * money; and nobody is refused, once the leases were recalled, whom the naive
 * account would have let through.
 */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { Account, Hold, Lease, Subject, SubjectId } from "../../src/domain/account.ts"
import { periodStartMs } from "../../src/domain/budget.ts"
import type { AccountId, AgentId, HoldId, KeyId, LeaseId, Token } from "../../src/domain/ids.ts"
import { adopt, closeLease, type Command, type Decided, decide, isRefusal, type Outcome, placeHold, placeLease } from "../../src/domain/ledger.ts"
import { makeRateWindow } from "../../src/domain/rateLimit.ts"
import { autxSplit } from "../../src/domain/terms.ts"

/** Without the ways of vitest, which take longer than the rest. */
const holds = (claim: boolean, what: string): void => {
  if (!claim) expect.fail(`not so: ${what}`)
}

const accountId = "account" as AccountId
const dayMs = 86_400_000
const startMs = Date.UTC(2027, 4, 31, 23)
const money = 400n
const keys = ["key-poor", "key-rich", "key-free"] as ReadonlyArray<string> as ReadonlyArray<KeyId>
/** In all, and a day. */
const budgetsOf: Readonly<Record<string, { readonly total: bigint; readonly day: bigint } | undefined>> = { "key-poor": { total: 150n, day: 50n }, "key-rich": { total: 300n, day: 200n } }
const others = ["one", "two", "three"] as const

interface Row extends Lease { taken: bigint; isOpen: boolean }
interface Budget { readonly keyId: KeyId; readonly window: "day" | "total"; readonly amount: bigint; periodStartMs: number; spent: bigint }

/** The rows that matter, with their constraints. */
class Database {
  available = money
  readonly leases = new Map<LeaseId, Row>()
  readonly budgets: ReadonlyArray<Budget> = keys.flatMap((keyId) => (["day", "total"] as const).flatMap((window): ReadonlyArray<Budget> =>
    budgetsOf[keyId] === undefined ? [] : [{ keyId, window, amount: budgetsOf[keyId][window], periodStartMs: 0, spent: 0n }]))

  commit({ transaction, budgets, lease }: Decided): void {
    this.available += transaction?.available ?? 0n
    for (const { keyId, window, periodStartMs, amount } of budgets) this.charge(keyId, window, periodStartMs, amount)
    if (lease !== undefined) {
      const row = this.leases.get(lease.id)
      if (lease.isNew !== (row === undefined)) throw new Error("a lease begins once, and is changed while it has a row")
      this.leases.set(lease.id, { taken: 0n, isOpen: true, ...row, ...lease, amount: (row?.amount ?? 0n) + lease.amount })
      if (this.leases.get(lease.id)!.amount < this.leases.get(lease.id)!.taken) throw new Error("what was spent was given back")
      this.available -= lease.amount
    }
    if (this.available < 0n) throw new Error("more was decided than there is")
  }

  /** A node's commit; false: refused. */
  take(leaseId: LeaseId, amount: bigint): boolean {
    const row = this.leases.get(leaseId)
    if (row === undefined || !row.isOpen || row.amount - row.taken < amount) return false
    row.taken += amount
    return true
  }

  close(leaseId: LeaseId, nowMs: number): bigint | undefined {
    const row = this.leases.get(leaseId)
    if (row === undefined) return undefined
    this.leases.delete(leaseId)
    this.available += row.amount - row.taken
    for (const { keyId, window, periodStartMs: begun } of this.budgets) {
      if (keyId === row.subjectId && row.taken > 0n) this.charge(keyId, window, Math.max(begun, periodStartMs(window, nowMs), periodStartMs(window, row.grantedAtMs)), row.taken)
    }
    return row.taken
  }

  charge(keyId: KeyId, window: string, periodStartMs: number, amount: bigint): void {
    const row = this.budgets.find((budget) => budget.keyId === keyId && budget.window === window)!
    if (periodStartMs > row.periodStartMs) Object.assign(row, { periodStartMs, spent: 0n })
    row.spent += amount
    if (row.spent > row.amount) throw new Error(`budget ${keyId} ${window} is overspent`)
  }
}

/** Everything that was spent, and everything that is held anywhere. */
class Naive {
  money = money
  readonly spent: Array<{ readonly keyId: SubjectId; readonly day: number; readonly amount: bigint }> = []
  readonly held = new Map<HoldId, { readonly keyId: SubjectId; amount: bigint }>()

  heldBy(keyId?: SubjectId): bigint {
    return [...this.held.values()].reduce((sum, hold) => keyId === undefined || hold.keyId === keyId ? sum + hold.amount : sum, 0n)
  }
  spentBy(keyId: SubjectId, day?: number): bigint {
    return this.spent.reduce((sum, spent) => spent.keyId === keyId && (day === undefined || spent.day === day) ? sum + spent.amount : sum, 0n)
  }
  couldPay(keyId: SubjectId, amount: bigint): boolean {
    const budgets = budgetsOf[keyId]
    return this.money - this.heldBy() >= amount && (budgets === undefined || this.spentBy(keyId) + this.heldBy(keyId) + amount <= budgets.total)
  }
  spend(keyId: SubjectId, day: number, amount: bigint): void {
    this.money -= amount
    this.spent.push({ keyId, day, amount })
  }
  isSound(): boolean {
    return this.money >= this.heldBy() && keys.every((keyId) => {
      const budgets = budgetsOf[keyId]
      return budgets === undefined || this.spentBy(keyId) + this.heldBy(keyId) <= budgets.total
        && [...new Set(this.spent.map(({ day }) => day))].every((day) => this.spentBy(keyId, day) <= budgets.day)
    })
  }
}

const subjectOf = (id: KeyId, budgets: ReadonlyArray<Budget>): Subject => ({
  id, kind: "key", scopes: undefined, revoked: false, expiresAtMs: Infinity, limit: 1_000, window: makeRateWindow(), held: 0n,
  budgets: budgets.filter(({ keyId }) => keyId === id).map(({ window, amount, periodStartMs, spent }) => ({ window, amount, periodStartMs, spent }))
})
const accountOf = (available: bigint, subjects: ReadonlyArray<Subject>, more: Partial<Account> = {}): Account => ({
  id: accountId, token: 0n as Token, suspended: false, emailVerified: true, available, reserved: 0n, held: 0n, holds: new Map(), orders: new Map(),
  subjects: new Map(subjects.map((subject) => [subject.id, subject])), leases: new Map(), calls: new Map(), ...more
})

type Step =
  | { readonly step: "ownerHold"; readonly key: number; readonly amount: bigint }
  | { readonly step: "hold"; readonly node: number; readonly key: number; readonly amount: bigint; readonly spare: bigint }
  | { readonly step: "end"; readonly pick: number; readonly percent: number }
  | { readonly step: "recall" }
  | { readonly step: "deposit"; readonly amount: bigint }
  /** A commit of unknown outcome: nothing of the lease can be spent any more. */
  | { readonly step: "doubt" | "crash"; readonly node: number }
  | { readonly step: "ownerCrash"; readonly movesHolds: boolean }
  | { readonly step: "tomorrow" }

const node = fc.nat(2)
const amount = fc.oneof(fc.bigInt(1n, 20n), fc.bigInt(1n, 90n), fc.constant(0n))
const of = <const Name extends string, Fields extends object>(step: Name, fields: { [K in keyof Fields]: fc.Arbitrary<Fields[K]> }) =>
  fc.record(fields).map((values) => ({ step, ...values }))
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: of("ownerHold", { key: fc.nat(2), amount }) },
  { weight: 12, arbitrary: of("hold", { node, key: fc.nat(2), amount, spare: fc.bigInt(0n, 60n) }) },
  { weight: 14, arbitrary: of("end", { pick: fc.nat(5), percent: fc.oneof(fc.constant(100), fc.nat(100)) }) },
  { weight: 2, arbitrary: of("recall", {}) },
  { weight: 1, arbitrary: of("deposit", { amount }) },
  { weight: 1, arbitrary: of("doubt", { node }) },
  { weight: 1, arbitrary: of("crash", { node }) },
  { weight: 1, arbitrary: of("ownerCrash", { movesHolds: fc.boolean() }) },
  { weight: 1, arbitrary: of("tomorrow", {}) }
)

class Run {
  readonly database = new Database()
  readonly naive = new Naive()
  /** By node and key. */
  readonly leased = new Map<string, Account>()
  /** Where each open hold is: the owner, or a name of `leased`. */
  readonly holders = new Map<HoldId, string>()
  owner = this.#activate(new Map())
  nowMs = startMs
  made = 0

  take(step: Step): void {
    this.#take(step)
    const rests = [...this.database.leases.values()].reduce((sum, { amount, taken }) => sum + amount - taken, 0n)
    holds(this.database.available + rests === this.naive.money, `owner and leases have the money after ${step.step}`)
    holds(this.naive.isSound(), `what is held and spent is covered after ${step.step}`)
    holds(this.owner.held <= this.owner.available, `what the owner holds and lent is covered after ${step.step}`)
    holds(this.owner.leases.size === this.database.leases.size && [...this.owner.leases.keys()].every((id) => this.database.leases.has(id)), `the owner knows its leases after ${step.step}`)
  }

  #take(step: Step): void {
    switch (step.step) {
      case "ownerHold": return this.#ownerHold(step)
      case "hold": return this.#hold(step)
      case "end": return this.#end(step)
      case "recall": return this.#recall()
      case "deposit": return void this.#decideHere({ _tag: "Deposit", transactionId: `t${++this.made}` as never, amount: step.amount, type: "deposit", reference: "in" }, () => { this.naive.money += step.amount })
      case "doubt": return this.#leasesOf(others[step.node]!).forEach(({ lease }) => { this.database.leases.get(lease!)!.isOpen = false })
      case "crash": return this.#crash(others[step.node]!)
      case "ownerCrash": return this.#ownerCrash(step.movesHolds)
      case "tomorrow": this.nowMs += dayMs
    }
  }

  #activate(table: Map<HoldId, Hold>): Account {
    const account = accountOf(this.database.available, keys.map((id) => subjectOf(id, this.database.budgets)), { holds: table })
    for (const { taken: _, isOpen: __, ...lease } of this.database.leases.values()) placeLease(account, lease)
    for (const hold of [...table.values()]) placeHold(account, hold)
    return account
  }

  #decideHere(command: Command, done: () => void = () => {}): Outcome | undefined {
    const outcome = decide(this.owner, command, this.nowMs)
    if (isRefusal(outcome)) return outcome
    this.database.commit(outcome)
    adopt(this.owner, outcome)
    done()
    return undefined
  }

  #holdOf(keyId: KeyId, amount: bigint): Hold {
    return {
      id: `h${++this.made}` as HoldId, subjectId: keyId, amount, call: "proxy", agentId: "agent" as AgentId, agent: "AGENT",
      createdAtMs: this.nowMs, expiresAtMs: this.nowMs + 10 * dayMs
    }
  }

  #placed(hold: Hold, holder: string): void {
    this.holders.set(hold.id, holder)
    this.naive.held.set(hold.id, { keyId: hold.subjectId, amount: hold.amount })
  }

  /** Whoever is refused is refused by the naive account too, once the others gave back what they don't use. By day the owner may refuse more: what is leased counts in today's budget. */
  #ownerHold({ key, amount }: Extract<Step, { step: "ownerHold" }>): void {
    const hold = this.#holdOf(keys[key]!, amount)
    const attempt = (): Outcome => decide(this.owner, { _tag: "Hold", hold }, this.nowMs)
    let outcome = attempt()
    if (isRefusal(outcome)) {
      this.#recall()
      outcome = attempt()
    }
    const isByDay = isRefusal(outcome) && outcome._tag === "BudgetExceeded" && outcome.window === "day"
    if (!isByDay) holds(isRefusal(outcome) !== this.naive.couldPay(hold.subjectId, amount), "the owner refuses as one that knows everything")
    if (!isRefusal(outcome)) this.#placed(hold, "owner")
  }

  /** On what the node knows; short of it, it asks the owner for that and some more. */
  #hold({ node, key, amount, spare }: Extract<Step, { step: "hold" }>): void {
    const name = `${others[node]} ${keys[key]}`
    const hold = this.#holdOf(keys[key]!, amount)
    if (!this.#attempt(name, hold)) {
      for (const wanted of [amount + spare, amount]) if (this.#grant(name, wanted) && this.#attempt(name, hold)) return
    }
  }

  #attempt(name: string, hold: Hold): boolean {
    const account = this.leased.get(name)
    if (account === undefined || isRefusal(decide(account, { _tag: "Hold", hold }, this.nowMs))) return false
    this.#placed(hold, name)
    return true
  }

  #grant(name: string, amount: bigint): boolean {
    const [nodeId, subjectId] = name.split(" ") as [string, KeyId]
    const id = this.leased.get(name)?.lease ?? `lease-${++this.made}` as LeaseId
    if (this.#decideHere({ _tag: "Grant", lease: { id, subjectId, nodeId }, amount }) !== undefined) return false
    const account = this.leased.get(name)
    if (account === undefined) this.leased.set(name, accountOf(amount, [subjectOf(subjectId, [])], { lease: id }))
    else account.available += amount
    return true
  }

  #end({ pick, percent }: Extract<Step, { step: "end" }>): void {
    const found = [...this.holders].at(-1 - pick)
    if (found === undefined) return
    const [holdId, holder] = found
    const account = holder === "owner" ? this.owner : this.leased.get(holder)!
    const { amount: held, keyId } = this.naive.held.get(holdId)!
    const amount = held * BigInt(percent) / 100n
    this.holders.delete(holdId)
    this.naive.held.delete(holdId)
    const command: Command = percent === 0 ? { _tag: "Release", holdId } : { _tag: "Capture", holdId, amount, earnerId: accountId, split: autxSplit }
    const outcome = decide(account, command, this.nowMs)
    if (isRefusal(outcome)) throw new Error("a hold was not worth what it said")
    if (outcome.transaction === undefined) return
    if (account.lease === undefined) {
      this.database.commit(outcome)
      adopt(account, outcome)
    } else {
      holds(outcome.budgets.length === 0, "budgets are the owner's to charge")
      if (!this.database.take(account.lease, amount)) return this.#lost(holder)
    }
    this.naive.spend(keyId, Math.floor(this.nowMs / dayMs), amount)
  }

  #leasesOf(nodeId: string): ReadonlyArray<Account> {
    return [...this.leased].filter(([name]) => name.startsWith(`${nodeId} `)).map(([, account]) => account)
  }

  /** What nothing is held from goes back; a lease that nothing at all is held from is closed. */
  #recall(): void {
    for (const [name, account] of this.leased) {
      if (account.held === 0n && account.holds.size === 0) {
        this.leased.delete(name)
        this.#close(account.lease!)
        continue
      }
      const amount = account.available - account.held
      account.available -= amount
      holds(this.#decideHere({ _tag: "GiveBack", leaseId: account.lease!, amount }) === undefined, "what a lease has can be given back")
    }
  }

  #close(leaseId: LeaseId): void {
    const spent = this.database.close(leaseId, this.nowMs)!
    closeLease(this.owner, leaseId, spent, this.nowMs)
  }

  /** The node was refused: it forgets the lease with what it held, and its owner closes it. */
  #lost(name: string): void {
    const account = this.leased.get(name)!
    this.leased.delete(name)
    for (const holdId of account.holds.keys()) {
      this.holders.delete(holdId)
      this.naive.held.delete(holdId)
    }
    this.#close(account.lease!)
  }

  #crash(nodeId: string): void {
    for (const name of [...this.leased.keys()]) if (name.startsWith(`${nodeId} `)) this.#lost(name)
  }

  /** The next owner reads the rows; the holds are there when it is the same node. */
  #ownerCrash(movesHolds: boolean): void {
    const table = movesHolds ? this.owner.holds : new Map<HoldId, Hold>()
    for (const holdId of this.owner.holds.keys()) {
      if (movesHolds) continue
      this.holders.delete(holdId)
      this.naive.held.delete(holdId)
    }
    this.owner = this.#activate(table)
  }
}

const lists = process.env["TOLLGATE_FULL"] === "1" ? 10_000 : 1_000
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31)

describe("leases of one account", () => {
  it(`never give away more than there is, and never less than one account would, in ${lists} lists of steps`, () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 30, maxLength: 80 }), (steps) => {
        const run = new Run()
        for (const step of steps) run.take(step)
      }),
      { numRuns: lists, seed }
    )
  }, 300_000)
})
