import { describe, expect, it } from "vitest"
import { makeDeltaReader } from "../../../../src/kernel/chat/DeltaReader.ts"

const KiB = 1024
const MiB = 1024 * KiB
const bounds = { lineBytesMax: 64 * KiB, bodyBytesMax: 4 * MiB }
const sse = "text/event-stream"
const ndjson = "application/x-ndjson"

/** What each read answered, and the end; empty answers left out. */
const deltas = (type: string | undefined, ...reads: ReadonlyArray<string>): { deltas: ReadonlyArray<string>; isDone: boolean; problem: unknown } => {
  const reader = makeDeltaReader(type, bounds)
  const answers = reads.map((bytes) => reader.read(Buffer.from(bytes)))
  return { deltas: [...answers, reader.end()].filter((text) => text !== ""), isDone: reader.isDone, problem: reader.problem }
}

const textOf = (type: string | undefined, ...reads: ReadonlyArray<string>): string => deltas(type, ...reads).deltas.join("")

const openAi = (delta: object): string => `data: ${JSON.stringify({ id: "chatcmpl-1", object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason: null }] })}\n\n`

describe("a stream of events", () => {
  it("of OpenAI chunks gives each delta with its read, and is done at [DONE], whatever comes behind", () => {
    expect(deltas(sse, openAi({ role: "assistant", content: "" }), openAi({ content: "The" }), openAi({ content: " Fed\n" }), openAi({ content: "\"said\"" }), openAi({}),
      "data: [DONE]\n\n", openAi({ content: "more" }))).toEqual({ deltas: ["The", " Fed\n", "\"said\""], isDone: true, problem: undefined })
  })

  it("of Anthropic events gives their text and no tool input, and is done at message_stop", () => {
    const event = (type: string, rest: object) => `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`
    expect(deltas(sse, event("message_start", { message: { role: "assistant", content: [] } }), event("content_block_start", { index: 0, content_block: { type: "text", text: "" } }),
      event("ping", {}), event("content_block_delta", { index: 0, delta: { type: "text_delta", text: "Hello" } }), event("content_block_delta", { index: 0, delta: { type: "text_delta", text: "!" } }),
      event("content_block_delta", { index: 1, delta: { type: "input_json_delta", partial_json: "{\"text\":\"no\"}" } }), event("message_delta", { delta: { stop_reason: "end_turn" } }),
      event("message_stop", {}))).toEqual({ deltas: ["Hello", "!"], isDone: true, problem: undefined })
  })

  it.each([
    ["an OpenAI text", "{\"choices\":[{\"text\":\"hi\"}]}"], ["an OpenAI message", "{\"choices\":[{\"message\":{\"content\":\"hi\"}}]}"], ["a delta", "{\"delta\":\"hi\"}"],
    ["a delta's content", "{\"delta\":{\"content\":\"hi\"}}"], ["a delta's text", "{\"delta\":{\"text\":\"hi\"}}"], ["data", "{\"data\":\"hi\"}"], ["a text", "{\"text\":\"hi\"}"], ["a content", "{\"content\":\"hi\"}"],
    ["a response", "{\"response\":\"hi\"}"], ["an output", "{\"output\":\"hi\"}"], ["the first of two", "{\"output\":\"no\",\"data\":\"hi\"}"], ["a JSON string", "\"hi\""], ["no JSON", "hi"]
  ])("with %s gives it", (_what, data) => {
    expect(textOf(sse, `data: ${data}\n\n`)).toBe("hi")
    expect(textOf(ndjson, `${data}\n`)).toBe("hi")
  })

  it.each(["42", "null", "true", "[1,2]", "{half", "\"", " two spaces", "[DONE]!"])("passes %j on as it is", (data) => {
    expect(textOf(sse, `data: ${data}\n\n`)).toBe(data)
  })

  it.each(["{}", "{\"type\":\"ping\"}", "{\"choices\":[]}", "{\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}", "{\"choices\":[{\"delta\":{\"content\":null,\"tool_calls\":[{}]}}]}", "{\"text\":7}"])(
    "hears no text in %s", (data) => expect(textOf(sse, `data: ${data}\n\n`)).toBe(""))

  it("is read as browsers read it: byte order mark, all line ends, comments, other fields, data over lines", () => {
    expect(textOf(sse, "\uFEFFdata: a\r\rdata:b\n\n: comment\r\nid: 1\r\nretry: 5\r\ndata: c\r\ndata\r\ndata:  d\r\n\r\n\r\nother: e\n\n")).toBe("abc\n\n d")
    expect(textOf(sse, "data: a\r", "", "\ndata: b\r", "\n\r", "\n", "data: c\r\r")).toBe("a\nbc")
  })

  it("gives its last event without a blank line or an end of line", () => {
    expect(textOf(sse, "data: a\n\ndata: b\n")).toBe("ab")
    expect(textOf(sse, "data: a\n\ndata: {\"delta\":\"b\"}")).toBe("ab")
  })

  it("tells a failure of the agent in its words, and nothing that comes behind it", () => {
    const failed = (message: string) => ({ deltas: ["a"], isDone: false, problem: { _tag: "agentError", message } })
    const behind = "data: b\n\n"
    expect(deltas(sse, "data: a\n\n", `data: {"error":{"message":"no credit","code":7}}\n\n${behind}`, behind)).toEqual(failed("no credit"))
    expect(deltas(sse, "data: a\n\n", `data: {"error":"down","delta":"b"}\n\n${behind}`)).toEqual(failed("down"))
    expect(deltas(sse, "data: a\n\n", `event: error\ndata: out of memory\n\n${behind}`)).toEqual(failed("out of memory"))
    expect(deltas(sse, "data: a\n\n", `event: error\ndata: {"message":"busy"}\n\n${behind}`)).toEqual(failed("busy"))
    expect(deltas(sse, "data: a\n\n", `event: error\ndata: {"code":7}\n\n${behind}`)).toEqual(failed("{\"code\":7}"))
    expect(deltas(sse, "data: a\n\n", "event: error")).toEqual(failed(""))
    expect(deltas(sse, "data: a\n\n", `data: {"error":"${"x\\u0000".repeat(300)}"}\n\n`)).toEqual(failed("x\uFFFD".repeat(250)))
    expect(deltas(sse, "data: {\"error\":null,\"delta\":\"a\"}\n\n", "data: {\"error\":{\"code\":7}}\n\n")).toEqual(failed("{\"error\":{\"code\":7}}"))
  })

  it("that was alike for long is still read exactly where it differs", () => {
    const around = (rest: string) => `data: {"id":1,"delta":${rest}}\n\n`
    expect(deltas(sse, ...["\"a\"", "\"b\"", "null,\"data\":\"c\"", "\"d\",\"delta\":\"e\"", "\"f\",\"type\":\"x\"", "\"\\u0067\"", "\"\"", "\"h", "\"i\",\"error\":\"down\""].map(around))).toEqual(
      { deltas: ["a", "b", "c", "e", "f", "g", "{\"id\":1,\"delta\":\"h}"], isDone: false, problem: { _tag: "agentError", message: "down" } })
  })
})

describe("the text of an answer", () => {
  it("has whole characters, also of pairs that the agent cut over two deltas", () => {
    expect(deltas(sse, "data: {\"delta\":\"a\\ud83e\"}\n\n", "data: {\"delta\":\"\"}\n\n", "data: {\"delta\":\"\\udd8ab\"}\n\n").deltas).toEqual(["a", "🦊b"])
    const fox = Buffer.from("🦊")
    const reader = makeDeltaReader("text/plain", bounds)
    expect([...fox].map((byte) => reader.read(Uint8Array.of(byte)))).toEqual(["", "", "", "🦊"])
  })

  it("has U+FFFD for what can't be stored: NUL, half a pair, bytes that are no UTF-8", () => {
    expect(textOf(sse, "data: {\"delta\":\"\\u0000\\udd8a\\ud83e\"}\n\n", "data: {\"delta\":\"x\"}\n\n")).toBe("\uFFFD\uFFFD\uFFFDx")
    expect(deltas(sse, "data: {\"delta\":\"\\ud83e\"}\n\n", "data: [DONE]\n\n").deltas).toEqual(["\uFFFD"])
    expect(deltas(sse, "data: {\"delta\":\"\\ud83e\"}\n\n").deltas).toEqual(["\uFFFD"])
    expect(deltas(sse, "data: {\"delta\":\"\\ud83e\"}\n\n", "event: error").deltas).toEqual([])
    const reader = makeDeltaReader(undefined, bounds)
    expect(reader.read(Uint8Array.of(0x61, 0, 0xFF, 0xF0, 0x9F)) + reader.end()).toBe("a\uFFFD\uFFFD\uFFFD")
  })
})

describe("an answer that is no stream of events", () => {
  it.each(["application/x-ndjson", "application/ndjson; charset=utf-8", "application/jsonl", "Application/JSONLines"])("of %s gives each line with its read", (type) => {
    expect(deltas(type, "{\"response\":\"a\"}\n", "{\"response\":", "\"b\"}\r\n\n \n{\"done\":true}\nc", "\n[DONE]\n", "d\n")).toEqual({ deltas: ["a", "b", "c"], isDone: true, problem: undefined })
  })

  it("of one JSON value gives its text at the end", () => {
    expect(deltas("application/json; charset=utf-8", "\uFEFF{\"output\":", "\"a\\n\"}\n").deltas).toEqual(["a\n"])
    expect(textOf("application/json", JSON.stringify({ object: "chat.completion", choices: [{ message: { role: "assistant", content: "a" } }] }, null, 2))).toBe("a")
    expect(textOf("application/json", "\"a\"")).toBe("a")
    expect(deltas("application/problem+json", "{\"error\":\"down\"}").problem).toEqual({ _tag: "agentError", message: "down" })
  })

  it.each(["{\"result\":{\"a\":1}}", "[1, 2]", "42", "{\"choices\":[]}", "not JSON", "{\"delta\":\"a\"}\nnot JSON", ""])("of JSON gives %j as it is", (body) => {
    expect(textOf("application/json", body)).toBe(body)
  })

  it("of JSON lines that call themselves JSON is read line by line", () => {
    expect(deltas("application/json", "{\"response\":\"a\"}\n{\"response\":\"b\"}\n", "[DONE]\n{\"response\":\"c\"}\n")).toEqual({ deltas: ["ab"], isDone: true, problem: undefined })
  })

  it.each([undefined, "", "text/plain", "text/html; charset=utf-8", "nonsense"])("of type %j is text as it comes", (type) => {
    expect(deltas(type, "\uFEFFdata: a", "\n\n{\"delta\":\"b\"}").deltas).toEqual(["data: a", "\n\n{\"delta\":\"b\"}"])
  })
})

describe("the bounds of an answer", () => {
  const block = Buffer.alloc(64 * KiB, "x")

  /** How many bytes are read before it refuses. */
  const refusedAfter = (type: string, bytes: Uint8Array): readonly [number, unknown] => {
    const reader = makeDeltaReader(type, bounds)
    let size = 0
    while (reader.problem === undefined && size < 256 * MiB) {
      reader.read(bytes)
      size += bytes.length
    }
    return [size, reader.problem]
  }

  it("refuse 256 MiB without an end of line at the first byte too many", () => {
    expect(refusedAfter(sse, block)).toEqual([128 * KiB, { _tag: "tooLong", bytesMax: bounds.lineBytesMax }])
    expect(refusedAfter(ndjson, block)).toEqual([128 * KiB, { _tag: "tooLong", bytesMax: bounds.lineBytesMax }])
    for (const type of ["application/json", "text/plain"]) expect(refusedAfter(type, block)).toEqual([bounds.bodyBytesMax + block.length, { _tag: "tooLong", bytesMax: bounds.bodyBytesMax }])
  })

  it("refuse one event of endless lines, and endless lines without an event", () => {
    expect(refusedAfter(sse, Buffer.from("data: 12345\n"))).toEqual([12 * Math.ceil((bounds.lineBytesMax + 2) / 6), { _tag: "tooLong", bytesMax: bounds.lineBytesMax }])
    expect(refusedAfter(sse, Buffer.from("id: 12345678901\n"))).toEqual([bounds.bodyBytesMax + 16, { _tag: "tooLong", bytesMax: bounds.bodyBytesMax }])
  })

  it("let a line, and an answer, be as long as they say", () => {
    const short = { lineBytesMax: 8, bodyBytesMax: 12 }
    const exact = makeDeltaReader(sse, short)
    expect([exact.read(Buffer.from("data: ab")), exact.read(Buffer.from("\n\nid")), exact.end(), exact.problem]).toEqual(["", "ab", "", undefined])
    const told = (bytes: string) => {
      const reader = makeDeltaReader(sse, { lineBytesMax: 8, bodyBytesMax: 100 })
      return [reader.read(Buffer.from(bytes)) + reader.end(), reader.problem?._tag]
    }
    expect([told("data:abc\ndata:abc\ndata"), told("data:abc\ndata:abc\ndata:a"), told("data:abcd\n\n")]).toEqual([["abc\nabc\n", undefined], ["", "tooLong"], ["", "tooLong"]])
    const longer = makeDeltaReader(sse, short)
    expect([longer.read(Buffer.from("data: a\n\nid: b")), longer.problem, longer.read(Buffer.from("\n")), longer.end()]).toEqual(["a", { _tag: "tooLong", bytesMax: 12 }, "", ""])
  })

  it("hold for memory too: bytes that come one by one are kept as bytes", () => {
    const byte = Buffer.from(" ")
    const kept = [sse, "application/json"].map((type) => {
      const reader = makeDeltaReader(type, { lineBytesMax: 1 * MiB, bodyBytesMax: 1 * MiB })
      const { arrayBuffers, heapUsed } = process.memoryUsage()
      for (let at = 0; at < 1 * MiB; at++) reader.read(byte)
      const after = process.memoryUsage()
      expect(reader.problem).toBeUndefined()
      return after.heapUsed - heapUsed + after.arrayBuffers - arrayBuffers
    })
    // The doubled blocks that were given up may not have been collected yet.
    for (const bytes of kept) expect(bytes).toBeLessThan(8 * MiB)
  })

  it("hold for effort: after a thousand pieces that look like JSON and are none, all is text", () => {
    const good = "data: {\"delta\":\"a\"}\n\n"
    const broken = "data: {}}\n\n"
    expect(textOf(sse, good, broken.repeat(999), good)).toBe(`a${"{}}".repeat(999)}a`)
    expect(textOf(sse, good, broken.repeat(1_000), good)).toBe(`a${"{}}".repeat(1_000)}{"delta":"a"}`)
  })

  it("hold for effort: ten thousand JSON lines at once are read, more are text", () => {
    const line = "{\"delta\":\"a\"}\n"
    expect(textOf("application/json", line.repeat(10_000))).toBe("a".repeat(10_000))
    expect(textOf("application/json", line.repeat(10_001))).toBe(line.repeat(10_001))
  })
})

describe("a JSON answer", () => {
  it("has a bound of its own, which a stream does not have", () => {
    const bounds = { lineBytesMax: 1_000, bodyBytesMax: 1_000, wholeBytesMax: 10 }
    const whole = makeDeltaReader("application/json", bounds)
    whole.read(Buffer.from(`"12345678"`))
    expect(whole.problem).toBeUndefined()
    whole.read(Buffer.from(" "))
    expect(whole.problem).toEqual({ _tag: "tooLong", bytesMax: 10 })
    const lines = makeDeltaReader("application/x-ndjson", bounds)
    expect(lines.read(Buffer.from(`"123456789012345"\n`))).toBe("123456789012345")
  })
})
