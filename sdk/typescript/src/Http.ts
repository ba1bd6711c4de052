/**
 * The gateway's REST interface: one request with its credential, its time limit
 * and its retries.
 *
 * A request is tried again, at most `maxRetries` times, when no answer came or
 * its status is 429 or 502 to 504; a POST only when it has an idempotency key,
 * because without one a second try could be a second charge. A retry that finds
 * its first try still running (409 with `Retry-After`) waits for it too. It waits
 * as long as `Retry-After` says, but not longer than `timeout`; then, and for
 * every other refusal, the call rejects with an `AutxError`. Redirects are not
 * followed: an agent must not lead its callers elsewhere.
 */
import { AutxError, type Facts } from "./AutxError.ts"
import { backoffMs, parseRetryAfter, sleep } from "./backoff.ts"

export interface HttpSettings {
  readonly apiKey: string
  /** Without a slash at its end. */
  readonly baseUrl: string
  /** Milliseconds that one try may take. */
  readonly timeout: number
  readonly maxRetries: number
  readonly fetch: typeof fetch
}

export interface Request {
  readonly method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE"
  readonly path: string
  readonly query?: object | undefined
  /** Sent as JSON. */
  readonly json?: unknown
  readonly body?: RequestInit["body"]
  readonly contentType?: string | undefined
  readonly idempotencyKey?: string | undefined
}

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly content: ArrayBuffer
}

/** A list's rows. `nextCursor` asks for the rows after them; `undefined`: there are none. */
export type Page<Row> = Array<Row> & { readonly nextCursor: string | undefined }

/** A path with each value in it encoded. */
export const path = (texts: TemplateStringsArray, ...values: ReadonlyArray<string>): string => String.raw({ raw: texts }, ...values.map(encodeURIComponent))

export class Http {
  readonly #settings: HttpSettings

  constructor(settings: HttpSettings) {
    this.#settings = settings
  }

  /** The answer's JSON. */
  async ask<Body>(request: Request): Promise<Body> {
    return bodyOf(request, await this.send(request)) as Body
  }

  async page<Row>(path: string, query?: object): Promise<Page<Row>> {
    const request = { path, query }
    const answer = await this.send(request)
    const [, next] = /<([^>]*)>; *rel="next"/.exec(answer.headers.get("link") ?? "") ?? []
    const nextCursor = next === undefined ? undefined : new URL(next, this.#settings.baseUrl).searchParams.get("cursor") ?? undefined
    // Not enumerable: the rows stay a plain list to whoever prints or compares them.
    return Object.defineProperty(bodyOf(request, answer) as Array<Row>, "nextCursor", { value: nextCursor }) as Page<Row>
  }

  /** The answer, whose status is from 200 to 299. */
  async send(request: Request): Promise<Answer> {
    const { timeout, maxRetries } = this.#settings
    const isRepeatable = request.method !== "POST" || request.idempotencyKey !== undefined
    for (let attempt = 0;; attempt++) {
      const result = await this.#try(request)
      if (!(result instanceof AutxError)) return result
      const waitMs = Math.max((result.retryAfter ?? 0) * 1000, backoffMs(attempt))
      if (!isRepeatable || attempt >= maxRetries || !isTransient(result, attempt) || waitMs > timeout) throw result
      await sleep(waitMs)
    }
  }

  async #try(request: Request): Promise<Answer | AutxError> {
    const { apiKey, fetch, baseUrl, timeout } = this.#settings
    const { json, idempotencyKey } = request
    const contentType = json === undefined ? request.contentType : "application/json"
    const abort = new AbortController()
    const timer = setTimeout(() => abort.abort(), timeout)
    try {
      const response = await fetch(baseUrl + request.path + queryOf(request.query), {
        method: request.method ?? "GET",
        headers: Object.fromEntries(given({ authorization: `Bearer ${apiKey}`, "content-type": contentType, "idempotency-key": idempotencyKey })),
        body: json === undefined ? request.body ?? null : JSON.stringify(json),
        redirect: "manual",
        signal: abort.signal
      })
      const { status, headers } = response
      const content = await response.arrayBuffer()
      return response.ok ? { status, headers, content } : refusal(request, status, headers, content)
    } catch (cause) {
      return abort.signal.aborted
        ? errorOf(request, "timeout", { code: "timeout", detail: `No answer within ${timeout} ms`, cause })
        : errorOf(request, "connection failed", { code: "network", detail: `${baseUrl} can't be reached: ${reasonOf(cause)}`, cause })
    } finally {
      clearTimeout(timer)
    }
  }
}

const isTransient = ({ code, status, retryAfter }: AutxError, attempt: number): boolean =>
  code === "network" || status === 429 || (status !== undefined && status >= 502 && status <= 504) || (status === 409 && attempt > 0 && retryAfter !== undefined)

/** Without what is `undefined`. */
const given = (fields: object): Array<[string, string]> => Object.entries(fields).filter(([, value]) => value !== undefined).map(([name, value]) => [name, String(value)])

const queryOf = (query: object = {}): string => {
  const parameters = String(new URLSearchParams(given(query)))
  return parameters && `?${parameters}`
}

/** "Proxy error: 429". Its noun is what the path is about. */
const errorOf = ({ path }: Request, what: string | number, facts: Facts): AutxError => {
  const [, first = "", rest] = /^\/(.)(.*?)s?(?:\/|$)/.exec(path) ?? []
  return new AutxError(`${first.toUpperCase()}${rest} error: ${what}`, facts)
}

export const decode = (content: ArrayBuffer): string => new TextDecoder().decode(content)

const bodyOf = (request: Request, { status, content }: Answer): unknown => {
  try {
    return JSON.parse(decode(content))
  } catch (cause) {
    throw errorOf(request, status, { code: "invalid_answer", detail: "The answer is not JSON", status, cause })
  }
}

const refusal = (request: Request, status: number, headers: Headers, content: ArrayBuffer): AutxError => {
  const text = decode(content)
  let body: unknown = text
  try {
    body = JSON.parse(text)
  } catch {}
  const { detail } = Object(body) as { readonly detail?: unknown }
  return errorOf(request, status, {
    code: "http", detail: typeof detail === "string" ? detail : text.slice(0, 500), status, body, retryAfter: parseRetryAfter(headers.get("retry-after"), Date.now())
  })
}

/** What `fetch` hides in its cause, where there is one. */
const reasonOf = (error: unknown): string => {
  const { cause, message } = Object(error) as { readonly cause?: { readonly code?: string; readonly message?: string }; readonly message?: string }
  return cause?.code ?? cause?.message ?? message ?? String(error)
}
