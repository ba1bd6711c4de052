/**
 * Every knob. `Settings` are what an operator may set by environment (fixed
 * names, listed in README); `limits` are bounds that the code relies on, each
 * with its unit and its reason.
 *
 * `readSettings` is pure: it takes an environment and answers settings or the
 * first `BadSetting`, one line that names the setting, the value and what is
 * allowed. An empty value counts as unset; `NAME_FILE` names a file to read a
 * secret from.
 */
import { Context } from "effect"
import { readFileSync } from "node:fs"
import { resolve } from "node:path"
import { type Credits, parseUsd } from "./domain/credits.ts"

export interface Settings {
  readonly port: number
  readonly host: string
  /** The only source of absolute URLs and of `iss`; never the Host header. */
  readonly publicUrl: string
  readonly dataDir: string
  /** `undefined`: the embedded server. */
  readonly databaseUrl: string | undefined
  /** Set: this process is one of many nodes. */
  readonly redisUrl: string | undefined
  /** Where other nodes reach this one; 0: a free port. */
  readonly clusterHost: string
  readonly clusterPort: number
  readonly logLevel: "trace" | "debug" | "info" | "warn" | "error" | "silent"
  readonly demo: boolean
  readonly enableTestCredits: boolean
  readonly autoVerifyEmail: boolean
  /** Calls per 60 s of a key or login that has no limit of its own. */
  readonly keyRateLimitDefault: number
  readonly proxyBilling: "free" | "paid"
  /** Whether calls of acf services are recorded, to be invoiced elsewhere, or paid from credits. */
  readonly acfSettlement: "record" | "prepaid"
  /** The first admin's key, `id:secret`. */
  readonly acfAdminKey: string | undefined
  /** Opens `POST /api/v1/admin/credit`. */
  readonly acfAdminSecret: string | undefined
  /** The token bucket of each address in acf: tokens a second, and how many it holds. */
  readonly acfIpRate: number
  readonly acfIpBurst: number
  /** Lets webhooks go to http addresses, for tests on one machine. */
  readonly webhookAllowHttp: boolean
  readonly launchFee: Credits
  readonly agentConcurrency: number
  readonly upstreamAllow: ReadonlyArray<string>
  /** Accounts whose agents may use `upstreamAllow`; `undefined`: all. */
  readonly upstreamAllowOwners: ReadonlyArray<string> | undefined
  readonly allowedOrigins: ReadonlyArray<string>
  readonly trustedProxies: ReadonlyArray<string>
  /** Host name → dialect name, beyond the built-in first labels. */
  readonly dialectHosts: ReadonlyMap<string, string>
  readonly usageRetentionDays: number
  /** Days after which the texts of a closed chat session are erased. */
  readonly chatRetentionDays: number
  /** A socket on which nothing is said for so long is hung up. */
  readonly chatIdleSeconds: number
  /** A session whose socket is gone for so long is closed. */
  readonly chatResumeSeconds: number
  readonly chatSessionsPerAccount: number
  /** Sockets that have not proved who they are yet; more are refused. */
  readonly chatUnauthenticatedMax: number
  /** Turns of one buyer with one agent that may be cancelled free of charge after the agent began to answer, in a UTC day. */
  readonly chatLateCancelsPerDay: number
  readonly secretsKey: string | undefined
  /** The mail server, with the login's name and password in it; `undefined`: letters go to the log. */
  readonly smtpUrl: string | undefined
  readonly mailFrom: Sender
}

/** Whom letters come from. The name may be empty. */
export interface Sender {
  readonly name: string
  readonly address: string
}

/** One line an operator can act on. The start stops. */
export class BadSetting extends Error {
  override readonly name = "BadSetting"
}

export class Config extends Context.Service<Config, Settings>()("tollgate/config") {}

/** A password may hold anything, also a slash or an @ that its writer forgot to encode. */
const withoutLogin = (url: string): string => url.replace(/^.*@/s, "…@")
const isPercentEncoded = (text: string): boolean => {
  try {
    return decodeURIComponent(text) !== ""
  } catch {
    return false
  }
}

const loopback = new Set(["127.0.0.1", "::1", "localhost"])

export const readSettings = (env: Readonly<Record<string, string | undefined>>): Settings => {
  const raw = (name: string): string | undefined => env[name] === "" ? undefined : env[name]
  const bad = (name: string, value: string, allowed: string): never => {
    throw new BadSetting(`${name}=${JSON.stringify(value)} is not allowed: ${allowed}`)
  }
  const secret = (name: string): string | undefined => {
    const file = raw(`${name}_FILE`)
    if (raw(name) !== undefined || file === undefined) return raw(name)
    try {
      return readFileSync(file, "utf8").trim() || undefined
    } catch {
      return bad(`${name}_FILE`, file, "the path of a readable file")
    }
  }
  const integer = (name: string, fallback: number, min: number, max: number): number => {
    const text = raw(name)
    if (text === undefined) return fallback
    const value = /^\d{1,12}$/.test(text) ? Number(text) : NaN
    return value >= min && value <= max ? value : bad(name, text, `a whole number from ${min} to ${max}`)
  }
  const boolean = (name: string, fallback: boolean): boolean => {
    const text = raw(name)
    if (text === undefined) return fallback
    return text === "true" || text === "1" ? true : text === "false" || text === "0" ? false : bad(name, text, "true or false")
  }
  const oneOf = <const A extends string>(name: string, fallback: A, values: ReadonlyArray<A>): A => {
    const text = raw(name)
    if (text === undefined) return fallback
    return values.find((value) => value === text) ?? bad(name, text, `one of ${values.join(", ")}`)
  }
  const list = (name: string): ReadonlyArray<string> | undefined =>
    raw(name)?.split(",").map((item) => item.trim()).filter((item) => item !== "")
  const url = (name: string, protocols: ReadonlyArray<string>): string | undefined => {
    const text = secret(name)
    if (text === undefined) return undefined
    // libpq's way to name a Unix socket, `postgres://user@/name?host=/dir`, has a login without a host.
    const whole = text.replace(/^(postgres(?:ql)?:\/\/[^/?#]*@)\//, "$1localhost/")
    const parsed = URL.canParse(whole) ? new URL(whole) : undefined
    return parsed !== undefined && protocols.includes(parsed.protocol) ? text : bad(name, withoutLogin(text), `a URL starting with ${protocols.map((p) => `${p}//`).join(" or ")}`)
  }
  const usd = (name: string, fallback: Credits): Credits => {
    const text = raw(name)
    return text === undefined ? fallback : parseUsd(text) ?? bad(name, text, "a dollar amount with at most 6 decimals")
  }
  const mailServer = (name: string): string | undefined => {
    const text = url(name, ["smtp:", "smtps:"])
    const isWhole = text === undefined || /^smtps?:\/\/[^/]/.test(text) && isPercentEncoded(text)
    return isWhole ? text : bad(name, withoutLogin(text), "smtp://user:password@host:port, user and password percent-encoded")
  }
  const sender = (name: string, fallback: string): Sender => {
    const text = raw(name) ?? fallback
    const [, display = "", angled, bare] = /^\s*(?:"?([^"<>\p{Cc}]*?)"?\s*<([^<>]*)>|([^<>]*))\s*$/u.exec(text) ?? []
    const address = (angled ?? bare ?? "").trim()
    return /^[^\s"(),:;<>@[\\\]\p{Cc}]+@[\w.:[\]-]+$/u.test(address) ? { name: display.trim(), address } : bad(name, text, "an address, or a name and an address: Tollgate <no-reply@example.com>")
  }

  const adminKey = (name: string): string | undefined => {
    const text = secret(name)
    return text === undefined || /^[\w.-]{1,64}:[\w-]{32,200}$/.test(text) ? text : bad(name, "…", "id:secret, where the secret has at least 32 url-safe characters")
  }

  const port = integer("PORT", 8080, 0, 65535)
  const host = raw("HOST") ?? "127.0.0.1"
  const databaseUrl = url("DATABASE_URL", ["postgres:", "postgresql:"])
  const redisUrl = url("REDIS_URL", ["redis:", "rediss:", "unix:"])
  if (redisUrl !== undefined && databaseUrl === undefined) bad("REDIS_URL", withoutLogin(redisUrl), "set together with DATABASE_URL: many nodes share one database")
  // Test money and a well-known login are for a gateway that only this machine can reach.
  const private_ = databaseUrl === undefined && loopback.has(host)
  const dialectHosts = (list("DIALECT_HOSTS") ?? []).map((item) => {
    const [name, dialect, ...rest] = item.split("=")
    return name && dialect && rest.length === 0 ? [name.toLowerCase(), dialect] as const : bad("DIALECT_HOSTS", item, "host=dialect pairs separated by commas")
  })
  const secretsKey = secret("SECRETS_KEY")
  if (secretsKey !== undefined && secretsKey.length < 32) bad("SECRETS_KEY", "…", "at least 32 characters")
  const acfAdminSecret = secret("ACF_ADMIN_SECRET")
  if (acfAdminSecret !== undefined && acfAdminSecret.length < 16) bad("ACF_ADMIN_SECRET", "…", "at least 16 characters")
  const publicUrl = (url("PUBLIC_URL", ["http:", "https:"]) ?? `http://localhost:${port}`).replace(/\/+$/, "")

  return {
    port,
    host,
    publicUrl,
    dataDir: resolve(raw("DATA_DIR") ?? ".data"),
    databaseUrl,
    redisUrl,
    clusterHost: raw("CLUSTER_HOST") ?? "127.0.0.1",
    clusterPort: integer("CLUSTER_PORT", 0, 0, 65534),
    logLevel: oneOf("LOG_LEVEL", "info", ["trace", "debug", "info", "warn", "error", "silent"]),
    demo: boolean("DEMO", private_),
    enableTestCredits: boolean("ENABLE_TEST_CREDITS", private_),
    autoVerifyEmail: boolean("AUTO_VERIFY_EMAIL", private_),
    keyRateLimitDefault: integer("KEY_RATE_LIMIT_DEFAULT", 60, 1, 1_000_000_000),
    proxyBilling: oneOf("PROXY_BILLING", "free", ["free", "paid"]),
    acfSettlement: oneOf("ACF_SETTLEMENT", "record", ["record", "prepaid"]),
    acfAdminKey: adminKey("ACF_ADMIN_KEY"),
    acfAdminSecret,
    acfIpRate: integer("ACF_IP_RATE", 1, 1, 1_000_000_000),
    acfIpBurst: integer("ACF_IP_BURST", 120, 1, 1_000_000_000),
    webhookAllowHttp: boolean("WEBHOOK_ALLOW_HTTP", false),
    launchFee: usd("LAUNCH_FEE_USD", 0n),
    agentConcurrency: integer("AGENT_CONCURRENCY", 1024, 1, 100_000),
    upstreamAllow: list("UPSTREAM_ALLOW") ?? [],
    upstreamAllowOwners: list("UPSTREAM_ALLOW_OWNERS"),
    allowedOrigins: list("ALLOWED_ORIGINS") ?? [],
    trustedProxies: list("TRUSTED_PROXIES") ?? [],
    dialectHosts: new Map(dialectHosts),
    usageRetentionDays: integer("USAGE_RETENTION_DAYS", 90, 1, 3650),
    chatRetentionDays: integer("CHAT_RETENTION_DAYS", 90, 1, 3650),
    chatIdleSeconds: integer("CHAT_IDLE_SECONDS", 1_800, 1, 86_400),
    chatResumeSeconds: integer("CHAT_RESUME_SECONDS", 120, 1, 3_600),
    chatSessionsPerAccount: integer("CHAT_SESSIONS_PER_ACCOUNT", 1_000, 1, 1_000_000),
    chatUnauthenticatedMax: integer("CHAT_UNAUTHENTICATED_MAX", 16_384, 1, 1_000_000),
    chatLateCancelsPerDay: integer("CHAT_LATE_CANCELS_PER_DAY", 20, 0, 1_000_000),
    secretsKey,
    smtpUrl: mailServer("SMTP_URL"),
    mailFrom: sender("MAIL_FROM", `Tollgate <no-reply@${new URL(publicUrl).hostname}>`)
  }
}

const KiB = 1024
const MiB = 1024 * KiB

/** Bounds of one node. Everything that can grow has one. */
export const limits = {
  /** Presented tokens remembered as proved; an entry is ≈ 200 B, the least recently added leaves first. */
  credentialCacheEntries: 200_000,
  /** Unknown credentials remembered as refused, so that guessing costs no query. */
  refusedCredentialEntries: 10_000,
  refusedCredentialTtlMs: 5_000,
  /** Credential look-ups under way at once; more are answered 503. */
  credentialLookupsMax: 512,
  /** Commands one actor keeps while it activates. */
  mailboxCommandsMax: 1_024,
  /** Commands of all actors that wait for an activation, or for a place to be known; ≈ 1 KiB each. */
  waitingCommandsMax: 16_384,
  /** While nobody knows which node owns an account its commands wait so long: a handoff and a second. */
  placementWaitMs: 3_000,
  /** An activation that takes longer fails its waiting callers. */
  activationTimeoutMs: 5_000,
  /** An account nobody called for this long leaves memory; longer than the rate window, so no window is ever forgotten. */
  passivateAfterMs: 300_000,
  passivateSweepMs: 30_000,
  /** Commit requests in one batch: above ≈ 500 a statement's own time passes the fsync it saves. */
  batchCommitsMax: 512,
  /** Commit requests waiting for the next batch; more are refused at once. */
  committerQueueMax: 50_000,
  /** How long callers wait to learn the outcome of a batch whose connection was cut. */
  outcomeDeadlineMs: 10_000,
  /** A statement of the committer that runs longer is cut by the server: the batch is then in doubt and looked up. */
  commitStatementTimeoutMs: 10_000,
  /** A commit unanswered for this long: the database counts as away, new money is refused. */
  commitStallMs: 2_000,
  /** A commit unanswered for this long is in doubt; past the server's own timeout only a frozen or unreachable server is. */
  commitAnswerTimeoutMs: 12_000,
  committerConnections: 1,
  /** Reads by the management API and activations; their own small pool with a statement timeout. */
  readConnections: 6,
  readStatementTimeoutMs: 5_000,
  /** A read unanswered for this long: the server is frozen or unreachable. */
  readAnswerTimeoutMs: 10_000,
  /** Usage rows of free calls kept while Postgres is away; then counted as dropped. */
  usageBufferRows: 200_000,
  /** Small flushes: one of a fifth of a second keeps a core of PostgreSQL busy for 30 ms under load, and calls wait behind it. */
  usageFlushMs: 50,
  /** How often calls are added to the roll-ups; who reads figures adds them first. */
  usageRollUpMs: 1_000,
  /** Rows of one statement, some 1,200. */
  usagePageBytes: 256 * 1024,
  /** The rate window: 60 one-second buckets. */
  rateWindowMs: 60_000,
  /** A hold outlives its call's longest run by a margin, then expires. */
  proxyHoldMs: 150_000,
  /** Caller bodies: above this they stream, below they are copied once. */
  copyOnceBytesMax: 64 * KiB,
  relayBodyBytesMax: 100 * MiB,
  /** A relayed call with an idempotency key must be read before it is decided. */
  idempotentBodyBytesMax: 1 * MiB,
  storedAnswerBytesMax: 64 * KiB,
  idempotencyKeyCharsMax: 255,
  idempotencyTtlMs: 24 * 3_600_000,
  /** Silence on a request body: 408. Checked in steps, and uWebSockets.js cuts such a body itself at about 12 s, without an answer. */
  bodyIdleMs: 7_500,
  upstreamConnectMs: 5_000,
  upstreamFirstByteMs: 110_000,
  /** Silence in the middle of an agent's answer. */
  upstreamIdleMs: 60_000,
  upstreamQueueMax: 1_024,
  upstreamQueueMs: 1_000,
  upstreamOriginsMax: 4_096,
  /** An order's answer is kept whole; longer ones fail and are refunded. */
  orderOutputBytesMax: 4 * MiB,
  orderPromptCharsMax: 100_000,
  /** Fields and files of one form. */
  formPartsMax: 100,
  /** All fields of a form together: they are kept until its first file. The longest prompt takes three bytes a character. */
  formFieldBytesMax: 512 * KiB,
  /** What stands before one part of a form. */
  formHeadBytesMax: 8 * KiB,
  /** Orders of one account that run at once. */
  ordersRunningPerAccountMax: 1_024,
  /** A chat turn's answer is kept until it ends; a longer one fails and is free. */
  chatAnswerCharsMax: 1 * MiB,
  /** Of one event or line of an agent's stream. */
  chatLineBytesMax: 256 * KiB,
  /** With the framing around the text. */
  chatStreamBytesMax: 16 * MiB,
  /** Of an answer that is one JSON value: it is kept whole and parsed in one go. */
  chatJsonBytesMax: 4 * MiB,
  chatPromptCharsMax: 100_000,
  chatHistoryMessagesMax: 50,
  chatHistoryBytesMax: 64 * KiB,
  /** A session that was not used for so long keeps its history in the database only. */
  chatHistoryKeptMs: 60_000,
  /** A session sets so many turns' price aside. */
  chatTurnsHeld: 5,
  /** Text that waits for one socket; above it the agent is paused. */
  chatPendingCharsMax: 64 * KiB,
  /** Of one chunk frame, when text has waited. */
  chatChunkCharsMax: 16 * KiB,
  /** A socket that takes nothing for so long while text waits is closed. */
  chatStallMs: 30_000,
  /** Client ids of finished messages remembered for each session; older ones are looked up. */
  chatMessageIdsKept: 64,
  chatAuthMs: 10_000,
  /** Days of buyers with agents whose late cancels are remembered; others are looked up. */
  chatLateCancelEntries: 100_000,
  chatSweepMs: 1_000,
  chatBeatMs: 15_000,
  /** A stop tells each socket to come back within this time, at random. */
  chatReturnMs: 10_000,
  /** A stop waits this long for calls in flight. */
  drainMs: 10_000,
  /** A shard's lock in Redis, and a node's record. */
  shardLockTtlMs: 3_000,
  shardRefreshMs: 1_000,
  /** How long before a lock could be another's its owner stops to trust it. */
  shardTrustMarginMs: 500,
  /** Commits of a shard that leaves have so long to settle before its lock is let go. */
  handoffMs: 2_000,
  /** An ask of an account's owner that takes longer has failed. */
  ownerAskMs: 3_000,
  /** Who borrowed an account for one change has it for so long at most. */
  borrowMs: 5_000,
  /** What a node was told of a subject by its owner is believed for so long: a revoked key is refused everywhere after it. */
  leaseTrustMs: 1_000,
  /** The owner waits so long for leases that it recalls. */
  recallMs: 1_000,
  /** And recalls so often before it says that an account's money is gone. */
  recallsMax: 3,
  /** Below so many times a call's price nothing is leased, unless somebody waits for it. */
  leasePricesMin: 20n,
  /** Calls of one subject in a second from which on a node asks for a lease instead of passing them on. */
  leaseCallsMin: 2,
  /** A lease that was not used for so long goes back. */
  leaseIdleMs: 1_000,
  leaseTickMs: 250,
  /** How often leases of dead nodes, and forgotten ones of this one, are looked for. */
  leaseSweepMs: 1_000,
  /** Agent tokens: life and reuse. */
  agentTokenTtlMs: 120_000,
  agentTokenReuseMs: 60_000,
  agentTokenCacheEntries: 100_000,
  agentCacheEntries: 100_000,
  /** Active keys per account. */
  keysPerAccountMax: 1_000,
  budgetsPerKeyMax: 8,
  /** Letters under way to the mail server, over as many connections. */
  lettersUnderWayMax: 4,
  /** From the connection to the mail server's answer; it may say something now and then, and still be too slow. */
  letterDeliveryMs: 60_000,
  /** Letters with a link wait in memory. More are dropped: whoever misses one asks again. */
  lettersWaitingMax: 256,
  /** Turns that a receipt lists, some 45 pages. More take too long to draw, and come as one sum. */
  receiptTurnsMax: 2_000,
  /** Downloads of receipts that wait while another is drawn: a few seconds at the worst. */
  receiptsWaitingMax: 16,
  /** Teams of one owner that are not archived; and of one team's members, rules and gates so many each: a team is read whole. */
  teamsPerOwnerMax: 1_000,
  teamPartsMax: 200,
  /** Identities of one account, whatever their status: the leaderboard walks over them. */
  identitiesPerAccountMax: 1_000,
  /** Owners whose scores are compared in one look with what their webhooks were told: some 20 ms of the database. */
  scoresPerLookMax: 1_000,
  pageRowsMax: 100,
  pageRowsDefault: 50
} as const
