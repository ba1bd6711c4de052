/**
 * The dashboard: a page for browsers, so that refusals are pages too.
 *
 * The session's cookie is `Secure` and named `__Host-` where the browser came by
 * https. By http, on this machine or inside a network, no browser would keep
 * such a cookie reliably, so there it has neither.
 */
import { Effect, Schema } from "effect"
import { Config } from "../../config.ts"
import type { GatewayError } from "../../domain/errors.ts"
import { text } from "../../http/rows/fields.ts"
import { Answer, type Call, endpoint } from "../../http/endpoint.ts"
import { Dashboard, type Opened } from "../../kernel/market/Dashboard.ts"
import { pageSessionTtlMs } from "../../kernel/identity/Tokens.ts"
import { doorPage } from "../../web/dashboardDoor.ts"
import { dashboardPage } from "../../web/dashboardPage.ts"
import type { Page } from "../../web/page.ts"
import { errors } from "./errors.ts"

type Seen = Pick<Call, "header" | "path">

const loopback = /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?$/

/** Behind a proxy the host may be the proxy's own name for the gateway, and the scheme is what it says. */
const isSecure = ({ header }: Seen, publicUrl: string): boolean =>
  header("x-forwarded-proto") === "https" || publicUrl.startsWith("https:") && !loopback.test(header("host") ?? "")

const nameOf = (secure: boolean): string => secure ? "__Host-tollgate_admin" : "tollgate_admin"

const cookieIn = ({ header }: Seen, name: string): string | undefined =>
  header("cookie")?.split(";").map((pair) => pair.trim()).find((pair) => pair.startsWith(`${name}=`))?.slice(name.length + 1)

const answer = (page: Page, status = 200, more: ReadonlyArray<readonly [string, string]> = []): Answer<string> =>
  new Answer(page.html, [["content-security-policy", page.contentSecurityPolicy], ...more], status)

const opened = (opened: Opened, seen: Seen, secure: boolean): Answer<string> => opened._tag === "figures"
  ? answer(dashboardPage(opened.figures))
  : new Answer("", [
    ["location", seen.path],
    ["set-cookie", `${nameOf(secure)}=${opened.session}; Path=/; Max-Age=${pageSessionTtlMs / 1000}; HttpOnly; SameSite=Strict${secure ? "; Secure" : ""}`]
  ], 303)

const refused = (error: GatewayError): Answer<string> => {
  const { status, headers, body } = (errors[error._tag] as (error: GatewayError) => ReturnType<typeof errors.NotFound>)(error)
  const { detail } = body as { readonly detail: string }
  return answer(doorPage(detail, error._tag === "Unauthenticated" && error.reason === "missing"), status, headers)
}

export const dashboard = [
  endpoint({
    id: "acf.dashboard.read", method: "GET", path: "/admin/dashboard", auth: "public", media: "text/html; charset=utf-8",
    docs: {
      summary: "The dashboard, for browsers",
      description: "With an admin's key in `key` or as the Bearer token: a session in a cookie, and 303 to the same address without the key. With the cookie: the page. Refusals are pages too.",
      tag: "Dashboard"
    },
    query: Schema.Struct({ key: Schema.optionalKey(text(512).annotate({ description: "`key_id:secret` of an admin" })) }),
    errors: ["Unauthenticated", "AccountSuspended", "ScopeMissing", "TooManyAttempts", "MailboxFull", "Overloaded", "StoreUnavailable", "NotConfigured"],
    handle: ({ query: { key } }, call) => Effect.gen(function*() {
      const secure = isSecure(call, (yield* Config).publicUrl)
      const authorization = key === undefined ? call.header("authorization") : `Bearer ${key}`
      const shown = { authorization, session: cookieIn(call, nameOf(secure)), remoteAddress: call.remoteAddress }
      return opened(yield* Dashboard.use((dashboard) => dashboard.open(shown)), call, secure)
    }).pipe(Effect.catch((error) => Effect.succeed(refused(error))))
  })
]
