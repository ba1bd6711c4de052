/**
 * The house rules that a machine can check, as pure functions over paths and
 * texts. `violations` takes the whole tree and answers every broken rule with
 * what to do about it, in the tree's order.
 */
import { dirname } from "node:path/posix"
import { dependencyViolations } from "./dependencies.ts"

export interface SourceFile {
  /** From the project's root, with forward slashes. */
  readonly path: string
  readonly text: string
}

export interface Violation {
  readonly path: string
  readonly line: number
  readonly rule: string
  readonly advice: string
}

export const violations = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Violation> => [
  ...files.flatMap((file) => [...nameViolations(file), ...sizeViolations(file), ...wordViolations(file), ...dependencyViolations(file)]),
  ...folderViolations(files)
]

const linesMax = 400
const filesMax = 16

/** Folders that may hold more, with the reason. */
const filesMaxOf: Readonly<Record<string, number>> = {
  // One file per noun of the gateway; splitting it by layer would hide them.
  "src/kernel": 24,
  // One file per thing that is decided.
  "src/domain": 28,
  // One file per resource of its contract, which has three times as many routes as the others.
  "src/dialects/acf": 18,
  // One file per aggregate, leases among them, and the committer with its parts.
  "src/store": 32
}

const vagueNames = new Set(["utils", "util", "common", "helpers", "helper", "shared", "types", "models", "misc"])

const nameViolations = ({ path }: SourceFile): ReadonlyArray<Violation> => {
  const found = path.split("/").map((part) => part.replace(/\..*$/, "")).find((part) => vagueNames.has(part.toLowerCase()))
  if (found !== undefined) return [{ path, line: 1, rule: "name", advice: `${found} says nothing: name the noun it holds` }]
  if (/(^|\/)index\.[cm]?tsx?$/.test(path) && !/^src\/dialects\/[^/]+\/index\.ts$/.test(path)) return [{ path, line: 1, rule: "barrel", advice: "import the modules themselves; only dialects have an index.ts" }]
  return []
}

const sizeViolations = ({ path, text }: SourceFile): ReadonlyArray<Violation> => {
  if (!/^src\/.*\.ts$/.test(path)) return []
  const lines = text.replace(/\n$/, "").split("\n").length
  return lines > linesMax ? [{ path, line: linesMax + 1, rule: "size", advice: `${lines} lines, ${linesMax} are allowed: a noun is missing` }] : []
}

const folderViolations = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Violation> => {
  const sizes = new Map<string, number>()
  for (const { path } of files) if (path.startsWith("src/")) sizes.set(dirname(path), (sizes.get(dirname(path)) ?? 0) + 1)
  return [...sizes].flatMap(([path, size]) => {
    const max = filesMaxOf[path] ?? filesMax
    return size > max ? [{ path, line: 1, rule: "folder", advice: `${size} files, ${max} are allowed: a noun is missing` }] : []
  })
}

interface Words {
  readonly rule: string
  readonly pattern: RegExp
  readonly applies: (path: string) => boolean
  readonly advice: string
}

const everywhere = (): boolean => true

/** Character classes keep a pattern from matching itself. */
const words: ReadonlyArray<Words> = [
  { rule: "machine-path", pattern: /(?<![\w.:/])\/(?:wor[k]|hom[e]\/\w+|User[s]\/\w+|roo[t])\//, applies: everywhere, advice: "a path of one machine: make it relative, or a setting" },
  { rule: "registry", pattern: /\bregistry\.[\w-]+\.(?:org|com|net|io|dev)\b/, applies: everywhere, advice: "a registry's host: npm knows which one to use" },
  { rule: "unfinished", pattern: /\b(?:TO[D]O|FIXM[E]|XX[X])\b/, applies: everywhere, advice: "finish it, or open an issue and delete the note" },
  { rule: "partial-run", pattern: /\.(?:onl[y]|ski[p]|tod[o]|skipI[f]|runI[f])\s*[.(]/, applies: (path) => path.startsWith("test/"), advice: "every test runs everywhere: make it pass or remove it" }
]

const wordViolations = ({ path, text }: SourceFile): ReadonlyArray<Violation> => {
  const applying = words.filter(({ applies }) => applies(path))
  return text.split("\n").flatMap((line, at) =>
    applying.filter(({ pattern }) => pattern.test(line)).map(({ rule, advice }) => ({ path, line: at + 1, rule, advice })))
}
