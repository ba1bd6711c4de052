import { createConfig, lintFromString } from "@redocly/openapi-core"
import { describe, expect, it } from "vitest"
import { errorTagsOf, openApiOf } from "../../../src/http/openapi.ts"
import { fixtureDialect, makeFixture } from "../../support/fixtureDialect.ts"

const dialect = fixtureDialect(makeFixture())
const document = JSON.parse(JSON.stringify(openApiOf(dialect, "1.2.3")))

describe("the OpenAPI document of a dialect", () => {
  const problemsOf = async (source: unknown): Promise<ReadonlyArray<string>> => {
    const config = await createConfig({ extends: ["minimal"], rules: { struct: "error", "no-unresolved-refs": "error", "operation-operationId-unique": "error", "path-parameters-defined": "error" } })
    const problems = await lintFromString({ source: JSON.stringify(source), config })
    return problems.filter(({ severity }) => severity === "error").map(({ message }) => message)
  }

  it("is valid OpenAPI 3.1", async () => {
    expect(await problemsOf(document)).toEqual([])
    // The linter does look.
    expect(await problemsOf({ ...document, paths: { "/a/{b}": { get: { parameters: [{ in: "path" }], responses: { 200: { $ref: "#/nowhere" } } } } } })).not.toEqual([])
    expect(document).toMatchObject({ openapi: "3.1.0", info: { version: "1.2.3" }, servers: [{ url: "/v9" }] })
  })

  it("has every row once, named by its id", () => {
    const operations = Object.values<Record<string, { operationId: string }>>(document.paths).flatMap((path) => Object.values(path))
    expect(operations.map(({ operationId }) => operationId).sort()).toEqual(dialect.rows.map(({ id }) => id).sort())
  })

  it("describes an idempotent, scoped row in full", () => {
    const operation = document.paths["/things"].post
    expect(operation.description).toContain("Scope: `things`")
    expect(operation.security).toEqual([{ bearer: [] }])
    expect(operation.parameters).toEqual([{ $ref: "#/components/parameters/IdempotencyKey" }])
    expect(operation.requestBody.content["application/json"].schema).toEqual({ $ref: "#/components/schemas/FixtureNewThing" })
    expect(operation.responses["201"].content["application/json"].schema).toEqual({ $ref: "#/components/schemas/FixtureThing" })
    expect(operation.responses["201"].headers).toHaveProperty("X-RateLimit-Limit")
    expect(operation.responses["402"].description).toBe("InsufficientCredits")
    expect(operation.responses["409"].description).toContain("IdempotencyKeyReused")
    expect(operation.responses["403"].description).toContain("ScopeMissing")
    expect(document.components.schemas).toHaveProperty("FixtureNewThing.properties.password")
  })

  it("shows path and query parameters, and no security where none is needed", () => {
    expect(document.paths["/things/"].get.security).toEqual([])
    expect(document.paths["/things/"].get.parameters.map(({ name, in: place, required }: Record<string, unknown>) => [name, place, required]))
      .toEqual([["limit", "query", false], ["q", "query", false]])
    expect(document.paths["/files/{path}"].get.parameters[0]).toMatchObject({ name: "path", in: "path", required: true })
    expect(document.paths["/relay/{agent}"].post.parameters[0]).toMatchObject({ name: "agent", in: "path", required: true })
  })

  it("tells the other kinds of rows apart", () => {
    expect(document.paths["/events"].get.responses["200"].content).toHaveProperty(["text/event-stream", "schema"])
    expect(document.paths["/relay/{agent}"].post.responses["200"].content).toHaveProperty(["*/*"])
    expect(document.paths["/ws/{room}"].get.responses).toHaveProperty("101")
    expect(document.paths["/things/{id}"].delete.responses["204"].content).toBeUndefined()
  })
})

describe("the errors of a row", () => {
  it("are those that it names and those that its auth and input imply", () => {
    const tagsOf = (id: string) => errorTagsOf(dialect.rows.find((row) => row.id === id)!)
    expect(tagsOf("fixture.things.delete")).toEqual(expect.arrayContaining(["Unauthenticated", "RateLimited", "LoginRequired", "InvalidRequest"]))
    expect(tagsOf("fixture.things.list")).not.toContain("Unauthenticated")
    expect(tagsOf("fixture.things.delete")).not.toContain("IdempotencyKeyReused")
    expect(tagsOf("fixture.relay")).toEqual(expect.arrayContaining(["AgentUnavailable", "BodyTooLarge", "BodyTimeout"]))
  })
})
