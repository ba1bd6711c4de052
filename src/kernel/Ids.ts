/**
 * Makes identifiers; `domain/ids.ts` has their types. Nothing here is a secret:
 * ids may be guessed and are never a credential.
 */
import { randomFillSync } from "node:crypto"
import { nanoid } from "nanoid"
import { v7 } from "uuid"
import type { RequestId } from "../domain/ids.ts"

const process72bits = nanoid(12)
let calls = 0

/**
 * Names one call, on every answer and in every log line: this process's random part and a counter, url-safe.
 * A whole nanoid for each call would cost as much as its admission.
 */
export const requestId = (): RequestId => `${process72bits}${(++calls).toString(36)}` as RequestId

/** One call to the system for so many ids: asked for each, its random bytes would cost 3 µs an id. */
const idsPerFill = 512
const pool = Buffer.alloc(16 * idsPerFill)
let used = idsPerFill
let lastMs = 0
let seq = 0

const randomBytes = (): Uint8Array => {
  if (used === idsPerFill) {
    randomFillSync(pool)
    used = 0
  }
  return pool.subarray(16 * used, 16 * ++used)
}

/**
 * Names one thing that is stored: a UUID of version 7 (RFC 9562 §5.7). Rises within this process, also
 * within a millisecond and when the clock steps back, so that an index on it stays dense.
 */
export const newId = <Id extends string>(): Id => {
  const random = randomBytes()
  const nowMs = Date.now()
  if (nowMs > lastMs) {
    lastMs = nowMs
    // The upper half is left for counting.
    seq = ((random[6]! & 0x3f) << 24) | (random[7]! << 16) | (random[8]! << 8) | random[9]!
  } else seq++
  return v7({ random, msecs: lastMs, seq }) as Id
}
