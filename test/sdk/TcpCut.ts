/** Stands between a client and a gateway, hands bytes on, and cuts every connection when it is told to. */
import { once } from "node:events"
import { type AddressInfo, type Socket, connect, createServer } from "node:net"

export class TcpCut {
  /** Where the gateway is; a restarted one has another. */
  port: number
  /** Called with what the gateway sends, before it is handed on; `false` cuts instead. */
  watch: (bytes: Buffer) => boolean = () => true
  readonly #server
  readonly #open = new Set<Socket>()

  constructor(port: number) {
    this.port = port
    this.#server = createServer((client) => {
      const gateway = connect(this.port, "127.0.0.1")
      const end = (): void => {
        for (const socket of [client, gateway]) {
          this.#open.delete(socket)
          socket.destroy()
        }
      }
      for (const socket of [client, gateway]) {
        this.#open.add(socket)
        socket.on("error", end).on("close", end)
      }
      client.on("data", (bytes) => gateway.write(bytes))
      gateway.on("data", (bytes) => {
        if (this.watch(bytes)) client.write(bytes)
        else end()
      })
    })
  }

  async listen(): Promise<this> {
    this.#server.listen(0, "127.0.0.1")
    await once(this.#server, "listening")
    return this
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  cut(): void {
    for (const socket of this.#open) socket.destroy()
  }

  close(): void {
    this.#server.close()
    this.cut()
  }
}
