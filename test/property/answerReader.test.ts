import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { AnswerReader, BrokenAnswer, answerHeadBytesMax } from "../../src/kernel/upstream/AnswerReader.ts"

// A failing run prints its seed; `SEED=… npx vitest` runs it again.
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31)

interface Read {
  head: readonly [status: number, fields: ReadonlyArray<string>, contentLength: number | undefined] | undefined
  body: string
  pieces: number
  /** `undefined` while the answer is not complete. */
  end: { readonly keepAliveMs: number | undefined } | undefined
  isBroken: boolean
}

/** What a reader makes of the bytes when they come in pieces of these sizes, the rest in one, and the connection then ends. */
const read = (bytes: Buffer, sizes: ReadonlyArray<number> = [], method = "POST"): Read => {
  const seen: Read = { head: undefined, body: "", pieces: 0, end: undefined, isBroken: false }
  const reader = new AnswerReader({
    onHead: (status, fields, contentLength) => { seen.head = [status, [...fields], contentLength] },
    onData: (data) => {
      seen.body += data.toString("latin1")
      seen.pieces++
    },
    onEnd: (keepAliveMs) => { seen.end = { keepAliveMs } }
  })
  reader.expect(method)
  try {
    for (let at = 0, turn = 0; at < bytes.length && seen.end === undefined; turn++) {
      const piece = Buffer.from(bytes.subarray(at, at + (sizes[turn] ?? bytes.length)))
      at += piece.length
      reader.read(piece, piece.length)
    }
    if (seen.end === undefined) reader.close()
  } catch (error) {
    if (!(error instanceof BrokenAnswer)) throw error
    seen.isBroken = true
  }
  return seen
}

const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 60 })
const text = fc.stringMatching(/^[ -~]{0,30}$/).map((value) => value.trim())
const name = fc.stringMatching(/^x-[a-z0-9-]{1,12}$/)
const fields = fc.array(fc.tuple(name, text), { maxLength: 6 })
const body = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes).toString("latin1"))

const chunked = (content: string, sizes: ReadonlyArray<number>): string => {
  let out = ""
  for (let at = 0, turn = 0; at < content.length; turn++) {
    const part = content.slice(at, at + (sizes[turn] ?? 1_000))
    at += part.length
    out += `${turn % 2 === 0 ? part.length.toString(16) : part.length.toString(16).toUpperCase()}${turn % 3 === 0 ? ";ext=\"1\"" : ""}\r\n${part}\r\n`
  }
  return `${out}0\r\n${sizes.length % 2 === 0 ? "" : "x-trailer: 1\r\n"}\r\n`
}

const linesOf = (headers: ReadonlyArray<readonly [string, string]>): string => headers.map(([key, value]) => `${key}: ${value}\r\n`).join("")

const answers = fc.record({
  status: fc.integer({ min: 200, max: 599 }).filter((status) => status !== 204 && status !== 304),
  headers: fields, content: body, sizes: cuts, framing: fc.constantFrom("length", "chunks", "close"), hints: fc.integer({ min: 0, max: 3 })
}).map(({ content, framing, headers, hints, sizes, status }) => {
  const hint = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(hints)
  const head = `${hint}HTTP/1.1 ${status} Whatever\r\n${linesOf(headers)}`
  const wire = framing === "length" ? `${head}content-length: ${content.length}\r\n\r\n${content}`
    : framing === "chunks" ? `${head}transfer-encoding: chunked\r\n\r\n${chunked(content, sizes)}`
    : `${head}\r\n${content}`
  return { wire: Buffer.from(wire, "latin1"), status, headers, content, framing }
})

describe("an answer", () => {
  it("is what was sent, however the reads cut it", () => {
    fc.assert(fc.property(answers, cuts, ({ content, framing, headers, status, wire }, sizes) => {
      const seen = read(wire, sizes)
      expect(seen.isBroken).toBe(false)
      expect(seen.body).toBe(content)
      expect(seen.head![0]).toBe(status)
      expect(seen.head![1].slice(0, headers.length * 2)).toEqual(headers.flat())
      expect(seen.head![2]).toBe(framing === "length" ? content.length : undefined)
      expect(seen.end).toEqual({ keepAliveMs: framing === "close" ? 0 : undefined })
    }), { seed, numRuns: 2_000 })
  })

  it("with bytes changed is refused or read, but the same way however the reads cut it, and nothing else is thrown", () => {
    const change = fc.record({ at: fc.nat(), byte: fc.constantFrom(0, 9, 10, 13, 32, 48, 58, 59, 97, 127, 200) })
    fc.assert(fc.property(answers, fc.array(change, { minLength: 1, maxLength: 3 }), cuts, ({ wire }, changes, sizes) => {
      const bytes = Buffer.from(wire)
      for (const { at, byte } of changes) bytes[at % bytes.length] = byte
      const whole = read(bytes)
      const { pieces: _, body: inPieces, ...cut } = read(bytes, sizes)
      const { pieces: __, body: atOnce, ...once } = whole
      // Behind a complete answer the next bytes are seen only when they came along.
      const settled = (seen: typeof cut) => ({ ...seen, end: seen.end === undefined })
      expect(settled(cut)).toEqual(settled(once))
      // A reader that meets the fault has delivered what came in earlier reads.
      if (whole.isBroken) expect(inPieces.startsWith(atOnce)).toBe(true)
      else expect(inPieces).toBe(atOnce)
    }), { seed, numRuns: 5_000 })
  })

  it("that ends early is broken at every length but its own", () => {
    for (const wire of ["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]) {
      for (let length = 1; length < wire.length; length++) expect([length, read(Buffer.from(wire.slice(0, length))).isBroken]).toEqual([length, true])
      expect(read(Buffer.from(wire)).isBroken).toBe(false)
    }
  })

  it("comes in one piece a read, however small its chunks are", () => {
    const seen = read(Buffer.from(`HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n${"1\r\nx\r\n".repeat(1_000)}0\r\n\r\n`))
    expect([seen.body.length, seen.pieces]).toEqual([1_000, 1])
  })

  const ok = "HTTP/1.1 200 OK\r\n"
  it.each([
    ["no version", "HTTP 200 OK\r\n\r\n"], ["another version", "HTTP/2.0 200 OK\r\n\r\n"], ["no status", "HTTP/1.1\r\n\r\n"], ["a short status", "HTTP/1.1 20 OK\r\n\r\n"],
    ["a long status", "HTTP/1.1 2000 OK\r\n\r\n"], ["a status out of range", "HTTP/1.1 999 OK\r\n\r\n"], ["letters for a status", "HTTP/1.1 2x0 OK\r\n\r\n"], ["an empty line first", `\r\n${ok}\r\n`],
    ["a lone LF", "HTTP/1.1 200 OK\ncontent-length: 0\r\n\r\n"], ["a lone CR", `${ok}x: a\rb\r\n\r\n`], ["a NUL", `${ok}x: a\0b\r\n\r\n`], ["a fold", `${ok}x: a\r\n b\r\n\r\n`],
    ["a header without a colon", `${ok}nothing\r\n\r\n`], ["a header without a name", `${ok}: a\r\n\r\n`], ["a blank before the colon", `${ok}content-length : 0\r\n\r\n`],
    ["two lengths", `${ok}content-length: 2\r\ncontent-length: 2\r\n\r\nok`], ["a list of lengths", `${ok}content-length: 2, 2\r\n\r\nok`], ["a negative length", `${ok}content-length: -1\r\n\r\n`],
    ["a signed length", `${ok}content-length: +2\r\n\r\nok`], ["an empty length", `${ok}content-length:\r\n\r\n`], ["a hexadecimal length", `${ok}content-length: 0x2\r\n\r\nok`],
    ["a length and chunks", `${ok}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`], ["chunks and a length", `${ok}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n`],
    ["chunks and a length of 0", `${ok}transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n`],
    ["two codings", `${ok}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n`], ["chunks twice", `${ok}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`],
    ["chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"], ["a chunk without a size", `${ok}transfer-encoding: chunked\r\n\r\n\r\nx\r\n0\r\n\r\n`],
    ["a negative chunk", `${ok}transfer-encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n`], ["a chunk of too many digits", `${ok}transfer-encoding: chunked\r\n\r\n${"0".repeat(12)}1\r\nx\r\n0\r\n\r\n`],
    ["a chunk longer than its size", `${ok}transfer-encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n`], ["chunks that end with a lone LF", `${ok}transfer-encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n`],
    ["an endless extension", `${ok}transfer-encoding: chunked\r\n\r\n1;${"x".repeat(2_000)}\r\nx\r\n0\r\n\r\n`], ["endless trailers", `${ok}transfer-encoding: chunked\r\n\r\n0\r\n${`a: ${"x".repeat(1_000)}\r\n`.repeat(40)}\r\n`],
    ["an endless head", `${ok}x: ${"x".repeat(answerHeadBytesMax)}\r\n\r\n`], ["endless hints", "HTTP/1.1 103 Early\r\nx: y\r\n\r\n".repeat(2_000)], ["a switch of protocols", "HTTP/1.1 101 Switching\r\n\r\n"]
  ])("with %s is broken", (_what, wire) => {
    const seen = read(Buffer.from(wire, "latin1"))
    expect([seen.isBroken, seen.end]).toEqual([true, undefined])
  })

  it.each([
    ["to HEAD", "HEAD", `${ok}content-length: 5\r\n\r\n`], ["of 204", "POST", "HTTP/1.1 204 No Content\r\n\r\n"], ["of 304", "GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"],
    ["of length 0", "POST", `${ok}content-length: 0\r\n\r\n`]
  ])("%s ends with its head", (_what, method, wire) => {
    expect(read(Buffer.from(wire), [], method)).toMatchObject({ body: "", end: { keepAliveMs: undefined }, isBroken: false })
  })

  it.each([
    ["connection: close", 0], ["Connection: x-a, Close", 0], ["keep-alive: timeout=7", 7_000], ["keep-alive: max=3, timeout=7", 7_000], ["connection: keep-alive", undefined]
  ])("with %s leaves its connection for %s ms", (line, keepAliveMs) => {
    expect(read(Buffer.from(`${ok}${line}\r\ncontent-length: 0\r\n\r\n`)).end).toEqual({ keepAliveMs })
  })

  it("with bytes behind it is complete, and its connection is not used again", () => {
    expect(read(Buffer.from(`${ok}content-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n`))).toMatchObject({ body: "ok", end: { keepAliveMs: 0 }, isBroken: false })
    expect(read(Buffer.from("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"))).toMatchObject({ body: "ok", end: { keepAliveMs: 0 } })
  })

  it("that nobody asked for is a breach", () => {
    const reader = new AnswerReader({ onHead: () => {}, onData: () => {}, onEnd: () => {} })
    expect(() => reader.read(Buffer.from(ok), ok.length)).toThrow(BrokenAnswer)
  })

  it("is heard no further once its sink has stopped it", () => {
    const heard: Array<string> = []
    const reader = new AnswerReader({ onHead: () => { heard.push("head"); reader.stop() }, onData: () => { heard.push("data") }, onEnd: () => { heard.push("end") } })
    reader.expect("GET")
    const wire = Buffer.from(`${ok}content-length: 2\r\n\r\nok`)
    reader.read(wire, wire.length)
    expect(heard).toEqual(["head"])
  })
})
