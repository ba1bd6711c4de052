/** API keys: shown once, listed by their first characters, revoked for good. */
import { Clock, Effect } from "effect"
import { type BudgetWindow, spentAt } from "../../domain/budget.ts"
import type { Credits } from "../../domain/credits.ts"
import type { KeyId } from "../../domain/ids.ts"
import { Answer, endpoint } from "../../http/endpoint.ts"
import { ApiKeys } from "../../kernel/identity/ApiKeys.ts"
import { commitErrors } from "./errors.ts"
import * as wire from "./wire.ts"

const tag = "API keys"
const dialect = "autx"

interface KeyFacts {
  readonly id: KeyId
  readonly name: string
  readonly prefix: string
  readonly scopes: ReadonlyArray<string>
  readonly expiresAt: Date | undefined
  readonly createdAt: Date
}
const keyView = ({ id, name, prefix, scopes, expiresAt, createdAt }: KeyFacts) => ({
  id, name, key_prefix: prefix, scopes: scopes.join(","), expires_at: expiresAt ?? null, created_at: createdAt
})

interface BudgetFacts {
  readonly window: BudgetWindow
  readonly amount: Credits
  readonly spent: Credits
  readonly periodStart: Date
}
/** What was spent in a period that is over is not shown as spent now. */
const budgetView = ({ window, amount, spent, periodStart }: BudgetFacts, nowMs: number) => ({
  window, amount_usd: amount, spent_usd: spentAt({ window, amount, spent, periodStartMs: periodStart.getTime() }, nowMs)
})

export const keys = [
  endpoint({
    id: "autx.api_keys.create", method: "POST", path: "/api-keys/", auth: "login", verified: true, status: 201, decimals: true, idempotent: true, secret: true,
    docs: { summary: "Create an API key", description: "The key is in this answer and nowhere else: store it.", tag },
    payload: wire.NewApiKey, success: wire.CreatedApiKey, errors: commitErrors,
    handle: ({ payload: { name, scopes, expires_in_days, budgets } }, { caller, idempotency }) => ApiKeys.use((keys) => keys.create(caller, {
      dialect, name, scopes, expiresInDays: expires_in_days ?? undefined, rateLimit: undefined,
      budgets: budgets.map(({ window, amount_usd }) => ({ window, amount: amount_usd }))
    }, idempotency)),
    view: (created) => ({ ...keyView(created), status: "active", key: created.key })
  }),
  endpoint({
    id: "autx.api_keys.list", method: "GET", path: "/api-keys/", auth: "login",
    docs: { summary: "List your API keys", description: "Newest first, revoked ones too; at most 1,000. Never the keys themselves.", tag },
    success: wire.ApiKeys,
    handle: (_, { caller }) => Effect.all({ rows: ApiKeys.use((keys) => keys.list(caller, dialect)), nowMs: Clock.currentTimeMillis }),
    view: ({ rows, nowMs }) => rows.map((row) => ({
      ...keyView(row), status: row.status, budgets: row.budgets.map((budget) => budgetView(budget, nowMs))
    }))
  }),
  endpoint({
    id: "autx.api_keys.revoke", method: "DELETE", path: "/api-keys/{id}", auth: "login",
    docs: { summary: "Revoke an API key", description: "Answered when no node admits with it any more; `x-autx-revoked-within-ms` says how long that took.", tag },
    params: wire.WithId, errors: ["NotFound", ...commitErrors],
    handle: ({ params }, { caller }) => ApiKeys.use((keys) => keys.revoke(caller, params.id as KeyId)).pipe(
      Effect.map((withinMs) => new Answer(undefined, [["x-autx-revoked-within-ms", String(withinMs)]]))
    )
  })
]
