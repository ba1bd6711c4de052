/**
 * The chat's yardstick: what uWebSockets.js and bare sockets to the agent cost
 * when nothing is done between them. A prompt goes to the agent as it is, and the
 * deltas that came in one read leave in one frame. It checks nobody, limits,
 * charges and keeps nothing, knows only the bench's agent, and would be no
 * gateway. `node bareChat.js UPSTREAM_PORT`.
 */
import { type Socket, connect } from "node:net"
import uWS from "uWebSockets.js"
import { serve } from "../rig/agent.ts"

const readBuffer = Buffer.allocUnsafeSlow(64 * 1_024)
const port = Number(process.argv[2])
const restMs = 5_000
const answerEnd = "\r\n0\r\n\r\n"
const before = `"content":"`
const after = `"}`

/** A connection to the agent, and for whom it is used. */
class Line {
  readonly #socket: Socket
  #tell: (text: string, isLast: boolean) => void = () => {}
  #rest = ""
  #restsSinceMs = 0

  constructor() {
    this.#socket = connect({
      port, host: "127.0.0.1", noDelay: true,
      onread: { buffer: readBuffer, callback: (length) => this.#read(readBuffer.toString("latin1", 0, length)) }
    })
    this.#socket.on("error", () => {})
  }

  rest(): void {
    this.#restsSinceMs = performance.now()
    idle.push(this)
  }

  /** The agent closes what rests for ten seconds. */
  isFresh(): boolean {
    const isFresh = performance.now() - this.#restsSinceMs < restMs
    if (!isFresh) this.#socket.destroy()
    return isFresh
  }

  ask(body: string, tell: (text: string, isLast: boolean) => void): void {
    this.#tell = tell
    this.#rest = ""
    this.#socket.write(`POST /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
  }

  #read(bytes: string): boolean {
    const all = this.#rest + bytes
    let text = ""
    let at = 0
    for (let end = all.indexOf("\n\n"); end >= 0; end = all.indexOf("\n\n", at)) {
      const event = all.slice(at, end)
      const begin = event.indexOf(before)
      if (begin >= 0) text += event.slice(begin + before.length, event.indexOf(after, begin))
      at = end + 2
    }
    this.#rest = all.slice(at)
    const isLast = this.#rest === answerEnd
    if (text !== "" || isLast) this.#tell(text, isLast)
    return true
  }
}

const idle: Array<Line> = []

/** The one that rested last; if that is too old, all are. */
const aLine = (): Line => {
  const line = idle.pop()
  return line?.isFresh() === true ? line : new Line()
}

const app = uWS.App().ws<{ isOpen: boolean }>("/*", {
  upgrade: (response, request, context) => response.upgrade(
    { isOpen: true }, request.getHeader("sec-websocket-key"), request.getHeader("sec-websocket-protocol"), request.getHeader("sec-websocket-extensions"), context
  ),
  message: (socket, message) => {
    const user = socket.getUserData()
    const line = aLine()
    line.ask(Buffer.from(message).toString(), (text, isLast) => {
      if (isLast) line.rest()
      if (!user.isOpen) return
      if (text !== "") socket.send(`{"type":"chunk","data":"${text}"}`)
      if (isLast) socket.send(`{"type":"done"}`)
    })
  },
  close: (socket) => { socket.getUserData().isOpen = false }
})
serve(app)
