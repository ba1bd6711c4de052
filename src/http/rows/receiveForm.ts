/**
 * The body of an `upload` row: fields first, then files.
 *
 *   fields ──first file, or the end──▶ waiting ──read──▶ files ──▶ over
 *
 * Fields are kept and decoded like JSON; files are handed over as they come, and
 * the caller is paused while nobody reads them. With `isWhole` (the call is
 * idempotent, and its fingerprint needs every byte) the form is read to its end
 * before the handler begins; its boundary does not count, as a retry has another.
 *
 * Guarantee. Bounded: parts, their heads, all fields together, the whole. A form
 * that is wrong before its handler began is refused here; later its reader hears
 * of it, also of a caller who has gone, and refuses it.
 */
import { isUtf8 } from "node:buffer"
import { createHash } from "node:crypto"
import { limits } from "../../config.ts"
import { BodyTimeout, BodyTooLarge, type GatewayError, InvalidRequest } from "../../domain/errors.ts"
import type { FilesSink, UploadedFile, UploadedFiles } from "../../kernel/OrderUpload.ts"
import { isUnstorable } from "../body.ts"
import type { Exchange, GoneListener } from "../Exchange.ts"
import type { BodySink } from "../RequestBody.ts"
import type { Decode } from "./codecs.ts"
import { boundaryOf, type FormEvent, type FormPart, FormReader } from "./FormReader.ts"

export interface FormShape {
  /** The name of the parts that are files. */
  readonly filesName: string
  readonly bytesMax: number
  readonly isWhole: boolean
  /** Reads the fields. */
  readonly decode: Decode
}

/** `fingerprint`: what tells this form from others, when it is whole. */
type Begin = (payload: unknown, files: UploadedFiles, fingerprint: Uint8Array) => void

const wrong = (malformed: boolean, msg: string, ...loc: ReadonlyArray<string>): InvalidRequest => new InvalidRequest({ malformed, issues: [{ loc, msg }] })

/** Calls `begin` once, when the fields are there, or refuses. */
export const receiveForm = (exchange: Exchange, shape: FormShape, begin: Begin): void => {
  const bytesMax = shape.isWhole ? Math.min(shape.bytesMax, limits.idempotentBodyBytesMax) : shape.bytesMax
  if ((exchange.head.contentLength ?? 0) > bytesMax) return exchange.fail(new BodyTooLarge({ bytesMax }))
  const boundary = boundaryOf(exchange.head.header("content-type") ?? "")
  if (boundary === undefined) return exchange.fail(wrong(true, "Expected multipart/form-data with a boundary", "header", "content-type"))
  const form = new ReceivedForm(exchange, shape, new FormReader(boundary), begin)
  exchange.listener = form
  exchange.body.consume(bytesMax, form)
}

/** A file that is known before it is read. Its content is kept only when the form is whole. */
interface BegunFile extends UploadedFile {
  size: number
  readonly content: Array<Uint8Array>
}

class ReceivedForm implements UploadedFiles, BodySink, GoneListener {
  readonly begun: Array<BegunFile> = []
  readonly #exchange: Exchange
  readonly #shape: FormShape
  readonly #reader: FormReader
  readonly #begin: Begin
  readonly #fields = new Map<string, Array<Uint8Array>>()
  #phase: "fields" | "waiting" | "files" | "over" = "fields"
  #parts = 0
  #fieldBytes = 0
  /** Content of the latest part, when that is a field. */
  #field: Array<Uint8Array> | undefined
  /** Of all parts so far, and of the latest. */
  readonly #prints = createHash("sha256")
  #print = createHash("sha256")
  /** The form has ended. Behind it there may be more, which says nothing. */
  #isComplete = false
  #isLast = false
  #sink: FilesSink | undefined
  #failure: GatewayError | undefined

  constructor(exchange: Exchange, shape: FormShape, reader: FormReader, begin: Begin) {
    this.#exchange = exchange
    this.#shape = shape
    this.#reader = reader
    this.#begin = begin
  }

  // The caller's side.

  chunk(bytes: Uint8Array, last: boolean): void {
    this.#isLast = last
    this.#reader.feed(bytes)
    this.#advance()
  }

  failed(error: GatewayError): void {
    this.#fail(error)
  }

  gone(): void {
    this.#fail(new BodyTimeout())
  }

  // The reader's side.

  read(sink: FilesSink): { pause(): void; resume(): void } {
    this.#sink = sink
    queueMicrotask(() => this.#pour(sink))
    return this.#exchange.body
  }

  // Its own.

  #pour(sink: FilesSink): void {
    if (this.#failure !== undefined) return sink.failed(this.#failure)
    if (this.#phase !== "waiting") return
    this.#phase = "files"
    // Before delivering: the reader may want to pause again.
    this.#exchange.body.resume()
    for (const file of this.begun) {
      sink.file(file)
      for (const bytes of file.content) sink.bytes(bytes)
    }
    this.#advance()
  }

  #advance(): void {
    while (this.#phase === "fields" || this.#phase === "files") {
      const event = this.#reader.next()
      if (event !== undefined) this.#take(event)
      else if (!this.#isLast) return
      else if (!this.#isComplete) return this.#fail(wrong(true, "The form breaks off before its last boundary", "body"))
      else {
        this.#phase = "over"
        this.#sink!.end()
      }
    }
  }

  #take(event: FormEvent): void {
    switch (event._tag) {
      case "malformed":
        return this.#fail(wrong(true, event.msg, "body"))
      case "part": {
        const problem = this.#part(event.part)
        return problem === undefined ? undefined : this.#fail(problem)
      }
      case "bytes":
        return this.#bytes(event.bytes)
      case "end":
        this.#isComplete = true
        if (this.#phase === "fields") this.#ready()
    }
  }

  #part(part: FormPart): InvalidRequest | undefined {
    const { filesName, isWhole } = this.#shape
    if (++this.#parts > limits.formPartsMax) return wrong(false, `At most ${limits.formPartsMax} fields and files are taken`, "body")
    if (isWhole) this.#nextPrint(part)
    this.#field = undefined
    if (part.name === filesName) return this.#file(part)
    const name = part.name.slice(0, 100)
    if (part.fileName !== undefined) return wrong(false, `Expected text: files go by the name ${filesName}`, "body", name)
    if (this.begun.length > 0) return wrong(false, "Expected before the first file", "body", name)
    this.#field = []
    this.#fields.set(part.name, this.#field)
    return undefined
  }

  #file({ fileName, contentType }: FormPart): InvalidRequest | undefined {
    if (fileName === undefined || fileName === "") return wrong(false, "Expected a file with a name", "body", this.#shape.filesName)
    const file = { name: fileName, contentType, size: 0, content: [] }
    if (this.#phase === "files") this.#sink!.file(file)
    else {
      this.begun.push(file)
      if (!this.#shape.isWhole) this.#ready()
    }
    return undefined
  }

  #bytes(bytes: Uint8Array): void {
    if (this.#shape.isWhole) this.#print.update(bytes)
    if (this.#field !== undefined) {
      this.#fieldBytes += bytes.byteLength
      if (this.#fieldBytes > limits.formFieldBytesMax) return this.#fail(wrong(false, `All fields together may have at most ${limits.formFieldBytesMax} bytes`, "body"))
      this.#field.push(bytes)
    } else if (this.#phase === "files") this.#sink!.bytes(bytes)
    else {
      const file = this.begun.at(-1)!
      file.size += bytes.byteLength
      file.content.push(bytes)
    }
  }

  /** Each part's print is of one size, so that no two forms run together to the same. */
  #nextPrint({ name, fileName, contentType }: FormPart): void {
    this.#prints.update(this.#print.digest())
    this.#print = createHash("sha256").update(`${JSON.stringify([name, fileName, contentType])}\n`)
  }

  #ready(): void {
    const payload = this.#payload()
    if (payload instanceof InvalidRequest) return this.#fail(payload)
    this.#phase = "waiting"
    this.#exchange.body.pause()
    this.#begin(payload.value, this, this.#prints.update(this.#print.digest()).digest())
  }

  #payload(): ReturnType<Decode> {
    const texts: Record<string, string> = Object.create(null)
    for (const [name, parts] of this.#fields) {
      const bytes = Buffer.concat(parts)
      if (!isUtf8(bytes)) return wrong(true, "Not UTF-8", "body", name.slice(0, 100))
      texts[name] = bytes.toString("utf8")
      if (isUnstorable(texts[name])) return wrong(false, "Contains a character that can't be stored", "body", name.slice(0, 100))
    }
    const payload = this.#shape.decode(texts)
    if (!(payload instanceof InvalidRequest) || this.begun.length === 0) return payload
    // It may still come, but then too late.
    const issues = payload.issues.map((issue) => this.#fields.has(issue.loc[1]!) ? issue : { loc: issue.loc, msg: "Expected before the first file" })
    return new InvalidRequest({ malformed: false, issues })
  }

  #fail(error: GatewayError): void {
    const phase = this.#phase
    if (phase === "over") return
    this.#phase = "over"
    this.#exchange.body.pause()
    if (phase === "fields") return this.#exchange.fail(error)
    this.#failure = error
    this.#sink?.failed(error)
  }
}
