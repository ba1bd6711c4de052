/**
 * PostgreSQL by postgres.js, which lives in this file alone: two pools and the
 * reading of its errors.
 *
 * `reads` serves the management API and activations: small, with a statement
 * timeout, so that a slow page can't starve charging. `writes` belongs to the
 * Committer: one connection, because one batch is in flight at a time.
 *
 * Every query runs through `run`, which turns a lost or refused connection into
 * `StoreUnavailable` (nothing is said about whether a write happened) and lets
 * a constraint violation through as `SqlFailure`. Anything else is a defect.
 */
import { Context, Effect, Layer } from "effect"
import postgres from "postgres"
import { limits } from "../config.ts"
import { StoreUnavailable } from "../domain/errors.ts"

/** How to reach a server: a URL, or a Unix socket's directory (which no URL can name for postgres.js). */
export type Connection = string | { readonly host: string; readonly port: number; readonly user: string; readonly database: string }

export type Sql = postgres.Sql<{ bigint: bigint }>

/** The server's own refusal of one statement: it is certain that nothing of it was done. */
export class SqlFailure extends Error {
  override readonly name = "SqlFailure"
  readonly code: string
  readonly constraint: string | undefined
  constructor(code: string, message: string, constraint: string | undefined) {
    super(message)
    this.code = code
    this.constraint = constraint
  }
}

/**
 * What a failed statement says about its effect.
 * `refused`: it was not executed (never sent, or aborted by the server for a passing reason), try again.
 * `aborted`: the server refused this very statement; the same statement will fail again.
 * `unknown`: it was sent, and no answer came.
 */
export type Verdict = "refused" | "aborted" | "unknown"

const neverSent = new Set(["ECONNREFUSED", "ENOENT", "CONNECT_TIMEOUT", "ENOTFOUND", "EAI_AGAIN", "EACCES", "CONNECTION_ENDED"])
// Serialization failure, deadlock, read-only server, cannot connect now, too many connections, out of memory or disk, lock not available.
const passing = new Set(["40001", "40P01", "25006", "57P03", "53000", "53100", "53200", "53300", "55P03"])

export const verdictOf = (error: unknown): Verdict => {
  const code = codeOf(error)
  if (code === undefined) return "unknown"
  if (neverSent.has(code) || passing.has(code) || code.startsWith("08") || code.startsWith("28")) return "refused"
  // A backend that is told to end says so, but may say it after its commit.
  if (code.startsWith("57P") || code.startsWith("XX") || code === "57014") return "unknown"
  return error instanceof postgres.PostgresError ? "aborted" : "unknown"
}

const codeOf = (error: unknown): string | undefined =>
  typeof error === "object" && error !== null && "code" in error && typeof error.code === "string" ? error.code : undefined

const isOutage = (error: unknown): boolean => verdictOf(error) !== "aborted"

const failureOf = (error: unknown): StoreUnavailable | SqlFailure => {
  if (isOutage(error)) return new StoreUnavailable({ retryAfterMs: 1_000 })
  const { code, message, constraint_name } = error as postgres.PostgresError
  return new SqlFailure(code, message, constraint_name)
}

export const connect = (connection: Connection, options: { max: number; statementTimeoutMs: number; name: string }): Sql => {
  const settings = {
    max: options.max,
    types: { bigint: postgres.BigInt },
    connect_timeout: 3,
    // A failed connection is tried again by the next query; waiting longer only makes recovery late.
    backoff: () => 0.02,
    max_lifetime: null,
    connection: {
      application_name: options.name,
      statement_timeout: options.statementTimeoutMs,
      timezone: "UTC"
    },
    onnotice: () => {}
  } as const
  return typeof connection === "string" ? postgres(connection, settings) : postgres({ ...connection, ...settings })
}

export class Postgres extends Context.Service<Postgres, {
  readonly reads: Sql
  readonly writes: Sql
  /** Runs on `reads`. A `SqlFailure` is a defect unless the caller expects it and uses `attempt`. */
  readonly run: <A>(query: (sql: Sql) => Promise<A>) => Effect.Effect<A, StoreUnavailable>
  readonly attempt: <A>(query: (sql: Sql) => Promise<A>) => Effect.Effect<A, StoreUnavailable | SqlFailure>
}>()("tollgate/store/Postgres") {
  static readonly layer = (connection: Connection): Layer.Layer<Postgres> =>
    Layer.effect(Postgres, Effect.acquireRelease(
      Effect.sync(() => {
        const reads = connect(connection, { max: limits.readConnections, statementTimeoutMs: limits.readStatementTimeoutMs, name: "tollgate" })
        const writes = connect(connection, { max: limits.committerConnections, statementTimeoutMs: limits.commitStatementTimeoutMs, name: "tollgate-committer" })
        const attempt = <A>(query: (sql: Sql) => Promise<A>) => Effect.tryPromise({ try: () => query(reads), catch: failureOf })
        return Postgres.of({
          reads,
          writes,
          attempt,
          run: (query) => attempt(query).pipe(Effect.catchIf((error) => error instanceof SqlFailure, (error) => Effect.die(error)))
        })
      }),
      ({ reads, writes }) => Effect.promise(() => Promise.all([reads.end({ timeout: 2 }), writes.end({ timeout: 2 })]))
    ))
}
