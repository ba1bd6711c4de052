/**
 * From a presented credential to its caller.
 *
 * A bounded map remembers credentials that were proved, so that a call in
 * flight costs one look-up; it holds no status, which lives in the account's
 * actor alone, and a call never writes it back. Keys are stored and compared as
 * SHA-256, compared in constant time; logins are signed tokens (`Tokens`).
 * Unknown credentials are remembered for a few seconds, and look-ups under way
 * are bounded: guessing is cheap for us and expensive for the guesser. Calls that
 * come with one credential at the same time share one look-up, so that a burst of
 * a new key, or after a restart, is not taken for guessing.
 */
import { Context, Deferred, Effect, Layer } from "effect"
import { createHash, timingSafeEqual } from "node:crypto"
import { limits } from "../../config.ts"
import { Overloaded, type StoreUnavailable, Unauthenticated } from "../../domain/errors.ts"
import type { KeyId } from "../../domain/ids.ts"
import { findKeyByHash } from "../../store/KeyStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { gauge } from "../../telemetry/Metrics.ts"
import type { Caller } from "../Caller.ts"
import { Tokens } from "./Tokens.ts"

export const hashOfKey = (key: string): Buffer => createHash("sha256").update(key).digest()

/** How an API key of autx begins. */
export const autxPrefix = "autx_live_"

const longestCredential = 4_096

/** A key of acf is `key_id:secret`; a signed token has no colon. */
const isKey = (token: string): boolean => token.startsWith(autxPrefix) || token.includes(":")

export class Credentials extends Context.Service<Credentials, {
  /** The caller of an `Authorization` header that was proved before. */
  readonly known: (authorization: string) => Caller | undefined
  readonly prove: (authorization: string) => Effect.Effect<Caller, Unauthenticated | StoreUnavailable | Overloaded>
  /** Forgets a credential that turned out to be no good any more, so that it is looked up again. */
  readonly forget: (authorization: string) => void
  /** The agent behind a token that it was called with in a chat. Not remembered: it is good for reading that chat only. */
  readonly proveAgent: (authorization: string) => Effect.Effect<Caller, Unauthenticated | StoreUnavailable>
}>()("tollgate/kernel/identity/Credentials") {
  static readonly layer = Layer.effect(Credentials, Effect.gen(function*() {
    const tokens = yield* Tokens
    const postgres = yield* Postgres
    const proved = new Map<string, Caller>()
    const refused = new Map<string, { readonly ms: number; readonly reason: "invalid" | "revoked" }>()
    const underWay = new Map<string, Deferred.Deferred<Caller, Unauthenticated | StoreUnavailable>>()
    gauge("tollgate_credentials_cached", "Credentials remembered as proved", () => proved.size)

    const remember = (authorization: string, caller: Caller): Caller => {
      if (proved.size >= limits.credentialCacheEntries) dropOldest(proved)
      proved.set(authorization, caller)
      return caller
    }
    const proveKey = Effect.fnUntraced(function*(key: string) {
      const hash = hashOfKey(key)
      const row = yield* findKeyByHash(hash).pipe(Effect.provideService(Postgres, postgres))
      if (row === undefined || !timingSafeEqual(row.hash, hash)) return yield* new Unauthenticated({ reason: "invalid" })
      if (row.revoked) return yield* new Unauthenticated({ reason: "revoked" })
      if (row.expiresAtMs <= Date.now()) return yield* new Unauthenticated({ reason: "expired" })
      return { accountId: row.accountId, dialect: row.dialect, kind: "key", subjectId: row.id, loginId: undefined, expiresAtMs: row.expiresAtMs } satisfies Caller
    })
    const proveLogin = (token: string) => tokens.verifyAccess(token).pipe(
      Effect.map(({ accountId, userId, loginId, expiresAtMs }): Caller => ({ accountId, dialect: undefined, kind: "login", subjectId: userId, loginId, expiresAtMs }))
    )
    const lookUp = (authorization: string) => Effect.suspend((): Effect.Effect<Caller, Unauthenticated | StoreUnavailable> => {
      const token = bearer(authorization)
      if (token === undefined) return Effect.fail(new Unauthenticated({ reason: "invalid" }))
      return isKey(token) ? proveKey(token) : proveLogin(token)
    })

    return Credentials.of({
      known: (authorization) => proved.get(authorization),
      forget: (authorization) => { proved.delete(authorization) },
      proveAgent: (authorization) => Effect.suspend(() => {
        const token = bearer(authorization)
        return token === undefined ? Effect.fail(new Unauthenticated({ reason: "invalid" })) : tokens.verifyAgent(token)
      }).pipe(Effect.flatMap(({ accountId, agentId, session, expiresAtMs }): Effect.Effect<Caller, Unauthenticated> => session === undefined
        ? Effect.fail(new Unauthenticated({ reason: "invalid" }))
        : Effect.succeed({ accountId, dialect: undefined, kind: "agent", subjectId: agentId as string as KeyId, loginId: undefined, expiresAtMs, session }))),
      prove: (authorization) => Effect.suspend((): Effect.Effect<Caller, Unauthenticated | StoreUnavailable | Overloaded> => {
        const until = refused.get(authorization)
        if (until !== undefined && until.ms > Date.now()) return Effect.fail(new Unauthenticated({ reason: until.reason }))
        const same = underWay.get(authorization)
        if (same !== undefined) return Deferred.await(same)
        if (underWay.size >= limits.credentialLookupsMax) return Effect.fail(new Overloaded({ what: "credential look-ups", retryAfterMs: 1_000 }))
        const proving = Deferred.makeUnsafe<Caller, Unauthenticated | StoreUnavailable>()
        underWay.set(authorization, proving)
        // The others wait for this one, so it goes on when its own caller leaves.
        return lookUp(authorization).pipe(
          Effect.map((caller) => remember(authorization, caller)),
          Effect.tapErrorTag("Unauthenticated", ({ reason }) => Effect.sync(() => {
            if (reason !== "invalid" && reason !== "revoked" || authorization.length > longestCredential) return
            if (refused.size >= limits.refusedCredentialEntries) dropOldest(refused)
            refused.set(authorization, { ms: Date.now() + limits.refusedCredentialTtlMs, reason })
          })),
          Effect.onExit((exit) => {
            underWay.delete(authorization)
            return Deferred.done(proving, exit)
          }),
          Effect.uninterruptible
        )
      })
    })
  }))
}

const dropOldest = (map: Map<string, unknown>): void => {
  const oldest = map.keys().next()
  if (oldest.done !== true) map.delete(oldest.value)
}

/** The token of `Bearer <token>` (RFC 6750 §2.1; the scheme is case-insensitive, RFC 9110 §11.1). */
const bearer = (authorization: string): string | undefined => {
  if (authorization.length > longestCredential || authorization.slice(0, 7).toLowerCase() !== "bearer ") return undefined
  const token = authorization.slice(7).trim()
  return token === "" || /[^\x21-\x7e]/.test(token) ? undefined : token
}
