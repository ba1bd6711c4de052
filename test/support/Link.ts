/**
 * A way between two programs that a test can cut, freeze and slow down: it
 * carries the bytes of sockets between one that came in and one that it opens.
 *
 * A frozen link is a network that swallows packets: connections stay open and
 * can be opened, and nothing arrives until `thaw`, when everything does.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { type Socket, connect, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"

interface Pair {
  readonly client: Socket
  readonly server: Socket
}

export class Link {
  readonly #pairs = new Set<Pair>()
  #severed = false
  #thawed: Promise<void> = Promise.resolve()
  #thaw: () => void = () => {}
  #delayMs = 0
  #cut: (() => void) | undefined

  /** Between a socket that came in and the one that leads on. `first`: bytes that were read of the client already. */
  carry(client: Socket, open: () => Socket, first?: Buffer): void {
    if (this.#severed) return void client.destroy()
    const server = open()
    const pair = { client, server }
    this.#pairs.add(pair)
    this.#flow(client, server, () => this.#afterSend(pair), first)
    this.#flow(server, client, () => {})
    for (const socket of [client, server]) {
      socket.on("error", () => socket.destroy()).on("close", () => {
        this.#pairs.delete(pair)
        // What came before an orderly end is still on its way.
        if (!socket.readableEnded) [client, server].forEach((other) => other.destroy())
      })
    }
  }

  /** Cuts all connections and refuses new ones until `restore`. */
  sever(): void {
    this.#severed = true
    for (const pair of [...this.#pairs]) this.#end(pair)
  }

  restore(): void {
    this.#severed = false
  }

  freeze(): void {
    this.#thawed = new Promise((done) => { this.#thaw = done })
  }

  thaw(): void {
    this.#thaw()
    this.#thawed = Promise.resolve()
  }

  /** Of every byte from now on, each way. Order stays. */
  delay(ms: number): void {
    this.#delayMs = ms
  }

  /** Lets the next bytes from a client through, and cuts their connection before anything comes back: the client can't know whether it was heard. Resolves when done. */
  cutAfterSend(): Promise<void> {
    return new Promise((done) => { this.#cut = done })
  }

  #afterSend(pair: Pair): void {
    if (this.#cut === undefined) return
    const done = this.#cut
    this.#cut = undefined
    pair.server.removeAllListeners("data").pause()
    pair.client.destroy()
    pair.server.end(done)
  }

  #flow(from: Socket, to: Socket, afterSend: () => void, first?: Buffer): void {
    let last = Promise.resolve()
    const pass = (act: () => void): void => {
      const due = performance.now() + this.#delayMs
      last = last.then(() => this.#thawed).then(() => sleep(Math.max(0, due - performance.now()))).then(act)
    }
    const write = (bytes: Buffer): void => pass(() => {
      if (to.writable) to.write(bytes)
      afterSend()
    })
    if (first !== undefined) write(first)
    from.on("data", write).on("end", () => pass(() => to.end())).resume()
  }

  #end({ client, server }: Pair): void {
    client.destroy()
    server.destroy()
  }
}

export interface SocketProxy {
  readonly link: Link
  /** Where it listens. */
  readonly path: string
  readonly close: () => void
}

/** A Unix socket of its own in front of another. `name`: the socket's file. */
export const startSocketProxy = async (target: string, name: string): Promise<SocketProxy> => {
  const folder = mkdtempSync(join(tmpdir(), "tollgate-link-"))
  const path = join(folder, name)
  const link = new Link()
  const server = createServer({ allowHalfOpen: true }, (client) => link.carry(client, () => connect({ path: target, allowHalfOpen: true })))
  await new Promise<void>((done) => server.listen(path, done))
  return {
    link,
    path,
    close: () => {
      link.sever()
      server.close()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
