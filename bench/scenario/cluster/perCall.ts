/**
 * What a call costs all nodes together, for one gateway that knows of no others,
 * and for 1, 2 and 3 nodes: free and paid calls of `busyKeys`, which are leased,
 * and free calls of `manyKeys`, of which each is asked for less often at each
 * node. The set-ups take turns within each round, and a ratio is one round's.
 * Each node has as many callers as the one gateway has alone.
 *
 * All nodes share one core; load, agent, PostgreSQL and Redis share the other.
 * What two processes cost each other on a core is no cost of a cluster: two
 * gateways that know nothing of each other, each with a database of its own, are
 * loaded at the same time for that.
 */
import { type Charged, audit, chargedIn } from "../../rig/books.ts"
import { addCallers } from "../../rig/callers.ts"
import type { Options } from "../../rig/options.ts"
import { type Figure, spread } from "../../rig/Report.ts"
import { names } from "./names.ts"
import { type CallClass, type Setup, type Turn, together } from "./Setup.ts"

export const busyKeys = 100
export const manyKeys = 1_000
/** The compiler has seen the hot path of each node some thousand times by then; on a machine that is busy this takes longer. */
const warmUpCalls = 5_000
const warmUpSeconds = 6
const warmUpMs = 20_000

interface Load {
  readonly name: string
  readonly of: CallClass
  readonly keys: number
  readonly bar?: Figure["bar"]
}

const loads: ReadonlyArray<Load> = [
  { name: "free", of: "free", keys: busyKeys, bar: { atMost: 1.3 } },
  { name: "paid", of: "paid", keys: busyKeys, bar: { atMost: 1.3 } },
  { name: names.many, of: "free", keys: manyKeys }
]

export const perCall = async (setups: ReadonlyArray<Setup>, { rounds, seconds, connections }: Options, priceMicros: bigint): Promise<ReadonlyArray<Figure>> => {
  const keys = new Map<Setup, ReadonlyArray<string>>()
  for (const setup of setups) keys.set(setup, await addCallers(setup.cluster.sql, manyKeys))
  const turn = (setup: Setup, { of, keys: count }: Load, length: number): Promise<Turn> => setup.turn(of, keys.get(setup)!.slice(0, count), connections, length)
  await Promise.all(setups.map((setup) => warmUp(setup, keys.get(setup)!.slice(0, busyKeys), connections)))
  const before = await Promise.all(setups.map(({ cluster }) => chargedIn(cluster.sql)))

  const figures = new Array<Figure>()
  for (const load of loads) {
    const turns = new Map<Setup, Array<Turn>>(setups.map((setup) => [setup, []]))
    const apart = new Array<Turn>()
    for (let round = 0; round < (load.bar === undefined ? Math.ceil(rounds / 2) : rounds); round++) {
      for (const setup of setups) turns.get(setup)!.push(await turn(setup, load, seconds))
      // One is a cluster of one node, which does what the other does.
      if (load.bar !== undefined) apart.push(together(await Promise.all(setups.slice(0, 2).map((setup) => turn(setup, load, seconds)))))
    }
    figures.push(...figuresOf(load, setups, turns, apart))
  }
  for (const [at, setup] of setups.entries()) await checkBooks(setup, before[at]!, priceMicros)
  return figures
}

/** What is answered here does not count; a turn without answers is one of a machine that is busy. */
const warmUp = async (setup: Setup, keys: ReadonlyArray<string>, connections: number): Promise<void> => {
  for (const of of ["free", "paid"] as const) {
    const untilMs = performance.now() + warmUpMs
    for (let calls = 0; calls < warmUpCalls && performance.now() < untilMs;) calls += await setup.turn(of, keys, connections, warmUpSeconds).then((turn) => turn.calls, () => 0)
  }
  setup.charged = 0
}

const figuresOf = ({ name, bar }: Load, [alone, ...many]: ReadonlyArray<Setup>, turns: ReadonlyMap<Setup, ReadonlyArray<Turn>>, apart: ReadonlyArray<Turn>): ReadonlyArray<Figure> => {
  const base = turns.get(alone!)!
  const of = (setup: Setup, what: string, unit: string, read: (turn: Turn) => number): Figure => spread(`${name}: ${setup.name}, ${what}`, unit, turns.get(setup)!.map(read))
  return [
    ...many.map((setup) => spread(`${name}: ${setup.name} / ${alone!.name}, CPU a call`, "×", turns.get(setup)!.map(({ nodes }, round) => nodes / base[round]!.nodes), bar)),
    ...apart.length === 0 ? [] : [
      spread(`${name}: two that know nothing of each other / ${alone!.name}, CPU a call`, "×", apart.map(({ nodes }, round) => nodes / base[round]!.nodes)),
      ...many.slice(1, 2).map((setup) => spread(`${name}: ${setup.name} / two that know nothing of each other, CPU a call`, "×", turns.get(setup)!.map(({ nodes }, round) => nodes / apart[round]!.nodes)))
    ],
    ...[alone!, ...many].flatMap((setup) => [
      of(setup, names.cpu, "µs", ({ nodes }) => nodes),
      of(setup, names.postgres, "µs", ({ postgres }) => postgres),
      of(setup, names.perSecond, "/s", ({ perSecond }) => perSecond),
      ...(name === "paid" ? [of(setup, names.callsPerBatch, "", ({ callsPerBatch }) => callsPerBatch)] : [])
    ]),
    ...many.flatMap((setup) => [
      of(setup, "Redis, CPU a call", "µs", ({ redis }) => redis),
      ...(setup.cluster.nodes.length === 1 ? [] : [
        of(setup, names.passedOn, "%", ({ passedOnShare }) => passedOnShare * 100),
        of(setup, names.asks, "", ({ asksShare }) => asksShare * 1_000)
      ])
    ])
  ]
}

/** Each answer was charged once and nothing else was, and the audit finds nothing. */
const checkBooks = async ({ name, charged, cluster }: Setup, before: Charged, priceMicros: bigint): Promise<void> => {
  const after = await chargedIn(cluster.sql)
  const [calls, micros] = [after.calls - before.calls, after.micros - before.micros]
  if (calls !== charged || micros !== BigInt(charged) * priceMicros) throw new Error(`${name}: ${charged} answers of ${priceMicros} µ$ each, but ${calls} charges of ${micros} µ$ together`)
  await audit(cluster.env)
}
