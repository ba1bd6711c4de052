/**
 * A token bucket for each address (an IPv6 client's whole /64), in memory: who
 * is above it is refused before anything is done for it. Bounded: the address
 * that was seen first is forgotten first, with a full bucket when it comes back.
 */
import { subjectOfAddress } from "../../domain/attempts.ts"
import { RateLimited } from "../../domain/errors.ts"
import { type BucketBounds, type TokenBucket, makeBucket, takeToken } from "../../domain/tokenBucket.ts"

/** ≈ 150 B each. */
const addressesMax = 100_000

export class AddressLimit {
  readonly #bounds: BucketBounds
  readonly #buckets = new Map<string, TokenBucket>()

  constructor(bounds: BucketBounds) {
    this.#bounds = bounds
  }

  take(address: string, nowMs: number): RateLimited | undefined {
    const subject = subjectOfAddress(address)
    let bucket = this.#buckets.get(subject)
    if (bucket === undefined) {
      if (this.#buckets.size >= addressesMax) this.#buckets.delete(this.#buckets.keys().next().value!)
      this.#buckets.set(subject, bucket = makeBucket(this.#bounds, nowMs))
    }
    const retryAfterMs = takeToken(bucket, this.#bounds, nowMs)
    return retryAfterMs === 0 ? undefined : new RateLimited({ limit: this.#bounds.burst, windowMs: 60_000, retryAfterMs })
  }
}
