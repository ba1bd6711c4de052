/**
 * acf as its contract has it. The rows are the input: each needs a documented
 * success and an example of each refusal of its own, in `acf/examples/`. What
 * all rows have in common is in `acf.access.test.ts` and `acf.inputs.test.ts`.
 */
import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { acf } from "../../src/dialects/acf/index.ts"
import type { GatewayErrorTag } from "../../src/domain/errors.ts"
import type { Row } from "../../src/http/endpoint.ts"
import { acfProduct } from "./Acf.ts"
import { admin } from "./acf/examples/admin.ts"
import { calls } from "./acf/examples/calls.ts"
import { identities } from "./acf/examples/identities.ts"
import { keys } from "./acf/examples/keys.ts"
import { portal } from "./acf/examples/portal.ts"
import { services } from "./acf/examples/services.ts"
import { teams } from "./acf/examples/teams.ts"
import { webhooks } from "./acf/examples/webhooks.ts"
import { statusOf } from "./Product.ts"
import { describeExamples } from "./Rows.ts"

/** Credentials that a row proves itself: to the edge it is public. */
const plain: Readonly<Record<string, string>> = { "public|key": "public", "admin-secret": "public", "admin-query": "public" }
const credentialOf = (row: Row): string => row.auth !== "key" ? row.auth : row.scope === undefined || row.scope === "buyer" ? "key" : row.scope

/** No key of acf has a budget; keys that another node has sealed are in `real/secrets.test.ts`. */
const elsewhere = (row: Row, tag: GatewayErrorTag): boolean =>
  row.id.startsWith("acf.proxy.") && (tag === "BudgetExceeded" || tag === "NotConfigured") || row.id === "acf.dashboard.read" && tag === "NotConfigured"

describe("the table", () => {
  it("has exactly the routes of the contract, each with its credential and its status", () => {
    const listed = readFileSync(new URL("acf.endpoints.tsv", import.meta.url), "utf8").trimEnd().split("\n").slice(1).flatMap((line) => {
      const [, method, path, credential, status, note] = line.split("\t")
      // Of any method are those that the note names.
      return (method === "ANY" ? note!.split(" ") : [method!]).map((each) => `${each} ${path} ${plain[credential!] ?? credential} ${status}`)
    })
    const routed = acf.rows.map((row) => `${row.method} ${row.path.replace("{path*}", "{path}")} ${credentialOf(row)} ${statusOf(row)}`)
    expect(routed.toSorted()).toEqual(listed.toSorted())
  })

  it("counts calls of the proxy and of one's own usage in a key's window, and no others", () => {
    const counted = acf.rows.filter((row) => row.auth !== "public" && row.uncounted !== true).map(({ id }) => id)
    expect(counted.toSorted()).toEqual(["acf.proxy.delete", "acf.proxy.get", "acf.proxy.patch", "acf.proxy.post", "acf.proxy.put", "acf.usage.me"])
  })
})

describe("the example", () =>
  describeExamples(acfProduct, { ...keys, ...services, ...calls, ...identities, ...portal, ...teams, ...webhooks, ...admin }, elsewhere))
