/**
 * The one error of this package: what a call, an order or a chat was refused
 * for, or why no answer came. `message` is short and stable ("Proxy error: 429");
 * what a person should read is in `detail`.
 */
export interface Facts {
  readonly code: string
  readonly detail: string
  readonly status?: number
  readonly retryAfter?: number | undefined
  readonly closeCode?: number
  readonly body?: unknown
  readonly cause?: unknown
}

export class AutxError extends Error {
  override readonly name = "AutxError"
  /** `http`: see `status`. `network`, `timeout`, `invalid_answer`: no usable answer came. In a chat, the code of the gateway's error frame. */
  readonly code: string
  /** The gateway's own words. */
  readonly detail: string
  /** Of HTTP; `undefined` when there was no answer, and in a chat. */
  readonly status: number | undefined
  /** Seconds to wait before trying again, when the gateway said so. */
  readonly retryAfter: number | undefined
  /** Of the chat's socket, when this is why it ended. */
  readonly closeCode: number | undefined
  /** The refusal as it came, with its figures: `required_usd`, `available_usd` and the like. */
  readonly body: unknown

  constructor(message: string, { code, detail, status, retryAfter, closeCode, body, cause }: Facts) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    this.detail = detail
    this.status = status
    this.retryAfter = retryAfter
    this.closeCode = closeCode
    this.body = body
  }
}

export const chatError = (code: string, detail: string, facts?: Pick<Facts, "retryAfter" | "closeCode">): AutxError =>
  new AutxError(`Chat error: ${code}`, { code, detail, ...facts })
