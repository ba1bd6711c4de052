/**
 * What the owner of an account has given to other nodes: calls of its
 * subjects' windows, and leases over its credits.
 *
 *     ask ─▶ what is given back is taken ─▶ subject told ─▶ calls granted ─▶ credits granted (commit) ─▶ answer
 *     recall ─▶ news to each holder ─▶ it gives back what is not in use
 *
 * Guarantee. Calls are counted in the window when they are granted, credits are
 * held (and durable as a lease) before the answer, so never more is out than
 * there is. A holder believes what it was told for at most `leaseTrustMs`; the
 * owner counts from its answer, which is later.
 *
 * Failure cases. An answer that is lost: the node's next ask names the lease it
 * knows, and every other of that subject is closed. A holder that died: its
 * leases are closed, which is the fence, and their rest returns; before Redis
 * says so, whoever needs that money is told to try again, never that it is
 * gone. An ask that arrives late, behind a later one, is refused.
 */
import { Context, Deferred, Effect, Layer, Semaphore } from "effect"
import { Bus } from "../../cluster/Bus.ts"
import type { LeaseAsk, LeaseGrant } from "../../cluster/AccountRpc.ts"
import { Cluster } from "../../cluster/Cluster.ts"
import { limits } from "../../config.ts"
import type { Account, Lease, Subject, SubjectId } from "../../domain/account.ts"
import { type GatewayError, NotCommitted, Overloaded, RateLimited } from "../../domain/errors.ts"
import type { AccountId, LeaseId } from "../../domain/ids.ts"
import { callsGranted, creditsGranted, grantable, shownSpendable } from "../../domain/lease.ts"
import { type Decided, closeLease, decide, isRefusal } from "../../domain/ledger.ts"
import { callsInWindow, grantCalls, returnCalls, untilEmptyMs, untilNextCallMs } from "../../domain/rateLimit.ts"
import { closeLeases, leasesOfOthers } from "../../store/LeaseStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { log } from "../../telemetry/log.ts"
import { gauge, metrics } from "../../telemetry/Metrics.ts"
import { Accounts } from "../AccountActor.ts"
import { attempt } from "../attempt.ts"
import { newId } from "../Ids.ts"
import { Ledger } from "../Ledger.ts"
import { Node } from "../Node.ts"

/** One subject at one node. */
interface Holder {
  readonly nodeId: string
  readonly subjectId: SubjectId
  seq: number
  /** Monotonic: when it stops to believe what it was told. */
  trustUntilMs: number
  /** Who waits for its answer to a recall. */
  waiting: Array<Deferred.Deferred<void>>
  /** Grants to it are one at a time: what an ask leaves behind that nobody waited for, the next one closes. */
  readonly one: Semaphore.Semaphore
  /** Under way, or waiting for their turn. */
  grants: number
  /** Of them, those that somebody waits for with credits, or calls, that it has not: of these it has none to give back. */
  needsCredits: number
  needsCalls: number
}

const isItsOwn = (lease: Lease, subjectId: SubjectId, { nodeId }: LeaseAsk): boolean => lease.subjectId === subjectId && lease.nodeId === nodeId
/** One that the node does not know of, because its answer was lost, or that it has done with. */
const isStray = (lease: Lease, subjectId: SubjectId, ask: LeaseAsk): boolean => isItsOwn(lease, subjectId, ask) && (ask.isOver || lease.id !== ask.leaseId)
/** The lease that it names, if that is still open. */
const namedLease = ({ leases }: Account, subjectId: SubjectId, ask: LeaseAsk): Lease | undefined => {
  const lease = ask.leaseId === null || ask.isOver ? undefined : leases.get(ask.leaseId as LeaseId)
  return lease !== undefined && isItsOwn(lease, subjectId, ask) ? lease : undefined
}
const wantsMore = (ask: LeaseAsk): boolean => !ask.gives && (ask.calls > 0 || ask.credits > 0n || ask.row || ask.callsNeeded > 0 || ask.creditsNeeded > 0n)
const takeCallsBack = ({ window }: Subject, { unusedCalls }: LeaseAsk, nowMs: number): void => {
  for (const { calls, second } of unusedCalls) returnCalls(window, calls, second, nowMs)
}
const wantedCredits = ({ credits, creditsNeeded, creditsMin }: LeaseAsk) => ({ credits, needed: creditsNeeded, min: creditsMin })

/** Accounts of dead nodes' leases that are looked after in one go. */
const orphansMax = 500

export class Grants extends Context.Service<Grants, {
  readonly lease: (accountId: AccountId, ask: LeaseAsk) => Effect.Effect<LeaseGrant, GatewayError>
  /** Whether somebody else has calls or credits of the account, or of one of its subjects. */
  readonly areOut: (account: Account, subjectId?: SubjectId) => boolean
  /** Gets back what is not in use elsewhere, within `recallMs`. False: somebody who may have more did not answer. */
  readonly recall: (accountId: AccountId, subjectId?: SubjectId) => Effect.Effect<boolean, GatewayError>
  /** Completes when nobody admits the subject any more: every holder has answered, or what it was told has expired. */
  readonly revoked: (accountId: AccountId, subjectId: SubjectId) => Effect.Effect<void>
  /** Closes leases of nodes that are dead. */
  readonly sweep: Effect.Effect<void, GatewayError>
}>()("tollgate/kernel/lease/Grants") {
  static readonly layer = Layer.effect(Grants, Effect.gen(function*() {
    const accounts = yield* Accounts
    const bus = yield* Bus
    const cluster = yield* Cluster
    const ledger = yield* Ledger
    const node = yield* Node
    const postgres = yield* Postgres
    const holders = new Map<AccountId, Map<string, Holder>>()
    gauge("tollgate_lease_holders", "Subjects of accounts owned here that other nodes decide for", () => {
      let count = 0
      for (const own of holders.values()) count += own.size
      return count
    })

    /** This node has no lease of an account that it owns itself: it may have had one before. */
    const isGone = (nodeId: string): boolean => nodeId === node.id || !cluster.isAlive(nodeId)

    const holderOf = (accountId: AccountId, nodeId: string, subjectId: SubjectId): Holder => {
      const own = holders.get(accountId) ?? new Map<string, Holder>()
      holders.set(accountId, own)
      const name = `${nodeId} ${subjectId}`
      const known = own.get(name) ?? { nodeId, subjectId, seq: -1, trustUntilMs: 0, waiting: [], one: Semaphore.makeUnsafe(1), grants: 0, needsCredits: 0, needsCalls: 0 }
      own.set(name, known)
      return known
    }

    const forgetHolder = (accountId: AccountId, { nodeId, subjectId }: Holder): void => {
      const own = holders.get(accountId)
      own?.delete(`${nodeId} ${subjectId}`)
      if (own?.size === 0) holders.delete(accountId)
    }

    const count = (holder: Holder, ask: LeaseAsk, change: 1 | -1): void => {
      holder.grants += change
      if (ask.creditsNeeded > 0n) holder.needsCredits += change
      if (ask.callsNeeded > 0) holder.needsCalls += change
    }

    const answered = (holder: Holder): void => {
      for (const waiting of holder.waiting.splice(0)) Deferred.doneUnsafe(waiting, Effect.void)
    }

    const steps = new Map<AccountId, { readonly one: Semaphore.Semaphore; users: number }>()
    /** What changes leases of an account is one at a time: what is given back is not on its way while the lease is closed. */
    const step = <A, E>(accountId: AccountId, effect: Effect.Effect<A, E>): Effect.Effect<A, E> => Effect.suspend(() => {
      const step = steps.get(accountId) ?? { one: Semaphore.makeUnsafe(1), users: 0 }
      step.users++
      steps.set(accountId, step)
      return step.one.withPermit(effect).pipe(Effect.ensuring(Effect.sync(() => { if (--step.users === 0) steps.delete(accountId) })))
    })

    /** Deletes their rows, takes what was spent, and returns the rest. */
    const close = (accountId: AccountId, which: (lease: Lease) => boolean) => step(accountId, closeNow(accountId, which))
    const closeNow = Effect.fnUntraced(function*(accountId: AccountId, which: (lease: Lease) => boolean) {
      const wanted = yield* accounts.ask(accountId, (account, nowMs) => {
        const leases = [...account.leases.values()].filter(which)
        return { accountId, token: account.token, leaseIds: leases.map(({ id }) => id), nowMs }
      })
      if (wanted.leaseIds.length === 0) return
      const closed = yield* closeLeases([wanted]).pipe(
        Effect.provideService(Postgres, postgres),
        // Closed or not: only the rows know.
        Effect.tapError(() => Effect.sync(() => accounts.forget(accountId, wanted.token)))
      )
      metrics.leasesClosed.inc(closed.length)
      yield* accounts.ask(accountId, (account) => {
        if (account.token !== wanted.token) return
        for (const { leaseId, spent } of closed) closeLease(account, leaseId, spent, wanted.nowMs)
        if (closed.length < wanted.leaseIds.length) accounts.forget(accountId, wanted.token)
      })
    })

    /** The owner's half of what the node gives back. */
    const takeBack = (accountId: AccountId, subjectId: SubjectId, ask: LeaseAsk): Effect.Effect<void, GatewayError> =>
      step(accountId, accounts.act(accountId, (account, nowMs): Effect.Effect<void, GatewayError> => {
        const subject = account.subjects.get(subjectId)
        if (subject !== undefined) takeCallsBack(subject, ask, nowMs)
        const lease = ask.leaseId === null ? undefined : account.leases.get(ask.leaseId as LeaseId)
        if (lease !== undefined) lease.spent = ask.spent
        if (lease === undefined || ask.isOver || ask.unusedCredits <= 0n) return Effect.void
        const outcome = decide(account, { _tag: "GiveBack", leaseId: lease.id, amount: ask.unusedCredits }, nowMs)
        return isRefusal(outcome) ? Effect.void : accounts.commit(account, { leases: [(outcome as Decided).lease!] }, outcome as Decided)
      }))

    const closeStrays = (accountId: AccountId, subjectId: SubjectId, ask: LeaseAsk): Effect.Effect<void, GatewayError> => {
      const which = (lease: Lease): boolean => isStray(lease, subjectId, ask)
      return Effect.flatMap(accounts.ask(accountId, ({ leases }) => [...leases.values()].some(which)), (has) => has ? close(accountId, which) : Effect.void)
    }

    const grantWindow = (subject: Subject, ask: LeaseAsk, nowMs: number) => {
      const left = subject.limit - callsInWindow(subject.window, nowMs)
      return grantCalls(subject.window, subject.limit, callsGranted(left, ask.calls, ask.callsNeeded), nowMs)
    }

    /** Holds credits for the lease, makes it durable, and answers what was added; or why what is needed can't be. */
    const grantCredits = (accountId: AccountId, subjectId: SubjectId, ask: LeaseAsk, leaseId: LeaseId | undefined) =>
      step(accountId, accounts.act(accountId, (account, nowMs): Effect.Effect<{ readonly leaseId: LeaseId | undefined; readonly credits: bigint; readonly refusal: GatewayError | undefined }, GatewayError> => {
        const known = leaseId === undefined ? undefined : account.leases.get(leaseId)
        const amount = creditsGranted(grantable(account, subjectId, nowMs), wantedCredits(ask))
        const wanted = amount > ask.creditsNeeded ? amount : ask.creditsNeeded
        const hasRow = known !== undefined
        if (wanted === 0n && (hasRow || !ask.row)) return Effect.succeed({ leaseId: known?.id, credits: 0n, refusal: undefined })
        const id = known?.id ?? newId<LeaseId>()
        const outcome = decide(account, { _tag: "Grant", lease: { id, subjectId, nodeId: ask.nodeId }, amount: wanted }, nowMs)
        if (isRefusal(outcome)) return Effect.succeed({ leaseId: known?.id, credits: 0n, refusal: outcome })
        return accounts.commit(account, { leases: [(outcome as Decided).lease!] }, outcome as Decided).pipe(
          Effect.map(() => {
            metrics.leasesGranted.inc()
            return { leaseId: id, credits: wanted, refusal: undefined }
          })
        )
      }))

    const tell = (account: Account, subject: Subject | undefined, nowMs: number): Pick<LeaseGrant, "suspended" | "emailVerified" | "elsewhere" | "subject"> => ({
      suspended: account.suspended,
      emailVerified: account.emailVerified,
      elsewhere: shownSpendable(account),
      subject: subject === undefined ? null : {
        kind: subject.kind,
        scopes: subject.scopes === undefined ? null : [...subject.scopes],
        revoked: subject.revoked,
        expiresAtMs: Number.isFinite(subject.expiresAtMs) ? subject.expiresAtMs : null,
        limit: subject.limit,
        callsInWindow: callsInWindow(subject.window, nowMs),
        resetMs: Math.max(0, Math.round(untilEmptyMs(subject.window, nowMs)))
      }
    })

    /** To the node that has this lease, which is its own to count. */
    const tellBesides = (account: Account, subject: Subject | undefined, own: Lease | undefined, nowMs: number) => {
      const said = tell(account, subject, nowMs)
      return own === undefined ? said : { ...said, elsewhere: said.elsewhere - (own.amount - (own.spent ?? 0n)) }
    }

    const areOut = (account: Account, subjectId?: SubjectId): boolean => {
      for (const lease of account.leases.values()) if (subjectId === undefined || lease.subjectId === subjectId) return true
      const nowMs = performance.now()
      for (const holder of holders.get(account.id)?.values() ?? []) {
        if ((subjectId === undefined || holder.subjectId === subjectId) && holder.trustUntilMs > nowMs) return true
      }
      return false
    }

    const recalls = new Map<string, Deferred.Deferred<boolean, GatewayError>>()
    /** Who comes while the same is recalled waits for that. */
    const recallFrom = (accountId: AccountId, subjectId: SubjectId | undefined, isEverybody = false): Effect.Effect<boolean, GatewayError> => Effect.suspend(() => {
      const name = `${accountId} ${subjectId} ${isEverybody}`
      const same = recalls.get(name)
      if (same !== undefined) return Deferred.await(same)
      const recalling = Deferred.makeUnsafe<boolean, GatewayError>()
      recalls.set(name, recalling)
      Effect.runFork(recallOnce(accountId, subjectId, isEverybody).pipe(
        Effect.onExit((exit) => {
          recalls.delete(name)
          return Deferred.done(recalling, exit)
        }),
        Effect.ignore
      ))
      return Deferred.await(recalling)
    })

    /** With a subject its calls are recalled, else everybody's credits. Who waits for the same has none, and is not asked: two that waited for each other would wait in vain. */
    const recallOnce = Effect.fnUntraced(function*(accountId: AccountId, subjectId: SubjectId | undefined, isEverybody: boolean) {
      yield* close(accountId, (lease) => isGone(lease.nodeId))
      const asked = yield* accounts.ask(accountId, (account) => {
        const found: Array<Holder> = []
        const ask = (holder: Holder): void => {
          const isOne = subjectId === undefined || holder.subjectId === subjectId
          const hasSome = isEverybody || (subjectId === undefined ? holder.needsCredits : holder.needsCalls) === 0
          if (isOne && hasSome && !found.includes(holder)) found.push(holder)
        }
        for (const lease of account.leases.values()) ask(holderOf(accountId, lease.nodeId, lease.subjectId))
        const nowMs = performance.now()
        for (const holder of holders.get(accountId)?.values() ?? []) if (holder.trustUntilMs > nowMs) ask(holder)
        return found
      })
      if (asked.length === 0) return true
      metrics.leaseRecalls.inc()
      const answers = asked.map((holder) => {
        const waiting = Deferred.makeUnsafe<void>()
        holder.waiting.push(waiting)
        bus.tellNode(holder.nodeId, { _tag: "recall", accountId, subjectId: holder.subjectId })
        return Deferred.await(waiting)
      })
      const all = yield* Effect.all(answers, { concurrency: "unbounded", discard: true }).pipe(Effect.timeoutOption(limits.recallMs))
      return all._tag === "Some"
    })

    const forgetOld = (): void => {
      const nowMs = performance.now()
      for (const [accountId, own] of holders) {
        for (const holder of own.values()) if (holder.waiting.length === 0 && holder.trustUntilMs + 60_000 < nowMs) forgetHolder(accountId, holder)
      }
    }

    /** Accounts owned here with leases of nodes that are gone. */
    const inherited = new Set<AccountId>()
    const closeInherited = (accountId: AccountId) => Effect.suspend(() => cluster.ownerOf(accountId) === "here" ? close(accountId, ({ nodeId }) => isGone(nodeId)) : Effect.void).pipe(
      Effect.andThen(Effect.sync(() => { inherited.delete(accountId) }))
    )
    // What this node had of it before it became the owner, and what dead nodes had.
    accounts.onActivated(({ id, leases }) => {
      if (![...leases.values()].some(({ nodeId }) => isGone(nodeId))) return
      inherited.add(id)
      setImmediate(() => attempt(closeInherited(id), () => {}))
    })

    const lease = (accountId: AccountId, ask: LeaseAsk): Effect.Effect<LeaseGrant, GatewayError> => Effect.suspend(() => {
      const subjectId = ask.subjectId as SubjectId
      const holder = holderOf(accountId, ask.nodeId, subjectId)
      if (ask.seq <= holder.seq) return Effect.fail(new Overloaded({ what: "placement", retryAfterMs: 1_000 }))
      holder.seq = ask.seq
      const renewed = renew(accountId, subjectId, ask, holder)
      return renewed !== undefined ? Effect.succeed(renewed) : takeBack(accountId, subjectId, ask).pipe(Effect.andThen(Effect.suspend(() => {
        if (ask.gives) answered(holder)
        count(holder, ask, 1)
        return holder.one.withPermit(grant(accountId, subjectId, ask, holder)).pipe(Effect.ensuring(Effect.sync(() => count(holder, ask, -1))))
      })))
    })

    /** The usual ask, of a holder that goes on as it did: nothing is to be committed or waited for, so that it is answered at once. `undefined`: it takes more. */
    const renew = (accountId: AccountId, subjectId: SubjectId, ask: LeaseAsk, holder: Holder): LeaseGrant | undefined => {
      if (ask.gives || ask.callsNeeded > 0 || ask.creditsNeeded > 0n || ask.unusedCredits > 0n || holder.grants > 0 || steps.has(accountId)) return undefined
      const nowMs = Date.now()
      const account = accounts.resident(accountId, nowMs)
      const subject = account?.subjects.get(subjectId)
      if (account === undefined || subject === undefined) return undefined
      const own = namedLease(account, subjectId, ask)
      if (own === undefined ? ask.leaseId !== null || ask.row || ask.credits > 0n : creditsGranted(grantable(account, subjectId, nowMs), wantedCredits(ask)) > 0n) return undefined
      for (const lease of account.leases.values()) if (isStray(lease, subjectId, ask)) return undefined
      takeCallsBack(subject, ask, nowMs)
      if (own !== undefined) own.spent = ask.spent
      const window = grantWindow(subject, ask, nowMs)
      if (wantsMore(ask)) holder.trustUntilMs = performance.now() + limits.leaseTrustMs
      return { ...tellBesides(account, subject, own, nowMs), leaseId: own?.id ?? null, credits: 0n, calls: window.calls, second: window.second, refusal: null }
    }

    const grant = Effect.fnUntraced(function*(accountId: AccountId, subjectId: SubjectId, ask: LeaseAsk, holder: Holder) {
      yield* closeStrays(accountId, subjectId, ask)
      if (ask.gives) holder.trustUntilMs = 0
      const isMore = wantsMore(ask)
      const admitCalls = () => accounts.ask(accountId, (account, nowMs) => {
        const subject = account.subjects.get(subjectId)
        const granted = subject === undefined || !isMore ? { calls: 0, second: 0 } : grantWindow(subject, ask, nowMs)
        const isShort = subject !== undefined && isMore && granted.calls < ask.callsNeeded
        return {
          granted, isKnown: subject !== undefined,
          refusal: isShort ? new RateLimited({ limit: subject.limit, windowMs: limits.rateWindowMs, retryAfterMs: untilNextCallMs(subject.window, subject.limit, nowMs) }) : undefined
        }
      })
      let window = yield* admitCalls()
      if (window.refusal !== undefined && (yield* recallFrom(accountId, subjectId))) window = yield* admitCalls()
      const before = yield* accounts.ask(accountId, (account) => namedLease(account, subjectId, ask)?.id)
      let money: { readonly leaseId: LeaseId | undefined; readonly credits: bigint; readonly refusal: GatewayError | undefined } = { leaseId: before, credits: 0n, refusal: undefined }
      if (isMore && window.isKnown && window.refusal === undefined) {
        money = yield* grantCredits(accountId, subjectId, ask, before)
        if (money.refusal !== undefined && ask.creditsNeeded > 0n) {
          yield* ledger.sweep(accountId)
          let isAll = true
          // What comes back another may take first.
          for (let tries = 0; tries < limits.recallsMax && isAll && money.refusal !== undefined; tries++) {
            isAll = yield* recallFrom(accountId, undefined)
            money = yield* grantCredits(accountId, subjectId, ask, before)
          }
          if (money.refusal !== undefined && !isAll) money = { ...money, refusal: new NotCommitted({ retryAfterMs: 1_000 }) }
        }
      }
      const told = yield* accounts.ask(accountId, (account, nowMs) => {
        const own = money.leaseId === undefined ? undefined : account.leases.get(money.leaseId)
        return tellBesides(account, account.subjects.get(subjectId), own, nowMs)
      })
      if (isMore) holder.trustUntilMs = performance.now() + limits.leaseTrustMs
      return {
        ...told, leaseId: money.leaseId ?? null, credits: money.credits, calls: window.granted.calls, second: window.granted.second,
        refusal: window.refusal ?? money.refusal ?? null
      } satisfies LeaseGrant
    })

    return Grants.of({
      lease,
      areOut,
      recall: (accountId, subjectId) => recallFrom(accountId, subjectId),
      revoked: Effect.fnUntraced(function*(accountId, subjectId) {
        bus.tell({ _tag: "revoked", subjectId })
        if (!cluster.isMany) return
        const untilMs = Math.max(0, ...[...holders.get(accountId)?.values() ?? []].filter((holder) => holder.subjectId === subjectId).map((holder) => holder.trustUntilMs))
        const leftMs = untilMs - performance.now()
        if (leftMs <= 0) return
        // Who waits for calls may believe what it was told all the same.
        yield* recallFrom(accountId, subjectId, true).pipe(
          Effect.catch(() => Effect.succeed(false)),
          Effect.flatMap((isAll) => isAll ? Effect.void : Effect.sleep(Math.max(0, untilMs - performance.now())))
        )
      }),
      sweep: Effect.gen(function*() {
        forgetOld()
        const living = [node.id, ...cluster.peers().map(({ nodeId }) => nodeId)]
        const found = yield* leasesOfOthers(living, orphansMax).pipe(Effect.provideService(Postgres, postgres))
        for (const { nodeId, accountId } of found) if (isGone(nodeId) && cluster.ownerOf(accountId) === "here") inherited.add(accountId)
        yield* Effect.forEach([...inherited], (accountId) => closeInherited(accountId).pipe(
          Effect.catch((error) => Effect.sync(() => log.warn({ accountId, error: error._tag }, "leases of a dead node were not closed, will be tried again")))
        ), { discard: true })
      })
    })
  }))
}
