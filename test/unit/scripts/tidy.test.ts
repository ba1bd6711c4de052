import { describe, expect, it } from "vitest"
import { importsOf } from "../../../scripts/tidy/imports.ts"
import { violations } from "../../../scripts/tidy/rules.ts"

const rulesOf = (path: string, text: string): ReadonlyArray<string> => violations([{ path, text }]).map((each) => `${each.line} ${each.rule}`)
const importing = (path: string, specifier: string): ReadonlyArray<string> => rulesOf(path, `import { x } from "${specifier}"\n`)

describe("tidy reads imports", () => {
  it("of every form, with their line and exported names", () => {
    const text = [
      `/** import { a } from "comment" */`,
      `import postgres from "postgres"`,
      `import type {`,
      `  A,`,
      `  type B as C`,
      `} from "./a.ts"`,
      `import * as effect from "effect"`,
      `import "./effects.ts"`,
      `export { d } from './d.ts'`,
      `export * from "./e.ts"`,
      `const later = () => import("./f.ts")`,
      ` * import("./no.ts")`,
      `export const word = "from"`
    ].join("\n")
    expect(importsOf(text)).toEqual([
      { line: 2, specifier: "postgres", names: [] },
      { line: 3, specifier: "./a.ts", names: ["A", "B"] },
      { line: 7, specifier: "effect", names: [] },
      { line: 8, specifier: "./effects.ts", names: [] },
      { line: 9, specifier: "./d.ts", names: ["d"] },
      { line: 10, specifier: "./e.ts", names: [] },
      { line: 11, specifier: "./f.ts", names: [] }
    ])
  })

  it("and no sentence of an exported text", () => {
    expect(importsOf("export const advice = `take it from \"here\"`\n")).toEqual([])
  })
})

describe("tidy keeps the direction of imports", () => {
  it.each([
    ["src/main.ts", "./http/Server.ts"],
    ["src/main.ts", "./gateway.ts"],
    ["src/gateway.ts", "./kernel/Relay.ts"],
    ["src/dialects/autx/index.ts", "../../kernel/Relay.ts"],
    ["src/dialects/autx/keys.ts", "./wire.ts"],
    ["src/http/serve.ts", "../kernel/Relay.ts"],
    ["src/kernel/Relay.ts", "../store/Committer.ts"],
    ["src/kernel/rows/Relay.ts", "../../store/Committer.ts"],
    ["src/actor/Directory.ts", "../cluster/Placement.ts"],
    ["src/store/Postgres.ts", "../domain/errors.ts"],
    ["src/store/Postgres.ts", "../config.ts"],
    ["src/telemetry/log.ts", "../config.ts"],
    ["src/config.ts", "./domain/credits.ts"],
    ["scripts/audit.ts", "../src/store/Postgres.ts"]
  ])("%s may import %s", (path, specifier) => {
    expect(importing(path, specifier)).toEqual([])
  })

  it.each([
    ["src/domain/ledger.ts", "../config.ts"],
    ["src/domain/ledger.ts", "../telemetry/log.ts"],
    ["src/domain/ledger.ts", "node:crypto"],
    ["src/actor/Actor.ts", "../kernel/AccountActor.ts"],
    ["src/store/Committer.ts", "../cluster/Redis.ts"],
    ["src/kernel/Relay.ts", "../http/serve.ts"],
    ["src/dialects/autx/keys.ts", "../acf/wire.ts"],
    ["src/dialects/autx/keys.ts", "../../store/Postgres.ts"],
    ["src/config.ts", "./telemetry/log.ts"],
    ["src/kernel/Relay.ts", "../main.ts"],
    ["src/kernel/Relay.ts", "../gateway.ts"],
    ["src/config.ts", "./gateway.ts"],
    ["src/kernel/Relay.ts", "../../scripts/tidy.ts"],
    ["src/kernel/Relay.ts", "../newcomer/Thing.ts"],
    ["src/newcomer/Thing.ts", "../kernel/Relay.ts"]
  ])("%s may not import %s", (path, specifier) => {
    expect(importing(path, specifier)).toEqual(["1 dependency"])
  })

  it("for type imports too", () => {
    expect(rulesOf("src/store/Postgres.ts", `\nimport type { A } from "../kernel/Relay.ts"`)).toEqual(["2 dependency"])
  })
})

describe("tidy keeps each package in its home", () => {
  it.each([
    ["src/store/Postgres.ts", "postgres"],
    ["src/http/Server.ts", "uWebSockets.js"],
    ["src/kernel/identity/Passwords.ts", "@node-rs/argon2"],
    ["src/kernel/Relay.ts", "effect/http"],
    ["src/kernel/Relay.ts", "node:fs"],
    ["test/support/postgres.ts", "postgres"]
  ])("%s may import %s", (path, specifier) => {
    expect(importing(path, specifier)).toEqual([])
  })

  it.each([
    ["src/store/LedgerStore.ts", "postgres"],
    ["src/kernel/Relay.ts", "undici"],
    ["src/dialects/autx/keys.ts", "uWebSockets.js"],
    ["src/kernel/Relay.ts", "left-pad"],
    ["src/kernel/Relay.ts", "fs"],
    ["src/domain/session.ts", "effect/http"]
  ])("%s may not import %s", (path, specifier) => {
    expect(importing(path, specifier)).toEqual(["1 dependency"])
  })

  it("and effect's running parts out of domain", () => {
    expect(rulesOf("src/domain/a.ts", `import { Option, Schema, type Brand } from "effect"`)).toEqual([])
    expect(rulesOf("src/domain/a.ts", `import { Effect, Schema } from "effect"`)).toEqual(["1 dependency"])
  })
})

describe("tidy bounds files and folders", () => {
  it("allows 400 lines in src, not 401", () => {
    const lines = (count: number): string => "x\n".repeat(count)
    expect(rulesOf("src/kernel/A.ts", lines(400))).toEqual([])
    expect(rulesOf("src/kernel/A.ts", lines(401))).toEqual(["401 size"])
    expect(rulesOf("test/unit/a.test.ts", lines(401))).toEqual([])
  })

  it("allows 16 files in a folder of src, more where the table says why", () => {
    const folder = (path: string, count: number): ReadonlyArray<string> =>
      violations(Array.from({ length: count }, (_, at) => ({ path: `${path}/File${at}.ts`, text: "" }))).map((each) => `${each.path} ${each.rule}`)
    expect(folder("src/http", 16)).toEqual([])
    expect(folder("src/http", 17)).toEqual(["src/http folder"])
    expect(folder("src/kernel", 17)).toEqual([])
    expect(folder("test/unit", 40)).toEqual([])
  })
})

describe("tidy refuses names that say nothing", () => {
  it.each(["src/kernel/utils.ts", "src/shared/Thing.ts", "test/helpers/world.ts", "scripts/misc.mjs", "src/http/types.d.ts"])("%s", (path) => {
    expect(rulesOf(path, "")).toContain("1 name")
  })

  it("and barrels, but a dialect's own index", () => {
    expect(rulesOf("src/kernel/index.ts", "")).toEqual(["1 barrel"])
    expect(rulesOf("src/dialects/autx/index.ts", "")).toEqual([])
    expect(rulesOf("src/dialects/index.ts", "")).toEqual(["1 barrel"])
  })
})

describe("tidy refuses words that must not be published", () => {
  // Put together here, so that this file does not contain them.
  const join = (...parts: ReadonlyArray<string>): string => parts.join("")

  it.each([
    ["machine-path", "src/a.ts", join("read(\"/wo", "rk/x\")")],
    ["machine-path", "README.md", join("cd /ho", "me/me/x")],
    ["registry", "README.md", join("https://regis", "try.npmjs.org/x")],
    ["registry", "package-lock.json", join("https://regis", "try.example.com/x")],
    ["unfinished", "src/a.ts", join("// TO", "DO: more")],
    ["partial-run", "test/a.test.ts", join("it.on", "ly(\"x\")")],
    ["partial-run", "test/a.test.ts", join("describe.sk", "ip(\"x\")")],
    ["partial-run", "test/a.test.ts", join("it.effect.sk", "ip(\"x\")")],
    ["partial-run", "test/a.test.ts", join("it.to", "do(\"x\")")]
  ])("%s in %s", (rule, path, line) => {
    expect(rulesOf(path, `fine\n${line}\n`)).toEqual([`2 ${rule}`])
  })

  it.each([
    ["src/a.ts", join("stream.sk", "ip(1)")],
    ["src/a.ts", "registry.removeSingleMetric(name)"],
    ["src/a.ts", "https://example.com/work/home/x"],
    ["src/a.ts", "the network/root/x"],
    ["src/a.ts", "const todo = [\"a\"]"]
  ])("and not more: %s %s", (path, line) => {
    expect(rulesOf(path, line)).toEqual([])
  })
})
