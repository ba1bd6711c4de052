/**
 * The launchers in a small project of their own, as processes: what a fresh
 * clone, an update, a second start at the same time and a killed one do. npm is
 * a script here that writes what `npm ci` would, so that no network is needed.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, utimesSync, watch, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

let project: string

beforeEach(() => {
  project = mkdtempSync(join(tmpdir(), "tollgate-launch-"))
  mkdirSync(join(project, "scripts"))
  for (const name of readdirSync("scripts")) if (name.endsWith(".mjs")) cpSync(join("scripts", name), join(project, "scripts", name))
  writeFileSync(join(project, "package.json"), `{"name":"tiny","version":"1.0.0","type":"module"}`)
  mkdirSync(join(project, "src/store/migrations"), { recursive: true })
  writeFileSync(join(project, "src/store/migrations/0001.sql"), "select 1")
  mkdirSync(join(project, "src/cluster/lua"), { recursive: true })
  mkdirSync(join(project, "sdk/typescript/src"), { recursive: true })
  writeFileSync(join(project, "sdk/typescript/src/AutxClient.ts"), "export class AutxClient {}")
})

afterEach(() => rmSync(project, { recursive: true, force: true }))

const started = (args: ReadonlyArray<string>, env: Record<string, string> = {}): { readonly child: ChildProcess; readonly ended: Promise<Ended> } => {
  const child = spawn(process.execPath, [...args], { cwd: project, env: { ...process.env, npm_execpath: "", ...env }, stdio: ["ignore", "pipe", "pipe"] })
  let out = ""
  let err = ""
  child.stdout.on("data", (chunk) => { out += chunk })
  child.stderr.on("data", (chunk) => { err += chunk })
  return { child, ended: new Promise((done) => child.once("close", (code) => done({ code, out, err }))) }
}

describe("setup", () => {
  const lock = (...packages: ReadonlyArray<string>): void => writeFileSync(join(project, "package-lock.json"), JSON.stringify({
    packages: Object.fromEntries(packages.map((name) => [`node_modules/${name}`, { version: "1.0.0", integrity: name, ...(name.startsWith("dev-") ? { dev: true } : {}) }]))
  }))

  /** Installs what the lock file of its prefix names, after it appended a line to `installs`; with `npm-waits` it then hangs. */
  const fakeNpm = (): Record<string, string> => {
    const bin = join(project, "bin")
    mkdirSync(bin)
    writeFileSync(join(bin, "package.json"), `{"type":"commonjs"}`)
    writeFileSync(join(bin, "npm"), `#!${process.execPath}
const fs = require("node:fs"), path = require("node:path")
const args = process.argv.slice(2), prefix = args[args.indexOf("--prefix") + 1]
fs.appendFileSync("installs", args.filter((arg) => arg !== prefix).join(" ") + "\\n")
if (fs.existsSync("npm-fails")) process.exit(7)
const { packages } = JSON.parse(fs.readFileSync(path.join(prefix, "package-lock.json"), "utf8"))
for (const name of Object.keys(packages)) {
  if (packages[name].dev && args.includes("--omit=dev")) { delete packages[name]; continue }
  fs.mkdirSync(path.join(prefix, name), { recursive: true })
  fs.writeFileSync(path.join(prefix, name, "package.json"), "{}")
}
fs.writeFileSync(path.join(prefix, "node_modules/.package-lock.json"), JSON.stringify({ packages }))
if (fs.existsSync("npm-waits")) setInterval(() => {}, 1000)
`)
    chmodSync(join(bin, "npm"), 0o755)
    return { PATH: `${bin}:${process.env["PATH"]}` }
  }

  let env: Record<string, string>
  beforeEach(() => {
    env = fakeNpm()
    lock("one", "dev-two")
  })
  const setup = (need: "prod" | "all") => started(["--input-type=module", "-e", `const { setup, fail } = await import("./scripts/setup.mjs"); await setup("${need}").catch(fail)`], env)
  const installs = (): ReadonlyArray<string> => existsSync(join(project, "installs")) ? readFileSync(join(project, "installs"), "utf8").trim().split("\n") : []
  const installed = (): ReadonlyArray<string> => readdirSync(join(project, "node_modules")).filter((name) => !name.startsWith(".")).sort()

  it("installs once, without development packages and without running their scripts, and says so", async () => {
    const first = await setup("prod").ended
    expect([first.code, first.err]).toEqual([0, "Installing packages (first start, about 20 s)…\n"])
    expect(await setup("prod").ended).toEqual({ code: 0, out: "", err: "" })
    expect(installed()).toEqual(["one"])
    expect(installs()).toHaveLength(1)
    expect(installs()[0]).toMatch(/^ci .*--ignore-scripts.*--omit=dev/)
  })

  it("adds the development packages when they are needed, which then serve both", async () => {
    await setup("prod").ended
    await setup("all").ended
    expect(installed()).toEqual(["dev-two", "one"])
    await setup("prod").ended
    await setup("all").ended
    expect(installs()).toHaveLength(2)
  })

  it("installs again when the lock file changed, and replaces the packages that are gone", async () => {
    await setup("prod").ended
    lock("three")
    await setup("prod").ended
    expect(installed()).toEqual(["three"])
  })

  it("leaves a developer's own install alone when it holds what is needed, and only then", async () => {
    await setup("all").ended
    rmSync(join(project, "node_modules/.tollgate-setup"))
    await setup("all").ended
    expect(installs()).toHaveLength(1)
    rmSync(join(project, "node_modules/dev-two"), { recursive: true })
    await setup("prod").ended
    expect(installs()).toHaveLength(1)
    await setup("all").ended
    expect(installs()).toHaveLength(2)
  })

  it("believes its stamp only as long as npm has not been there again", async () => {
    await setup("all").ended
    writeFileSync(join(project, "node_modules/.package-lock.json"), JSON.stringify({ packages: {} }))
    await setup("prod").ended
    expect(installs()).toHaveLength(2)
  })

  it("run three times at once installs once", async () => {
    const ends = await Promise.all([setup("prod"), setup("prod"), setup("prod")].map(({ ended }) => ended))
    expect(ends.map(({ code }) => code)).toEqual([0, 0, 0])
    expect(installs()).toHaveLength(1)
    expect(readdirSync(join(project, ".cache"))).toEqual([])
  })

  it("killed in the middle leaves the packages before it, and the next one takes over", async () => {
    await setup("prod").ended
    lock("three")
    writeFileSync(join(project, "npm-waits"), "")
    const waiting = new Promise<void>((done) => {
      const watcher = watch(project, (_, name) => {
        if (name !== "installs") return
        watcher.close()
        done()
      })
    })
    const victim = setup("prod")
    await waiting
    victim.child.kill("SIGTERM")
    expect(await victim.ended).toMatchObject({ code: 1 })
    expect(installed()).toEqual(["one"])
    rmSync(join(project, "npm-waits"))
    // What kill -9 leaves: a lock that nobody touches any more.
    mkdirSync(join(project, ".cache/setup.lock"))
    utimesSync(join(project, ".cache/setup.lock"), 0, 0)
    expect((await setup("prod").ended).code).toBe(0)
    expect(installed()).toEqual(["three"])
  })

  it("says in one line that npm failed, or is missing", async () => {
    writeFileSync(join(project, "npm-fails"), "")
    const failed = await setup("prod").ended
    expect([failed.code, failed.err.split("\n").at(-2)]).toEqual([1, "tollgate: npm ci failed (7); its reason is above"])
    env = { PATH: join(project, "nothing") }
    const missing = await setup("prod").ended
    expect([missing.code, missing.err.split("\n").at(-2)]).toEqual([1, "tollgate: npm was not found on PATH"])
  })

  it("refuses an old Node in one line", async () => {
    const old = await started(["--input-type=module", "-e", `Object.defineProperty(process.versions, "node", { value: "20.18.0" }); const { setup, fail } = await import("./scripts/setup.mjs"); await setup("prod").catch(fail)`], env).ended
    expect(old).toEqual({ code: 1, out: "", err: "tollgate: Node 20.18.1 or newer is needed, this is 20.18.0\n" })
  })
})

describe("run", () => {
  const main = (text: string): void => writeFileSync(join(project, "src/main.ts"), text)
  const run = (...args: ReadonlyArray<string>) => started(["scripts/run.mjs", ...args])
  const builtAt = (): number => statSync(join(project, "dist/main.js")).mtimeMs

  beforeEach(() => {
    cpSync("package-lock.json", join(project, "package-lock.json"))
    symlinkSync(resolve("node_modules"), join(project, "node_modules"))
    writeFileSync(join(project, "scripts/other.ts"), `console.log("other")`)
    main(`import { Option } from "effect"\nconst words: ReadonlyArray<string> = process.argv.slice(2)\nconsole.log(Option.some(words.join()).value, new URL("./migrations/", import.meta.url).pathname)`)
  })

  it("builds and runs a program with its arguments, beside the migrations", async () => {
    const { code, out } = await run("main", "a", "--b").ended
    expect([code, out]).toEqual([0, `a,--b ${join(project, "dist/migrations")}/\n`])
    expect(readFileSync(join(project, "dist/migrations/0001.sql"), "utf8")).toBe("select 1")
    expect((await run("other").ended).out).toBe("other\n")
  })

  it("builds again when a source changed, not before", async () => {
    await run("main").ended
    const first = builtAt()
    await run("main").ended
    expect(builtAt()).toBe(first)
    main(`console.log("changed")`)
    rmSync(join(project, "scripts/other.ts"))
    expect((await run("main").ended).out).toBe("changed\n")
    expect(readdirSync(join(project, "dist")).sort()).toEqual([".build", "chatClient.js", "lua", "main.js", "main.js.map", "migrations"])
  })

  it("keeps the last build and says one line when a source is broken", async () => {
    await run("main").ended
    const first = builtAt()
    main("const = 1")
    const broken = await run("main").ended
    expect([broken.code, broken.err.split("\n").at(-2)]).toEqual([1, "tollgate: the build failed; its errors are above"])
    expect(builtAt()).toBe(first)
  })

  it("three times at the same time runs three times", async () => {
    const ends = await Promise.all([run("main", "x"), run("main", "y"), run("main", "z")].map(({ ended }) => ended))
    expect(ends.map(({ code, out }) => [code, out[0]])).toEqual([[0, "x"], [0, "y"], [0, "z"]])
  })

  it("is the program: signals reach it and its exit code is the process's", async () => {
    main(`process.once("SIGINT", () => process.exit(42))\nsetInterval(() => {}, 1000)\nconsole.log("up")`)
    const { child, ended } = run("main")
    await new Promise((done) => child.stdout!.once("data", done))
    child.kill("SIGINT")
    expect((await ended).code).toBe(42)
  })

  it("names a program that does not exist, and none outside dist", async () => {
    expect(await run("nobody").ended).toMatchObject({ code: 1, err: `tollgate: there is no program "nobody"\n` })
    expect(await run("../scripts/run").ended).toMatchObject({ code: 1, err: `tollgate: there is no program "../scripts/run"\n` })
  })
})
