/**
 * A form (multipart/form-data, RFC 7578 and RFC 2046 §5.1) out of bytes that
 * come in any pieces.
 *
 * `feed` takes bytes, `next` answers what they hold, one event at a time:
 * `part`, its content as `bytes`, …, `end`. `undefined` means that more is
 * needed; after `end` and `malformed` nothing more comes.
 *
 * Guarantee. The events are the same however the bytes were cut, but for where
 * content is cut. What is kept between two calls is what was fed last and at
 * most one delimiter or one part's head before it. Strict where leniency could
 * make two readers see two forms: a delimiter stands alone on its line, a head's
 * lines end in CRLF and are not folded, no header of a part comes twice.
 */
import { isUtf8 } from "node:buffer"
import { limits } from "../../config.ts"

export interface FormPart {
  readonly name: string
  /** `undefined`: a field. */
  readonly fileName: string | undefined
  /** As it was written, with its parameters. */
  readonly contentType: string | undefined
}

export type FormEvent =
  | { readonly _tag: "part"; readonly part: FormPart }
  | { readonly _tag: "bytes"; readonly bytes: Uint8Array }
  | { readonly _tag: "end" }
  | { readonly _tag: "malformed"; readonly msg: string }

type Phase = "preamble" | "delimiter" | "head" | "content" | "done"

const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
/** One parameter, or none behind a needless semicolon. A quoted value may hold anything, with `\"` for a quote. */
const parameter = new RegExp(`;[ \\t]*(?:(${token})=(?:"((?:[^"\\\\]|\\\\.)*)"|([^\\s";]*)))?[ \\t]*`, "y")

/** `form-data; name="a"` taken apart; names of parameters in lower case. */
const parametersOf = (text: string): { readonly value: string; readonly parameters: ReadonlyMap<string, string> } | undefined => {
  const end = text.includes(";") ? text.indexOf(";") : text.length
  const parameters = new Map<string, string>()
  for (let at = end; at < text.length; at = parameter.lastIndex) {
    parameter.lastIndex = at
    const found = parameter.exec(text)
    if (found === null) return undefined
    const [, name, quoted, plain] = found
    // Windows paths have backslashes that escape nothing.
    if (name !== undefined) parameters.set(name.toLowerCase(), quoted?.replace(/\\(["\\])/g, "$1") ?? plain ?? "")
  }
  return { value: text.slice(0, end).trim().toLowerCase(), parameters }
}

/** The boundary that a request's content type names; `undefined` when it is no form. */
export const boundaryOf = (contentType: string): string | undefined => {
  const { value, parameters } = parametersOf(contentType) ?? {}
  const boundary = parameters?.get("boundary")
  return value === "multipart/form-data" && boundary !== undefined && /^[\x20-\x7e]{0,69}[\x21-\x7e]$/.test(boundary) ? boundary : undefined
}

const control = /[\0-\x08\x0a-\x1f\x7f]/
const headerName = new RegExp(`^${token}$`)
/** Encodings that change nothing (RFC 7578 §4.7 knows no other). */
const identities: ReadonlySet<string> = new Set(["7bit", "8bit", "binary"])

const headersOf = (head: Buffer): ReadonlyMap<string, string> | undefined => {
  const headers = new Map<string, string>()
  if (!isUtf8(head)) return undefined
  for (const line of head.toString("utf8").split("\r\n")) {
    const colon = line.indexOf(":")
    const name = line.slice(0, Math.max(0, colon)).toLowerCase()
    if (!headerName.test(name) || control.test(line) || headers.has(name)) return undefined
    headers.set(name, line.slice(colon + 1).trim())
  }
  return headers
}

/** RFC 5987, which RFC 7578 forbids here and some clients send. */
const extended = (text: string): string | undefined => {
  const [, encoded] = /^utf-8'[^']*'(.*)$/i.exec(text) ?? []
  try {
    return encoded === undefined ? undefined : decodeURIComponent(encoded)
  } catch {
    return undefined
  }
}

/** What a head says of its part, or what is wrong with it. */
const partOf = (head: Buffer): FormPart | string => {
  const headers = headersOf(head)
  if (headers === undefined) return "A part's head is not valid"
  const { value, parameters } = parametersOf(headers.get("content-disposition") ?? "") ?? {}
  const name = parameters?.get("name")
  if (value !== "form-data" || name === undefined) return "A part has no name"
  if (!identities.has((headers.get("content-transfer-encoding") ?? "binary").toLowerCase())) return "A part has a transfer encoding"
  const star = parameters!.get("filename*")
  const fileName = star === undefined ? parameters!.get("filename") : extended(star)
  if (star !== undefined && fileName === undefined) return "A file's name is not valid"
  return { name, fileName, contentType: headers.get("content-type") }
}

const cr = 13
const dash = 45

export class FormReader {
  readonly #delimiter: Buffer
  /** What was fed and not answered yet. The form may begin with a delimiter: as if a line came before it. */
  #bytes: Buffer = Buffer.from("\r\n")
  #phase: Phase = "preamble"

  constructor(boundary: string) {
    this.#delimiter = Buffer.from(`\r\n--${boundary}`, "latin1")
  }

  /** The bytes must not change afterwards. */
  feed(bytes: Uint8Array): void {
    if (this.#phase === "done") return
    this.#bytes = this.#bytes.length === 0 ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength) : Buffer.concat([this.#bytes, bytes])
  }

  next(): FormEvent | undefined {
    for (;;) {
      const phase = this.#phase
      const event = this.#step(phase)
      if (event !== undefined || this.#phase === phase) return event
    }
  }

  #step(phase: Phase): FormEvent | undefined {
    switch (phase) {
      case "preamble":
        return this.#preamble()
      case "delimiter":
        return this.#delimited()
      case "head":
        return this.#head()
      case "content":
        return this.#content()
      case "done":
        return undefined
    }
  }

  /** Nothing, as a rule: RFC 2046 allows some text that is not meant for anybody. */
  #preamble(): FormEvent | undefined {
    const at = this.#bytes.indexOf(this.#delimiter)
    if (at === -1 ? this.#isTooLong() : at > limits.formHeadBytesMax) return this.#malformed("The form does not begin with its boundary")
    if (at !== -1) this.#skip(at + this.#delimiter.length, "delimiter")
    return undefined
  }

  #content(): FormEvent | undefined {
    const bytes = this.#bytes
    const at = bytes.indexOf(this.#delimiter)
    if (at === 0) {
      this.#skip(this.#delimiter.length, "delimiter")
      return undefined
    }
    const end = at === -1 ? bytes.length - this.#begun(bytes) : at
    if (end === 0) return undefined
    this.#bytes = bytes.subarray(end)
    return { _tag: "bytes", bytes: bytes.subarray(0, end) }
  }

  /** How many of the last bytes may be the beginning of a delimiter. */
  #begun(bytes: Buffer): number {
    for (let length = Math.min(bytes.length, this.#delimiter.length - 1); length > 0; length--) {
      const at = bytes.length - length
      if (bytes[at] === cr && this.#delimiter.compare(bytes, at, bytes.length, 0, length) === 0) return length
    }
    return 0
  }

  /** What stands behind a delimiter: two dashes after the last part, else the end of its line. */
  #delimited(): FormEvent | undefined {
    const bytes = this.#bytes
    if (bytes.length < 2) return undefined
    if (bytes[0] === dash && bytes[1] === dash) {
      this.#skip(bytes.length, "done")
      return { _tag: "end" }
    }
    const end = bytes.indexOf("\r\n")
    if (end === -1) return this.#isTooLong() ? this.#malformed("A boundary has no end") : undefined
    if (end > limits.formHeadBytesMax || !/^[ \t]*$/.test(bytes.toString("latin1", 0, end))) return this.#malformed("A boundary does not stand alone")
    // The line's end stays: a head without lines ends with it.
    this.#skip(end, "head")
    return undefined
  }

  #head(): FormEvent | undefined {
    const end = this.#bytes.indexOf("\r\n\r\n")
    if (end === -1 ? this.#isTooLong() : end > limits.formHeadBytesMax) return this.#malformed("A part's head is too long")
    if (end === -1) return undefined
    const part = partOf(this.#bytes.subarray(Math.min(2, end), end))
    if (typeof part === "string") return this.#malformed(part)
    this.#skip(end + 4, "content")
    return { _tag: "part", part }
  }

  #isTooLong(): boolean {
    return this.#bytes.length > limits.formHeadBytesMax + this.#delimiter.length
  }

  #skip(count: number, phase: Phase): void {
    this.#bytes = this.#bytes.subarray(count)
    this.#phase = phase
  }

  #malformed(msg: string): FormEvent {
    this.#skip(this.#bytes.length, "done")
    return { _tag: "malformed", msg }
  }
}
