/**
 * `npm run bench [-- scenarios and options]`: installs and builds what is
 * missing (the development packages too: the yardstick is made of one), bundles
 * the bench beside the gateway, and runs it in this process. The bundle is one
 * run's own, so that two runs don't meet.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { join, relative } from "node:path"
import { pathToFileURL } from "node:url"
import { build } from "../scripts/build.mjs"
import { fail, root, setup } from "../scripts/setup.mjs"

process.chdir(root)
let folder
try {
  await setup("all")
  await build()
  mkdirSync(join(root, ".cache"), { recursive: true })
  folder = mkdtempSync(join(root, ".cache", "bench-"))
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }))
  await bundle()
} catch (cause) {
  fail(cause)
}
process.argv[1] = join(folder, "bench.js")
await import(pathToFileURL(process.argv[1]).href)

/** Packages stay in node_modules: what is measured here must not depend on how the bench was bundled. */
async function bundle() {
  const esbuild = await import("esbuild")
  const programs = ["programs", "micro"].flatMap((name) => readdirSync(join(root, "bench", name)).map((file) => join("bench", name, file)))
  await esbuild.build({
    absWorkingDir: root, entryPoints: ["bench/bench.ts", ...programs], outbase: "bench", outdir: relative(root, folder),
    bundle: true, packages: "external", format: "esm", platform: "node", target: "node20", logLevel: "warning"
  })
}
