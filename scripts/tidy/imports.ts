/**
 * Finds what a TypeScript module imports: static imports and re-exports, which
 * begin a line as all of ours do, and `import("…")` with a literal. Type-only
 * imports count: a dependency of types is a dependency. A text scan, because the
 * compiler has no stable API for more; strings that look like an import at the
 * start of a line would be taken for one.
 */
export interface Import {
  readonly line: number
  /** As written. */
  readonly specifier: string
  /** The imported names of a static import, as exported there; empty for a whole module. */
  readonly names: ReadonlyArray<string>
}

const fromStatement = /^(?:import|export)\s+(?:type\s+)?([^"'`;]*?)\s*from\s*["']([^"']+)["']/gm
const bareStatement = /^import\s*["']([^"']+)["']/gm
const dynamic = /^(?!\s*(?:\/\/|\*)).*?\bimport\(\s*["']([^"']+)["']/gm

export const importsOf = (text: string): ReadonlyArray<Import> => {
  const found: Array<Import> = []
  const at = (index: number): number => text.slice(0, index).split("\n").length
  for (const match of text.matchAll(fromStatement)) found.push({ line: at(match.index), specifier: match[2]!, names: namesIn(match[1]!) })
  for (const match of text.matchAll(bareStatement)) found.push({ line: at(match.index), specifier: match[1]!, names: [] })
  for (const match of text.matchAll(dynamic)) found.push({ line: at(match.index), specifier: match[1]!, names: [] })
  return found.sort((a, b) => a.line - b.line)
}

/** `{ a, type B, c as d }` → a, B, c. */
const namesIn = (clause: string): ReadonlyArray<string> =>
  (/\{([^}]*)\}/.exec(clause)?.[1] ?? "").split(",").map((name) => name.trim().replace(/^type\s+/, "").replace(/\s+as\s+.*$/s, "")).filter((name) => name !== "")
