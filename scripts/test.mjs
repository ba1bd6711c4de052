/**
 * `npm test`: installs and builds what is missing, then the types, the house
 * rules (`dist/tidy.js`) and the tests. `--full` raises the counts of the long
 * ones (TOLLGATE_FULL=1); other arguments go to vitest.
 *
 * The last line is the plain count `N passed, N failed`. Every error of the
 * compiler and every broken rule counts as one failed test; so do a test file
 * that could not run, and a run that ended badly without naming a test. The exit
 * code is 0 only when something ran and nothing failed.
 */
import { spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { build } from "./build.mjs"
import { fail, root, setup } from "./setup.mjs"

const args = process.argv.slice(2)
const full = args.includes("--full")

/** Runs one of our tools, shows what it prints, and answers both. */
const run = (script, ...rest) => new Promise((done, refuse) => {
  const child = spawn(process.execPath, [join(root, script), ...rest], {
    cwd: root,
    env: { ...process.env, ...(full ? { TOLLGATE_FULL: "1" } : {}) },
    stdio: ["ignore", "pipe", "inherit"]
  })
  let output = ""
  child.stdout.on("data", (chunk) => {
    process.stdout.write(chunk)
    output += chunk
  })
  child.once("error", refuse)
  child.once("close", (code) => done({ ok: code === 0, output }))
})

/** Failures of a tool that prints one a line; at least one when it exits badly. */
const failuresIn = ({ ok, output }, line) => ok ? 0 : Math.max(1, output.match(line)?.length ?? 0)

const vitest = async () => {
  const reports = mkdtempSync(join(tmpdir(), "tollgate-test-"))
  const file = join(reports, "report.json")
  try {
    const { ok } = await run("node_modules/vitest/vitest.mjs", "run", "--config", "test/vitest.config.ts", "--reporter=default", "--reporter=json", `--outputFile=${file}`, ...args.filter((arg) => arg !== "--full"))
    return countsOf(ok, JSON.parse(readFileSync(file, "utf8")))
  } catch {
    return { passed: 0, failed: 1 } // It ended before it could report.
  } finally {
    rmSync(reports, { recursive: true })
  }
}

const countsOf = (ok, { numPassedTests, numFailedTests, testResults }) => {
  const filesNotRun = testResults.filter((file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed")).length
  const failed = numFailedTests + filesNotRun
  return { passed: numPassedTests, failed: failed === 0 && !ok ? 1 : failed }
}

try {
  await setup("all")
  await build()
  const types = failuresIn(await run("node_modules/typescript/bin/tsc", "--noEmit"), /error TS\d+/g)
  const rules = failuresIn(await run("dist/tidy.js"), /^\S+:\d+ /gm)
  const { passed, failed } = await vitest()
  const all = types + rules + failed
  process.exitCode = all > 0 || passed === 0 ? 1 : 0
  console.log(`\n${passed} passed, ${all} failed`)
} catch (cause) {
  fail(cause)
}
