/**
 * Checks the house rules over the tree it is started in: the direction of
 * imports, packages' homes, sizes, names, words that must not be published. One
 * line a violation, then the count; exit code 1 when there is one. Part of
 * `npm test`; the rules themselves are in tidy/.
 */
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs"
import { join, relative, sep } from "node:path"
import { type SourceFile, violations } from "./tidy/rules.ts"

const places = ["src", "scripts", "test", "bench", "sdk", ".ci", "package.json", "package-lock.json", "README.md", "CHANGELOG.md"]
const text = /\.(?:[cm]?[jt]sx?|json|sql|lua|md|css|html|sh|py|ya?ml|toml)$|^\.ci\/run$|Dockerfile/

const pathsIn = (place: string): ReadonlyArray<string> => {
  if (!existsSync(place)) return []
  if (statSync(place).isFile()) return [place]
  return readdirSync(place, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.parentPath.split(sep).includes("node_modules"))
    .map((entry) => relative(".", join(entry.parentPath, entry.name)).split(sep).join("/"))
    .sort()
}

const files: ReadonlyArray<SourceFile> = places.flatMap(pathsIn).filter((path) => text.test(path)).map((path) => ({ path, text: readFileSync(path, "utf8") }))
const found = violations(files)
for (const { path, line, rule, advice } of found) console.log(`${path}:${line} ${rule} — ${advice}`)
console.log(`tidy: ${files.length} files, ${found.length} violations`)
process.exitCode = found.length > 0 ? 1 : 0
