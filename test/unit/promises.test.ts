import { existsSync, readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"

const promiseHeader = "| The fear | What holds here | The test that shows it |"

interface Promised {
  readonly fear: string
  readonly holds: string
  readonly shown: string
}

/** The rows of every table with that header. */
const promisesIn = (text: string): ReadonlyArray<Promised> => text.split(promiseHeader).slice(1).flatMap((after) => {
  const [, , ...lines] = after.split("\n")
  const end = lines.findIndex((line) => !line.startsWith("|"))
  return lines.slice(0, end).map((line) => {
    const cells = line.split("|").map((cell) => cell.trim())
    expect(cells, line).toHaveLength(5)
    return { fear: cells[1]!, holds: cells[2]!, shown: cells[3]! }
  })
})

interface Reference {
  readonly file: string
  readonly names: Array<string>
}

/** `` `file`: "name", "name"; `file`: "name" `` */
const referencesIn = (shown: string): ReadonlyArray<Reference> => {
  const references: Array<Reference> = []
  for (const [, file, name] of shown.matchAll(/`([^`]*)`|"([^"]*)"/g)) {
    if (file !== undefined) references.push({ file, names: [] })
    else references.at(-1)?.names.push(name!)
  }
  return references
}

/** A title of a test or of a group, or one of a table of titles: as the source writes it. */
const isTitleIn = (source: string, name: string): boolean => {
  const literal = name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
  return new RegExp(`(?:[([]|^\\s*)(["\`])${literal}\\1\\s*[,:]`, "m").test(source)
}

describe("test/README.md", () => {
  const promises = promisesIn(readFileSync("test/README.md", "utf8"))

  it("promises something", () => {
    expect(promises.length).toBeGreaterThanOrEqual(11)
    for (const { fear, holds } of promises) for (const cell of [fear, holds]) expect(cell).not.toBe("")
  })

  it.each(promises)("shows by tests that exist what holds against: $fear", ({ shown }) => {
    const references = referencesIn(shown)
    expect(references.length).toBeGreaterThan(0)
    for (const { file, names } of references) {
      const path = `test/${file}`
      expect(existsSync(path), path).toBe(true)
      const source = readFileSync(path, "utf8")
      expect(source, `${path} leaves tests out`).not.toMatch(/\b(?:it|test|describe)(?:\.\w+)*\.(?:skip|todo|only|skipIf|runIf)\b/)
      expect(names.length, path).toBeGreaterThan(0)
      for (const name of names) expect(isTitleIn(source, name), `${path}: ${name}`).toBe(true)
    }
  })

  it("would notice a test that is gone, renamed or only spoken of", () => {
    const source = "// \"spoken of\", here\nit(\"is there\", () => {})\nit.each([\n  [\"in a table\", 1]\n])(`is ${made}, too`, () => {})\n"
    expect(["is there", "in a table", "is ${made}, too"].filter((name) => !isTitleIn(source, name))).toEqual([])
    expect(["is the", "is there!", "spoken of", "made"].filter((name) => isTitleIn(source, name))).toEqual([])
  })
})
