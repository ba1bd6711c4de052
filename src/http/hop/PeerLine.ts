/**
 * The connections to one other node: kept alive, one call on each at a time, at
 * most `hopCallsMax` of them. Nothing waits for a free one: a call above the
 * bound is refused at once.
 */
import { Agent, type ClientRequest, request } from "node:http"
import type { Peer } from "../../cluster/Cluster.ts"

/** An agent's answer may have 32 KiB of head; what a dialect puts on it is less. */
const answerHeadBytesMax = 64 * 1024

export class PeerLine {
  readonly peer: Peer
  /** It was gone when somebody looked, and its connections will be cut. */
  isDoomed = false
  readonly #agent: Agent
  readonly #callsMax: number
  #underWay = 0

  constructor(peer: Peer, callsMax: number, restMs: number) {
    this.peer = peer
    this.#callsMax = callsMax
    // Of node's agent, `timeout` ends connections that rest; one with a call on it only hears of it.
    this.#agent = new Agent({ keepAlive: true, maxSockets: callsMax, timeout: restMs })
  }

  get isFull(): boolean {
    return this.#underWay >= this.#callsMax
  }

  /** `headers` flat, complete, written as they are. */
  request(method: string, path: string, headers: Array<string>): ClientRequest {
    this.#underWay++
    const { host, hopPort } = this.peer
    const sent = request({ agent: this.#agent, host, port: hopPort, method, path, headers: headers as never, maxHeaderSize: answerHeadBytesMax })
    // Every header counts: the default of 2,000 drops the rest in silence.
    sent.maxHeadersCount = 0
    return sent.once("close", () => { this.#underWay-- })
  }

  /** Cuts every connection. */
  close(): void {
    this.#agent.destroy()
  }
}
