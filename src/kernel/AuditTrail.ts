/** Audit rows of management actions: written in the same commit as the action, read by whom they are about. */
import type { Effect } from "effect"
import type { StoreUnavailable } from "../domain/errors.ts"
import { type AuditEntry, listAudit } from "../store/AuditStore.ts"
import type { AuditRow } from "../store/Commit.ts"
import type { Postgres } from "../store/Postgres.ts"
import type { Caller } from "./Caller.ts"
import { newId } from "./Ids.ts"

export const actorOf = (caller: Caller): string => `${caller.kind === "login" ? "user" : "key"}:${caller.subjectId}`

/** `details` must carry no secret. */
export const auditRow = (caller: Caller, action: string, target: string, atMs: number, details: Readonly<Record<string, unknown>> = {}): AuditRow =>
  ({ id: newId(), actor: actorOf(caller), action, target, details, atMs })

/** What was done to manage the caller's account, newest first. `after`: the id of the last entry seen. */
export const auditTrail = (caller: Caller, limit: number, after: string | undefined): Effect.Effect<ReadonlyArray<AuditEntry>, StoreUnavailable, Postgres> =>
  listAudit(caller.accountId, limit, after)
