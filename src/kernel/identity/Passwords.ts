/**
 * Password hashes: argon2id, in PHC strings. The only home of @node-rs/argon2.
 *
 * Guarantee: never more than `hashesMax` computations at once on this node (each takes
 * 19 MiB and one of the four threads that file and DNS calls share); at most
 * `queueMax` callers wait in turn; the next one is refused at once. A caller
 * who goes away while waiting leaves the queue; a computation that has begun is
 * finished, and keeps its place until then.
 *
 * Checking a password without a hash (an unknown email) does the same work and
 * answers false. Passwords are hashed as the UTF-8 they came in and never kept.
 */
import { hash, verify } from "@node-rs/argon2"
import { Context, Effect, Layer, Semaphore } from "effect"
import { randomBytes } from "node:crypto"
import { Overloaded } from "../../domain/errors.ts"

export const hashesMax = 2
export const queueMax = 64

/** OWASP's first choice of equal strengths; 25 ms on the reference machine. */
const cost = { memoryCost: 19_456, timeCost: 2, parallelism: 1 } as const

const base64 = (bytes: number): string => randomBytes(bytes).toString("base64").replace(/=+$/, "")

export class Passwords extends Context.Service<Passwords, {
  readonly hash: (password: string) => Effect.Effect<string, Overloaded>
  readonly verify: (passwordHash: string | undefined, password: string) => Effect.Effect<boolean, Overloaded>
}>()("tollgate/kernel/identity/Passwords") {
  static readonly layer = Layer.sync(Passwords, () => {
    const turns = Semaphore.makeUnsafe(hashesMax)
    let admitted = 0
    const inTurn = <A>(work: () => Promise<A>): Effect.Effect<A, Overloaded> =>
      Effect.suspend(() => {
        if (admitted >= hashesMax + queueMax) return Effect.fail(new Overloaded({ what: "password checks", retryAfterMs: 1_000 }))
        admitted++
        return turns.withPermit(Effect.uninterruptible(Effect.promise(work))).pipe(
          Effect.ensuring(Effect.sync(() => { admitted-- }))
        )
      })
    // Nobody knows a password of these random bytes; checking one costs as much as with a real hash.
    const nobodys = `$argon2id$v=19$m=${cost.memoryCost},t=${cost.timeCost},p=${cost.parallelism}$${base64(16)}$${base64(32)}`
    return Passwords.of({
      hash: (password) => inTurn(() => hash(password, cost)),
      verify: (passwordHash, password) => inTurn(() => verify(passwordHash ?? nobodys, password)).pipe(
        Effect.map((matches) => matches && passwordHash !== undefined)
      )
    })
  })
}
