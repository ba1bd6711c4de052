/**
 * Receipts of closed chat sessions, found and drawn: for who downloads one, and
 * for the letter that brings it.
 *
 * Guarantee: one at a time on this node, so that however many are asked for,
 * other work waits for a few rows of one. At most `receiptsWaitingMax` downloads
 * wait in turn, and hold nothing while they do; the next one is refused at once.
 * Who goes away while waiting leaves the queue; a drawing that has begun is
 * finished, and keeps its place until then.
 */
import { Effect, Semaphore } from "effect"
import { limits } from "../config.ts"
import { Overloaded, type StoreUnavailable } from "../domain/errors.ts"
import type { AccountId } from "../domain/ids.ts"
import type { ReceiptData } from "../domain/receipt.ts"
import { receiptPdf } from "../mail/Receipt.ts"
import { findReceipt } from "../store/LetterStore.ts"
import type { Postgres } from "../store/Postgres.ts"

export interface DrawnReceipt {
  readonly receipt: ReceiptData
  readonly pdf: Uint8Array
}

const turns = Semaphore.makeUnsafe(1)
let downloads = 0

/** `undefined` for a session that is active, unknown or another account's. */
export const drawReceipt = (accountId: AccountId, sessionId: string, issuer: string): Effect.Effect<DrawnReceipt | undefined, StoreUnavailable, Postgres> =>
  turns.withPermit(findReceipt(accountId, sessionId, limits.receiptTurnsMax).pipe(
    Effect.flatMap((found) => {
      if (found === undefined) return Effect.undefined
      const receipt = { ...found, issuer }
      return Effect.uninterruptible(Effect.promise(async () => ({ receipt, pdf: await receiptPdf(receipt) })))
    })
  ))

/** The same for somebody who waits for it. */
export const downloadReceipt = (accountId: AccountId, sessionId: string, issuer: string) =>
  Effect.suspend((): Effect.Effect<DrawnReceipt | undefined, StoreUnavailable | Overloaded, Postgres> => {
    if (downloads > limits.receiptsWaitingMax) return Effect.fail(new Overloaded({ what: "receipts", retryAfterMs: 1_000 }))
    downloads++
    return drawReceipt(accountId, sessionId, issuer).pipe(Effect.ensuring(Effect.sync(() => { downloads-- })))
  })
