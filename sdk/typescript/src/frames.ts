/** The frames of a chat socket, as the gateway sends them, and what its close codes ask of a client. */
export interface ChatAgent {
  readonly id: string
  readonly ticker: string
  readonly name: string
  readonly service_price: string
}

export interface SessionFrame {
  readonly type: "session"
  readonly session_id: string
  readonly agent: ChatAgent
  readonly credits_reserved: string
  readonly resumed: boolean
  readonly message_count: number
  /** When it was resumed. */
  readonly session_total?: string
  /** Where in the running turn's text its replay begins; absent: no turn runs. */
  readonly replayed_from?: number
  readonly discontinuity?: boolean
}

export interface ChunkFrame {
  readonly type: "chunk"
  readonly data: string
  readonly id?: string
}

export interface DoneFrame {
  readonly type: "done"
  readonly order_id: string
  readonly session_id: string
  readonly output_hash: string
  readonly message_index: number
  readonly id?: string
}

export interface BillingFrame {
  readonly type: "billing"
  readonly order_id: string
  readonly amount_charged: string
  readonly credits_remaining: string
  readonly credits_reserved: string
  readonly session_total: string
  readonly id?: string
}

export interface ErrorFrame {
  readonly type: "error"
  readonly code: string
  readonly detail: string
  readonly fatal: boolean
  /** Seconds. */
  readonly retry_after?: number
  readonly id?: string
}

/** `turn_cancelled` answers a cancel; others tell the user something. */
export interface NoticeFrame {
  readonly type: "notice"
  readonly code: string
  readonly detail: string
  readonly id?: string
}

export type ServerFrame = SessionFrame | ChunkFrame | DoneFrame | BillingFrame | ErrorFrame | NoticeFrame | { readonly type: "pong" }

/** After these a client comes back by itself, after any other it must not. 1006: the connection broke. */
const reconnectCodes = new Set([4429, 4408, 4503, 1001, 1006, 1011, 1013])

export const asksToReconnect = (closeCode: number): boolean => reconnectCodes.has(closeCode)
