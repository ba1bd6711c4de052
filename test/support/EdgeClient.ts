/** One edge per test and the ways to talk to it; `useEdge` registers the hooks that start and stop it. */
import { afterEach, beforeEach } from "vitest"
import { type EdgeServer, startEdge } from "./EdgeServer.ts"
import { RawConnection } from "./RawConnection.ts"

export interface Answered {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  readonly json: any
}

export class EdgeClient {
  edge!: EdgeServer
  readonly #open: Array<RawConnection> = []

  readonly start = async (): Promise<void> => {
    this.edge = await startEdge()
  }

  readonly stop = async (): Promise<void> => {
    for (const connection of this.#open.splice(0)) connection.destroy()
    await this.edge.stop()
  }

  readonly restart = async (options: Parameters<typeof startEdge>[0]): Promise<void> => {
    await this.edge.stop()
    this.edge = await startEdge(options)
  }

  readonly connect = async (): Promise<RawConnection> => {
    const connection = await RawConnection.open(this.edge.port)
    this.#open.push(connection)
    return connection
  }

  readonly call = async (method: string, path: string, init: { readonly headers?: Record<string, string>; readonly body?: string } = {}): Promise<Answered> => {
    const response = await fetch(`${this.edge.url}${path}`, { method, ...init })
    const text = await response.text()
    return { status: response.status, headers: response.headers, text, json: text.startsWith("{") || text.startsWith("[") ? JSON.parse(text) : undefined }
  }

  /** fetch won't set Host. */
  readonly callHost = async (host: string, path: string): Promise<{ readonly status: number; readonly text: string }> => {
    const connection = await this.connect()
    connection.send(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    const text = await connection.closed()
    return { status: Number(text.slice(9, 12)), text }
  }
}

export const useEdge = (): EdgeClient => {
  const client = new EdgeClient()
  beforeEach(client.start)
  afterEach(client.stop)
  return client
}

/** A credential whose caller is resident. */
export const key = { authorization: "Bearer resident" }

/** A promise with its resolver: a signal that a test waits for. */
export const signal = <A = void>(): { readonly promise: Promise<A>; readonly fire: (value: A) => void } => {
  let fire!: (value: A) => void
  const promise = new Promise<A>((resolve) => {
    fire = resolve
  })
  return { promise, fire }
}
