/**
 * Actors that move between nodes while they are asked, in random schedules: a
 * store with one fencing token an id, as the accounts have, and as many
 * directories as nodes. Places are as bad as they can be: a node learns of a
 * move late, or never believes another, so that two may think it is theirs.
 */
import fc from "fast-check"
import { Effect, Exit } from "effect"
import { describe, expect, it } from "vitest"
import { Directory } from "../../src/actor/Directory.ts"
import type { Place } from "../../src/actor/Placement.ts"

const runs = process.env["TOLLGATE_FULL"] === "1" ? 5_000 : 300
const nodes = 3
const ids = ["a", "b"]
const peer: Place = { nodeId: "other", host: "10.0.0.2", port: 1, hopPort: 2 }
const limits = { mailboxCommandsMax: 3, waitingCommandsMax: 5, placementWaitMs: 60_000, activationTimeoutMs: 60_000, passivateAfterMs: 0 }

type Step =
  | { readonly _tag: "ask" | "load" | "moved" | "forget" | "restore"; readonly node: number; readonly id: string }
  | { readonly _tag: "place" | "except"; readonly node: number; readonly id: string; readonly place: "local" | "moving" | "peer"; readonly told: boolean }

const where = { node: fc.nat(nodes - 1), id: fc.constantFrom(...ids) }
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ _tag: fc.constantFrom("ask" as const, "load" as const), ...where }) },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constantFrom("moved" as const, "forget" as const, "restore" as const), ...where }) },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("place" as const), ...where, place: fc.constantFrom("local" as const, "moving" as const, "peer" as const), told: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("except" as const), ...where, place: fc.constantFrom("local" as const, "moving" as const), told: fc.boolean() }) }
)

interface Row { token: bigint; value: number }
interface State { readonly token: bigint; readonly node: number; value: number }

class Scene {
  readonly rows = new Map<string, Row>(ids.map((id) => [id, { token: 0n, value: 0 }]))
  readonly adopted: Array<{ readonly id: string; readonly token: bigint; readonly node: number }> = []
  readonly places = new Map<string, Place>()
  readonly exceptions = new Map<string, Place>()
  readonly loads: Array<{ readonly name: string; readonly finish: () => void }> = []
  readonly answers: Array<Promise<Exit.Exit<unknown, unknown>>> = []
  turnsElsewhere = 0
  readonly directories = Array.from({ length: nodes }, (_, node) => new Directory<string, State, never>({
    name: "thing",
    load: (id) => Effect.callback((resume) => {
      this.loads.push({
        name: `${node} ${id}`,
        finish: () => {
          const row = this.rows.get(id)!
          resume(Effect.succeed({ token: ++row.token, node, value: row.value }))
        }
      })
    }),
    tokenOf: ({ token }) => token, isIdle: () => true, passivated: () => {}
  }, (id) => this.places.get(`${node} ${id}`) ?? "local", limits))

  placeOf(name: string): Place {
    return this.exceptions.get(name) ?? this.places.get(name) ?? "local"
  }

  ask(node: number, id: string): void {
    const directory = this.directories[node]!
    this.answers.push(Effect.runPromiseExit(directory.ask(id, (state) => {
      if (this.placeOf(`${node} ${id}`) !== "local") this.turnsElsewhere++
      const row = this.rows.get(id)!
      if (row.token !== state.token) {
        directory.discard(id, state.token)
        return
      }
      expect(state.value).toBe(row.value)
      row.value = ++state.value
      this.adopted.push({ id, token: state.token, node: state.node })
    })))
    expect(directory.mailboxDepth).toBeLessThanOrEqual(limits.waitingCommandsMax)
  }

  load(name: string): void {
    const at = this.loads.findIndex((load) => load.name === name)
    if (at >= 0) this.loads.splice(at, 1)[0]!.finish()
  }

  run(taken: Step): void {
    const { node, id } = taken
    const directory = this.directories[node]!
    const name = `${node} ${id}`
    switch (taken._tag) {
      case "ask": return this.ask(node, id)
      case "load": return this.load(name)
      case "moved": return directory.moved()
      case "forget": return void directory.forget(id)
      case "restore":
        this.exceptions.delete(name)
        return directory.restore(id)
      case "except":
        this.exceptions.set(name, taken.place as "local")
        return directory.except(id, taken.place as "local", Infinity)
      case "place":
        this.places.set(name, taken.place === "peer" ? peer : taken.place)
        if (taken.told) directory.moved()
    }
  }

  /** Everything is where it is, and every load ends, those that it leads to as well. */
  async end(): Promise<ReadonlyArray<Exit.Exit<unknown, unknown>>> {
    this.places.clear()
    this.exceptions.clear()
    for (const directory of this.directories) {
      for (const id of ids) directory.restore(id)
      directory.moved()
    }
    let isOver = false
    const answers = Promise.all(this.answers).finally(() => { isOver = true })
    while (!isOver) {
      for (const load of this.loads.splice(0)) load.finish()
      await new Promise((resolve) => { setImmediate(resolve) })
    }
    return answers
  }
}

describe("actors that move", () => {
  it("have one value that every adopted turn has seen and raised, one node for each token, and an answer for every ask", async () => {
    await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const scene = new Scene()
      for (const taken of steps) {
        scene.run(taken)
        if (taken._tag === "load") await Promise.resolve()
      }
      const answers = await scene.end()
      expect(answers.filter((exit) => Exit.hasDies(exit))).toEqual([])
      expect(scene.turnsElsewhere).toBe(0)
      expect(scene.directories.map(({ mailboxDepth }) => mailboxDepth)).toEqual([0, 0, 0])
      for (const id of ids) {
        const turns = scene.adopted.filter((turn) => turn.id === id)
        expect(scene.rows.get(id)!.value).toBe(turns.length)
        const tokens = turns.map(({ token }) => token)
        expect(tokens).toEqual(tokens.toSorted((a, b) => Number(a - b)))
        const nodesOf = new Map(turns.map(({ token, node }) => [token, node]))
        for (const { token, node } of turns) expect(nodesOf.get(token)).toBe(node)
      }
    }), { numRuns: runs })
  })
})
