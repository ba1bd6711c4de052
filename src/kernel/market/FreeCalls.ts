/**
 * How many calls an account has made to an agent, for the free tier
 * (`domain/freeTier.ts`). The counts are part of the account's state on this
 * node and outlive its activations; each activation looks them up once more,
 * because the account may have been elsewhere.
 */
import { Context, Effect, Layer } from "effect"
import type { Account } from "../../domain/account.ts"
import { NotCommitted, type StoreUnavailable } from "../../domain/errors.ts"
import { knowsCalls, learnCalls } from "../../domain/freeTier.ts"
import type { AccountId, AgentId } from "../../domain/ids.ts"
import { countCallsTo } from "../../store/market/CallCountStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { UsageBuffer } from "../../store/UsageBuffer.ts"
import { type AccountError, Accounts } from "../AccountActor.ts"

/** An account that changes hands more often than this while it is looked up is not to be charged now. */
const triesMax = 3

export class FreeCalls extends Context.Service<FreeCalls, {
  readonly isKnown: (account: Account, agentId: AgentId) => boolean
  /** Looks the count up unless it is known. */
  readonly load: (accountId: AccountId, agentId: AgentId) => Effect.Effect<void, AccountError | StoreUnavailable | NotCommitted>
}>()("tollgate/kernel/market/FreeCalls") {
  static readonly layer = Layer.effect(FreeCalls, Effect.gen(function*() {
    const accounts = yield* Accounts
    const postgres = yield* Postgres
    const usage = yield* UsageBuffer
    return FreeCalls.of({
      isKnown: ({ calls, token }, agentId) => knowsCalls(calls, agentId, token),
      load: Effect.fnUntraced(function*(accountId, agentId) {
        for (let tries = 0; tries < triesMax; tries++) {
          const before = yield* accounts.ask(accountId, ({ calls, token }) => ({ token, isKnown: knowsCalls(calls, agentId, token) }))
          if (before.isKnown) return
          yield* usage.flush
          const count = yield* countCallsTo(accountId, agentId).pipe(Effect.provideService(Postgres, postgres))
          // Under another activation by now: calls elsewhere may have come between.
          yield* accounts.ask(accountId, ({ calls, token }) => { if (token === before.token) learnCalls(calls, agentId, count, token) })
        }
        return yield* new NotCommitted({ retryAfterMs: 1_000 })
      })
    })
  }))
}
