/**
 * Who relays the chat: the gateway, the bare relay (bench/programs/bareChat.ts),
 * and the peers. All but the gateway check nobody, charge nothing and keep nothing.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Place, Words } from "../../load/ChatSession.ts"
import type { Counts } from "../../load/Crowd.ts"
import type { ChatTask } from "../../programs/chatLoad.ts"
import { addCallers } from "../../rig/callers.ts"
import { cpuMicros } from "../../rig/cores.ts"
import type { BenchGateway } from "../../rig/gateway.ts"
import type { Rig, Running } from "../../rig/Rig.ts"
import { startProgram } from "../peers.ts"

/** Accounts with a key each: no single one may have all sessions. */
export const accounts = 150
export const priceMicros = 10_000n
export const price = "0.01"

export interface Contestant {
  readonly name: string
  /** Has no more rounds than a peer needs. */
  readonly isPeer: boolean
  readonly pid: number
  readonly place: Place
  readonly keys?: string
  /** Microseconds so far, of its own process. */
  readonly cpu: () => number
}

export const gatewayContestant = async (rig: Rig, gateway: BenchGateway): Promise<Contestant> => {
  const keys = join(rig.folder(), "keys")
  writeFileSync(keys, (await addCallers(gateway.sql, accounts)).join("\n"))
  return {
    name: "gateway", isPeer: false, pid: gateway.pid, keys, cpu: () => cpuMicros(gateway.pid),
    place: { words: "gateway", port: gateway.process.port, path: `/v1/ws/agent/${gateway.agent.ticker}` }
  }
}

const bareRelay = async (rig: Rig, agentPort: number): Promise<Contestant> => {
  const { pid, port } = await rig.program("programs/bareChat", String(agentPort))
  return { name: "bare relay", isPeer: false, pid, place: { words: "ws", port, path: "/" }, cpu: () => cpuMicros(pid) }
}

const peers: ReadonlyArray<{ readonly words: Words; readonly file: string; readonly path: string }> = [
  { words: "ws", file: "ws.mjs", path: "/" },
  { words: "Socket.IO", file: "socketio.mjs", path: "/socket.io/?EIO=4&transport=websocket" }
]

/** The bare relay, those peers that could be had, and why the others could not. */
export const startOthers = async (rig: Rig, agentPort: number, withPeers: boolean): Promise<{ readonly contestants: ReadonlyArray<Contestant>; readonly missing: ReadonlyArray<string> }> => {
  const contestants = [await bareRelay(rig, agentPort)]
  if (!withPeers) return { contestants, missing: ["the peers: --no-peers"] }
  const missing = new Array<string>()
  for (const { words, file, path } of peers) {
    try {
      const { pid, port } = await startProgram(rig, file, agentPort)
      contestants.push({ name: words, isPeer: true, pid, place: { words, port, path }, cpu: () => cpuMicros(pid) })
    } catch (cause) {
      missing.push(`${words}: ${cause instanceof Error ? cause.message : String(cause)}`)
    }
  }
  return { contestants, missing }
}

/** The load, told what to do about one contestant. */
export class ChatLoad {
  readonly port: number
  readonly pid: number
  readonly #program: Running

  static async start(rig: Rig): Promise<ChatLoad> {
    return new ChatLoad(await rig.program("programs/chatLoad"))
  }

  private constructor(program: Running) {
    this.#program = program
    this.port = program.port
    this.pid = program.pid
  }

  /** Sessions of one contestant until there are `total`. */
  open({ name, place, keys }: Contestant, total: number): Promise<{ readonly ms: number; readonly refusals: number }> {
    return this.ask({ crowd: name, do: "open", place, total, atOnce: openingsAtOnce, ...(keys === undefined ? {} : { keys }) })
  }

  async counts({ name }: Contestant, what: "count" | "rest" | "close" = "count"): Promise<Counts> {
    return flawless(name, await this.ask({ crowd: name, do: what }))
  }

  ask(task: ChatTask): Promise<any> {
    return this.#program.ask(task)
  }
}

const openingsAtOnce = 128

/** Every text was the agent's, every turn ended as it must, nobody was sent away. */
export const flawless = (name: string, counts: Counts): Counts => {
  if (counts.failures > 0) throw new Error(`${name}: ${counts.failures} things went wrong in ${counts.turns} turns: ${counts.reasons.join("; ")}`)
  return counts
}
