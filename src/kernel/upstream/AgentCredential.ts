/**
 * What an agent is shown to know the gateway by, according to its `auth_tier`:
 * a signed token that names the caller's account (`jwt_default`), or the key of
 * the agent's provider that its owner has deposited (`buyer_key`), or nothing
 * (`none`). The caller's own credential never leaves the gateway.
 */
import { Context, Effect, Layer } from "effect"
import type { Agent } from "../../domain/agent.ts"
import type { NotConfigured } from "../../domain/errors.ts"
import type { AccountId, SessionId } from "../../domain/ids.ts"
import { providerKeyPurpose } from "../Listings.ts"
import type { Caller } from "../Caller.ts"
import type { Header } from "../Relay.ts"
import { Secrets } from "../identity/Secrets.ts"
import { Tokens } from "../identity/Tokens.ts"

const none: ReadonlyArray<Header> = []

export class AgentCredential extends Context.Service<AgentCredential, {
  /** Without waiting, when a token is at hand. */
  readonly now: (agent: Agent, caller: Caller, nowMs: number) => ReadonlyArray<Header> | undefined
  /** `session`: of a chat, whose messages its agent may read with the token. */
  readonly get: (agent: Agent, accountId: AccountId, session?: SessionId) => Effect.Effect<ReadonlyArray<Header>, NotConfigured>
}>()("tollgate/kernel/upstream/AgentCredential") {
  static readonly layer = Layer.effect(AgentCredential, Effect.gen(function*() {
    const tokens = yield* Tokens
    const secrets = yield* Secrets
    /** What each caller's last call carried: most call the same version of the same agent again. */
    const latest = new WeakMap<Caller, { readonly agent: Agent; readonly untilMs: number; readonly headers: ReadonlyArray<Header> }>()
    return AgentCredential.of({
      now: (agent, caller, nowMs) => {
        if (agent.authTier !== "jwt_default") return agent.authTier === "none" || agent.providerKey === undefined ? none : undefined
        const last = latest.get(caller)
        if (last !== undefined && last.agent === agent && nowMs < last.untilMs) return last.headers
        const known = tokens.agentTokenNow(caller.accountId, agent.id, agent.endpointUrl, undefined, nowMs)
        if (known === undefined) return undefined
        const headers = [bearer(known.token)]
        latest.set(caller, { agent, untilMs: known.reusedUntilMs, headers })
        return headers
      },
      get: (agent, accountId, session) => {
        if (agent.authTier === "jwt_default") return tokens.agentToken(accountId, agent, session).pipe(Effect.map((token) => [bearer(token)]))
        if (agent.authTier === "none" || agent.providerKey === undefined) return Effect.succeed(none)
        return secrets.open(providerKeyPurpose, agent.id, agent.providerKey).pipe(Effect.map((key) => {
          const text = key.toString("utf8")
          return [agent.provider === "anthropic" ? ["x-api-key", text] as const : bearer(text)]
        }))
      }
    })
  }))
}

const bearer = (token: string): Header => ["authorization", `Bearer ${token}`]
