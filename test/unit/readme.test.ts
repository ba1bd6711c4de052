/** README says what is so: its tables and commands are compared with what they describe. */
import { existsSync, readFileSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { readSettings } from "../../src/config.ts"
import { autx } from "../../src/dialects/autx/index.ts"

const readme = readFileSync("README.md", "utf8")

const section = (title: string): string => {
  const found = readme.split(/^(?=##+ )/m).find((text) => text.startsWith(`## ${title}\n`))
  if (found === undefined) throw new Error(`README has no section ${title}`)
  return found
}
/** Cells of a section's tables, without their head lines. */
const rows = (title: string): ReadonlyArray<ReadonlyArray<string>> =>
  section(title).split("\n").filter((line) => line.startsWith("| `")).map((line) => line.slice(1, -1).split(" | ").map((cell) => cell.trim()))
const codeIn = (text: string): ReadonlyArray<string> => [...text.replace(/^```[^]*?^```$/gm, "").matchAll(/`([^`]+)`/g)].map(([, code]) => code!)

/** Every name that the settings are read by, in the source or when they are read. */
const readNames = (): ReadonlySet<string> => {
  const names = new Set([...readFileSync("src/config.ts", "utf8").matchAll(/"([A-Z][A-Z0-9_]+)"/g)].map(([, name]) => name!))
  readSettings(new Proxy({}, {
    get: (_, name) => void names.add(String(name))
  }))
  return names
}

describe("README", () => {
  it("lists every setting that is read, and no other", () => {
    const read = readNames()
    const listed = rows("Settings").map(([name]) => codeIn(name!)[0]!)
    expect(listed.toSorted()).toEqual([...read].filter((name) => !name.endsWith("_FILE")).toSorted())
    const fromFiles = /^All are .*$/m.exec(section("Settings"))![0].split(" can also be read from a file")[0]!
    expect(codeIn(fromFiles).map((name) => `${name}_FILE`).toSorted()).toEqual([...read].filter((name) => name.endsWith("_FILE")).toSorted())
  })

  it("gives defaults that are the defaults", () => {
    const shown = rows("Settings").map(([name, value]) => [codeIn(name!)[0]!, codeIn(value!)[0]] as const).filter(([, value]) => value !== undefined)
    expect(shown.length).toBeGreaterThan(7)
    for (const [name, value] of shown) expect(readSettings({ [name]: value!.replace("PORT", "8080") }), name).toEqual(readSettings({}))
  })

  it("gives ranges and choices that are allowed, and nothing beyond them is", () => {
    for (const [nameCell, , allowed] of rows("Settings")) {
      const name = codeIn(nameCell!)[0]!
      const [, least, most] = /^(\d+)–(\d+)$/.exec(allowed!) ?? []
      const good = least !== undefined ? [least, most!] : /^[a-z]+(, [a-z]+)+$/.test(allowed!) ? allowed!.split(", ") : []
      const bad = least !== undefined ? [String(Number(least) - 1), String(Number(most) + 1)] : good.length > 0 ? ["neither"] : []
      for (const value of good) expect(() => readSettings({ [name]: value }), `${name}=${value}`).not.toThrow()
      for (const value of bad) expect(() => readSettings({ [name]: value }), `${name}=${value}`).toThrow(name)
    }
  })

  it("names commands that exist", () => {
    const { scripts } = JSON.parse(readFileSync("package.json", "utf8")) as { readonly scripts: Readonly<Record<string, string>> }
    const named = [...readme.matchAll(/(?:^|`)npm (?:run )?([a-z:-]+)/gm)].map(([, name]) => name!).filter((name) => name !== "install")
    expect(named).toEqual(expect.arrayContaining(["start", "test", "credit", "suspend", "audit", "migrate"]))
    for (const name of named) expect(scripts, name).toHaveProperty(name)
    for (const script of Object.values(scripts)) {
      const [, program] = /run\.mjs ([\w-]+)/.exec(script) ?? []
      if (program !== undefined && program !== "main") expect(existsSync(`scripts/${program}.ts`), program).toBe(true)
    }
  })

  it("lists every route that is not there yet, and no other", () => {
    const listed = rows("Not there yet").flatMap(([routes]) => codeIn(routes!))
    const later = autx.rows.filter(({ errors }) => errors.includes("NotImplemented")).map((row) => `${row.kind === "socket" ? "WS" : row.method} ${row.path}`)
    expect(listed.toSorted()).toEqual(later.toSorted())
  })

  it("names files that exist", () => {
    const paths = codeIn(readme).filter((code) => /^(?:src|test|scripts)\//.test(code))
    expect(paths.length).toBeGreaterThan(20)
    for (const path of paths) expect(existsSync(path), path).toBe(true)
    for (const [, target] of readme.matchAll(/\]\(([A-Z][^)]*)\)/g)) expect(existsSync(target!), target).toBe(true)
  })

  it("lists every metric that there is, and no other", () => {
    const sources = readdirSync("src", { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".ts")).map((path) => readFileSync(join("src", path), "utf8")).join()
    const made = [...sources.matchAll(/\b(?:counter|histogram|gauge)\("(\w+)"/g)].map(([, name]) => name!)
    const named = [...readme.matchAll(/tollgate_\w+/g)].map(([name]) => name.replace(/_bucket$/, ""))
    expect([...new Set(named)].toSorted()).toEqual(made.toSorted())
  })
})
