/**
 * Redis, for the nodes of a cluster: a connection for commands and one that
 * listens, both reconnecting for ever.
 *
 * Guarantee. A command is answered, or fails within `commandMs`; whether a
 * failed one was executed is unknown. Nothing is kept to be sent later. A server
 * that accepts and stays silent loses its connections after `silenceMs`. What is
 * published while nobody listens is lost: `onListening` says when that may have
 * happened. No error contains the URL or a command's arguments.
 */
import { Redis as Connection, type RedisOptions } from "ioredis"
import { readFileSync, readdirSync } from "node:fs"
import { log } from "../telemetry/log.ts"

export class RedisUnavailable extends Error {
  override readonly name = "RedisUnavailable"
  /** It answered that it won't; else it did not answer. */
  readonly isRefusal: boolean

  constructor(message: string, isRefusal = false) {
    super(message)
    this.isRefusal = isRefusal
  }
}

export interface Redis {
  /** Runs `lua/<name>.lua`, which changes everything it changes at once. */
  readonly run: (name: string, args: ReadonlyArray<string | number | Buffer>) => Promise<unknown>
  readonly publish: (channel: string, text: Buffer) => Promise<unknown>
  /** Starts to connect and to listen, and fails while it has not; can be repeated. */
  readonly listen: (channels: ReadonlyArray<string>) => Promise<void>
  readonly onMessage: (listener: (channel: string, text: Buffer) => void) => void
  /** Called each time it begins to hear, also the first. */
  readonly onListening: (listener: () => void) => void
  /** Whether the listening connection still answers; one that does not is made anew. */
  readonly checkListening: () => void
  /** Called when commands can be sent again. */
  readonly onReady: (listener: () => void) => void
  readonly close: () => void
}

/** How replies are shaped is left as it is. */
type Options = Omit<RedisOptions, "replyMapping">

/** Longer than a freeze that nobody should notice; in a process without a free moment an answer takes a second. */
const commandMs = 1_500
const silenceMs = 2_000
const connectMs = 1_000
const reconnectMinMs = 20
const reconnectMaxMs = 250

const folder = new URL("./lua/", import.meta.url)
const scripts = (): NonNullable<Options["scripts"]> => Object.fromEntries(readdirSync(folder).filter((name) => name.endsWith(".lua"))
  .map((name) => [name.slice(0, -4), { lua: readFileSync(new URL(name, folder), "utf8"), numberOfKeys: 0 }]))

/** `redis://[user:password@]host[:port][/number]`, the same with `rediss:`, or `unix:///path[?db=number]`. */
const addressOf = (text: string): Options => {
  const url = new URL(text)
  const login: Options = {
    ...(url.username === "" ? {} : { username: decodeURIComponent(url.username) }),
    ...(url.password === "" ? {} : { password: decodeURIComponent(url.password) })
  }
  const isUnix = url.protocol === "unix:"
  const db = (isUnix ? url.searchParams.get("db") : url.pathname.slice(1)) || "0"
  if (!/^\d{1,5}$/.test(db)) throw new RedisUnavailable("the number of its database is not a number")
  if (isUnix) return { ...login, db: Number(db), path: decodeURIComponent(url.pathname) }
  const host = url.hostname.replace(/^\[|\]$/g, "")
  return { ...login, db: Number(db), host, port: Number(url.port || 6379), ...(url.protocol === "rediss:" ? { tls: { servername: host } } : {}) }
}

/** A process that was stalled has its answers waiting: they are read before the time counts as up. */
const inTime = <A>(answer: Promise<A>): Promise<A> => new Promise((resolve, reject) => {
  const timer = setTimeout(() => setImmediate(() => reject(new RedisUnavailable("it does not answer"))), commandMs)
  answer.then(resolve, (cause: unknown) => reject(told(cause))).finally(() => clearTimeout(timer))
})

/** What went wrong, without the command: its arguments may be secrets. */
const told = (cause: unknown): RedisUnavailable => {
  const text = cause instanceof Error ? cause.message : String(cause)
  return new RedisUnavailable(/isn't writeable/.test(text) ? "it is not connected" : text, cause instanceof Error && cause.name === "ReplyError")
}

/** Not connected yet: `listen` does that. */
export const openRedis = (url: string): Redis => {
  const options: Options = {
    ...addressOf(url),
    lazyConnect: true,
    connectTimeout: connectMs,
    socketTimeout: silenceMs,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    // Of every connection that is lost, what was under way fails at once.
    maxRetriesPerRequest: 0,
    autoResubscribe: false,
    disableClientInfo: true,
    retryStrategy: (times) => Math.min(reconnectMinMs * 2 ** Math.min(times, 10), reconnectMaxMs)
  }
  const commands = new Connection({ ...options, scripts: scripts() })
  const ears = new Connection(options)
  let lastFailure: RedisUnavailable | undefined
  for (const connection of [commands, ears]) {
    connection.on("error", (cause: unknown) => {
      lastFailure = told(cause)
      log.debug({ reason: lastFailure.message }, "redis")
    })
  }

  let channels: ReadonlyArray<string> = []
  const listening: Array<() => void> = []
  const subscribe = (): void => void inTime(ears.subscribe(...channels)).then(
    () => { for (const listener of listening) listener() },
    () => ears.disconnect(true)
  )
  ears.on("ready", subscribe)
  return {
    run: (name, args) => inTime((commands as unknown as Record<string, (...args: ReadonlyArray<unknown>) => Promise<unknown>>)[name]!(...args)),
    publish: (channel, text) => inTime(commands.publish(channel, text)),
    listen: async (wanted) => {
      channels = wanted
      for (const connection of [commands, ears]) if (connection.status === "wait") void connection.connect().catch(() => {})
      await Promise.all([inTime(commands.ping()), inTime(ears.ping())]).catch((cause: unknown) => { throw lastFailure ?? cause })
    },
    onMessage: (listener) => { ears.on("messageBuffer", (channel: Buffer, text: Buffer) => listener(channel.toString(), text)) },
    onListening: (listener) => { listening.push(listener) },
    checkListening: () => { if (ears.status === "ready") inTime(ears.ping()).catch(() => ears.disconnect(true)) },
    onReady: (listener) => { commands.on("ready", listener) },
    close: () => {
      commands.disconnect()
      ears.disconnect()
    }
  }
}
