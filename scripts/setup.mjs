/**
 * Makes a fresh clone runnable: checks Node, and installs the packages when they
 * are missing or not those of package-lock.json. Uses Node's own modules only,
 * because it runs before any package exists.
 *
 * Guarantee: when `setup` returns, node_modules holds exactly what
 * package-lock.json asks for ("prod": without the development packages; "all"
 * satisfies both). Packages are installed aside and renamed into place, so an
 * install that is interrupted leaves the one before it, and a gateway that is
 * just loading its packages misses none. Two at once wait for each other.
 * Nothing to do costs three small reads and no write, so an image with a
 * read-only tree starts too.
 */
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { withLock } from "./lock.mjs"

export const root = dirname(dirname(fileURLToPath(import.meta.url)))
const lockfile = join(root, "package-lock.json")
const modules = join(root, "node_modules")
/** npm's own record of what it put there; every npm command rewrites it. */
const record = join(modules, ".package-lock.json")
const stamp = join(modules, ".tollgate-setup")
const oldestNode = [20, 18, 1]

/** One line for the operator; `fail` prints it and ends the process. */
export class SetupFailure extends Error {}

/** Ends the process after one line that says what is wrong; anything unforeseen keeps its stack. */
export const fail = (cause) => {
  console.error(cause instanceof SetupFailure ? `tollgate: ${cause.message}` : cause)
  process.exit(1)
}

export const setup = async (need) => {
  checkNode(process.versions.node)
  if (satisfies(installed(), need)) return
  await withLock(join(root, ".cache", "setup.lock"), async () => {
    if (!satisfies(installed(), need)) await install(need)
  })
}

const checkNode = (version) => {
  const [major, minor, patch] = version.split(".").map(Number)
  const [a, b, c] = oldestNode
  if (major > a || (major === a && (minor > b || (minor === b && patch >= c)))) return
  throw new SetupFailure(`Node ${oldestNode.join(".")} or newer is needed, this is ${version}`)
}

const satisfies = (have, need) => have === "all" || have === need

/** "all", "prod" or undefined. */
const installed = () => {
  if (!existsSync(record)) return undefined
  const [proof, kind] = existsSync(stamp) ? readFileSync(stamp, "utf8").split(" ") : []
  if (proof === currentProof()) return kind
  return ["all", "prod"].find(holdsEverything)
}

/** Both files' contents: a `git pull` changes the first, any npm command the second. */
const currentProof = () => createHash("sha256").update(readFileSync(lockfile)).update(readFileSync(record)).update(`${process.platform}-${process.arch}`).digest("hex")

/** For a developer's own `npm install`: every package that is asked for is there, in the locked version. */
const holdsEverything = (kind) => {
  const wanted = JSON.parse(readFileSync(lockfile, "utf8")).packages
  const found = JSON.parse(readFileSync(record, "utf8")).packages
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === "" || (kind === "prod" && entry.dev) || !isForThisMachine(entry)) return true
    return found[path]?.version === entry.version && found[path].integrity === entry.integrity && existsSync(join(root, path, "package.json"))
  })
}

/** npm decides about optional packages; those that name this machine are needed (the database, native builds). */
const isForThisMachine = ({ optional, os, cpu, libc }) =>
  !optional || (os?.includes(process.platform) && cpu?.includes(process.arch) && libc === undefined)

const install = async (need) => {
  console.error(`Installing packages${existsSync(record) ? "" : " (first start, about 20 s)"}…`)
  const started = Date.now()
  const pulse = setInterval(() => console.error(`  still installing, ${Math.round((Date.now() - started) / 1000)} s…`), 10_000)
  const aside = join(root, ".cache", `install-${process.pid}`)
  try {
    removeAbandoned()
    mkdirSync(aside)
    for (const name of ["package.json", "package-lock.json", ".npmrc"]) if (existsSync(join(root, name))) copyFileSync(join(root, name), join(aside, name))
    await npm(["ci", "--prefix", aside, "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error", "--include=optional", need === "all" ? "--include=dev" : "--omit=dev"])
    moveInto(aside)
    writeFileSync(stamp, `${currentProof()} ${need}`)
  } finally {
    clearInterval(pulse)
    removeAbandoned()
  }
}

const moveInto = (aside) => {
  try {
    if (existsSync(modules)) renameSync(modules, join(aside, "before"))
  } catch {
    rmSync(modules, { recursive: true }) // A layer of an image, for one, can be removed but not renamed.
  }
  renameSync(join(aside, "node_modules"), modules)
}

/** Ours and those of killed starts. Where an orphaned npm is still writing, some of it stays until next time. */
const removeAbandoned = () => {
  const cache = join(root, ".cache")
  for (const name of readdirSync(cache)) {
    try {
      if (name.startsWith("install-")) rmSync(join(cache, name), { recursive: true })
    } catch {}
  }
}

/** Under `npm start` npm says where it is; else it is the one on PATH. Its output goes to standard error. */
const npm = (args) => new Promise((done, refuse) => {
  const cli = process.env.npm_execpath
  const [command, ...before] = /npm-cli\.c?js$/.test(cli ?? "") ? [process.execPath, cli] : ["npm"]
  const child = spawn(command, [...before, ...args], { cwd: root, stdio: ["ignore", 2, 2] })
  const onSignal = (signal) => child.kill(signal)
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"]
  for (const signal of signals) process.on(signal, onSignal)
  const settle = (act) => {
    for (const signal of signals) process.off(signal, onSignal)
    act()
  }
  child.once("error", (cause) => settle(() => refuse(new SetupFailure(cause.code === "ENOENT" ? "npm was not found on PATH" : `npm did not start: ${cause.message}`))))
  child.once("exit", (code, signal) => settle(() => code === 0 ? done() : refuse(new SetupFailure(`npm ${args[0]} failed (${signal ?? code}); its reason is above`))))
})
