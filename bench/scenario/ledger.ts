/**
 * Ledger: what the two decisions about one paid call cost, without anything
 * around them. In a process of its own, because what else has run in a process
 * decides how its compiler sees this loop. How: bench/micro/ledger.ts.
 */
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import type { Options } from "../rig/options.ts"
import { type Report, spread } from "../rig/Report.ts"
import { type Rig, programPath } from "../rig/Rig.ts"

const blocks = 100

export const ledger = async (_: Rig, { rounds }: Options): Promise<Report> => {
  const { stdout } = await promisify(execFile)(process.execPath, [programPath("micro/ledger"), String(rounds), String(blocks)], { timeout: 120_000 })
  const { plain, budgeted, ...parameters } = JSON.parse(stdout) as { plain: Array<number>; budgeted: Array<number>; openHolds: number; blocks: number; blockCalls: number }
  return {
    figures: [
      spread("hold and capture of one call", "ns", plain, { atMost: 1_000 }),
      spread("the same with a key that has a day's budget", "ns", budgeted)
    ],
    parameters: { ...parameters, rounds }
  }
}
