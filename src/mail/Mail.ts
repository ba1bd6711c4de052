/**
 * Letters to users that hold a secret: a link to verify an email or to reset a
 * password. `send` hands one over and returns at once, so that a mail server
 * that is away fails no call; what becomes of it is the layer's own business.
 *
 * `layerSmtp` tries for some minutes. The link is stored nowhere, so a letter
 * waits in memory only: a crash, a server that stays away or a full queue lose
 * it, and its user asks for another. What must arrive goes through
 * `kernel/Outbox.ts`.
 *
 * `layerLog`, for a gateway without SMTP, delivers to the operator's log. It is
 * the one place where a secret may be logged: the link is of no use to anybody
 * but the reader of that log, who has to pass it on.
 */
import { Context, Effect, FiberSet, Layer, Schedule } from "effect"
import { randomUUID } from "node:crypto"
import { limits } from "../config.ts"
import { log } from "../telemetry/log.ts"
import { metrics } from "../telemetry/Metrics.ts"
import { type NotDelivered, Smtp } from "./Smtp.ts"

export interface Letter {
  readonly to: string
  readonly subject: string
  /** Plain text; its first URL is what the letter is about. */
  readonly text: string
}

/** 2, 8, 32 and 128 s after the try before. */
const waits = Schedule.exponential("2 seconds", 4)
const retriesMax = 4
/** A stop waits this long for letters under way. */
const graceMs = 3_000

export class Mail extends Context.Service<Mail, {
  readonly send: (letter: Letter) => Effect.Effect<void>
}>()("tollgate/mail/Mail") {
  static readonly layerLog = Layer.succeed(Mail, Mail.of({
    send: ({ to, subject, text }) => Effect.sync(() => {
      log.info({ to, subject, link: /https?:\/\/\S+/.exec(text)?.[0] }, "no SMTP server is configured: pass this link on")
    })
  }))

  static readonly layerSmtp = Layer.effect(Mail, Effect.gen(function*() {
    const { deliver } = yield* Smtp
    const waiting = yield* FiberSet.make()
    yield* Effect.addFinalizer(() => FiberSet.awaitEmpty(waiting).pipe(Effect.timeoutOption(graceMs)))
    const give = (letter: Letter) => Effect.suspend(() => {
      const id = randomUUID()
      return deliver({ ...letter, id }).pipe(
        Effect.retry({ schedule: waits, times: retriesMax, while: ({ permanent }: NotDelivered) => !permanent }),
        Effect.catch(({ why }) => Effect.sync(() => lose(letter, why)))
      )
    })
    return Mail.of({
      send: (letter) => Effect.flatMap(FiberSet.size(waiting), (size) => size < limits.lettersWaitingMax
        ? Effect.asVoid(FiberSet.run(waiting, give(letter)))
        : Effect.sync(() => lose(letter, "too many wait")))
    })
  }))
}

const lose = ({ subject }: Letter, why: string): void => {
  metrics.lettersFailed.inc()
  log.warn({ subject, why }, "a letter was lost, its user has to ask again")
}
