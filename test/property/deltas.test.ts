import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { makeDeltaReader } from "../../src/kernel/chat/DeltaReader.ts"

// A failing run prints its seed; `SEED=… npx vitest` runs it again.
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31)
const times = process.env["TOLLGATE_FULL"] === "1" ? 20 : 1

interface Bounds {
  readonly lineBytesMax: number
  readonly bodyBytesMax: number
}

interface Told {
  text: string
  isDone: boolean
  problem: object | undefined
}

const wide: Bounds = { lineBytesMax: 100_000, bodyBytesMax: 1_000_000 }

/** What a reader tells when the bytes come in pieces that end here. Each read's memory is overwritten after it. */
const read = (type: string, bytes: Buffer, bounds: Bounds, ends: ReadonlyArray<number> = []): Told => {
  const reader = makeDeltaReader(type, bounds)
  let text = ""
  let from = 0
  for (const end of [...ends, bytes.length]) {
    const piece = Uint8Array.prototype.slice.call(bytes, from, end)
    text += reader.read(end % 2 === 0 ? piece : Buffer.from(piece.buffer))
    piece.fill(0x2E)
    from = end
  }
  text += reader.end()
  return { text, isDone: reader.isDone, problem: reader.problem }
}

/**
 * The same, naively, from the whole answer: everything is split and parsed anew.
 * Bytes are characters until something is decoded.
 */
const expected = (type: string, bytes: Buffer, bounds: Bounds): Told => {
  const isCut = bytes.length > bounds.bodyBytesMax
  const body = bytes.toString("latin1").slice(0, bounds.bodyBytesMax)
  const told: Told = { text: "", isDone: false, problem: undefined }
  if (type === "text/event-stream") tellEvents(body, isCut, bounds, told)
  else if (type === "application/x-ndjson") tellLines(body, isCut, bounds, told)
  else if (type === "application/json") { if (!isCut) tellWhole(unicode(body), told) }
  else told.text = unicode(isCut ? body.replace(/(?:[\xC0-\xDF]|[\xE0-\xEF][\x80-\xBF]?|[\xF0-\xFF][\x80-\xBF]{0,2})$/, "") : body)
  if (isCut && !told.isDone && told.problem === undefined) told.problem = { _tag: "tooLong", bytesMax: bounds.bodyBytesMax }
  if (told.problem !== undefined) told.text = told.text.replace(/[\uD800-\uDBFF]$/, "")
  return { ...told, text: Array.from(told.text, (character) => character === "\0" || /^[\uD800-\uDFFF]$/.test(character) ? "\uFFFD" : character).join("") }
}

const unicode = (bytes: string): string => new TextDecoder().decode(Buffer.from(bytes, "latin1"))

/** The complete lines, and the last when the answer ends behind it. `undefined` in the place of one that is too long. */
const linesOf = (body: string, isCut: boolean, bounds: Bounds): Array<string | undefined> => {
  const lines: Array<string | undefined> = body.split(/\r\n|\n|\r/)
  const last = lines.at(-1)!
  if ((isCut || last === "") && last.length <= bounds.lineBytesMax) lines.pop()
  return lines.map((line, at) => line!.length > bounds.lineBytesMax ? undefined : at === 0 ? line!.replace(/^\xEF\xBB\xBF/, "") : line)
}

const tellEvents = (body: string, isCut: boolean, bounds: Bounds, told: Told): void => {
  let event = ""
  let data: Array<string> = []
  const dispatch = () => {
    if (data.length > 0 || event === "error") tellPiece(unicodeKept(data.join("\n")), event, told)
    event = ""
    data = []
  }
  const tooLong = { _tag: "tooLong", bytesMax: bounds.lineBytesMax }
  for (const line of linesOf(body, isCut, bounds)) {
    if (told.isDone || told.problem !== undefined) return
    if (line === undefined) return void (told.problem = tooLong)
    if (line === "") { dispatch(); continue }
    const [, name, value = ""] = /^([^:]*)(?:: ?([^]*))?$/.exec(line)!
    if (name === "event") event = unicodeKept(value)
    if (name === "data") data.push(value)
    if (data.join("\n").length > bounds.lineBytesMax) return void (told.problem = tooLong)
  }
  if (!isCut && !told.isDone && told.problem === undefined) dispatch()
}

/** A mark inside the answer is a character. */
const unicodeKept = (bytes: string): string => new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.from(bytes, "latin1"))

const tellLines = (body: string, isCut: boolean, bounds: Bounds, told: Told): void => {
  for (const line of linesOf(body, isCut, bounds)) {
    if (told.isDone || told.problem !== undefined) return
    if (line === undefined) told.problem = { _tag: "tooLong", bytesMax: bounds.lineBytesMax }
    else if (unicodeKept(line).trim() !== "") tellPiece(unicodeKept(line), "", told)
  }
}

const parse = (text: string): { readonly value: unknown } | undefined => {
  try {
    return { value: JSON.parse(text) }
  } catch {
    return undefined
  }
}

const tellWhole = (text: string, told: Told): void => {
  const json = parse(text)
  const lines = text.split(/[\r\n]+/).filter((line) => line.trim() !== "")
  if (json !== undefined) tellValue(json.value, text, text, told)
  else if (lines.length > 0 && lines.every((line) => line.trim() === "[DONE]" || parse(line) !== undefined)) {
    for (const line of lines) if (!told.isDone && told.problem === undefined) tellPiece(line, "", told)
  } else told.text += text
}

const tellPiece = (data: string, event: string, told: Told): void => {
  const value = parse(data)?.value
  if (event === "error") fail(value, data, told)
  else if (event === "message_stop" || data.trim() === "[DONE]") told.isDone = true
  else if (typeof value === "string" || typeof value === "object" && value !== null && !Array.isArray(value)) tellValue(value, data, "", told)
  else told.text += data
}

const fail = (value: any, data: string, told: Told): void => {
  const words = [value?.error, value?.error?.message, value, value?.message].find((word) => typeof word === "string" && word !== "") ?? data
  told.problem = { _tag: "agentError", message: words.slice(0, 500).replaceAll("\0", "\uFFFD").toWellFormed() }
}

const tellValue = (value: any, data: string, otherwise: string, told: Told): void => {
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value)
  if (isObject && value.error) return fail(value, data, told)
  if (isObject && value.type === "message_stop") return void (told.isDone = true)
  const inside = (holder: any, key: string): unknown => typeof holder === "object" && holder !== null && !Array.isArray(holder) ? holder[key] : undefined
  const choice = isObject && Array.isArray(value.choices) ? [value.choices[0]] : []
  const candidates = typeof value === "string" ? [value]
    : !isObject ? []
    : Array.isArray(value.choices) ? choice.flatMap((first) => [inside(inside(first, "delta"), "content"), inside(first, "text"), inside(inside(first, "message"), "content")])
    : [inside(value.delta, "content"), inside(value.delta, "text"), value.delta, value.data, value.text, value.content, value.response, value.output]
  told.text += candidates.find((candidate) => typeof candidate === "string") ?? otherwise
}

const words = fc.array(fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom("a", " the", "\n", "\"", "\\", "{", "}", "[DONE]", "data: x", "0", "é", "你好", "🦊", "\uFEFF", "\u2028", "delta", "text", "message_stop") },
  { weight: 1, arbitrary: fc.constantFrom("\0", "\uD83E", "\uDD8A", "\r", "\t", "x".repeat(30)) },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 3 }) }
), { maxLength: 3 }).map((parts) => parts.join(""))

/** One way to write JSON: as JavaScript does, in ASCII only, with blanks, over several lines. */
const writing = fc.constantFrom<(value: unknown) => string>(
  (value) => JSON.stringify(value),
  (value) => JSON.stringify(value).replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`),
  (value) => JSON.stringify(value).replace(/":/g, "\" : ").replace(/,"/g, " , \""),
  (value) => JSON.stringify(value, null, 1)
)

/** What stands around the text of all pieces of a stream. */
const shape = fc.constantFrom<(text: string) => unknown>(
  (content) => ({ id: "chatcmpl-1", object: "chat.completion.chunk", choices: [{ index: 0, delta: { content }, finish_reason: null }] }),
  (text) => ({ choices: [{ text, delta: {}, index: 0 }], content: "content" }),
  (content) => ({ choices: [{ message: { role: "assistant", content }, logprobs: { content: [] } }] }),
  (text) => ({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } }),
  (content) => ({ delta: { content, text: "no" } }),
  (delta) => ({ delta }),
  (data) => ({ done: false, output: "", data, error: null }),
  (text) => ({ text, content: "no" }),
  (content) => ({ delta: 1, content }),
  (response) => ({ model: "llama", response }),
  (output) => ({ output, error: "" }),
  (text) => text
)

const silent = fc.constantFrom<unknown>(
  { choices: [{ delta: { role: "assistant" } }] }, { choices: [{ delta: { content: null, tool_calls: [{ function: { arguments: "{}" } }] } }] }, { choices: [], usage: { text: 1 } },
  { type: "message_start", message: { content: [] } }, { type: "content_block_delta", delta: { type: "input_json_delta", partial_json: "{" } }, { type: "ping" }, {}, { choices: [null] }, { delta: [{ text: "no" }] }
)
const failures = fc.constantFrom<unknown>(
  { error: "no credit" }, { type: "error", error: { type: "overloaded_error", message: "Over\0loaded" } }, { error: { code: 500 } }, { error: true, delta: "no" }, { error: { message: "" }, message: "worse" },
  { error: "🦊".repeat(300) }, { error: `${"x".repeat(499)}🦊` }, { error: ["no"] }, { type: "message_stop", error: "late" }
)

const oddValue = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom("\"delta\"", "\"deltax\"", "\"d\\u0065lta\"", "\"a\"", "\"\"", "\"\\\"text\\\":\\\"a\"", "{\"text\":\"a\"}", "[{\"text\":\"a\"}]", "null") },
  { weight: 1, arbitrary: fc.constantFrom("\"a\",", "a", "\"a\"b", "\"") }
)
/** JSON as nobody writes it: names twice, names and values that look alike, no JSON at all; from one to the next a value changes. */
const oddStream = fc.tuple(
  fc.array(fc.tuple(fc.constantFrom("delta", "data", "text", "dat\\u0061", "content", "type", "error", "choices", "x"), oddValue), { minLength: 1, maxLength: 4 }),
  fc.array(fc.tuple(fc.nat(), oddValue), { maxLength: 5 })
).map(([fields, changes]) => {
  const write = () => `{${fields.map(([name, value]) => `"${name}":${value}`).join(",")}}`
  const first = write()
  return [first, ...changes.map(([at, value]) => {
    fields[at % fields.length]![1] = value
    return write()
  })]
})

const often = <A>(often: fc.Arbitrary<A>, ...seldom: ReadonlyArray<fc.Arbitrary<A>>) => fc.oneof({ weight: 4 * seldom.length, arbitrary: often }, ...seldom)

/** The pieces of one stream: mostly one shape in one writing with other texts. */
const pieces = fc.tuple(shape, shape, writing, writing).chain(([main, other, usual, unusual]) => fc.array(often(
  words.map((text) => usual(main(text))),
  words.map((text) => unusual(main(text))),
  words.map((text) => usual(other(text))),
  fc.tuple(words, words).map(([text, obfuscation]) => usual(typeof main(text) === "object" ? { ...main(text) as object, obfuscation } : text)),
  silent.map(usual),
  words,
  fc.constantFrom("42", "null", "[1]", "", " ", " [DONE]x", "\"", "\"a\"\"", "{}}")
), { maxLength: 8 }))

const endings = often(fc.constant<ReadonlyArray<string>>([]),
  fc.constantFrom(["[DONE]"], [" [DONE] "], ["{\"type\":\"message_stop\"}"], ["[DONE]", "{\"delta\":\"behind\"}"]),
  fc.tuple(failures, writing).map(([failure, write]) => [write(failure), "{\"delta\":\"behind\"}"]))

const streams = fc.tuple(often(pieces, oddStream), endings).map(([before, behind]) => [...before, ...behind])

const lineEnd = fc.constantFrom("\n", "\r\n", "\r")

/** Writes pieces as events: names, comments, fields without a colon, other fields, lines that end in any way, the last without its end. */
const eventStream = fc.record({
  data: streams, lineEnd, mixed: fc.array(lineEnd), hasMark: often(fc.constant(""), fc.constant("\uFEFF")), colon: fc.constantFrom("data: ", "data:"),
  around: fc.array(often(fc.constant(""), fc.constantFrom("event: content_block_delta", "event:message", ": keep alive", ":", "id: 7", "retry", "data", "Data: x", " data: x", "database: x", "event", "data :x", "\uFEFFdata: x"),
    fc.constantFrom("event: error", "event: message_stop")), { minLength: 1 }),
  end: fc.constantFrom("", "\n", "\n\n", "\r\r", "\ndata: ", "\nevent: error")
}).map(({ around, colon, data, end, hasMark, lineEnd, mixed }) => {
  let turn = 0
  const events = data.map((piece, at) => {
    const extra = around[at % around.length]!
    return [...extra === "" ? [] : [extra], ...piece.split(/\r\n|\r|\n/).map((line) => `${colon}${line}`), ""].map((line) => line + (mixed[turn++ % 7] ?? lineEnd)).join("")
  })
  return Buffer.from(hasMark + events.join("").replace(/[\r\n]+$/, "") + end)
})

const lines = fc.record({ data: streams, lineEnd, hasMark: often(fc.constant(""), fc.constant("\uFEFF")), hasEnd: fc.boolean(), blank: fc.constantFrom("", "", "\n", " \r\n") })
  .map(({ blank, data, hasEnd, hasMark, lineEnd }) => Buffer.from(hasMark + data.map((piece) => piece.replace(/[\r\n]+/g, " ")).join(lineEnd + blank) + (hasEnd ? lineEnd : "")))

const json = fc.oneof(
  fc.tuple(shape, words, writing, fc.constantFrom("", "\uFEFF", " \n")).map(([around, text, write, before]) => Buffer.from(before + write(around(text)))),
  fc.tuple(fc.oneof(silent, failures), writing).map(([value, write]) => Buffer.from(write(value))),
  fc.constantFrom("", " ", "42", "[{\"text\":\"a\"}]", "null", "{\"text\":\"a\"", "{\"text\":\"a\"}\n[DONE]\n").map((text) => Buffer.from(text)),
  lines
)

const plain = fc.array(words, { maxLength: 8 }).map((parts) => Buffer.from(parts.join("")))

const garbage = fc.array(fc.tuple(fc.nat(), fc.constantFrom(0, 0x0A, 0x0D, 0x22, 0x3A, 0x5C, 0x7B, 0x7D, 0x80, 0xBF, 0xC0, 0xE2, 0xED, 0xEF, 0xF0, 0xF4, 0xFF)), { maxLength: 3 })

const answers = fc.tuple(
  fc.oneof(
    { weight: 3, arbitrary: fc.record({ type: fc.constant("text/event-stream"), bytes: eventStream }) },
    ...Object.entries({ "application/x-ndjson": lines, "application/json": json, "text/plain": plain }).map(([type, bytes]) => ({ weight: 1, arbitrary: fc.record({ type: fc.constant(type), bytes }) }))
  ),
  often(fc.constant<Array<[number, number]>>([]), garbage),
  often(fc.constant(wide), fc.record({ lineBytesMax: fc.integer({ min: 1, max: 300 }), bodyBytesMax: fc.integer({ min: 0, max: 600 }) }))
).map(([{ bytes, type }, changes, bounds]) => {
  for (const [at, byte] of changes) if (bytes.length > 0) bytes[at % bytes.length] = byte
  return { type, bytes, bounds }
})

const each = (length: number): Array<number> => Array.from({ length }, (_, at) => at)

describe("an agent's answer", () => {
  it("says what a naive reading of the whole says", () => {
    fc.assert(fc.property(answers, ({ bounds, bytes, type }) => {
      expect(read(type, bytes, bounds)).toEqual(expected(type, bytes, bounds))
    }), { seed, numRuns: 5_000 * times })
  }, 30_000 * times)

  it("says the same wherever one read ends and the next begins, and byte by byte", () => {
    fc.assert(fc.property(answers, ({ bounds, bytes, type }) => {
      const whole = JSON.stringify(read(type, bytes, bounds))
      const differing = each(bytes.length + 1).filter((at) => JSON.stringify(read(type, bytes, bounds, [at])) !== whole)
      expect([whole, differing]).toEqual([whole, []])
      expect(JSON.stringify(read(type, bytes, bounds, each(bytes.length)))).toBe(whole)
    }), { seed, numRuns: 200 * times })
  }, 30_000 * times)

  it("says the same however many reads it comes in", () => {
    fc.assert(fc.property(answers, fc.array(fc.nat(2_000), { maxLength: 12 }), ({ bounds, bytes, type }, cuts) => {
      const ends = cuts.map((cut) => cut % (bytes.length + 1)).sort((one, other) => one - other)
      expect(read(type, bytes, bounds, ends)).toEqual(read(type, bytes, bounds))
    }), { seed, numRuns: 2_000 * times })
  }, 30_000 * times)
})
