/**
 * Signed tokens, the only home of jose. Three kinds, of which no verifier takes
 * another's; the algorithm (EdDSA) and the issuer (`PUBLIC_URL`) are the same:
 *
 * - the access token of a login (`typ: at+jwt`, `aud: tollgate`, 15 minutes),
 *   signed by login keys, which are published nowhere;
 * - the session of a page that an API key opened (`typ: page+jwt`, `aud: pages`, 8
 *   hours), signed by the same keys. It names the key, and is good for as long as
 *   whoever verifies it finds that key good;
 * - the token forwarded to an agent (`typ: agent+jwt`, `aud`: its endpoint, 2
 *   minutes), signed by agent keys, which are what `jwks` publishes.
 *
 * Guarantee: each verifier demands its own key ring, algorithm, type, audience and
 * issuer, so a forwarded token is no login and a login is no forwarded token. The
 * algorithm is ours, never the token's. A store that is away is never told as a
 * bad token. `expired` is said only of a token that was good.
 *
 * An access token can't be recalled: a logout ends the refresh tokens, and what
 * was signed before ends within 15 minutes.
 *
 * Agent tokens are reused for a minute, as one signature a call would cost as
 * much as the whole relay. `agentTokenNow` is the hot path's lookup; a miss is
 * minted by `agentToken`, once for all who ask at the same time.
 */
import { Clock, Context, Deferred, Effect, Layer, Option, Schema } from "effect"
import { SignJWT, decodeProtectedHeader, errors, jwtVerify } from "jose"
import { Config, limits } from "../../config.ts"
import { type NotConfigured, type StoreUnavailable, Unauthenticated } from "../../domain/errors.ts"
import type { AccountId, AgentId, KeyId, UserId, LoginId } from "../../domain/ids.ts"
import type { Postgres } from "../../store/Postgres.ts"
import type { SigningPurpose } from "../../store/SigningKeyStore.ts"
import { newId } from "../Ids.ts"
import type { Secrets } from "./Secrets.ts"
import { type SigningKeys, makeSigningKeys } from "./SigningKeys.ts"

export const accessTokenTtlMs = 15 * 60_000
export const pageSessionTtlMs = 8 * 3_600_000

const algorithm = "EdDSA"
const audience = "tollgate"
const pageAudience = "pages"

export interface AccessTokenOf {
  readonly userId: UserId
  readonly accountId: AccountId
  readonly loginId: LoginId
  readonly email: string
}
export interface Access {
  readonly userId: UserId
  readonly accountId: AccountId
  readonly loginId: LoginId
  readonly expiresAtMs: number
}
export interface PageSession {
  readonly accountId: AccountId
  readonly keyId: KeyId
  readonly expiresAtMs: number
}
export interface Forwarded {
  readonly accountId: AccountId
  readonly agentId: AgentId
  readonly endpointUrl: string
  readonly session: string | undefined
  readonly expiresAtMs: number
}

const AccessClaims = Schema.Struct({ sub: Schema.String, account: Schema.String, login: Schema.String, exp: Schema.Int })
const PageClaims = Schema.Struct({ sub: Schema.String, account: Schema.String, exp: Schema.Int })
const AgentClaims = Schema.Struct({ sub: Schema.String, agent: Schema.String, aud: Schema.String, session: Schema.optionalKey(Schema.String), exp: Schema.Int })

interface Minted {
  readonly endpointUrl: string
  readonly token: string
  readonly reusedUntilMs: number
}

export class Tokens extends Context.Service<Tokens, {
  readonly accessToken: (of: AccessTokenOf) => Effect.Effect<{ readonly token: string; readonly expiresAtMs: number }, NotConfigured>
  readonly verifyAccess: (token: string) => Effect.Effect<Access, Unauthenticated | StoreUnavailable>
  readonly pageSession: (of: Pick<PageSession, "accountId" | "keyId">) => Effect.Effect<string, NotConfigured>
  /** Says nothing about the key, which may have ended since. */
  readonly verifyPageSession: (token: string) => Effect.Effect<PageSession, Unauthenticated | StoreUnavailable>
  /** A token minted in the last minute for exactly this call. */
  readonly agentTokenNow: (accountId: AccountId, agentId: AgentId, endpointUrl: string, session: string | undefined, nowMs: number) => { readonly token: string; readonly reusedUntilMs: number } | undefined
  readonly agentToken: (accountId: AccountId, agent: { readonly id: AgentId; readonly endpointUrl: string }, session?: string) => Effect.Effect<string, NotConfigured>
  /** The audience is whichever agent it was minted for; the caller compares `session`. */
  readonly verifyAgent: (token: string) => Effect.Effect<Forwarded, Unauthenticated | StoreUnavailable>
  /** RFC 7517. Holds each key a day before it signs: safe to cache that long. */
  readonly jwks: () => { readonly keys: ReadonlyArray<Readonly<Record<string, string>>> }
}>()("tollgate/kernel/identity/Tokens") {
  static readonly layer: Layer.Layer<Tokens, StoreUnavailable, Config | Postgres | Secrets> = Layer.effect(Tokens, Effect.gen(function*() {
    const { publicUrl: issuer } = yield* Config
    const keys = yield* makeSigningKeys
    const sign = makeSign(keys, issuer)
    const verify = makeVerify(keys, issuer)
    return Tokens.of({
      accessToken: Effect.fnUntraced(function*({ userId, accountId, loginId, email }) {
        const { token, expiresAtMs } = yield* sign("login", "at+jwt", accessTokenTtlMs, { sub: userId, aud: audience, account: accountId, login: loginId, email })
        return { token, expiresAtMs }
      }),
      verifyAccess: Effect.fnUntraced(function*(token) {
        const claims = yield* verify("login", "at+jwt", audience, AccessClaims, token)
        return { userId: claims.sub as UserId, accountId: claims.account as AccountId, loginId: claims.login as LoginId, expiresAtMs: claims.exp * 1000 }
      }),
      pageSession: ({ accountId, keyId }) => sign("login", "page+jwt", pageSessionTtlMs, { sub: keyId, aud: pageAudience, account: accountId }).pipe(Effect.map(({ token }) => token)),
      verifyPageSession: Effect.fnUntraced(function*(token) {
        const claims = yield* verify("login", "page+jwt", pageAudience, PageClaims, token)
        return { accountId: claims.account as AccountId, keyId: claims.sub as KeyId, expiresAtMs: claims.exp * 1000 }
      }),
      ...makeAgentTokens(sign),
      verifyAgent: Effect.fnUntraced(function*(token) {
        const claims = yield* verify("agent", "agent+jwt", undefined, AgentClaims, token)
        return { accountId: claims.sub as AccountId, agentId: claims.agent as AgentId, endpointUrl: claims.aud, session: claims.session, expiresAtMs: claims.exp * 1000 }
      }),
      jwks: () => ({ keys: keys.published("agent").map((key) => ({ ...key, alg: algorithm, use: "sig" })) })
    })
  }))
}

type Sign = (purpose: SigningPurpose, typ: string, ttlMs: number, claims: Readonly<Record<string, string>>) =>
  Effect.Effect<{ readonly token: string; readonly mintedAtMs: number; readonly expiresAtMs: number }, NotConfigured>

const makeSign = (keys: SigningKeys, issuer: string): Sign =>
  Effect.fnUntraced(function*(purpose, typ, ttlMs, claims) {
    const { kid, key } = yield* keys.signer(purpose)
    const mintedAtMs = yield* Clock.currentTimeMillis
    const iat = Math.floor(mintedAtMs / 1000)
    const exp = iat + ttlMs / 1000
    const token = yield* Effect.promise(() =>
      new SignJWT({ ...claims, iss: issuer, iat, exp, jti: newId() }).setProtectedHeader({ alg: algorithm, typ, kid }).sign(key))
    return { token, mintedAtMs, expiresAtMs: exp * 1000 }
  })

const makeVerify = (keys: SigningKeys, issuer: string) =>
  Effect.fnUntraced(function*<A>(purpose: SigningPurpose, typ: string, aud: string | undefined, claims: Schema.Decoder<A>, token: string) {
    const header = Option.getOrUndefined(Option.liftThrowable(decodeProtectedHeader)(token))
    if (header?.alg !== algorithm || typeof header.kid !== "string") return yield* new Unauthenticated({ reason: "invalid" })
    const key = yield* keys.verifier(purpose, header.kid)
    if (key === undefined) return yield* new Unauthenticated({ reason: "invalid" })
    const nowMs = yield* Clock.currentTimeMillis
    const { payload } = yield* Effect.tryPromise({
      try: () => jwtVerify(token, key, {
        algorithms: [algorithm], typ, issuer, currentDate: new Date(nowMs), requiredClaims: ["exp", "iat"],
        ...(aud === undefined ? {} : { audience: aud })
      }),
      catch: (error) => new Unauthenticated({ reason: error instanceof errors.JWTExpired ? "expired" : "invalid" })
    })
    const decoded = Schema.decodeUnknownOption(claims)(payload)
    return Option.isSome(decoded) ? decoded.value : yield* new Unauthenticated({ reason: "invalid" })
  })

/** The agent tokens of the last minute, bounded: the one added first leaves first. */
const makeAgentTokens = (sign: Sign) => {
  const minted = new Map<string, Minted>()
  const minting = new Map<string, Deferred.Deferred<string, NotConfigured>>()
  const nameOf = (accountId: AccountId, agentId: AgentId, session: string | undefined): string => `${accountId} ${agentId} ${session ?? ""}`

  const mint = Effect.fnUntraced(function*(name: string, accountId: AccountId, agentId: AgentId, endpointUrl: string, session: string | undefined) {
    const { token, mintedAtMs } = yield* sign("agent", "agent+jwt", limits.agentTokenTtlMs, {
      sub: accountId, aud: endpointUrl, agent: agentId, ...(session === undefined ? {} : { session })
    })
    minted.delete(name)
    if (minted.size >= limits.agentTokenCacheEntries) minted.delete(minted.keys().next().value!)
    minted.set(name, { endpointUrl, token, reusedUntilMs: mintedAtMs + limits.agentTokenReuseMs })
    return token
  })

  const agentTokenNow = (accountId: AccountId, agentId: AgentId, endpointUrl: string, session: string | undefined, nowMs: number): Minted | undefined => {
    const known = minted.get(nameOf(accountId, agentId, session))
    return known !== undefined && nowMs < known.reusedUntilMs && known.endpointUrl === endpointUrl ? known : undefined
  }

  const agentToken = Effect.fnUntraced(function*(accountId: AccountId, agent: { readonly id: AgentId; readonly endpointUrl: string }, session?: string) {
    const known = agentTokenNow(accountId, agent.id, agent.endpointUrl, session, yield* Clock.currentTimeMillis)
    if (known !== undefined) return known.token
    const name = nameOf(accountId, agent.id, session)
    const call = `${name} ${agent.endpointUrl}`
    const underWay = minting.get(call)
    if (underWay !== undefined) return yield* Deferred.await(underWay)
    const token = Deferred.makeUnsafe<string, NotConfigured>()
    minting.set(call, token)
    // The others wait for this one, so it goes on when its own caller leaves.
    return yield* mint(name, accountId, agent.id, agent.endpointUrl, session).pipe(
      Effect.onExit((exit) => {
        minting.delete(call)
        return Deferred.done(token, exit)
      }),
      Effect.uninterruptible
    )
  })
  return { agentTokenNow, agentToken }
}
