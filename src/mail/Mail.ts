/**
 * Mail to users. `send` hands a letter over and returns at once; delivery is
 * the layer's own business, so that a mail server that is away fails no call.
 *
 * `layerLog`, for a gateway without SMTP, delivers to the operator's log. It is
 * the one place where a secret may be logged: the link is of no use to anybody
 * but the reader of that log, who has to pass it on.
 */
import { Context, Effect, Layer } from "effect"
import { log } from "../telemetry/log.ts"

export interface Letter {
  readonly to: string
  readonly subject: string
  /** Plain text; its first URL is what the letter is about. */
  readonly text: string
}

export class Mail extends Context.Service<Mail, {
  readonly send: (letter: Letter) => Effect.Effect<void>
}>()("tollgate/mail/Mail") {
  static readonly layerLog = Layer.succeed(Mail, Mail.of({
    send: ({ to, subject, text }) => Effect.sync(() => {
      log.info({ to, subject, link: /https?:\/\/\S+/.exec(text)?.[0] }, "no SMTP server is configured: pass this link on")
    })
  }))
}
