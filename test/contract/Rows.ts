/** The tests that every product's examples go through: a row that has none fails. */
import { afterAll, describe, expect, it } from "vitest"
import type { GatewayErrorTag } from "../../src/domain/errors.ts"
import type { Row } from "../../src/http/endpoint.ts"
import type { Examples } from "./Example.ts"
import { type Product, makeMasked, makeSend, makeWorlds, statusOf } from "./Product.ts"

/** Outages, races, full queues and replays: the words are in each product's `errors.test.ts`, the cases for all rows in `access.test.ts` and `idempotency.test.ts`. */
const systemic: ReadonlySet<GatewayErrorTag> = new Set([
  "StoreUnavailable", "NotCommitted", "OutcomeUnknown", "MailboxFull", "Overloaded", "HoldLost", "Draining", "IdempotencyInFlight", "AnswerNotStored"
])

/** `elsewhere`: refusals that have a test of their own. */
export const describeExamples = <C>(product: Product<C>, examples: Examples<C>, elsewhere: (row: Row, tag: GatewayErrorTag) => boolean): void => {
  const isLater = (row: Row): boolean => row.errors.includes("NotImplemented")
  const rows = product.dialect.rows.filter((row) => !isLater(row))

  it("has an example for every row that is there, and no other", () => {
    expect(Object.keys(examples).toSorted()).toEqual(rows.map(({ id }) => id).toSorted())
  })
  it("has an example for every refusal of every row", () => {
    for (const row of rows) {
      const own = new Set(row.errors.filter((tag) => !systemic.has(tag) && !elsewhere(row, tag)))
      expect(Object.keys(examples[row.id]?.refusals ?? {}).toSorted(), row.id).toEqual([...own].toSorted())
    }
  })

  const worlds = makeWorlds(product)
  const [send, masked] = [makeSend(product), makeMasked(product)]
  afterAll(worlds.stop)

  describe.each(product.dialect.rows.map((row) => [`${row.method} ${row.path}`, row] as const))("%s", (_, row) => {
    const example = examples[row.id]
    if (example === undefined) {
      it("says that it is not there yet", async () => {
        const world = await worlds.get()
        const reply = await send(world, row, await product.caller(world, row), row.method === "GET" ? {} : { body: "{}" })
        expect([reply.status, reply.json]).toEqual([501, { detail: `${row.docs.summary} is not there yet` }])
      })
      return
    }

    it("answers as documented", async () => {
      const world = await worlds.get()
      const caller = await product.caller(world, row)
      const { request, answer, headers = {} } = example.success
      const reply = await send(world, row, caller, await request(world, caller))
      expect([reply.status, masked(reply.json)], reply.text).toEqual([statusOf(row), answer])
      expect(reply.headers.get("x-request-id")).toMatch(/^[\w-]{8,}$/)
      if (answer !== undefined) expect(reply.headers.get("content-type")).toBe("application/json")
      else if (row.kind !== "endpoint" || row.media === undefined) expect(reply.text).toBe("")
      for (const [name, value] of Object.entries(headers)) expect(reply.headers.get(name), name).toMatch(value)
    })

    it.each(Object.entries(example.refusals))("refuses with %s", async (_tag, { world: name, request, status, answer }) => {
      const world = await worlds.get(name)
      const caller = await product.caller(world, row)
      const reply = await send(world, row, caller, await request(world, caller))
      expect([reply.status, masked(reply.json)]).toEqual([status, answer])
      if (status === 401) expect(reply.headers.get("www-authenticate")).toBe("Bearer")
      if (status === 429 || status === 503) expect(reply.headers.get("retry-after")).toMatch(/^[1-9]\d*$/)
      if (reply.json?.retry_after !== undefined) expect(reply.headers.get("retry-after")).toBe(String(reply.json.retry_after))
    })
  })
}
