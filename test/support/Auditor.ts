/**
 * An auditor of one account: it is told the same commands as the ledger
 * machine, predicts what the machine must answer and what it must then know,
 * and shares no arithmetic with it.
 *
 * It keeps one plain list of everything that was accepted and recomputes every
 * figure from the beginning of that list, each time. It is slow, and has no
 * state that could drift. What became of a decision is its `fate`:
 *
 *   decided ──adopt──▶ adopted          its commit is durable and the machine was told
 *      └─────reload──▶ durable | lost   the activation ended before it was told
 *
 * Who may spend what: debits count from the moment they are decided, credits
 * from the moment the machine was told that they are durable, and money that a
 * call in flight holds is nobody else's. A hold is a promise to the call only as
 * long as the money is there: what another activation spent meanwhile is gone,
 * and what another node has a lease of is not there for it.
 *
 * A lease is what was granted to it less what was given back. What its node
 * spends is none of this account's business until it is closed.
 */
import type { Hold, PendingOrder, SubjectId, Transaction } from "../../src/domain/account.ts"
import type { BudgetWindow } from "../../src/domain/budget.ts"
import type { Command } from "../../src/domain/ledger.ts"

export interface OpeningBudget {
  readonly window: BudgetWindow
  readonly amount: bigint
  readonly periodStartMs: number
  readonly spent: bigint
}
export interface Opening {
  readonly accountId: string
  readonly available: bigint
  readonly subjects: ReadonlyArray<{ readonly id: SubjectId; readonly kind: "key" | "login"; readonly budgets: ReadonlyArray<OpeningBudget> }>
}

export interface Charge {
  readonly keyId: string
  readonly window: BudgetWindow
  readonly periodStartMs: number
  readonly amount: bigint
}
export type Prediction =
  | { readonly _tag: "Accepted"; readonly transaction: Transaction | undefined; readonly charges: ReadonlyArray<Charge> }
  | { readonly _tag: "InsufficientCredits"; readonly required: bigint; readonly available: bigint; readonly held: bigint }
  | {
    readonly _tag: "BudgetExceeded"
    readonly window: BudgetWindow
    readonly amount: bigint
    readonly spent: bigint
    readonly held: bigint
    readonly required: bigint
    readonly resetsAtMs?: number
  }
  | { readonly _tag: "HoldLost" }
  | { readonly _tag: "NotFound"; readonly what: string; readonly id: string }

export interface Standing {
  readonly available: bigint
  readonly reserved: bigint
  readonly held: bigint
  readonly holds: ReadonlyArray<string>
  /** Id → amount. */
  readonly leases: Readonly<Record<string, bigint>>
  readonly orders: ReadonlyArray<string>
  readonly heldBy: Readonly<Record<string, bigint>>
  /** `<subject> <window>` → spent in the period of now. */
  readonly spent: Readonly<Record<string, bigint>>
}
export interface Books {
  readonly earned: Readonly<Record<string, bigint>>
  readonly fee: bigint
  readonly buyback: bigint
  readonly deposits: bigint
  readonly withdrawals: bigint
}

type Fate = "decided" | "adopted" | "durable" | "lost"
interface Line {
  readonly command: Command | { readonly _tag: "Elsewhere" } | { readonly _tag: "Closed"; readonly leaseId: string; readonly spent: bigint }
  readonly activation: number
  readonly transaction: Transaction | undefined
  readonly charges: ReadonlyArray<Charge>
  /** Of a grant: in the period that had room for it. */
  readonly grantedAtMs?: number
  fate: Fate
}

const sum = (amounts: Iterable<bigint>): bigint => {
  let total = 0n
  for (const amount of amounts) total += amount
  return total
}

/** The calendar, by text: "2026-02-28T…" begins "2026-02-28" and "2026-02". */
const periodOf = (window: BudgetWindow, atMs: number): number => {
  if (window === "total") return 0
  const text = new Date(atMs).toISOString()
  return Date.parse(window === "day" ? `${text.slice(0, 10)}T00:00:00Z` : `${text.slice(0, 7)}-01T00:00:00Z`)
}
/** The first midnight after the start at which another period has begun. */
const endOf = (window: BudgetWindow, startMs: number): number => {
  let end = startMs + 86_400_000
  while (periodOf(window, end) === startMs) end += 86_400_000
  return end
}

const sidesOf = (id: string, type: Transaction["type"], atMs: number, sides: Partial<Transaction>): Transaction => ({
  id: id as Transaction["id"], type, atMs,
  available: 0n, reserved: 0n, earnerId: undefined, earned: 0n, fee: 0n, buyback: 0n, deposits: 0n, withdrawals: 0n,
  agentId: undefined, orderId: undefined, subjectId: undefined, reference: undefined,
  ...sides
})

const accept = (transaction?: Transaction, charges: ReadonlyArray<Charge> = []): Prediction => ({ _tag: "Accepted", transaction, charges })

/** Percentages of a whole amount; the platform keeps what two rounded-down shares leave. */
const sharesOf = (amount: bigint, command: { readonly earnerId: Transaction["earnerId"]; readonly split: { readonly creator: bigint; readonly buyback: bigint } }): Partial<Transaction> => {
  const part = (percent: bigint): bigint => {
    const hundredfold = amount * percent
    return (hundredfold - hundredfold % 100n) / 100n
  }
  const earned = part(command.split.creator)
  const buyback = part(command.split.buyback)
  return { earned, buyback, fee: amount - earned - buyback, earnerId: command.earnerId }
}

export class Auditor {
  readonly #opening: Opening
  readonly #lines: Array<Line> = []
  #activation = 1

  constructor(opening: Opening) {
    this.#opening = opening
  }

  /** What the machine must answer; when that is yes, the command is in the list from now on. */
  predict(command: Command, nowMs: number): Prediction {
    const prediction = this.#judge(command, nowMs)
    if (prediction._tag === "Accepted") {
      const { transaction, charges } = prediction
      this.#lines.push({ command: this.#granted(command, nowMs), activation: this.#activation, transaction, charges, ...this.#grantedAt(command, nowMs), fate: "decided" })
    }
    return prediction
  }

  /** The machine was told that what this command decided is durable. */
  adopt(command: Command): void {
    for (const line of this.#lines) if (line.command === command && line.fate === "decided") line.fate = "adopted"
  }

  /** The activation ended; of what it was not told about, these are durable, the others never happened. */
  reload(durable: ReadonlySet<Command>): void {
    for (const line of this.#lines) {
      const isCommitted = line.transaction !== undefined || line.command._tag === "Grant" || line.command._tag === "GiveBack"
      if (isCommitted && line.fate === "decided") line.fate = durable.has(line.command as Command) ? "durable" : "lost"
    }
    this.#activation++
  }

  /** The lease's row was deleted, and said that so much was spent. */
  closed(leaseId: string, spent: bigint, nowMs: number): void {
    const { subjectId } = this.#grants(this.#lines).find(({ lease }) => lease.id === leaseId)!.lease
    const charges = spent === 0n ? [] : this.#chargesFor(subjectId, spent, nowMs)
    this.#lines.push({ command: { _tag: "Closed", leaseId, spent }, activation: this.#activation, transaction: undefined, charges, fate: "durable" })
  }

  /** Between two activations here, one on another node made this transaction: a fact, nothing is predicted about it. */
  spentElsewhere(transaction: Transaction, charges: ReadonlyArray<Charge>): void {
    this.#lines.push({ command: { _tag: "Elsewhere" }, activation: this.#activation, transaction, charges, fate: "durable" })
  }

  standing(nowMs: number): Standing {
    const subjects = this.#opening.subjects
    return {
      available: this.#available(),
      reserved: this.#reserved(),
      held: this.#held(),
      holds: this.#openHolds().map((hold) => hold.id).sort(),
      leases: Object.fromEntries([...this.#leases()].map((id) => [id, this.#leaseAmount(id)])),
      orders: this.#openOrders().map((order) => order.id).sort(),
      heldBy: Object.fromEntries(subjects.map((subject) => [subject.id, this.#heldBy(subject.id)])),
      spent: Object.fromEntries(subjects.flatMap((subject) =>
        subject.budgets.map((budget) => [`${subject.id} ${budget.window}`, this.#spent(subject.id, budget, nowMs)] as const)
      ))
    }
  }

  /** The other sides, as the database must have them once everything decided and not lost is durable. */
  books(): Books {
    const transactions = this.#kept().flatMap((line) => line.transaction ?? [])
    const earned: Record<string, bigint> = {}
    for (const { earned: amount, earnerId } of transactions) {
      if (earnerId !== undefined && amount !== 0n) earned[earnerId] = (earned[earnerId] ?? 0n) + amount
    }
    const total = (side: "fee" | "buyback" | "deposits" | "withdrawals"): bigint => sum(transactions.map((transaction) => transaction[side]))
    return { earned, fee: total("fee"), buyback: total("buyback"), deposits: total("deposits"), withdrawals: total("withdrawals") }
  }

  #kept(): ReadonlyArray<Line> {
    return this.#lines.filter((line) => line.fate !== "lost")
  }

  /** Accepted lines in force of one kind of command, with the command's own type. */
  #commands<const Tag extends Command["_tag"]>(lines: ReadonlyArray<Line>, tag: Tag): ReadonlyArray<Extract<Command, { _tag: Tag }>> {
    const found: Array<Extract<Command, { _tag: Tag }>> = []
    for (const { command } of lines) if (command._tag === tag) found.push(command as Extract<Command, { _tag: Tag }>)
    return found
  }

  #available(): bigint {
    return this.#opening.available + sum(this.#kept().map(({ transaction, fate }) => {
      const amount = transaction?.available ?? 0n
      return amount > 0n && fate === "decided" ? 0n : amount
    })) - sum(this.#kept().map(({ command }) => command._tag === "Closed" ? command.spent : 0n))
  }

  #grants(lines: ReadonlyArray<Line>): ReadonlyArray<Extract<Command, { _tag: "Grant" }>> {
    return this.#commands(lines, "Grant")
  }

  /** Those that are open. */
  #leases(lines = this.#kept()): ReadonlySet<string> {
    const open = new Set<string>(this.#grants(lines).map(({ lease }) => lease.id))
    for (const { command } of lines) if (command._tag === "Closed") open.delete(command.leaseId)
    return open
  }

  /** Also of one that was closed. What is given back is not the lease's any more from the moment it was decided. */
  #leaseAmount(leaseId: string, lines = this.#kept()): bigint {
    return sum(this.#grants(lines).filter(({ lease }) => lease.id === leaseId).map(({ amount }) => amount))
      - sum(this.#commands(lines, "GiveBack").filter((back) => back.leaseId === leaseId).map(({ amount }) => amount))
  }

  /** What other nodes have, with what they gave back until the machine was told that it is durable; or, without that, what is not there for a hold. */
  #lent(subjectId: string | undefined, withReturning: boolean): bigint {
    const open = this.#leases()
    const ids = this.#grants(this.#kept()).filter(({ lease }) => open.has(lease.id) && (subjectId === undefined || lease.subjectId === subjectId)).map(({ lease }) => lease.id as string)
    const counted = withReturning ? this.#kept().filter(({ command, fate }) => command._tag !== "GiveBack" || fate !== "decided") : this.#kept()
    return sum([...new Set(ids)].map((id) => this.#leaseAmount(id, counted)))
  }

  #held(): bigint {
    return sum(this.#openHolds().map((hold) => hold.amount)) + this.#lent(undefined, true)
  }

  #reserved(): bigint {
    return sum(this.#openOrders().map((order) => order.amount))
  }

  /** A hold is what it was made or topped up to, less what was billed to it; it ends with its release or its capture. All of that also when the commit was lost. */
  #holdsAfter(lines: ReadonlyArray<Line>): ReadonlyArray<Hold> {
    const holds = new Map<string, Hold>()
    for (const { command } of lines) {
      if (command._tag === "Hold" || command._tag === "TopUp") holds.set(command.hold.id, command.hold)
      if (command._tag === "Release" || command._tag === "Capture") holds.delete(command.holdId)
      if (command._tag === "Bill") holds.set(command.holdId, { ...holds.get(command.holdId)!, amount: holds.get(command.holdId)!.amount - command.amount })
    }
    return [...holds.values()]
  }

  #openHolds(): ReadonlyArray<Hold> {
    return this.#holdsAfter(this.#lines)
  }

  #openHold(holdId: string): Hold | undefined {
    return this.#openHolds().find(({ id }) => id === holdId)
  }

  /** Those open when this activation began, and those it granted itself. */
  #holdsKnown(): ReadonlyArray<Hold> {
    const own = this.#lines.filter((line) => line.activation === this.#activation)
    return [
      ...this.#holdsAfter(this.#lines.filter((line) => line.activation < this.#activation)),
      ...[...this.#commands(own, "Hold"), ...this.#commands(own, "TopUp")].map((command) => command.hold)
    ]
  }

  /** When the leases were granted last that this activation found, and all that it granted itself. */
  #grantsKnown(subjectId: string): ReadonlyArray<number> {
    const isGrant = (line: Line): boolean => line.command._tag === "Grant" && line.command.lease.subjectId === subjectId
    const before = this.#kept().filter((line) => line.activation < this.#activation)
    const found = [...this.#leases(before)].map((id) => before.filter((line) => isGrant(line) && (line.command as Extract<Command, { _tag: "Grant" }>).lease.id === id).at(-1))
    return [...found, ...this.#kept().filter((line) => line.activation === this.#activation && isGrant(line))].flatMap((line) => line?.grantedAtMs ?? [])
  }

  /** The command as it is kept: a hold dated into the period that had room for it, a session's with what it came to be. */
  #granted(command: Command, nowMs: number): Command {
    if (command._tag !== "Hold" && command._tag !== "TopUp") return command
    const createdAtMs = this.#dated(command.hold.subjectId, command.hold.createdAtMs, nowMs)
    if (command._tag === "Hold") return { ...command, hold: { ...command.hold, createdAtMs } }
    const has = this.#openHold(command.hold.id)?.amount ?? 0n
    const goals = Array.from({ length: command.units }, (_, more) => command.unit * BigInt(more + 1))
    const within = goals.filter((goal) => goal <= has || this.#mayNotSpend(goal - has, command.hold.subjectId, nowMs) === undefined)
    const goal = within.at(-1)!
    return { ...command, hold: { ...command.hold, createdAtMs, amount: goal > has ? goal : has } }
  }

  #dated(subjectId: string, atMs: number, nowMs: number): number {
    return Math.max(atMs, ...this.#budgetsOf(subjectId).map((budget) => this.#period(subjectId, budget, nowMs)))
  }

  #grantedAt(command: Command, nowMs: number): Pick<Line, "grantedAtMs"> {
    return command._tag === "Grant" ? { grantedAtMs: this.#dated(command.lease.subjectId, nowMs, nowMs) } : {}
  }

  #openOrders(): ReadonlyArray<PendingOrder> {
    const kept = this.#kept()
    const ended = new Set([...this.#commands(kept, "Complete"), ...this.#commands(kept, "Refund")].map((command) => command.orderId))
    return this.#commands(kept, "Reserve").map((command) => command.order).filter((order) => !ended.has(order.id))
  }

  #heldBy(subjectId: string): bigint {
    return sum(this.#openHolds().filter((hold) => hold.subjectId === subjectId).map((hold) => hold.amount)) + this.#lent(subjectId, true)
  }

  #budgetsOf(subjectId: string): ReadonlyArray<OpeningBudget> {
    return this.#opening.subjects.find((subject) => subject.id === subjectId)?.budgets ?? []
  }

  /** Charges of one budget that count: all but those that were lost, and a refund only once the machine was told. */
  #charges(subjectId: string, window: BudgetWindow): ReadonlyArray<Charge> {
    return this.#kept()
      .filter((line) => line.command._tag !== "Refund" || line.fate !== "decided")
      .flatMap((line) => line.charges)
      .filter((charge) => charge.keyId === subjectId && charge.window === window)
  }

  /**
   * The period that counts: the calendar's, but never one before a period to
   * which was charged already, or to which a hold belongs that this activation knew.
   */
  #period(subjectId: string, budget: OpeningBudget, nowMs: number): number {
    const charged = this.#kept().filter((line) => line.command._tag !== "Refund").flatMap((line) => line.charges)
      .filter((charge) => charge.keyId === subjectId && charge.window === budget.window)
      .map((charge) => charge.periodStartMs)
    const held = this.#holdsKnown().filter((hold) => hold.subjectId === subjectId).map((hold) => periodOf(budget.window, hold.createdAtMs))
    const leased = this.#grantsKnown(subjectId).map((atMs) => periodOf(budget.window, atMs))
    return Math.max(periodOf(budget.window, nowMs), budget.periodStartMs, ...charged, ...held, ...leased)
  }

  #spent(subjectId: string, budget: OpeningBudget, nowMs: number): bigint {
    const period = this.#period(subjectId, budget, nowMs)
    const charged = this.#charges(subjectId, budget.window).filter((charge) => charge.periodStartMs === period).map((charge) => charge.amount)
    return sum(charged) + (period === budget.periodStartMs ? budget.spent : 0n)
  }

  #chargesFor(subjectId: string, amount: bigint, nowMs: number): ReadonlyArray<Charge> {
    return this.#budgetsOf(subjectId).map((budget) => ({
      keyId: subjectId,
      window: budget.window,
      periodStartMs: this.#period(subjectId, budget, nowMs),
      amount
    }))
  }

  /** Free money first, then each budget of the key in the order it was given. */
  #mayNotSpend(amount: bigint, subjectId: string | undefined, nowMs: number): Prediction | undefined {
    const available = this.#available()
    const held = this.#held()
    const free = available - held
    if (free < amount) return { _tag: "InsufficientCredits", required: amount, available: free < 0n ? 0n : free, held }
    for (const budget of subjectId === undefined ? [] : this.#budgetsOf(subjectId)) {
      const spent = this.#spent(subjectId!, budget, nowMs)
      const heldByKey = this.#heldBy(subjectId!)
      if (budget.amount - spent - heldByKey < amount) {
        const facts = { window: budget.window, amount: budget.amount, spent, held: heldByKey, required: amount }
        return budget.window === "total"
          ? { _tag: "BudgetExceeded", ...facts }
          : { _tag: "BudgetExceeded", ...facts, resetsAtMs: endOf(budget.window, this.#period(subjectId!, budget, nowMs)) }
      }
    }
    return undefined
  }

  #judgeCharge(command: Extract<Command, { _tag: "Capture" | "Bill" }>, id: string, orderId: Transaction["orderId"], nowMs: number): Prediction {
    const hold = this.#openHold(command.holdId)
    if (hold === undefined || hold.amount < command.amount || this.#available() - this.#lent(undefined, false) < command.amount) return { _tag: "HoldLost" }
    const lent = this.#lent(hold.subjectId, false)
    if (this.#budgetsOf(hold.subjectId).some((budget) => this.#spent(hold.subjectId, budget, nowMs) + lent + command.amount > budget.amount)) {
      return { _tag: "HoldLost" }
    }
    return accept(
      sidesOf(id, "charge", nowMs, {
        available: -command.amount, ...sharesOf(command.amount, command), agentId: hold.agentId, orderId, subjectId: hold.subjectId
      }),
      this.#chargesFor(hold.subjectId, command.amount, nowMs)
    )
  }

  #judge(command: Command, nowMs: number): Prediction {
    switch (command._tag) {
      case "Hold":
        return this.#mayNotSpend(command.hold.amount, command.hold.subjectId, nowMs) ?? accept()
      case "Release":
        return accept()
      case "Capture":
        return this.#judgeCharge(command, command.holdId, undefined, nowMs)
      case "Bill":
        return this.#judgeCharge(command, command.transactionId, command.orderId, nowMs)
      case "TopUp": {
        const missing = command.unit - (this.#openHold(command.hold.id)?.amount ?? 0n)
        return (missing > 0n ? this.#mayNotSpend(missing, command.hold.subjectId, nowMs) : undefined) ?? accept()
      }
      case "Reserve": {
        const { order } = command
        return this.#mayNotSpend(order.amount, order.subjectId, nowMs) ?? accept(
          sidesOf(command.transactionId, "reserve", nowMs, {
            available: -order.amount, reserved: order.amount, agentId: order.agentId, orderId: order.id, subjectId: order.subjectId
          }),
          this.#chargesFor(order.subjectId, order.amount, nowMs)
        )
      }
      case "Complete": {
        const order = this.#openOrders().find((open) => open.id === command.orderId)
        if (order === undefined) return { _tag: "NotFound", what: "order", id: command.orderId }
        return accept(sidesOf(command.transactionId, "complete", nowMs, {
          reserved: -order.amount, ...sharesOf(order.amount, command), agentId: order.agentId, orderId: order.id, subjectId: order.subjectId
        }))
      }
      case "Refund": {
        const order = this.#openOrders().find((open) => open.id === command.orderId)
        if (order === undefined) return { _tag: "NotFound", what: "order", id: command.orderId }
        return accept(
          sidesOf(command.transactionId, "refund", nowMs, {
            reserved: -order.amount, available: order.amount, agentId: order.agentId, orderId: order.id, subjectId: order.subjectId
          }),
          // Back to the periods in which the order was made; to one that is over it makes no difference any more.
          this.#budgetsOf(order.subjectId).map((budget) => ({
            keyId: order.subjectId, window: budget.window, periodStartMs: periodOf(budget.window, order.createdAtMs), amount: -order.amount
          }))
        )
      }
      case "Deposit":
        return accept(sidesOf(command.transactionId, command.type, nowMs, { available: command.amount, deposits: -command.amount, reference: command.reference }))
      case "Withdraw":
        return this.#mayNotSpend(command.amount, undefined, nowMs) ?? accept(
          sidesOf(command.transactionId, command.type, nowMs, { available: -command.amount, withdrawals: command.amount, reference: command.reference })
        )
      case "Fee":
        return this.#mayNotSpend(command.amount, undefined, nowMs) ?? accept(
          sidesOf(command.transactionId, "fee", nowMs, { available: -command.amount, fee: command.amount, reference: command.reference })
        )
      case "Sweep":
        return accept(sidesOf(command.transactionId, "earning", nowMs, {
          available: command.amount, earned: -command.amount, earnerId: this.#opening.accountId as Transaction["earnerId"]
        }))
      case "Grant":
        return this.#mayNotSpend(command.amount, command.lease.subjectId, nowMs) ?? accept()
      case "GiveBack":
        return this.#leases().has(command.leaseId) && command.amount <= this.#leaseAmount(command.leaseId) ? accept() : { _tag: "NotFound", what: "lease", id: command.leaseId }
    }
  }
}
