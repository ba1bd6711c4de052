/** Every call that an id of somebody else's fits into, found in a product's OpenAPI document. */
import { formOf } from "../support/Form.ts"

interface Schema {
  readonly $ref?: string
  readonly allOf?: ReadonlyArray<Schema>
}
interface Operation {
  readonly operationId: string
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Schema }>> }
  readonly parameters: ReadonlyArray<{ readonly name: string; readonly in: string }>
}
export interface OpenApi {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: { readonly schemas: Readonly<Record<string, { readonly properties?: Readonly<Record<string, unknown>> }>> }
}

interface Try {
  readonly path: string
  readonly body?: object
  readonly headers?: Readonly<Record<string, string>>
}
export interface Attempt extends Try {
  readonly operation: string
  readonly method: string
  readonly token: string
}

/** As each path parameter, as each query's value (also as a cursor), as each field of the body. */
const callsWith = (document: OpenApi, template: string, operation: Operation, id: string, freeTexts: ReadonlySet<string>): ReadonlyArray<Try> => {
  const path = template.replace(/\{\w+\}/g, encodeURIComponent(id))
  const queries = operation.parameters.filter((parameter) => parameter.in === "query").flatMap(({ name }) =>
    [id, Buffer.from(id).toString("base64url"), Buffer.from(`0 ${id}`).toString("base64url")].map((value) => `${path}?${name}=${encodeURIComponent(value)}`))
  const { "application/json": json, "multipart/form-data": form } = operation.requestBody?.content ?? {}
  const name = (json?.schema ?? form?.schema.allOf?.[0])?.$ref?.split("/").at(-1)
  const fields = Object.keys(name === undefined ? {} : document.components.schemas[name]?.properties ?? {})
  const whole = Object.fromEntries(fields.map((field) => [field, freeTexts.has(field) ? "x" : id]))
  const sent = (body: Record<string, string>, headers = {}): Try => {
    const asForm = formOf(body)
    return form === undefined ? { path, body, headers } : { path, body: asForm.body, headers: { ...asForm.headers, ...headers } }
  }
  return [
    ...[path, ...queries].map((each) => ({ path: each })),
    ...(operation.requestBody === undefined ? [] : [sent(whole), sent({}), sent(whole, { "idempotency-key": id.slice(0, 255) })])
  ]
}

/** `freeTexts`: fields that come back as the caller's own words. */
export const attemptsWith = (document: OpenApi, ids: ReadonlyArray<string>, tokens: ReadonlyArray<string>, freeTexts: ReadonlySet<string>): ReadonlyArray<Attempt> =>
  Object.entries(document.paths).flatMap(([template, operations]) => Object.entries(operations).flatMap(([method, operation]) => {
    const takesIds = template.includes("{") || operation.requestBody !== undefined || operation.parameters.length > 0
    return (takesIds ? ids : [""]).flatMap((id) => callsWith(document, template, operation, id, freeTexts)).flatMap((call) =>
      tokens.map((token) => ({ operation: operation.operationId, method: method.toUpperCase(), token, ...call })))
  }))
