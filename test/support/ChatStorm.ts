/**
 * Clients of chat sessions to whom everything happens: they are cut in every way
 * there is, talk nonsense, cancel, find the gateway gone, come back, and send
 * what was not billed again, until all of it is.
 */
import type { Frame } from "./ChatSocket.ts"
import { brokenFrame, nonsense } from "./ChatGarbage.ts"
import { LightChat } from "./LightChat.ts"
import type { Random } from "./Random.ts"

export interface Bill {
  readonly orderId: string
  readonly amount: string
  readonly sessionTotal: string
}

/** Where the gateway is, once there is one. */
export type Place = () => Promise<{ readonly port: number }>

/** Codes that a peer may send, and some that none may. */
const codes = [undefined, 1000, 1001, 1008, 1011, 3000, 4000, 4410, 4999, 0, 1005, 1006, 2999, 5000, 65_535]
/** Of one turn; one that needs more is stuck. */
const attemptsMax = 200

export class StormClient {
  readonly bills: Array<Bill> = []
  /** The orders of bills that were told before. */
  readonly replayed: Array<string> = []
  readonly #place: Place
  readonly #ticker: string
  readonly #token: string
  readonly #random: Random
  #chat: LightChat | undefined
  #sessionId: string | undefined

  constructor(place: Place, ticker: string, token: string, random: Random) {
    this.#place = place
    this.#ticker = ticker
    this.#token = token
    this.#random = random
  }

  get sessionId(): string {
    return this.#sessionId!
  }

  /** Completes when the message is billed, whatever happens on the way. */
  async turn(prompt: string, id: string, mischief: number): Promise<void> {
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const chat = await this.#connected()
      if (chat === undefined) continue
      const from = chat.frames.length
      chat.send({ type: "message", prompt, id })
      const isMischief = this.#random.chance(mischief)
      if (isMischief) await this.#misbehave(chat, from)
      const end = await settled(chat, id, from)
      // After a part of a frame nothing that is said on that socket is heard.
      if (isMischief || end === "ended") this.#left(await this.#over(chat))
      if (end === "billed") return
    }
    throw new Error(`${id} of ${this.#sessionId} was never billed, but ${JSON.stringify(this.#chat?.frames.slice(-10))}`)
  }

  async close(): Promise<void> {
    for (;;) {
      const chat = await this.#connected()
      if (chat === undefined) continue
      chat.send({ type: "close" })
      const ending = await chat.closed()
      this.#left(chat)
      if (ending !== "1000") throw new Error(`${this.#sessionId}: closed with ${ending} after ${JSON.stringify(chat.frames.slice(-3))}`)
      return
    }
  }

  /** A socket that has its session; `undefined`: it was lost on the way. */
  async #connected(): Promise<LightChat | undefined> {
    if (this.#chat !== undefined && this.#chat.ending === undefined) return this.#chat
    if (this.#chat !== undefined) this.#left(this.#chat)
    const { port } = await this.#place()
    const chat = await LightChat.connect(port, this.#ticker).catch(() => undefined)
    if (chat === undefined) return undefined
    chat.send({ type: "auth", token: this.#token, session_id: this.#sessionId })
    await chat.next("session").catch((cause: Error) => {
      // A session that the client was told of is there until it is closed.
      if (chat.frames.length > 0) throw cause
    })
    if (chat.frames.length === 0) return undefined
    if (this.#sessionId !== undefined && chat.sessionId !== this.#sessionId) throw new Error(`${chat.sessionId} instead of ${this.#sessionId}`)
    this.#sessionId = chat.sessionId
    return this.#chat = chat
  }

  async #misbehave(chat: LightChat, from: number): Promise<void> {
    const random = this.#random
    const chunks = random.below(4)
    // Perhaps there are not as many.
    let seen = 0
    if (chunks > 0) await chat.until(({ type }) => type !== "chunk" || ++seen === chunks, from).catch(() => {})
    switch (random.below(7)) {
      case 0: return chat.reset()
      case 1: return chat.halfClose()
      case 2: return chat.hangUp(random.of(codes))
      case 3: return chat.send({ type: "cancel" })
      case 4: return chat.sendRaw(brokenFrame(random))
      default: return chat.sendRaw(nonsense(random))
    }
  }

  /** Ends the connection, if nothing else has. */
  async #over(chat: LightChat): Promise<LightChat> {
    chat.halfClose()
    await chat.closed()
    return chat
  }

  #left(chat: LightChat): void {
    if (this.#chat === chat) this.#chat = undefined
    for (const frame of chat.frames.splice(0)) if (frame.type === "billing") this.#note(frame)
  }

  #note({ order_id, amount_charged, session_total, replayed }: Frame): void {
    if (replayed === true) this.replayed.push(order_id as string)
    else this.bills.push({ orderId: order_id as string, amount: amount_charged as string, sessionTotal: session_total as string })
  }
}

/** What became of a message on this socket. `again`: it was not billed, or nobody knows, and may be sent again. */
const settled = async (chat: LightChat, id: string, from: number): Promise<"billed" | "again" | "ended"> => {
  try {
    // The turn that is in progress may be this message's own, from a socket before, or some nonsense's that was a message by chance.
    const last = await chat.until(({ type, code, fatal }) => type === "billing" || code === "turn_cancelled" || type === "error" && fatal !== true && code !== "turn_in_progress", from)
    return last.type === "billing" && last["id"] === id ? "billed" : "again"
  } catch {
    return "ended"
  }
}
