/**
 * The rules of a chat session that need no socket and no clock: what becomes of
 * a session that nobody uses, what of its past goes to the agent, and every way
 * in which only a socket can be refused.
 *
 * Errors are facts, as in `errors.ts`; a dialect turns each into its frame and
 * close code.
 */
import { Schema } from "effect"

/** One finished turn. */
export interface Exchanged {
  readonly prompt: string
  readonly answer: string
}

export interface Message {
  readonly role: "user" | "assistant"
  readonly content: string
}

/** At most so many messages and UTF-8 bytes of finished turns go to the agent with a prompt. */
export interface HistoryBounds {
  readonly messagesMax: number
  readonly bytesMax: number
}

/** The latest whole turns that fit, oldest first. */
export const fitHistory = (turns: ReadonlyArray<Exchanged>, { messagesMax, bytesMax }: HistoryBounds): ReadonlyArray<Exchanged> => {
  let bytes = 0
  let first = turns.length
  while (first > 0 && 2 * (turns.length - first + 1) <= messagesMax) {
    const { prompt, answer } = turns[first - 1]!
    bytes += Buffer.byteLength(prompt) + Buffer.byteLength(answer)
    if (bytes > bytesMax) break
    first--
  }
  return turns.slice(first)
}

export const messagesOf = (turns: ReadonlyArray<Exchanged>): ReadonlyArray<Message> =>
  turns.flatMap(({ prompt, answer }): ReadonlyArray<Message> => [{ role: "user", content: prompt }, { role: "assistant", content: answer }])

/** When a session was last of use to anybody. */
export interface Idleness {
  /** Since when no socket is attached; `undefined` while one is. */
  readonly droppedAtMs: number | undefined
  /** Of the last message or the end of the last turn, whichever came later. */
  readonly usedAtMs: number
  readonly turnRunning: boolean
}

/** `hangUp`: the socket has been silent too long. `close`: nobody came back in time. */
export const dueOf = ({ droppedAtMs, usedAtMs, turnRunning }: Idleness, { idleMs, resumeMs }: { readonly idleMs: number; readonly resumeMs: number }, nowMs: number): "nothing" | "hangUp" | "close" => {
  if (turnRunning) return "nothing"
  if (droppedAtMs === undefined) return nowMs - usedAtMs >= idleMs ? "hangUp" : "nothing"
  return nowMs - droppedAtMs >= resumeMs ? "close" : "nothing"
}

// Refusals of a socket. The ones that end it leave its session as a dropped one, except where it says that the session is closed.

/** A frame that is not JSON (`malformed`) or none of the protocol's. Nothing was done. */
export class InvalidFrame extends Schema.TaggedError<InvalidFrame>()("InvalidFrame", { malformed: Schema.Boolean, msg: Schema.String }) {}
/** No credential came in time. Nothing was done. */
export class AuthTimeout extends Schema.TaggedError<AuthTimeout>()("AuthTimeout", {}) {}
/** The agent's manifest refuses sessions. Nothing was held. */
export class SessionsNotSupported extends Schema.TaggedError<SessionsNotSupported>()("SessionsNotSupported", { agent: Schema.String }) {}
/** The session's turn before has not ended. Nothing was done. */
export class TurnInProgress extends Schema.TaggedError<TurnInProgress>()("TurnInProgress", { retryAfterMs: Schema.Int }) {}
/** Nothing was done. */
export class PromptTooLarge extends Schema.TaggedError<PromptTooLarge>()("PromptTooLarge", { charsMax: Schema.Int }) {}
/** Too many turns of this buyer were cancelled after the agent began to answer. Nothing was held or sent. */
export class LateCancels extends Schema.TaggedError<LateCancels>()("LateCancels", { agent: Schema.String, max: Schema.Int, retryAfterMs: Schema.Int }) {}
/** The agent answered something that is no answer. Nothing was charged; the session lives on. */
export class AgentAnswerUnusable extends Schema.TaggedError<AgentAnswerUnusable>()("AgentAnswerUnusable", { agent: Schema.String, why: Schema.String }) {}
/** A newer socket has resumed the session, which lives on there. */
export class SessionReplaced extends Schema.TaggedError<SessionReplaced>()("SessionReplaced", {}) {}
/** The session is closed; what was held for it is free. */
export class SessionClosed extends Schema.TaggedError<SessionClosed>()("SessionClosed", {}) {}
/** Nobody said anything for long. */
export class SessionIdle extends Schema.TaggedError<SessionIdle>()("SessionIdle", { retryAfterMs: Schema.Int }) {}
/** The client doesn't take what is sent to it. */
export class SlowConsumer extends Schema.TaggedError<SlowConsumer>()("SlowConsumer", { retryAfterMs: Schema.Int }) {}

export type ChatRefusal =
  | InvalidFrame | AuthTimeout | SessionsNotSupported | TurnInProgress | PromptTooLarge | LateCancels | AgentAnswerUnusable
  | SessionReplaced | SessionClosed | SessionIdle | SlowConsumer
export type ChatRefusalTag = ChatRefusal["_tag"]

/** What refuses a message and its socket with it, because the next message would fare no better; every other refusal leaves the session as it was. */
const endings: ReadonlySet<string> = new Set([
  "Unauthenticated", "ScopeMissing", "AccountSuspended", "RateLimited", "LateCancels", "InsufficientCredits", "BudgetExceeded",
  "NotFound", "AgentPaused", "SessionsNotSupported", "Draining", "SessionReplaced", "SessionClosed"
])
export const endsSocket = (tag: string): boolean => endings.has(tag)
