/**
 * Chat: the sessions whose sockets are on this node, and what their owners do
 * with sessions over REST.
 *
 * A session belongs to the node that holds its socket, whichever owns its
 * account. What is durable of it is a row (with that node's id and a term) and
 * the orders of its turns; the rest is in memory here (`ChatSession`). A resume
 * finds it in memory first; after a restart, or on another node, it is taken
 * over from its row, which raises its term and so refuses every turn of the copy
 * before. Who takes a session from another node, or closes it, tells all nodes,
 * so that the copy goes at once and not only with its next turn. Sessions of a
 * node that died, and nobody resumed, are closed by whoever notices.
 */
import { Context, Effect, Layer } from "effect"
import { Bus } from "../../cluster/Bus.ts"
import { Cluster } from "../../cluster/Cluster.ts"
import { Config, type Settings, limits } from "../../config.ts"
import { type Agent, isCallable } from "../../domain/agent.ts"
import { SessionClosed, SessionReplaced, SessionsNotSupported } from "../../domain/chat.ts"
import type { Credits } from "../../domain/credits.ts"
import { AgentPaused, Draining, type GatewayError, InvalidRequest, NotFound, Overloaded, StoreUnavailable } from "../../domain/errors.ts"
import type { AccountId, SessionId } from "../../domain/ids.ts"
import { Postgres } from "../../store/Postgres.ts"
import {
  type HeldSession, type OwnedSession, type SessionEnd, type StoredExchange, type StoredSession,
  adoptSessions, beatAndFindOrphans, closeSessions, findSession, isSessionId, listExchanges, listSessions, parkSessions
} from "../../store/SessionStore.ts"
import { UsageBuffer } from "../../store/UsageBuffer.ts"
import { gauge } from "../../telemetry/Metrics.ts"
import { Accounts } from "../AccountActor.ts"
import { Admission } from "../Admission.ts"
import { Agents } from "../AgentActor.ts"
import type { Caller, SubjectId } from "../Caller.ts"
import { newId } from "../Ids.ts"
import { Spending } from "../lease/Spending.ts"
import { Node } from "../Node.ts"
import { Outbox } from "../Outbox.ts"
import { downloadReceipt } from "../Receipts.ts"
import { AgentCredential } from "../upstream/AgentCredential.ts"
import { Upstream } from "../upstream/Upstream.ts"
import type { ChatClient, ChatError } from "./ChatClient.ts"
import { ChatSession } from "./ChatSession.ts"
import { InBulk } from "./InBulk.ts"
import { LateCancels } from "./LateCancels.ts"
import { SessionCheck } from "./SessionCheck.ts"
import { SessionHold } from "./SessionHold.ts"

/** What every session of a node uses. */
export interface ChatParts {
  readonly admission: Admission["Service"]
  readonly agents: Agents["Service"]
  readonly credential: AgentCredential["Service"]
  readonly lateCancels: LateCancels["Service"]
  readonly spending: Spending["Service"]
  readonly upstream: Upstream["Service"]
  readonly usage: UsageBuffer["Service"]
  readonly settings: Settings
  readonly read: <A, E>(effect: Effect.Effect<A, E, Postgres>) => Effect.Effect<A, E>
  readonly isStopping: () => boolean
  /** Closes its row (of a term: unless it has another by now), with the letter that brings its receipt when that is worth one. `undefined`: it was not to be closed. */
  readonly closeStored: (session: OwnedSession, reason: string, term?: bigint) => Effect.Effect<HeldSession | undefined, StoreUnavailable>
  /** Lets the session go if its row is closed or another node's by now. */
  readonly look: (session: ChatSession) => void
  readonly turnSettled: () => void
  readonly ended: (session: ChatSession) => void
}

/** How a socket asks for a session. */
export interface Asked {
  readonly caller: Caller
  readonly dialect: string
  /** The agent's ticker or id. */
  readonly agent: string
  readonly client: ChatClient
}

export interface Opened {
  readonly session: ChatSession
  readonly agent: Agent
  readonly held: Credits
  readonly resumed: boolean
}

const receiptMailedFrom: Credits = 1_000_000n

/** A stop cuts what is left of sockets after `drainMs`: before that those of turns that did not end are told why. */
const lastWordMs = 1_000

/** At random, so that clients don't all come back at once. */
const jitteredMs = (): number => 1_000 + Math.floor(Math.random() * (limits.chatReturnMs - 1_000))

/** Sockets of this node that have not proved yet who they are. */
export interface Newcomers {
  count: number
  readonly max: number
}

export class Chat extends Context.Service<Chat, {
  /** The session is durable, its money held, and the client attached; `session.begin()` follows once the client knows. */
  readonly open: (asked: Asked) => Effect.Effect<Opened, ChatError>
  readonly resume: (asked: Asked, id: string) => Effect.Effect<Opened, ChatError>
  readonly list: (caller: Caller, query: { readonly status: StoredSession["status"] | undefined; readonly limit: number; readonly after: string | undefined }) =>
    Effect.Effect<ReadonlyArray<StoredSession>, StoreUnavailable>
  readonly get: (caller: Caller, id: string) => Effect.Effect<StoredSession, NotFound | StoreUnavailable>
  /** Finished turns after an index, oldest first. An agent reads those of the session that its token names. */
  readonly exchanges: (caller: Caller, id: string, limit: number, after: number) => Effect.Effect<ReadonlyArray<StoredExchange>, NotFound | StoreUnavailable>
  /** Durable when answered; false when it was closed before. A running turn is free unless its agent was done. */
  readonly close: (caller: Caller, id: string) => Effect.Effect<boolean, GatewayError>
  /** A PDF. `InvalidRequest` while the session is active (malformed) or when it cost nothing. */
  readonly receipt: (caller: Caller, id: string) => Effect.Effect<Uint8Array, NotFound | InvalidRequest | StoreUnavailable | Overloaded>
  /** Turns under way that are to be paid for. */
  readonly paidTurnsRunning: () => number
  /** Counted by who listens to the sockets. */
  readonly newcomers: Newcomers
  /** What is due by time. */
  readonly sweep: () => void
  /** Says that this node lives, and closes what dead ones left. */
  readonly beat: Effect.Effect<void, GatewayError>
  /** Lets running turns end, at most `drainMs`, and leaves the sessions to be resumed elsewhere. */
  readonly drain: Effect.Effect<void>
}>()("tollgate/kernel/chat/Chat") {
  static readonly layer = Layer.effect(Chat, Effect.gen(function*() {
    const postgres = yield* Postgres
    const settings = yield* Config
    const node = yield* Node
    const accounts = yield* Accounts
    const cluster = yield* Cluster
    const bus = yield* Bus
    const spending = yield* Spending
    const agents = yield* Agents
    const outbox = yield* Outbox
    const live = new Map<SessionId, ChatSession>()
    const counts = new Map<AccountId, number>()
    let isStopping = false
    let onQuiet: (() => void) | undefined
    const newcomers: Newcomers = { count: 0, max: settings.chatUnauthenticatedMax }
    gauge("tollgate_chat_newcomers", "Chat sockets that have not proved yet who they are", () => newcomers.count)
    const times = { idleMs: settings.chatIdleSeconds * 1_000, resumeMs: settings.chatResumeSeconds * 1_000 }
    const turnsRunning = (priceMin: Credits): number => {
      let count = 0
      for (const session of live.values()) if (session.hasTurn && session.agent.price >= priceMin) count++
      return count
    }
    gauge("tollgate_chat_sessions_live", "Chat sessions in this node's memory, dropped ones included", () => live.size)
    gauge("tollgate_chat_turns_running", "Chat turns whose agent is being asked or whose charge is on its way", () => turnsRunning(0n))

    const read: ChatParts["read"] = (effect) => Effect.provideService(effect, Postgres, postgres)
    const check = new SessionCheck(read)
    yield* Effect.forkScoped(check.run)
    const adoption = new InBulk((all: ReadonlyArray<OwnedSession>) => read(adoptSessions(node.id, all)))
    const closing = new InBulk((all: ReadonlyArray<SessionEnd>) => read(closeSessions(all, receiptMailedFrom)))
    const parts: ChatParts = {
      agents, settings, read, spending,
      admission: yield* Admission,
      credential: yield* AgentCredential,
      lateCancels: yield* LateCancels,
      upstream: yield* Upstream,
      usage: yield* UsageBuffer,
      isStopping: () => isStopping,
      closeStored: ({ id, accountId }, reason, term) => Effect.tap(
        closing.ask({ id, accountId, term, reason, letterId: settings.smtpUrl === undefined ? undefined : newId() }),
        () => Effect.sync(outbox.wake)
      ),
      look: (session) => check.look(session),
      turnSettled: () => { if (onQuiet !== undefined && turnsRunning(0n) === 0) onQuiet() },
      ended: (session) => {
        if (live.get(session.id) !== session) return
        live.delete(session.id)
        const left = counts.get(session.accountId)! - 1
        if (left === 0) counts.delete(session.accountId)
        else counts.set(session.accountId, left)
      }
    }
    const revoked = (subjectId: SubjectId): void => {
      for (const session of live.values()) session.revoked(subjectId)
    }
    accounts.onRevoked(revoked)
    bus.onNews((news) => {
      if (news._tag === "revoked") revoked(news.subjectId as SubjectId)
      else if (news._tag === "missed") for (const session of live.values()) check.look(session)
      else if (news._tag === "session") {
        const session = live.get(news.id as SessionId)
        if (session !== undefined && session.term <= news.term) check.look(session)
      }
    })

    /** Whoever else has it, or had it, lets it go. */
    const tell = ({ id, term }: HeldSession): void => bus.tell({ _tag: "session", id, term })

    const enter = (session: ChatSession): void => {
      live.set(session.id, session)
      counts.set(session.accountId, (counts.get(session.accountId) ?? 0) + 1)
    }

    const meet = Effect.fnUntraced(function*(name: string) {
      if (isStopping) return yield* new Draining({ retryAfterMs: jitteredMs() })
      if (!spending.writable()) return yield* new StoreUnavailable({ retryAfterMs: 1_000 })
      const agent = yield* agents.find(name)
      if (!isCallable(agent)) return yield* new AgentPaused({ agent: agent.ticker })
      if (agent.manifest?.supports_sessions === false || agent.manifest?.input?.type === "multipart") return yield* new SessionsNotSupported({ agent: agent.ticker })
      return agent
    })

    const open = Effect.fn("Chat.open")(function*({ caller, dialect, agent: name, client }: Asked) {
      const agent = yield* meet(name)
      const { accountId } = caller
      if ((counts.get(accountId) ?? 0) >= settings.chatSessionsPerAccount) return yield* new Overloaded({ what: "chat sessions of the account", retryAfterMs: 60_000 })
      const id = `ses_${newId<string>().replaceAll("-", "")}` as SessionId
      const hold = new SessionHold(parts, id, agent, caller)
      const held = yield* hold.topUp()
      yield* spending.act(caller, (account, nowMs) => spending.commit(account, {
        sessions: [{ id, subjectId: caller.subjectId, agentId: agent.id, nodeId: node.id, price: agent.price, startedAtMs: nowMs }]
      })).pipe(Effect.onError(() => Effect.sync(() => hold.release())))
      const session = new ChatSession(parts, { id, caller, dialect, term: 1n, messageCount: 0, consumed: 0n, hold, isNew: true, isWhole: true })
      enter(session)
      session.attach(client, caller)
      return { session, agent, held, resumed: false }
    })

    /** This node's copy when no other node has had it since, else one made from its row. */
    const takeOver = Effect.fnUntraced(function*({ caller, dialect }: Asked, agent: Agent, id: SessionId) {
      const own = live.get(id)
      if (!cluster.isMany && own?.accountId === caller.accountId) return { session: own, isNew: false }
      const adopted = yield* adoption.ask({ accountId: caller.accountId, id })
      if (adopted === undefined) {
        const stored = yield* read(findSession(caller.accountId, id))
        return yield* (stored === undefined ? new NotFound({ what: "session", id }) : new SessionClosed())
      }
      if (adopted.isTaken) tell(adopted)
      const itsAgent = adopted.agentId === agent.id ? agent : yield* agents.find(adopted.agentId)
      const known = live.get(id)
      if (known?.term === adopted.term) return { session: known, isNew: false }
      // It has been on another node since.
      known?.leave(new SessionReplaced())
      const session = new ChatSession(parts, {
        id, caller, dialect, term: adopted.term, messageCount: adopted.messageCount, consumed: adopted.consumed,
        hold: new SessionHold(parts, id, itsAgent, caller), isNew: false, isWhole: adopted.leftWhole
      })
      enter(session)
      return { session, isNew: true }
    })

    const resume = Effect.fn("Chat.resume")(function*(asked: Asked, id: string) {
      const agent = yield* meet(asked.agent)
      if (!isSessionId(id)) return yield* new NotFound({ what: "session", id })
      const { session, isNew } = yield* takeOver(asked, agent, id)
      if (session.agent.id !== agent.id) return yield* new NotFound({ what: "session", id })
      if (!session.isOpen) return yield* new SessionClosed()
      session.attach(asked.client, asked.caller)
      const held = yield* (isNew ? session.hold.topUp() : session.hold.held).pipe(
        Effect.onError(() => Effect.sync(() => session.detach(asked.client)))
      )
      if (!session.isOpen) {
        session.hold.release()
        return yield* new SessionClosed()
      }
      return { session, agent: session.agent, held, resumed: true }
    })

    const get = (caller: Caller, id: string): Effect.Effect<StoredSession, NotFound | StoreUnavailable> =>
      read(findSession(caller.accountId, id)).pipe(
        Effect.flatMap((session) => session === undefined ? Effect.fail(new NotFound({ what: "session", id })) : Effect.succeed(session))
      )

    return Chat.of({
      open,
      resume,
      list: (caller, { status, limit, after }) => read(listSessions(caller.accountId, status, limit, after)),
      get,
      exchanges: (caller, id, limit, after) => caller.session !== undefined && caller.session !== id
        ? Effect.fail(new NotFound({ what: "session", id }))
        : Effect.flatMap(get(caller, id), (session) => read(listExchanges(session.id, limit, after))),
      close: Effect.fn("Chat.close")(function*(caller, id) {
        const session = live.get(id as SessionId)
        const own = session?.accountId === caller.accountId ? session : undefined
        const client = own?.outlet.client
        if (own === undefined && (yield* get(caller, id)).status === "closed") return false
        const closed = yield* (own === undefined ? parts.closeStored({ id: id as SessionId, accountId: caller.accountId }, "closed by its owner") : own.close("closed by its owner"))
        client?.end(new SessionClosed())
        if (closed !== undefined) tell(closed)
        return closed !== undefined
      }),
      receipt: Effect.fn("Chat.receipt")(function*(caller, id) {
        const session = yield* get(caller, id)
        const refuse = (malformed: boolean, msg: string) => new InvalidRequest({ malformed, issues: [{ loc: ["path", "id"], msg }] })
        if (session.status === "active") return yield* refuse(true, "The session is still active: close it first")
        if (session.consumed === 0n) return yield* refuse(false, "The session cost nothing, so there is no receipt")
        const drawn = yield* read(downloadReceipt(caller.accountId, id, settings.publicUrl))
        if (drawn === undefined) return yield* new NotFound({ what: "session", id })
        return drawn.pdf
      }),
      paidTurnsRunning: () => turnsRunning(1n),
      newcomers,
      sweep: () => {
        const nowMs = Date.now()
        for (const session of live.values()) session.sweep(nowMs, times)
      },
      beat: read(beatAndFindOrphans(node.id, times.resumeMs + 2 * limits.chatBeatMs)).pipe(Effect.flatMap((orphans) =>
        // Who came back meanwhile has it under a later term.
        Effect.forEach(orphans, (orphan) => parts.closeStored(orphan, "its node stopped", orphan.term).pipe(
          Effect.tap((closed) => Effect.sync(() => { if (closed !== undefined) tell(closed) }))
        ), { concurrency: "unbounded", discard: true }))),
      drain: Effect.gen(function*() {
        isStopping = true
        for (const session of live.values()) session.stop(jitteredMs())
        if (turnsRunning(0n) > 0) {
          yield* Effect.callback<void>((resume) => { onQuiet = () => resume(Effect.void) }).pipe(Effect.timeoutOption(limits.drainMs - lastWordMs))
        }
        const interrupted = [...live.values()].filter((session) => session.interrupt()).map(({ id }) => id)
        yield* Effect.ignore(read(parkSessions(node.id, interrupted)))
        for (const session of live.values()) session.hold.release()
      })
    })
  }))
}
