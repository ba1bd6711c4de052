/**
 * Users, their logins and the links that were mailed to them.
 *
 * Each function is one action: one statement, or one transaction where the
 * second statement must see what the first one waited for. It is durable when
 * the promise resolves, and its audit row was written with it. `nowMs`, ids and
 * hashes are parameters; no secret in the clear gets here.
 *
 * A login is one row that lives until logout, reuse, a new password or expiry
 * deletes it. Everything that starts a login or changes a password first locks
 * the user's row, so that no login proved by an old password outlives it.
 */
import type { AccountId, UserId, LoginId } from "../domain/ids.ts"
import type { AuditRow } from "./Commit.ts"
import { type Sql, begin } from "./Postgres.ts"

export interface User {
  readonly id: UserId
  readonly accountId: AccountId
  readonly email: string
  readonly passwordHash: string
  readonly emailVerified: boolean
  readonly createdAt: Date
}
export interface NewLogin {
  readonly id: LoginId
  readonly familyHash: Uint8Array
  readonly tokenHash: Uint8Array
  readonly createdAtMs: number
  readonly expiresAtMs: number
}
export type EmailPurpose = "verify" | "reset"
export interface EmailToken {
  readonly hash: Uint8Array
  readonly purpose: EmailPurpose
  readonly createdAtMs: number
  readonly expiresAtMs: number
}
export type Audit = Omit<AuditRow, "action" | "target" | "actor">

/** Logins of one user that are kept; above it the oldest ends. */
export const loginsPerUserMax = 100

const columns = (sql: Sql) => sql`
  users.id, users.account_id as "accountId", users.email, users.password_hash as "passwordHash",
  users.email_verified_at is not null as "emailVerified", users.created_at as "createdAt"`

/** An audit row about each user that the CTE `source` (with `user_id`, `account_id`) holds: none when it is empty. */
const auditOf = (sql: Sql, source: string, action: string, audit: Audit) => sql`
  insert into audit_log (id, account_id, actor, action, target, details, created_at)
  select ${audit.id}::uuid, account_id, 'user:' || user_id, ${action}, 'user:' || user_id, ${sql.json(audit.details as never)}, ${new Date(audit.atMs)}::timestamptz
  from ${sql(source)}`

const insertLogin = (sql: Sql, source: string, login: NewLogin) => sql`
  insert into logins (id, user_id, family_hash, token_hash, created_at, expires_at)
  select ${login.id}::uuid, user_id, ${login.familyHash}::bytea, ${login.tokenHash}::bytea, ${new Date(login.createdAtMs)}::timestamptz, ${new Date(login.expiresAtMs)}::timestamptz
  from ${sql(source)}`

const insertEmailToken = (sql: Sql, source: string, token: EmailToken) => sql`
  insert into email_tokens (token_hash, user_id, purpose, created_at, expires_at)
  select ${token.hash}::bytea, user_id, ${token.purpose}, ${new Date(token.createdAtMs)}::timestamptz, ${new Date(token.expiresAtMs)}::timestamptz
  from ${sql(source)}`

/** A new account with its earnings row, its user, the user's first login and, unless the email needs no proof, the link that proves it. Fails on `users_email_unique`. */
export const register = async (sql: Sql, user: User, login: NewLogin, verification: EmailToken | undefined, audit: Audit): Promise<void> => {
  await sql`
    with account as (
      insert into accounts (id, created_at) values (${user.accountId}, ${user.createdAt})
    ), earning as (
      insert into earnings (account_id) values (${user.accountId})
    ), registered as (
      insert into users (id, account_id, email, password_hash, email_verified_at, created_at)
      values (${user.id}, ${user.accountId}, ${user.email}, ${user.passwordHash}, ${user.emailVerified ? user.createdAt : null}, ${user.createdAt})
      returning id as user_id, account_id
    ), logged_in as (${insertLogin(sql, "registered", login)})
    ${verification === undefined ? sql`` : sql`, mailed as (${insertEmailToken(sql, "registered", verification)})`}
    ${auditOf(sql, "registered", "user.register", audit)}`
}

export const findByEmail = async (sql: Sql, email: string): Promise<User | undefined> =>
  (await sql<Array<User>>`select ${columns(sql)} from users where email = ${email}`)[0]

export const findById = async (sql: Sql, id: UserId): Promise<User | undefined> =>
  (await sql<Array<User>>`select ${columns(sql)} from users where id = ${id}`)[0]

/** Starts a login, if the password that was proved is still the user's: answers whether. Deletes the user's expired and surplus logins. */
export const logIn = async (sql: Sql, user: User, login: NewLogin, audit: Audit): Promise<boolean> =>
  (await sql`
    with proved as (
      select id as user_id, account_id from users where id = ${user.id} and password_hash = ${user.passwordHash} for no key update
    ), surplus as (
      delete from logins using proved
      where logins.user_id = proved.user_id and (expires_at <= ${new Date(login.createdAtMs)} or logins.id in (
        select id from logins where user_id = ${user.id} order by created_at desc, id desc offset ${loginsPerUserMax - 1}
      ))
    ), logged_in as (${insertLogin(sql, "proved", login)})
    ${auditOf(sql, "proved", "user.login", audit)} returning id`).length === 1

/** `reused`: the token was good once; its login is over. `expired`: so is this login. `unknown`: nothing was done. */
export type Rotation = { readonly _tag: "rotated"; readonly loginId: LoginId; readonly user: User } | { readonly _tag: "reused" | "expired" | "unknown" }

/**
 * Puts the next refresh token in the place of the presented one. Of any number
 * of callers that present the same token exactly one finds it current: the
 * others wait for its row and then find a used token, which ends the login.
 */
export const rotate = async (sql: Sql, presented: Pick<NewLogin, "familyHash" | "tokenHash">, next: Pick<NewLogin, "tokenHash" | "createdAtMs" | "expiresAtMs">, audit: Audit): Promise<Rotation> => {
  const [rotated] = await sql<Array<User & { loginId: LoginId }>>`
    update logins set token_hash = ${next.tokenHash}, expires_at = ${new Date(next.expiresAtMs)}
    from users
    where family_hash = ${presented.familyHash} and token_hash = ${presented.tokenHash} and expires_at > ${new Date(next.createdAtMs)} and users.id = logins.user_id
    returning logins.id as "loginId", ${columns(sql)}`
  if (rotated !== undefined) {
    const { loginId, ...user } = rotated
    return { _tag: "rotated", loginId, user }
  }
  const [ended] = await sql<Array<{ reused: boolean }>>`
    with ended as (
      delete from logins using users where family_hash = ${presented.familyHash} and users.id = logins.user_id
      returning logins.user_id, users.account_id, token_hash <> ${presented.tokenHash} as reused
    ), reused as (select user_id, account_id from ended where reused), audited as (${auditOf(sql, "reused", "user.refresh_reused", audit)})
    select reused from ended`
  return { _tag: ended === undefined ? "unknown" : ended.reused ? "reused" : "expired" }
}

/** Ends one login of the user. Ending one that is over does nothing. */
export const logOut = async (sql: Sql, userId: UserId, loginId: LoginId, audit: Audit): Promise<void> => {
  await sql`
    with ended as (
      delete from logins using users where logins.id = ${loginId} and logins.user_id = ${userId} and users.id = logins.user_id
      returning logins.user_id, users.account_id
    )
    ${auditOf(sql, "ended", "user.logout", audit)}`
}

/** Stores a link for a user and deletes the user's expired ones. */
export const addEmailToken = async (sql: Sql, userId: UserId, token: EmailToken, audit: Audit): Promise<void> => {
  await sql`
    with asked as (
      select id as user_id, account_id from users where id = ${userId}
    ), expired as (
      delete from email_tokens where user_id = ${userId} and expires_at <= ${new Date(token.createdAtMs)}
    ), mailed as (${insertEmailToken(sql, "asked", token)})
    ${auditOf(sql, "asked", `user.${token.purpose}_requested`, audit)}`
}

/** Uses a verification link: answers the account whose email is proved now, or nothing when the link is not good. */
export const verifyEmail = async (sql: Sql, hash: Uint8Array, nowMs: number, audit: Audit): Promise<AccountId | undefined> =>
  (await sql<Array<{ accountId: AccountId }>>`
    with used as (
      delete from email_tokens where token_hash = ${hash} and purpose = 'verify' and expires_at > ${new Date(nowMs)} returning user_id
    ), verified as (
      update users set email_verified_at = coalesce(email_verified_at, ${new Date(nowMs)}) from used where id = used.user_id
      returning id as user_id, account_id
    ), audited as (${auditOf(sql, "verified", "user.verify", audit)})
    select account_id as "accountId" from verified`)[0]?.accountId

/** Whether a reset link is good now. Looked up before a password is hashed for it. */
export const isResetLinkGood = async (sql: Sql, hash: Uint8Array, nowMs: number): Promise<boolean> =>
  (await sql`select from email_tokens where token_hash = ${hash} and purpose = 'reset' and expires_at > ${new Date(nowMs)}`).length === 1

/** Sets another password if the proved one is still the user's, and ends every login of the user: answers whether. */
export const changePassword = (sql: Sql, user: User, passwordHash: string, audit: Audit): Promise<boolean> =>
  begin(sql, async (tx) => {
    const changed = await tx`update users set password_hash = ${passwordHash} where id = ${user.id} and password_hash = ${user.passwordHash} returning id`
    if (changed.length === 0) return false
    await endLogins(tx, user.id, "user.password_change", audit)
    return true
  })

/** Uses a reset link: sets the password and ends every login of the user. Answers the email, or nothing when the link is not good. */
export const resetPassword = (sql: Sql, hash: Uint8Array, passwordHash: string, nowMs: number, audit: Audit): Promise<string | undefined> =>
  begin(sql, async (tx) => {
    const [reset] = await tx<Array<{ id: UserId; email: string }>>`
      with used as (
        delete from email_tokens where token_hash = ${hash} and purpose = 'reset' and expires_at > ${new Date(nowMs)} returning user_id
      )
      update users set password_hash = ${passwordHash} from used where id = used.user_id returning id, email`
    if (reset === undefined) return undefined
    await endLogins(tx, reset.id, "user.password_reset", audit)
    return reset.email
  })

/** The second statement of a new password: a login that the first one waited for is visible only now. */
const endLogins = (sql: Sql, userId: UserId, action: string, audit: Audit) => sql`
  with owner as (
    select id as user_id, account_id from users where id = ${userId}
  ), ended as (
    delete from logins where user_id = ${userId}
  ), unlinked as (
    delete from email_tokens where user_id = ${userId} and purpose = 'reset'
  )
  ${auditOf(sql, "owner", action, audit)}`
