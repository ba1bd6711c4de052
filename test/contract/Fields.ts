/**
 * Every place of a row that takes something from a caller, found in the row's
 * own schemas, so that a field that is added tomorrow is tried too.
 */
import type { Dialect } from "../../src/http/dialect.ts"
import type { Row } from "../../src/http/endpoint.ts"
import { openApiOf } from "../../src/http/openapi.ts"
import { operationsOf } from "./Product.ts"

interface Schema {
  readonly $ref?: string
  readonly type?: string | ReadonlyArray<string>
  readonly anyOf?: ReadonlyArray<Schema>
  readonly oneOf?: ReadonlyArray<Schema>
  readonly allOf?: ReadonlyArray<Schema>
  readonly properties?: Readonly<Record<string, Schema>>
  readonly items?: Schema
  readonly prefixItems?: ReadonlyArray<Schema>
}
interface Operation {
  readonly parameters?: ReadonlyArray<{ readonly name: string; readonly in: string }>
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Schema }>> }
}
export type Place = ReadonlyArray<string | number>
export interface Field {
  readonly place: Place
  readonly takesText: boolean
  readonly takesNumber: boolean
}

export interface Fields {
  /** Every field of the JSON that the row takes, however deep; lists by their first item. */
  readonly bodyFields: (row: Row) => ReadonlyArray<Field>
  readonly queryNames: (row: Row) => ReadonlyArray<string>
}

export const makeFields = (dialect: Dialect): Fields => {
  const document = openApiOf(dialect, "0.0.0") as unknown as { readonly components: { readonly schemas: Readonly<Record<string, Schema>> } }
  const operations = operationsOf<Operation>(dialect)

  /** A schema and the alternatives and parts that it is made of. */
  const partsOf = (schema: Schema): ReadonlyArray<Schema> => {
    const named = schema.$ref === undefined ? schema : document.components.schemas[schema.$ref.split("/").at(-1)!]!
    return [named, ...[named.anyOf, named.oneOf, named.allOf].flatMap((some) => some ?? []).flatMap(partsOf)]
  }
  const fieldsOf = (schema: Schema, place: Place): ReadonlyArray<Field> => {
    const parts = partsOf(schema)
    const takes = (...types: ReadonlyArray<string>): boolean => parts.some(({ type }) => types.some((each) => type === each || (Array.isArray(type) && type.includes(each))))
    const field = { place, takesText: takes("string"), takesNumber: takes("number", "integer") }
    return [
      ...(place.length > 0 ? [field] : []),
      ...parts.flatMap(({ properties = {} }) => Object.entries(properties).flatMap(([name, each]) => fieldsOf(each, [...place, name]))),
      ...parts.flatMap(({ items }) => items === undefined ? [] : fieldsOf(items, [...place, 0]))
    ]
  }
  return {
    bodyFields: (row) => {
      const schema = operations.get(row.id)!.requestBody?.content["application/json"]?.schema
      return schema === undefined ? [] : fieldsOf(schema, [])
    },
    queryNames: (row) => (operations.get(row.id)!.parameters ?? []).filter((parameter) => parameter.in === "query").map(({ name }) => name)
  }
}

/** The body with something else at one place; what leads there is made when it is missing. */
export const withAt = (body: unknown, [step, ...rest]: Place, value: unknown): unknown => {
  if (step === undefined) return value
  if (typeof step === "number") {
    const [first, ...others] = Array.isArray(body) ? body as ReadonlyArray<unknown> : []
    return [withAt(first, rest, value), ...others]
  }
  const known = typeof body === "object" && body !== null && !Array.isArray(body) ? body as Readonly<Record<string, unknown>> : {}
  return { ...known, [step]: withAt(known[step], rest, value) }
}
