/**
 * `npm run credit -- <email> <usd> <reason>`: adds to an account's credits, or
 * takes back when the amount has a leading `-`. One adjustment with its audit
 * row; a gateway that runs knows it a moment later. Never takes an account below
 * zero. Not idempotent: an answer that was lost names what to look for.
 */
import { type Credits, formatUsd, parseUsd } from "../src/domain/credits.ts"
import { parseEmail } from "../src/domain/email.ts"
import type { TransactionId } from "../src/domain/ids.ts"
import { newId } from "../src/kernel/Ids.ts"
import { OperatorFailure, operate } from "../src/store/OperatorConnection.ts"
import { creditAccount } from "../src/store/OperatorStore.ts"
import { verdictOf } from "../src/store/Postgres.ts"

const usage = "usage: npm run credit -- <email> <usd> <reason>, e.g. ada@example.com 5.00 \"refund of June\"; -5.00 takes back"

/** The account's owner reads it with the transaction. */
const reasonCharsMax = 200

interface Wanted {
  readonly email: string
  readonly amount: Credits
  readonly reason: string
}

const read = ([emailText = "", amountText = "", ...words]: ReadonlyArray<string>): Wanted => {
  const reason = words.join(" ").trim()
  if (reason === "") throw new OperatorFailure(usage)
  const email = parseEmail(emailText)
  if (email === undefined) throw new OperatorFailure(`${JSON.stringify(emailText)} is not an email address; ${usage}`)
  const takesBack = amountText.startsWith("-")
  const amount = parseUsd(takesBack ? amountText.slice(1) : amountText)
  if (amount === undefined || amount === 0n) throw new OperatorFailure(`${JSON.stringify(amountText)} is not an amount in dollars with at most 6 decimals, other than 0; ${usage}`)
  if (reason.length > reasonCharsMax || /\p{Cc}/u.test(reason)) throw new OperatorFailure(`the reason must be one line of at most ${reasonCharsMax} characters`)
  return { email, amount: takesBack ? -amount : amount, reason }
}

await operate("credit", read, async (sql, { email, amount, reason }) => {
  const transactionId = newId<TransactionId>()
  const credited = await creditAccount(sql, { email, amount, reason, transactionId, batchId: newId(), auditId: newId(), atMs: Date.now() }).catch((cause: unknown) => {
    if (verdictOf(cause) !== "unknown") throw cause
    throw new OperatorFailure(`the connection was lost before the answer came (${String(cause)}): repeat it only if there is no transaction ${transactionId}`)
  })
  switch (credited._tag) {
    case "unknownEmail": throw new OperatorFailure(`nobody is registered as ${email}`)
    case "short": throw new OperatorFailure(`${email} has $${formatUsd(credited.available)} available, so $${formatUsd(-amount)} can't be taken back; nothing was done`)
    case "credited":
      console.log(`${amount > 0n ? "credited" : "took back"} $${formatUsd(amount > 0n ? amount : -amount)}: ${email} has $${formatUsd(credited.available)} available (transaction ${transactionId})`)
      return 0
  }
})
