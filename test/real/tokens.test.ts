import { describe, expect, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { TestClock } from "effect/testing"
import { SignJWT, type JWTPayload, createLocalJWKSet, decodeJwt, decodeProtectedHeader, generateKeyPair, importJWK, jwtVerify } from "jose"
import { StoreUnavailable, Unauthenticated } from "../../src/domain/errors.ts"
import type { AccountId, AgentId, LoginId, UserId } from "../../src/domain/ids.ts"
import { newId } from "../../src/kernel/Ids.ts"
import type { Postgres } from "../../src/store/Postgres.ts"
import * as SigningKeyStore from "../../src/store/SigningKeyStore.ts"
import { database, startNode } from "../support/loginNode.ts"

const issuer = "http://localhost:8080"
const someone = () => ({ userId: newId<UserId>(), accountId: newId<AccountId>(), loginId: newId<LoginId>(), email: "ada@example.com" })
const someAgent = () => ({ id: newId<AgentId>(), endpointUrl: "https://agent.example.com/run" })

const invalid = Result.fail(new Unauthenticated({ reason: "invalid" }))

/** The newest private key of a ring, as who can read the database finds it. */
const stolenKey = Effect.fnUntraced(function*(postgres: Postgres["Service"], purpose: "login" | "agent") {
  const row = (yield* postgres.run(SigningKeyStore.list)).findLast((key) => key.purpose === purpose)!
  return { row, key: yield* Effect.promise(async () => importJWK(JSON.parse(row.privateJwk.toString()), "EdDSA")) }
})

describe("the access token of a login", () => {
  it.effect("names the user, the account and the login for 15 minutes", () => Effect.gen(function*() {
    const { tokens } = yield* startNode(yield* database)
    const who = someone()
    const { token, expiresAtMs } = yield* tokens.accessToken(who)
    expect(expiresAtMs).toBe(900_000)
    expect(decodeProtectedHeader(token)).toMatchObject({ alg: "EdDSA", typ: "at+jwt" })
    expect(decodeJwt(token)).toMatchObject({ iss: issuer, aud: "tollgate", sub: who.userId, email: who.email, exp: 900 })
    yield* TestClock.adjust("899 seconds")
    expect(yield* tokens.verifyAccess(token)).toEqual({ userId: who.userId, accountId: who.accountId, loginId: who.loginId, expiresAtMs })
    yield* TestClock.adjust("1 second")
    expect(yield* Effect.result(tokens.verifyAccess(token))).toEqual(Result.fail(new Unauthenticated({ reason: "expired" })))
  }))

  it.effect("is refused when one claim, the type, the algorithm or the key is another", () => Effect.gen(function*() {
    const { tokens, postgres } = yield* startNode(yield* database)
    const { row, key } = yield* stolenKey(postgres, "login")
    const good = { iss: issuer, aud: "tollgate", sub: "u", account: "a", login: "l", iat: 0, exp: 900 }
    const header = { alg: "EdDSA", typ: "at+jwt", kid: row.kid }
    const other = yield* Effect.promise(() => generateKeyPair("EdDSA"))
    const signed = (claims: JWTPayload, head: typeof header, by: Parameters<SignJWT["sign"]>[0] = key) =>
      Effect.promise(() => new SignJWT(claims).setProtectedHeader(head).sign(by))
    const without = (name: keyof typeof good) => Object.fromEntries(Object.entries(good).filter(([claim]) => claim !== name))

    // The same forger's hand makes an acceptable token, so each refusal below is due to its one difference.
    expect(yield* tokens.verifyAccess(yield* signed(good, header))).toMatchObject({ userId: "u" })

    const text = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url")
    const publicBytes = Buffer.from(row.publicJwk.x, "base64url")
    const [head, body, signature] = (yield* signed(good, header)).split(".")
    const forged = {
      "wrong typ": yield* signed(good, { ...header, typ: "agent+jwt" }),
      "no typ": yield* signed(good, { alg: "EdDSA", kid: row.kid } as typeof header),
      "wrong aud": yield* signed({ ...good, aud: "https://agent.example.com" }, header),
      "wrong iss": yield* signed({ ...good, iss: "http://elsewhere" }, header),
      "no exp": yield* signed(without("exp"), header),
      "no account": yield* signed(without("account"), header),
      "other key": yield* signed(good, header, other.privateKey),
      "unknown kid": yield* signed(good, { ...header, kid: "elsewhere" }),
      "no kid": yield* signed(good, { alg: "EdDSA", typ: "at+jwt" } as typeof header),
      "HS256 keyed with the public key": yield* signed(good, { ...header, alg: "HS256" }, publicBytes),
      "alg none": `${text({ ...header, alg: "none" })}.${text(good)}.`,
      "no signature": `${head}.${body}.`,
      "another body": `${head}.${text({ ...good, sub: "somebody" })}.${signature}`,
      "not a token": "x",
      "nothing": ""
    }
    for (const [name, token] of Object.entries(forged)) {
      expect(yield* Effect.result(tokens.verifyAccess(token)), name).toEqual(invalid)
    }
  }))
})

describe("the token forwarded to an agent", () => {
  it.effect("is verifiable by the published keys alone, and for its agent alone", () => Effect.gen(function*() {
    const { tokens } = yield* startNode(yield* database)
    const agent = someAgent()
    const caller = newId<AccountId>()
    const token = yield* tokens.agentToken(caller, agent, "ses_1")
    const keys = createLocalJWKSet(tokens.jwks() as never)
    const verified = yield* Effect.promise(() => jwtVerify(token, keys, { issuer, audience: agent.endpointUrl, typ: "agent+jwt", currentDate: new Date(119_000) }))
    expect(verified.payload).toMatchObject({ sub: caller, agent: agent.id, session: "ses_1", exp: 120, jti: expect.any(String) })
    expect(yield* tokens.verifyAgent(token)).toEqual({ accountId: caller, agentId: agent.id, endpointUrl: agent.endpointUrl, session: "ses_1", expiresAtMs: 120_000 })
    yield* TestClock.adjust("120 seconds")
    expect(yield* Effect.result(tokens.verifyAgent(token))).toEqual(Result.fail(new Unauthenticated({ reason: "expired" })))
  }))

  it.effect("is no login, and a login is no forwarded token, even when signed by the other's key", () => Effect.gen(function*() {
    const { tokens, postgres } = yield* startNode(yield* database)
    const who = someone()
    const forwarded = yield* tokens.agentToken(who.accountId, someAgent())
    const { token: access } = yield* tokens.accessToken(who)
    expect(yield* Effect.result(tokens.verifyAccess(forwarded))).toEqual(invalid)
    expect(yield* Effect.result(tokens.verifyAgent(access))).toEqual(invalid)

    const agents = yield* stolenKey(postgres, "agent")
    const logins = yield* stolenKey(postgres, "login")
    const resigned = (token: string, { row, key }: typeof agents) => Effect.promise(() =>
      new SignJWT(decodeJwt(token)).setProtectedHeader({ ...decodeProtectedHeader(token), alg: "EdDSA", kid: row.kid }).sign(key))
    expect(yield* Effect.result(tokens.verifyAccess(yield* resigned(access, agents)))).toEqual(invalid)
    expect(yield* Effect.result(tokens.verifyAccess(yield* resigned(forwarded, logins)))).toEqual(invalid)
    expect(yield* Effect.result(tokens.verifyAgent(yield* resigned(access, agents)))).toEqual(invalid)
    expect(yield* Effect.result(tokens.verifyAgent(yield* resigned(forwarded, logins)))).toEqual(invalid)
    expect(yield* tokens.verifyAgent(yield* resigned(forwarded, agents))).toMatchObject({ accountId: who.accountId })
  }))

  it.effect("is reused for a minute by the same caller, agent, address and session, and by no other", () => Effect.gen(function*() {
    const { tokens } = yield* startNode(yield* database)
    const agent = someAgent()
    const caller = newId<AccountId>()
    const now = (nowMs: number, endpointUrl = agent.endpointUrl, session?: string) => tokens.agentTokenNow(caller, agent.id, endpointUrl, session, nowMs)?.token
    expect(now(0)).toBeUndefined()
    const [first, ...others] = yield* Effect.all(Array.from({ length: 50 }, () => tokens.agentToken(caller, agent)), { concurrency: "unbounded" })
    expect(new Set([first, ...others]).size).toBe(1)
    expect(now(59_999)).toBe(first)
    expect(now(60_000)).toBeUndefined()
    expect(now(0, "https://agent.example.com/moved")).toBeUndefined()
    expect(now(0, agent.endpointUrl, "ses_1")).toBeUndefined()
    expect(tokens.agentTokenNow(newId<AccountId>(), agent.id, agent.endpointUrl, undefined, 0)).toBeUndefined()
    const moved = yield* tokens.agentToken(caller, { ...agent, endpointUrl: "https://agent.example.com/moved" })
    expect(decodeJwt(moved).aud).toBe("https://agent.example.com/moved")
    yield* TestClock.adjust("60 seconds")
    expect(yield* tokens.agentToken(caller, agent)).not.toBe(first)
  }))
})

describe("the signing keys", () => {
  it.effect("are one pair of rings when two nodes start at once on an empty database", () => Effect.gen(function*() {
    const connection = yield* database
    const [one, two] = yield* Effect.all([startNode(connection), startNode(connection)], { concurrency: 2 })
    expect((yield* one.postgres.run(SigningKeyStore.list)).map((key) => [key.purpose, key.generation])).toEqual([["agent", 0], ["login", 0]])
    expect(one.tokens.jwks()).toEqual(two.tokens.jwks())
    const who = someone()
    const { token } = yield* one.tokens.accessToken(who)
    expect(yield* two.tokens.verifyAccess(token)).toMatchObject({ userId: who.userId })
    expect(yield* two.tokens.verifyAgent(yield* one.tokens.agentToken(who.accountId, someAgent()))).toMatchObject({ accountId: who.accountId })
  }))

  it.effect("of logins are published nowhere, and no private part is", () => Effect.gen(function*() {
    const { tokens, postgres } = yield* startNode(yield* database)
    const agentKids = (yield* postgres.run(SigningKeyStore.list)).filter((key) => key.purpose === "agent").map((key) => key.kid)
    expect(tokens.jwks().keys.map((key) => key["kid"])).toEqual(agentKids)
    expect(Object.keys(tokens.jwks().keys[0]!).sort()).toEqual(["alg", "crv", "kid", "kty", "use", "x"])
  }))

  it.effect("are sealed at rest when there is a SECRETS_KEY", () => Effect.gen(function*() {
    const connection = yield* database
    const settings = { secretsKey: "a secrets key of at least 32 characters" }
    const { tokens, postgres } = yield* startNode(connection, { settings })
    const rows = yield* postgres.run(SigningKeyStore.list)
    expect(rows.map((row) => row.sealed)).toEqual([true, true])
    expect(rows.map((row) => row.privateJwk.toString("latin1")).join()).not.toContain("\"d\"")
    const again = yield* startNode(connection, { settings })
    const { token } = yield* again.tokens.accessToken(someone())
    yield* tokens.verifyAccess(token)
  }))

  it.effect("rotate with a day's notice and a day's overlap, so that no good token is refused", () => Effect.gen(function*() {
    const connection = yield* database
    const node = yield* startNode(connection)
    const [first] = node.tokens.jwks().keys
    const kidNow = Effect.map(Effect.suspend(() => node.tokens.agentToken(newId<AccountId>(), someAgent())), (token) => decodeProtectedHeader(token).kid)
    /** Lets the node's upkeep come round, whose database work takes real time. */
    const published = Effect.fnUntraced(function*(count: number) {
      while (node.tokens.jwks().keys.length !== count) {
        yield* TestClock.adjust("10 seconds")
        yield* Effect.promise(() => new Promise(setImmediate))
      }
    })

    yield* TestClock.adjust("29 days")
    yield* published(2)
    expect(yield* kidNow).toBe(first!["kid"])
    const signsAtMs = (yield* node.postgres.run(SigningKeyStore.list)).find((key) => key.kid === node.tokens.jwks().keys[1]!["kid"])!.signsAt.getTime()
    expect(signsAtMs).toBeGreaterThanOrEqual(30 * 86_400_000)
    yield* TestClock.setTime(signsAtMs - 1)
    expect(yield* kidNow).toBe(first!["kid"])
    const who = someone()
    const forwarded = yield* node.tokens.agentToken(who.accountId, someAgent())
    yield* TestClock.adjust("1 millis")
    expect(yield* kidNow).toBe(node.tokens.jwks().keys[1]!["kid"])
    yield* TestClock.adjust("118 seconds")
    const late = yield* startNode(connection)
    expect(yield* late.tokens.verifyAgent(forwarded)).toMatchObject({ accountId: who.accountId })
    yield* TestClock.adjust("1 day")
    yield* published(1)
    expect(node.tokens.jwks().keys[0]).not.toEqual(first)
  }))

  it.effect("that another node has made are found by their first token, but looked for at most once in ten seconds", () => Effect.gen(function*() {
    const connection = yield* database
    let reads = 0
    const node = yield* startNode(connection, { store: (postgres) => ({ ...postgres, run: (query) => Effect.suspend(() => { reads++; return postgres.run(query) }) }) })
    const replaceKeys = Effect.gen(function*() {
      yield* node.postgres.run((sql) => sql`delete from signing_keys`)
      return (yield* (yield* startNode(connection)).tokens.accessToken(someone())).token
    })
    yield* node.tokens.verifyAccess(yield* replaceKeys)
    const next = yield* replaceKeys
    const readsBefore = reads
    yield* Effect.all(Array.from({ length: 100 }, () => Effect.flip(node.tokens.verifyAccess(next))), { concurrency: "unbounded" })
    expect(reads).toBe(readsBefore)
    yield* TestClock.adjust("10 seconds")
    yield* node.tokens.verifyAccess(next)
  }))

  it.effect("that can't be looked for make the token unknown, not bad; known keys go on", () => Effect.gen(function*() {
    const connection = yield* database
    let isAway = false
    const away = new StoreUnavailable({ retryAfterMs: 1_000 })
    const node = yield* startNode(connection, {
      store: (postgres) => ({ ...postgres, run: (query) => Effect.suspend(() => isAway ? Effect.fail(away) : postgres.run(query)) })
    })
    const { token: known } = yield* node.tokens.accessToken(someone())
    yield* node.postgres.run((sql) => sql`delete from signing_keys`)
    const { token: unknown } = yield* (yield* startNode(connection)).tokens.accessToken(someone())
    isAway = true
    expect(yield* Effect.result(node.tokens.verifyAccess(unknown))).toEqual(Result.fail(away))
    yield* node.tokens.verifyAccess(known)
    isAway = false
    yield* TestClock.adjust("1 second")
    yield* node.tokens.verifyAccess(unknown)
  }))
})
