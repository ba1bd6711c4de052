/** How long to wait before another try: exponential with full jitter, so that callers who failed together don't come back together. */
const baseMs = 500
const capMs = 8_000

/** `attempt` counts from 0. */
export const backoffMs = (attempt: number): number => Math.random() * Math.min(capMs, baseMs * 2 ** attempt)

/** Before a socket that was lost is tried again: many may have been lost with it, so already the first wait is spread over 4 s. */
export const reconnectMs = (attempt: number): number => backoffMs(attempt + 3)

/** The header `Retry-After` in seconds: a number, or a date (RFC 9110 §10.2.3). */
export const parseRetryAfter = (header: string | null, nowMs: number): number | undefined => {
  if (header === null || header === "") return undefined
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - nowMs) / 1000
  return Number.isFinite(seconds) ? Math.max(0, seconds) : undefined
}

export const sleep = (ms: number): Promise<void> => new Promise((done) => void setTimeout(done, ms))
