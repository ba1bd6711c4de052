/**
 * `npm run fault -- [--schedules N] [--seed S]`: random faults over a cluster of
 * two and three nodes under load, N schedules (10) of the seeds from S on (drawn
 * unless given). What a schedule does, and the command that runs a failed one
 * again, are printed. The exit code is 0 only when nothing was lost or doubled.
 */
import { spawn } from "node:child_process"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { build } from "./build.mjs"
import { SetupFailure, fail, root, setup } from "./setup.mjs"

const wanted = () => {
  try {
    const { values } = parseArgs({ options: { schedules: { type: "string", default: "10" }, seed: { type: "string" } } })
    for (const value of Object.values(values)) if (!/^\d{1,10}$/.test(value)) throw new Error(`${value} is no number`)
    return values
  } catch (cause) {
    throw new SetupFailure(`${cause.message}; usage: npm run fault -- [--schedules N] [--seed S]`)
  }
}

try {
  const { schedules, seed } = wanted()
  await setup("all")
  await build()
  const vitest = spawn(process.execPath, [join(root, "node_modules/vitest/vitest.mjs"), "run", "--config", "test/vitest.config.ts", "test/fault/cluster/schedules.test.ts"], {
    cwd: root, stdio: "inherit", env: { ...process.env, TOLLGATE_SCHEDULES: schedules, ...(seed === undefined ? {} : { SEED: seed }) }
  })
  vitest.once("error", fail).once("close", (code) => { process.exitCode = code ?? 1 })
} catch (cause) {
  fail(cause)
}
