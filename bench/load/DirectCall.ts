/**
 * A kept connection to the agent itself, with at most one turn on it: what a
 * first chunk takes when nothing is between. Reads only what the bench's agent
 * writes.
 */
import { once } from "node:events"
import { type Socket, connect } from "node:net"
import type { Turn } from "./Turn.ts"

const lastChunk = "\r\n0\r\n\r\n"

export class DirectCall {
  readonly #socket: Socket
  #turn: Turn | undefined
  #received = ""

  static async open(port: number): Promise<DirectCall> {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true })
    await once(socket, "connect")
    return new DirectCall(socket)
  }

  private constructor(socket: Socket) {
    this.#socket = socket.setEncoding("latin1").on("data", (text) => this.#read(text as unknown as string)).on("error", () => {})
  }

  say(turn: Turn): void {
    this.#turn = turn
    this.#received = ""
    const body = JSON.stringify({ prompt: turn.prompt, stream: true })
    this.#socket.write(`POST /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
  }

  drop(): void {
    this.#socket.destroy()
  }

  #read(text: string): void {
    for (const [, delta = ""] of text.matchAll(/"content":"([^"]*)"/g)) this.#turn?.heard(delta)
    // The end may come in two reads.
    this.#received = (this.#received + text).slice(-lastChunk.length)
    if (this.#received !== lastChunk) return
    const turn = this.#turn
    this.#turn = undefined
    turn?.ended()
  }
}
