/**
 * Heads of requests and answers.
 *
 * A request's head is copied out of uWS in one pass, because `req` is gone once
 * the handler returns. `problemOf` refuses what could be read in two ways
 * (request smuggling, RFC 9112 §6.3) before anything else looks at the request;
 * what uWS itself refuses or never completes (no Host at all, an obs-fold)
 * doesn't get here: it closes those connections within about 12 s.
 */
import { STATUS_CODES } from "node:http"
import type { HttpRequest } from "uWebSockets.js"
import { InvalidRequest } from "../domain/errors.ts"
import { traceIdOf } from "../domain/traceContext.ts"
import type { Header } from "../kernel/Relay.ts"

export class RequestHead {
  readonly method: string
  readonly path: string
  /** Without the question mark; empty when there is none. */
  readonly query: string
  /** As received: names in lower case, repeated names kept. */
  readonly headers: Array<Header> = []
  /** Bytes of all names and values. */
  headersBytes = 0
  host = ""
  origin = ""
  authorization = ""
  idempotencyKey: string | undefined = undefined
  forwardedFor = ""
  traceparent = ""
  transferEncoding = ""
  contentLengthText = ""
  hosts = 0
  authorizations = 0
  contentLengths = 0
  transferEncodings = 0
  /** What `hopPrefix` names, which nobody else gets to see: another node's word where other nodes call, a stranger's everywhere else. */
  hop: Record<string, string> | undefined = undefined

  constructor(method: string, path: string, query: string) {
    this.method = method
    this.path = path
    this.query = query
  }

  /** Bytes announced. 0 without a body, `undefined` when it comes in chunks. */
  get contentLength(): number | undefined {
    return this.transferEncodings > 0 ? undefined : this.contentLengths > 0 ? Number(this.contentLengthText) : 0
  }

  /** Of the caller's trace, for the log. */
  get traceId(): string | undefined {
    return this.traceparent === "" ? undefined : traceIdOf(this.traceparent)
  }

  /** What an agent that is asked for this request gets to see of the caller's trace. */
  get trace(): ReadonlyArray<Header> {
    return this.traceId === undefined ? [] : this.headers.filter(([name]) => name === "traceparent" || name === "tracestate")
  }

  header(name: string): string | undefined {
    return this.headers.find((header) => header[0] === name)?.[1]
  }
}

/** Of headers that nodes write for each other. */
export const hopPrefix = "x-tollgate-hop"

// One head is read at a time, synchronously: a module variable saves a closure per request.
let reading: RequestHead

const take = (name: string, value: string): void => {
  const head = reading
  head.headersBytes += name.length + value.length
  // Most names begin otherwise, and a look at one letter costs nothing.
  if (name.charCodeAt(0) === 120 && name.startsWith(hopPrefix)) {
    head.hop ??= {}
    head.hop[name] = value
    return
  }
  head.headers.push([name, value])
  switch (name.length) {
    case 4:
      if (name === "host") {
        head.host = value
        head.hosts++
      }
      break
    case 6:
      if (name === "origin") head.origin = value
      break
    case 11:
      // Two of them are none (W3C Trace Context §3.2).
      if (name === "traceparent") head.traceparent = head.traceparent === "" ? value : "twice"
      break
    case 13:
      if (name === "authorization") {
        head.authorization = value
        head.authorizations++
      }
      break
    case 14:
      if (name === "content-length") {
        head.contentLengthText = value
        head.contentLengths++
      }
      break
    case 15:
      if (name === "idempotency-key") head.idempotencyKey = value
      else if (name === "x-forwarded-for") head.forwardedFor = head.forwardedFor === "" ? value : `${head.forwardedFor},${value}`
      break
    case 17:
      if (name === "transfer-encoding") {
        head.transferEncoding = value
        head.transferEncodings++
      }
      break
  }
}

export const readHead = (request: HttpRequest): RequestHead => {
  // uWS answers undefined, not "", when the URL has no question mark.
  const head = new RequestHead(request.getCaseSensitiveMethod(), request.getUrl(), request.getQuery() ?? "")
  reading = head
  request.forEach(take)
  return head
}

const digits = (text: string): boolean => {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code < 48 || code > 57) return false
  }
  return text.length > 0 && text.length <= 15
}

const problem = (name: string, msg: string): InvalidRequest =>
  new InvalidRequest({ malformed: true, issues: [{ loc: ["header", name], msg }] })

export interface HeadLimits {
  readonly urlBytesMax: number
  readonly headersBytesMax: number
}

/** Why the head can't be trusted; the connection must be closed after the answer, for its framing is in doubt. */
export const problemOf = (head: RequestHead, { urlBytesMax, headersBytesMax }: HeadLimits): InvalidRequest | undefined => {
  if (head.hosts !== 1 || head.host === "") return problem("host", "Exactly one is required")
  if (head.contentLengths > 1) return problem("content-length", "At most one is allowed")
  if (head.contentLengths === 1 && !digits(head.contentLengthText)) return problem("content-length", "Must be a whole number")
  if (head.transferEncodings > 0) {
    if (head.contentLengths > 0) return problem("transfer-encoding", "Not together with content-length")
    if (head.transferEncodings > 1 || head.transferEncoding.toLowerCase() !== "chunked") return problem("transfer-encoding", "Only chunked is understood")
  }
  if (head.authorizations > 1) return problem("authorization", "At most one is allowed")
  if (head.path.length + head.query.length > urlBytesMax) {
    return new InvalidRequest({ malformed: true, issues: [{ loc: ["path"], msg: `At most ${urlBytesMax} bytes are allowed` }] })
  }
  if (head.headersBytes > headersBytesMax) {
    return new InvalidRequest({ malformed: true, issues: [{ loc: ["header"], msg: `At most ${headersBytesMax} bytes are allowed` }] })
  }
  return undefined
}

const statusLines: ReadonlyArray<string> = Array.from({ length: 600 }, (_, status) => `${status} ${STATUS_CODES[status] ?? "Unknown"}`)

/** "404 Not Found". */
export const statusLine = (status: number): string => statusLines[status] ?? "500 Internal Server Error"

const breaksHead = /[\r\n\0]/

/** Whether a value can be written as it is; one with CR, LF or NUL would end the header, or the head. */
export const isSafeValue = (value: string): boolean => !breaksHead.test(value)

const written = ["date", "x-request-id", "uwebsockets"]

/** Names (lower case) that the edge or uWS writes on every answer, beside framing and CORS; `extra` are the dialect's rate headers. */
export const ownedNames = (extra: ReadonlyArray<Header>): ReadonlyArray<string> =>
  [...written, ...extra.map(([name]) => name.toLowerCase())]
