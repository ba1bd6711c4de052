/**
 * What the gateway answers with, field by field as it comes. Prices of agents
 * and orders are numbers, all other money is decimal text in US dollars; times
 * are ISO 8601 in UTC.
 */
export interface AgentManifest {
  readonly input?: {
    readonly type?: "json" | "multipart"
    readonly accepts_files?: boolean
    readonly file_types?: ReadonlyArray<string>
    readonly max_size_bytes?: number
  }
  readonly output?: {
    readonly type?: string
    readonly produces_files?: boolean
    readonly content_types?: ReadonlyArray<string>
    readonly max_size_bytes?: number
  }
  readonly supports_sessions?: boolean
}

export interface AgentListItem {
  readonly id: string
  readonly name: string
  readonly ticker: string
  readonly description: string
  readonly category: string
  readonly service_price: number
  readonly endpoint_url: string
  readonly status: "active" | "paused"
  readonly auth_tier: "jwt_default" | "buyer_key"
  readonly manifest: AgentManifest | null
  readonly total_requests: number
  readonly total_revenue: number
  readonly owner_id: string
  readonly free_tier_calls: number
  /** In the list of one's own: chat turns that buyers cancelled today after the agent had begun to answer. */
  readonly late_cancels_today?: number
  readonly created_at: string
}

/** What an owner may change; fields that are left out stay. */
export interface AgentChanges {
  readonly name?: string
  readonly description?: string
  readonly category?: string
  readonly endpoint_url?: string
  readonly service_price?: number | string
  readonly status?: "active" | "paused"
  readonly auth_tier?: "jwt_default" | "buyer_key"
  readonly manifest?: AgentManifest | null
  readonly free_tier_calls?: number
}

export type OrderStatus = "pending" | "completed" | "failed"

export interface OrderResponse {
  readonly id: string
  readonly agent_id: string
  readonly status: OrderStatus
  readonly amount_paid: number
  readonly platform_fee: number
  readonly created_at: string
}

export interface OrderResult extends OrderResponse {
  readonly prompt: string
  readonly payment_method: string
  /** `sha256:` and the hex digest of `output_text`. */
  readonly output_hash: string | null
  readonly output_text: string | null
  readonly error: string | null
  readonly completed_at: string | null
}

export interface CreditBalance {
  /** Free to spend: what is reserved is not in it. */
  readonly balance_usd: string
  readonly reserved_usd: string
  readonly available_usdc: string
  readonly reserved_usdc: string
}

export interface CreditTransaction {
  readonly id: string
  readonly type: "deposit" | "withdrawal" | "charge" | "refund" | "earning" | "fee"
  readonly amount_usd: string
  readonly balance_after: string
  readonly agent_ticker?: string
  readonly order_id?: string
  readonly session_id?: string
  readonly tx_hash?: string
  readonly created_at: string
}

export interface CreditHold {
  readonly id: string
  readonly amount_usd: string
  readonly call: "proxy" | "order" | "chat"
  readonly agent_ticker: string
  readonly session_id?: string
  /** `null`: a pending order, which ends when its agent has answered. */
  readonly expires_at: string | null
}

export interface Deposit {
  readonly tx_hash: string
  readonly amount_usd: string
  readonly balance_usd: string
  readonly status: "confirmed" | "pending"
}

export interface Withdrawal {
  readonly id: string
  readonly amount_usd: string
  readonly status: "pending" | "sent"
  readonly tx_hash?: string
}

export interface SessionInfo {
  readonly id: string
  readonly agent_ticker: string
  readonly status: "active" | "closed"
  readonly message_count: number
  readonly consumed_usd: string
  readonly started_at: string
  readonly closed_at: string | null
}

export interface SessionMessage {
  readonly role: "user" | "assistant"
  readonly content: string
  readonly order_id?: string
  readonly created_at: string
}
