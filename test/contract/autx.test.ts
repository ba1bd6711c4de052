/**
 * autx as its contract has it. The rows are the input: each needs a documented
 * success and an example of each refusal of its own, in `examples/`; a row that
 * has none fails. What all rows have in common is in the other files here.
 */
import { readFileSync } from "node:fs"
import { afterAll, describe, expect, it } from "vitest"
import { autx } from "../../src/dialects/autx/index.ts"
import type { GatewayErrorTag } from "../../src/domain/errors.ts"
import type { Row } from "../../src/http/endpoint.ts"
import { type Examples, makeWorlds, masked, send, statusOf } from "./Example.ts"
import { agents } from "./examples/agents.ts"
import { auth } from "./examples/auth.ts"
import { money } from "./examples/money.ts"
import { sessions } from "./examples/sessions.ts"

const examples: Examples = { ...auth, ...agents, ...money, ...sessions }
const worlds = makeWorlds()
afterAll(worlds.stop)

const isLater = (row: Row): boolean => row.errors.includes("NotImplemented")

/** Outages, races, full queues and replays: the words are in `autx.errors.test.ts`, the cases for all rows in `autx.access.test.ts` and `autx.idempotency.test.ts`. */
const systemic: ReadonlySet<GatewayErrorTag> = new Set([
  "StoreUnavailable", "NotCommitted", "OutcomeUnknown", "MailboxFull", "Overloaded", "HoldLost", "Draining", "IdempotencyInFlight", "AnswerNotStored"
])
/** Where `NotConfigured` needs keys that another node has sealed. */
const sealedElsewhere: ReadonlySet<string> = new Set(["autx.auth.register", "autx.auth.login", "autx.auth.refresh", "autx.proxy"])

const ownErrors = (row: Row): ReadonlyArray<GatewayErrorTag> =>
  row.errors.filter((tag) => !systemic.has(tag) && !(tag === "NotConfigured" && sealedElsewhere.has(row.id)))

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

  it("has an example for every row that is there, and no other", () => {
    expect(Object.keys(examples).toSorted()).toEqual(autx.rows.filter((row) => !isLater(row)).map(({ id }) => id).toSorted())
  })

  it("has an example for every refusal of every row", () => {
    for (const row of autx.rows.filter((row) => !isLater(row))) {
      expect(Object.keys(examples[row.id]!.refusals).toSorted(), row.id).toEqual(ownErrors(row).toSorted())
    }
  })
})

for (const row of autx.rows) {
  const example = examples[row.id]
  describe(`${row.method} ${row.path}`, () => {
    if (example === undefined) {
      it("says that it is not there yet", async () => {
        const world = await worlds.get("free")
        const caller = await world.user()
        const reply = await send(world, row, caller, row.method === "GET" ? {} : { body: "{}" })
        expect([reply.status, reply.json]).toEqual([501, { detail: `${row.docs.summary} is not there yet` }])
      })
      return
    }

    it("answers as documented", async () => {
      const world = await worlds.get("free")
      const caller = await world.user()
      const { request, answer, headers = {} } = example.success
      const reply = await send(world, row, caller, await request(world, caller))
      expect([reply.status, masked(reply.json)], reply.text).toEqual([statusOf(row), answer])
      expect(reply.headers.get("x-request-id")).toMatch(/^[\w-]{8,}$/)
      if (answer !== undefined) expect(reply.headers.get("content-type")).toBe("application/json")
      else if (row.kind !== "endpoint" || row.media === undefined) expect(reply.text).toBe("")
      for (const [name, value] of Object.entries(headers)) expect(reply.headers.get(name), name).toMatch(value)
    })

    for (const [tag, { world: kind = "free", request, status, answer }] of Object.entries(example.refusals)) {
      it(`refuses with ${tag}`, async () => {
        const world = await worlds.get(kind)
        const caller = await world.user()
        const reply = await send(world, row, caller, await request(world, caller))
        expect([reply.status, masked(reply.json)]).toEqual([status, answer])
        if (status === 401) expect(reply.headers.get("www-authenticate")).toBe("Bearer")
        if (status === 429 || status === 503) expect(reply.headers.get("retry-after")).toBe(String(reply.json.retry_after))
      })
    }
  })
}
