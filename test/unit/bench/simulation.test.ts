import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type Costs, defaults, perBatch } from "../../../bench/simulation/Costs.ts"
import { EventQueue } from "../../../bench/simulation/EventQueue.ts"
import { Gateway, type Outcome, type Surroundings } from "../../../bench/simulation/Gateway.ts"
import { Latencies } from "../../../bench/simulation/Latencies.ts"
import { afterKill } from "../../../bench/simulation/Outage.ts"
import { plot } from "../../../bench/simulation/plot.ts"
import { inTurn } from "../../../bench/simulation/Workload.ts"
import { Random } from "../../support/Random.ts"

const costs: Costs = { ...defaults, call: { free: 100, paid: 100 }, hop: { from: 70, to: 30 }, ask: { from: 10, to: 10 }, idle: 0, batch: 1_000, paidRow: 50, freeRow: 20 }
const around: Surroundings = { wireS: 0.001, syncS: 0.002, databaseCores: 4, leaseTrustS: 1, leaseIdleS: 1, leaseTickS: 0.25, leaseCallsMin: 4 }

const simulated = (nodes: number, of: { readonly keys: number; readonly perSecond: number; readonly paidShare?: number }): Outcome => {
  const random = new Random(1)
  return new Gateway(nodes, inTurn({ nodes, paidShare: 0, ...of }, random), costs, around, random).run(2, 1)
}

describe("the simulation", () => {
  it("serves every call where it arrives when there is one node", () => {
    const outcome = simulated(1, { keys: 10, perSecond: 1_000 })
    expect(outcome).toMatchObject({ localShare: 1, leasedShare: 0, passedOnShare: 0, asksPerCall: 0 })
    expect(outcome.cpuPerCall).toBeCloseTo(100, 6)
    expect(outcome.busiestNode).toBeCloseTo(0.1, 2)
    expect(outcome.databaseCores).toBeCloseTo(0.02, 2)
  })

  it("passes calls of quiet keys on, which costs the way and nothing for leases", () => {
    const outcome = simulated(2, { keys: 1_000, perSecond: 2_000 })
    expect(outcome).toMatchObject({ leasedShare: 0, asksPerCall: 0 })
    expect(outcome.passedOnShare).toBeCloseTo(0.5, 1)
    expect(outcome.cpuPerCall).toBeCloseTo(100 + outcome.passedOnShare * 100, 0)
    expect(outcome.p99FreeMs).toBeGreaterThan(around.wireS * 1_000)
  })

  it("leases what busy keys need, asking little more than once a second for each", () => {
    const outcome = simulated(2, { keys: 20, perSecond: 2_000 })
    expect(outcome.passedOnShare).toBe(0)
    expect(outcome.leasedShare).toBeGreaterThan(0.2)
    const leasedKeys = 20 * outcome.leasedShare * 2
    const asksPerKey = outcome.asksPerCall * outcome.calls / leasedKeys
    expect(asksPerKey).toBeGreaterThan(0.9)
    expect(asksPerKey).toBeLessThan(2)
  })

  it("answers paid calls after their batch, and puts what came meanwhile into the next", () => {
    const calm = simulated(1, { keys: 10, perSecond: 100, paidShare: 1 })
    const busy = simulated(1, { keys: 10, perSecond: 5_000, paidShare: 1 })
    expect(calm.callsPerBatch).toBeLessThan(2)
    expect(busy.callsPerBatch).toBeGreaterThan(10)
    expect(calm.p99PaidMs).toBeGreaterThan((around.wireS + around.syncS) * 1_000 + 1)
  })

  it("comes to the same for the same seed", () => {
    expect(simulated(3, { keys: 30, perSecond: 3_000, paidShare: 0.3 })).toEqual(simulated(3, { keys: 30, perSecond: 3_000, paidShare: 0.3 }))
  })

  it("leaves accounts of a killed node without service until its locks expire, and not much longer", () => {
    const beats = { lockTtlS: 3, refreshS: 1, assignS: 0.5, acquireS: 0.5, newsS: 0, settleS: 0, loadS: 0, databaseCores: 1 }
    const { minS, p50S, maxS } = afterKill(3, 100, beats, 200, new Random(1))
    expect(minS).toBeGreaterThan(2)
    expect(p50S).toBeGreaterThan(2.5)
    expect(maxS).toBeLessThan(4)
  })
})

describe("its parts", () => {
  it("take events in the order of their times, whatever the order they were added in", () => {
    fc.assert(fc.property(fc.array(fc.oneof(fc.double({ min: 0, max: 1e6, noNaN: true }), fc.constant("take" as const))), (steps) => {
      const queue = new EventQueue()
      const model = new Array<number>()
      for (const step of steps) {
        if (step !== "take") {
          queue.add(step, 1, 2, 3, step)
          model.push(step)
        } else if (model.length > 0) {
          model.sort((a, b) => a - b)
          expect(queue.nextAt()).toBe(model[0])
          queue.take()
          expect([queue.kind, queue.a, queue.b, queue.value]).toEqual([1, 2, 3, model.shift()])
        }
      }
    }))
  })

  it("tell a batch's cost from that of each call in it", () => {
    const points = [5, 20, 50].map((calls) => ({ calls, micros: 40 + 1_000 / calls }))
    const { batch, paidRow } = perBatch(points)
    expect(batch).toBeCloseTo(1_000, 6)
    expect(paidRow).toBeCloseTo(40, 6)
    expect(perBatch([{ calls: 10, micros: 70 }, { calls: 10, micros: 50 }])).toEqual({ batch: 0, paidRow: 60 })
  })

  it("know percentiles within three in a hundred", () => {
    const times = new Latencies()
    for (let at = 1; at <= 10_000; at++) times.add(at / 1e6)
    expect(times.percentile(0.5) / 0.005).toBeGreaterThan(0.97)
    expect(times.percentile(0.99) / 0.0099).toBeLessThan(1.03)
    expect(new Latencies().percentile(0.5)).toBeNaN()
  })

  it("draw a line through every point that there is, and escape what is written", () => {
    const svg = plot("a < b & c", "note", [1, 3, 10], [{ title: "t", unit: "×", lines: [{ name: "<one>", values: [1, NaN, 2] }, { name: "two", values: [1, 1, 1], isBound: true }] }])
    expect(svg).toContain("a &lt; b &amp; c")
    expect(svg).toContain("&lt;one&gt;")
    expect(svg).not.toContain("NaN")
    expect(svg.match(/fill="none" stroke="#\w+"/g)).toHaveLength(2)
    expect(svg.match(/stroke-dasharray/g)).toHaveLength(2)
  })
})
