import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Queue, Result } from "effect"
import { TestClock } from "effect/testing"
import pino from "pino"
import { vi } from "vitest"
import { AlreadyExists, InvalidRequest, TooManyAttempts, Unauthenticated } from "../../src/domain/errors.ts"
import { connect, type Connection, type Postgres } from "../../src/store/Postgres.ts"
import type { LoggedIn } from "../../src/kernel/identity/Users.ts"
import { Mail } from "../../src/mail/Mail.ts"
import { log } from "../../src/telemetry/log.ts"
import { database, startNode, tokenIn } from "../support/loginNode.ts"

const email = "ada@example.com"
const password = "correct horse"
const peer = { remoteAddress: "192.0.2.1" }
const elsewhere = { remoteAddress: "198.51.100.7" }
const refused = (reason: Unauthenticated["reason"]) => Result.fail(new Unauthenticated({ reason }))

const auditOf = (postgres: Postgres["Service"]) => Effect.map(
  postgres.run((sql) => sql<Array<{ action: string; actor: string; target: string; account_id: string }>>`select action, actor, target, account_id from audit_log order by id`),
  (rows) => rows.map((row) => row.action)
)

/** A node with one registered user. */
const world = Effect.gen(function*() {
  const connection = yield* database
  const node = yield* startNode(connection)
  const first = yield* node.users.register(email, password, peer)
  const letter = yield* Queue.take(node.letters)
  /** Which login an access token belongs to. */
  const loginOf = (session: LoggedIn) => node.tokens.verifyAccess(session.accessToken)
  return { ...node, connection, first, letter, loginOf }
})

/** A connection beside the node's, to hold locks. */
const connectionTo = (connection: Connection) => Effect.acquireRelease(
  Effect.sync(() => connect(connection, { max: 1, statementTimeoutMs: 10_000, name: "test" })),
  (sql) => Effect.promise(() => sql.end())
)

/** Waits until so many statements wait for locks. */
const blocked = (postgres: Postgres["Service"], count: number) => Effect.promise(() => vi.waitFor(async () => {
  const [row] = await postgres.writes`select count(*)::int as count from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
  expect(row).toEqual({ count })
}))

describe("registering", () => {
  it.effect("makes a user with an account and an earnings row, logged in and not verified", () => Effect.gen(function*() {
    const node = yield* startNode(yield* database)
    const session = yield* node.users.register("  Ada@Example.COM ", password, peer)
    expect(session.user).toMatchObject({ email, emailVerified: false })
    expect(session.expiresIn).toBe(900)
    const { accountId, userId } = yield* node.tokens.verifyAccess(session.accessToken)
    expect(userId).toBe(session.user.id)
    expect(yield* node.users.me(userId)).toEqual(session.user)
    const rows = yield* node.postgres.run((sql) => sql`
      select users.account_id, available, posted, password_hash, actor, action, target, details
      from users join accounts on accounts.id = users.account_id join earnings on earnings.account_id = users.account_id join audit_log on audit_log.account_id = users.account_id`)
    expect([...rows]).toEqual([{
      account_id: accountId, available: 0n, posted: 0n, password_hash: expect.stringMatching(/^\$argon2id\$/),
      actor: `user:${userId}`, action: "user.register", target: `user:${userId}`, details: { email, remote_address: peer.remoteAddress }
    }])
  }))

  it.effect("an email twice, in any case and at once, makes one user and nothing of the other", () => Effect.gen(function*() {
    const { users, postgres } = yield* startNode(yield* database)
    const results = yield* Effect.all(["ada@example.com", "ADA@example.com", "ada@Example.com "].map((text) => Effect.result(users.register(text, password, peer))), { concurrency: "unbounded" })
    expect(results.filter(Result.isSuccess)).toHaveLength(1)
    expect(results.filter(Result.isFailure).map((result) => result.failure)).toEqual(Array(2).fill(new AlreadyExists({ what: "email", id: email })))
    const [counts] = yield* postgres.run((sql) => sql`select (select count(*) from accounts)::int as accounts, (select count(*) from users)::int as users, (select count(*) from logins)::int as logins, (select count(*) from audit_log)::int as audits`)
    expect(counts).toEqual({ accounts: 1, users: 1, logins: 1, audits: 1 })
  }))

  it.effect("is refused for what is no email and for passwords under 8 or over 256 characters", () => Effect.gen(function*() {
    const { users } = yield* startNode(yield* database)
    const issue = (text: string, secret: string) => Effect.map(Effect.flip(users.register(text, secret, peer)), (error) => (error as InvalidRequest).issues[0]!.loc)
    expect(yield* issue("ada", password)).toEqual(["body", "email"])
    expect(yield* issue(email, "1234567")).toEqual(["body", "password"])
    expect(yield* issue(email, "é".repeat(257))).toEqual(["body", "password"])
    yield* users.register(email, "é".repeat(256), peer)
    yield* users.login(email, "é".repeat(256), peer)
  }))

  it.effect("verifies at once and sends nothing under AUTO_VERIFY_EMAIL", () => Effect.gen(function*() {
    const { users, letters } = yield* startNode(yield* database, { settings: { autoVerifyEmail: true } })
    const session = yield* users.register(email, password, peer)
    expect(session.user.emailVerified).toBe(true)
    yield* users.resendVerification(session.user.id)
    expect(yield* Queue.size(letters)).toBe(0)
  }))
})

describe("the link of a verification letter", () => {
  it.effect("verifies the email once, and the account's actor learns it", () => Effect.gen(function*() {
    const { users, tokens, first, letter, reloads, postgres } = yield* world
    expect(letter).toMatchObject({ to: email, text: expect.stringContaining("http://localhost:8080/v1/auth/verify?token=") })
    yield* users.verify(tokenIn(letter))
    expect((yield* users.me(first.user.id)).emailVerified).toBe(true)
    expect(yield* Queue.take(reloads)).toBe((yield* tokens.verifyAccess(first.accessToken)).accountId)
    expect(yield* Effect.flip(users.verify(tokenIn(letter)))).toBeInstanceOf(InvalidRequest)
    expect(yield* Queue.size(reloads)).toBe(0)
    expect(yield* auditOf(postgres)).toEqual(["user.register", "user.verify"])
  }))

  it.effect("is good for 24 hours, and is no reset link", () => Effect.gen(function*() {
    const { users, letter, letters, first } = yield* world
    expect(yield* Effect.flip(users.reset(tokenIn(letter), "another password"))).toBeInstanceOf(InvalidRequest)
    yield* TestClock.adjust("24 hours")
    expect(yield* Effect.flip(users.verify(tokenIn(letter)))).toBeInstanceOf(InvalidRequest)
    yield* users.resendVerification(first.user.id)
    yield* users.verify(tokenIn(yield* Queue.take(letters)))
  }))

  it.effect("can be asked for ten times in 15 minutes, and all of them are good", () => Effect.gen(function*() {
    const { users, letter, letters, first } = yield* world
    for (let sent = 0; sent < 10; sent++) yield* users.resendVerification(first.user.id)
    expect(yield* Effect.flip(users.resendVerification(first.user.id))).toEqual(new TooManyAttempts({ retryAfterMs: 900_000 }))
    expect(yield* Queue.size(letters)).toBe(10)
    yield* users.verify(tokenIn(letter))
  }))
})

describe("a login", () => {
  it.effect("is refused alike for a wrong password, an unknown email and what is no email", () => Effect.gen(function*() {
    const { users, postgres } = yield* world
    expect(yield* Effect.result(users.login(email, "wrong horse", peer))).toEqual(refused("credentials"))
    expect(yield* Effect.result(users.login("bob@example.com", password, peer))).toEqual(refused("credentials"))
    expect(yield* Effect.result(users.login("ada", password, peer))).toEqual(refused("credentials"))
    expect((yield* users.login("ADA@example.com", password, peer)).user.email).toBe(email)
    expect(yield* auditOf(postgres)).toEqual(["user.register", "user.login"])
  }))

  it.effect("is refused after ten failures for the email, from anywhere, until 15 minutes later", () => Effect.gen(function*() {
    const { users } = yield* world
    for (let failure = 0; failure < 10; failure++) {
      yield* TestClock.adjust("1 second")
      expect(yield* Effect.result(users.login(email, "wrong horse", { remoteAddress: `192.0.2.${failure}` }))).toEqual(refused("credentials"))
    }
    expect(yield* Effect.flip(users.login(email, password, elsewhere))).toEqual(new TooManyAttempts({ retryAfterMs: 891_000 }))
    yield* TestClock.adjust("891 seconds")
    yield* users.login(email, password, elsewhere)
  }))

  it.effect("is refused after ten failures from the address, for any email; a success clears the email alone", () => Effect.gen(function*() {
    const { users } = yield* world
    for (let failure = 0; failure < 9; failure++) yield* Effect.flip(users.login(email, "wrong horse", peer))
    yield* users.login(email, password, peer)
    for (let failure = 0; failure < 9; failure++) yield* Effect.flip(users.login(email, "wrong horse", elsewhere))
    yield* Effect.flip(users.login("bob@example.com", password, peer))
    expect(yield* Effect.flip(users.login(email, password, peer))).toBeInstanceOf(TooManyAttempts)
    yield* users.login(email, password, { remoteAddress: "203.0.113.5" })
  }))

  it.effect("can't be guessed more often by guessing at once", () => Effect.gen(function*() {
    const { users } = yield* world
    const outcomes = yield* Effect.all(Array.from({ length: 40 }, () => Effect.flip(users.login(email, "wrong horse", peer))), { concurrency: "unbounded" })
    expect(outcomes.filter((error) => error._tag === "Unauthenticated")).toHaveLength(10)
    expect(outcomes.filter((error) => error._tag === "TooManyAttempts")).toHaveLength(30)
  }))

  it.effect("beyond the hundredth of a user ends the oldest", () => Effect.gen(function*() {
    const { users, first, postgres } = yield* world
    yield* postgres.run((sql) => sql`
      insert into logins (id, user_id, family_hash, token_hash, created_at, expires_at)
      select gen_random_uuid(), ${first.user.id}, sha256(n::text::bytea), sha256(n::text::bytea), to_timestamp(n), to_timestamp(1000000) from generate_series(1, 99) n`)
    yield* TestClock.adjust("1000 seconds")
    const last = yield* users.login(email, password, peer)
    expect((yield* postgres.run((sql) => sql`select count(*)::int as count from logins`))[0]).toEqual({ count: 100 })
    expect(yield* Effect.result(users.refresh(first.refreshToken))).toEqual(refused("invalid"))
    yield* users.refresh(last.refreshToken)
  }))
})

describe("a refresh token", () => {
  it.effect("is good once: each refresh gives the next, and the login stays the same", () => Effect.gen(function*() {
    const { users, first, loginOf } = yield* world
    const second = yield* users.refresh(first.refreshToken)
    const third = yield* users.refresh(second.refreshToken)
    expect(new Set([first.refreshToken, second.refreshToken, third.refreshToken]).size).toBe(3)
    expect((yield* loginOf(third)).loginId).toBe((yield* loginOf(first)).loginId)
    expect(third.user).toEqual(first.user)
  }))

  it.effect("that was used before ends its login, and no other", () => Effect.gen(function*() {
    const { users, first, postgres } = yield* world
    const other = yield* users.login(email, password, peer)
    const second = yield* users.refresh(first.refreshToken)
    expect(yield* Effect.result(users.refresh(first.refreshToken))).toEqual(refused("reused"))
    expect(yield* Effect.result(users.refresh(second.refreshToken))).toEqual(refused("invalid"))
    yield* users.refresh(other.refreshToken)
    expect(yield* auditOf(postgres)).toEqual(["user.register", "user.login", "user.refresh_reused"])
  }))

  it.effect("raced by many callers on two nodes is won by one, and the others end the login", () => Effect.gen(function*() {
    const { users, connection, first, postgres } = yield* world
    const other = yield* startNode(connection)
    const outcomes = yield* Effect.all(
      Array.from({ length: 12 }, (_, index) => Effect.result((index % 2 === 0 ? users : other.users).refresh(first.refreshToken))),
      { concurrency: "unbounded" }
    )
    const won = outcomes.filter(Result.isSuccess)
    expect(won).toHaveLength(1)
    expect(outcomes.filter((outcome) => Result.isFailure(outcome) && outcome.failure._tag === "Unauthenticated" && outcome.failure.reason === "reused")).toHaveLength(1)
    expect(yield* Effect.result(users.refresh(won[0]!.success.refreshToken))).toEqual(refused("invalid"))
    expect(yield* auditOf(postgres)).toEqual(["user.register", "user.refresh_reused"])
  }))

  it.effect("ends 30 days after the last refresh", () => Effect.gen(function*() {
    const { users, first } = yield* world
    yield* TestClock.adjust("29 days")
    const second = yield* users.refresh(first.refreshToken)
    yield* TestClock.adjust("30 days")
    expect(yield* Effect.result(users.refresh(second.refreshToken))).toEqual(refused("expired"))
  }))

  it.effect("that is made up, also with one half of a good one, ends nothing that its maker could not end anyway", () => Effect.gen(function*() {
    const { users, first } = yield* world
    const [, current] = first.refreshToken.split(".")
    for (const token of ["", "x", `${"A".repeat(43)}.${current}`, `${first.refreshToken}x`, first.refreshToken.replace(".", "")]) {
      expect(yield* Effect.result(users.refresh(token)), token).toEqual(refused("invalid"))
    }
    yield* users.refresh(first.refreshToken)
  }))

  it.effect("is not in the database, nor is any other secret", () => Effect.gen(function*() {
    const { users, first, letter, postgres } = yield* world
    yield* users.forgot(email, peer)
    const dump = yield* postgres.run((sql) => sql`select (select json_agg(logins) from logins) logins, (select json_agg(email_tokens) from email_tokens) links, (select json_agg(users) from users) users, (select json_agg(audit_log) from audit_log) audits`)
    const text = JSON.stringify(dump)
    for (const secret of [...first.refreshToken.split("."), tokenIn(letter)]) {
      expect(text).not.toContain(secret)
      expect(text).not.toContain(Buffer.from(secret).toString("hex"))
      expect(text).not.toContain(Buffer.from(secret, "base64url").toString("hex"))
    }
    expect(text).not.toContain(password)
  }))
})

describe("logging out", () => {
  it.effect("ends one login, once", () => Effect.gen(function*() {
    const { users, first, loginOf, postgres } = yield* world
    const other = yield* users.login(email, password, peer)
    const login = yield* loginOf(first)
    yield* users.logout(login)
    yield* users.logout(login)
    expect(yield* Effect.result(users.refresh(first.refreshToken))).toEqual(refused("invalid"))
    yield* users.refresh(other.refreshToken)
    expect(yield* auditOf(postgres)).toEqual(["user.register", "user.login", "user.logout"])
  }))

  it.effect("of somebody else's login does nothing", () => Effect.gen(function*() {
    const { users, first, loginOf } = yield* world
    const bob = yield* users.register("bob@example.com", password, peer)
    yield* users.logout({ userId: bob.user.id, loginId: (yield* loginOf(first)).loginId })
    yield* users.refresh(first.refreshToken)
  }))
})

describe("another password", () => {
  it.effect("needs the current one, and ends every login", () => Effect.gen(function*() {
    const { users, first, postgres } = yield* world
    const other = yield* users.login(email, password, peer)
    expect(yield* Effect.result(users.changePassword(first.user.id, "wrong horse", "another password"))).toEqual(refused("credentials"))
    expect(yield* Effect.flip(users.changePassword(first.user.id, password, "short"))).toBeInstanceOf(InvalidRequest)
    yield* users.changePassword(first.user.id, password, "another password")
    for (const session of [first, other]) expect(yield* Effect.result(users.refresh(session.refreshToken))).toEqual(refused("invalid"))
    expect(yield* Effect.result(users.login(email, password, peer))).toEqual(refused("credentials"))
    yield* users.login(email, "another password", peer)
    expect(yield* auditOf(postgres)).toEqual(["user.register", "user.login", "user.password_change", "user.login"])
  }))

  it.effect("can't be set by guessing the current one more than ten times", () => Effect.gen(function*() {
    const { users, first } = yield* world
    for (let failure = 0; failure < 10; failure++) yield* Effect.flip(users.changePassword(first.user.id, "wrong horse", "another password"))
    expect(yield* Effect.flip(users.changePassword(first.user.id, password, "another password"))).toBeInstanceOf(TooManyAttempts)
  }))

  it.effect("ends the login, too, that the old one has proved and that is stored while the new one waits", () => Effect.gen(function*() {
    const { users, connection, first, postgres } = yield* world
    const blocker = yield* connectionTo(connection)
    yield* Effect.promise(() => blocker`begin`)
    yield* Effect.promise(() => blocker`select from users for update`)
    const login = yield* Effect.forkChild(users.login(email, password, peer))
    yield* blocked(postgres, 1)
    const change = yield* Effect.forkChild(users.changePassword(first.user.id, password, "another password"))
    yield* blocked(postgres, 2)
    yield* Effect.promise(() => blocker`commit`)
    const session = yield* Fiber.join(login)
    yield* Fiber.join(change)
    expect(yield* Effect.result(users.refresh(session.refreshToken))).toEqual(refused("invalid"))
  }))

  it.effect("refuses the login that the old one has proved and that waits for the new one", () => Effect.gen(function*() {
    const { users, connection, postgres } = yield* world
    const other = yield* connectionTo(connection)
    yield* Effect.promise(() => other`begin`)
    yield* Effect.promise(() => other`update users set password_hash = 'another'`)
    const login = yield* Effect.forkChild(Effect.result(users.login(email, password, peer)))
    yield* blocked(postgres, 1)
    yield* Effect.promise(() => other`commit`)
    expect(yield* Fiber.join(login)).toEqual(refused("credentials"))
  }))

  it.effect("set by two calls at once is that of one of them", () => Effect.gen(function*() {
    const { users, first } = yield* world
    const results = yield* Effect.all(["password one", "password two"].map((next) => Effect.result(users.changePassword(first.user.id, password, next))), { concurrency: 2 })
    expect(results.filter(Result.isSuccess)).toHaveLength(1)
  }))
})

describe("a forgotten password", () => {
  it.effect("is answered alike for a known and an unknown email, and only the known one gets a letter", () => Effect.gen(function*() {
    const { users, letters, postgres } = yield* world
    expect(yield* users.forgot("bob@example.com", peer)).toBeUndefined()
    expect(yield* users.forgot("no email", peer)).toBeUndefined()
    expect(yield* users.forgot(email, peer)).toBeUndefined()
    expect(yield* Queue.take(letters)).toMatchObject({ to: email, text: expect.stringContaining("http://localhost:8080/password-reset?token=") })
    expect(yield* Queue.size(letters)).toBe(0)
    expect(yield* auditOf(postgres)).toEqual(["user.register", "user.reset_requested"])
  }))

  it.effect("is replaced once by a mailed link, which ends every login and every other link, and forgives failures", () => Effect.gen(function*() {
    const { users, letters, first, postgres } = yield* world
    yield* users.forgot(email, peer)
    yield* users.forgot(email, peer)
    const [one, two] = [tokenIn(yield* Queue.take(letters)), tokenIn(yield* Queue.take(letters))]
    for (let failure = 0; failure < 10; failure++) yield* Effect.flip(users.login(email, "wrong horse", peer))
    expect(yield* Effect.flip(users.reset(one, "short"))).toBeInstanceOf(InvalidRequest)
    yield* users.reset(one, "another password")
    expect(yield* Effect.flip(users.reset(one, "a third password"))).toBeInstanceOf(InvalidRequest)
    expect(yield* Effect.flip(users.reset(two, "a third password"))).toBeInstanceOf(InvalidRequest)
    expect(yield* Effect.result(users.refresh(first.refreshToken))).toEqual(refused("invalid"))
    yield* users.login(email, "another password", elsewhere)
    expect((yield* auditOf(postgres)).slice(-2)).toEqual(["user.password_reset", "user.login"])
  }))

  it.effect("is replaced by one of two who use the link at once", () => Effect.gen(function*() {
    const { users, letters } = yield* world
    yield* users.forgot(email, peer)
    const token = tokenIn(yield* Queue.take(letters))
    const results = yield* Effect.all(["password one", "password two"].map((next) => Effect.result(users.reset(token, next))), { concurrency: 2 })
    expect(results.filter(Result.isSuccess)).toHaveLength(1)
  }))

  it.effect("can be replaced for an hour", () => Effect.gen(function*() {
    const { users, letters } = yield* world
    yield* users.forgot(email, peer)
    const token = tokenIn(yield* Queue.take(letters))
    yield* TestClock.adjust("1 hour")
    expect(yield* Effect.flip(users.reset(token, "another password"))).toBeInstanceOf(InvalidRequest)
  }))

  it.effect("can be asked for ten times from an address in 15 minutes", () => Effect.gen(function*() {
    const { users } = yield* world
    for (let asked = 0; asked < 10; asked++) yield* users.forgot("bob@example.com", peer)
    expect(yield* Effect.flip(users.forgot(email, peer))).toEqual(new TooManyAttempts({ retryAfterMs: 900_000 }))
  }))
})

describe("the log", () => {
  it.effect("names the link of a letter that no server delivers, and no other secret", () => Effect.gen(function*() {
    const lines: Array<string> = []
    const stream = (log as unknown as Record<symbol, { write(line: string): boolean }>)[pino.symbols.streamSym]!
    const spy = vi.spyOn(stream, "write").mockImplementation((line) => { lines.push(line); return true })
    const level = log.level
    log.level = "trace"
    yield* Effect.addFinalizer(() => Effect.sync(() => { spy.mockRestore(); log.level = level }))

    const { users, postgres } = yield* startNode(yield* database, { mail: Mail.layerLog })
    const session = yield* users.register(email, password, peer)
    yield* Effect.flip(users.login(email, "wrong horse", peer))
    const next = yield* users.refresh(session.refreshToken)
    yield* Effect.flip(users.refresh(session.refreshToken))
    yield* users.changePassword(session.user.id, password, "another password")
    const [row] = yield* postgres.run((sql) => sql<Array<{ password_hash: string }>>`select password_hash from users`)

    const written = lines.join("")
    expect(lines).toHaveLength(1)
    expect(JSON.parse(lines[0]!)).toMatchObject({ to: email, link: expect.stringMatching(/^http:\/\/localhost:8080\/v1\/auth\/verify\?token=[\w-]{43}$/) })
    for (const secret of [password, "wrong horse", "another password", row!.password_hash, session.accessToken, ...session.refreshToken.split("."), ...next.refreshToken.split(".")]) {
      expect(written).not.toContain(secret)
    }
  }))
})
