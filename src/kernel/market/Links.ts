/**
 * Accounts of two dialects that are the same owner's become one: whoever is
 * logged in to one shows a key of the other (`store/market/LinkStore.ts`).
 */
import { Context, Effect, Layer } from "effect"
import { AlreadyExists, AccountSuspended, type GatewayError, NotCommitted } from "../../domain/errors.ts"
import type { AccountId } from "../../domain/ids.ts"
import { mergeAccounts } from "../../store/market/LinkStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { Accounts } from "../AccountActor.ts"
import { Admission } from "../Admission.ts"
import { Agents } from "../AgentActor.ts"
import { actorOf } from "../AuditTrail.ts"
import type { Caller } from "../Caller.ts"
import { newId } from "../Ids.ts"
import { Throttle } from "../identity/Throttle.ts"
import { Ledger } from "../Ledger.ts"
import { Webhooks } from "../webhooks/Webhooks.ts"
import { Owners } from "./Owners.ts"
import { brokenInBody } from "./rules.ts"

export interface Linked {
  readonly dialect: string
  readonly owner: string
  readonly available: bigint
}

/** Dialects whose accounts have keys and no logins. */
const linkable = ["acf"]

export class Links extends Context.Service<Links, {
  /** Durable when answered, with the balance of both. Linking again changes nothing. `AlreadyExists`: one of the two is linked with somebody else. */
  readonly link: (caller: Caller, dialect: string, key: string, remoteAddress: string) => Effect.Effect<Linked, GatewayError>
}>()("tollgate/kernel/market/Links") {
  static readonly layer = Layer.effect(Links, Effect.gen(function*() {
    const accounts = yield* Accounts
    const admission = yield* Admission
    const agents = yield* Agents
    const ledger = yield* Ledger
    const owners = yield* Owners
    const { run } = yield* Postgres
    const throttle = yield* Throttle
    const webhooks = yield* Webhooks

    const prove = Effect.fnUntraced(function*(dialect: string, key: string) {
      const { caller, error } = yield* admission.admit(`Bearer ${key}`, { dialect, auth: "key", uncounted: true })
      return error === undefined ? caller! : yield* error
    })

    const merge = Effect.fnUntraced(function*(caller: Caller, other: Caller, owner: string) {
      const merged = yield* run((sql) => mergeAccounts(sql, {
        from: other.accountId, into: caller.accountId, transactionId: newId(), batchId: newId(), auditId: newId(), actor: actorOf(caller), atMs: Date.now()
      }))
      switch (merged) {
        case "taken": return yield* new AlreadyExists({ what: "link", id: owner })
        case "suspended": return yield* new AccountSuspended()
        case "busy": return yield* new NotCommitted({ retryAfterMs: 1_000 })
      }
      // Their activations are of before; other nodes are told by the transaction.
      accounts.forget(other.accountId)
      accounts.forget(caller.accountId)
      agents.forgetAll()
      webhooks.heard(other.accountId)
      webhooks.heard(caller.accountId)
    })

    return Links.of({
      link: Effect.fn("Links.link")(function*(caller, dialect, key, remoteAddress) {
        if (!linkable.includes(dialect)) return yield* brokenInBody("dialect", `must be one of ${linkable.join(", ")}`)
        const other = yield* throttle.key(remoteAddress, prove(dialect, key))
        const owner = yield* owners.nameOf(other.accountId)
        const [first, second] = [caller.accountId, other.accountId].sort() as [AccountId, AccountId]
        const merged = first === second ? Effect.void : merge(caller, other, owner)
        const { available } = yield* merged.pipe(
          Effect.andThen(ledger.sweep(caller.accountId, true)),
          Effect.andThen(ledger.balance(caller.accountId)),
          (linking) => accounts.borrowed(first, accounts.borrowed(second, linking))
        )
        return { dialect, owner, available }
      })
    })
  }))
}
