/**
 * Makes the package's `dist/`: an ES module for Node and browsers, with the
 * WebSocket client for Node in a file of its own, which bundles for browsers
 * leave out; and declarations, where the TypeScript compiler is installed (a
 * development package of the project). Types are checked elsewhere.
 */
import * as esbuild from "esbuild"
import { execFile } from "node:child_process"
import { existsSync, rmSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const here = dirname(fileURLToPath(import.meta.url))
const compiler = join(here, "../../node_modules/typescript/bin/tsc")

export const buildSdk = async (outdir = join(here, "dist")) => {
  rmSync(outdir, { recursive: true, force: true })
  await esbuild.build({
    absWorkingDir: here,
    entryPoints: ["src/AutxClient.ts", "src/nodeWebSocket.ts", "src/noWebSocket.ts"],
    outdir,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "es2022",
    logLevel: "warning"
  })
  if (existsSync(compiler)) await promisify(execFile)(process.execPath, [compiler, "-p", here, "--noCheck", "--outDir", outdir])
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await buildSdk()
