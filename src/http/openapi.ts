/**
 * The OpenAPI 3.1 document of one dialect, derived from its rows: nothing in it
 * is written by hand, so nothing in it can be out of date.
 *
 * A row's errors are those it names and those that its auth, scope, input and
 * idempotency imply; they are grouped by the status that the dialect gives them.
 * The first mount is the server, relative to the document.
 */
import { JsonSchema, Schema } from "effect"
import * as errors from "../domain/errors.ts"
import type { GatewayError, GatewayErrorTag } from "../domain/errors.ts"
import type { Dialect, Rendered } from "./dialect.ts"
import type { Row, Wire } from "./endpoint.ts"

type Json = Record<string, unknown>

const retryAfterMs = 1_000
const agent = "agent"

/** One of each: their statuses are asked of the dialect. */
const samples: { readonly [T in GatewayErrorTag]: Extract<GatewayError, { readonly _tag: T }> } = {
  InvalidRequest: new errors.InvalidRequest({ malformed: false, issues: [] }),
  RuleBroken: new errors.RuleBroken({ issues: [] }),
  BodyTooLarge: new errors.BodyTooLarge({ bytesMax: 1 }),
  BodyTimeout: new errors.BodyTimeout(),
  NotFound: new errors.NotFound({ what: agent, id: "" }),
  MethodNotAllowed: new errors.MethodNotAllowed({ allow: [] }),
  AlreadyExists: new errors.AlreadyExists({ what: agent, id: "" }),
  IdempotencyKeyReused: new errors.IdempotencyKeyReused({ key: "" }),
  IdempotencyInFlight: new errors.IdempotencyInFlight({ key: "", retryAfterMs }),
  AnswerNotStored: new errors.AnswerNotStored({ key: "", resultId: "" }),
  AddressForbidden: new errors.AddressForbidden({ field: "", address: "" }),
  InputNotAccepted: new errors.InputNotAccepted({ wanted: "" }),
  Unauthenticated: new errors.Unauthenticated({ reason: "missing" }),
  ScopeMissing: new errors.ScopeMissing({ scope: "" }),
  LoginRequired: new errors.LoginRequired(),
  EmailUnverified: new errors.EmailUnverified(),
  NotOwner: new errors.NotOwner({ what: agent, id: "" }),
  OriginForbidden: new errors.OriginForbidden(),
  AccountSuspended: new errors.AccountSuspended(),
  InsufficientCredits: new errors.InsufficientCredits({ required: 1n, available: 0n, held: 0n }),
  BudgetExceeded: new errors.BudgetExceeded({ window: "day", amount: 1n, spent: 1n, held: 0n, required: 1n }),
  RateLimited: new errors.RateLimited({ limit: 1, windowMs: 60_000, retryAfterMs }),
  TooManyAttempts: new errors.TooManyAttempts({ retryAfterMs }),
  MailboxFull: new errors.MailboxFull({ actor: "", retryAfterMs }),
  Overloaded: new errors.Overloaded({ what: "", retryAfterMs }),
  AgentPaused: new errors.AgentPaused({ agent }),
  AgentUnavailable: new errors.AgentUnavailable({ agent, reason: "timeout", retryAfterMs }),
  StoreUnavailable: new errors.StoreUnavailable({ retryAfterMs }),
  NotCommitted: new errors.NotCommitted({ retryAfterMs }),
  OutcomeUnknown: new errors.OutcomeUnknown({ retryAfterMs }),
  HoldLost: new errors.HoldLost({ retryAfterMs }),
  Draining: new errors.Draining({ retryAfterMs }),
  NotImplemented: new errors.NotImplemented({ feature: "" }),
  NotConfigured: new errors.NotConfigured({ setting: "" })
}

/** Any row may get a request that can't be read. */
const malformed = new errors.InvalidRequest({ malformed: true, issues: [] })

/** A dialect may have a status for each reason. */
const unavailable = errors.AgentFailure.literals.map((reason) => new errors.AgentUnavailable({ agent, reason, retryAfterMs }))
const samplesOf = (tag: GatewayErrorTag): ReadonlyArray<GatewayError> => tag === "AgentUnavailable" ? unavailable : [samples[tag]]

/** Every tag a row can answer with. */
export const errorTagsOf = (row: Row): ReadonlyArray<GatewayErrorTag> => {
  const tags = new Set<GatewayErrorTag>([...row.errors, "Draining"])
  const add = (condition: boolean, ...implied: ReadonlyArray<GatewayErrorTag>): void => {
    if (condition) for (const tag of implied) tags.add(tag)
  }
  add(row.auth !== "public", "Unauthenticated", "AccountSuspended", "RateLimited", "MailboxFull", "StoreUnavailable")
  add(row.auth === "login", "LoginRequired")
  add(row.scope !== undefined, "ScopeMissing")
  add(row.verified === true, "EmailUnverified")
  add(row.params !== undefined || row.kind === "endpoint" || row.kind === "stream", "InvalidRequest")
  add(row.kind === "relay" || (row.kind === "endpoint" && row.payload !== undefined), "BodyTooLarge", "BodyTimeout")
  add(row.kind === "endpoint" && row.idempotent, "IdempotencyKeyReused", "IdempotencyInFlight", "AnswerNotStored")
  return [...tags]
}

/** Collects the schemas of all rows, so that named ones are written once. */
class Schemas {
  readonly #schemas: Array<JsonSchema.JsonSchema> = []
  readonly #definitions: Record<string, JsonSchema.JsonSchema> = {}

  /** A placeholder that `resolve` replaces. */
  add(wire: Wire): { readonly index: number } {
    const { schema, definitions } = Schema.toJsonSchemaDocument(wire)
    for (const [name, definition] of Object.entries(definitions)) {
      const known = this.#definitions[name]
      if (known !== undefined && JSON.stringify(known) !== JSON.stringify(definition)) throw new Error(`two schemas are named ${name}`)
      this.#definitions[name] = definition
    }
    return { index: this.#schemas.push(schema) - 1 }
  }

  /** The fields of an object schema, each with whether it must be given. */
  fields(wire: Wire): ReadonlyArray<{ readonly name: string; readonly schema: unknown; readonly required: boolean }> {
    const { schema, definitions } = Schema.toJsonSchemaDocument(wire)
    const name = typeof schema.$ref === "string" ? schema.$ref.slice("#/$defs/".length) : undefined
    const object = name === undefined ? schema : definitions[name] ?? schema
    const required = new Set(Array.isArray(object.required) ? object.required : [])
    return Object.entries((object.properties ?? {}) as Json).map(([field, value]) => ({ name: field, schema: value, required: required.has(field) }))
  }

  resolved(): { readonly schemas: ReadonlyArray<unknown>; readonly definitions: Json } {
    if (this.#schemas.length === 0) return { schemas: [], definitions: {} }
    const [first, ...rest] = this.#schemas as [JsonSchema.JsonSchema, ...Array<JsonSchema.JsonSchema>]
    return JsonSchema.toMultiDocumentOpenApi3_1({ dialect: "draft-2020-12", schemas: [first, ...rest], definitions: this.#definitions })
  }
}

const templateOf = (path: string): { readonly path: string; readonly names: ReadonlyArray<string> } => {
  const template = path.replace(/\{(\w+)\*\}/g, "{$1}").replace(/\/\*$/, "/{path}")
  return { path: template, names: [...template.matchAll(/\{(\w+)\}/g)].map((match) => match[1]!) }
}

const parametersOf = (row: Row, names: ReadonlyArray<string>, schemas: Schemas): ReadonlyArray<Json> => {
  const described = new Map(row.params === undefined ? [] : schemas.fields(row.params).map((field) => [field.name, field.schema]))
  const path = names.map((name) => ({ name, in: "path", required: true, schema: described.get(name) ?? { type: "string" } }))
  const query = (row.kind === "endpoint" || row.kind === "stream") && row.query !== undefined
    ? schemas.fields(row.query).map(({ name, schema, required }) => ({ name, in: "query", required, schema }))
    : []
  const key = row.kind === "endpoint" && row.idempotent ? [{ $ref: "#/components/parameters/IdempotencyKey" }] : []
  return [...path, ...query, ...key]
}

const successOf = (row: Row, schemas: Schemas): readonly [string, Json] => {
  switch (row.kind) {
    case "endpoint":
      return [String(row.status), row.media !== undefined ? { content: { [row.media]: { schema: { type: "string", format: "binary" } } } }
        : row.success === undefined ? {} : { content: { "application/json": { schema: schemas.add(row.success) } } }]
    case "stream":
      return ["200", { content: { "text/event-stream": { schema: schemas.add(row.event) } } }]
    case "relay":
      return ["200", { content: { "*/*": { schema: {} } } }]
    case "socket":
      return ["101", {}]
  }
}

const successText = { endpoint: "Success", stream: "One JSON value per event", relay: "The agent's answer, unchanged", socket: "Switching to WebSocket" }

const responsesOf = (dialect: Dialect, row: Row, schemas: Schemas): Json => {
  const rate = row.auth === "public" ? [] : dialect.rateHeaders({ limit: 1, remaining: 1, resetMs: 1 }).map(([name]) => name)
  const always = Object.fromEntries(["x-request-id", ...rate].map((name) => [name, { $ref: `#/components/headers/${name}` }]))
  const [status, success] = successOf(row, schemas)
  const tags = new Map<string, Set<string>>()
  for (const error of [...errorTagsOf(row).flatMap(samplesOf), malformed]) {
    const rendered = (dialect.errors[error._tag] as (error: GatewayError) => Rendered)(error)
    const key = String(rendered.status)
    tags.set(key, (tags.get(key) ?? new Set()).add(error._tag))
  }
  const failed = [...tags].map(([key, names]) => [key, {
    description: [...names].join(", "),
    headers: always,
    content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } }
  }])
  return { ...Object.fromEntries(failed), [status]: { description: successText[row.kind], headers: always, ...success } }
}

const requestBodyOf = (row: Row, schemas: Schemas): Json => {
  if (row.kind === "relay" && row.method !== "GET") return { requestBody: { content: { "*/*": { schema: {} } } } }
  if (row.kind !== "endpoint" || row.payload === undefined) return {}
  const payload = schemas.add(row.payload)
  if (row.upload === undefined) return { requestBody: { required: true, content: { "application/json": { schema: payload } } } }
  const files = { type: "object", properties: { [row.upload]: { type: "array", items: { type: "string", format: "binary" }, description: "After all fields" } } }
  return { requestBody: { required: true, content: { "multipart/form-data": { schema: { allOf: [payload, files] } } } } }
}

const describe = (row: Row): string =>
  [row.docs.description, row.scope === undefined ? undefined : `Scope: \`${row.scope}\`.`, row.auth === "login" ? "Logins only, no API keys." : undefined]
    .filter((text) => text !== undefined).join("\n\n")

const operationOf = (dialect: Dialect, row: Row, names: ReadonlyArray<string>, schemas: Schemas): Json => {
  const description = describe(row)
  return {
    operationId: row.id,
    summary: row.docs.summary,
    ...(description === "" ? {} : { description }),
    tags: [row.docs.tag],
    security: row.auth === "public" ? [] : row.auth === "optional" ? [{}, { bearer: [] }] : [{ bearer: [] }],
    parameters: parametersOf(row, names, schemas),
    ...requestBodyOf(row, schemas),
    responses: responsesOf(dialect, row, schemas)
  }
}

const isPlaceholder = (value: object): value is { readonly index: number } => Object.keys(value).length === 1 && "index" in value && typeof value.index === "number"

/** Puts the schemas where `Schemas.add` left placeholders. */
const filled = (value: unknown, schemas: ReadonlyArray<unknown>): unknown => {
  if (Array.isArray(value)) return value.map((item) => filled(item, schemas))
  if (typeof value !== "object" || value === null) return value
  if (isPlaceholder(value)) return schemas[value.index]
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, filled(item, schemas)]))
}

export const openApiOf = (dialect: Dialect, version: string): Json => {
  const schemas = new Schemas()
  const paths: Record<string, Json> = {}
  for (const row of dialect.rows) {
    const { path, names } = templateOf(row.path)
    paths[path] = { ...paths[path], [row.method.toLowerCase()]: operationOf(dialect, row, names, schemas) }
  }
  const { schemas: found, definitions } = schemas.resolved()
  const tags = [...new Set(dialect.rows.map((row) => row.docs.tag))].map((name) => ({ name }))
  const rate = dialect.rateHeaders({ limit: 1, remaining: 1, resetMs: 1 }).map(([name]) => [name, { description: "The caller's rate window", schema: { type: "string" } }])
  return {
    openapi: "3.1.0",
    info: { title: dialect.title, description: dialect.description, version },
    servers: [{ url: dialect.mounts[0] === undefined || dialect.mounts[0] === "" ? "/" : dialect.mounts[0] }],
    tags,
    paths: filled(paths, found),
    components: {
      schemas: { ...definitions, Error: dialect.errorSchema },
      securitySchemes: { bearer: { type: "http", scheme: "bearer", description: "An API key, or the access token of a login." } },
      headers: { "x-request-id": { description: "Names this call in the gateway's logs", schema: { type: "string" } }, ...Object.fromEntries(rate) },
      parameters: {
        IdempotencyKey: {
          name: "Idempotency-Key", in: "header", required: false, schema: { type: "string", minLength: 1, maxLength: 255 },
          description: "Makes a retry safe: the same key with the same body repeats the first answer, for 24 hours."
        }
      }
    }
  }
}
