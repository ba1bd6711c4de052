/**
 * What the fields of every dialect's wire shapes are made of. Compiled with the
 * row that uses them.
 *
 * Money comes in as a JSON number or as decimal text; rows that take money hand
 * numbers over as the text that was written (`decimals`), so both are exact. It
 * goes out as text with 2 to 6 decimals, or as a JSON number where a contract
 * has one.
 */
import { Effect, Schema, SchemaIssue, SchemaTransformation } from "effect"
import { type Credits, formatUsd, parseUsd, usdNumber } from "../../domain/credits.ts"

export const text = (charsMax: number, charsMin = 0) =>
  Schema.String.check(charsMin === 0 ? Schema.isMaxLength(charsMax) : Schema.isBetweenLength(charsMin, charsMax))

export const read = <A, B>(decode: (wire: B) => A | undefined, message: string, encode: (value: A) => B) =>
  SchemaTransformation.transformEffect<A, B>({
    decode: (wire) => {
      const value = decode(wire)
      return value === undefined ? Effect.fail(new SchemaIssue.InvalidValue({ message })) : Effect.succeed(value)
    },
    encode: (value) => Effect.succeed(encode(value))
  })

const Credit: Schema.Codec<Credits> = Schema.BigInt

/** Money out. */
export const Usd = Schema.String.annotate({ description: "US dollars, 2 to 6 decimals", examples: ["9.95"] }).pipe(
  Schema.decodeTo(Credit, read(parseUsd, "Expected a dollar amount", formatUsd))
)
/** Money out where the reference has a JSON number. */
export const UsdNumber = Schema.Finite.annotate({ description: "US dollars", examples: [0.5] }).pipe(
  Schema.decodeTo(Credit, read((usd) => parseUsd(String(usd)), "Expected a dollar amount", usdNumber))
)
/** Money in. */
export const Amount = Schema.Union([Schema.Finite, Schema.String]).annotate({
  description: "US dollars, at least 0, at most 6 decimals, as a number or as text", examples: [0.5, "10.00"]
}).pipe(
  Schema.decodeTo(Credit, read<Credits, number | string>((usd) => parseUsd(String(usd)), "Expected a dollar amount of at least 0 with at most 6 decimals", formatUsd))
)
const digits = Schema.String.check(Schema.isPattern(/^\d{1,15}$/u, { message: "Expected a whole number" }))
/** A whole number in a row whose numbers arrive as text. */
export const Count = (min: number, max: number) =>
  Schema.Union([Schema.Int.check(Schema.isBetween({ minimum: min, maximum: max })), digits]).pipe(
    Schema.decodeTo(Schema.Int, read<number, number | string>((count) => {
      const value = Number(count)
      return value >= min && value <= max ? value : undefined
    }, `Expected a whole number from ${min} to ${max}`, (count) => count))
  )

export const Timestamp = Schema.String.annotate({ description: "ISO 8601, UTC", format: "date-time", examples: ["2026-03-13T09:26:53.589Z"] }).pipe(
  Schema.decodeTo(Schema.Date, SchemaTransformation.dateFromString)
)
export const Id = Schema.String.annotate({ description: "An opaque id" })
/** What a caller sends as an object. */
export const object = (identifier: string) => ({ identifier, message: "Expected a JSON object" })
/** A field that may be left out, with what it is then. */
export const orElse = <S extends Schema.Constraint>(value: S["Encoded"]) => Schema.withDecodingDefaultKey<S>(Effect.succeed(value))
