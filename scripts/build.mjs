/**
 * Bundles `src/main.ts` and every `scripts/*.ts` to `dist/<name>.js`, when a
 * source changed since the last build. `npm run build` makes the TypeScript SDK's
 * package too.
 *
 * Every entry is one file directly in dist/, without shared chunks: an entry is
 * replaced by one rename, and a gateway that runs from dist/ never comes back
 * for a piece of code that a later build removed. It also keeps
 * `new URL("./migrations/", import.meta.url)` and `"./lua/"` true: in the sources it is
 * src/store/migrations, in a bundle its copy, dist/migrations; the same for
 * src/cluster/lua. Packages are
 * bundled too: as some thousand files they cost the start 0.3 s more. Native ones
 * stay in node_modules.
 *
 * Guarantee: dist/ holds a whole build or the one before it, file by file;
 * builds wait for each other; the stamp goes first and comes last, so that an
 * interrupted build is repeated. `dist/.build` holds the hash of every source's content.
 */
import { createHash } from "node:crypto"
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { basename, join, relative } from "node:path"
import { withLock } from "./lock.mjs"
import { SetupFailure, fail, root, setup } from "./setup.mjs"

const dist = join(root, "dist")
const stamp = join(dist, ".build")
/** Native code, the compiler itself, and what reads its fonts from its own folder. */
const outside = ["uWebSockets.js", "@node-rs/argon2", "esbuild", "pdfkit"]

/** What programs read beside themselves: from where in the sources, to where in dist/. */
const readAtRun = { "src/store/migrations": "migrations", "src/cluster/lua": "lua" }

export const build = async () => {
  if (isCurrent(fingerprint())) return
  await withLock(join(root, ".cache", "build.lock"), async () => {
    const sources = fingerprint()
    if (isCurrent(sources)) return
    const fresh = join(root, ".cache", "build")
    rmSync(fresh, { recursive: true, force: true })
    await bundle(fresh)
    for (const [from, to] of Object.entries(readAtRun)) cpSync(join(root, from), join(fresh, to), { recursive: true })
    rmSync(stamp, { force: true })
    replace(fresh, dist)
    writeFileSync(stamp, sources)
    rmSync(fresh, { recursive: true })
  })
}

const isCurrent = (sources) => existsSync(stamp) && readFileSync(stamp, "utf8") === sources

/** Contents, not times: a checkout changes times without changing code. About 5 ms. */
const fingerprint = () => {
  const hash = createHash("sha256")
  for (const file of ["package-lock.json", ...filesIn("src"), ...filesIn("scripts"), ...filesIn("sdk/typescript/src")]) hash.update(`${file}\0`).update(readFileSync(join(root, file))).update("\0")
  return hash.digest("hex")
}

const filesIn = (folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => relative(root, join(entry.parentPath, entry.name)))
  .sort()

const bundle = async (outdir) => {
  const esbuild = await import("esbuild")
  const scripts = readdirSync(join(root, "scripts")).filter((name) => name.endsWith(".ts")).map((name) => join("scripts", name))
  await esbuild.build({
    absWorkingDir: root,
    entryPoints: ["src/main.ts", ...scripts].map((path) => ({ in: path, out: basename(path, ".ts") })),
    outdir,
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    sourcemap: "linked",
    // A third less to parse at every start; names stay, for stack traces.
    minifyWhitespace: true,
    minifySyntax: true,
    sourcesContent: false,
    logLevel: "warning",
    external: outside,
    // What was CommonJS still asks for Node's modules by `require`.
    banner: { js: `import { createRequire as requireAt } from "node:module"; const require = requireAt(import.meta.url);` }
  }).catch(failed)
  // The SDK for the chat page; the WebSocket client for Node stays out of it.
  await esbuild.build({
    absWorkingDir: root, entryPoints: [{ in: "sdk/typescript/src/AutxClient.ts", out: "chatClient" }], outdir, bundle: true, format: "esm",
    platform: "browser", target: "es2022", minify: true, logLevel: "warning"
  }).catch(failed)
}

const failed = () => {
  throw new SetupFailure("the build failed; its errors are above")
}

/** Each file by one rename; what this build did not make goes last. */
const replace = (from, to) => {
  mkdirSync(to, { recursive: true })
  const made = readdirSync(from, { withFileTypes: true })
  for (const entry of made) {
    if (entry.isDirectory()) replace(join(from, entry.name), join(to, entry.name))
    else renameSync(join(from, entry.name), join(to, entry.name))
  }
  const names = new Set(made.map((entry) => entry.name))
  for (const name of readdirSync(to)) if (!names.has(name)) rmSync(join(to, name), { recursive: true })
}

if (basename(process.argv[1] ?? "") === "build.mjs") await setup("prod").then(build).then(() => import("../sdk/typescript/build.mjs")).then(({ buildSdk }) => buildSdk()).catch(fail)
