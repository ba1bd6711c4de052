/**
 * Cuts the bytes of an agent's answer into pieces: the events of an SSE stream,
 * lines, the text as it comes, or the whole.
 *
 * Guarantee: the same bytes give the same pieces however the reads cut them.
 * Bytes are UTF-8; what is none becomes U+FFFD, a leading byte order mark goes.
 * Between two reads an incomplete line, event or character is kept, or the whole;
 * a copy, in as many bytes as its bound allows. Once the sink is over nothing is
 * told any more. What a piece means is not decided here.
 */
export interface PieceSink {
  readonly isOver: boolean
  /** Some text, which stands for itself. */
  text(text: string): void
  /** The data of an event and its name, or ""; or a line that is not blank. */
  piece(data: string, event: string): void
  whole(text: string): void
  /** A line or an event is longer than its bound. */
  tooLong(): void
}

/** An answer in one of its forms. */
export interface Pieces {
  read(bytes: Buffer): void
  /** The answer is complete: what is pending counts. */
  end(): void
}

const lf = 10
const cr = 13
const space = 32
const colon = 58
const none = Buffer.alloc(0)
const byteOrderMark = "\uFEFF"

/** Bytes in one block that grows by doubling. The owner adds no more than `bytesMax`. */
class Gathered {
  readonly #bytesMax: number
  #block = none
  size = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  add(bytes: Buffer, start: number, end: number): void {
    const size = this.size + end - start
    if (size > this.#block.length) {
      const block = Buffer.allocUnsafeSlow(Math.min(this.#bytesMax, 2 * size))
      this.#block.copy(block, 0, 0, this.size)
      this.#block = block
    }
    bytes.copy(this.#block, this.size, start, end)
    this.size = size
  }

  /** All of it, valid until the next `add`; it is empty then. */
  take(): Buffer {
    const bytes = this.#block.subarray(0, this.size)
    this.size = 0
    return bytes
  }
}

/** How many of the bytes come before a character at their end that may not be complete. */
const wholeCharacters = (bytes: Buffer): number => {
  const { length } = bytes
  for (let back = 1; back <= Math.min(3, length); back++) {
    const byte = bytes[length - back]!
    if (byte < 0x80) return length
    // The first byte of a character says how many there are; the others are 0x80 to 0xBF.
    if (byte >= 0xC0) return back < (byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4) ? length - back : length
  }
  return length
}

/** Plain text, as it comes. */
export class TextPieces implements Pieces {
  readonly #sink: PieceSink
  /** At most three bytes. */
  #cutCharacter = none
  #isFirst = true

  constructor(sink: PieceSink) {
    this.#sink = sink
  }

  read(bytes: Buffer): void {
    const all = this.#cutCharacter.length === 0 ? bytes : Buffer.concat([this.#cutCharacter, bytes])
    const end = wholeCharacters(all)
    this.#cutCharacter = end === all.length ? none : Buffer.from(all.subarray(end))
    this.#tell(all.toString("utf8", 0, end))
  }

  end(): void {
    this.#tell(this.#cutCharacter.toString("utf8"))
  }

  #tell(text: string): void {
    if (text === "") return
    this.#sink.text(this.#isFirst && text.startsWith(byteOrderMark) ? text.slice(1) : text)
    this.#isFirst = false
  }
}

/** The whole answer at its end. */
export class WholePieces implements Pieces {
  readonly #sink: PieceSink
  readonly #gathered: Gathered

  constructor(sink: PieceSink, bytesMax: number) {
    this.#sink = sink
    this.#gathered = new Gathered(bytesMax)
  }

  read(bytes: Buffer): void {
    this.#gathered.add(bytes, 0, bytes.length)
  }

  end(): void {
    const text = this.#gathered.take().toString("utf8")
    this.#sink.whole(text.startsWith(byteOrderMark) ? text.slice(1) : text)
  }
}

/** Lines that end with LF, CR LF or CR, or with the answer. */
export class LinePieces implements Pieces {
  protected readonly sink: PieceSink
  protected readonly bytesMax: number
  readonly #cutLine: Gathered
  #isAfterCr = false
  #isFirst = true

  constructor(sink: PieceSink, bytesMax: number) {
    this.sink = sink
    this.bytesMax = bytesMax
    this.#cutLine = new Gathered(bytesMax)
  }

  read(bytes: Buffer): void {
    const { length } = bytes
    let start = this.#isAfterCr && bytes[0] === lf ? 1 : 0
    if (length > 0) this.#isAfterCr = false
    let nextLf = bytes.indexOf(lf, start)
    let nextCr = bytes.indexOf(cr, start)
    while (!this.sink.isOver && start < length) {
      const end = nextCr === -1 || nextLf !== -1 && nextLf < nextCr ? nextLf : nextCr
      if (end === -1) return this.#keep(bytes, start, length)
      this.#complete(bytes, start, end)
      start = end + 1
      if (end === nextCr) {
        if (start === length) this.#isAfterCr = true
        else if (nextLf === start) start++
        nextCr = bytes.indexOf(cr, start)
      }
      if (nextLf !== -1 && nextLf < start) nextLf = bytes.indexOf(lf, start)
    }
  }

  end(): void {
    if (this.#cutLine.size > 0) this.#complete(none, 0, 0)
  }

  /** One line, without its end. */
  protected line(bytes: Buffer, start: number, end: number): void {
    const line = bytes.toString("utf8", start, end)
    if (line.trim() !== "") this.sink.piece(line, "")
  }

  #keep(bytes: Buffer, start: number, end: number): void {
    if (this.#cutLine.size + end - start > this.bytesMax) return this.sink.tooLong()
    this.#cutLine.add(bytes, start, end)
  }

  #complete(bytes: Buffer, start: number, end: number): void {
    if (this.#cutLine.size === 0) return this.#tell(bytes, start, end)
    this.#keep(bytes, start, end)
    if (this.sink.isOver) return
    const line = this.#cutLine.take()
    this.#tell(line, 0, line.length)
  }

  #tell(bytes: Buffer, start: number, end: number): void {
    if (end - start > this.bytesMax) return this.sink.tooLong()
    const isMarked = this.#isFirst && end - start >= 3 && bytes[start] === 0xEF && bytes[start + 1] === 0xBB && bytes[start + 2] === 0xBF
    this.#isFirst = false
    this.line(bytes, isMarked ? start + 3 : start, end)
  }
}

const dataName = Buffer.from("data")
const eventName = Buffer.from("event")

/** Behind the line there is its end or nothing, which is no part of a name. */
const hasName = (bytes: Buffer, start: number, end: number, name: Buffer): boolean => {
  for (let at = 0; at < name.length; at++) if (bytes[start + at] !== name[at]) return false
  return end - start === name.length || bytes[start + name.length] === colon
}

/** Where the value of a field begins: behind the colon and one space. */
const valueStart = (bytes: Buffer, start: number, end: number, name: Buffer): number => {
  const at = Math.min(end, start + name.length + 1)
  return bytes[at] === space ? at + 1 : at
}

/**
 * The events of an SSE stream, as WHATWG HTML §9.2.6 reads them, with two
 * differences. An event that the answer's end cuts off counts: many agents forget
 * its blank line. An event named error counts without data.
 */
export class EventPieces extends LinePieces {
  #event = ""
  /** The first line of data; most events have one. */
  #data: string | undefined
  #dataSize = 0
  /** The further lines, each behind a LF. */
  readonly #more: Gathered

  constructor(sink: PieceSink, bytesMax: number) {
    super(sink, bytesMax)
    this.#more = new Gathered(bytesMax)
  }

  override end(): void {
    super.end()
    if (!this.sink.isOver) this.#dispatch()
  }

  protected override line(bytes: Buffer, start: number, end: number): void {
    if (start === end) this.#dispatch()
    else if (hasName(bytes, start, end, dataName)) this.#addData(bytes, valueStart(bytes, start, end, dataName), end)
    else if (hasName(bytes, start, end, eventName)) this.#event = bytes.toString("utf8", valueStart(bytes, start, end, eventName), end)
  }

  #addData(bytes: Buffer, start: number, end: number): void {
    if (this.#data === undefined) {
      this.#data = bytes.toString("utf8", start, end)
      this.#dataSize = end - start
      return
    }
    if (this.#dataSize + this.#more.size + 1 + end - start > this.bytesMax) return this.sink.tooLong()
    this.#more.add(lineFeed, 0, 1)
    this.#more.add(bytes, start, end)
  }

  #dispatch(): void {
    const event = this.#event
    const data = this.#more.size === 0 ? this.#data : `${this.#data}${this.#more.take().toString("utf8")}`
    this.#event = ""
    this.#data = undefined
    if (data !== undefined || event === "error") this.sink.piece(data ?? "", event)
  }
}

const lineFeed = Buffer.from("\n")
