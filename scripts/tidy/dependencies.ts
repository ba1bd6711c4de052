/**
 * Who may import whom, as tables: the direction between the folders of src/,
 * and the one home of each third-party package. Everything may import domain,
 * config and telemetry; domain itself is pure.
 */
import { dirname, join } from "node:path/posix"
import { builtinModules } from "node:module"
import { importsOf } from "./imports.ts"
import type { SourceFile, Violation } from "./rules.ts"

/** Beside itself, domain, config and telemetry. */
const mayImport: Readonly<Record<string, ReadonlyArray<string>>> = {
  domain: [],
  config: [],
  telemetry: [],
  store: [],
  cluster: [],
  payments: [],
  mail: [],
  runtime: [],
  actor: ["cluster"],
  kernel: ["actor", "cluster", "store", "payments", "mail", "runtime"],
  // Pages are text about what the kernel says; http serves them, and a dialect's rows its own.
  web: ["kernel"],
  // Calls are passed on to the node that owns their account.
  http: ["kernel", "web", "cluster"],
  dialects: ["http", "web", "kernel"]
}

const forAll = new Set(["domain", "config", "telemetry"])

/** Where each package is spoken to; elsewhere its types and errors are ours. */
const homes: Readonly<Record<string, RegExp>> = {
  "effect": /^src\//,
  "@effect/platform-node-shared": /^src\/cluster\//,
  "uWebSockets.js": /^src\/http\//,
  "postgres": /^src\/store\/Postgres\.ts$/,
  "ioredis": /^src\/cluster\/Redis\.ts$/,
  "msgpackr": /^src\/cluster\/Wire\.ts$/,
  "nanoid": /^src\/kernel\/Ids\.ts$/,
  "jose": /^src\/kernel\/identity\/Tokens\.ts$/,
  "@node-rs/argon2": /^src\/kernel\/identity\/Passwords\.ts$/,
  "lossless-json": /^src\/http\/body\.ts$/,
  "nodemailer": /^src\/mail\/Smtp\.ts$/,
  "pdfkit": /^src\/mail\/Receipt\.ts$/,
  "pino": /^src\/telemetry\/log\.ts$/,
  "prom-client": /^src\/telemetry\/Metrics\.ts$/
}

/** What of `effect` is data and pure functions; the rest runs, waits, or reads the world. */
const effectData = new Set(["Array", "BigDecimal", "BigInt", "Brand", "Chunk", "Data", "DateTime", "Duration", "Equal", "Equivalence", "HashMap", "HashSet", "Match", "Number", "Option", "Order", "Predicate", "Record", "Result", "Schema", "String", "Struct", "Tuple", "flow", "identity", "pipe"])

const builtin = new Set(builtinModules)

/** Every import of a module in src/ that goes against the direction, or leaves a package's home. */
export const dependencyViolations = ({ path, text }: SourceFile): ReadonlyArray<Violation> => {
  if (!/^src\/.*\.ts$/.test(path)) return []
  return importsOf(text).flatMap(({ line, specifier, names }) => {
    const advice = specifier.startsWith(".") ? adviceOnModule(path, specifier) : adviceOnPackage(path, specifier, names)
    return advice === undefined ? [] : [{ path, line, rule: "dependency", advice }]
  })
}

const adviceOnModule = (path: string, specifier: string): string | undefined => {
  const target = join(dirname(path), specifier)
  if (isRoot(path)) return undefined
  const from = folderOf(path)
  const to = folderOf(target)
  if (!target.startsWith("src/")) return `${from} may not leave src/ for ${specifier}: move the module into src/`
  if (isRoot(target)) return `${specifier} assembles the gateway, so nobody imports it: move what is needed to the folder that owns it`
  if (from === "dialects" && to === "dialects" && path.split("/")[2] !== target.split("/")[2]) return "dialects never import each other: what two of them need belongs in kernel or http"
  if (from === to) return undefined
  if (from === "domain") return `domain is pure and imports only itself, not ${to}: pass the value in`
  if (forAll.has(to) && from !== "config") return undefined
  if (from === "config" && to === "domain") return undefined
  const allowed = mayImport[from]
  if (allowed === undefined) return `src/${from} has no place in the dependency rule: add it to scripts/tidy/dependencies.ts`
  return allowed.includes(to) ? undefined : `${from} may not import ${to} (it may: ${[...allowed, ...forAll].join(", ")}): turn the dependency around`
}

const adviceOnPackage = (path: string, specifier: string, names: ReadonlyArray<string>): string | undefined => {
  const pure = path.startsWith("src/domain/")
  if (specifier.startsWith("node:") || builtin.has(specifier)) {
    if (pure) return `domain is pure and may not import ${specifier}: pass the value in`
    return specifier.startsWith("node:") ? undefined : `write node:${specifier}`
  }
  const name = specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/")
  const home = homes[name]
  if (home === undefined) return `${name} has no home: add it to scripts/tidy/dependencies.ts`
  if (!home.test(path)) return `${name} lives in ${home.source.replaceAll("\\", "").replace(/[$^]/g, "")}: use what that exports`
  if (!pure) return undefined
  const running = specifier === name ? names.filter((each) => !effectData.has(each)) : [specifier]
  return running.length === 0 ? undefined : `domain may use only effect's data modules, not ${running.join(", ")}: decide here, act in kernel`
}

/** The composition root: what lies directly in src/ assembles the rest and may import anything. */
const isRoot = (path: string): boolean => /^src\/[^/]+\.ts$/.test(path) && path !== "src/config.ts"

/** src/kernel/Relay.ts → kernel; src/config.ts → config. */
const folderOf = (path: string): string => path.split("/")[1]?.replace(/\.ts$/, "") ?? ""
