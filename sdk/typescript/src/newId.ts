/**
 * A name that no other call has: an idempotency key, a message's id. It is no
 * secret. Node 18, and pages that came over plain http, have no `randomUUID`.
 */
export const newId = (): string => globalThis.crypto?.randomUUID?.() ?? Array.from({ length: 3 }, () => Math.random().toString(36).slice(2)).join("")
