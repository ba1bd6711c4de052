/** The audit log: what was done to manage the caller's own account, newest first. */
import { Effect } from "effect"
import { endpoint } from "../../http/endpoint.ts"
import { auditTrail } from "../../kernel/AuditTrail.ts"
import { page } from "./page.ts"
import * as wire from "./wire.ts"

export const audit = [
  endpoint({
    id: "autx.audit.list", method: "GET", path: "/audit", auth: "login",
    docs: { summary: "List your management actions", description: "Keys, agents, logins: who did what to which, newest first.", tag: "Audit" },
    query: wire.PageQuery, success: wire.AuditTrail,
    handle: ({ query }, { caller }) => auditTrail(caller, query.limit + 1, query.cursor).pipe(
      Effect.flatMap((rows) => page("/audit", wire.PageQuery, query, rows, ({ id }) => ({ ...query, cursor: id })))
    ),
    view: (rows) => rows.map(({ createdAt, ...row }) => ({ ...row, created_at: createdAt }))
  })
]
