/**
 * The frames of an autx chat socket: JSON text, money as decimal text. What a
 * client may send, with a bound on everything; what it gets; and in which close
 * code each refusal ends.
 *
 * Close codes are told apart by what the client should do. Not again as it is:
 * 4400 bad frame, 4401 credential, 4402 funds, 4403 scope or origin, 4404 agent
 * or session unknown, 4409 replaced, 4410 closed. Come back, in `retry_after`
 * seconds: 4408 idle, 4429 too fast, 4503 agent paused, 1001 stopping, 1011
 * something here, 1013 slow consumer, or too much at once. An `error` frame with `fatal: true` comes
 * before each of them.
 */
import { Schema } from "effect"
import { formatUsd } from "../../domain/credits.ts"
import { InvalidFrame } from "../../domain/chat.ts"
import { isUnstorable } from "../../http/body.ts"
import type { ChatError, ChatNotice, FinishedTurn } from "../../kernel/chat/ChatClient.ts"
import type { Opened } from "../../kernel/chat/Chat.ts"
import { errors } from "./errors.ts"

const text = (charsMax: number) => Schema.String.check(Schema.isBetweenLength(1, charsMax))

const ClientFrame = Schema.Union([
  Schema.Struct({ type: Schema.Literal("auth"), token: text(4_096), session_id: Schema.optionalKey(text(100)) }),
  Schema.Struct({ type: Schema.Literal("message"), prompt: Schema.String.check(Schema.isMinLength(1)), id: Schema.optionalKey(text(255)) }),
  Schema.Struct({ type: Schema.Literal("cancel") }),
  Schema.Struct({ type: Schema.Literal("ping") }),
  Schema.Struct({ type: Schema.Literal("close") })
])
export type ClientFrame = typeof ClientFrame.Type

const decode = Schema.decodeUnknownResult(ClientFrame)
const types = "auth, message, cancel, ping, close"

/** Unknown fields are ignored. */
export const readFrame = (frame: string): ClientFrame | InvalidFrame => {
  let value: unknown
  try {
    value = JSON.parse(frame)
  } catch {
    return new InvalidFrame({ malformed: true, msg: "The frame is not valid JSON" })
  }
  const decoded = decode(value)
  if (decoded._tag === "Failure") return new InvalidFrame({ malformed: false, msg: complaint(value) })
  const { success } = decoded
  if (success.type === "message" && frame.includes("\\u") && (isUnstorable(success.prompt) || isUnstorable(success.id ?? ""))) {
    return new InvalidFrame({ malformed: false, msg: "prompt or id contains a character that can't be stored (NUL, or half a surrogate pair)" })
  }
  return success
}

const complaint = (value: unknown): string => {
  const type = typeof value === "object" && value !== null && "type" in value ? value.type : undefined
  if (type === "auth") return "An auth frame has token, and session_id when a session is resumed, both text"
  if (type === "message") return "A message frame has prompt, not empty, and may have id of 1 to 255 characters, both text"
  return `A frame is a JSON object whose type is one of ${types}`
}

// To the client.

export const pong = "{\"type\":\"pong\"}"

export const chunkFrame = (data: string, id: string | undefined): string =>
  id === undefined ? `{"type":"chunk","data":${JSON.stringify(data)}}` : `{"type":"chunk","data":${JSON.stringify(data)},"id":${JSON.stringify(id)}}`

export const sessionFrame = ({ session, agent, held, resumed }: Opened): string => JSON.stringify({
  type: "session",
  session_id: session.id,
  agent: { id: agent.id, ticker: agent.ticker, name: agent.name, service_price: formatUsd(agent.price) },
  credits_reserved: formatUsd(held),
  resumed,
  message_count: session.messageCount,
  ...(resumed ? { session_total: formatUsd(session.consumed), ...(session.retells ? { replayed_from: 0 } : {}), discontinuity: !session.isWhole } : {})
})

const withId = (id: string | undefined): object => id === undefined ? {} : { id }
const ifReplayed = ({ replayed }: FinishedTurn): object => replayed ? { replayed } : {}

export const doneFrame = (sessionId: string, turn: FinishedTurn): string => JSON.stringify({
  type: "done", order_id: turn.orderId, session_id: sessionId, output_hash: turn.outputHash, message_index: turn.messageIndex,
  ...withId(turn.messageId), ...ifReplayed(turn)
})

export const billingFrame = (turn: FinishedTurn): string => JSON.stringify({
  type: "billing", order_id: turn.orderId, amount_charged: formatUsd(turn.charged), credits_remaining: formatUsd(turn.remaining),
  credits_reserved: formatUsd(turn.held), session_total: formatUsd(turn.sessionTotal), ...withId(turn.messageId), ...ifReplayed(turn)
})

export const noticeFrame = (notice: ChatNotice): string => {
  switch (notice._tag) {
    case "turnCancelled": return JSON.stringify({
      type: "notice", code: "turn_cancelled", detail: "The turn was cancelled. Nothing was charged", late: notice.late, ...withId(notice.messageId)
    })
    case "nothingToCancel": return JSON.stringify({ type: "notice", code: "nothing_to_cancel", detail: "No turn is running" })
    case "sessionClosed": return JSON.stringify({ type: "notice", code: "session_closed", detail: "The session is closed, and what was reserved for it is free" })
  }
}

/** The contract's word for a refusal, and the code that the socket is closed with when it does not go on. */
interface Ending {
  readonly code: string
  readonly close: number
}

const internal: Ending = { code: "internal_error", close: 1011 }

/** What a socket can meet has a word of its own; the rest is ours to mend. */
const endings: Readonly<Record<string, Ending | undefined>> = {
  AuthTimeout: { code: "auth_timeout", close: 4401 },
  Unauthenticated: { code: "auth_failed", close: 4401 },
  AccountSuspended: { code: "auth_failed", close: 4401 },
  ScopeMissing: { code: "forbidden_scope", close: 4403 },
  AgentPaused: { code: "agent_paused", close: 4503 },
  SessionsNotSupported: { code: "sessions_not_supported", close: 4404 },
  InsufficientCredits: { code: "insufficient_credits", close: 4402 },
  BudgetExceeded: { code: "insufficient_credits", close: 4402 },
  RateLimited: { code: "rate_limited", close: 4429 },
  LateCancels: { code: "rate_limited", close: 4429 },
  TurnInProgress: { code: "turn_in_progress", close: 1011 },
  PromptTooLarge: { code: "prompt_too_large", close: 4400 },
  SessionClosed: { code: "session_closed", close: 4410 },
  SessionReplaced: { code: "session_replaced", close: 4409 },
  SessionIdle: { code: "idle_timeout", close: 4408 },
  AgentAnswerUnusable: { code: "agent_error", close: 4503 },
  SlowConsumer: { code: "slow_consumer", close: 1013 },
  Draining: { code: "server_shutdown", close: 1001 },
  Overloaded: { code: "internal_error", close: 1013 },
  MailboxFull: { code: "internal_error", close: 1013 }
}

const endingOf = (error: ChatError): Ending => {
  if (error._tag === "InvalidFrame") return { code: error.malformed ? "invalid_json" : "invalid_frame", close: 4400 }
  if (error._tag === "NotFound") return error.what === "session" ? { code: "session_not_found", close: 4404 } : { code: "agent_not_found", close: 4404 }
  if (error._tag === "AgentUnavailable") return { code: error.reason === "timeout" ? "agent_timeout" : "agent_error", close: 4503 }
  return endings[error._tag] ?? internal
}

/** An owner's pause has no known end. */
const pausedRetry = 60

const detailOf = (error: ChatError): string => {
  switch (error._tag) {
    case "InvalidFrame": return error.msg
    case "AuthTimeout": return "No auth frame came in time: send it first"
    case "SessionsNotSupported": return `The agent ${error.agent} takes no chat sessions: order from it, or call it through the proxy`
    case "TurnInProgress": return "The turn before is still running: wait for its done, or cancel it"
    case "PromptTooLarge": return `The prompt is too long: at most ${error.charsMax} characters are allowed`
    case "LateCancels": return `More than ${error.max} turns with ${error.agent} were cancelled today after it had begun to answer: go on tomorrow (UTC)`
    case "AgentAnswerUnusable": return `The agent ${error.agent} gave no usable answer: ${error.why}. Nothing was charged`
    case "SessionReplaced": return "The session goes on over a newer socket"
    case "SessionClosed": return "The session is closed: open another one"
    case "SessionIdle": return "Nothing was said for long: connect again with the session_id to go on"
    case "SlowConsumer": return "The client doesn't take what is sent to it: connect again with the session_id to go on"
    case "OutcomeUnknown": return "It is not known yet whether the turn was charged: send the message again with the same id"
    default: return (errors[error._tag](error as never).body as { readonly detail: string }).detail
  }
}

/** Whose client should come back as it is. */
const reconnects: ReadonlySet<number> = new Set([4408, 4429, 4503, 1001, 1011, 1013])
/** On top of what is told, at random, so that many don't come at once: up to this part of it, but no more than so many seconds, and some. */
const jitter = { part: 0.25, partMax: 30, seconds: 3 }

/** Whole seconds, never less than the error says. */
const retryAfterOf = (error: ChatError, reconnect: boolean): number | undefined => {
  const seconds = "retryAfterMs" in error ? Math.max(1, Math.ceil(error.retryAfterMs / 1000)) : error._tag === "AgentPaused" ? pausedRetry : undefined
  if (!reconnect) return seconds
  return (seconds ?? 1) + Math.floor(Math.random() * (Math.min((seconds ?? 1) * jitter.part, jitter.partMax) + jitter.seconds))
}

/** What the text alone does not say: amounts of a refusal for money. */
const factsOf = (error: ChatError): object => {
  if (error._tag !== "InsufficientCredits" && error._tag !== "BudgetExceeded") return {}
  const { detail: _, ...facts } = errors[error._tag](error as never).body as { readonly detail: string }
  return facts
}

export const errorFrame = (error: ChatError, fatal: boolean, id?: string): { readonly frame: string; readonly code: string; readonly close: number } => {
  const { code, close } = endingOf(error)
  const retryAfter = retryAfterOf(error, fatal && reconnects.has(close))
  return {
    code, close,
    frame: JSON.stringify({
      type: "error", code, detail: detailOf(error), fatal, ...(retryAfter === undefined ? {} : { retry_after: retryAfter }), ...withId(id), ...factsOf(error)
    })
  }
}
