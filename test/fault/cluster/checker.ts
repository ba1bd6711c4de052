/**
 * The checker: whether what callers were told, what agents did and what the
 * books say can all be true of one gateway that does everything once.
 *
 * It is independent: it shares no code with the gateway, knows each intent's
 * price beforehand, and adds up the money in a bank of its own that does one
 * thing after another. Every rule answers what breaks it, with the ids to look
 * for; nothing found is nothing wrong that a caller, an agent or an owner of
 * money could notice.
 */
import type { Books, MoneyRow, OrderRow } from "./books.ts"
import type { Attempt, History, Served } from "./History.ts"

export interface Run {
  readonly history: History
  readonly served: ReadonlyArray<Served>
  readonly books: Books
  /** Who earns with an agent. */
  readonly owners: ReadonlyMap<string, string>
  /** Of keys that have one. */
  readonly budgets: ReadonlyMap<string, bigint>
}

/** What came of an intent, by the books. */
interface Effect {
  readonly id: string
  readonly amount: bigint
}

interface Intent {
  readonly name: string
  readonly attempts: ReadonlyArray<Attempt>
  readonly wish: Attempt
  readonly effects: ReadonlyArray<Effect>
}

/** A revoked key is good for so long after its DELETE was answered, on other nodes. */
const revocationBoundMs = 1_000

const groupBy = <A>(things: Iterable<A>, keyOf: (thing: A) => string): ReadonlyMap<string, ReadonlyArray<A>> => {
  const groups = new Map<string, Array<A>>()
  for (const thing of things) {
    const key = keyOf(thing)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [thing])
    else group.push(thing)
  }
  return groups
}

const sum = (amounts: Iterable<bigint>): bigint => {
  let total = 0n
  for (const amount of amounts) total += amount
  return total
}

const isRefused = ({ outcome }: Attempt): boolean => outcome.tag === "refused" || outcome.tag === "unreached"

/** The run, looked at from each side. */
class Facts {
  readonly run: Run
  readonly intents: ReadonlyArray<Intent>
  readonly transactions: ReadonlyMap<string, MoneyRow>
  readonly served: ReadonlyMap<string, ReadonlyArray<Served>>
  /** Charges of calls without a name that nobody was told of: key and agent → rows. */
  readonly anonymous: ReadonlyMap<string, ReadonlyArray<MoneyRow>>
  readonly claimed: ReadonlySet<string>
  readonly #orders: ReadonlyMap<string, ReadonlyArray<OrderRow>>
  readonly #named: ReadonlyMap<string, string>

  constructor(run: Run) {
    const { books, history } = run
    this.run = run
    this.transactions = new Map(books.transactions.map((row) => [row.id, row]))
    this.served = groupBy(run.served, ({ intent }) => intent)
    this.#orders = groupBy(books.orders, (row) => row.message_id ?? row.prompt)
    this.#named = new Map(books.named.map(({ account_id, key, result_id }) => [`${account_id} ${key}`, result_id]))
    this.intents = [...groupBy(history.attempts, ({ intent }) => intent)].map(([name, attempts]) => {
      const wish = attempts[0]!
      return { name, attempts, wish, effects: this.#effectsOf(name, wish, attempts) }
    })
    this.claimed = new Set(this.intents.flatMap(({ effects }) => effects.map(({ id }) => id)))
    this.anonymous = groupBy(
      books.transactions.filter((row) => row.type === "charge" && row.order_id === null && !this.claimed.has(row.id)),
      (row) => `${row.subject_id} ${row.agent_id}`
    )
  }

  #effectsOf(name: string, { kind, accountId }: Attempt, attempts: ReadonlyArray<Attempt>): ReadonlyArray<Effect> {
    if (kind === "order" || kind === "turn") return (this.#orders.get(name) ?? []).map(({ id, amount }) => ({ id, amount }))
    const ids = new Set(attempts.flatMap(({ outcome }) => outcome.tag === "ok" ? outcome.effectId ?? [] : []))
    const named = this.#named.get(`${accountId} ${name}`)
    if (named !== undefined) ids.add(named)
    return [...ids].flatMap((id) => {
      const row = this.transactions.get(id)
      return row === undefined || row.account_id !== accountId ? [] : { id, amount: kind === "deposit" ? row.available : -row.available }
    })
  }
}

type Rule = (facts: Facts) => Iterable<string>

/** One attempt, for a person to read. */
export const line = ({ kind, id, node, beganMs, endedMs, outcome }: Attempt): string => {
  const said = outcome.tag === "refused" ? ` ${outcome.status} ${outcome.detail}` : outcome.tag === "unknown" ? `: ${outcome.why}` : ""
  return `${kind} ${id} at node ${node}, at ${Math.round(beganMs)} for ${Math.round(endedMs - beganMs)} ms (${outcome.tag}${said})`
}

/** Whoever is refused is told how, and nobody hears of an error of the gateway's own. */
const statuses: Rule = function*({ run: { history } }) {
  const revokedAt = new Map(history.revocations.map(({ subjectId, answeredMs }) => [subjectId, answeredMs]))
  for (const attempt of history.attempts) {
    const { outcome, subjectId } = attempt
    if (outcome.tag !== "refused" || outcome.status === 0) continue
    const { status, detail, hasRetryAfter } = outcome
    if (status === 503 && !hasRetryAfter) yield `no Retry-After: ${line(attempt)}`
    if (status >= 500 && status !== 503 && detail !== "agent failed") yield `an error of the gateway: ${line(attempt)}`
    if (status === 401 && !revokedAt.has(subjectId)) yield `a good key was called wrong: ${line(attempt)}`
    if (![401, 402, 409, 429, 500, 503].includes(status)) yield `nobody foresaw this: ${line(attempt)}`
  }
}

/** What was acknowledged is done, what was refused is not, and nothing is done twice. */
const once: Rule = function*({ intents }) {
  for (const { name, attempts, wish, effects } of intents) {
    const acknowledged = attempts.filter(({ outcome }) => outcome.tag === "ok")
    if (effects.length > 1) yield `${wish.kind} ${name} was done ${effects.length} times: ${effects.map(({ id }) => id).join(", ")}`
    if (attempts.every(isRefused) && effects.length > 0) yield `refused, and done all the same: ${attempts.map(line).join("; ")}`
    if (acknowledged.length > 0 && effects.length === 0) yield `acknowledged, and lost: ${acknowledged.map(line).join("; ")}`
    for (const { amount } of effects) if (amount !== wish.price) yield `${wish.kind} ${name} moved ${amount} instead of ${wish.price}`
    const told = new Set<string>()
    let firsts = 0
    for (const { outcome } of acknowledged) {
      if (outcome.tag !== "ok") continue
      told.add(`${outcome.effectId} ${outcome.cost} ${outcome.text}`)
      if (outcome.cost !== wish.price) yield `${wish.kind} ${name} was told to cost ${outcome.cost} instead of ${wish.price}`
      if (outcome.effectId === undefined ? wish.kind !== "deposit" : !effects.some(({ id }) => id === outcome.effectId)) yield `${wish.kind} ${name} was told of ${outcome.effectId}, which is not in the books`
      if (!outcome.isReplay) firsts++
    }
    if (told.size > 1) yield `${wish.kind} ${name} was answered in different ways: ${[...told].join(" | ")}`
    if (firsts > 1) yield `${wish.kind} ${name} was answered ${firsts} times as if for the first time`
  }
}

/** Nothing is in the books that nobody wanted; an outcome that its caller never learned happened once at most. */
const wanted: Rule = function*({ run: { books, history }, intents, anonymous, claimed }) {
  const unknown = groupBy(
    history.attempts.filter(({ kind, isNamed, outcome }) => kind === "call" && !isNamed && outcome.tag === "unknown"),
    ({ subjectId, agentId }) => `${subjectId} ${agentId}`
  )
  const prices = new Map(history.attempts.map(({ agentId, price }) => [agentId ?? "", price]))
  for (const [pair, rows] of anonymous) {
    const possible = unknown.get(pair)?.length ?? 0
    if (rows.length > possible) yield `key and agent ${pair}: ${rows.length} charges that nobody was told of, ${possible} calls of unknown outcome, e.g. ${rows[0]!.id}`
    for (const row of rows) if (-row.available !== prices.get(row.agent_id ?? "")) yield `charge ${row.id} of ${-row.available} is not its agent's price`
  }
  const names = new Set(intents.map(({ name }) => name))
  for (const { id, prompt, message_id } of books.orders) if (!names.has(message_id ?? prompt)) yield `order ${id} is nobody's`
  for (const { id, type } of books.transactions) if (type === "deposit" && !claimed.has(id)) yield `deposit ${id} is nobody's`
}

/** What an agent did is what its callers paid for. */
const agents: Rule = function*({ intents, served, anonymous, run: { history, books } }) {
  const answeredUnknown = new Map<string, number>()
  for (const { name, attempts, wish, effects } of intents) {
    const requests = served.get(name) ?? []
    const of = groupBy(requests, ({ attemptId }) => attemptId ?? "")
    if (wish.kind === "order" && requests.length > 1) yield `order ${name} was sent to its agent ${requests.length} times`
    const isDone = wish.kind === "order" ? books.orders.some(({ prompt, status }) => prompt === name && status === "completed") : wish.agentId !== undefined && effects.length > 0
    if (isDone && !requests.some(({ isAnswered }) => isAnswered)) yield `${wish.kind} ${name} was charged, and its agent never answered`
    if (wish.kind !== "call") continue
    for (const attempt of attempts) {
      const own = of.get(attempt.id) ?? []
      if (own.length > 1) yield `sent to the agent ${own.length} times: ${line(attempt)}`
      const { outcome } = attempt
      if (outcome.tag === "refused" && outcome.status < 500 && own.length > 0) yield `refused, and sent to the agent: ${line(attempt)}`
      if (outcome.tag === "unreached" && own.length > 0) yield `never sent, and yet at the agent: ${line(attempt)}`
      if (outcome.tag === "ok" && !outcome.isReplay && !own.some(({ isAnswered }) => isAnswered)) yield `answered without its agent: ${line(attempt)}`
      if (outcome.tag === "unknown" && !attempt.isNamed && own.some(({ isAnswered }) => isAnswered)) {
        const pair = `${attempt.subjectId} ${attempt.agentId}`
        answeredUnknown.set(pair, (answeredUnknown.get(pair) ?? 0) + 1)
      }
    }
  }
  for (const [pair, rows] of anonymous) {
    const possible = answeredUnknown.get(pair) ?? 0
    if (rows.length > possible) yield `key and agent ${pair}: ${rows.length} charges that nobody was told of, and ${possible} such calls that the agent answered`
  }
  const known = new Set(history.attempts.map(({ intent }) => intent))
  for (const intent of served.keys()) if (!known.has(intent)) yield `an agent was asked for ${intent}, which nobody wanted`
}

/** A bank that does one thing after another. */
class Bank {
  readonly totals = new Map<string, bigint>()

  add(accountId: string, amount: bigint): void {
    this.totals.set(accountId, (this.totals.get(accountId) ?? 0n) + amount)
  }

  pay(buyerId: string, ownerId: string | undefined, price: bigint): void {
    this.add(buyerId, -price)
    // 72 % are the owner's; what rounding leaves is the platform's.
    if (ownerId !== undefined) this.add(ownerId, price * 72n / 100n)
  }
}

/** All balances are what a bank has that did the same things one by one; nothing is left reserved or owed. */
const sums: Rule = function*({ run: { books, owners }, intents, anonymous }) {
  const bank = new Bank()
  const failed = new Set(books.orders.filter(({ status }) => status === "failed").map(({ id }) => id))
  for (const { wish: { kind, accountId, agentId, price }, effects } of intents) {
    for (const { id } of effects) {
      if (kind === "deposit") bank.add(accountId, price)
      else if (!failed.has(id)) bank.pay(accountId, owners.get(agentId ?? ""), price)
    }
  }
  for (const rows of anonymous.values()) for (const row of rows) bank.pay(row.account_id, owners.get(row.agent_id ?? ""), -row.available)
  for (const { id, available, reserved, posted } of books.accounts) {
    const total = bank.totals.get(id) ?? 0n
    if (total < 0n) yield `account ${id} has spent ${-total} that it never had`
    if (available < 0n || posted < 0n || reserved !== 0n) yield `account ${id} is left with available ${available}, reserved ${reserved}, earned ${posted}`
    if (available + posted !== total) yield `account ${id} has ${available} and has earned ${posted}; the bank that did the same has ${total}`
  }
  for (const { id, status } of books.orders) if (status !== "completed" && status !== "failed") yield `order ${id} is ${status} for ever`
}

/** At no moment has anybody been told of more spending than there was money. */
const never: Rule = function*({ run: { history, owners }, intents }) {
  for (const [accountId, attempts] of groupBy(intents.flatMap(({ attempts }) => attempts), ({ accountId }) => accountId)) {
    const income = [
      ...attempts.filter((attempt) => attempt.kind === "deposit" && !isRefused(attempt)),
      ...history.attempts.filter((attempt) => owners.get(attempt.agentId ?? "") === accountId && !isRefused(attempt))
    ].map(({ kind, beganMs, price }) => ({ atMs: beganMs, amount: kind === "deposit" ? price : price * 72n / 100n }))
    const spent = new Map<string, { readonly atMs: number; readonly amount: bigint }>()
    // A failed order is refunded, which the buyer is not told: only calls and turns are spent for sure.
    for (const { kind, outcome, endedMs } of attempts) {
      if (kind !== "call" && kind !== "turn" || outcome.tag !== "ok" || outcome.effectId === undefined || spent.has(outcome.effectId)) continue
      spent.set(outcome.effectId, { atMs: endedMs, amount: -outcome.cost })
    }
    let balance = 0n
    for (const { atMs, amount } of [...income, ...spent.values()].sort((one, other) => one.atMs - other.atMs)) {
      balance += amount
      if (balance < 0n) {
        yield `account ${accountId} had been told of ${-balance} more spending than it had money, at ${Math.round(atMs)} ms`
        break
      }
    }
  }
}

/** Nobody is refused for want of money that is certainly there: deposited before, and not spent, held or possibly so by anything else. */
const phantoms: Rule = function*({ run: { history, budgets } }) {
  for (const [accountId, attempts] of groupBy(history.attempts, ({ accountId }) => accountId)) {
    // A session holds more than its turns cost.
    if (attempts.some(({ kind }) => kind === "turn")) continue
    for (const refused of attempts) {
      const { outcome } = refused
      if (outcome.tag !== "refused" || outcome.status !== 402) continue
      const budget = outcome.detail.includes("budget") ? budgets.get(refused.subjectId) : undefined
      const possible = new Map<string, bigint>()
      for (const other of attempts) {
        if (other === refused || other.kind === "deposit" || other.beganMs > refused.endedMs || isRefused(other) && other.endedMs < refused.beganMs) continue
        if (budget === undefined || other.subjectId === refused.subjectId) possible.set(other.intent, other.price)
      }
      const funds = budget ?? sum(attempts.flatMap(({ kind, outcome: { tag }, endedMs, price }) => kind === "deposit" && tag === "ok" && endedMs < refused.beganMs ? price : []))
      const free = funds - sum(possible.values())
      if (free >= refused.price) yield `refused for want of ${refused.price} while account ${accountId} had ${free} free for certain: ${line(refused)}`
    }
  }
}

/** A revoked key is refused everywhere a second after that was answered, and a budget is never exceeded. */
const keys: Rule = function*({ run: { history, books, budgets }, served }) {
  for (const { subjectId, answeredMs } of history.revocations) {
    for (const attempt of history.attempts) {
      if (attempt.subjectId !== subjectId || attempt.beganMs <= answeredMs + revocationBoundMs) continue
      const lateMs = Math.round(attempt.beganMs - answeredMs)
      const { outcome } = attempt
      if (outcome.tag === "ok" || outcome.tag === "refused" && outcome.status !== 401 && outcome.status !== 503) yield `revoked ${lateMs} ms before: ${line(attempt)}`
      if (served.get(attempt.intent)?.some(({ attemptId }) => attemptId === attempt.id)) yield `revoked ${lateMs} ms before, and sent to the agent: ${line(attempt)}`
    }
  }
  const spentBy = groupBy(books.transactions.filter(({ type }) => type === "charge" || type === "reserve" || type === "refund"), ({ subject_id }) => subject_id ?? "")
  const told = new Map(books.budgets.map((row) => [row.key_id, row]))
  for (const [keyId, amount] of budgets) {
    const spent = sum((spentBy.get(keyId) ?? []).map(({ available }) => -available))
    if (spent > amount) yield `key ${keyId} has spent ${spent} of a budget of ${amount}`
    if (told.get(keyId)?.spent !== spent) yield `the budget of key ${keyId} says ${told.get(keyId)?.spent} instead of ${spent}`
  }
}

const rules: ReadonlyArray<Rule> = [statuses, once, wanted, agents, sums, never, phantoms, keys]

/** Everything that is wrong, at most a few of each kind. */
export const check = (run: Run): ReadonlyArray<string> => {
  const facts = new Facts(run)
  return rules.flatMap((rule) => [...rule(facts)].slice(0, 5))
}
