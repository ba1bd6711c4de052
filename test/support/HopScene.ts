/**
 * Two nodes of one gateway in this process, without Redis: `first`, where
 * callers arrive, and `owner`, who owns the account of `Bearer placed`. Their
 * cluster is a script: a test says who lives and when accounts move. A node that
 * misbehaves is a TCP server that says what a test tells it to (`impostor`).
 */
import { once } from "node:events"
import { type AddressInfo, createServer, type Socket } from "node:net"
import { afterEach, beforeEach } from "vitest"
import type { Cluster, Peer } from "../../src/cluster/Cluster.ts"
import { type EdgeOptions, type EdgeServer, startEdge } from "./EdgeServer.ts"
import { RawConnection } from "./RawConnection.ts"

export const secret = "the-secret-of-this-cluster"

export class ScriptedCluster {
  readonly dead = new Set<string>()
  readonly #listeners: Array<() => void> = []

  readonly service: Cluster["Service"] = {
    isMany: true,
    ownerOf: () => "here",
    peers: () => [],
    isAlive: (nodeId) => !this.dead.has(nodeId),
    ask: undefined as never,
    serve: () => {},
    onLeaving: () => {},
    onMoved: (listener) => {
      this.#listeners.push(listener)
    },
    join: undefined as never,
    leave: undefined as never,
    secret: () => secret,
    trouble: () => undefined
  }

  /** Tells that accounts have moved. */
  move(): void {
    for (const listener of this.#listeners) listener()
  }
}

const peerAt = (nodeId: string, hopPort: number): Peer => ({ nodeId, host: "127.0.0.1", port: 0, hopPort })

export class HopScene {
  first!: EdgeServer
  owner!: EdgeServer
  /** As `first` sees it. */
  cluster!: ScriptedCluster
  #stops: Array<() => unknown> = []

  readonly start = async (changed: EdgeOptions["limits"] = {}): Promise<void> => {
    // A busy machine must not look like a node that is gone.
    const limits = { hopConnectMs: 20_000, hopMovedMs: 20_000, ...changed }
    this.cluster = new ScriptedCluster()
    this.first = await startEdge({ limits, cluster: this.cluster.service })
    this.owner = await startEdge({ limits, cluster: new ScriptedCluster().service })
    this.first.owner = peerAt("owner", this.owner.hopPort!)
  }

  readonly stop = async (): Promise<void> => {
    for (const stop of this.#stops.splice(0)) await stop()
    await Promise.all([this.first.stop(), this.owner.stop()])
  }

  readonly restart = async (limits: EdgeOptions["limits"]): Promise<void> => {
    await this.stop()
    await this.start(limits)
  }

  readonly connect = async (port = this.first.port): Promise<RawConnection> => {
    const connection = await RawConnection.open(port)
    this.#stops.push(() => connection.destroy())
    return connection
  }

  /** One call of whose account `owner` owns; answers everything that came until the connection ended. */
  readonly raw = async (request: string, port = this.first.port): Promise<string> => {
    const connection = await this.connect(port)
    connection.send(request)
    return connection.closed()
  }

  readonly fetch = (path: string, init: RequestInit & { readonly duplex?: "half" } = {}): Promise<Response> =>
    fetch(`${this.first.url}${path}`, { ...init, headers: { authorization: "Bearer placed", ...init.headers } })

  /** A node that answers as the test wants. Owns the account from now on. */
  readonly impostor = async (talk: (socket: Socket, asked: string, times: number) => void): Promise<void> => {
    let times = 0
    const server = createServer((socket) => {
      socket.on("error", () => undefined)
      socket.on("data", (data) => talk(socket, data.toString("latin1"), ++times))
      this.#stops.push(() => socket.destroy())
    })
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    this.#stops.push(() => server.close())
    this.first.owner = peerAt("impostor", (server.address() as AddressInfo).port)
  }

  /** A node that nobody can reach owns the account from now on. */
  readonly nobody = async (): Promise<void> => {
    const server = createServer().listen(0, "127.0.0.1")
    await once(server, "listening")
    const { port } = server.address() as AddressInfo
    await new Promise((closed) => server.close(closed))
    this.first.owner = peerAt("nobody", port)
  }
}

export const useHop = (): HopScene => {
  const scene = new HopScene()
  beforeEach(() => scene.start())
  afterEach(scene.stop)
  return scene
}
