/**
 * An agent as every node that relays to it knows it: one version, immutable.
 * A change makes a new version.
 */
import type { Credits } from "./credits.ts"
import type { AccountId, AgentId } from "./ids.ts"
import type { PaymentMethod } from "./terms.ts"

/** What an agent takes and gives; every field is optional, each limit given is enforced (contracts/autx.md, Agents). */
export interface Manifest {
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

/** A removed agent is neither listed nor called; its history stays, and its owner may bring it back. */
export type AgentStatus = "active" | "paused" | "removed"

/** What an agent is shown to know the gateway by: a signed token, the key that its owner has deposited, or nothing. */
export type AuthTier = "jwt_default" | "buyer_key" | "none"

/** Where the agent listens, cut up once for the relay. */
export interface Agent {
  readonly id: AgentId
  readonly ownerId: AccountId
  readonly dialect: string
  readonly ticker: string
  readonly name: string
  readonly description: string
  readonly category: string
  readonly endpointUrl: string
  readonly price: Credits
  readonly freeTierCalls: number
  readonly authTier: AuthTier
  readonly status: AgentStatus
  readonly suspended: boolean
  readonly manifest: Manifest | undefined
  readonly provider: string | undefined
  readonly providerKey: Uint8Array | undefined
  readonly tags: ReadonlyArray<string>
  readonly paymentMethod: PaymentMethod
  /** Of an acf service: when its owner's first one was registered. */
  readonly providerSinceMs: number | undefined
  readonly version: bigint
  readonly createdAtMs: number
  readonly updatedAtMs: number
}

export const isCallable = (agent: Agent): boolean => agent.status === "active" && !agent.suspended
