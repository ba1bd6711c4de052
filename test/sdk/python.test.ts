/**
 * The Python SDK, by its own tests: one Python process runs them all against a
 * real gateway process, and each is reported here under its own name.
 */
import { spawn } from "node:child_process"
import { readFileSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { findPython } from "../support/python.ts"
import { selfSigned } from "../support/selfSigned.ts"
import { expectCleanBooks, type StageDatabase, useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)
const root = "sdk/python"

/** `tests.test_rest.Rest.test_…`, by file. */
const modules = readdirSync(`${root}/tests`).filter((name) => /^test_.*\.py$/.test(name)).toSorted().map((name) => {
  const source = readFileSync(`${root}/tests/${name}`, "utf8")
  const tests: Array<string> = []
  let owner = ""
  for (const [, kind, method] of source.matchAll(/^class (\w+)|^ {4}(?:async )?def (test_\w+)/gm)) {
    if (kind !== undefined) owner = kind
    else tests.push(`tests.${name.replace(/\.py$/, "")}.${owner}.${method}`)
  }
  return { name, tests }
})

const failures = new Map<string, ReadonlyArray<string>>()
let stderr = ""
let database: StageDatabase

/** Runs them all; each line of its output is one test. */
const runAll = async (url: string): Promise<void> => {
  const { command, env } = await findPython()
  // Every client reads the certificates that it trusts, which takes long for a machine's; here nothing is encrypted.
  const certificates = join(stage.directory(), "certificates.pem")
  writeFileSync(certificates, selfSigned)
  const child = spawn(command, ["-m", "tests.report"], { cwd: root, env: { ...env, AUTX_TEST_URL: url, SSL_CERT_FILE: certificates }, stdio: ["ignore", "pipe", "pipe"] })
  stage.onEnd(() => child.kill("SIGKILL"))
  child.stderr.on("data", (text) => { stderr += text })
  createInterface({ input: child.stdout }).on("line", (line) => {
    const { test, failures: found } = JSON.parse(line) as { readonly test: string; readonly failures: ReadonlyArray<string> }
    failures.set(test, found)
  })
  await new Promise((done, refuse) => child.once("error", refuse).once("close", done))
}

beforeAll(async () => {
  database = await stage.database()
  await runAll((await stage.gateway({ ...database.env, SECRETS_KEY: "a secret of at least 32 characters" })).url)
}, 240_000)

describe.each(modules)("the Python SDK, $name", ({ tests }) => {
  it.each(tests.map((id) => ({ id, says: id.split(".test_").at(-1)!.replaceAll("_", " ") })))("$says", ({ id }) => {
    expect(failures.get(id) ?? [`it did not run: ${stderr}`]).toEqual([])
  })
})

describe("the Python SDK", () => {
  it("has no test that is not named above, and complains of nothing", () => {
    expect([...failures.keys()].filter((id) => !modules.some(({ tests }) => tests.includes(id)))).toEqual([])
    expect(stderr).toBe("")
  })

  it("leaves clean books", () => expectCleanBooks(database.sql))
})
