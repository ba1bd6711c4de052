/**
 * What this node may decide of accounts that others own: one entry for each
 * subject that calls here.
 *
 *     absent ──ask──▶ leased ──tick: used──▶ asks for more, gives back what it won't need
 *                       ├──tick: idle──▶ gives back all, absent
 *                       ├──recall──▶ gives back what nothing is held from, asks for nothing for a while
 *                       └──refused commit──▶ without a lease; the holds stay in the node's table
 *
 * Guarantee. Calls and credits are taken here only from what the owner granted.
 * Calls and what is known of the subject are believed for `leaseTrustMs` from
 * the moment the ask was sent. One ask of a subject at a time, so that what it
 * gives back and what it is granted never cross.
 *
 * An ask whose answer is lost leaves credits behind that nobody knows of here:
 * the next ask names what is known, and the owner closes the rest.
 */
import { Deferred, Effect, Exit, Result } from "effect"
import type { LeaseAsk, LeaseGrant } from "../../cluster/AccountRpc.ts"
import { asksTogetherMax, type Cluster } from "../../cluster/Cluster.ts"
import { limits } from "../../config.ts"
import type { Account, Subject, SubjectId } from "../../domain/account.ts"
import type { Credits } from "../../domain/credits.ts"
import type { GatewayError } from "../../domain/errors.ts"
import type { AccountId, LeaseId, Token } from "../../domain/ids.ts"
import { callsWanted, creditsWanted, smoothedRate } from "../../domain/lease.ts"
import { makeRateWindow, tellWindow } from "../../domain/rateLimit.ts"
import { metrics } from "../../telemetry/Metrics.ts"
import type { Holds } from "../Holds.ts"
import type { Spender } from "./Spending.ts"

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

/** Calls granted together. */
interface Parcel {
  readonly second: number
  readonly untilMs: number
  calls: number
}

export interface Leased {
  readonly spender: Spender
  readonly account: Mutable<Account>
  /** `undefined` until the owner has answered once, and when the subject is gone. */
  subject: Mutable<Subject> | undefined
  parcels: Array<Parcel>
  /** Calls that were not made in their time. */
  unused: Array<{ second: number; calls: number }>
  /** Of a call, the dearest lately: 0 when nothing here costs. */
  price: Credits
  wantsRow: boolean
  calls: number
  ratePerS: number
  spent: Credits
  commitsInFlight: number
  /** The owner may have granted what is not known here: the next ask tells it what is. */
  isInDoubt: boolean
  asking: Deferred.Deferred<LeaseGrant, GatewayError> | undefined
  lastUsedMs: number
  lastLookMs: number
  /** Recalled: nothing is asked for before. */
  pausedUntilMs: number
}

export interface Wish {
  readonly calls?: number
  /** Without it credits stay as they are. */
  readonly credits?: Credits
  readonly callsNeeded?: number
  readonly creditsNeeded?: Credits
  readonly row?: boolean
  /** Give back everything that nothing is held from. */
  readonly isRecalled?: boolean
  readonly isOver?: boolean
}

/** Told to an owner about a subject of which nothing is known here. */
const nothing = { leaseId: null, calls: 0, credits: 0n, creditsNeeded: 0n, creditsMin: 0n, callsNeeded: 0, row: false, unusedCalls: [], unusedCredits: 0n, spent: 0n, gives: true, isOver: true }

/** What calls in flight here have set aside, under whichever owner that was. */
const heldOf = (account: Account, subjectId: SubjectId): Credits => {
  let held = 0n
  for (const hold of account.holds.values()) if (hold.subjectId === subjectId) held += hold.amount
  return held
}

export class LeasedAccounts {
  readonly #accounts = new Map<AccountId, Map<SubjectId, Leased>>()
  readonly #cluster: Cluster["Service"]
  readonly #holds: Holds["Service"]
  readonly #nodeId: string
  #seq = 0

  constructor(cluster: Cluster["Service"], holds: Holds["Service"], nodeId: string) {
    this.#cluster = cluster
    this.#holds = holds
    this.#nodeId = nodeId
    holds.keepFor((accountId) => this.#accounts.has(accountId))
  }

  get size(): number {
    return this.#entries().length
  }

  #entries(): ReadonlyArray<Leased> {
    return Array.from(this.#accounts.values(), (own) => [...own.values()]).flat()
  }

  find({ accountId, subjectId }: Spender): Leased | undefined {
    return this.#accounts.get(accountId)?.get(subjectId)
  }

  /** One that the owner has told of and still stands by. */
  trusted(spender: Spender): Leased | undefined {
    const entry = this.find(spender)
    return entry?.subject !== undefined && entry.account.slice!.untilMs > performance.now() ? entry : undefined
  }

  entryOf(spender: Spender): Leased {
    const known = this.find(spender)
    if (known !== undefined) return known
    const nowMs = performance.now()
    const account: Mutable<Account> = {
      id: spender.accountId, token: 0n as Token, lease: undefined, slice: { calls: 0, untilMs: 0, elsewhere: 0n }, suspended: false, emailVerified: true,
      available: 0n, reserved: 0n, held: 0n, holds: this.#holds.holdsOf(spender.accountId), orders: new Map(), subjects: new Map(), leases: new Map(), calls: new Map()
    }
    account.held = heldOf(account, spender.subjectId)
    const entry: Leased = {
      spender: { accountId: spender.accountId, subjectId: spender.subjectId }, account, subject: undefined, parcels: [], unused: [], price: 0n, wantsRow: false, calls: 0, ratePerS: 0, spent: 0n, commitsInFlight: 0,
      isInDoubt: false, asking: undefined, lastUsedMs: nowMs, lastLookMs: nowMs, pausedUntilMs: 0
    }
    const own = this.#accounts.get(spender.accountId) ?? new Map<SubjectId, Leased>()
    this.#accounts.set(spender.accountId, own.set(spender.subjectId, entry))
    return entry
  }

  /** Takes one of the granted calls; false: none is left. */
  takeCall(entry: Leased): boolean {
    entry.calls++
    entry.lastUsedMs = performance.now()
    this.#dropExpired(entry, entry.lastUsedMs)
    const [parcel] = entry.parcels
    if (parcel === undefined) return false
    parcel.calls--
    entry.account.slice!.calls--
    return true
  }

  /** A call that was taken is decided elsewhere after all. */
  giveCallBack(entry: Leased): void {
    const parcel = entry.parcels[0]
    if (parcel === undefined) return
    parcel.calls++
    entry.account.slice!.calls++
  }

  #dropExpired(entry: Leased, nowMs: number): void {
    for (let first = entry.parcels[0]; first !== undefined && (first.calls === 0 || first.untilMs <= nowMs); first = entry.parcels[0]) {
      if (first.calls > 0) this.#unuse(entry, first, first.calls)
      entry.parcels.shift()
    }
  }

  #unuse(entry: Leased, parcel: Parcel, calls: number): void {
    if (calls <= 0) return
    entry.unused.push({ second: parcel.second, calls })
    parcel.calls -= calls
    entry.account.slice!.calls -= calls
  }

  /** Asks the owner. Of asks at the same time the later waits, and asks again if it still needs to. */
  ask(entry: Leased, wish: Wish): Effect.Effect<LeaseGrant, GatewayError> {
    return Effect.suspend(() => {
      if (entry.asking !== undefined) return Deferred.await(entry.asking).pipe(Effect.exit, Effect.andThen(this.ask(entry, wish)))
      const { ask, answered } = this.#begin(entry, wish)
      const asking = entry.asking!
      // On its own: it goes on when who asked has left, and its time limit holds whatever that one may be interrupted in.
      Effect.runFork(Effect.ignore(Effect.onExit(this.#cluster.ask.lease(entry.spender.accountId, ask), (exit) => Effect.sync(() => answered(exit)))))
      return Deferred.await(asking)
    })
  }

  /** Asks for many at once, and waits for none. */
  #askTogether(many: ReadonlyArray<readonly [Leased, Wish]>): void {
    const begun = many.map(([entry, wish]) => ({ accountId: entry.spender.accountId, ...this.#begin(entry, wish) }))
    Effect.runFork(Effect.ignore(Effect.onExit(this.#cluster.ask.leases(begun), (exit) => Effect.sync(() => {
      for (const [at, { answered }] of begun.entries()) answered(Exit.isFailure(exit) ? Exit.failCause(exit.cause) : Result.match(exit.value[at]!, { onSuccess: Exit.succeed, onFailure: Exit.fail }))
    }))))
  }

  /** From now on the entry is asked for, until `answered`. */
  #begin(entry: Leased, wish: Wish): { readonly ask: LeaseAsk; readonly answered: (exit: Exit.Exit<LeaseGrant, GatewayError>) => void } {
    const asking = Deferred.makeUnsafe<LeaseGrant, GatewayError>()
    entry.asking = asking
    const sentMs = performance.now()
    metrics.leaseAsks.inc()
    return {
      ask: this.#asked(entry, wish, sentMs),
      answered: (exit) => {
        if (Exit.isSuccess(exit)) this.#granted(entry, exit.value, wish.isRecalled === true || wish.isOver === true ? 0 : sentMs)
        entry.asking = undefined
        entry.isInDoubt = Exit.isFailure(exit)
        if (Exit.isSuccess(exit) && wish.isOver === true) this.drop(entry)
        Deferred.doneUnsafe(asking, exit)
      }
    }
  }

  #asked(entry: Leased, wish: Wish, nowMs: number): LeaseAsk {
    const { account } = entry
    this.#dropExpired(entry, nowMs)
    const gives = wish.isRecalled === true || wish.isOver === true
    if (gives) account.slice!.untilMs = 0
    // Some are kept for the calls that come before the answer.
    let kept = gives ? 0 : Math.ceil(entry.ratePerS / 20) + 1
    for (const parcel of entry.parcels.toReversed()) {
      this.#unuse(entry, parcel, parcel.calls - Math.min(parcel.calls, kept))
      kept -= Math.min(parcel.calls, kept)
    }
    const rest = account.available - account.held
    const wanted = wish.credits ?? 0n
    // What is added costs a commit: much at once, and seldom.
    const isShort = rest < wanted && (wish.creditsNeeded !== undefined || 2n * rest < wanted)
    const enough = gives ? 0n : wish.credits === undefined ? rest : 2n * wanted
    const unusedCredits = account.lease !== undefined && rest > enough ? rest - enough : 0n
    account.available -= unusedCredits
    const { unused } = entry
    entry.unused = []
    return {
      nodeId: this.#nodeId, subjectId: entry.spender.subjectId, seq: ++this.#seq, leaseId: account.lease ?? null,
      calls: wish.calls ?? 0, callsNeeded: wish.callsNeeded ?? 0,
      credits: isShort ? wanted - (rest > 0n ? rest : 0n) : 0n, creditsNeeded: wish.creditsNeeded ?? 0n, creditsMin: entry.price * limits.leasePricesMin,
      row: wish.row ?? entry.wantsRow, unusedCalls: unused, unusedCredits, spent: entry.spent, gives, isOver: wish.isOver ?? false
    }
  }

  /** `sentMs` 0: the owner does not count on being believed. */
  #granted(entry: Leased, grant: LeaseGrant, sentMs: number): void {
    const { account } = entry
    const untilMs = sentMs === 0 ? 0 : sentMs + limits.leaseTrustMs
    account.suspended = grant.suspended
    account.emailVerified = grant.emailVerified
    account.slice!.elsewhere = grant.elsewhere
    account.slice!.untilMs = untilMs
    if (grant.leaseId !== account.lease) {
      // Another lease than the one before: of that one nothing is left.
      account.available = 0n
      account.lease = grant.leaseId as LeaseId | null ?? undefined
      entry.spent = 0n
    }
    account.available += grant.credits
    this.#learn(entry, grant)
    if (grant.calls === 0) return
    entry.parcels.push({ second: grant.second, calls: grant.calls, untilMs })
    account.slice!.calls += grant.calls
  }

  #learn(entry: Leased, { subject, calls }: LeaseGrant): void {
    const { account, spender } = entry
    if (subject === null) {
      entry.subject = undefined
      account.subjects.clear()
      return
    }
    const said = {
      scopes: subject.scopes === null ? undefined : new Set(subject.scopes), revoked: subject.revoked, expiresAtMs: subject.expiresAtMs ?? Infinity, limit: subject.limit
    }
    if (entry.subject === undefined) {
      entry.subject = { id: spender.subjectId, kind: subject.kind, ...said, window: makeRateWindow(), budgets: [], held: account.held }
      account.subjects.set(spender.subjectId, entry.subject)
    } else Object.assign(entry.subject, said)
    tellWindow(entry.subject.window, Math.max(0, subject.callsInWindow - calls - account.slice!.calls), Date.now())
  }

  /** To be called when accounts have moved: while one was here its holds were counted by its activation. */
  recount(): void {
    for (const entry of this.#entries()) {
      entry.account.held = heldOf(entry.account, entry.spender.subjectId)
      if (entry.subject !== undefined) entry.subject.held = entry.account.held
    }
  }

  /** What the next ask should be for, by how the subject calls here. */
  wishOf(entry: Leased): Wish {
    const { ratePerS, price } = entry
    return { calls: callsWanted(ratePerS), credits: price === 0n ? 0n : creditsWanted(ratePerS, price, limits.leasePricesMin) }
  }

  /** Forgets it, e.g. because its lease is closed. What was held stays in the node's table, until its call ends. */
  drop(entry: Leased): void {
    const { accountId, subjectId } = entry.spender
    const own = this.#accounts.get(accountId)
    if (own?.get(subjectId) !== entry) return
    own.delete(subjectId)
    if (own.size === 0) this.#accounts.delete(accountId)
    this.#holds.forget(accountId)
  }

  /** A commit of it was refused: its leases may be closed, and nothing is spent from them any more. The owner is told so by the next ask. */
  lost(accountId: AccountId): void {
    for (const entry of this.#accounts.get(accountId)?.values() ?? []) {
      entry.account.lease = undefined
      entry.account.available = 0n
      entry.spent = 0n
      entry.isInDoubt = true
    }
  }

  /** Nothing of what is known of subjects is believed any more; leases stay. */
  distrust(subjectId?: SubjectId): void {
    for (const entry of this.#entries()) if (subjectId === undefined || entry.spender.subjectId === subjectId) entry.account.slice!.untilMs = 0
  }

  /** Gives back what is not in use. */
  recalled(accountId: AccountId, subjectId: SubjectId): Effect.Effect<unknown, GatewayError> {
    const entry = this.find({ accountId, subjectId })
    if (entry === undefined) {
      return this.#cluster.ask.lease(accountId, { ...nothing, nodeId: this.#nodeId, subjectId, seq: ++this.#seq })
    }
    entry.pausedUntilMs = performance.now() + limits.leaseTrustMs
    entry.account.slice!.untilMs = 0
    return this.ask(entry, { isRecalled: true })
  }

  /** Looks after every entry, and asks for those that are due. Those whose account is owned here by now are dropped; `left` hears of the ones that may have a lease. */
  look(nowMs: number, left: (accountId: AccountId) => void): void {
    const due = new Map<string, Array<readonly [Leased, Wish]>>()
    for (const entry of this.#entries()) {
      const owner = this.#cluster.ownerOf(entry.spender.accountId)
      if (owner === "here") {
        this.drop(entry)
        if (entry.account.lease !== undefined || entry.isInDoubt) left(entry.spender.accountId)
        continue
      }
      entry.ratePerS = smoothedRate(entry.ratePerS, entry.calls, nowMs - entry.lastLookMs)
      entry.calls = 0
      entry.lastLookMs = nowMs
      // While it moves there is nobody to ask: the next look does.
      if (entry.asking !== undefined || owner === "moving") continue
      const wish = this.#due(entry, nowMs)
      if (wish === undefined) continue
      const together = due.get(owner.nodeId) ?? []
      due.set(owner.nodeId, together)
      together.push([entry, wish])
    }
    for (const together of due.values()) {
      for (let from = 0; from < together.length; from += asksTogetherMax) this.#askTogether(together.slice(from, from + asksTogetherMax))
    }
  }

  #due(entry: Leased, nowMs: number): Wish | undefined {
    const { account } = entry
    if (nowMs - entry.lastUsedMs < limits.leaseIdleMs) return nowMs >= entry.pausedUntilMs && this.#isLow(entry, nowMs) ? this.wishOf(entry) : undefined
    if (account.held > 0n || entry.commitsInFlight > 0) return account.available > account.held ? { isRecalled: true } : undefined
    if (account.lease !== undefined || account.slice!.calls > 0 || entry.unused.length > 0 || entry.isInDoubt) return { isOver: true }
    this.drop(entry)
    return undefined
  }

  #isLow(entry: Leased, nowMs: number): boolean {
    const { account, ratePerS, price } = entry
    if (ratePerS < limits.leaseCallsMin) return false
    // Not at the look before: one look's time is enough for an answer.
    if (account.slice!.untilMs - nowMs < 1.5 * limits.leaseTickMs) return true
    if (account.slice!.calls < ratePerS / 2) return true
    if (entry.wantsRow && account.lease === undefined) return true
    return price > 0n && account.available - account.held < price * BigInt(Math.ceil(ratePerS / 2))
  }
}
