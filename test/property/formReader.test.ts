import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { limits } from "../../src/config.ts"
import { type FormPart, FormReader, boundaryOf } from "../../src/http/rows/FormReader.ts"
import { boundary, ending, field, part } from "../support/Form.ts"

// A failing run prints its seed; `SEED=… npx vitest` runs it again.
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31)

interface Read {
  readonly parts: Array<FormPart & { content: string }>
  end: "complete" | "open" | string
}

/** What a reader makes of the bytes when they come in pieces of these sizes, the rest in one. */
const read = (bytes: Uint8Array, sizes: ReadonlyArray<number> = [], edge = boundary): Read => {
  const seen: Read = { parts: [], end: "open" }
  const reader = new FormReader(edge)
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const piece = Buffer.from(bytes.subarray(at, at + (sizes[turn] ?? bytes.length)))
    at += piece.length
    reader.feed(piece)
    for (let event = reader.next(); event !== undefined; event = reader.next()) {
      if (event._tag === "part") seen.parts.push({ ...event.part, content: "" })
      else if (event._tag === "bytes") seen.parts.at(-1)!.content += Buffer.from(event.bytes).toString("latin1")
      else seen.end = event._tag === "end" ? "complete" : event.msg
    }
  }
  return seen
}

const edges = fc.constantFrom("x", boundary, "-".repeat(70), "--", "a=b;c d'(", "\\\".*")
/** Full of what looks like a delimiter, and is none as long as it is not the whole of one. */
const contents = (edge: string) => fc.array(fc.oneof(
  fc.constantFrom("\r", "\n", "\r\n", "-", "--", "\r\n-", "\r\n--", `\r\n--${edge.slice(0, -1)}`, `--${edge}`, `\n--${edge}`, `\r--${edge}`, "\0"),
  fc.string({ maxLength: 9 })
), { maxLength: 12 }).map((pieces) => Buffer.from(pieces.join(""))).filter((bytes) => !bytes.includes(`\r\n--${edge}`) && !bytes.subarray(0, edge.length + 2).equals(Buffer.from(`--${edge}`)))
const names = fc.string({ minLength: 1, maxLength: 12 }).filter((name) => !/["\\\0-\x1f\x7f]/.test(name))
const forms = edges.chain((edge) => fc.tuple(
  fc.constant(edge),
  fc.array(fc.record({ name: names, fileName: fc.option(names, { nil: undefined }), contentType: fc.constantFrom(undefined, "text/plain", "Text/CSV; charset=UTF-8; x=\"a;b\""), content: contents(edge) }), { maxLength: 5 })
)).map(([edge, parts]) => ({ edge, parts, bytes: Buffer.concat([...parts.map(({ name, fileName, contentType, content }) => part(
  `content-disposition: form-data; name="${name}"${fileName === undefined ? "" : `; filename="${fileName}"`}${contentType === undefined ? "" : `\r\nCONTENT-TYPE: ${contentType}`}`, content, edge
)), ending(edge)]) }))

describe("a form", () => {
  it("is read as it was written, wherever its bytes are cut", () => {
    fc.assert(fc.property(forms, fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 200 }), ({ edge, parts, bytes }, sizes) => {
      const expected = parts.map(({ content, ...head }) => ({ ...head, content: content.toString("latin1") }))
      for (const seen of [read(bytes, [], edge), read(bytes, sizes, edge), read(bytes, new Array<number>(bytes.length).fill(1), edge)]) {
        expect(seen).toEqual({ parts: expected, end: "complete" })
      }
    }), { seed, numRuns: 1_000 })
  })

  it("is read as another implementation writes it", async () => {
    await fc.assert(fc.asyncProperty(fc.array(fc.tuple(names, fc.oneof(fc.string(), fc.uint8Array({ maxLength: 300 }))), { minLength: 1, maxLength: 5 }), async (entries) => {
      const form = new FormData()
      for (const [name, value] of entries) typeof value === "string" ? form.append(name, value) : form.append(name, new File([value], `${name}.bin`, { type: "image/png" }))
      const written = new Response(form)
      const edge = boundaryOf(written.headers.get("content-type")!)!
      const seen = read(new Uint8Array(await written.arrayBuffer()), [7, 300], edge)
      expect(seen.end).toBe("complete")
      expect(seen.parts.map(({ name, content }) => [name, content])).toEqual(entries.map(([name, value]) =>
        [name, Buffer.from(typeof value === "string" ? value.replace(/\r?\n|\r/g, "\r\n").toWellFormed() : value).toString("latin1")]))
    }), { seed, numRuns: 200 })
  })

  it("that is damaged anywhere is read the same however it is cut, and never said to be complete before its end", () => {
    fc.assert(fc.property(forms, fc.nat(), fc.constantFrom("\r", "\n", "\r\n", "-", ":", "\"", ";", "\0", "x"), fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 200 }), ({ edge, bytes }, place, put, sizes) => {
      const at = place % bytes.length
      const damaged = Buffer.concat([bytes.subarray(0, at), Buffer.from(put), bytes.subarray(at + 1)])
      expect(read(damaged, sizes, edge)).toEqual(read(damaged, [], edge))
      expect(read(bytes.subarray(0, Math.min(at, bytes.length - 4)), sizes, edge).end).toBe("open")
    }), { seed, numRuns: 1_000 })
  })
})

describe("what stands around the parts", () => {
  it.each([
    ["nothing", ""], ["an empty line", "\r\n"], ["words for those who can't read forms", "This is a form.\r\n"]
  ])("may be %s before the first", (_, preamble) => {
    expect(read(Buffer.concat([Buffer.from(preamble), field("a", "1"), ending()]))).toMatchObject({ parts: [{ name: "a", content: "1" }], end: "complete" })
  })

  it("may be anything after the last", () => {
    expect(read(Buffer.concat([field("a", "1"), ending(), Buffer.from("words"), field("b", "2"), ending()])).parts).toHaveLength(1)
  })

  it("may be blanks behind a boundary, and nothing else", () => {
    expect(read(Buffer.concat([Buffer.from(`--${boundary} \t\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n`), ending()])).parts).toEqual([{ name: "a", fileName: undefined, contentType: undefined, content: "" }])
    for (const behind of ["x", "-", "-x", " x", "\n", " -- "]) {
      expect(read(Buffer.from(`--${boundary}${behind}\r\nContent-Disposition: form-data; name=a\r\n\r\n1`)).end, behind).toBe("A boundary does not stand alone")
    }
  })

  it.each([
    ["before the first", Buffer.alloc(limits.formHeadBytesMax * 2, "x"), "The form does not begin with its boundary"],
    ["behind a boundary", Buffer.from(`--${boundary}${" ".repeat(limits.formHeadBytesMax * 2)}`), "A boundary has no end"],
    ["in a head", Buffer.from(`--${boundary}\r\nx: ${"x".repeat(limits.formHeadBytesMax * 2)}`), "A part's head is too long"],
    ["in a head that ends", Buffer.from(`--${boundary}\r\nx: ${"x".repeat(limits.formHeadBytesMax)}\r\n\r\n`), "A part's head is too long"]
  ])("is bounded %s", (_, bytes, msg) => {
    for (const sizes of [[], new Array<number>(bytes.length).fill(1_000)]) expect(read(bytes, sizes).end).toBe(msg)
  })
})

describe("a part's head", () => {
  const readHead = (head: string | Uint8Array): string | object => {
    const { parts: [only], end } = read(Buffer.concat([Buffer.from(`--${boundary}\r\n`), Buffer.from(head as string), Buffer.from("\r\n\r\n\r\n"), ending()]))
    return only ?? end
  }

  it.each([
    ["form-data; name=\"a\"; filename=\"b.txt\"", "b.txt"],
    ["form-data; name=a; filename=b.txt", "b.txt"],
    ["Form-Data ; NAME=a;FileName=\"b.txt\";", "b.txt"],
    ["form-data; name=\"a\"; filename=\"a\\\"b\\\\c.txt\"", "a\"b\\c.txt"],
    ["form-data; name=\"a\"; filename=\"C:\\files\\b.txt\"", "C:\\files\\b.txt"],
    ["form-data; name=\"a\"; filename=\"a%22b;c=d.txt\"", "a%22b;c=d.txt"],
    ["form-data; name=\"a\"; filename=\"übergröße €.txt\"", "übergröße €.txt"],
    ["form-data; name=\"a\"; filename*=UTF-8''%E2%82%AC%0D%0A.txt", "€\r\n.txt"],
    ["form-data; name=\"a\"; filename=\"plain.txt\"; filename*=utf-8'en'better.txt", "better.txt"],
    ["form-data; name=\"a\"; filename=\"\"", ""],
    ["form-data; name=\"a\"", undefined]
  ])("%s names a file as its caller does", (disposition, fileName) => {
    expect(readHead(`content-disposition: ${disposition}`)).toMatchObject({ name: "a", fileName })
  })

  it.each([
    ["nothing", ""], ["no name", "content-disposition: form-data; filename=\"a\""], ["another disposition", "content-disposition: attachment; name=\"a\""], ["no disposition", "content-type: text/plain"],
    ["a name without end", "content-disposition: form-data; name=\"a"], ["more behind a quote", "content-disposition: form-data; name=\"a\"b"], ["a name of an unknown charset", "content-disposition: form-data; name=a; filename*=koi8-r''a"],
    ["a name with half an escape", "content-disposition: form-data; name=a; filename*=utf-8''%E2%82"], ["bytes that are no UTF-8", Buffer.from("content-disposition: form-data; name=\"\xe9\"", "latin1")],
    ["a line without a colon", "content-disposition: form-data; name=a\r\nx"], ["a folded line", "content-disposition: form-data;\r\n name=a"], ["a line that ends in LF", "content-disposition: form-data; name=a\nx: y"],
    ["a CR within a line", "content-disposition: form-data; name=\"a\rb\""], ["a NUL", "content-disposition: form-data; name=\"a\0\""], ["a header twice", "content-disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b"],
    ["a blank before the colon", "content-disposition : form-data; name=a"], ["an encoding", "content-disposition: form-data; name=a\r\ncontent-transfer-encoding: base64"]
  ])("is refused with %s", (_, head) => {
    expect(readHead(head)).toMatch(/^A (?:part|file)/)
  })
})

describe("a boundary", () => {
  it.each([
    ["multipart/form-data; boundary=abc", "abc"], ["Multipart/Form-Data;charset=utf-8 ;BOUNDARY=\"a b;c\"", "a b;c"], [`multipart/form-data; boundary=${"x".repeat(70)}`, "x".repeat(70)],
    [`multipart/form-data; boundary=${"x".repeat(71)}`, undefined], ["multipart/form-data; boundary=\"\"", undefined], ["multipart/form-data; boundary=\"a \"", undefined], ["multipart/form-data; boundary=\"ü\"", undefined],
    ["multipart/form-data", undefined], ["multipart/mixed; boundary=a", undefined], ["application/json", undefined], ["", undefined], [";", undefined]
  ])("is taken from %s", (contentType, expected) => {
    expect(boundaryOf(contentType)).toBe(expected)
  })
})
