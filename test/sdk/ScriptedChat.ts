/** A chat between the TypeScript SDK and a scripted gateway, new for each test and gone after it. */
import { afterEach, beforeEach, expect, vi } from "vitest"
import { AutxClient, type ChatChunk, type ChatSession, type SessionOptions } from "../../sdk/typescript/src/AutxClient.ts"
import { ScriptedGateway, type ScriptedSocket } from "./ScriptedGateway.ts"

export const opened = (facts: object = {}): object => ({
  type: "session", session_id: "ses_1", agent: { id: "a1", ticker: "SUMM", name: "Summ", service_price: "0.01" }, credits_reserved: "0.05", resumed: false, message_count: 0, ...facts
})
export const resumed = (facts: object = {}): object => opened({ resumed: true, discontinuity: false, ...facts })
export const ending = (id: string, order = "o1"): ReadonlyArray<object> => [
  { type: "done", order_id: order, session_id: "ses_1", output_hash: "sha256:00", message_index: 1, id },
  { type: "billing", order_id: order, amount_charged: "0.01", credits_remaining: "9.94", credits_reserved: "0.04", session_total: "0.01", id }
]
export const chunks = (id: string, ...texts: ReadonlyArray<string>): ReadonlyArray<object> => texts.map((data) => ({ type: "chunk", data, id }))

export const cancelled = (id: string): ReadonlyArray<object> => [{ type: "notice", code: "turn_cancelled", detail: "The turn was cancelled. Nothing was charged", late: false, id }]

export const read = async (answer: AsyncIterable<ChatChunk>): Promise<string> => {
  let text = ""
  for await (const { delta } of answer) text += delta
  return text
}

export class ScriptedChat {
  gateway!: ScriptedGateway
  client!: AutxClient
  /** To be done at the test's end. */
  closing: Array<() => Promise<void>> = []

  readonly sessionOf = (options: SessionOptions = {}): ChatSession => {
    const session = this.client.session("SUMM", options)
    this.closing.push(() => session.close())
    return session
  }

  /** The next socket, authenticated. */
  readonly accepted = async (frame: object = opened()): Promise<ScriptedSocket> => {
    const socket = await this.gateway.socket()
    expect(await socket.frame()).toMatchObject({ type: "auth", token: "autx_live_test" })
    socket.send(frame)
    return socket
  }
}

/** Nothing waits by chance: no jitter, unless a test wants some. */
export const useScriptedChat = (): ScriptedChat => {
  const chat = new ScriptedChat()
  beforeEach(async () => {
    vi.spyOn(Math, "random").mockReturnValue(0)
    chat.gateway = await new ScriptedGateway().listen()
    chat.client = new AutxClient({ apiKey: "autx_live_test", baseUrl: `${chat.gateway.url}/v1/` })
  })
  afterEach(async () => {
    vi.restoreAllMocks()
    vi.useRealTimers()
    chat.gateway.close()
    await Promise.all(chat.closing.splice(0).map((close) => close()))
  })
  return chat
}
