/** A caller who writes a form piece by piece, and can stop or leave at any of them. Once answered, it writes no more. */
import { type ClientRequest, request } from "node:http"
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises"
import { formType } from "./Form.ts"

export interface UploadAnswer {
  readonly status: number
  readonly json: any
}

const blockBytes = 64 * 1024

export class Uploader {
  /** Rejects when the connection ends without one. */
  readonly answer: Promise<UploadAnswer>
  readonly #request: ClientRequest
  #isOver = false

  constructor(port: number, token: string, headers: Readonly<Record<string, string | number>> = {}) {
    this.#request = request({
      host: "127.0.0.1", port, method: "POST", path: "/v1/orders/multipart", agent: false, headers: { authorization: `Bearer ${token}`, ...formType(), ...headers }
    })
    this.answer = new Promise((done, fail) => {
      this.#request.on("close", () => { this.#isOver = true }).on("error", fail).on("response", (response) => {
        this.#isOver = true
        const parts: Array<Buffer> = []
        response.on("error", fail).on("data", (part: Buffer) => parts.push(part)).on("end", () =>
          done({ status: response.statusCode ?? 0, json: JSON.parse(Buffer.concat(parts).toString()) }))
      })
    })
    // Who leaves waits for none.
    this.answer.catch(() => {})
    this.#request.flushHeaders()
  }

  write(...pieces: ReadonlyArray<Uint8Array>): void {
    for (const piece of pieces) this.#request.write(piece)
  }

  /** Writes as the gateway takes it, looking for its answer in between. */
  async send(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length && !this.#isOver; at += blockBytes) {
      if (this.#request.write(bytes.subarray(at, at + blockBytes))) await turn()
      else while (this.#request.writableNeedDrain && !this.#isOver) await sleep(1)
    }
  }

  async pour(block: Uint8Array, times: number): Promise<void> {
    for (let i = 0; i < times && !this.#isOver; i++) await this.send(block)
  }

  /** Resolves when nothing has moved for a while although there is more to send: everything between the two sides is full. Answers the bytes that were taken. */
  async stalled(): Promise<number> {
    const { socket } = this.#request
    let before = -1
    for (let still = 0; still < 5;) {
      await sleep(50)
      const taken = (socket?.bytesWritten ?? 0) - (socket?.writableLength ?? 0)
      still = taken === before && this.#request.writableNeedDrain ? still + 1 : 0
      before = taken
    }
    return before
  }

  end(...pieces: ReadonlyArray<Uint8Array>): Promise<UploadAnswer> {
    if (!this.#isOver) this.write(...pieces)
    this.#request.end()
    return this.answer
  }

  /** Leaves without a word. */
  leave(): void {
    this.#request.destroy()
  }
}
