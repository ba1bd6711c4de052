/** What an agent answered to a call, and the gateway's own facts about it. */
import { type Answer, decode } from "./Http.ts"

export class ProxyResponse {
  readonly content: ArrayBuffer
  readonly statusCode: number
  readonly contentType: string
  /** Names in lower case. With `x-autx-cost-usd` and `x-autx-balance-usd` where the call was charged. */
  readonly headers: Record<string, string>
  readonly requestId: string
  readonly latencyMs: number
  readonly agentTicker: string

  /** @internal */
  constructor({ content, status, headers }: Answer) {
    this.content = content
    this.statusCode = status
    this.headers = Object.fromEntries(headers as unknown as Iterable<[string, string]>)
    this.contentType = headers.get("content-type") ?? ""
    this.requestId = headers.get("x-autx-request-id") ?? ""
    this.latencyMs = Number(headers.get("x-autx-latency-ms") ?? 0)
    this.agentTicker = headers.get("x-autx-agent") ?? ""
  }

  text(): string {
    return decode(this.content)
  }

  json<T>(): T {
    return JSON.parse(this.text()) as T
  }
}
