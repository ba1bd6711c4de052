/**
 * What acf's wire shapes have in common, beside `http/rows/fields.ts`: pages, money
 * as numbers and as plain decimals, times with an offset.
 */
import { Schema } from "effect"
import { type Credits, formatUsd, parseUsd } from "../../../domain/credits.ts"
import { orElse, read, text } from "../../../http/rows/fields.ts"

/** A list's `limit`: any number, taken into 1 to 100; other text is refused. */
export const Limit = (fallback: number) => Schema.String.annotate({ description: `1 to 100; ${fallback} unless given` }).pipe(
  Schema.decodeTo(Schema.Int, read((limit) => /^[+-]?\d{1,15}$/.test(limit) ? Math.min(100, Math.max(1, Number(limit))) : undefined, "Expected a whole number", String)),
  orElse(String(fallback))
)
/** A list's `offset`: a negative one is 0. */
export const Offset = Schema.String.annotate({ description: "Rows to leave out; 0 unless given" }).pipe(
  Schema.decodeTo(Schema.Int, read((offset) => /^[+-]?\d{1,9}$/.test(offset) ? Math.max(0, Number(offset)) : undefined, "Expected a whole number", String)),
  orElse("0")
)
/** A number in a query that is refused outside its range. */
export const Between = (min: number, max: number, fallback: number) => Schema.String.annotate({ description: `${min} to ${max}; ${fallback} unless given` }).pipe(
  Schema.decodeTo(Schema.Int, read((value) => {
    const number = /^\d{1,9}$/.test(value) ? Number(value) : NaN
    return number >= min && number <= max ? number : undefined
  }, `Expected a whole number from ${min} to ${max}`, String)),
  orElse(String(fallback))
)

/** Times as Python writes them: `2026-03-19T10:00:00.123000+00:00`. */
export const Time = Schema.String.annotate({ description: "ISO 8601, UTC", format: "date-time", examples: ["2026-03-19T10:00:00+00:00"] }).pipe(
  Schema.decodeTo(Schema.Date, read<Date, string>((written) => {
    const ms = Date.parse(written)
    return Number.isNaN(ms) ? undefined : new Date(ms)
  }, "Expected a time", (date) => date.toISOString().replace(/(?:\.000)?Z$/, "+00:00")))
)

/** An id in a path. Whatever it is, at most so many characters: what is no id finds nothing. */
export const PathId = text(255, 1)

/** A name that people chose for themselves. */
export const OwnerId = text(200, 1).annotate({ description: "The owner's name, chosen by itself", examples: ["my-agent"] })

const objectBytesMax = 16 * 1024
const objectLevelsMax = 32
/** Whether it would be written as JSON as it was read, and isn't nested so deep that nobody can read it. */
const isPlain = (value: unknown, levels: number): boolean => {
  if (typeof value === "number") return Number.isFinite(value)
  if (typeof value !== "object" || value === null) return true
  return levels > 0 && Object.values(value).every((item) => isPlain(item, levels - 1))
}
/** The caller's own object, kept and given back. */
export const JsonObject = Schema.Record(Schema.String, Schema.Unknown).annotate({ description: `Any JSON object of at most ${objectBytesMax} bytes and ${objectLevelsMax} levels` }).check(
  Schema.makeFilter((value) => isPlain(value, objectLevelsMax) && Buffer.byteLength(JSON.stringify(value)) <= objectBytesMax
    || `Expected an object of at most ${objectBytesMax} bytes and ${objectLevelsMax} levels`)
)

/** Money as acf writes it: plain decimals with cents (`0.05`, `12.50`), and `0`. */
export const plainUsd = (amount: Credits): string => amount === 0n ? "0" : formatUsd(amount)

/** Money out as text. */
export const PlainUsd = Schema.String.annotate({ description: "US dollars", examples: ["0.05"] }).pipe(
  Schema.decodeTo(Schema.BigInt, read<Credits, string>(parseUsd, "Expected a dollar amount", plainUsd))
)

export const Latency = Schema.Finite.annotate({ description: "Milliseconds, one decimal", examples: [120.5] })
export const Percent = Schema.Finite.annotate({ description: "Per hundred, one decimal", examples: [99.5] })
