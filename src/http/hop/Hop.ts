/**
 * Calls that another node must answer, on their way there. Every account has one
 * owner; a call that arrives at another node, and that this can't answer with
 * what it was leased, goes to the owner over HTTP and its answer comes back.
 *
 *   caller ──▶ this node ──secret, caller's address, request id──▶ owner
 *   caller ◀── head and body as they are ◀──────────────────────── owner
 *
 * Guarantee. A call is passed on once: at a node that does not own the account
 * either it is refused (503, `Overloaded`), never sent in a circle. Only who
 * knows the cluster's secret is heard as a node. The network between the nodes
 * is trusted: calls cross it as they came, with their credentials and the secret.
 *
 * One whose owner did nothing for it waits for the accounts to move, at most
 * `hopMovedMs`, and is then decided anew; see `PassedCall` for which those are.
 */
import type { Cluster, Peer } from "../../cluster/Cluster.ts"
import { InvalidRequest } from "../../domain/errors.ts"
import { log } from "../../telemetry/log.ts"
import type { EdgeLimits } from "../Edge.ts"
import type { Exchange } from "../Exchange.ts"
import type { RequestHead } from "../headers.ts"
import { type Told, toldOf, toOwner } from "./hopHead.ts"
import { PassedCall, unplaced } from "./PassedCall.ts"
import { PeerLine } from "./PeerLine.ts"

export class Hop {
  readonly #cluster: Cluster["Service"]
  readonly #limits: EdgeLimits
  readonly #lines = new Map<string, PeerLine>()
  readonly #dooms = new Set<NodeJS.Timeout>()
  /** Calls that wait for accounts to move. */
  readonly #waiting = new Set<() => void>()
  #moves = 0

  constructor(cluster: Cluster["Service"], limits: EdgeLimits) {
    this.#cluster = cluster
    this.#limits = limits
    cluster.onMoved(() => this.#moved())
  }

  canPass(exchange: Exchange): boolean {
    return this.#cluster.isMany && !exchange.isHopped
  }

  /** What another node tells of a call that it passed on; `undefined`: no node did. */
  told(head: RequestHead): Told | undefined {
    return toldOf(head, this.#cluster.secret())
  }

  /** `body`: when it was read already. `again` decides anew who answers; without it the call has this one try. */
  pass(exchange: Exchange, peer: Peer, body: Uint8Array | undefined, again: (() => void) | undefined): void {
    const line = this.#lineTo(peer)
    if (exchange.isHopped || line.isFull) return exchange.failHere(unplaced())
    const { head, requestId, remoteAddress: address } = exchange
    const headers = toOwner(head, { requestId, address }, this.#cluster.secret(), body?.byteLength ?? exchange.contentLength)
    if (headers === undefined) return exchange.fail(new InvalidRequest({ malformed: true, issues: [{ loc: ["header"], msg: "Contains a control character" }] }))
    // The edge decoded the caller's bytes as UTF-8; this gives the same bytes back.
    const path = Buffer.from(head.query === "" ? head.path : `${head.path}?${head.query}`, "utf8").toString("latin1")
    const moves = this.#moves
    exchange.passedAtMs ||= Date.now()
    new PassedCall(exchange, line, path, headers, body, again === undefined ? undefined : () => this.#whenMoved(moves, exchange, again))
  }

  close(): void {
    for (const doom of this.#dooms) clearTimeout(doom)
    for (const line of this.#lines.values()) line.close()
  }

  #lineTo(peer: Peer): PeerLine {
    const line = this.#lines.get(peer.nodeId) ?? new PeerLine(peer, this.#limits.hopCallsMax, this.#limits.hopRestMs)
    this.#lines.set(peer.nodeId, line)
    return line
  }

  /** At once when accounts have moved since there were `moves`. */
  #whenMoved(moves: number, exchange: Exchange, again: () => void): void {
    const leftMs = exchange.passedAtMs + this.#limits.hopMovedMs - Date.now()
    if (leftMs <= 0) return exchange.fail(unplaced())
    // Who leaves meanwhile is noticed by whoever answers.
    exchange.listener = undefined
    if (moves !== this.#moves) return again()
    const wake = (): void => {
      clearTimeout(timer)
      this.#waiting.delete(wake)
      again()
    }
    const timer = setTimeout(() => {
      this.#waiting.delete(wake)
      exchange.fail(unplaced())
    }, leftMs)
    this.#waiting.add(wake)
  }

  #moved(): void {
    this.#moves++
    for (const wake of [...this.#waiting]) wake()
    for (const line of this.#lines.values()) if (!line.isDoomed && !this.#cluster.isAlive(line.peer.nodeId)) this.#doom(line)
  }

  /** A node that left in order ends its calls within the drain; one that died never will, and nobody might tell. */
  #doom(line: PeerLine): void {
    line.isDoomed = true
    const doom = setTimeout(() => {
      this.#dooms.delete(doom)
      line.isDoomed = false
      if (this.#cluster.isAlive(line.peer.nodeId)) return
      log.info({ node: line.peer.nodeId }, "connections to a node that is gone are closed")
      this.#lines.delete(line.peer.nodeId)
      line.close()
    }, this.#limits.drainMs)
    doom.unref()
    this.#dooms.add(doom)
  }
}
