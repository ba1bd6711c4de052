/**
 * Sends the letters that must arrive: receipts of closed sessions.
 *
 * Overview. The commit that closes a session writes the letter as a row, so
 * there is a letter exactly when there is a closed session to tell about. This
 * worker, one in each node, claims rows that are due, draws the receipt, hands
 * the letter to the mail server, and marks the row.
 *
 *   due ──claim──▶ claimed ──taken by the server──▶ sent
 *    ▲                │
 *    ├──── backoff ◀──┤ not delivered                    1 min, doubling up to 1 h, ± 20 %
 *    ├──── lease ends ┘ the node died
 *    └─────────────▶ given up: after 3 days, or when the server refuses the recipient for good
 *
 * Guarantee. At least once. Two nodes never send the same letter at the same
 * time. It is sent twice when a node dies, or loses the database for more than
 * half a minute, between the server's answer and the mark, or when the server's
 * answer is lost; both copies have the same Message-ID, so that receivers can
 * drop the second one.
 *
 * Failure cases. No mail server: letters wait, and the calls that write them
 * don't notice. No database: the worker looks again every 15 s. A stop: letters
 * under way have some seconds to end, then their claim runs out.
 *
 * Why no row is locked while its letter is sent: a slow mail server would hold
 * a transaction open, and a connection with it.
 */
import { type Cause, Context, Effect, Fiber, Layer, Queue, Schedule } from "effect"
import { Config, limits } from "../config.ts"
import { formatUsd } from "../domain/credits.ts"
import { type Delivery, NotDelivered, Smtp } from "../mail/Smtp.ts"
import { type ClaimedLetter, claimLetters, lettersWaiting, markFailed, markSent } from "../store/LetterStore.ts"
import { log } from "../telemetry/log.ts"
import { gauge, metrics } from "../telemetry/Metrics.ts"
import { type DrawnReceipt, drawReceipt } from "./Receipts.ts"

const pollMs = 15_000
const backoffFirstMs = 60_000
const backoffMaxMs = 3_600_000
const keepMs = 3 * 24 * 3_600_000
/** Drawing, waiting for a connection, and handing over. */
const sendMs = 90_000
/** A letter's mark, when the database is away. */
const markEveryMs = 2_000
const marksMax = 15
/** Longer than sending and marking take. */
const leaseMs = 150_000
const graceMs = 3_000

/** A failed letter's wait before it is tried again; `random` is from 0 to 1. */
export const backoffMs = (attempts: number, random: number): number =>
  Math.min(backoffFirstMs * 2 ** (attempts - 1), backoffMaxMs) * (0.8 + 0.4 * random)

export class Outbox extends Context.Service<Outbox, {
  /** There is a new letter, already committed. Without it the letter waits for the next look. */
  readonly wake: () => void
}>()("tollgate/kernel/Outbox") {
  static readonly layer = Layer.effect(Outbox, Effect.gen(function*() {
    const wakes = yield* Queue.sliding<void>(1)
    let stopping = false
    let waiting = NaN
    gauge("tollgate_letters_waiting", "Letters of all gateways that are still to be sent", () => waiting)
    const count = Effect.map(lettersWaiting, (found) => { waiting = found })
    const round = sendDue.pipe(
      Effect.repeat({ while: (claimed) => claimed > 0 && !stopping }),
      Effect.andThen(count),
      Effect.catchCause((cause) => Effect.sync(() => later(cause)))
    )
    const worker = yield* round.pipe(
      Effect.andThen(Queue.take(wakes).pipe(Effect.timeoutOption(pollMs))),
      Effect.repeat({ until: () => stopping }),
      Effect.forkScoped
    )
    yield* Effect.addFinalizer(() => {
      stopping = true
      Queue.offerUnsafe(wakes, undefined)
      return Fiber.await(worker).pipe(Effect.timeoutOption(graceMs))
    })
    return Outbox.of({ wake: () => void Queue.offerUnsafe(wakes, undefined) })
  }))

  /** Without a mail server no letter is written. */
  static readonly layerNone = Layer.succeed(Outbox, Outbox.of({ wake: () => {} }))
}

const later = (cause: Cause.Cause<unknown>): void => log.warn({ cause: String(cause) }, "letters can't be sent now, will be tried again")

/** Claims as many letters as can be under way at once, and answers how many that were. */
const sendDue = Effect.gen(function*() {
  const letters = yield* claimLetters(limits.lettersUnderWayMax, leaseMs)
  yield* Effect.forEach(letters, (letter) => sendOne(letter).pipe(Effect.catchCause((cause) => Effect.sync(() => later(cause)))), { concurrency: "unbounded", discard: true })
  return letters.length
})

const sendOne = Effect.fnUntraced(function*(letter: ClaimedLetter) {
  const failure = yield* write(letter).pipe(
    Effect.flatMap((delivery) => Smtp.use(({ deliver }) => deliver(delivery))),
    Effect.timeoutOrElse({ duration: sendMs, orElse: () => Effect.fail(new NotDelivered({ permanent: false, why: "it took too long" })) }),
    Effect.as(undefined),
    Effect.catchDefect((defect) => Effect.sync(() => log.error({ err: defect, letter: letter.id }, "a letter can't be written")).pipe(
      Effect.andThen(Effect.fail(new NotDelivered({ permanent: false, why: "it can't be written" })))
    )),
    Effect.catchTag("NotDelivered", (notDelivered) => Effect.succeed(notDelivered))
  )
  // What is sent and not marked would be sent again.
  yield* mark(letter, failure).pipe(Effect.retry({ schedule: Schedule.spaced(markEveryMs), times: marksMax }))
})

const mark = Effect.fnUntraced(function*({ id, sessionId, attempts }: ClaimedLetter, failure: NotDelivered | undefined) {
  if (failure === undefined) return yield* markSent(id)
  const { permanent, why } = failure
  const isLost = yield* markFailed(id, { why, retryMs: backoffMs(attempts, Math.random()), keepMs: permanent ? undefined : keepMs })
  if (isLost) metrics.lettersFailed.inc()
  log.warn({ letter: id, session: sessionId, attempts, why }, isLost ? "a letter was given up" : "a letter was not delivered, will be tried again")
})

const write = Effect.fnUntraced(function*({ id, accountId, sessionId }: ClaimedLetter) {
  const { publicUrl } = yield* Config
  const drawn = yield* drawReceipt(accountId, sessionId, publicUrl)
  return drawn === undefined ? yield* new NotDelivered({ permanent: true, why: "there is no such session" }) : letterOf(id, drawn)
})

/** Says nothing that a stranger wrote: an agent's name stands on the receipt only. */
const letterOf = (id: string, { receipt: { agent, billedTo, sessionId, total, issuer }, pdf }: DrawnReceipt): Delivery => ({
  id,
  to: billedTo,
  subject: `Receipt: $${formatUsd(total)} for your chat with ${agent.ticker}`,
  text: `Your chat session with the agent ${agent.ticker} is closed. Its receipt is attached.\n\nSession: ${sessionId}\nTotal: $${formatUsd(total)}, paid from your prepaid credits\n\nNothing is left to pay.\n\n${issuer}\n`,
  pdf: { name: `receipt-${sessionId}.pdf`, content: pdf }
})
