/** Registration, logins, proof of an email, passwords, and linking accounts. */
import type { UserId } from "../../domain/ids.ts"
import { endpoint } from "../../http/endpoint.ts"
import type { Caller } from "../../kernel/Caller.ts"
import { type LoggedIn, type UserView, Users } from "../../kernel/identity/Users.ts"
import { Links } from "../../kernel/market/Links.ts"
import { commitErrors } from "./errors.ts"
import * as wire from "./wire.ts"

const tag = "Auth"

const userView = ({ id, email, emailVerified, createdAt }: UserView) => ({ id, email, email_verified: emailVerified, created_at: createdAt })

const loggedInView = ({ accessToken, refreshToken, expiresIn, user }: LoggedIn) => ({
  access_token: accessToken, refresh_token: refreshToken, token_type: "bearer", expires_in: expiresIn, user: userView(user)
})

/** Of rows that only logins may call. */
const userOf = (caller: Caller): UserId => caller.subjectId as UserId

export const auth = [
  endpoint({
    id: "autx.auth.register", method: "POST", path: "/auth/register", auth: "public", status: 201,
    docs: { summary: "Create an account", description: "Sends a letter with a link that verifies the email.", tag },
    payload: wire.LoginRequest, success: wire.LoggedIn, errors: ["AlreadyExists", "Overloaded", "StoreUnavailable", "NotConfigured"],
    handle: ({ payload }, call) => Users.use((users) => users.register(payload.email, payload.password, call)),
    view: loggedInView
  }),
  endpoint({
    id: "autx.auth.login", method: "POST", path: "/auth/login", auth: "public",
    docs: { summary: "Log in", description: "After 10 failures for an email or from an address in 15 minutes: 429.", tag },
    payload: wire.LoginRequest, success: wire.LoggedIn, errors: ["Unauthenticated", "TooManyAttempts", "Overloaded", "StoreUnavailable", "NotConfigured"],
    handle: ({ payload }, call) => Users.use((users) => users.login(payload.email, payload.password, call)),
    view: loggedInView
  }),
  endpoint({
    id: "autx.auth.refresh", method: "POST", path: "/auth/refresh", auth: "public",
    docs: { summary: "Exchange a refresh token for new tokens", description: "A refresh token is good once; using it again ends its login.", tag },
    payload: wire.RefreshRequest, success: wire.LoggedIn, errors: ["Unauthenticated", "StoreUnavailable", "NotConfigured"],
    handle: ({ payload }) => Users.use((users) => users.refresh(payload.refresh_token)),
    view: loggedInView
  }),
  endpoint({
    id: "autx.auth.logout", method: "POST", path: "/auth/logout", auth: "login",
    docs: { summary: "End this login", description: "Its refresh token is good no more; the access token lives out its 15 minutes.", tag },
    handle: (_, { caller }) => Users.use((users) => users.logout({ userId: userOf(caller), loginId: caller.loginId! }))
  }),
  endpoint({
    id: "autx.auth.me", method: "GET", path: "/auth/me", auth: "login",
    docs: { summary: "The current user", tag },
    success: wire.User,
    handle: (_, { caller }) => Users.use((users) => users.me(userOf(caller))),
    view: userView
  }),
  endpoint({
    id: "autx.auth.verify", method: "GET", path: "/auth/verify", auth: "public",
    docs: { summary: "Verify an email", description: "The link of the letter. Good once, for 24 hours.", tag },
    query: wire.VerifyQuery, success: wire.Done, errors: ["StoreUnavailable"],
    handle: ({ query }) => Users.use((users) => users.verify(query.token)),
    view: () => ({ detail: "Your email is verified" })
  }),
  endpoint({
    id: "autx.auth.verify.resend", method: "POST", path: "/auth/verify/resend", auth: "login", status: 202,
    docs: { summary: "Send another verification letter", tag },
    success: wire.Done, errors: ["TooManyAttempts"],
    handle: (_, { caller }) => Users.use((users) => users.resendVerification(userOf(caller))),
    view: () => ({ detail: "A letter is on its way, unless your email is verified already" })
  }),
  endpoint({
    id: "autx.auth.password.change", method: "POST", path: "/auth/password", auth: "login",
    docs: { summary: "Change the password", description: "Ends every login of the user, this one too. 401 when the current password is wrong.", tag },
    payload: wire.PasswordChange, errors: ["TooManyAttempts", "Overloaded"],
    handle: ({ payload }, { caller }) => Users.use((users) => users.changePassword(userOf(caller), payload.current_password, payload.new_password))
  }),
  endpoint({
    id: "autx.auth.password.forgot", method: "POST", path: "/auth/password/forgot", auth: "public", status: 202,
    docs: { summary: "Send a letter with a link to reset the password", description: "The same answer for unknown emails.", tag },
    payload: wire.PasswordForgotten, success: wire.Done, errors: ["TooManyAttempts", "StoreUnavailable"],
    handle: ({ payload }, call) => Users.use((users) => users.forgot(payload.email, call)),
    view: () => ({ detail: "If the email is registered, a letter is on its way" })
  }),
  endpoint({
    id: "autx.auth.password.reset", method: "POST", path: "/auth/password/reset", auth: "public", status: 204,
    docs: { summary: "Choose another password", description: "With the token of the letter's link. Good once, for an hour. Ends every login of the user.", tag },
    payload: wire.PasswordReset, errors: ["Overloaded", "StoreUnavailable"],
    handle: ({ payload }) => Users.use((users) => users.reset(payload.token, payload.new_password))
  }),
  endpoint({
    id: "autx.account.links.create", method: "POST", path: "/account/links", auth: "login", status: 201,
    docs: {
      summary: "Merge with an account of another product",
      description: "Proves a key of the other product: both accounts become this one, with one balance. Linking again changes nothing; 409 when either is linked with somebody else.",
      tag
    },
    payload: wire.NewLink, success: wire.Link,
    errors: ["RuleBroken", "Unauthenticated", "AlreadyExists", "TooManyAttempts", ...commitErrors],
    handle: ({ payload }, { caller, remoteAddress }) => Links.use((links) => links.link(caller, payload.dialect, payload.key, remoteAddress)),
    view: ({ dialect, owner, available }) => ({ dialect, owner_id: owner, balance_usd: available })
  })
]
