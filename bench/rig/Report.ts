/** What a scenario found, as a table for people and as one JSON line with where and how it was taken. */
import { execFileSync } from "node:child_process"
import { appendFileSync, mkdirSync } from "node:fs"
import { cpus } from "node:os"
import { join } from "node:path"

export interface Figure {
  readonly name: string
  readonly value: number
  readonly unit: string
  /** Lowest and highest of the rounds whose median `value` is. */
  readonly min?: number
  readonly max?: number
  readonly bar?: { readonly atMost: number } | { readonly atLeast: number }
}

export interface Report {
  readonly figures: ReadonlyArray<Figure>
  /** How the load was made. */
  readonly parameters: Readonly<Record<string, string | number | boolean>>
  /** What could not be measured, and why. */
  readonly missing?: ReadonlyArray<string>
}

export const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted.length === 0 ? NaN : (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2
}

/** The median of several rounds with its spread. */
export const spread = (name: string, unit: string, values: ReadonlyArray<number>, bar?: Figure["bar"]): Figure =>
  ({ name, unit, value: median(values), min: Math.min(...values), max: Math.max(...values), ...(bar === undefined ? {} : { bar }) })

const isMet = ({ value, bar }: Figure): boolean | undefined =>
  bar === undefined ? undefined : "atMost" in bar ? value <= bar.atMost : value >= bar.atLeast

/** Three significant digits; whole numbers stay whole. */
const shown = (value: number): string => Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)))

export const print = (scenario: string, { figures, missing = [] }: Report): void => {
  console.log(`\n${scenario}`)
  const rows = figures.map((figure) => [
    figure.name,
    `${shown(figure.value)} ${figure.unit}`.trim(),
    figure.min === undefined || figure.max === undefined ? "" : `${shown(figure.min)} to ${shown(figure.max)}`,
    figure.bar === undefined ? "" : `${"atMost" in figure.bar ? `≤ ${shown(figure.bar.atMost)}` : `≥ ${shown(figure.bar.atLeast)}`} ${isMet(figure) ? "met" : "NOT MET"}`
  ])
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column]!.length)))
  for (const row of rows) console.log(`  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd()}`)
  for (const line of missing) console.log(`  not measured: ${line}`)
}

export const record = (scenario: string, { figures, parameters, missing = [] }: Report, folder: string): void => {
  mkdirSync(folder, { recursive: true })
  const line = {
    scenario, at: new Date().toISOString(), ...commit(), node: process.version, cpu: cpus()[0]?.model ?? "unknown", cores: cpus().length,
    parameters,
    figures: figures.map((figure) => ({ ...figure, ...(figure.bar === undefined ? {} : { met: isMet(figure) }) })),
    missing
  }
  appendFileSync(join(folder, `${scenario}.jsonl`), `${JSON.stringify(line)}\n`)
}

/** A tree with changes is not the commit it started from. */
const commit = (): { readonly commit: string; readonly changed?: true } => {
  const git = (...args: ReadonlyArray<string>): string => execFileSync("git", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim()
  try {
    return { commit: git("rev-parse", "HEAD"), ...(git("status", "--porcelain", "--untracked-files=no") === "" ? {} : { changed: true }) }
  } catch {
    return { commit: "unknown" }
  }
}
