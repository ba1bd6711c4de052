/**
 * A row's schemas as plain functions, compiled once at boot.
 *
 * Decoding answers `InvalidRequest` with every issue (at most `issuesMax`), each
 * with its place and what was expected; never with the value, which may be a
 * password. Unknown fields are ignored. Encoding fails only when a handler
 * breaks its row's promise, and throws: a defect.
 */
import { Result, Schema, SchemaIssue } from "effect"
import { InvalidRequest } from "../../domain/errors.ts"
import { isUnstorable } from "../body.ts"
import type { Wire } from "../endpoint.ts"

const issuesMax = 20
const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()

export type Part = "path" | "query" | "body"
export type Decode = (input: unknown) => { readonly value: unknown } | InvalidRequest

const nothing = { value: undefined }

export const decoder = (schema: Wire | undefined, part: Part): Decode => {
  if (schema === undefined) return () => nothing
  const decode = Schema.decodeUnknownResult(schema, { errors: "all" })
  return (input) => {
    const result = decode(input)
    if (Result.isSuccess(result)) return { value: result.success }
    const issues = issuesOf(result.failure.issue).issues.slice(0, issuesMax).map((issue) => ({
      loc: [part, ...(issue.path ?? []).map((step) => String(typeof step === "object" ? step.key : step))],
      msg: issue.message
    }))
    return new InvalidRequest({ malformed: false, issues })
  }
}

export const encoder = (schema: Wire): (value: unknown) => unknown => {
  const encode = Schema.encodeUnknownResult(schema)
  return (value) => {
    const result = encode(value)
    if (Result.isFailure(result)) throw result.failure
    return result.success
  }
}

/** The query as an object of strings. Of a name that is repeated, the last value wins. */
export const queryOf = (query: string): Record<string, string> | InvalidRequest => {
  const values: Record<string, string> = Object.create(null)
  if (query === "") return values
  for (const [name, value] of new URLSearchParams(query)) {
    if (isUnstorable(value) || isUnstorable(name)) {
      return new InvalidRequest({ malformed: false, issues: [{ loc: ["query"], msg: "Contains a character that can't be stored" }] })
    }
    values[name] = value
  }
  return values
}
