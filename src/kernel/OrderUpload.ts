/**
 * The form of one order on its way from its caller to its agent, as it comes:
 * the prompt, then the files, each judged by the agent's manifest at its head
 * and as it grows. What the agent gets is written anew, with a boundary that no
 * file can contain because nobody knows it.
 *
 * Guarantee. `received` answers once: when the caller's form is complete, or
 * with why it will not be. In the second case the agent gets no whole form, and
 * `brokenOff` is how its order ended. Memory: what `UpstreamBody` bounds.
 *
 * An agent that answers, or is gone, before the form is complete has decided its
 * order: what still comes is read and dropped, and no longer judged.
 */
import { Effect } from "effect"
import { randomBytes } from "node:crypto"
import type { Agent, Manifest } from "../domain/agent.ts"
import { BodyTooLarge, type GatewayError, InputNotAccepted } from "../domain/errors.ts"
import type { OrderBody, Ran } from "./OrderRun.ts"
import { UpstreamBody } from "./upstream/UpstreamBody.ts"

export interface UploadedFile {
  readonly name: string
  /** As the caller wrote it: without control characters. */
  readonly contentType: string | undefined
}

/** Who takes the files of a form, in order. After `end` or `failed` nothing more comes. */
export interface FilesSink {
  file(file: UploadedFile): void
  /** Content of the latest file, which must not change afterwards. */
  bytes(bytes: Uint8Array): void
  end(): void
  /** The rest of the form will not come: it is malformed, too long, too slow, or its caller has gone. */
  failed(error: GatewayError): void
}

/** The files of a form whose fields have been read. Implemented by the edge. */
export interface UploadedFiles {
  /** What is known of them before they are read: the first, or all when the form is here already. */
  readonly begun: ReadonlyArray<UploadedFile & { readonly size: number }>
  /** Lets them flow, on a later turn, to one sink; it may be told to pause. */
  read(sink: FilesSink): { pause(): void; resume(): void }
}

/** What could end a quoted name, or its line. Browsers write these three so (HTML standard, multipart/form-data); a backslash is an escape to some readers. */
const unquotable = /["\\\0-\x1f\x7f]/g
const quoted = (name: string): string =>
  `"${name.replace(unquotable, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`)}"`

/** The caller's part in a call that did not come to an answer, as relayed calls have it. */
const callersStatus = 499

export class OrderUpload implements FilesSink, OrderBody {
  readonly contentType: string
  readonly body = new UpstreamBody(undefined, () => this.#flow?.resume())
  /** `undefined`: the form is complete. */
  readonly received: Promise<GatewayError | undefined>
  readonly #input: NonNullable<Manifest["input"]>
  readonly #boundary = `tollgate-${randomBytes(24).toString("base64url")}`
  #size = 0
  #flow: ReturnType<UploadedFiles["read"]> | undefined
  #settle!: (error: GatewayError | undefined) => void
  #isSettled = false

  constructor(agent: Agent) {
    this.#input = agent.manifest?.input ?? {}
    this.contentType = `multipart/form-data; boundary=${this.#boundary}`
    this.received = new Promise((settle) => { this.#settle = settle })
  }

  /** Why the agent takes no such form, as far as it is known yet. */
  refusal(prompt: string, begun: UploadedFiles["begun"]): GatewayError | undefined {
    const { type, accepts_files: acceptsFiles } = this.#input
    if (type === "json" && acceptsFiles !== true) return new InputNotAccepted({ wanted: "json" })
    if (acceptsFiles === false && begun.length > 0) return new InputNotAccepted({ wanted: "a prompt without files" })
    for (const file of begun) {
      const misfit = this.#misfit(file)
      if (misfit !== undefined) return misfit
    }
    return this.#excess(begun.reduce((size, file) => size + file.size, Buffer.byteLength(prompt)))
  }

  /** The order's end when the form breaks off; waits forever when it does not. */
  get brokenOff(): Effect.Effect<Ran> {
    return Effect.promise(() => this.received).pipe(Effect.flatMap((error): Effect.Effect<Ran> => error === undefined ? Effect.never : Effect.succeed({
      answer: { _tag: "failed", error: "the caller's form did not arrive, or was refused" }, status: callersStatus
    })))
  }

  /** Lets the form flow. Neither is kept: the order may run on for long. */
  start(prompt: string, files: UploadedFiles): void {
    this.#size = Buffer.byteLength(prompt)
    this.body.write(Buffer.from(`--${this.#boundary}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n${prompt}`))
    this.#flow = files.read(this)
  }

  file(file: UploadedFile): void {
    if (this.#isOver()) return
    const misfit = this.#misfit(file)
    if (misfit !== undefined) return this.failed(misfit)
    this.#write(Buffer.from(
      `\r\n--${this.#boundary}\r\nContent-Disposition: form-data; name="files"; filename=${quoted(file.name)}\r\n`
        + `Content-Type: ${file.contentType || "application/octet-stream"}\r\n\r\n`
    ))
  }

  bytes(bytes: Uint8Array): void {
    if (this.#isOver()) return
    this.#size += bytes.byteLength
    const excess = this.#excess(this.#size)
    if (excess !== undefined) return this.failed(excess)
    this.#write(bytes)
  }

  end(): void {
    if (!this.#isOver()) {
      this.body.write(Buffer.from(`\r\n--${this.#boundary}--\r\n`))
      this.body.end()
    }
    this.#settleWith(undefined)
  }

  failed(error: GatewayError): void {
    this.#flow?.pause()
    this.#settleWith(error)
  }

  #settleWith(error: GatewayError | undefined): void {
    this.#isSettled = true
    this.#settle(error)
  }

  /** Nothing more goes to the agent. */
  #isOver(): boolean {
    return this.#isSettled || this.body.destroyed
  }

  #write(bytes: Uint8Array): void {
    if (!this.body.write(bytes)) this.#flow?.pause()
  }

  #misfit({ name }: UploadedFile): GatewayError | undefined {
    const types = this.#input.file_types ?? []
    const lower = name.toLowerCase()
    return types.length === 0 || types.some((type) => lower.endsWith(`.${type.toLowerCase().replace(/^\./, "")}`)) ? undefined
      : new InputNotAccepted({ wanted: `files of the types ${types.join(", ")}` })
  }

  /** Prompt and files together. */
  #excess(size: number): GatewayError | undefined {
    const bytesMax = this.#input.max_size_bytes ?? Infinity
    return size > bytesMax ? new BodyTooLarge({ bytesMax }) : undefined
  }
}
