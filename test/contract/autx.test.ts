/**
 * autx as its contract has it. The rows are the input: each needs a documented
 * success and an example of each refusal of its own, in `examples/`. What all
 * rows have in common is in the other files here.
 */
import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { autx } from "../../src/dialects/autx/index.ts"
import type { Row } from "../../src/http/endpoint.ts"
import { autxProduct } from "./Autx.ts"
import { agents } from "./examples/agents.ts"
import { auth } from "./examples/auth.ts"
import { money } from "./examples/money.ts"
import { sessions } from "./examples/sessions.ts"
import { statusOf } from "./Product.ts"
import { describeExamples } from "./Rows.ts"

/** Where `NotConfigured` needs keys that another node has sealed. */
const sealedElsewhere: ReadonlySet<string> = new Set(["autx.auth.register", "autx.auth.login", "autx.auth.refresh", "autx.proxy"])

describe("the table", () => {
  it("has exactly the routes of the contract, each with its credential and its status", () => {
    // Rows that are not there yet take none, until they have their own.
    const plain = (credential: string) => credential.replace(/^signature$/, "public")
    const listed = readFileSync(new URL("autx.endpoints.tsv", import.meta.url), "utf8").trimEnd().split("\n").slice(1).map((line) => {
      const [, method, path, credential, status] = line.split("\t")
      return `${method} ${path} ${plain(credential!)} ${status}`
    })
    const credentialOf = (row: Row): string => {
      if (row.kind === "socket") return "first-frame"
      if (row.auth === "public" || row.auth === "optional") return "public"
      if (row.auth === "login") return "jwt"
      return `jwt|key${row.scope === undefined ? "" : `:${row.scope}`}${row.auth === "loginOrKeyOrAgent" ? "|agent-jwt" : ""}`
    }
    const routed = autx.rows.map((row) => `${row.kind === "socket" ? "WS" : row.method} ${row.path} ${credentialOf(row)} ${statusOf(row)}`)
    expect(routed.toSorted()).toEqual(listed.toSorted())
  })

  it("asks for a verified email where the contract does", () => {
    expect(autx.rows.filter((row) => row.verified).map(({ id }) => id).toSorted()).toEqual(["autx.agents.create", "autx.api_keys.create", "autx.credits.deposit"])
  })
})

describe("the example", () =>
  describeExamples(autxProduct, { ...auth, ...agents, ...money, ...sessions }, (row, tag) => tag === "NotConfigured" && sealedElsewhere.has(row.id)))
