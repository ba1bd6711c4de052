/**
 * What a JSON body says. Bytes in, a plain value out, or the `InvalidRequest`
 * that explains why not: not UTF-8, not JSON, nested beyond the parser's stack,
 * or holding a NUL or a lone surrogate, which Postgres can't store.
 *
 * With `decimals`, every number arrives as the text that was written
 * (`0.1` → `"0.1"`), so that money never meets a float. A schema of such a row
 * therefore sees strings where the caller wrote numbers, and can't tell the two
 * apart: `5` and `"5"` are the same amount.
 *
 * A key `__proto__` is an own property like any other, and schemas ignore it.
 */
import { isUtf8 } from "node:buffer"
import { parse } from "lossless-json"
import { InvalidRequest } from "../domain/errors.ts"

const asText = (digits: string): string => digits
const lastWins = ({ newValue }: { readonly newValue: unknown }): unknown => newValue
const lossless = { parseNumber: asText, onDuplicateKey: lastWins }

const malformed = (msg: string): InvalidRequest => new InvalidRequest({ malformed: true, issues: [{ loc: ["body"], msg }] })

const unstorable = /[\0\p{Surrogate}]/u

/** Whether a text holds a NUL or half of a surrogate pair. */
export const isUnstorable = (text: string): boolean => unstorable.test(text)

/** The path of the first string (or key) that can't be stored. Iterative: the value may be nested as deep as the parser allows. */
const unstorableAt = (root: unknown): ReadonlyArray<string> | undefined => {
  const pending: Array<{ readonly value: unknown; readonly path: ReadonlyArray<string> }> = [{ value: root, path: [] }]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const { value, path } = next
    if (typeof value === "string" && unstorable.test(value)) return path
    if (typeof value !== "object" || value === null) continue
    for (const key of Object.keys(value)) {
      if (unstorable.test(key)) return path
      pending.push({ value: (value as Record<string, unknown>)[key], path: path.length < 16 ? [...path, key] : path })
    }
  }
  return undefined
}

/** `undefined` for an empty body: the row's schema decides whether that will do. */
export const parseBody = (bytes: Uint8Array, decimals: boolean): { readonly value: unknown } | InvalidRequest => {
  if (bytes.byteLength === 0) return { value: undefined }
  if (!isUtf8(bytes)) return malformed("Not UTF-8")
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8")
  let value: unknown
  try {
    value = decimals ? parse(text, null, lossless) : JSON.parse(text)
  } catch {
    return malformed("Not valid JSON")
  }
  // Raw UTF-8 has neither surrogates nor, inside JSON, control characters: only an escape can make them.
  const path = text.includes("\\u") ? unstorableAt(value) : undefined
  return path === undefined ? { value } : new InvalidRequest({ malformed: false, issues: [{ loc: ["body", ...path], msg: "Contains a character that can't be stored" }] })
}
