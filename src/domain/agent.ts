/**
 * An agent as every node that relays to it knows it: one version, immutable.
 * A change makes a new version.
 */
import type { Credits } from "./credits.ts"
import type { AccountId, AgentId } from "./ids.ts"
import { type Split, autxSplit } from "./terms.ts"

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
  readonly authTier: "jwt_default" | "buyer_key"
  readonly status: "active" | "paused"
  readonly suspended: boolean
  readonly manifest: Manifest | undefined
  readonly provider: string | undefined
  readonly providerKey: Uint8Array | undefined
  readonly version: bigint
  readonly createdAtMs: number
}

/** The share rule fixed by the dialect that listed the agent. */
export const splitOf = (_agent: Agent): Split => autxSplit

export const isCallable = (agent: Agent): boolean => agent.status === "active" && !agent.suspended

/** What a relayed call costs its caller: nothing for the owner, for a $0 agent, or while proxy calls are free. */
export const proxyPrice = (agent: Agent, callerId: AccountId, billing: "free" | "paid"): Credits =>
  billing === "free" || agent.ownerId === callerId ? 0n : agent.price
