/**
 * A chat client that does what a test says and nothing by itself: it sends
 * frames, and keeps those that come.
 */
import { get } from "node:http"
import { WebSocket } from "undici"

export interface Frame {
  readonly type: string
  readonly [field: string]: any
}

/** How a socket ended, and what was said before. */
export interface Ended {
  readonly code: number
  readonly reason: string
  /** The fatal `error` frame, when there was one. */
  readonly error: Frame | undefined
}

export class ChatSocket {
  /** All that came, in order. */
  readonly frames: Array<Frame> = []
  /** The close code and reason. */
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>
  readonly #socket: WebSocket
  readonly #arrivals = new Set<() => void>()
  #isClosed = false

  constructor(socket: WebSocket) {
    this.#socket = socket
    socket.addEventListener("message", ({ data }) => {
      this.frames.push(JSON.parse(data as string) as Frame)
      this.#arrived()
    })
    this.closed = new Promise((done) => socket.addEventListener("close", ({ code, reason }) => {
      this.#isClosed = true
      done({ code, reason })
      this.#arrived()
    }))
  }

  static async connect(url: string, headers: Readonly<Record<string, string>> = {}): Promise<ChatSocket> {
    const socket = new WebSocket(url.replace(/^http/, "ws"), { headers })
    const chat = new ChatSocket(socket)
    await new Promise<void>((done, fail) => {
      socket.addEventListener("open", () => done())
      socket.addEventListener("error", (event) => fail(event.error ?? new Error("the socket was refused")))
    })
    return chat
  }

  /** Connects and authenticates; answers when the session frame is there. */
  static async open(gateway: { readonly url: string }, ticker: string, token: string, sessionId?: string): Promise<ChatSocket> {
    const chat = await ChatSocket.connect(`${gateway.url}/v1/ws/agent/${ticker}`)
    chat.send({ type: "auth", token, ...(sessionId === undefined ? {} : { session_id: sessionId }) })
    await chat.next("session")
    return chat
  }

  get session(): Frame {
    return this.frames.find(({ type }) => type === "session")!
  }

  send(frame: object | string): void {
    this.#socket.send(typeof frame === "string" ? frame : JSON.stringify(frame))
  }

  sendBytes(bytes: Uint8Array): void {
    this.#socket.send(bytes)
  }

  message(prompt: string, id?: string): void {
    this.send({ type: "message", prompt, ...(id === undefined ? {} : { id }) })
  }

  close(code?: number): void {
    this.#socket.close(code)
  }

  /** The first frame of the type at or after `from`; an error instead, or the socket's end, fails. */
  async next(type: string, from = 0): Promise<Frame> {
    return this.until((frame) => frame.type === type, from, type === "error" ? undefined : (frame) => frame.type === "error")
  }

  async until(wanted: (frame: Frame) => boolean, from = 0, unwanted: (frame: Frame) => boolean = () => false): Promise<Frame> {
    for (let at = from;; at++) {
      while (at >= this.frames.length) {
        if (this.#isClosed) throw new Error(`the socket ended: ${JSON.stringify(await this.closed)} after ${JSON.stringify(this.frames.slice(-5))}`)
        await new Promise<void>((arrived) => this.#arrivals.add(arrived))
      }
      const frame = this.frames[at]!
      if (wanted(frame)) return frame
      if (unwanted(frame)) throw new Error(`instead came ${JSON.stringify(frame)}`)
    }
  }

  /** The socket's end, which is another's doing. */
  async ended(): Promise<Ended> {
    const { code, reason } = await this.closed
    return { code, reason, error: this.frames.find(({ type, fatal }) => type === "error" && fatal === true) }
  }

  /** One whole turn: its text, `done` and `billing`. */
  async turn(prompt: string, id?: string): Promise<{ readonly text: string; readonly done: Frame; readonly billing: Frame }> {
    const from = this.frames.length
    this.message(prompt, id)
    const billing = await this.next("billing", from)
    return { text: this.text(from), done: await this.next("done", from), billing }
  }

  /** What the chunks from there on say. */
  text(from = 0): string {
    return this.frames.slice(from).filter(({ type }) => type === "chunk").map(({ data }) => data as string).join("")
  }

  #arrived(): void {
    for (const arrived of this.#arrivals) arrived()
    this.#arrivals.clear()
  }
}

/** What a handshake is answered with when it is not agreed to, or the headers of one that is. */
export const handshake = (url: string, headers: Readonly<Record<string, string>> = {}): Promise<{
  readonly status: number
  readonly headers: Readonly<Record<string, string | Array<string> | undefined>>
  readonly body: string
}> => new Promise((done, fail) => {
  const all = { upgrade: "websocket", connection: "upgrade", "sec-websocket-key": "x3JJHMbDL1EzLkh9GBhXDw==", "sec-websocket-version": "13", ...headers }
  get(url, { headers: all, agent: false }, (response) => {
    let body = ""
    response.setEncoding("utf8").on("data", (part: string) => { body += part }).on("end", () => done({ status: response.statusCode!, headers: response.headers, body }))
  }).on("upgrade", (response, socket) => {
    socket.destroy()
    done({ status: 101, headers: response.headers, body: "" })
  }).on("error", fail)
})
