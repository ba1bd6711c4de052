/**
 * The throttle of guesses: at most so many counted attempts of one subject (an
 * email, an address) in any window; of passwords and letters `attemptsMax` in
 * `attemptWindowMs`.
 *
 * An attempt under way takes a place until its outcome is known, so that the
 * bound holds for any number of attempts made at once, unless it is lenient. Guarantee: while a
 * subject is remembered, no window contains more than `attemptsMax` counted
 * attempts, and an attempt that is not counted leaves nothing behind.
 *
 * Memory is bounded by `attemptSubjectsMax`: above it the subject whose last
 * attempt is oldest is forgotten, never one with an attempt under way.
 */

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

export interface AttemptBounds {
  readonly max: number
  readonly windowMs: number
  /** Attempts under way take no places: any number may be, and the bound holds for what comes after they have failed. */
  readonly isLenient?: boolean
}

/** By subject; the one whose last attempt is oldest comes first. */
export interface Attempts extends AttemptBounds {
  readonly subjects: Map<string, Subject>
}

/** Contract: 10 failures in 15 minutes, unless another one says otherwise. */
export const makeAttempts = (bounds: AttemptBounds = { max: attemptsMax, windowMs: attemptWindowMs }): Attempts => ({ ...bounds, subjects: new Map() })

/** Takes a place for one attempt and answers 0, or answers the milliseconds until one may be free and takes none. */
export const beginAttempt = ({ subjects, max, windowMs, isLenient }: Attempts, name: string, nowMs: number): number => {
  const subject = subjects.get(name) ?? { counted: [], underWay: 0 }
  subject.counted = subject.counted.filter((atMs) => atMs > nowMs - windowMs)
  if (subject.counted.length >= max) return subject.counted[0]! + windowMs - nowMs
  if (isLenient !== true && subject.counted.length + subject.underWay >= max) return underWayRetryMs
  subject.underWay++
  subjects.delete(name)
  subjects.set(name, subject)
  if (subjects.size > attemptSubjectsMax) forgetOldest(subjects)
  return 0
}

/** Gives back the place that `beginAttempt` took; `counted` attempts weigh on the window from now. */
export const endAttempt = ({ subjects }: Attempts, name: string, counted: boolean, nowMs: number): void => {
  // Never forgotten while an attempt is under way.
  const subject = subjects.get(name)!
  subject.underWay--
  if (counted) subject.counted.push(nowMs)
  if (subject.underWay === 0 && subject.counted.length === 0) subjects.delete(name)
}

/** Clears what was counted against a subject. Attempts under way keep their places. */
export const forgiveAttempts = ({ subjects }: Attempts, name: string): void => {
  const subject = subjects.get(name)
  if (subject === undefined) return
  subject.counted = []
  if (subject.underWay === 0) subjects.delete(name)
}

const forgetOldest = (subjects: Attempts["subjects"]): void => {
  for (const [name, subject] of subjects) {
    if (subject.underWay > 0) continue
    subjects.delete(name)
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
