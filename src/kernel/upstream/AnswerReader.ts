/**
 * From the bytes of a connection to the answers on it: HTTP/1.1 (RFC 9112), the
 * client's half, strict.
 *
 * Guarantee: the same bytes give the same answer however the reads cut them. An
 * answer whose end could be read in two ways is refused, never guessed: two
 * lengths, a length beside chunks, another coding than `chunked`, a folded or
 * nameless header, a lone CR or LF, control characters (§5.2, §6.1, §6.3, §7.1).
 * What is held between two reads is an incomplete head, at most
 * `answerHeadBytesMax` together with the informational answers before it.
 *
 * The sink hears of one head, then of the body as it comes, at most once a read,
 * then of the end. Bytes that nobody asked for, before a call or behind its answer,
 * end the connection: they could pass as the answer to somebody else's call.
 *
 * Trailers are read and dropped. Names come in lower case, values one character a
 * byte.
 *
 * Owned rather than taken from a library because it is the relay itself: through
 * undici's client a call cost half as much again (`bench/README.md`).
 */
import { isToken } from "./hopByHop.ts"

/** Of one answer: its head, names and values, with the informational heads before it; and of its trailers. */
export const answerHeadBytesMax = 32 * 1024
const chunkExtensionBytesMax = 1024
/** 2⁴⁸: a number that adds up exactly. */
const chunkSizeDigitsMax = 12

/** The agent does not keep to HTTP. */
export class BrokenAnswer extends Error {
  override readonly name = "BrokenAnswer"
}

export interface AnswerSink {
  /** Status ≥ 200; `fields` are name, value, name, value … */
  onHead(status: number, fields: ReadonlyArray<string>, contentLength: number | undefined): void
  /** The bytes are the sink's own. */
  onData(bytes: Buffer): void
  /** `keepAliveMs`: how long the agent keeps the connection for another call; 0 when it does not, `undefined` when it did not say. */
  onEnd(keepAliveMs: number | undefined): void
}

type State =
  | "nothing" | "head" | "fixed" | "untilClose" | "ended"
  | "size" | "extension" | "sizeLf" | "chunk" | "chunkCr" | "chunkLf" | "trailer" | "trailerText" | "trailerLf" | "lastLf"

const decimal = /^\d{1,15}$/
const timeoutHint = /(?:^|[\s,])timeout=(\d{1,6})(?:[\s,]|$)/i

const tab = 9
const lf = 10
const cr = 13
const space = 32
const semicolon = 59
const del = 127

const hexDigit = (byte: number): number => {
  if (byte >= 48 && byte <= 57) return byte - 48
  const lower = byte | 32
  return lower >= 97 && lower <= 102 ? lower - 87 : -1
}

export class AnswerReader {
  readonly #sink: AnswerSink
  #state: State = "nothing"
  #toHead = false
  /** The head as far as it has come. */
  #partial = ""
  /** Bytes of heads, of an extension, or of trailers so far. */
  #overhead = 0
  /** Bytes of the body, or of its chunk, still to come; while its size is read, the size so far. */
  #left = 0
  #digits = 0
  #keepAliveMs: number | undefined

  constructor(sink: AnswerSink) {
    this.#sink = sink
  }

  /** The next bytes answer a request of this method. */
  expect(method: string): void {
    this.#toHead = method === "HEAD"
    this.#state = "head"
    this.#partial = ""
    this.#overhead = 0
  }

  /** Nothing more is expected; the sink hears nothing more. May be called from within it. */
  stop(): void {
    this.#state = "nothing"
    this.#partial = ""
  }

  /** Takes the first `length` bytes, which may be overwritten when this returns, and are. Throws `BrokenAnswer`. */
  read(bytes: Buffer, length: number): void {
    if (this.#state === "nothing") throw new BrokenAnswer("bytes that no call asked for")
    let at = 0
    do {
      if (this.#state === "head") at = this.#readHead(bytes, at, length)
      else if (this.#state === "fixed" || this.#state === "untilClose") at = this.#readBody(bytes, at, length)
      else at = this.#readChunks(bytes, at, length)
      if (this.#isAt("ended")) return this.#end(at < length ? 0 : this.#keepAliveMs)
      // The sink may have stopped it.
    } while (at < length && !this.#isAt("nothing"))
  }

  /** The agent has ended the connection. Throws `BrokenAnswer` when its answer was not complete. */
  close(): void {
    if (this.#state === "untilClose") return this.#end(0)
    if (this.#state !== "nothing") throw new BrokenAnswer("an answer that ends early")
  }

  #isAt(state: State): boolean {
    return this.#state === state
  }

  #end(keepAliveMs: number | undefined): void {
    this.#state = "nothing"
    this.#sink.onEnd(keepAliveMs)
  }

  #readHead(bytes: Buffer, at: number, length: number): number {
    const room = answerHeadBytesMax - this.#overhead
    const known = this.#partial.length
    const fresh = bytes.toString("latin1", at, Math.min(length, at + room - known))
    const text = known === 0 ? fresh : this.#partial + fresh
    const end = text.indexOf("\r\n\r\n", Math.max(0, known - 3))
    if (end === -1) {
      if (text.length >= room) throw new BrokenAnswer("a head that is too long")
      if (!"HTTP/1.".startsWith(text.slice(0, 7))) throw new BrokenAnswer("no HTTP/1.1")
      this.#partial = text
      return length
    }
    this.#partial = ""
    this.#overhead += end + 4
    this.#head(text.slice(0, end))
    return at + end + 4 - known
  }

  #head(text: string): void {
    const lineEnd = text.indexOf("\r\n")
    const status = statusOf(lineEnd === -1 ? text : text.slice(0, lineEnd))
    const fields: Array<string> = []
    const framing = new Framing(text.charCodeAt(7) === 49)
    if (lineEnd !== -1) readFields(text, lineEnd + 2, fields, framing)
    if (status < 200) {
      // Nobody asked to switch protocols (RFC 9110 §15.2.2); the others are news only.
      if (status === 101) throw new BrokenAnswer("a switch of protocols")
      return
    }
    const length = framing.length
    this.#keepAliveMs = framing.keepAliveMs
    this.#left = length ?? 0
    this.#digits = 0
    if (this.#toHead || status === 204 || status === 304 || length === 0) this.#state = "ended"
    else if (framing.isChunked) this.#state = "size"
    else if (length !== undefined) this.#state = "fixed"
    else this.#state = "untilClose"
    this.#sink.onHead(status, fields, length)
  }

  #readBody(bytes: Buffer, at: number, length: number): number {
    const end = this.#state === "fixed" ? Math.min(length, at + this.#left) : length
    if (this.#state === "fixed") {
      this.#left -= end - at
      if (this.#left === 0) this.#state = "ended"
    }
    this.#sink.onData(Buffer.from(bytes.subarray(at, end)))
    return end
  }

  /** The data of all chunks of this read is moved together, so that the sink gets one piece. */
  #readChunks(bytes: Buffer, from: number, length: number): number {
    let at = from
    let start = -1
    let end = 0
    while (at < length && this.#state !== "ended") {
      if (this.#state !== "chunk") {
        this.#frame(bytes[at++]!)
        continue
      }
      const stop = Math.min(length, at + this.#left)
      if (start === -1) {
        start = at
        end = stop
      } else {
        bytes.copyWithin(end, at, stop)
        end += stop - at
      }
      this.#left -= stop - at
      at = stop
      if (this.#left === 0) this.#state = "chunkCr"
    }
    if (start !== -1) this.#sink.onData(Buffer.from(bytes.subarray(start, end)))
    return at
  }

  /** One byte of what is around the chunks (RFC 9112 §7.1). */
  #frame(byte: number): void {
    switch (this.#state) {
      case "size":
        return this.#size(byte)
      case "extension":
        if (byte === cr) this.#state = "sizeLf"
        else if (byte < space && byte !== tab || ++this.#overhead > chunkExtensionBytesMax) throw new BrokenAnswer("a bad chunk extension")
        return
      case "sizeLf":
        this.#after(byte, lf, this.#left === 0 ? "trailer" : "chunk")
        this.#overhead = 0
        return
      case "chunkCr":
        return this.#after(byte, cr, "chunkLf")
      case "chunkLf":
        this.#digits = 0
        return this.#after(byte, lf, "size")
      case "lastLf":
        return this.#after(byte, lf, "ended")
      case "trailerLf":
        return this.#after(byte, lf, "trailer")
      default:
        if (byte === cr) this.#state = this.#state === "trailer" ? "lastLf" : "trailerLf"
        else if (byte < space && byte !== tab || ++this.#overhead > answerHeadBytesMax) throw new BrokenAnswer("bad trailers")
        else this.#state = "trailerText"
    }
  }

  #size(byte: number): void {
    const digit = hexDigit(byte)
    if (digit !== -1) {
      if (++this.#digits > chunkSizeDigitsMax) throw new BrokenAnswer("a chunk that is too long")
      this.#left = this.#left * 16 + digit
    } else if (this.#digits === 0) throw new BrokenAnswer("a chunk without a size")
    else if (byte === cr) this.#state = "sizeLf"
    else if (byte === semicolon || byte === space || byte === tab) {
      this.#overhead = 0
      this.#state = "extension"
    } else throw new BrokenAnswer("a bad chunk size")
  }

  #after(byte: number, expected: number, next: State): void {
    if (byte !== expected) throw new BrokenAnswer("bad chunks")
    this.#state = next
  }
}

/** What a head says about where its answer ends (RFC 9112 §6.3) and what becomes of the connection (§9.3). */
class Framing {
  isChunked = false
  length: number | undefined
  readonly #isVersion11: boolean
  #closes = false
  #hintMs: number | undefined

  constructor(isVersion11: boolean) {
    this.#isVersion11 = isVersion11
  }

  get keepAliveMs(): number | undefined {
    return this.#closes || !this.#isVersion11 ? 0 : this.#hintMs
  }

  note(name: string, value: string): void {
    switch (name) {
      case "content-length":
        if (this.length !== undefined || this.isChunked || !decimal.test(value)) throw new BrokenAnswer("a length in doubt")
        this.length = Number(value)
        return
      case "transfer-encoding":
        if (this.length !== undefined || this.isChunked || !this.#isVersion11 || value.toLowerCase() !== "chunked") throw new BrokenAnswer("a transfer coding in doubt")
        this.isChunked = true
        return
      case "connection":
        if (value.toLowerCase().split(",").some((option) => option.trim() === "close")) this.#closes = true
        return
      case "keep-alive": {
        const seconds = timeoutHint.exec(value)?.[1]
        if (seconds !== undefined) this.#hintMs = Number(seconds) * 1000
      }
    }
  }
}

/** RFC 9112 §4: "HTTP/1.1 200 OK", the reason optional. */
const statusOf = (line: string): number => {
  const version = line.startsWith("HTTP/1.") ? line.charCodeAt(7) - 48 : -1
  const status = (line.charCodeAt(9) - 48) * 100 + (line.charCodeAt(10) - 48) * 10 + line.charCodeAt(11) - 48
  const digits = hexDigit(line.charCodeAt(9)) < 10 && hexDigit(line.charCodeAt(10)) < 10 && hexDigit(line.charCodeAt(11)) < 10
  refuseControls(line, 12, line.length)
  const fits = (version === 0 || version === 1) && line.charCodeAt(8) === space && (line.length === 12 || line.charCodeAt(12) === space)
  if (!fits || !digits || !(status >= 100 && status < 600)) throw new BrokenAnswer("a bad status line")
  return status
}

const isBlank = (code: number): boolean => code === space || code === tab

/** A lone CR or LF is one too: where lines end there is CR LF, and nothing of it is left. */
const refuseControls = (text: string, start: number, end: number): void => {
  for (let at = start; at < end; at++) {
    const code = text.charCodeAt(at)
    if (code < space && code !== tab || code === del) throw new BrokenAnswer("control characters in a head")
  }
}

/** Header lines from `from` on (RFC 9112 §5). */
const readFields = (text: string, from: number, fields: Array<string>, framing: Framing): void => {
  for (let at = from; at < text.length;) {
    const next = text.indexOf("\r\n", at)
    const lineEnd = next === -1 ? text.length : next
    const colon = text.indexOf(":", at)
    if (colon === -1 || colon >= lineEnd) throw new BrokenAnswer("a header without a name")
    const name = text.slice(at, colon).toLowerCase()
    // A blank before the colon, or at the start of the line (a fold), is no part of a token.
    if (!isToken(name)) throw new BrokenAnswer("a bad header name")
    let start = colon + 1
    let end = lineEnd
    while (start < end && isBlank(text.charCodeAt(start))) start++
    while (end > start && isBlank(text.charCodeAt(end - 1))) end--
    refuseControls(text, start, end)
    const value = text.slice(start, end)
    fields.push(name, value)
    if (name.length === 14 || name.length === 17 || name.length === 10) framing.note(name, value)
    at = lineEnd + 2
  }
}
