/** JSON that is made to break its reader: too deep, numbers beyond all numbers, text that no database can store. */

const deep = 10_000
const lists = `${"[".repeat(deep)}${"]".repeat(deep)}`
const objects = `${"{\"a\":".repeat(deep)}1${"}".repeat(deep)}`
/** Some bodies that are refused whatever the row. */
export const bodies: ReadonlyArray<readonly [name: string, body: string | Uint8Array, statuses: ReadonlyArray<number>]> = [
  ["lists 10,000 deep", lists, [400, 422]],
  ["objects 10,000 deep", objects, [400, 422]],
  ["lists 10,000 deep that never end", lists.slice(0, deep), [400]],
  ["a number beyond all numbers", "1e400", [422]],
  ["no number", "NaN", [400]],
  ["a price that is no number", "{\"amount\": NaN, \"service_price\": -Infinity}", [400]],
  ["half of a surrogate pair as a key", "{\"\\ud800\": 1}", [422]],
  ["half of a surrogate pair in bytes", Buffer.from([0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x3a, 0x31, 0x7d]), [400]],
  ["a slash in more bytes than it needs", Buffer.from([0x22, 0xc0, 0xaf, 0x22]), [400]],
  ["a byte order mark", "\u{feff}{}", [400]],
  ["two values", "{}{}", [400]]
]
/** Values that no field takes. */
export const neverTaken = [lists, objects, "\"\\ud800\"", "\"a\\udc00\\ud800\"", "\"\\u0000\""]
/** Numbers that no field takes: too large, too small, or none that JSON knows. */
export const noNumbers = ["1e400", "-1e400", "1e-400", "1e999999999", `1${"0".repeat(400)}`, "\"1e400\"", "\"NaN\"", "\"Infinity\"", "\"-Infinity\"", "\"0x10\"", "\"1_000\"", "\"١\"", "\"+1\"", "\" 1\"", "\"1,5\""]
export const noJson = ["NaN", "Infinity", "-Infinity", "+1", "01", "1.", ".5", "0x10"]
