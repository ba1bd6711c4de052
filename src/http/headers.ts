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
import type { Header } from "../kernel/Relay.ts"

export class RequestHead {
  readonly method: string
  readonly path: string
  /** Without the question mark; empty when there is none. */
  readonly query: string
  /** As received: names in lower case, repeated names kept. */
  readonly headers: Array<Header> = []
  host = ""
  origin = ""
  authorization = ""
  idempotencyKey: string | undefined = undefined
  forwardedFor = ""
  transferEncoding = ""
  contentLengthText = ""
  hosts = 0
  authorizations = 0
  contentLengths = 0
  transferEncodings = 0

  constructor(method: string, path: string, query: string) {
    this.method = method
    this.path = path
    this.query = query
  }

  /** Bytes announced. 0 without a body, `undefined` when it comes in chunks. */
  get contentLength(): number | undefined {
    return this.transferEncodings > 0 ? undefined : this.contentLengths > 0 ? Number(this.contentLengthText) : 0
  }

  header(name: string): string | undefined {
    return this.headers.find((header) => header[0] === name)?.[1]
  }
}

// One head is read at a time, synchronously: a module variable saves a closure per request.
let reading: RequestHead

const take = (name: string, value: string): void => {
  const head = reading
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

/** Why the head can't be trusted; the connection must be closed after the answer, for its framing is in doubt. */
export const problemOf = (head: RequestHead, urlBytesMax: number): InvalidRequest | undefined => {
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
  return undefined
}

const statusLines: ReadonlyArray<string> = Array.from({ length: 600 }, (_, status) => `${status} ${STATUS_CODES[status] ?? "Unknown"}`)

/** "404 Not Found". */
export const statusLine = (status: number): string => statusLines[status] ?? "500 Internal Server Error"

/** Whether a value can be written as it is; one with CR, LF or NUL would end the header, or the head. */
export const isSafeValue = (value: string): boolean => !value.includes("\n") && !value.includes("\r") && !value.includes("\0")

const written = ["content-length", "transfer-encoding", "date", "connection", "keep-alive", "x-request-id", "uwebsockets"]

/** Names (lower case) that the edge or uWS writes itself, and nobody else may; `extra` are the dialect's rate headers. */
export const ownedNames = (extra: ReadonlyArray<Header>): ReadonlySet<string> =>
  new Set([...written, ...extra.map(([name]) => name.toLowerCase())])

/** Whether a relayed header may be written beside the edge's own. CORS is the edge's alone: an agent must not open this origin. */
export const mayRelay = (owned: ReadonlySet<string>, header: Header): boolean => {
  const name = header[0].toLowerCase()
  return !owned.has(name) && !name.startsWith("access-control-")
}
