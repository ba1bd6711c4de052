/**
 * What a node asks the owner of an account, wherever that is: a lease (a slice
 * of its money and of one subject's window), and the account itself for a
 * moment. Carried by effect/cluster to whoever owns the account's shard; an
 * owner that is moving answers when it has moved, or the asker gives up.
 *
 * Amounts are micro-USD. Every ask can be repeated: what it gives back is named
 * in full, and what it wants is answered with what was granted.
 */
import { Schema } from "effect"
import { Entity } from "effect/cluster"
import { Rpc } from "effect/rpc"
import { GatewayError } from "../domain/errors.ts"

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

export const LeaseAsk = Schema.Struct({
  /** Who asks. */
  nodeId: Schema.String,
  subjectId: Schema.String,
  /** Rises with every ask of the node: one that comes after a later one is refused. */
  seq: Count,
  /** The lease that the node has of this subject, if any. */
  leaseId: Schema.NullOr(Schema.String),
  /** Calls wanted from the window. */
  calls: Count,
  /** Credits wanted on top of what the lease still has. */
  credits: Schema.BigInt,
  /** Of these, what somebody waits for: others' leases are recalled before so much is refused. 0: nobody waits, and granting nothing is no refusal. */
  creditsNeeded: Schema.BigInt,
  /** Less than so much is not worth a lease while nobody waits. */
  creditsMin: Schema.BigInt,
  /** The same for calls: 0 or 1. */
  callsNeeded: Count,
  /** A lease is wanted even when it has no credits: commits of the node name it. */
  row: Schema.Boolean,
  /** Granted calls that were not made and will not be, by the second of their grant. */
  unusedCalls: Schema.Array(Schema.Struct({ second: Count, calls: Count })),
  /** Credits that nothing is held from any more. */
  unusedCredits: Schema.BigInt,
  /** Spent from the lease so far, durably. For display. */
  spent: Schema.BigInt,
  /** With it all is given back that nothing is held from: a recall is answered by this only, not by an ask that was on its way. */
  gives: Schema.Boolean,
  /** Nothing is held from the lease and nothing will be: it can be closed. */
  isOver: Schema.Boolean
})
export type LeaseAsk = typeof LeaseAsk.Type

export const LeaseGrant = Schema.Struct({
  suspended: Schema.Boolean,
  emailVerified: Schema.Boolean,
  /** What the account can spend besides this lease, when granted. For display. */
  elsewhere: Schema.BigInt,
  /** `null`: the subject is gone (revoked). */
  subject: Schema.NullOr(Schema.Struct({
    kind: Schema.Literals(["key", "login"]),
    /** `null`: every scope. */
    scopes: Schema.NullOr(Schema.Array(Schema.String)),
    revoked: Schema.Boolean,
    /** `null`: never. */
    expiresAtMs: Schema.NullOr(Schema.Number),
    limit: Schema.Int,
    /** Calls in the window, the granted ones included. */
    callsInWindow: Count,
    resetMs: Count
  })),
  leaseId: Schema.NullOr(Schema.String),
  /** Credits added to the lease. */
  credits: Schema.BigInt,
  calls: Count,
  /** By the owner's clock: when the calls were granted. */
  second: Count,
  /** Why what was needed is not granted. */
  refusal: Schema.NullOr(GatewayError)
})
export type LeaseGrant = typeof LeaseGrant.Type

/** For whoever must decide on an account that it does not own. */
export const BorrowAsk = Schema.Struct({ nodeId: Schema.String })

export const Lease = Rpc.make("Lease", { payload: LeaseAsk, success: LeaseGrant, error: GatewayError })
/** Asks that nobody waits for, of accounts with the same owner, in one message: alone each costs several times what it adds to others. Answered in their order. */
export const Leases = Rpc.make("Leases", {
  payload: Schema.Struct({ asks: Schema.Array(Schema.Struct({ accountId: Schema.String, ask: LeaseAsk })) }),
  success: Schema.Array(Schema.Result(LeaseGrant, GatewayError))
})
/** The owner lets go of the account, its commits settled, for `limits.borrowMs` at most. Answers what calls in flight at the owner hold of it, leases apart. */
export const Borrow = Rpc.make("Borrow", { payload: BorrowAsk, success: Schema.BigInt, error: GatewayError })
/** The account is the owner's again. */
export const Return = Rpc.make("Return", { payload: BorrowAsk, success: Schema.Void })

export const AccountEntity = Entity.make("Account", [Lease, Leases, Borrow, Return])
