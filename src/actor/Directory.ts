/**
 * The actor runtime: who is resident, how an actor comes to life, and when it
 * leaves memory. It knows nothing of credits.
 *
 * An actor is its state plus synchronous turns on it. A turn never awaits, so
 * the event loop is its serialisation: no queue and no fiber stand between a
 * caller and a resident actor.
 *
 *     absent ──ask──▶ activating ──load──▶ resident ──discard──▶ absent
 *                        │  (mailbox)         └──idle──▶ passivated ──▶ absent
 *                        └─ load failed: every waiting ask fails, absent again
 *
 * Guarantee. At most one activation of an id at a time on this node; turns that
 * waited run in the order they were asked, before any later one; an accepted
 * turn is run or failed, never forgotten. A discarded state is never handed out
 * again. `load` must take a fencing token higher than any before: that, not
 * this directory, is what makes a stale copy harmless.
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
  readonly mailboxCommandsMax: number
  readonly activationTimeoutMs: number
  readonly passivateAfterMs: number
}

/** Runs the turn; what it returns hands out the answer. */
type Turn<State> = (exit: Exit.Exit<State, unknown>) => () => void

interface Activation<State> {
  readonly mailbox: Set<Turn<State>>
  /** Set by a discard during the load: the state that arrives may be stale. */
  spoiled: boolean
}

interface Resident<State> {
  readonly state: State
  lastAskedMs: number
}

export type AskError = MailboxFull | Overloaded | StoreUnavailable

export class Directory<Id extends string, State, E> {
  private readonly residents = new Map<Id, Resident<State>>()
  private readonly activations = new Map<Id, Activation<State>>()
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

  /** Turns that wait for an activation. */
  get mailboxDepth(): number {
    let depth = 0
    for (const activation of this.activations.values()) depth += activation.mailbox.size
    return depth
  }

  /** The state to decide on, right now and without waiting; `undefined` when it isn't here. */
  resident(id: Id, nowMs: number): State | undefined {
    const resident = this.residents.get(id)
    if (resident === undefined || this.locate(id) !== "local") return undefined
    resident.lastAskedMs = nowMs
    return resident.state
  }

  /** Runs a turn on the actor, activating it first when it is absent. The turn runs exactly once or the ask fails. */
  ask<A>(id: Id, turn: (state: State) => A): Effect.Effect<A, E | AskError> {
    return Effect.suspend((): Effect.Effect<A, E | AskError> => {
      if (this.locate(id) !== "local") return Effect.fail(new Overloaded({ what: "placement", retryAfterMs: 1_000 }))
      const state = this.resident(id, Date.now())
      // Now, not in an effect of its own: a fiber may pause before that, and the state be gone after it.
      if (state !== undefined) return Effect.succeed(turn(state))
      const known = this.activations.get(id)
      if (known !== undefined && known.mailbox.size >= this.limits.mailboxCommandsMax) {
        return Effect.fail(new MailboxFull({ actor: this.behaviour.name, retryAfterMs: 1_000 }))
      }
      return Effect.callback<A, E | AskError>((resume) => {
        // The turn runs here, in mailbox order, not when the fiber is scheduled again.
        const waiting: Turn<State> = (exit) => {
          const answer: Exit.Exit<A, E | AskError> = Exit.isSuccess(exit) ? Effect.runSyncExit(Effect.sync(() => turn(exit.value))) : Exit.failCause(exit.cause as Cause.Cause<E | AskError>)
          return () => resume(answer)
        }
        const activation = known ?? this.activate(id)
        activation.mailbox.add(waiting)
        return Effect.sync(() => { activation.mailbox.delete(waiting) })
      })
    })
  }

  /** Drops the actor if its token is at most `token`: what it knows is no longer what is durable. */
  discard(id: Id, token: bigint): boolean {
    const activation = this.activations.get(id)
    if (activation !== undefined) activation.spoiled = true
    const resident = this.residents.get(id)
    if (resident === undefined || this.behaviour.tokenOf(resident.state) > token) return false
    return this.residents.delete(id)
  }

  /** Drops the actor whatever its token, e.g. because its row was changed from outside. */
  forget(id: Id): void {
    const activation = this.activations.get(id)
    if (activation !== undefined) activation.spoiled = true
    this.residents.delete(id)
  }

  forgetAll(): void {
    for (const activation of this.activations.values()) activation.spoiled = true
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

  private activate(id: Id): Activation<State> {
    const activation: Activation<State> = { mailbox: new Set(), spoiled: false }
    this.activations.set(id, activation)
    const load = this.behaviour.load(id).pipe(
      Effect.timeoutOrElse({
        duration: this.limits.activationTimeoutMs,
        orElse: () => Effect.fail(new StoreUnavailable({ retryAfterMs: 1_000 }))
      })
    )
    const attempt = (remaining: number): void => {
      activation.spoiled = false
      Effect.runCallback(load, {
        onExit: (exit) => {
          if (activation.spoiled && remaining > 0) return attempt(remaining - 1)
          this.activations.delete(id)
          const loaded: Exit.Exit<State, unknown> = activation.spoiled ? Exit.fail(new StoreUnavailable({ retryAfterMs: 1_000 })) : exit
          if (Exit.isSuccess(loaded)) this.residents.set(id, { state: loaded.value, lastAskedMs: Date.now() })
          // Every turn before any answer: what an answer leads to may ask again, or drop the actor.
          const answers = Array.from(activation.mailbox, (turn) => turn(loaded))
          for (const answer of answers) answer()
        }
      })
    }
    attempt(3)
    return activation
  }
}
