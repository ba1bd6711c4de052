/** A TCP connection that says exactly what a test tells it to, and remembers what it was told. */
import { once } from "node:events"
import { connect, type Socket } from "node:net"

export class RawConnection {
  readonly socket: Socket
  text = ""
  bytes = 0
  isClosed = false
  #keeps = true
  #wake: (() => void) | undefined = undefined

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on("data", (data) => {
      this.bytes += data.length
      if (this.#keeps) this.text += data.toString("latin1")
      this.#wake?.()
    })
    socket.on("error", () => undefined)
    socket.on("close", () => {
      this.isClosed = true
      this.#wake?.()
    })
  }

  static async open(port: number): Promise<RawConnection> {
    const socket = connect(port, "127.0.0.1")
    const connection = new RawConnection(socket)
    await once(socket, "connect")
    return connection
  }

  /** Counts bytes from here on instead of keeping them. */
  countOnly(): void {
    this.#keeps = false
  }

  send(text: string | Uint8Array): void {
    this.socket.write(text)
  }

  /** Waits until `seen` holds, looking again at every event of the connection. Fails when it ends first. */
  async until(seen: (connection: this) => boolean): Promise<void> {
    while (!seen(this)) {
      if (this.isClosed) throw new Error(`the connection ended after ${JSON.stringify(this.text.slice(-400))}`)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  async closed(): Promise<string> {
    while (!this.isClosed) await new Promise<void>((resolve) => { this.#wake = resolve })
    return this.text
  }

  destroy(): void {
    this.socket.destroy()
  }
}
