/**
 * Reads an agent's answer to a chat turn into text, as it comes: SSE, lines of
 * JSON, one JSON value, or plain text, by its content type.
 *
 * Guarantee: text, `isDone` and `problem` depend on the answer's bytes alone,
 * never on how the reads cut them. The text can be stored and sent: no NUL and no
 * half of a surrogate pair is in it (U+FFFD stands there), and a pair that the
 * agent cut over two deltas comes whole. What is kept between two reads is at most
 * one line and one event, or the whole of a JSON answer, each within its bound. A
 * reader that is done, or has a problem, does nothing more.
 *
 * It knows nothing of turns or money; it neither asks the agent nor stops it.
 */
import { type Pieces, type PieceSink, EventPieces, LinePieces, TextPieces, WholePieces } from "./answerPieces.ts"
import { type AgentError, type Saying, Sayings, isDoneMark, jsonOf, storable, valueSaying } from "./sayings.ts"

export interface DeltaReader {
  /** Answers the text that these bytes complete, "" when none. The bytes may be used again when it returns. */
  read(bytes: Uint8Array): string
  /** The answer is complete: answers what was still pending. */
  end(): string
  /** The agent has said that it is done, though its answer may go on. */
  readonly isDone: boolean
  /** Why the answer can't be used. The text before it was still answered. */
  readonly problem: TooLong | AgentError | undefined
}

/** A line, an event or the whole is longer than its bound. */
export interface TooLong {
  readonly _tag: "tooLong"
  readonly bytesMax: number
}

export interface DeltaBounds {
  /** Of a line without its end, and of an event's data. */
  readonly lineBytesMax: number
  readonly bodyBytesMax: number
  /** Of a JSON answer, which is taken apart in one go; `bodyBytesMax` unless given. */
  readonly wholeBytesMax?: number
}

/** No content type, or one not known here: plain text. */
export const makeDeltaReader = (contentType: string | undefined, bounds: DeltaBounds): DeltaReader => new Reading(contentType ?? "", bounds)

const lineForms = new Set(["application/x-ndjson", "application/ndjson", "application/jsonl", "application/jsonlines"])
/** They are read in one go at the answer's end: this many take some milliseconds. */
const linesAtEndMax = 10_000

const piecesOf = (contentType: string, bounds: DeltaBounds, sink: PieceSink): Pieces => {
  const form = contentType.split(";", 1)[0]!.trim().toLowerCase()
  if (form === "text/event-stream") return new EventPieces(sink, bounds.lineBytesMax)
  if (lineForms.has(form)) return new LinePieces(sink, bounds.lineBytesMax)
  if (form === "application/json" || form.endsWith("+json")) return new WholePieces(sink, wholeBytesMax(bounds))
  return new TextPieces(sink)
}

const wholeBytesMax = ({ bodyBytesMax, wholeBytesMax }: DeltaBounds): number => Math.min(bodyBytesMax, wholeBytesMax ?? bodyBytesMax)

const isHighSurrogate = (code: number): boolean => code >= 0xD800 && code < 0xDC00

class Reading implements DeltaReader, PieceSink {
  readonly #bounds: DeltaBounds
  readonly #pieces: Pieces
  /** Of this answer, in its form. */
  readonly #bytesMax: number
  readonly #sayings = new Sayings()
  #size = 0
  /** What the current read has said so far. */
  #text = ""
  /** The first half of a pair whose other half may be in the next delta. */
  #halfPair = ""
  isDone = false
  problem: TooLong | AgentError | undefined

  constructor(contentType: string, bounds: DeltaBounds) {
    this.#bounds = bounds
    this.#pieces = piecesOf(contentType, bounds, this)
    this.#bytesMax = this.#pieces instanceof WholePieces ? wholeBytesMax(bounds) : bounds.bodyBytesMax
  }

  read(bytes: Uint8Array): string {
    if (this.isOver) return ""
    const room = this.#bytesMax - this.#size
    this.#size += bytes.length
    this.#pieces.read(bytes instanceof Buffer && bytes.length <= room ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(room, bytes.length)))
    if (bytes.length > room && !this.isOver) this.problem = { _tag: "tooLong", bytesMax: this.#bytesMax }
    return this.#take(this.isDone)
  }

  end(): string {
    if (this.isOver) return ""
    this.#pieces.end()
    return this.#take(this.problem === undefined)
  }

  get isOver(): boolean {
    return this.isDone || this.problem !== undefined
  }

  text(text: string): void {
    this.#text += text
  }

  piece(data: string, event: string): void {
    this.#hear(this.#sayings.of(data, event))
  }

  whole(text: string): void {
    const value = jsonOf(text)
    if (value !== undefined) return this.#hear(valueSaying(value, text) ?? text)
    if (!isJsonLines(text)) return this.text(text)
    for (const line of linesOf(text)) if (!this.isOver) this.piece(line, "")
  }

  tooLong(): void {
    this.problem = { _tag: "tooLong", bytesMax: this.#bounds.lineBytesMax }
  }

  #hear(saying: Saying): void {
    if (typeof saying === "string") this.#text += saying
    else if (saying?._tag === "done") this.isDone = true
    else if (saying !== undefined) this.problem = saying
  }

  /** What this read has said, fit to be stored. */
  #take(isLast: boolean): string {
    const text = this.#halfPair + this.#text
    this.#text = ""
    this.#halfPair = ""
    if (isLast || !isHighSurrogate(text.charCodeAt(text.length - 1))) return storable(text)
    this.#halfPair = text.slice(-1)
    return storable(text.slice(0, -1))
  }
}

function* linesOf(text: string): Generator<string> {
  for (const [line] of text.matchAll(/[^\r\n]+/g)) if (line.trim() !== "") yield line
}

const isJsonLines = (text: string): boolean => {
  let lines = 0
  for (const line of linesOf(text)) if (++lines > linesAtEndMax || jsonOf(line) === undefined && !isDoneMark(line)) return false
  return lines > 0
}
