/** Running an effect for somebody who does not run effects: at once as far as it goes, and never throwing. */
import { Cause, Effect } from "effect"
import { NotCommitted } from "../domain/errors.ts"
import { log } from "../telemetry/log.ts"

/** Exactly one of the two is called. A defect is logged, and told as a failure that is safe to retry. */
export const attempt = <A, E>(effect: Effect.Effect<A, E>, done: (value: A) => void, failed: (error: E | NotCommitted) => void = () => {}): void => {
  Effect.runCallback(effect, {
    onExit: (exit) => {
      if (exit._tag === "Success") return done(exit.value)
      const reason = exit.cause.reasons[0]
      if (reason?._tag === "Fail") return failed(reason.error)
      log.error({ err: Cause.squash(exit.cause) }, "defect")
      failed(new NotCommitted({ retryAfterMs: 1_000 }))
    }
  })
}
