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
import { setTimeout as sleep } from "node:timers/promises"
import postgres from "postgres"
import { limits } from "../config.ts"
import { StoreUnavailable } from "../domain/errors.ts"
import { log } from "../telemetry/log.ts"

/** How to reach a server: a URL as libpq reads it, or a Unix socket's directory. */
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

/** A one-dimensional array without nulls, in PostgreSQL's text form. */
const arrayType = (oid: number) => ({
  to: oid,
  from: [oid],
  serialize: (items: ReadonlyArray<string>) => `{${items.map((item) => `"${item.replace(/["\\]/g, "\\$&")}"`).join()}}`,
  parse: (text: string) => Array.from(text.matchAll(/"((?:[^"\\]|\\.)*)"|[^{},]+/gs), ([plain, quoted]) => quoted?.replace(/\\(.)/gs, "$1") ?? plain)
})

export interface PoolOptions {
  readonly max: number
  readonly statementTimeoutMs: number
  readonly name: string
  /** Settings of its sessions. */
  readonly session?: Readonly<Record<string, string>>
  /** Called when one of the connections has ended. */
  readonly onLost?: () => void
}

/**
 * libpq's ways to name a Unix socket, `postgres://user@/name?host=/dir` and with
 * any host before it, as postgres.js needs them: it would tell the server what
 * stands in the query, and a login without a host is no URL to it.
 */
const placeOf = (text: string): readonly [url: string, place: { readonly host?: string; readonly port?: number }] => {
  const whole = text.replace(/^(\w+:\/\/[^/?#]*@)(?=[/?]|$)/, "$1localhost")
  const url = new URL(whole)
  const take = (name: string): string | undefined => {
    const value = url.searchParams.get(name) ?? undefined
    url.searchParams.delete(name)
    return value
  }
  const host = take("host") ?? (whole === text ? undefined : process.env["PGHOST"])
  const port = take("port")
  return [url.href, { ...(host === undefined ? {} : { host }), ...(port === undefined ? {} : { port: Number(port) }) }]
}

export const connect = (connection: Connection, options: PoolOptions): Sql => {
  const settings = {
    max: options.max,
    types: { bigint: postgres.BigInt, texts: arrayType(1009), uuids: arrayType(2951) },
    // postgres.js would ask each new connection for all array types, and end the process when that fails.
    fetch_types: false,
    connect_timeout: 3,
    // A failed connection is tried again by the next query; waiting longer only makes recovery late.
    backoff: () => 0.02,
    max_lifetime: null,
    connection: {
      application_name: options.name,
      statement_timeout: options.statementTimeoutMs,
      timezone: "UTC",
      ...options.session
    },
    onnotice: () => {},
    onclose: () => options.onLost?.()
  } as const
  if (typeof connection !== "string") return postgres({ ...connection, ...settings })
  const [url, place] = placeOf(connection)
  return postgres(url, { ...settings, ...place })
}

interface Pool {
  /** Good for the node's whole life. */
  readonly sql: Sql
  /** Fails what is under way as of unknown outcome, at once, and goes on with other connections. */
  readonly renew: () => void
  /** Goes on with other connections when this failure says that one of these is read-only. */
  readonly heed: (failure: unknown) => void
  readonly end: () => Promise<unknown>
}

/** How long statements on healthy connections may take to end when their pool is replaced. */
const renewalGraceSeconds = 1
/** A server that stays read-only is not asked for new connections by each statement that it refuses. */
const heedEveryMs = 1_000
const readOnly = "25006"

/**
 * A pool that is replaced as a whole when one of its connections ends, or turns
 * out to be read-only: it stays so although the server, or another one in its
 * place, takes writes again. A lost
 * connection of postgres.js 3.4 is not to be used again: a statement that comes
 * between its socket's error and its close is never answered, and one that waits
 * to be written then keeps the next socket from ever being used.
 */
const openPool = (connection: Connection, options: Omit<PoolOptions, "onLost">): Pool => {
  let ended = false
  let openedAt = 0
  const open = (): Sql => {
    openedAt = performance.now()
    const opened = connect(connection, { ...options, onLost: () => { if (opened === current) replace(renewalGraceSeconds) } })
    return opened
  }
  const replace = (graceSeconds: number): void => {
    if (ended) return
    const old = current
    current = open()
    void old.end({ timeout: graceSeconds })
  }
  let current = open()
  return {
    sql: new Proxy(current, {
      apply: (_, self, args) => Reflect.apply(current, self, args) as unknown,
      get: (_, name) => Reflect.get(current, name) as unknown
    }),
    renew: () => replace(0),
    heed: (failure) => { if (codeOf(failure) === readOnly && performance.now() - openedAt > heedEveryMs) replace(renewalGraceSeconds) },
    end: () => {
      ended = true
      return current.end({ timeout: 2 })
    }
  }
}

/**
 * A transaction of several statements. Unlike `sql.begin` it sends no rollback
 * after a connection that was lost: postgres.js would throw where nobody can
 * catch it, and the process would end.
 */
export const begin = <A>(sql: Sql, act: (transaction: Sql) => Promise<A>): Promise<A> =>
  sql.begin((transaction) => act(transaction as unknown as Sql).catch((error: unknown) =>
    // The loss itself rejects the transaction.
    isLoss(error) ? new Promise<A>(() => {}) : Promise.reject(error)
  )) as Promise<A>

/** Fails when no answer came in time, by the real clock; what was asked may be done all the same. */
const inTime = <A>(answer: Promise<A>): Promise<A> => new Promise((done, fail) => {
  const overdue = setTimeout(() => fail(new Error("the database gave no answer")), limits.readAnswerTimeoutMs)
  answer.then(done, fail).finally(() => clearTimeout(overdue))
})

/** The connection ended under a statement. */
const isLoss = (error: unknown): boolean =>
  codeOf(error)?.startsWith("CONNECTION_") === true || error instanceof Error && "syscall" in error

/**
 * The committer's statements are few, and their plans must not depend on how big a table was when they were made: each
 * is planned once, and finds rows by an index only, which also keeps its locks in order (`batchSql.ts`). Compiling them
 * would cost more than running them.
 */
const committerSession = { plan_cache_mode: "force_generic_plan", enable_seqscan: "off", jit: "off" }

/** Pages and roll-ups are over sooner than compiling them would take. */
const readsSession = { jit: "off" }

/** What a server says that will soon take connections: it starts up, or others have all that there are. */
const busy = new Set(["57P03", "53300"])
/** Between tries, some ten seconds in all. */
const waitsMs = [100, 250, 500, 1_000, 2_000, 3_000, 3_000]

/** Waits for a server that is starting or has no connection to spare; any other failure is for the caller to meet. */
export const awaitServer = async (sql: Sql): Promise<void> => {
  for (const ms of waitsMs) {
    const failure: unknown = await sql`select 1`.then(() => undefined, (cause: unknown) => cause)
    if (!busy.has(codeOf(failure) ?? "")) return
    if (ms === waitsMs[0]) log.warn({ reason: (failure as Error).message }, "the database takes no connection yet")
    await sleep(ms)
  }
}

export class Postgres extends Context.Service<Postgres, {
  readonly reads: Sql
  readonly writes: Sql
  /** Opens a connection of its own for each use by `listen`, and holds on to it. */
  readonly news: Sql
  /** Gives up the connection of `writes`: a statement under way on it fails as `unknown`, later ones get another. */
  readonly renewWrites: () => void
  /** To be told of a failure on `reads`, by who uses it directly. */
  readonly heedReads: (failure: unknown) => void
  /** Runs on `reads`. A `SqlFailure` is a defect unless the caller expects it and uses `attempt`. */
  readonly run: <A>(query: (sql: Sql) => Promise<A>) => Effect.Effect<A, StoreUnavailable>
  readonly attempt: <A>(query: (sql: Sql) => Promise<A>) => Effect.Effect<A, StoreUnavailable | SqlFailure>
}>()("tollgate/store/Postgres") {
  static readonly layer = (connection: Connection): Layer.Layer<Postgres> =>
    Layer.effect(Postgres, Effect.acquireRelease(
      Effect.sync(() => {
        const reads = openPool(connection, { max: limits.readConnections, statementTimeoutMs: limits.readStatementTimeoutMs, name: "tollgate", session: readsSession })
        const writes = openPool(connection, { max: limits.committerConnections, statementTimeoutMs: limits.commitStatementTimeoutMs, name: "tollgate-committer", session: committerSession })
        const news = connect(connection, { max: 1, statementTimeoutMs: 0, name: "tollgate-news" })
        const attempt = <A>(query: (sql: Sql) => Promise<A>) => Effect.tryPromise({
          try: () => inTime(query(reads.sql)),
          catch: (failure) => {
            reads.heed(failure)
            return failureOf(failure)
          }
        })
        const service = Postgres.of({
          reads: reads.sql,
          writes: writes.sql,
          news,
          renewWrites: writes.renew,
          heedReads: reads.heed,
          attempt,
          run: (query) => attempt(query).pipe(Effect.catchIf((error) => error instanceof SqlFailure, (error) => Effect.die(error)))
        })
        return { service, end: () => Promise.all([reads.end(), writes.end(), news.end({ timeout: 2 })]) }
      }),
      ({ end }) => Effect.promise(end)
    ).pipe(Effect.map(({ service }) => service)))
}
