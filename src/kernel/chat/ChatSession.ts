/**
 * The actor of one chat session on the node that holds its socket: one turn at a
 * time, one hold that is topped up before each, at most one socket.
 *
 *            ┌──────── message ────────▶ preparing ─▶ asking ─▶ charging ─┐
 *     idle ──┤                               │           │                │
 *            └◀── failed, cancelled (free) ──┴───────────┘      durable ──┴─▶ idle
 *     any state ──close, DELETE, nobody came back──▶ closing ──durable──▶ closed
 *
 * Guarantee. A turn is charged exactly once, when its agent's answer is complete, in the commit that makes it an order;
 * `done`, the bill, and the text that came with the end leave after that commit. A turn that did not get there costs
 * nothing. A message id that finished is told again, never run again.
 *
 * A socket that ends is a drop, whatever its close code: the turn goes on, its text is kept, and who resumes gets it from
 * its beginning. Only `cancel`, `close` and the session's REST end stop a turn, and only before its agent was done.
 *
 * Failure cases. Commit refused, or the hold gone with a lease or an activation: held and decided once more where the account
 * is decided by then; else the turn failed and is free. Outcome unknown: the client is told to send the same id again, which
 * reads what the database says. The session is closed or taken over elsewhere: its turn's commit is refused by the row itself,
 * and this copy ends, at the latest then. The node dies: turns in flight are free, never sent again, and who resumes is told
 * of the discontinuity.
 */
import { Effect } from "effect"
import { limits } from "../../config.ts"
import { type Agent, isCallable } from "../../domain/agent.ts"
import { type AgentAnswerUnusable, type Exchanged, PromptTooLarge, SessionClosed, SessionIdle, SessionReplaced, SlowConsumer, TurnInProgress, dueOf, endsSocket, fitHistory, messagesOf } from "../../domain/chat.ts"
import type { Credits } from "../../domain/credits.ts"
import { AgentPaused, type AgentUnavailable, Draining, OutcomeUnknown, StoreUnavailable, Unauthenticated } from "../../domain/errors.ts"
import type { AccountId, OrderId, SessionId } from "../../domain/ids.ts"
import { type HeldSession, type StandingSession, findSession, findTurn, readHistory } from "../../store/SessionStore.ts"
import { metrics } from "../../telemetry/Metrics.ts"
import { attempt } from "../attempt.ts"
import type { Caller, SubjectId } from "../Caller.ts"
import { newId } from "../Ids.ts"
import type { Header } from "../Relay.ts"
import type { ChatParts } from "./Chat.ts"
import type { ChatClient, ChatError, FinishedTurn } from "./ChatClient.ts"
import { ChatOutlet } from "./ChatOutlet.ts"
import { ChatTurn, type TurnOwner } from "./ChatTurn.ts"
import { MessageIds } from "./MessageIds.ts"
import type { SessionHold } from "./SessionHold.ts"
import { chargeTurn, finishedTurn } from "./TurnCharge.ts"

export interface SessionStart {
  readonly id: SessionId
  readonly caller: Caller
  readonly dialect: string
  readonly term: bigint
  readonly messageCount: number
  readonly consumed: Credits
  readonly hold: SessionHold
  /** No turn of it is known but those of this node. */
  readonly isNew: boolean
  readonly isWhole: boolean
}

/** The bounds of what its agent hears of a session's past. */
const history = { messagesMax: limits.chatHistoryMessagesMax, bytesMax: limits.chatHistoryBytesMax }

/** What a turn needs before its agent is asked, or the turn that its message was already. */
type Prepared = { readonly agent: Agent; readonly credential: ReadonlyArray<Header> } | { readonly told: string; readonly turn: FinishedTurn }

/** As nginx has it; no server sends it. */
const callerGone = 499

export class ChatSession implements TurnOwner {
  readonly id: SessionId
  readonly accountId: AccountId
  readonly term: bigint
  /** What is set aside for it. */
  readonly hold: SessionHold
  readonly outlet = new ChatOutlet()
  /** No turn may be gone that its client has not heard of: with its node, or because it failed while nobody listened. Who sends a message has heard. */
  isWhole: boolean
  readonly #parts: ChatParts
  readonly #dialect: string
  #caller: Caller
  #messageCount: number
  #consumed: Credits
  #turn: ChatTurn | undefined
  #status: "open" | "closing" | "closed" = "open"
  #droppedAtMs: number | undefined = Date.now()
  #usedAtMs = Date.now()
  #history: ReadonlyArray<Exchanged> | undefined
  readonly #messageIds: MessageIds
  /** A commit's outcome is not known, or its row refused it: counts are read again before the next turn. */
  #isStale = false
  #onSettled: Array<() => void> = []

  constructor(parts: ChatParts, start: SessionStart) {
    this.#parts = parts
    this.id = start.id
    this.accountId = start.caller.accountId
    this.#dialect = start.dialect
    this.term = start.term
    this.hold = start.hold
    this.#caller = start.caller
    this.#messageCount = start.messageCount
    this.#consumed = start.consumed
    this.#messageIds = new MessageIds(start.isNew)
    this.isWhole = start.isWhole
    if (start.isNew) this.#history = []
  }

  get agent(): Agent {
    return this.hold.agent
  }

  /** The key or login that its latest socket came with. */
  get subjectId(): SubjectId {
    return this.#caller.subjectId
  }

  get messageCount(): number {
    return this.#messageCount
  }

  get consumed(): Credits {
    return this.#consumed
  }

  get isOpen(): boolean {
    return this.#status === "open"
  }

  get hasTurn(): boolean {
    return this.#turn !== undefined
  }

  /** Who resumes gets text again from a turn's beginning. */
  get retells(): boolean {
    return this.#turn !== undefined || this.outlet.owesAnEnd
  }

  /** A newer socket takes the place of an older one. */
  attach(client: ChatClient, caller: Caller): void {
    this.#caller = caller
    this.#droppedAtMs = undefined
    this.#usedAtMs = Date.now()
    this.outlet.attach(client)?.end(new SessionReplaced())
  }

  /** The client has been told that the session is its own. */
  begin(): void {
    this.outlet.begin(this.#turn)
  }

  detach(client: ChatClient): void {
    if (!this.outlet.detach(client)) return
    this.#droppedAtMs = Date.now()
    this.#turn?.takesMore()
  }

  drained(): void {
    this.outlet.drained()
    if (this.outlet.takesMore) this.#turn?.takesMore()
  }

  /** Counts in the caller's window, also when it is refused for another reason. */
  message(prompt: string, messageId: string | undefined): void {
    if (this.#status !== "open") return this.outlet.client?.end(new SessionClosed())
    const nowMs = Date.now()
    this.#usedAtMs = nowMs
    this.isWhole = true
    const isBusy = this.#turn !== undefined || this.outlet.owesAnEnd
    const turn = isBusy ? undefined : this.#turn = new ChatTurn(this, newId<OrderId>(), prompt, messageId, nowMs)
    const admitted = this.#parts.admission.again(this.#caller, { dialect: this.#dialect, auth: "loginOrKey", scope: "orders" })
    const prepared = Effect.flatMap(admitted, (): Effect.Effect<Prepared, ChatError> =>
      turn === undefined ? Effect.fail(new TurnInProgress({ retryAfterMs: 1_000 }))
        : prompt.length > limits.chatPromptCharsMax ? Effect.fail(new PromptTooLarge({ charsMax: limits.chatPromptCharsMax }))
        : this.#prepare(messageId, nowMs))
    // What was prepared for a turn that is over meanwhile is let go.
    attempt(prepared, (ready) => this.#turn === turn ? this.#ask(turn!, ready) : this.#letGo(), (error) => {
      if (turn !== undefined && this.#turn !== turn) return this.#letGo()
      if (turn !== undefined) this.#turn = undefined
      this.#refuse(error, messageId)
    })
  }

  cancel(): void {
    const turn = this.#turn
    if (turn === undefined) return this.outlet.client?.notice({ _tag: "nothingToCancel" })
    // Its end and its bill are on their way.
    if (turn.hasEnded) return
    this.#abandon(turn, callerGone)
    this.outlet.client?.notice({ _tag: "turnCancelled", messageId: turn.messageId, late: turn.hasText })
    this.outlet.settle()
  }

  /**
   * Ends the session: a running turn is free unless its agent was done, then it is charged first. Durable when answered, with
   * what it closed; after an error the session is as before, without its turn. `term`: only while it has this one, so not where
   * another node took it.
   */
  close(reason: string, term?: bigint): Effect.Effect<HeldSession | undefined, StoreUnavailable> {
    return Effect.suspend((): Effect.Effect<HeldSession | undefined, StoreUnavailable> => {
      if (this.#status === "closed") return Effect.succeed(undefined)
      this.#status = "closing"
      const turn = this.#turn
      if (turn !== undefined && !turn.hasEnded) this.#abandon(turn, callerGone)
      const settled = this.#turn === undefined ? Effect.void : Effect.callback<void>((resume) => { this.#onSettled.push(() => resume(Effect.void)) })
      return settled.pipe(
        Effect.andThen(this.#parts.closeStored(this, reason, term)),
        Effect.tap(() => Effect.sync(() => this.#ended())),
        Effect.onError(() => Effect.sync(() => { if (this.#status === "closing") this.#status = "open" }))
      )
    })
  }

  /** What nobody does for it: hang up on who is silent or stuck, close what nobody came back to, forget what can be read again. */
  sweep(nowMs: number, times: { readonly idleMs: number; readonly resumeMs: number }): void {
    if (this.#status !== "open") return
    if (this.outlet.isStalled(nowMs)) return this.outlet.client?.end(new SlowConsumer({ retryAfterMs: 1_000 }))
    if (this.#turn === undefined && nowMs - this.#usedAtMs > limits.chatHistoryKeptMs) this.#history = undefined
    const due = dueOf({ droppedAtMs: this.#droppedAtMs, usedAtMs: this.#usedAtMs, turnRunning: this.#turn !== undefined }, times, nowMs)
    if (due === "hangUp") this.outlet.client?.end(new SessionIdle({ retryAfterMs: 1_000 }))
    if (due === "close") attempt(this.close("dropped", this.term), () => {})
  }

  /** Its socket was opened with that key, or not. */
  revoked(subjectId: string): void {
    if (this.#caller.subjectId === subjectId) this.outlet.client?.end(new Unauthenticated({ reason: "revoked" }))
  }

  /** The gateway stops: the socket ends when the running turn has, or now. */
  stop(retryAfterMs: number): void {
    this.outlet.lastWord(new Draining({ retryAfterMs }), this.#turn === undefined && !this.outlet.owesAnEnd)
  }

  /** The gateway waits no longer. True when that cut a turn off. */
  interrupt(): boolean {
    const turn = this.#turn
    if (turn === undefined || turn.hasEnded) return false
    this.#abandon(turn, 503)
    this.outlet.settle()
    return true
  }

  /** What its row says by now; `undefined`: it has none. */
  stands(row: StandingSession | undefined): void {
    if (this.#status !== "open" || row?.isActive === true && row.term === this.term) return
    this.leave(row?.isActive === true ? new SessionReplaced() : new SessionClosed())
  }

  /** Another node has it, or it is closed: nothing more happens here. */
  leave(why: SessionReplaced | SessionClosed): void {
    this.interrupt()
    this.outlet.client?.end(why)
    this.#ended()
  }

  // The turn's side.

  turnText(turn: ChatTurn, text: string): boolean {
    return this.outlet.text(text, turn.messageId)
  }

  turnEnded(turn: ChatTurn): void {
    this.#charge(turn)
  }

  turnFailed(turn: ChatTurn, error: AgentUnavailable | AgentAnswerUnusable): void {
    this.#record(turn, turn.status >= 500 ? turn.status : 502)
    this.#lost(turn, error)
  }

  // Its own.

  #ask(turn: ChatTurn, ready: Prepared): void {
    if ("agent" in ready) {
      return turn.ask(this.#parts.upstream, ready.agent, ready.credential, {
        prompt: turn.prompt, session_id: this.id, stream: true, history: messagesOf(this.#history!)
      })
    }
    this.#turn = undefined
    this.outlet.finish(ready.turn, ready.told, ready.told)
  }

  /** What the message needs: its own finished turn, or the money, the past and the credential for a new one. */
  #prepare(messageId: string | undefined, nowMs: number): Effect.Effect<Prepared, ChatError> {
    const { spending, agents, credential, lateCancels, read } = this.#parts
    return Effect.gen({ self: this }, function*() {
      if (!spending.writable()) return yield* new StoreUnavailable({ retryAfterMs: 1_000 })
      if (this.#isStale) yield* this.#catchUp()
      const before = messageId === undefined || this.#messageIds.isNews(messageId) ? undefined : yield* read(findTurn(this.id, messageId))
      if (messageId !== undefined && before !== undefined) {
        const { outputText, amount, ...turn } = before
        const told = { ...turn, messageId, charged: amount, sessionTotal: this.#consumed, replayed: true }
        return { told: outputText, turn: yield* spending.ask(this.hold.holder, (account) => finishedTurn(account, this.hold, told)) }
      }
      const agent = yield* agents.find(this.agent.id)
      if (!isCallable(agent)) return yield* new AgentPaused({ agent: agent.ticker })
      if (this.#parts.isStopping()) return yield* new Draining({ retryAfterMs: 1_000 })
      yield* lateCancels.check(this.#caller, agent, nowMs)
      yield* this.hold.topUp(this.#caller)
      this.#history ??= yield* read(readHistory(this.id, history))
      return { agent, credential: yield* credential.get(agent, this.accountId, this.id) }
    })
  }

  #catchUp(): Effect.Effect<void, ChatError> {
    return this.#parts.read(findSession(this.accountId, this.id)).pipe(Effect.map((stored) => {
      if (stored === undefined) return
      this.#messageCount = stored.messageCount
      this.#consumed = stored.consumed
      this.#history = undefined
      this.#isStale = false
    }))
  }

  /** Pays for a turn whose agent is done. */
  #charge(turn: ChatTurn): void {
    chargeTurn(this.#parts, { turn, hold: this.hold, term: this.term, messageIndex: this.#messageCount + 1, consumed: this.#consumed }, (charged) => {
      if (charged._tag === "charged") return this.#complete(turn, charged.finished)
      if (charged._tag === "unknown" || charged.isRefused) {
        this.#isStale = true
        this.#messageIds.doubt()
        this.#parts.look(this)
      }
      this.#lost(turn, charged._tag === "unknown" ? new OutcomeUnknown({ retryAfterMs: 5_000 }) : charged.error)
    })
  }

  #complete(turn: ChatTurn, finished: FinishedTurn): void {
    this.#turn = undefined
    this.#usedAtMs = Date.now()
    this.#messageCount = finished.messageIndex
    this.#consumed = finished.sessionTotal
    metrics.chatTurns.inc({ outcome: "charged" })
    if (finished.charged === 0n) this.#record(turn, turn.status)
    if (turn.messageId !== undefined) this.#messageIds.add(turn.messageId)
    const text = turn.text
    if (this.#history !== undefined) this.#history = fitHistory([...this.#history, { prompt: turn.prompt, answer: text }], history)
    const agent = this.#parts.agents.resident(this.agent.id)
    if (agent !== undefined && !isCallable(agent)) this.outlet.lastWord(new AgentPaused({ agent: agent.ticker }), false)
    this.outlet.finish(finished, text, turn.takeRest())
    this.#settled()
  }

  /** The turn came to nothing, and is free. */
  #lost(turn: ChatTurn, error: ChatError): void {
    if (this.#turn !== turn) return
    this.#turn = undefined
    this.#usedAtMs = Date.now()
    metrics.chatTurns.inc({ outcome: "failed" })
    this.outlet.drop()
    if (this.outlet.client === undefined) this.isWhole = false
    this.#refuse(error, turn.messageId)
    this.outlet.settle()
    this.#settled()
  }

  /** Stops the turn before its agent was done. */
  #abandon(turn: ChatTurn, status: number): void {
    const wasLate = status === callerGone && turn.hasText
    turn.abort()
    this.#turn = undefined
    this.#usedAtMs = Date.now()
    metrics.chatTurns.inc({ outcome: "cancelled" })
    this.#record(turn, status)
    if (wasLate) this.#parts.lateCancels.count(this.hold.holder, this.agent, Date.now())
    this.outlet.drop()
    this.#settled()
  }

  #refuse(error: ChatError, messageId: string | undefined): void {
    const client = this.outlet.client
    if (client === undefined) return
    if (endsSocket(error._tag)) client.end(error)
    else client.refuse(error, messageId)
  }

  /** Of a turn without a charge; a charged one's row is part of its commit. */
  #record(turn: ChatTurn, status: number): void {
    const nowMs = Date.now()
    this.#parts.usage.add({
      id: newId(), accountId: this.accountId, subjectId: this.#caller.subjectId, agentId: this.agent.id, call: "chat", status, cost: 0n,
      latencyMs: Math.max(0, nowMs - turn.startedAtMs), atMs: nowMs
    })
  }

  #settled(): void {
    this.#letGo()
    for (const resume of this.#onSettled.splice(0)) resume()
    this.#parts.turnSettled()
  }

  #ended(): void {
    this.#status = "closed"
    this.#letGo()
    this.#parts.ended(this)
  }

  /** A session that is over holds nothing, also when a message of it was being prepared, or a turn paid for. */
  #letGo(): void {
    if (this.#status === "closed") this.hold.release()
  }
}
