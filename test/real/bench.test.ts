/** The bench at its smallest: that it measures, checks and records, not what it measures. */
import { spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"

let results: string

beforeEach(() => { results = mkdtempSync(join(tmpdir(), "tollgate-bench-test-")) })
afterEach(() => rmSync(results, { recursive: true }))

const bench = (...args: ReadonlyArray<string>): Promise<{ readonly code: number | null; readonly output: string }> => new Promise((done) => {
  const child = spawn(process.execPath, ["bench/run.mjs", ...args, `--results=${results}`], { stdio: ["ignore", "pipe", "pipe"] })
  let output = ""
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => { output += chunk })
  child.once("close", (code) => done({ code, output }))
})

const recorded = (scenario: string) => readFileSync(join(results, `${scenario}.jsonl`), "utf8").trimEnd().split("\n").map((line) => JSON.parse(line))

describe("the bench", () => {
  it("records one line a scenario, with its figures and how they were taken", { timeout: 120_000 }, async () => {
    const { code, output } = await bench("relay", "ledger", "--no-peers", "--rounds=1", "--seconds=1")
    expect(output).not.toContain("failed")
    expect(code).toBe(0)
    const figure = (unit: string, ...bar: ReadonlyArray<object>) =>
      ({ name: expect.any(String), unit, value: expect.toSatisfy((value) => value > 0), min: expect.any(Number), max: expect.any(Number), ...Object.assign({}, ...bar) })
    const taken = { at: expect.any(String), commit: expect.any(String), node: process.version, cpu: expect.any(String), cores: expect.any(Number) }
    expect(recorded("ledger")).toEqual([expect.objectContaining({
      ...taken, scenario: "ledger", parameters: { rounds: 1, openHolds: 64, blocks: expect.any(Number), blockCalls: 1024 }, missing: [],
      figures: [figure("ns", { bar: { atMost: 1000 }, met: expect.any(Boolean) }), figure("ns")]
    })])
    expect(recorded("relay")).toEqual([expect.objectContaining({
      ...taken, scenario: "relay", parameters: { connections: 64, rounds: 1, seconds: 1, bodyBytes: expect.any(Number) }, missing: ["the peers: --no-peers"],
      figures: [
        figure("×", { bar: { atMost: 1.15 }, met: expect.any(Boolean) }), figure("µs"), figure("/s"),
        { name: "gateway's PostgreSQL, CPU a call", unit: "µs", value: expect.any(Number) }, figure("µs"), figure("/s")
      ]
    })])
  })

  // A cluster's nodes take a minute to start, to be killed and to start again: with full counts only.
  const isFull = process.env["TOLLGATE_FULL"] === "1"
  it("simulates how many nodes grow, draws it, and tells how far it is off from what was measured", { timeout: 600_000 }, async () => {
    const { code, output } = await bench(...isFull ? ["cluster"] : [], "simulate", "--nodes=3", "--rounds=1", "--seconds=2")
    expect(output).not.toContain("failed")
    expect(code).toBe(0)
    const values = (scenario: string): Record<string, number> =>
      Object.fromEntries(recorded(scenario)[0].figures.map(({ name, value }: { readonly name: string; readonly value: number }) => [name, value]))
    const grown = values("simulate")
    expect(grown["3 nodes / 1, CPU a call"]).toBeGreaterThan(1)
    expect(grown["3 nodes: calls of own accounts"]! + grown["3 nodes: calls by lease"]! + grown["3 nodes: calls passed on"]!).toBeCloseTo(100, 6)
    expect(readFileSync(join(results, "simulate.svg"), "utf8")).toContain("1 to 3 nodes, simulated")
    expect(JSON.parse(readFileSync(join(results, "simulate.json"), "utf8")).points).toHaveLength(3)
    if (!isFull) return expect(recorded("simulate")[0].missing).toEqual(["how far it is off: run cluster first"])
    expect(grown["free: 2 nodes / 1, simulated over measured"]).toEqual(expect.any(Number))
    const measured = values("cluster")
    expect(measured["takeover: double charges"]).toBe(0)
    expect(measured["takeover: kills"]).toBe(4)
    for (const name of ["free: 2 nodes / alone, CPU a call", "paid: 3 nodes / alone, CPU a call", "hop: CPU a call at the owner"]) expect(measured[name]).toBeGreaterThan(0)
  })

  it("runs nothing when it does not understand what to run", async () => {
    const { code, output } = await bench("relays")
    expect(code).toBe(2)
    expect(output).toContain("usage: npm run bench")
  })
})
