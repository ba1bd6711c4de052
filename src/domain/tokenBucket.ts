/**
 * The token bucket of one address: it holds `burst` tokens, gains
 * `ratePerSecond`, and a call takes one. Pure; a clock that steps back gives
 * nothing and takes nothing.
 */

export interface BucketBounds {
  readonly ratePerSecond: number
  readonly burst: number
}
export interface TokenBucket {
  tokens: number
  atMs: number
}

export const makeBucket = ({ burst }: BucketBounds, nowMs: number): TokenBucket => ({ tokens: burst, atMs: nowMs })

/** Takes a token and answers 0, or answers the milliseconds until there is one and takes nothing. */
export const takeToken = (bucket: TokenBucket, { ratePerSecond, burst }: BucketBounds, nowMs: number): number => {
  if (nowMs > bucket.atMs) {
    bucket.tokens = Math.min(burst, bucket.tokens + (nowMs - bucket.atMs) * ratePerSecond / 1_000)
    bucket.atMs = nowMs
  }
  if (bucket.tokens < 1) return Math.ceil((1 - bucket.tokens) * 1_000 / ratePerSecond)
  bucket.tokens--
  return 0
}
