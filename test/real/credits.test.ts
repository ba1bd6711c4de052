/** What an account's own lists of its money say about chats: which session holds credits, and which one a charge was for. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { ChatSocket } from "../support/ChatSocket.ts"
import { type Person, type World, makeWorld } from "../support/World.ts"

let world: World
let buyer: Person
beforeAll(async () => {
  world = await makeWorld({ settings: { proxyBilling: "paid" } })
  buyer = await world.user()
  await buyer.fund("1.00")
})
afterAll(() => world.stop())

const list = async (what: string): Promise<ReadonlyArray<Readonly<Record<string, unknown>>>> => (await world.call("GET", `/v1/credits/${what}`, { token: buyer.accessToken })).json

describe("an account's money", () => {
  it("is held for a chat session by name, and no longer when that is closed", async () => {
    const agent = await world.agent({ price: "0.02", respond: () => ({ body: "well" }) })
    const chat = await ChatSocket.open(world, agent.ticker, buyer.accessToken)
    const { session_id } = chat.session
    const held = { call: "chat", agent_ticker: agent.ticker, session_id }
    expect(await list("holds")).toEqual([{ ...held, id: expect.any(String), amount_usd: "0.10", expires_at: expect.any(String) }])
    await chat.turn("how are you?")
    expect(await list("holds")).toMatchObject([{ ...held, amount_usd: "0.08" }])
    chat.send({ type: "close" })
    await chat.closed
    expect(await list("holds")).toEqual([])
  })

  it("was charged for a turn of a session by name, and for a call of none", async () => {
    const agent = await world.agent({ price: "0.03", respond: () => ({ body: "well" }) })
    const chat = await ChatSocket.open(world, agent.ticker, buyer.accessToken)
    const { billing } = await chat.turn("how are you?")
    chat.close()
    expect((await world.call("POST", `/v1/proxy/${agent.ticker}`, { token: buyer.accessToken, body: "{}" })).status).toBe(200)
    const [call, turn] = await list("transactions")
    expect(turn).toMatchObject({ type: "charge", amount_usd: "-0.03", agent_ticker: agent.ticker, order_id: billing["order_id"], session_id: chat.session["session_id"] })
    expect(call).toMatchObject({ type: "charge", amount_usd: "-0.03" })
    expect(call).not.toHaveProperty("session_id")
  })
})
