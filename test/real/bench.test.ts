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

  it("runs nothing when it does not understand what to run", async () => {
    const { code, output } = await bench("relays")
    expect(code).toBe(2)
    expect(output).toContain("usage: npm run bench")
  })
})
