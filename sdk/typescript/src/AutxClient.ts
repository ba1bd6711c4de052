/**
 * The AUTX gateway for programs in Node (18 and newer) and in browsers: calls,
 * orders, credits and chat with one API key. No dependencies.
 *
 * Everything that fails rejects or throws an `AutxError`. Requests are retried
 * where that is safe (see Http.ts); `order` and what moves credits carry an
 * idempotency key, so a retry is never a second charge.
 */
import { AutxError } from "./AutxError.ts"
import { ChatSession, type SessionHome, type SessionOptions } from "./ChatSession.ts"
import { ChatStream } from "./ChatStream.ts"
import { Credits, type PageOptions } from "./Credits.ts"
import { Http, type Page, path } from "./Http.ts"
import { newId } from "./newId.ts"
import { ProxyResponse } from "./ProxyResponse.ts"
import type { WebSocketConstructor } from "./WebSocketLike.ts"
import type { AgentChanges, AgentListItem, CreditBalance, OrderResponse, OrderResult, OrderStatus, SessionInfo, SessionMessage } from "./wire.ts"

export { AutxError, ChatSession, ChatStream, Credits, ProxyResponse }
export type { ChatAgent, NoticeFrame } from "./frames.ts"
export type { ChatChunk, ChatTurn } from "./ChatTurn.ts"
export type { Page, PageOptions, SessionOptions, WebSocketConstructor }
export type { WebSocketLike } from "./WebSocketLike.ts"
export type * from "./wire.ts"

export interface AutxClientOptions {
  readonly apiKey: string
  readonly baseUrl?: string
  /** Milliseconds that one try of a request may take. */
  readonly timeout?: number
  readonly maxRetries?: number
  /** Instead of the global one. */
  readonly fetch?: typeof fetch
  /** Instead of the global one; without either, Node gets a client of its own. */
  readonly webSocket?: WebSocketConstructor
}

export interface ProxyOptions {
  readonly prompt?: string
  /** Sent instead of the prompt. Text and bytes go as they are, anything else as JSON. */
  readonly body?: unknown
  /** Of text and bytes; `application/json` unless given. */
  readonly contentType?: string
  /** Makes the call safe to retry. It may then send 1 MiB at most. */
  readonly idempotencyKey?: string
}

/** A `File`, or the file's name and what is in it. */
export type Upload = Blob | readonly [name: string, content: Blob | ArrayBuffer | Uint8Array | string]

export interface OrderOptions {
  readonly paymentMethod?: string
  readonly files?: ReadonlyArray<Upload>
  /** One is made for each call. Give your own to make the same order safe across calls. */
  readonly idempotencyKey?: string
}

export interface AgentFilter extends PageOptions {
  readonly category?: string
  readonly sort?: "trending" | "mcap" | "apy" | "new" | "revenue"
  /** Part of the name, ticker or description. */
  readonly q?: string
}

/** For what is tried once, on the way out. */
const lastTimeoutMs = 5_000
const defaultBaseUrl = "https://api.autx.ai/v1"
/** The gateway keeps a form with an idempotency key in memory, and takes 1 MiB; its heads and boundaries need some of that. */
const keyedFilesBytesMax = 1024 * 1024 - 64 * 1024

export class AutxClient {
  readonly credits: Credits
  readonly #http: Http
  readonly #chatUrl: string
  readonly #chat: Omit<SessionHome, "url">

  constructor({ apiKey, baseUrl = defaultBaseUrl, timeout = 120_000, maxRetries = 3, fetch = globalThis.fetch, webSocket }: AutxClientOptions) {
    if (!apiKey) throw new TypeError("apiKey is required")
    const settings = { apiKey, baseUrl: baseUrl.replace(/\/+$/, ""), timeout, maxRetries, fetch }
    this.#http = new Http(settings)
    this.#chatUrl = settings.baseUrl.replace(/^http/, "ws")
    this.#chat = { token: apiKey, maxRetries, webSocket, lastHttp: new Http({ ...settings, timeout: lastTimeoutMs, maxRetries: 0 }) }
    this.credits = new Credits(this.#http)
  }

  /** Calls an agent and answers what it answered. Not retried without `idempotencyKey`. */
  async proxy(tickerOrId: string, { prompt, body = prompt === undefined ? undefined : { prompt }, contentType = "application/json", idempotencyKey }: ProxyOptions = {}): Promise<ProxyResponse> {
    const isRaw = typeof body === "string" || body instanceof ArrayBuffer || ArrayBuffer.isView(body) || body instanceof Blob
    const payload = isRaw ? { body: body as string, contentType } : { json: body }
    return new ProxyResponse(await this.#http.send({ method: "POST", path: path`/proxy/${tickerOrId}`, idempotencyKey, ...payload }))
  }

  /** Debits the agent's price and answers before the agent does: see `getOrder`. It is charged once, however often it is retried. */
  order(agentId: string, prompt: string, { paymentMethod = "credits", files, idempotencyKey }: OrderOptions = {}): Promise<OrderResponse> {
    const fields = { agent_id: agentId, prompt, payment_method: paymentMethod }
    if (files === undefined) return this.#http.ask({ method: "POST", path: "/orders/", json: fields, idempotencyKey: idempotencyKey ?? newId() })
    const form = new FormData()
    for (const [name, value] of Object.entries(fields)) form.append(name, value)
    let bytes = new Blob([prompt]).size
    for (const file of files) {
      const [name, content] = file instanceof Blob ? [(file as { readonly name?: string }).name ?? "file", file] : file
      const blob = content instanceof Blob ? content : new Blob([content as ArrayBuffer])
      bytes += blob.size
      form.append("files", blob, name)
    }
    // What is too big to be repeated by its key is sent without, and not retried.
    return this.#http.ask({ method: "POST", path: "/orders/multipart", body: form, idempotencyKey: idempotencyKey ?? (bytes <= keyedFilesBytesMax ? newId() : undefined) })
  }

  getOrder(orderId: string): Promise<OrderResult> {
    return this.#http.ask({ path: path`/orders/${orderId}` })
  }

  /** Newest first. */
  listOrders(filter?: PageOptions & { readonly status?: OrderStatus }): Promise<Page<OrderResult>> {
    return this.#http.page("/orders/", filter)
  }

  /** By revenue, unless `sort` says otherwise. */
  listAgents(filter?: AgentFilter): Promise<Page<AgentListItem>> {
    return this.#http.page("/agents/", { sort: "revenue", ...filter })
  }

  /** One's own, paused ones too. */
  listMyAgents(page?: PageOptions): Promise<Page<AgentListItem>> {
    return this.#http.page("/agents/", { owner: "me", ...page })
  }

  getAgentByTicker(ticker: string): Promise<AgentListItem> {
    return this.#http.ask({ path: path`/agents/${ticker}` })
  }

  updateAgent(agentId: string, changes: AgentChanges): Promise<AgentListItem> {
    return this.#http.ask({ method: "PATCH", path: path`/agents/${agentId}`, json: changes })
  }

  /** Deposits the key that the agent is called with (`auth_tier: "buyer_key"`). */
  updateProviderKey(agentId: string, providerKey: string, { provider }: { readonly provider?: string } = {}): Promise<AgentListItem> {
    return this.#http.ask({ method: "PUT", path: path`/agents/${agentId}/provider-key`, json: { provider_key: providerKey, provider } })
  }

  getCreditBalance(): Promise<CreditBalance> {
    return this.credits.balance()
  }

  listSessions(filter?: PageOptions & { readonly status?: SessionInfo["status"] }): Promise<Page<SessionInfo>> {
    return this.#http.page("/sessions", filter)
  }

  getSession(sessionId: string): Promise<SessionInfo> {
    return this.#http.ask({ path: path`/sessions/${sessionId}` })
  }

  /** Also when it is closed already. A turn that runs is stopped and not charged. */
  async closeSession(sessionId: string): Promise<void> {
    await this.#http.send({ method: "DELETE", path: path`/sessions/${sessionId}` })
  }

  getSessionMessages(sessionId: string, page?: PageOptions): Promise<Page<SessionMessage>> {
    return this.#http.page(path`/sessions/${sessionId}/messages`, page)
  }

  /** A PDF. */
  async getSessionReceipt(sessionId: string): Promise<ArrayBuffer> {
    return (await this.#http.send({ path: path`/sessions/${sessionId}/receipt` })).content
  }

  /** One prompt, its answer as it comes: `for await (const { delta } of client.stream("SUMM", "…"))`. */
  stream(ticker: string, prompt: string): ChatStream {
    return new ChatStream(this.session(ticker), prompt)
  }

  /** A chat of many turns. It is opened by the first `send`; `close` it. */
  session(ticker: string, options: SessionOptions = {}): ChatSession {
    return new ChatSession({ ...this.#chat, url: this.#chatUrl + path`/ws/agent/${ticker}` }, options)
  }

  /** The same, when it is open. */
  createSession(ticker: string, options: SessionOptions = {}): Promise<ChatSession> {
    return this.session(ticker, options).open()
  }
}
