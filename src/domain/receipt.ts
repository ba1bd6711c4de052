/**
 * What a receipt says: one closed chat session, who pays whom for which turns.
 * `mail/Receipt.ts` draws it.
 */
import type { Credits } from "./credits.ts"

export interface ReceiptTurn {
  /** 1 for the session's first. */
  readonly index: number
  readonly orderId: string
  readonly at: Date
  readonly amount: Credits
}

export interface ReceiptData {
  readonly sessionId: string
  readonly agent: { readonly ticker: string; readonly name: string }
  /** The payer's email. */
  readonly billedTo: string
  readonly startedAt: Date
  readonly closedAt: Date
  /** In order. When the session had more turns than a receipt lists, the first ones: what they lack of `total` is the others'. */
  readonly turns: ReadonlyArray<ReceiptTurn>
  readonly total: Credits
  /** The gateway's own URL. */
  readonly issuer: string
}
