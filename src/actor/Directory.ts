/**
 * The actor runtime: who is resident, how an actor comes to life, and when it
 * leaves memory. It knows nothing of credits.
 *
 * An actor is its state plus synchronous turns on it. A turn never awaits, so
 * the event loop is its serialisation: no queue and no fiber stand between a
 * caller and a resident actor.
 *
 *                 ┌──────────────moving──────────────┐
 *     absent ──ask──▶ waiting ──local──▶ loading ──loaded──▶ resident ──discard──▶ absent
 *            (mailbox)   └─ another node's, or too long: fails      └──idle──▶ passivated
 *                                        └─ load failed: every waiting ask fails, absent again
 *
 * Guarantee. At most one activation of an id at a time on this node; turns that
 * waited run in the order they were asked, before any later one; an accepted
 * turn is run or failed, never forgotten. A discarded state is never handed out
 * again. `load` must take a fencing token higher than any before: that, not
 * this directory, is what makes a stale copy harmless.
 *
 * Places. A turn runs only while the actor's place is here. While that is not
 * known its commands wait, each mailbox for `placementWaitMs` at most; then, or
 * when it is another node's, they fail and may be tried again. A state that was
 * resident while its place was in doubt is not believed afterwards: somebody
 * else may have decided meanwhile. `except` overrules the place of one id, for
 * an account that is lent, borrowed or about to leave.
 */
import { type Cause, Effect, Exit } from "effect"
import { MailboxFull, Overloaded, StoreUnavailable } from "../domain/errors.ts"
import type { Place } from "./Placement.ts"

export interface Behaviour<Id extends string, State, E> {
  readonly name: string
  readonly load: (id: Id) => Effect.Effect<State, E>
  readonly tokenOf: (state: State) => bigint
  /** True when nothing would be lost by leaving memory now. */
  readonly isIdle: (state: State) => boolean
  readonly passivated: (id: Id, state: State) => void
}

export interface DirectoryLimits {
  /** Of one actor. */
  readonly mailboxCommandsMax: number
  /** Of all actors together. */
  readonly waitingCommandsMax: number
  readonly placementWaitMs: number
  readonly activationTimeoutMs: number
  readonly passivateAfterMs: number
}

/** Runs the turn; what it returns hands out the answer. */
type Turn<State> = (exit: Exit.Exit<State, unknown>) => () => void

interface Mailbox<State> {
  readonly turns: Set<Turn<State>>
  /** Set while the place is not known; nothing is loaded meanwhile. */
  patience: NodeJS.Timeout | undefined
  /** Set by a discard during the load: the state that arrives may be stale. */
  isSpoiled: boolean
  /** Called when the load that is under way has ended. */
  readonly onLoaded: Array<() => void>
}

interface Resident<State> {
  readonly state: State
  lastAskedMs: number
  /** Its place was in doubt. */
  isSuspect: boolean
}

interface Exception {
  readonly place: "local" | "moving"
  readonly untilMs: number
}

export type AskError = MailboxFull | Overloaded | StoreUnavailable

/** Nothing was done; whoever owns the actor by then may be asked again. */
export const placementUnknown = (): Overloaded => new Overloaded({ what: "placement", retryAfterMs: 1_000 })

const loadsMax = 4

export class Directory<Id extends string, State, E> {
  private readonly residents = new Map<Id, Resident<State>>()
  private readonly mailboxes = new Map<Id, Mailbox<State>>()
  private readonly exceptions = new Map<Id, Exception>()
  private waiting = 0
  private readonly behaviour: Behaviour<Id, State, E>
  private readonly limits: DirectoryLimits
  private readonly locate: (id: string) => Place

  constructor(behaviour: Behaviour<Id, State, E>, locate: (id: string) => Place, limits: DirectoryLimits) {
    this.behaviour = behaviour
    this.locate = locate
    this.limits = limits
  }

  get residentCount(): number {
    return this.residents.size
  }

  /** Turns that wait for a place or an activation. */
  get mailboxDepth(): number {
    return this.waiting
  }

  /** The state to decide on, right now and without waiting; `undefined` when it isn't here, or here by exception only. */
  resident(id: Id, nowMs: number): State | undefined {
    const resident = this.residents.get(id)
    if (resident === undefined || resident.isSuspect || this.locate(id) !== "local") return undefined
    resident.lastAskedMs = nowMs
    return resident.state
  }

  /** Runs a turn on the actor, activating it first when it is absent. The turn runs exactly once or the ask fails. */
  ask<A>(id: Id, turn: (state: State) => A): Effect.Effect<A, E | AskError> {
    return Effect.suspend((): Effect.Effect<A, E | AskError> => {
      // Those who waited come first.
      if (this.waiting > 0) this.settle(id)
      const place = this.placeOf(id)
      if (place !== "local" && place !== "moving") return Effect.fail(placementUnknown())
      const resident = place === "local" ? this.residents.get(id) : undefined
      if (resident?.isSuspect === false) {
        resident.lastAskedMs = Date.now()
        // Now, not in an effect of its own: a fiber may pause before that, and the state be gone after it.
        return Effect.succeed(turn(resident.state))
      }
      const known: Mailbox<State> | undefined = this.mailboxes.get(id)
      if (known !== undefined && known.turns.size >= this.limits.mailboxCommandsMax) {
        return Effect.fail(new MailboxFull({ actor: this.behaviour.name, retryAfterMs: 1_000 }))
      }
      if (this.waiting >= this.limits.waitingCommandsMax) return Effect.fail(new Overloaded({ what: "commands waiting", retryAfterMs: 1_000 }))
      return Effect.callback<A, E | AskError>((resume) => {
        // The turn runs here, in mailbox order, not when the fiber is scheduled again.
        const waiting: Turn<State> = (exit) => {
          const answer: Exit.Exit<A, E | AskError> = Exit.isSuccess(exit) ? Effect.runSyncExit(Effect.sync(() => turn(exit.value))) : Exit.failCause(exit.cause as Cause.Cause<E | AskError>)
          return () => resume(answer)
        }
        const mailbox: Mailbox<State> = known ?? { turns: new Set(), patience: undefined, isSpoiled: false, onLoaded: [] }
        mailbox.turns.add(waiting)
        this.waiting++
        if (known === undefined) this.open(id, mailbox, place)
        return Effect.sync(() => { if (mailbox.turns.delete(waiting)) this.waiting-- })
      })
    })
  }

  /** Whether the actor may be decided on here; exceptions count. */
  placeOf(id: Id): Place {
    const exception = this.exceptions.size === 0 ? undefined : this.exceptions.get(id)
    return exception !== undefined && performance.now() < exception.untilMs ? exception.place : this.locate(id)
  }

  /** Overrules the actor's place until then (monotonic). A state that is kept for it is believed. */
  except(id: Id, place: "local" | "moving", untilMs: number): void {
    this.exceptions.set(id, { place, untilMs })
    const resident = this.residents.get(id)
    if (resident !== undefined && place === "local") resident.isSuspect = false
    this.settle(id)
  }

  /** Ends the exception: the actor is where its place is. */
  restore(id: Id): void {
    if (this.exceptions.delete(id)) this.settle(id)
  }

  /** To be called whenever a place may have changed. */
  moved(): void {
    for (const [id, resident] of this.residents) {
      const place = this.placeOf(id)
      if (place === "moving") resident.isSuspect = true
      else if (place !== "local" || resident.isSuspect) this.residents.delete(id)
    }
    for (const id of [...this.mailboxes.keys()]) this.settle(id)
  }

  /** Resolves when no load of the actor is under way. */
  loaded(id: Id): Promise<void> {
    const mailbox = this.mailboxes.get(id)
    if (mailbox === undefined || mailbox.patience !== undefined) return Promise.resolve()
    return new Promise((resolve) => { mailbox.onLoaded.push(resolve) })
  }

  /** Drops the actor if its token is at most `token`: what it knows is no longer what is durable. */
  discard(id: Id, token: bigint): boolean {
    const mailbox = this.mailboxes.get(id)
    if (mailbox !== undefined) mailbox.isSpoiled = true
    const resident = this.residents.get(id)
    if (resident === undefined || this.behaviour.tokenOf(resident.state) > token) return false
    return this.residents.delete(id)
  }

  /** Drops the actor whatever its token, e.g. because its row was changed from outside. Answers whether it was resident. */
  forget(id: Id): boolean {
    const mailbox = this.mailboxes.get(id)
    if (mailbox !== undefined) mailbox.isSpoiled = true
    return this.residents.delete(id)
  }

  forgetAll(): void {
    for (const mailbox of this.mailboxes.values()) mailbox.isSpoiled = true
    this.residents.clear()
  }

  /** Lets go of actors that nobody asked for a while. */
  passivateIdle(nowMs: number): number {
    let count = 0
    for (const [id, resident] of this.residents) {
      if (nowMs - resident.lastAskedMs < this.limits.passivateAfterMs || !this.behaviour.isIdle(resident.state)) continue
      this.residents.delete(id)
      this.behaviour.passivated(id, resident.state)
      count++
    }
    return count
  }

  *states(): IterableIterator<State> {
    for (const resident of this.residents.values()) yield resident.state
  }

  /** Every id that is resident, or that somebody waits for. */
  ids(): Array<Id> {
    return [...this.residents.keys(), ...this.mailboxes.keys()]
  }

  isAwake(id: Id): boolean {
    return this.residents.has(id) || this.mailboxes.has(id)
  }

  /** What is known of the actor, wherever it is decided: to look at, not to decide on. */
  peek(id: Id): State | undefined {
    return this.residents.get(id)?.state
  }

  private open(id: Id, mailbox: Mailbox<State>, place: "local" | "moving"): void {
    this.mailboxes.set(id, mailbox)
    if (place === "local") this.load(id, mailbox, loadsMax)
    else this.wait(id, mailbox)
  }

  private wait(id: Id, mailbox: Mailbox<State>): void {
    mailbox.patience = setTimeout(() => this.end(id, mailbox, Exit.fail(placementUnknown())), this.limits.placementWaitMs)
  }

  /** Goes on with the mailbox of an actor whose place may have changed. */
  private settle(id: Id): void {
    const mailbox = this.mailboxes.get(id)
    if (mailbox === undefined) return
    const place = this.placeOf(id)
    if (mailbox.patience === undefined) {
      if (place !== "local") mailbox.isSpoiled = true
      return
    }
    if (place === "moving") return
    clearTimeout(mailbox.patience)
    mailbox.patience = undefined
    if (place !== "local") return this.end(id, mailbox, Exit.fail(placementUnknown()))
    const resident = this.residents.get(id)
    if (resident?.isSuspect === false) this.end(id, mailbox, Exit.succeed(resident.state))
    else this.load(id, mailbox, loadsMax)
  }

  private load(id: Id, mailbox: Mailbox<State>, remaining: number): void {
    mailbox.isSpoiled = false
    const load = this.behaviour.load(id).pipe(
      Effect.timeoutOrElse({
        duration: this.limits.activationTimeoutMs,
        orElse: () => Effect.fail(new StoreUnavailable({ retryAfterMs: 1_000 }))
      })
    )
    Effect.runCallback(load, {
      onExit: (exit) => {
        for (const resolve of mailbox.onLoaded.splice(0)) resolve()
        const place = this.placeOf(id)
        // What was loaded is nobody's.
        if (place === "moving") return this.wait(id, mailbox)
        if (place !== "local") return this.end(id, mailbox, Exit.fail(placementUnknown()))
        if (mailbox.isSpoiled && remaining > 1) return this.load(id, mailbox, remaining - 1)
        this.end(id, mailbox, mailbox.isSpoiled ? Exit.fail(new StoreUnavailable({ retryAfterMs: 1_000 })) : exit)
      }
    })
  }

  private end(id: Id, mailbox: Mailbox<State>, loaded: Exit.Exit<State, unknown>): void {
    this.mailboxes.delete(id)
    this.waiting -= mailbox.turns.size
    if (Exit.isSuccess(loaded)) this.residents.set(id, { state: loaded.value, lastAskedMs: Date.now(), isSuspect: false })
    const turns = [...mailbox.turns]
    mailbox.turns.clear()
    // Every turn before any answer: what an answer leads to may ask again, or drop the actor.
    const answers = turns.map((turn) => turn(loaded))
    for (const answer of answers) answer()
  }
}
