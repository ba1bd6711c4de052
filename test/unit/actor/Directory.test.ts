import { Cause, Effect, Exit, Fiber } from "effect"
import { describe, expect, it } from "vitest"
import { Directory, type DirectoryLimits } from "../../../src/actor/Directory.ts"
import type { Place } from "../../../src/actor/Placement.ts"

interface State {
  readonly token: bigint
  readonly turns: Array<string>
  idle: boolean
}

class NoSuchActor extends Error {
  readonly _tag = "NoSuchActor"
}

/** A load that waits for the test to say how it ends. */
interface Load {
  readonly id: string
  readonly succeed: (token: bigint) => State
  readonly fail: () => void
  state?: State
}

const open = ({ limits = {}, place = () => "local" }: { readonly limits?: Partial<DirectoryLimits>; readonly place?: () => Place } = {}) => {
  const loads: Array<Load> = []
  const passivated: Array<string> = []
  const directory = new Directory<string, State, NoSuchActor>({
    name: "thing",
    load: (id) => Effect.callback((resume) => {
      const load: Load = {
        id,
        succeed: (token) => {
          load.state = { token, turns: [], idle: true }
          resume(Effect.succeed(load.state))
          return load.state
        },
        fail: () => resume(Effect.fail(new NoSuchActor()))
      }
      loads.push(load)
    }),
    tokenOf: (state) => state.token,
    isIdle: (state) => state.idle,
    passivated: (id) => { passivated.push(id) }
  }, place, { mailboxCommandsMax: 3, activationTimeoutMs: 10_000, passivateAfterMs: 1_000, ...limits })
  /** Notes itself in the state and answers the token it saw. */
  const turn = (name: string) => (state: State): bigint => {
    state.turns.push(name)
    return state.token
  }
  const ask = (id: string, name = "turn") => Effect.runPromiseExit(directory.ask(id, turn(name)))
  const awake = async (id: string, token = 1n): Promise<State> => {
    const asked = ask(id, "wake")
    const state = loads.at(-1)!.succeed(token)
    await asked
    return state
  }
  return { directory, loads, passivated, ask, awake, turn }
}

const failureOf = (exit: Exit.Exit<unknown, unknown>): unknown => Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined

describe("an actor that is not resident", () => {
  it("is loaded once for all who ask while it is loading", async () => {
    const { directory, loads, ask } = open()
    const asked = [ask("a", "first"), ask("a", "second"), ask("a", "third")]
    expect([loads.length, directory.mailboxDepth, directory.residentCount]).toEqual([1, 3, 0])
    const state = loads[0]!.succeed(7n)
    expect(await Promise.all(asked)).toEqual([Exit.succeed(7n), Exit.succeed(7n), Exit.succeed(7n)])
    expect(state.turns).toEqual(["first", "second", "third"])
    expect([directory.mailboxDepth, directory.residentCount]).toEqual([0, 1])
  })

  it("is loaded beside others", async () => {
    const { loads, ask } = open()
    const asked = [ask("a"), ask("b")]
    expect(loads.map(({ id }) => id)).toEqual(["a", "b"])
    loads[1]!.succeed(2n)
    expect(await asked[1]).toEqual(Exit.succeed(2n))
    loads[0]!.succeed(1n)
    expect(await asked[0]).toEqual(Exit.succeed(1n))
  })

  it("takes the turns that waited in their order, before any that an answer leads to", async () => {
    const { directory, loads, turn } = open()
    const again = Effect.runPromise(Effect.flatMap(directory.ask("a", turn("first")), () => directory.ask("a", turn("first again"))))
    const second = Effect.runPromise(directory.ask("a", turn("second")))
    const state = loads[0]!.succeed(1n)
    await Promise.all([again, second])
    expect(state.turns).toEqual(["first", "second", "first again"])
  })

  it("is dropped by what an answer leads to only after everybody who waited had their turn", async () => {
    const { directory, loads, turn, ask } = open()
    const seen: Array<string> = []
    const dropping = Effect.runPromise(Effect.map(directory.ask("a", turn("first")), () => {
      seen.push(...loads[0]!.state!.turns)
      directory.forget("a")
    }))
    const second = ask("a", "second")
    loads[0]!.succeed(1n)
    await Promise.all([dropping, second])
    expect(seen).toEqual(["first", "second"])
    expect(directory.resident("a", 0)).toBeUndefined()
  })

  it("refuses at once who finds its mailbox full, and answers those who are in it", async () => {
    const { loads, ask } = open()
    const waiting = [ask("a"), ask("a"), ask("a")]
    expect(failureOf(await ask("a"))).toMatchObject({ _tag: "MailboxFull", actor: "thing", retryAfterMs: 1_000 })
    const other = ask("b")
    loads[0]!.succeed(1n)
    loads[1]!.succeed(2n)
    expect(await Promise.all([...waiting, other])).toEqual([1n, 1n, 1n, 2n].map((token) => Exit.succeed(token)))
  })

  it("fails everybody who waits when its load fails, and is loaded anew for the next", async () => {
    const { directory, loads, ask } = open()
    const waiting = [ask("a"), ask("a")]
    loads[0]!.fail()
    for (const exit of await Promise.all(waiting)) expect(failureOf(exit)).toMatchObject({ _tag: "NoSuchActor" })
    expect([directory.mailboxDepth, directory.residentCount]).toEqual([0, 0])
    const next = ask("a")
    loads[1]!.succeed(1n)
    expect(await next).toEqual(Exit.succeed(1n))
  })

  it("fails everybody who waits when its load takes too long", async () => {
    const { directory, ask } = open({ limits: { activationTimeoutMs: 1 } })
    expect(failureOf(await ask("a"))).toMatchObject({ _tag: "StoreUnavailable", retryAfterMs: 1_000 })
    expect(directory.mailboxDepth).toBe(0)
  })

  it("is loaded again when it was dropped while it was loading", async () => {
    const { directory, loads, ask } = open()
    for (const drop of [() => directory.forget("a"), () => directory.forgetAll(), () => directory.discard("a", 1n)]) {
      directory.forget("a")
      loads.length = 0
      const asked = ask("a")
      drop()
      const stale = loads[0]!.succeed(1n)
      expect(loads).toHaveLength(2)
      loads[1]!.succeed(2n)
      expect(await asked).toEqual(Exit.succeed(2n))
      expect(stale.turns).toEqual([])
    }
  })

  it("is given up, and no turn runs, when it is dropped during every load", async () => {
    const { directory, loads, ask } = open()
    const asked = ask("a")
    const states: Array<State> = []
    for (let load = 0; load < loads.length; load++) {
      directory.forget("a")
      states.push(loads[load]!.succeed(BigInt(load)))
    }
    expect(failureOf(await asked)).toMatchObject({ _tag: "StoreUnavailable" })
    expect(states).toHaveLength(4)
    expect(states.flatMap(({ turns }) => turns)).toEqual([])
    expect([directory.residentCount, directory.mailboxDepth]).toEqual([0, 0])
  })

  it("forgets an ask that was interrupted, and runs the others", async () => {
    const { directory, loads, turn, ask } = open()
    const interrupted = Effect.runFork(directory.ask("a", turn("interrupted")))
    const other = ask("a", "other")
    await Effect.runPromise(Fiber.interrupt(interrupted))
    expect(directory.mailboxDepth).toBe(1)
    const state = loads[0]!.succeed(1n)
    await other
    expect(state.turns).toEqual(["other"])
    expect(Exit.hasInterrupts(await Effect.runPromise(Fiber.await(interrupted)))).toBe(true)
  })

  it("comes to life without anybody who waits when the only ask was interrupted", async () => {
    const { directory, loads, turn } = open()
    await Effect.runPromise(Fiber.interrupt(Effect.runFork(directory.ask("a", turn("interrupted")))))
    const state = loads[0]!.succeed(1n)
    expect([directory.mailboxDepth, directory.resident("a", 0), state.turns]).toEqual([0, state, []])
  })
})

describe("a resident actor", () => {
  it("answers in the very turn, without another load", async () => {
    const { directory, loads, awake, turn } = open()
    const state = await awake("a")
    expect(Effect.runSync(directory.ask("a", turn("now")))).toBe(1n)
    expect(directory.resident("a", 0)).toBe(state)
    expect([loads.length, state.turns]).toEqual([1, ["wake", "now"]])
  })

  it("survives a turn that throws, which is a defect of that ask alone", async () => {
    const { directory, loads, ask, turn } = open()
    const thrown = new Error("a bug in a turn")
    const throwing = () => Effect.runPromiseExit(directory.ask("a", () => { throw thrown }))
    const waiting = [ask("a", "before"), throwing(), ask("a", "after")]
    const state = loads[0]!.succeed(1n)
    const [before, defect, after] = await Promise.all(waiting)
    expect([before, after]).toEqual([Exit.succeed(1n), Exit.succeed(1n)])
    for (const exit of [defect!, await throwing()]) {
      expect(Exit.hasDies(exit)).toBe(true)
      expect(failureOf(exit)).toBe(thrown)
    }
    expect(Effect.runSync(directory.ask("a", turn("later")))).toBe(1n)
    expect(state.turns).toEqual(["before", "after", "later"])
  })

  it("is dropped by its own token and by a later one, not by that of a term before it", async () => {
    const { directory, awake } = open()
    const state = await awake("a", 5n)
    expect(directory.discard("a", 4n)).toBe(false)
    expect(directory.resident("a", 0)).toBe(state)
    expect(directory.discard("a", 5n)).toBe(true)
    expect(directory.resident("a", 0)).toBeUndefined()
    expect(directory.discard("a", 5n)).toBe(false)
    await awake("a", 6n)
    expect(directory.discard("a", 7n)).toBe(true)
  })

  it("is dropped with all others when anything may have changed", async () => {
    const { directory, awake } = open()
    await awake("a")
    await awake("b")
    directory.forgetAll()
    expect([directory.residentCount, directory.resident("a", 0), directory.resident("b", 0)]).toEqual([0, undefined, undefined])
  })

  it("leaves memory when nobody asked for it long enough and it would lose nothing", async () => {
    const { directory, passivated, awake } = open()
    const [busy] = [await awake("busy"), await awake("idle"), await awake("asked")]
    busy.idle = false
    const nowMs = Date.now()
    expect(directory.passivateIdle(nowMs)).toBe(0)
    directory.resident("asked", nowMs + 9_500)
    expect(directory.passivateIdle(nowMs + 10_000)).toBe(1)
    expect(passivated).toEqual(["idle"])
    expect([...directory.states()]).toEqual([busy, directory.resident("asked", 0)])
    busy.idle = true
    expect(directory.passivateIdle(nowMs + 20_000)).toBe(2)
  })
})

describe("an actor that is not this node's", () => {
  it("is neither loaded nor answered, also when it was resident before", async () => {
    let place: Place = "local"
    const { directory, loads, awake, ask } = open({ place: () => place })
    await awake("a")
    for (const elsewhere of ["moving", { node: "other:1" }] as const) {
      place = elsewhere
      expect(directory.resident("a", 0)).toBeUndefined()
      expect(failureOf(await ask("a"))).toMatchObject({ _tag: "Overloaded", what: "placement" })
      expect(failureOf(await ask("b"))).toMatchObject({ _tag: "Overloaded" })
    }
    expect(loads).toHaveLength(1)
  })
})
