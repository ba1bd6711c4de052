/**
 * The throttle of guesses: at most `attemptsMax` counted attempts of one
 * subject (an email, an address) in any `attemptWindowMs`.
 *
 * An attempt under way takes a place until its outcome is known, so that the
 * bound holds for any number of attempts made at once. Guarantee: while a
 * subject is remembered, no window contains more than `attemptsMax` counted
 * attempts, and an attempt that is not counted leaves nothing behind.
 *
 * Memory is bounded by `attemptSubjectsMax`: above it the subject whose last
 * attempt is oldest is forgotten, never one with an attempt under way.
 */

/** Contract: 10 failures in 15 minutes. */
export const attemptsMax = 10
export const attemptWindowMs = 15 * 60_000
/** ≈ 250 B each. */
export const attemptSubjectsMax = 50_000
/** When only attempts under way are in the way: about how long one takes. */
const underWayRetryMs = 1_000

interface Subject {
  /** Times of counted attempts, oldest first; at most `attemptsMax`. */
  counted: Array<number>
  underWay: number
}

/** By subject; the one whose last attempt is oldest comes first. */
export type Attempts = Map<string, Subject>

export const makeAttempts = (): Attempts => new Map()

/** Takes a place for one attempt and answers 0, or answers the milliseconds until one may be free and takes none. */
export const beginAttempt = (attempts: Attempts, name: string, nowMs: number): number => {
  const subject = attempts.get(name) ?? { counted: [], underWay: 0 }
  subject.counted = subject.counted.filter((atMs) => atMs > nowMs - attemptWindowMs)
  if (subject.counted.length >= attemptsMax) return subject.counted[0]! + attemptWindowMs - nowMs
  if (subject.counted.length + subject.underWay >= attemptsMax) return underWayRetryMs
  subject.underWay++
  attempts.delete(name)
  attempts.set(name, subject)
  if (attempts.size > attemptSubjectsMax) forgetOldest(attempts)
  return 0
}

/** Gives back the place that `beginAttempt` took; `counted` attempts weigh on the window from now. */
export const endAttempt = (attempts: Attempts, name: string, counted: boolean, nowMs: number): void => {
  // Never forgotten while an attempt is under way.
  const subject = attempts.get(name)!
  subject.underWay--
  if (counted) subject.counted.push(nowMs)
  if (subject.underWay === 0 && subject.counted.length === 0) attempts.delete(name)
}

/** Clears what was counted against a subject. Attempts under way keep their places. */
export const forgiveAttempts = (attempts: Attempts, name: string): void => {
  const subject = attempts.get(name)
  if (subject === undefined) return
  subject.counted = []
  if (subject.underWay === 0) attempts.delete(name)
}

const forgetOldest = (attempts: Attempts): void => {
  for (const [name, subject] of attempts) {
    if (subject.underWay > 0) continue
    attempts.delete(name)
    return
  }
}

/**
 * The subject that an address stands for: an IPv6 client owns its whole /64
 * (RFC 6177), so that is what is counted; an IPv4 address, also one mapped into
 * IPv6, stands for itself.
 */
export const subjectOfAddress = (address: string): string => {
  if (!address.includes(":")) return address
  const [head = "", tail] = address.toLowerCase().split("::")
  const groups = head === "" ? [] : head.split(":")
  const network = tail === undefined
    ? groups.slice(0, 4)
    : [...groups, ...Array<string>(8).fill("0")].slice(0, 4)
  const prefix = network.map((group) => group.replace(/^0+(?=.)/, ""))
  // ::/64 holds the loopback address and every IPv4-mapped one.
  return prefix.every((group) => group === "0") ? address.toLowerCase() : `${prefix.join(":")}::/64`
}
