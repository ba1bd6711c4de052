/**
 * `node scripts/run.mjs NAME [arguments]`: installs and builds what is missing,
 * then runs `dist/NAME.js` in this very process, so that signals reach it and
 * its exit code is ours.
 */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { build } from "./build.mjs"
import { SetupFailure, fail, root, setup } from "./setup.mjs"

const name = process.argv[2] ?? ""
const program = join(root, "dist", `${name}.js`)

try {
  await setup(name === "tidy" ? "all" : "prod")
  await build()
  if (!/^[\w-]+$/.test(name) || !existsSync(program)) throw new SetupFailure(`there is no program ${JSON.stringify(name)}`)
} catch (cause) {
  fail(cause)
}
process.argv.splice(1, 2, program)
await import(pathToFileURL(program).href)
