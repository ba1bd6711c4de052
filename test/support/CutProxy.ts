/**
 * Stands between a gateway and its database, on a Unix socket of its own, and
 * cuts the connection where it hurts: after a statement was sent and before its
 * acknowledgement comes back, or before the statement arrives.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { type Socket, connect, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { PostgresOptions } from "./postgres.ts"

/** `beforeAnswer`: the server has the statement and executes it. `beforeSend`: it never arrives. */
export type Cut = "beforeAnswer" | "beforeSend"

export interface CutProxy {
  readonly options: PostgresOptions
  /** Cuts the next connection on which a statement that contains `text` is sent. Resolves when it has. */
  readonly arm: (cut: Cut, text: string) => Promise<void>
  /** Refuses and cuts everything until `restore`. */
  readonly sever: () => void
  readonly restore: () => void
  readonly cuts: () => number
  readonly close: () => Promise<void>
}

export const startCutProxy = async (server: PostgresOptions): Promise<CutProxy> => {
  const folder = mkdtempSync(join(tmpdir(), "tollgate-cut-"))
  const pairs = new Set<{ client: Socket; upstream: Socket }>()
  let armed: { cut: Cut; text: string; done: () => void } | undefined
  let severed = false
  let cuts = 0

  const proxy = createServer((client) => {
    if (severed) return void client.destroy()
    const upstream = connect(join(server.host, `.s.PGSQL.${server.port}`))
    const pair = { client, upstream }
    pairs.add(pair)
    let muted = false
    const end = () => {
      pairs.delete(pair)
      client.destroy()
      upstream.destroy()
    }
    const fire = (done: () => void) => {
      cuts++
      armed = undefined
      end()
      done()
    }
    client.on("data", (bytes) => {
      if (armed !== undefined && bytes.includes(armed.text)) {
        if (armed.cut === "beforeSend") return fire(armed.done)
        muted = true
      }
      upstream.write(bytes)
    })
    upstream.on("data", (bytes) => {
      // The whole answer has come when the server is ready again ('Z', length 5).
      if (muted && armed !== undefined) return bytes.includes(Buffer.from([0x5a, 0, 0, 0, 5])) ? fire(armed.done) : undefined
      client.write(bytes)
    })
    for (const socket of [client, upstream]) socket.on("close", end).on("error", end)
  })
  await new Promise<void>((done) => proxy.listen(join(folder, `.s.PGSQL.${server.port}`), done))
  return {
    options: { ...server, host: folder },
    arm: (cut, text) => new Promise((done) => { armed = { cut, text, done } }),
    sever: () => {
      severed = true
      for (const { client, upstream } of [...pairs]) {
        client.destroy()
        upstream.destroy()
      }
    },
    restore: () => { severed = false },
    cuts: () => cuts,
    close: () => new Promise((done) => {
      for (const { client, upstream } of [...pairs]) {
        client.destroy()
        upstream.destroy()
      }
      proxy.close(() => {
        rmSync(folder, { recursive: true, force: true })
        done()
      })
    })
  }
}
