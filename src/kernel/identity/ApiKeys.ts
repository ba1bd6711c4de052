/**
 * API keys: making, listing, revoking. The secret is shown once; what is stored
 * is its SHA-256. A key's status lives in its account's actor: a revocation
 * takes effect in the turn that decides it, and is answered when it is durable
 * and no node can admit with the key any more.
 */
import { Context, Effect, Layer } from "effect"
import { randomBytes } from "node:crypto"
import { Config, limits } from "../../config.ts"
import type { Subject } from "../../domain/account.ts"
import { type BudgetWindow, periodStartMs } from "../../domain/budget.ts"
import type { Credits } from "../../domain/credits.ts"
import { InvalidRequest, NotFound, type StoreUnavailable } from "../../domain/errors.ts"
import type { KeyId } from "../../domain/ids.ts"
import type { KeyRow } from "../../store/Commit.ts"
import { type ListedKey, listKeys } from "../../store/KeyStore.ts"
import { Postgres } from "../../store/Postgres.ts"
import { type AccountError, Accounts, type CommitError } from "../AccountActor.ts"
import { auditRow } from "../AuditTrail.ts"
import type { Caller } from "../Caller.ts"
import { autxPrefix, hashOfKey } from "./Credentials.ts"
import { Holds } from "../Holds.ts"
import { Spending } from "../lease/Spending.ts"
import { newId } from "../Ids.ts"
import { type IdempotentCall, idempotencyRows } from "../Idempotency.ts"

export interface NewApiKey {
  readonly dialect: string
  readonly name: string
  readonly scopes: ReadonlyArray<string>
  readonly expiresInDays: number | undefined
  readonly rateLimit: number | undefined
  readonly walletAddress?: string | undefined
  readonly budgets: ReadonlyArray<{ readonly window: BudgetWindow; readonly amount: Credits }>
}

export interface CreatedApiKey {
  readonly id: KeyId
  readonly name: string
  /** The secret, in this answer and nowhere else. */
  readonly key: string
  readonly prefix: string
  readonly scopes: ReadonlyArray<string>
  readonly expiresAt: Date | undefined
  readonly createdAt: Date
}

export type ApiKeyError = AccountError | CommitError | StoreUnavailable

const dayMs = 86_400_000

/** 256 random bits: 43 characters of base64url. */
const secretText = (): string => randomBytes(32).toString("base64url")

export interface MadeKey {
  /** As it is sent behind `Bearer`. */
  readonly key: string
  /** What lists show of it. */
  readonly prefix: string
}

/** A key of acf is an id that may be shown and a secret (contracts/acf.md, Keys); one of autx is a secret with a known beginning. */
export const makeKey = (dialect: string): MadeKey => {
  if (dialect === "acf") {
    const prefix = `acf_${randomBytes(8).toString("hex")}`
    return { prefix, key: `${prefix}:sec_${secretText()}` }
  }
  const key = `${autxPrefix}${secretText()}`
  return { key, prefix: key.slice(0, autxPrefix.length + 6) }
}

export class ApiKeys extends Context.Service<ApiKeys, {
  /** Durable when answered. */
  readonly create: (caller: Caller, wanted: NewApiKey, idempotency: IdempotentCall | undefined) => Effect.Effect<CreatedApiKey, ApiKeyError | InvalidRequest>
  /** With what each budget has spent in its current period. */
  readonly list: (caller: Caller, dialect: string) => Effect.Effect<ReadonlyArray<ListedKey>, StoreUnavailable>
  /** Answers how many milliseconds after the decision no node could admit with the key any more. Revoking twice is `NotFound`. */
  readonly revoke: (caller: Caller, id: KeyId) => Effect.Effect<number, ApiKeyError>
}>()("tollgate/kernel/identity/ApiKeys") {
  static readonly layer = Layer.effect(ApiKeys, Effect.gen(function*() {
    const accounts = yield* Accounts
    const spending = yield* Spending
    const holds = yield* Holds
    const postgres = yield* Postgres
    const settings = yield* Config

    return ApiKeys.of({
      create: Effect.fn("ApiKeys.create")(function*(caller, wanted, idempotency) {
        const made = makeKey(wanted.dialect)
        return yield* accounts.act(caller.accountId, (account, nowMs): Effect.Effect<CreatedApiKey, CommitError | InvalidRequest> => {
          if (account.subjects.size >= limits.keysPerAccountMax) {
            return Effect.fail(new InvalidRequest({ malformed: false, issues: [{ loc: ["body"], msg: `an account may have ${limits.keysPerAccountMax} keys; revoke one first` }] }))
          }
          const row = keyRow(wanted, made, nowMs)
          const created: CreatedApiKey = {
            id: row.id, name: row.name, key: made.key, prefix: row.prefix, scopes: row.scopes,
            expiresAt: row.expiresAtMs === undefined ? undefined : new Date(row.expiresAtMs), createdAt: new Date(nowMs)
          }
          return accounts.commit(account, {
            keys: [row],
            idempotency: idempotencyRows(idempotency, row.id, created, nowMs),
            audit: [auditRow(caller, "api_key.create", row.id, nowMs, { name: row.name, scopes: row.scopes })]
          }).pipe(Effect.map(() => {
            // Durable: from here on the account's actor knows it too.
            account.subjects.set(row.id, subjectOf(row, settings.keyRateLimitDefault, holds.windowOf(account.id, row.id)))
            return created
          }))
        })
      }),
      list: (caller, dialect) => listKeys(caller.accountId, dialect).pipe(Effect.provideService(Postgres, postgres)),
      revoke: Effect.fn("ApiKeys.revoke")(function*(caller, id) {
        const decidedAt = performance.now()
        yield* accounts.act(caller.accountId, (account, nowMs): Effect.Effect<void, CommitError | NotFound> => {
          const subject = account.subjects.get(id)
          if (subject === undefined || subject.kind !== "key") return Effect.fail(new NotFound({ what: "api key", id }))
          subject.revoked = true
          account.subjects.delete(id)
          accounts.revoked(id)
          return accounts.commit(account, {
            revoked: [{ id, atMs: nowMs }],
            audit: [auditRow(caller, "api_key.revoke", id, nowMs)]
          })
        })
        yield* spending.revoked(caller.accountId, id)
        return Math.ceil(performance.now() - decidedAt)
      })
    })
  }))
}

const keyRow = (wanted: NewApiKey, { key, prefix }: MadeKey, nowMs: number): KeyRow => ({
  id: newId(),
  dialect: wanted.dialect,
  name: wanted.name,
  hash: hashOfKey(key),
  prefix,
  walletAddress: wanted.walletAddress,
  scopes: wanted.scopes,
  rateLimit: wanted.rateLimit,
  expiresAtMs: wanted.expiresInDays === undefined ? undefined : nowMs + wanted.expiresInDays * dayMs,
  createdAtMs: nowMs,
  budgets: wanted.budgets.map(({ window, amount }) => ({ window, amount, periodStartMs: periodStartMs(window, nowMs) }))
})

const subjectOf = (row: KeyRow, limitDefault: number, window: Subject["window"]): Subject => ({
  id: row.id,
  kind: "key",
  scopes: row.scopes.includes("*") ? undefined : new Set(row.scopes),
  revoked: false,
  expiresAtMs: row.expiresAtMs ?? Infinity,
  limit: row.rateLimit ?? limitDefault,
  window,
  budgets: row.budgets.map((budget) => ({ window: budget.window as BudgetWindow, amount: budget.amount, periodStartMs: budget.periodStartMs, spent: 0n })),
  held: 0n
})

