/** Identities: who an account says that its agents are. Pure. */
import type { AccountId } from "./ids.ts"
import type { CallSums } from "./reputation.ts"

export const identityTypes = ["api_key_only", "kya_jwt", "did_vc"] as const
export type IdentityType = typeof identityTypes[number]
export const identityStatuses = ["active", "suspended", "deactivated"] as const
export type IdentityStatus = typeof identityStatuses[number]

export interface Identity {
  readonly id: string
  /** The account that it belongs to, and how that is called. */
  readonly ownerId: AccountId
  readonly owner: string
  readonly displayName: string
  readonly identityType: IdentityType
  readonly capabilities: ReadonlyArray<string>
  readonly walletAddress: string | null
  readonly metadata: Readonly<Record<string, unknown>>
  readonly verified: boolean
  readonly status: IdentityStatus
  readonly createdAt: Date
  readonly updatedAt: Date
  /** All calls ever of its owner's agents: what its score is made of. */
  readonly sums: CallSums
}
