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
  }, place, { mailboxCommandsMax: 3, waitingCommandsMax: 8, placementWaitMs: 10_000, activationTimeoutMs: 10_000, passivateAfterMs: 1_000, ...limits })
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

const other: Place = { nodeId: "other", host: "10.0.0.2", port: 1, hopPort: 2 }
const elsewhere = { _tag: "Overloaded", what: "placement", retryAfterMs: 1_000 }

describe("an actor that is another node's", () => {
  it("is neither loaded nor answered, also when it was resident before", async () => {
    let place: Place = "local"
    const { directory, loads, awake, ask } = open({ place: () => place })
    await awake("a")
    place = other
    expect(directory.resident("a", 0)).toBeUndefined()
    expect([failureOf(await ask("a")), failureOf(await ask("b"))]).toMatchObject([elsewhere, elsewhere])
    expect([loads.length, directory.mailboxDepth]).toEqual([1, 0])
    directory.moved()
    expect(directory.residentCount).toBe(0)
  })

  it("is not made resident when it left while it was loading, and who waited may try elsewhere", async () => {
    let place: Place = "local"
    const { directory, loads, ask } = open({ place: () => place })
    const asked = [ask("a"), ask("a")]
    place = other
    const { turns } = loads[0]!.succeed(1n)
    expect((await Promise.all(asked)).map(failureOf)).toMatchObject([elsewhere, elsewhere])
    expect([turns, loads.length, directory.residentCount, directory.mailboxDepth]).toEqual([[], 1, 0, 0])
  })
})

describe("an actor whose place is not known", () => {
  const moving = (limits: Partial<DirectoryLimits> = {}) => {
    let place: Place = "moving"
    const opened = open({ limits, place: () => place })
    return { ...opened, move: (to: Place) => { place = to; opened.directory.moved() } }
  }

  it("is loaded when it turns out to be here, for all who waited, in their order", async () => {
    const { directory, loads, ask, move } = moving()
    const asked = [ask("a", "first"), ask("a", "second")]
    expect([loads.length, directory.mailboxDepth]).toEqual([0, 2])
    move("local")
    asked.push(ask("a", "third"))
    const { turns } = loads[0]!.succeed(3n)
    expect(await Promise.all(asked)).toEqual([3n, 3n, 3n].map((token) => Exit.succeed(token)))
    expect([turns, loads.length]).toEqual([["first", "second", "third"], 1])
  })

  it("fails all who waited when it turns out to be another node's", async () => {
    const { directory, loads, ask, move } = moving()
    const asked = [ask("a"), ask("b")]
    move(other)
    expect((await Promise.all(asked)).map(failureOf)).toMatchObject([elsewhere, elsewhere])
    expect([loads.length, directory.mailboxDepth]).toEqual([0, 0])
  })

  it("fails who waited too long", async () => {
    const { directory, loads, ask } = moving({ placementWaitMs: 1 })
    expect(failureOf(await ask("a"))).toMatchObject(elsewhere)
    expect([loads.length, directory.mailboxDepth]).toEqual([0, 0])
  })

  it("keeps a bounded number of commands, of one actor and of all", async () => {
    const { ask, loads, move } = moving({ waitingCommandsMax: 4 })
    const waiting = [ask("a"), ask("a"), ask("a")]
    expect(failureOf(await ask("a"))).toMatchObject({ _tag: "MailboxFull" })
    waiting.push(ask("b"))
    expect(failureOf(await ask("c"))).toMatchObject({ _tag: "Overloaded", what: "commands waiting" })
    move("local")
    loads[0]!.succeed(1n)
    loads[1]!.succeed(1n)
    expect(await Promise.all(waiting)).toEqual(waiting.map(() => Exit.succeed(1n)))
    const next = ask("c")
    loads[2]!.succeed(1n)
    expect(await next).toEqual(Exit.succeed(1n))
  })

  it("forgets who does not wait any more", async () => {
    const { directory, loads, turn, move } = moving()
    await Effect.runPromise(Fiber.interrupt(Effect.runFork(directory.ask("a", turn("interrupted")))))
    expect(directory.mailboxDepth).toBe(0)
    move("local")
    expect(loads[0]!.succeed(1n).turns).toEqual([])
  })

  it("waits on, and is loaded anew, when that happened during its load", async () => {
    const { loads, ask, move } = moving()
    move("local")
    const asked = ask("a")
    move("moving")
    expect(loads[0]!.succeed(1n).turns).toEqual([])
    move("local")
    const { turns } = loads[1]!.succeed(2n)
    expect([await asked, turns]).toEqual([Exit.succeed(2n), ["turn"]])
  })

  it("is loaded again when that was so for a while during its load", async () => {
    const { loads, ask, move } = moving()
    move("local")
    const asked = ask("a")
    move("moving")
    move("local")
    expect(loads[0]!.succeed(1n).turns).toEqual([])
    loads[1]!.succeed(2n)
    expect(await asked).toEqual(Exit.succeed(2n))
  })

  it("runs what waited before what comes later, also when nobody told that its place is known", async () => {
    let place: Place = "local"
    const { directory, awake, ask } = open({ place: () => place })
    const { turns } = await awake("a")
    place = "moving"
    const waiting = ask("a", "waiting")
    expect(directory.mailboxDepth).toBe(1)
    place = "local"
    await Promise.all([ask("a", "later"), waiting])
    expect(turns).toEqual(["wake", "waiting", "later"])
  })

  it("is not believed when it was resident before, even if it never was elsewhere as far as this node knows", async () => {
    const { directory, loads, awake, ask, move } = moving()
    move("local")
    const before = await awake("a", 1n)
    move("moving")
    expect(directory.resident("a", 0)).toBeUndefined()
    move("local")
    expect(directory.resident("a", 0)).toBeUndefined()
    const asked = ask("a")
    loads[1]!.succeed(2n)
    expect([await asked, before.turns]).toEqual([Exit.succeed(2n), ["wake"]])
  })
})

describe("an exception to an actor's place", () => {
  const soon = (): number => performance.now() + 60_000

  it("lets an actor of another node be asked here, without giving it to the hot path, until it ends", async () => {
    const { directory, loads, ask } = open({ place: () => other })
    directory.except("a", "local", soon())
    const asked = ask("a")
    loads[0]!.succeed(5n)
    expect([await asked, await ask("a"), directory.resident("a", 0)]).toEqual([Exit.succeed(5n), Exit.succeed(5n), undefined])
    expect(failureOf(await ask("b"))).toMatchObject(elsewhere)
    directory.restore("a")
    expect(failureOf(await ask("a"))).toMatchObject(elsewhere)
  })

  it("ends by itself at its time", async () => {
    const { directory, ask } = open({ place: () => other })
    directory.except("a", "local", performance.now() - 1)
    expect(failureOf(await ask("a"))).toMatchObject(elsewhere)
  })

  it("lets an actor of this node wait until it ends", async () => {
    const { directory, loads, awake, ask } = open()
    await awake("a")
    directory.forget("a")
    directory.except("a", "moving", soon())
    const asked = ask("a")
    expect([loads.length, directory.mailboxDepth]).toEqual([1, 1])
    directory.restore("a")
    loads[1]!.succeed(2n)
    expect(await asked).toEqual(Exit.succeed(2n))
  })

  it("keeps a state that was in doubt for the exception only", async () => {
    let place: Place = "local"
    const { directory, awake, ask } = open({ place: () => place })
    await awake("a")
    place = "moving"
    directory.moved()
    const waiting = ask("a", "waiting")
    directory.except("a", "local", soon())
    expect([await waiting, await ask("a", "last")]).toEqual([Exit.succeed(1n), Exit.succeed(1n)])
    expect(directory.peek("a")!.turns).toEqual(["wake", "waiting", "last"])
  })

  it("tells when a load that is under way has ended", async () => {
    const { directory, loads, ask } = open()
    const asked = ask("a")
    directory.forget("a")
    directory.except("a", "moving", soon())
    let isOver = false
    const over = directory.loaded("a").then(() => { isOver = true })
    await directory.loaded("b")
    expect(isOver).toBe(false)
    expect(loads[0]!.succeed(1n).turns).toEqual([])
    await over
    expect([directory.residentCount, directory.mailboxDepth]).toEqual([0, 1])
    directory.restore("a")
    loads[1]!.succeed(2n)
    expect(await asked).toEqual(Exit.succeed(2n))
  })
})
