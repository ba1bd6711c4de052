/**
 * A session's other end: what a dialect does for it on one socket. Every method
 * is safe to call after the socket has gone, and none throws.
 */
import type { ChatRefusal } from "../../domain/chat.ts"
import type { Credits } from "../../domain/credits.ts"
import type { GatewayError } from "../../domain/errors.ts"
import type { OrderId } from "../../domain/ids.ts"

export type ChatError = GatewayError | ChatRefusal

/** A turn that ended well and is durable. */
export interface FinishedTurn {
  readonly orderId: OrderId
  readonly messageId: string | undefined
  /** 1 for the session's first. */
  readonly messageIndex: number
  readonly outputHash: string
  readonly charged: Credits
  /** Free to spend after it. */
  readonly remaining: Credits
  readonly held: Credits
  readonly sessionTotal: Credits
  /** It was told before, and was not charged again. */
  readonly replayed: boolean
}

export type ChatNotice =
  /** Nothing was charged; `late` when the agent had begun to answer. */
  | { readonly _tag: "turnCancelled"; readonly messageId: string | undefined; readonly late: boolean }
  /** There is no turn that could be cancelled. */
  | { readonly _tag: "nothingToCancel" }
  /** The last word on a session that its own client has closed. */
  | { readonly _tag: "sessionClosed" }

export interface ChatClient {
  /** `false`: bytes wait. Nothing more until `ChatSession.drained`. */
  chunk(text: string, messageId: string | undefined): boolean
  /** `done` and the bill. */
  finished(turn: FinishedTurn): boolean
  /** The turn or message came to nothing; the session goes on. */
  refuse(error: ChatError, messageId: string | undefined): void
  notice(notice: ChatNotice): void
  /** The socket ends with this. */
  end(error: ChatError): void
}
