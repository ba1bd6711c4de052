/**
 * People: registration, logins, refresh tokens, proof of an email, passwords.
 *
 * Guarantee: what is answered is committed. An email has one user. A refresh
 * token is good once; presenting a used one ends its login, also when two
 * present the same at once. A new password ends every login of its user, also
 * one that is starting. No answer but `register`'s tells whether an email is
 * known, neither by its words nor by the work it costs.
 *
 * A refresh token is two secrets, `<family>.<current>`. The first half stays
 * while the login lives, the second is replaced by every refresh: so one row is
 * enough to tell a used token from a made-up one, however old it is.
 *
 * Not decided here: what an unverified or suspended account may do (admission).
 */
import { Clock, Context, Effect, Layer, type Scope, Semaphore } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { Config } from "../../config.ts"
import { parseEmail } from "../../domain/email.ts"
import { AlreadyExists, InvalidRequest, NotFound, Unauthenticated } from "../../domain/errors.ts"
import type { NotConfigured, Overloaded, StoreUnavailable, TooManyAttempts } from "../../domain/errors.ts"
import type { AccountId, UserId, LoginId } from "../../domain/ids.ts"
import { Mail } from "../../mail/Mail.ts"
import { Postgres, SqlFailure } from "../../store/Postgres.ts"
import * as UserStore from "../../store/UserStore.ts"
import type { EmailPurpose } from "../../store/UserStore.ts"
import { log } from "../../telemetry/log.ts"
import { AccountReload } from "../AccountReload.ts"
import { newId } from "../Ids.ts"
import { Passwords } from "./Passwords.ts"
import { Throttle } from "./Throttle.ts"
import { Tokens, accessTokenTtlMs } from "./Tokens.ts"

export const refreshTokenTtlMs = 30 * 24 * 3_600_000
const passwordCharsMin = 8
const passwordCharsMax = 256
/** Letters being written for callers who were answered already; more are dropped. */
const lettersUnderWayMax = 64

const letters = {
  verify: {
    ttlMs: 24 * 3_600_000,
    path: "/v1/auth/verify",
    subject: "Verify your email",
    text: (link: string) => `Open this link within 24 hours to verify your email:\n\n${link}\n\nIf you did not register, ignore this letter.\n`
  },
  reset: {
    ttlMs: 3_600_000,
    path: "/password-reset",
    subject: "Reset your password",
    text: (link: string) => `Open this link within an hour to choose another password:\n\n${link}\n\nIf you did not ask for it, ignore this letter: nothing was changed.\n`
  }
} as const

/** Where a call comes from. */
export interface Peer {
  readonly remoteAddress: string
}
export interface UserView {
  readonly id: UserId
  readonly email: string
  readonly emailVerified: boolean
  readonly createdAt: Date
}
export interface LoggedIn {
  readonly accessToken: string
  readonly refreshToken: string
  /** Seconds that the access token lives. */
  readonly expiresIn: number
  readonly user: UserView
}

type Away = StoreUnavailable | NotConfigured
type Needs = Config | Postgres | Passwords | Throttle | Tokens | Mail | AccountReload | Scope.Scope

export class Users extends Context.Service<Users, {
  /** A new user with an account of its own, logged in. A letter with a link follows unless `AUTO_VERIFY_EMAIL`. */
  readonly register: (email: string, password: string, from: Peer) => Effect.Effect<LoggedIn, InvalidRequest | AlreadyExists | Overloaded | Away>
  readonly login: (email: string, password: string, from: Peer) => Effect.Effect<LoggedIn, Unauthenticated | TooManyAttempts | Overloaded | Away>
  readonly refresh: (refreshToken: string) => Effect.Effect<LoggedIn, Unauthenticated | Away>
  /** Ends one login of the user; its access token lives out its 15 minutes. Repeating it does nothing. */
  readonly logout: (caller: { readonly userId: UserId; readonly loginId: LoginId }) => Effect.Effect<void, StoreUnavailable>
  readonly me: (userId: UserId) => Effect.Effect<UserView, NotFound | StoreUnavailable>
  /** Uses the link of a verification letter, once. The account's actor knows it when this returns. */
  readonly verify: (token: string) => Effect.Effect<void, InvalidRequest | StoreUnavailable>
  /** Another letter, beside the links sent before; none when the email is verified. */
  readonly resendVerification: (userId: UserId) => Effect.Effect<void, NotFound | TooManyAttempts | StoreUnavailable>
  /** Ends every login of the user, the caller's too. */
  readonly changePassword: (userId: UserId, current: string, next: string) => Effect.Effect<void, InvalidRequest | Unauthenticated | TooManyAttempts | Overloaded | StoreUnavailable>
  /** The letter is written after this returned, so that an unknown email answers alike. */
  readonly forgot: (email: string, from: Peer) => Effect.Effect<void, TooManyAttempts | StoreUnavailable>
  /** Uses the link of a reset letter, once, and ends every login of the user. */
  readonly reset: (token: string, password: string) => Effect.Effect<void, InvalidRequest | Overloaded | StoreUnavailable>
}>()("tollgate/kernel/identity/Users") {
  static readonly layer = Layer.effect(Users, Effect.gen(function*() {
    const needs = yield* Effect.context<Needs>()
    const lettersUnderWay = Semaphore.makeUnsafe(lettersUnderWayMax)
    const bound = <A extends ReadonlyArray<unknown>, B, E>(action: (...args: A) => Effect.Effect<B, E, Needs>) =>
      (...args: A) => Effect.provideContext(action(...args), needs)
    return Users.of({
      register: bound(register),
      login: bound(login),
      refresh: bound(refresh),
      logout: bound(logout),
      me: bound(me),
      verify: bound(verify),
      resendVerification: bound(resendVerification),
      changePassword: bound(changePassword),
      forgot: bound((email, from) => forgot(email, from, lettersUnderWay)),
      reset: bound(reset)
    })
  })).pipe(Layer.provide(Throttle.layer))
}

const secretText = (): string => randomBytes(32).toString("base64url")
const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest()
const viewOf = ({ id, email, emailVerified, createdAt }: UserStore.User): UserView => ({ id, email, emailVerified, createdAt })
const auditAt = (nowMs: number, details: UserStore.Audit["details"] = {}): UserStore.Audit => ({ id: newId(), atMs: nowMs, details })
const invalid = (part: "body" | "query", field: string, msg: string) => new InvalidRequest({ malformed: false, issues: [{ loc: [part, field], msg }] })

const checkPassword = (field: string, password: string): Effect.Effect<void, InvalidRequest> => {
  const chars = [...password].length
  if (chars < passwordCharsMin) return Effect.fail(invalid("body", field, `must have at least ${passwordCharsMin} characters`))
  if (chars > passwordCharsMax) return Effect.fail(invalid("body", field, `must have at most ${passwordCharsMax} characters`))
  return Effect.void
}

/** A login not yet stored, with the tokens that its user will be given. Signed before the commit, so that a failure leaves nothing. */
const newLogin = Effect.fnUntraced(function*(user: UserStore.User, nowMs: number) {
  const id = newId<LoginId>()
  const [family, current] = [secretText(), secretText()]
  const stored: UserStore.NewLogin = { id, familyHash: sha256(family), tokenHash: sha256(current), createdAtMs: nowMs, expiresAtMs: nowMs + refreshTokenTtlMs }
  return { stored, answer: yield* loggedIn(user, id, `${family}.${current}`) }
})

const loggedIn = Effect.fnUntraced(function*(user: UserStore.User, loginId: LoginId, refreshToken: string) {
  const { token } = yield* (yield* Tokens).accessToken({ userId: user.id, accountId: user.accountId, loginId, email: user.email })
  return { accessToken: token, refreshToken, expiresIn: accessTokenTtlMs / 1000, user: viewOf(user) } satisfies LoggedIn
})

const newLink = (purpose: EmailPurpose, nowMs: number): { readonly token: string; readonly stored: UserStore.EmailToken } => {
  const token = secretText()
  return { token, stored: { hash: sha256(token), purpose, createdAtMs: nowMs, expiresAtMs: nowMs + letters[purpose].ttlMs } }
}

const sendLink = Effect.fnUntraced(function*(to: string, purpose: EmailPurpose, token: string) {
  const { publicUrl } = yield* Config
  const { path, subject, text } = letters[purpose]
  yield* (yield* Mail).send({ to, subject, text: text(`${publicUrl}${path}?token=${token}`) })
})

const register = Effect.fn("Users.register")(function*(emailText: string, password: string, from: Peer) {
  const email = parseEmail(emailText)
  if (email === undefined) return yield* invalid("body", "email", "is not an email address")
  yield* checkPassword("password", password)
  const passwordHash = yield* (yield* Passwords).hash(password)
  const { autoVerifyEmail } = yield* Config
  const nowMs = yield* Clock.currentTimeMillis
  const user: UserStore.User = {
    id: newId(), accountId: newId(), email, passwordHash, emailVerified: autoVerifyEmail, createdAt: new Date(nowMs)
  }
  const { stored, answer } = yield* newLogin(user, nowMs)
  const link = autoVerifyEmail ? undefined : newLink("verify", nowMs)
  yield* (yield* Postgres).attempt((sql) =>
    UserStore.register(sql, user, stored, link?.stored, auditAt(nowMs, { email, remote_address: from.remoteAddress }))
  ).pipe(Effect.catchIf((error) => error instanceof SqlFailure, (error) =>
    error.constraint === "users_email_unique" ? Effect.fail(new AlreadyExists({ what: "email", id: email })) : Effect.die(error)))
  if (link !== undefined) yield* sendLink(email, "verify", link.token)
  return answer
})

const login = Effect.fn("Users.login")(function*(emailText: string, password: string, from: Peer) {
  const postgres = yield* Postgres
  const passwords = yield* Passwords
  const email = parseEmail(emailText)
  let user: UserStore.User | undefined
  const proof = Effect.gen(function*() {
    user = email === undefined ? undefined : yield* postgres.run((sql) => UserStore.findByEmail(sql, email))
    return yield* passwords.verify(user?.passwordHash, password)
  })
  const isProved = yield* (yield* Throttle).guess(email ?? "", from.remoteAddress, proof)
  if (!isProved || user === undefined) return yield* new Unauthenticated({ reason: "credentials" })
  const known = user
  const nowMs = yield* Clock.currentTimeMillis
  const { stored, answer } = yield* newLogin(known, nowMs)
  const isStored = yield* postgres.run((sql) => UserStore.logIn(sql, known, stored, auditAt(nowMs, { login_id: stored.id, remote_address: from.remoteAddress })))
  // The password was changed while it was checked.
  return isStored ? answer : yield* new Unauthenticated({ reason: "credentials" })
})

const refreshTokenForm = /^([\w-]{43})\.([\w-]{43})$/

const refresh = Effect.fn("Users.refresh")(function*(refreshToken: string) {
  const [, family, current] = refreshTokenForm.exec(refreshToken) ?? []
  if (family === undefined || current === undefined) return yield* new Unauthenticated({ reason: "invalid" })
  const nowMs = yield* Clock.currentTimeMillis
  const next = secretText()
  const rotation = yield* (yield* Postgres).run((sql) => UserStore.rotate(
    sql,
    { familyHash: sha256(family), tokenHash: sha256(current) },
    { tokenHash: sha256(next), createdAtMs: nowMs, expiresAtMs: nowMs + refreshTokenTtlMs },
    auditAt(nowMs)
  ))
  switch (rotation._tag) {
    case "rotated": return yield* loggedIn(rotation.user, rotation.loginId, `${family}.${next}`)
    case "reused": return yield* new Unauthenticated({ reason: "reused" })
    case "expired": return yield* new Unauthenticated({ reason: "expired" })
    case "unknown": return yield* new Unauthenticated({ reason: "invalid" })
  }
})

const logout = Effect.fn("Users.logout")(function*({ userId, loginId }: { readonly userId: UserId; readonly loginId: LoginId }) {
  const nowMs = yield* Clock.currentTimeMillis
  yield* (yield* Postgres).run((sql) => UserStore.logOut(sql, userId, loginId, auditAt(nowMs, { login_id: loginId })))
})

const findUser = Effect.fnUntraced(function*(userId: UserId) {
  const user = yield* (yield* Postgres).run((sql) => UserStore.findById(sql, userId))
  return user ?? (yield* new NotFound({ what: "user", id: userId }))
})

const me = (userId: UserId) => Effect.map(findUser(userId), viewOf)

const verify = Effect.fn("Users.verify")(function*(token: string) {
  const nowMs = yield* Clock.currentTimeMillis
  const accountId: AccountId | undefined = yield* (yield* Postgres).run((sql) => UserStore.verifyEmail(sql, sha256(token), nowMs, auditAt(nowMs)))
  if (accountId === undefined) return yield* invalid("query", "token", "is unknown, used or expired")
  yield* (yield* AccountReload).changed(accountId)
})

const issueLink = Effect.fnUntraced(function*(user: UserStore.User, purpose: EmailPurpose) {
  yield* (yield* Throttle).letter(user.email)
  const nowMs = yield* Clock.currentTimeMillis
  const { token, stored } = newLink(purpose, nowMs)
  yield* (yield* Postgres).run((sql) => UserStore.addEmailToken(sql, user.id, stored, auditAt(nowMs)))
  yield* sendLink(user.email, purpose, token)
})

const resendVerification = Effect.fn("Users.resendVerification")(function*(userId: UserId) {
  const user = yield* findUser(userId)
  if (!user.emailVerified) yield* issueLink(user, "verify")
})

const changePassword = Effect.fn("Users.changePassword")(function*(userId: UserId, current: string, next: string) {
  yield* checkPassword("new_password", next)
  const user = yield* findUser(userId).pipe(Effect.catchTag("NotFound", () => Effect.fail(new Unauthenticated({ reason: "invalid" }))))
  const passwords = yield* Passwords
  const isProved = yield* (yield* Throttle).guess(user.email, undefined, passwords.verify(user.passwordHash, current))
  if (!isProved) return yield* new Unauthenticated({ reason: "credentials" })
  const passwordHash = yield* passwords.hash(next)
  const nowMs = yield* Clock.currentTimeMillis
  const isChanged = yield* (yield* Postgres).run((sql) => UserStore.changePassword(sql, user, passwordHash, auditAt(nowMs)))
  // Another call changed it first: the password that was proved is no longer the user's.
  if (!isChanged) return yield* new Unauthenticated({ reason: "credentials" })
})

const forgot = Effect.fn("Users.forgot")(function*(emailText: string, from: Peer, lettersUnderWay: Semaphore.Semaphore) {
  yield* (yield* Throttle).request(from.remoteAddress)
  const email = parseEmail(emailText)
  if (email === undefined) return
  const user = yield* (yield* Postgres).run((sql) => UserStore.findByEmail(sql, email))
  if (user === undefined) return
  yield* issueLink(user, "reset").pipe(
    lettersUnderWay.withPermitsIfAvailable(1),
    Effect.catch((error) => Effect.sync(() => log.warn({ user: user.id, error: error._tag }, "no reset letter was sent"))),
    Effect.forkScoped
  )
})

const reset = Effect.fn("Users.reset")(function*(token: string, password: string) {
  yield* checkPassword("new_password", password)
  const postgres = yield* Postgres
  const hash = sha256(token)
  const bad = invalid("body", "token", "is unknown, used or expired")
  const nowMs = yield* Clock.currentTimeMillis
  const isGood = yield* postgres.run((sql) => UserStore.isResetLinkGood(sql, hash, nowMs))
  if (!isGood) return yield* bad
  const passwordHash = yield* (yield* Passwords).hash(password)
  const email = yield* postgres.run((sql) => UserStore.resetPassword(sql, hash, passwordHash, nowMs, auditAt(nowMs)))
  if (email === undefined) return yield* bad
  yield* (yield* Throttle).forgive(email)
})
