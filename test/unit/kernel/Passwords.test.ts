import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Result } from "effect"
import { Overloaded } from "../../../src/domain/errors.ts"
import { Passwords, hashesMax, queueMax } from "../../../src/kernel/identity/Passwords.ts"

const passwords = Passwords.pipe(Effect.provide(Passwords.layer))
const refused = Result.fail(new Overloaded({ what: "password checks", retryAfterMs: 1_000 }))

describe("passwords", () => {
  it.effect("are hashed by argon2id with a salt of their own, and checked against the hash", () => Effect.gen(function*() {
    const { hash, verify } = yield* passwords
    const hashes = [yield* hash("correct horse"), yield* hash("correct horse")] as const
    for (const text of hashes) expect(text).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$[^$]{22}\$[^$]{43}$/)
    expect(hashes[0]).not.toBe(hashes[1])
    expect(yield* verify(hashes[0], "correct horse")).toBe(true)
    expect(yield* verify(hashes[0], "wrong horse")).toBe(false)
    expect(yield* verify(undefined, "correct horse")).toBe(false)
  }))

  it.effect("beyond two at work and a full queue are refused at once, and those before are all answered", () => Effect.gen(function*() {
    const { verify } = yield* passwords
    const results = yield* Effect.all(
      Array.from({ length: hashesMax + queueMax + 3 }, () => Effect.result(verify(undefined, "wrong horse"))),
      { concurrency: "unbounded" }
    )
    expect(results.slice(-3)).toEqual([refused, refused, refused])
    expect(results.slice(0, -3).every(Result.isSuccess)).toBe(true)
    expect(yield* verify(undefined, "wrong horse")).toBe(false)
  }))

  it.effect("of a caller who goes away leave the queue", () => Effect.gen(function*() {
    const { verify } = yield* passwords
    const check = Effect.result(verify(undefined, "wrong horse"))
    const working = yield* Effect.forEach(Array.from({ length: hashesMax }), () => Effect.forkChild(check, { startImmediately: true }))
    const waiting = yield* Effect.forEach(Array.from({ length: queueMax }), () => Effect.forkChild(check, { startImmediately: true }))
    expect(yield* check).toEqual(refused)
    yield* Fiber.interruptAll(waiting)
    expect(Result.isSuccess(yield* check)).toBe(true)
    yield* Fiber.joinAll(working)
  }))
})
