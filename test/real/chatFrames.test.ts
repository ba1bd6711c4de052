/** Chat as its frames have it: what each says, what its agent is asked, and what it costs. */
import { createHash } from "node:crypto"
import { beforeAll, describe, expect, it, afterAll } from "vitest"
import { echoes } from "../support/ChatAgent.ts"
import { ChatScene } from "../support/ChatScene.ts"
import { ChatSocket } from "../support/ChatSocket.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)
const sessionId = expect.stringMatching(/^ses_[0-9a-f]{32}$/)
const uuid = expect.stringMatching(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
const hashOf = (text: string): string => `sha256:${createHash("sha256").update(text).digest("hex")}`

let scene: ChatScene
beforeAll(async () => {
  scene = await ChatScene.set(stage, { SECRETS_KEY: "k".repeat(32) })
})

describe("a socket", () => {
  it("is told its session, each delta, the turn's end and its bill, with the message's id on all of them", async () => {
    const listed = await scene.list("0.01")
    const buyer = await scene.buyer("10.00")
    const chat = await scene.connect(listed)
    chat.send({ type: "auth", token: buyer.key })
    expect(await chat.next("session")).toEqual({
      type: "session", session_id: sessionId, agent: { id: listed.id, ticker: listed.ticker, name: listed.ticker, service_price: "0.01" },
      credits_reserved: "0.05", resumed: false, message_count: 0
    })
    const { session_id } = chat.session

    chat.message("Hi", "m-1")
    const first = await listed.agent.next()
    first.say("The Federal")
    await chat.next("chunk")
    first.end(" Reserve")
    await chat.next("billing")
    expect(chat.frames.slice(1)).toEqual([
      { type: "chunk", data: "The Federal", id: "m-1" },
      { type: "chunk", data: " Reserve", id: "m-1" },
      { type: "done", order_id: uuid, session_id, output_hash: hashOf("The Federal Reserve"), message_index: 1, id: "m-1" },
      { type: "billing", order_id: chat.frames[3]!["order_id"], amount_charged: "0.01", credits_remaining: "9.95", credits_reserved: "0.04", session_total: "0.01", id: "m-1" }
    ])

    const from = chat.frames.length
    chat.message("And then?")
    const second = await listed.agent.next()
    second.end("No id")
    await chat.next("billing", from)
    expect(chat.frames.slice(from)).toEqual([
      { type: "chunk", data: "No id" },
      { type: "done", order_id: uuid, session_id, output_hash: hashOf("No id"), message_index: 2 },
      { type: "billing", order_id: chat.frames[from + 1]!["order_id"], amount_charged: "0.01", credits_remaining: "9.94", credits_reserved: "0.04", session_total: "0.02" }
    ])
    expect(second.headers["x-autx-request-id"]).toBe(chat.frames[from + 1]!["order_id"])

    chat.send({ type: "ping" })
    expect(await chat.next("pong")).toEqual({ type: "pong" })
    chat.send({ type: "cancel" })
    expect(await chat.next("notice")).toEqual({ type: "notice", code: "nothing_to_cancel", detail: "No turn is running" })
    chat.send({ type: "close" })
    expect(await chat.ended()).toEqual({ code: 1000, reason: "session_closed", error: undefined })
    expect(chat.frames.at(-1)).toEqual({ type: "notice", code: "session_closed", detail: "The session is closed, and what was reserved for it is free" })
    expect(await scene.gateway.ask(200, "GET", `/v1/orders/${chat.frames[3]!["order_id"]}`, { token: buyer.key })).toMatchObject({
      id: chat.frames[3]!["order_id"], agent_id: listed.id, status: "completed", prompt: "Hi", amount_paid: 0.01, output_text: "The Federal Reserve", output_hash: hashOf("The Federal Reserve"), error: null
    })
    await scene.expectLeft(buyer, "9.98")
  })

  it("says what was charged before when it resumes its session", async () => {
    const listed = await scene.list("0.01", echoes)
    const buyer = await scene.buyer("1.00")
    const before = await scene.open(listed, buyer.key)
    await before.turn("one two", "m-1")
    before.close()
    await before.closed
    const chat = await scene.open(listed, buyer.key, before.session["session_id"])
    expect(chat.session).toEqual({
      type: "session", session_id: before.session["session_id"], agent: { id: listed.id, ticker: listed.ticker, name: listed.ticker, service_price: "0.01" },
      credits_reserved: "0.04", resumed: true, message_count: 1, session_total: "0.01", discontinuity: false
    })
    const { text, done, billing } = await chat.turn("three")
    expect([text, done["message_index"], billing["session_total"]]).toEqual(["three", 2, "0.02"])
    chat.send({ type: "close" })
    await chat.closed
    await scene.expectLeft(buyer, "0.98")
  })

  it.each(["/v1", "/api/v1", "/autx/v1", "/autx/api/v1"])("is at home under %s, for keys and logins, by ticker in any case and by id", async (mount) => {
    const { id, ticker } = await scene.list("0", echoes)
    const buyer = await scene.buyer()
    for (const [name, token] of [[ticker, buyer.key], [ticker.toLowerCase(), buyer.token], [id, buyer.key]] as const) {
      const chat = await ChatSocket.connect(`${scene.gateway.url}${mount}/ws/agent/${name}`)
      chat.send({ type: "auth", token })
      expect((await chat.next("session"))["agent"]["ticker"]).toBe(ticker)
      expect((await chat.turn("hello")).text).toBe("hello")
      chat.send({ type: "close" })
      await chat.closed
    }
  })

  it("may send its message in many pieces of a character, and gets any character back", async () => {
    const listed = await scene.list("0", echoes)
    const chat = await scene.open(listed, (await scene.buyer()).key)
    const prompt = "naïve 日本 👩‍👩‍👧‍👦 \"quoted\" \\ \n\t\u2028 end"
    expect((await chat.turn(prompt, "né 👋")).text).toBe(prompt)
    expect(chat.frames.at(-1)!["id"]).toBe("né 👋")
  })
})

describe("what a session sets aside", () => {
  const opened = async (price: string, usd: string) => {
    const listed = await scene.list(price, echoes)
    const buyer = await scene.buyer(usd)
    return { listed, buyer, chat: await scene.open(listed, buyer.key) }
  }

  it("is five turns' price, topped up before each turn, and listed among the holds", async () => {
    const { buyer, chat, listed } = await opened("0.10", "0.62")
    expect([chat.session["credits_reserved"], await scene.gateway.balance(buyer)]).toEqual(["0.50", { balance_usd: "0.12", reserved_usd: "0.50" }])
    const [hold] = await scene.gateway.ask(200, "GET", "/v1/credits/holds", { token: buyer.key })
    expect(hold).toEqual({
      id: uuid, amount_usd: "0.50", call: "chat", agent_ticker: listed.ticker, session_id: chat.session["session_id"], expires_at: expect.stringMatching(/^\d{4}-.*Z$/)
    })
    const bills = []
    for (const prompt of ["1", "2", "3", "4", "5", "6"]) {
      const { amount_charged, credits_remaining, credits_reserved, session_total } = (await chat.turn(prompt)).billing
      bills.push([amount_charged, credits_remaining, credits_reserved, session_total])
    }
    // Only whole turns are set aside.
    expect(bills).toEqual([
      ["0.10", "0.12", "0.40", "0.10"],
      ["0.10", "0.02", "0.40", "0.20"],
      ["0.10", "0.02", "0.30", "0.30"],
      ["0.10", "0.02", "0.20", "0.40"],
      ["0.10", "0.02", "0.10", "0.50"],
      ["0.10", "0.02", "0.00", "0.60"]
    ])
    chat.message("7")
    expect(await chat.ended()).toMatchObject({ code: 4402, error: { code: "insufficient_credits", fatal: true, required_usd: "0.10" } })
    await scene.gateway.ask(204, "DELETE", `/v1/sessions/${chat.session["session_id"]}`, { token: buyer.key })
    await scene.expectLeft(buyer, "0.02")
  })

  it("is one turn's price when there is no more, and as many turns' as there is money for between", async () => {
    expect((await opened("0.10", "0.10")).chat.session["credits_reserved"]).toBe("0.10")
    expect((await opened("0.10", "0.39")).chat.session["credits_reserved"]).toBe("0.30")
  })

  it("is nothing for a free agent, whose turns cost nothing and are told like any other", async () => {
    const { buyer, chat } = await opened("0", "0.01")
    expect(chat.session).toMatchObject({ agent: { service_price: "0.00" }, credits_reserved: "0.00" })
    const { billing } = await chat.turn("hello")
    expect(billing).toMatchObject({ amount_charged: "0.00", credits_remaining: "0.01", credits_reserved: "0.00", session_total: "0.00" })
    await scene.expectLeft(buyer, "0.01")
  })

  it("is free again when the session is closed, to the last unit of a price of a millionth", async () => {
    const { buyer, chat } = await opened("0.000001", "0.000003")
    expect(chat.session["credits_reserved"]).toBe("0.000003")
    expect((await chat.turn("x")).billing).toMatchObject({ amount_charged: "0.000001", credits_remaining: "0.00", credits_reserved: "0.000002" })
    chat.send({ type: "close" })
    await chat.closed
    await scene.expectLeft(buyer, "0.000002")
  })
})

describe("the agent is asked", () => {
  it("for a stream, with the prompt, the session and what was said before, in the name of its caller", async () => {
    const listed = await scene.list("0.01", echoes)
    const buyer = await scene.buyer("1.00")
    const chat = await scene.open(listed, buyer.key)
    await chat.turn("first words", "m-1")
    await chat.turn("second")
    const [first, second] = listed.agent.turns
    const { session_id } = chat.session
    expect(first!.body).toEqual({ prompt: "first words", session_id, stream: true, history: [] })
    expect(second!.body).toEqual({
      prompt: "second", session_id, stream: true,
      history: [{ role: "user", content: "first words" }, { role: "assistant", content: "first words" }]
    })
    const { host, connection: _, "content-length": __, authorization, ...headers } = first!.headers
    expect(headers).toEqual({
      accept: "text/event-stream, application/json", "content-type": "application/json", "x-autx-protocol": "chat/1",
      "x-autx-request-id": chat.frames.find(({ type }) => type === "done")!["order_id"]
    })
    expect(host).toBe(new URL(listed.agent.url).host)
    const [, claims = ""] = authorization!.replace("Bearer ", "").split(".")
    expect(JSON.parse(Buffer.from(claims, "base64url").toString())).toMatchObject({
      iss: "http://gateway.test", aud: listed.agent.url, sub: buyer.accountId, agent: listed.id, session: session_id
    })
    expect(authorization).not.toContain(buyer.key)
  })

  it("with its provider's key when it is of the buyer_key tier, and with no token", async () => {
    const listed = await scene.list("0", echoes, { auth_tier: "buyer_key" })
    await scene.gateway.ask(200, "PUT", `/v1/agents/${listed.id}/provider-key`, { token: scene.seller.token, body: { provider: "anthropic", provider_key: "sk-ant-123456" } })
    const chat = await scene.open(listed, (await scene.buyer()).key)
    await chat.turn("hello")
    expect(listed.agent.turns[0]!.headers).toMatchObject({ "x-api-key": "sk-ant-123456", "x-autx-protocol": "chat/1" })
    expect(listed.agent.turns[0]!.headers["authorization"]).toBeUndefined()
  })

  it("with the last 50 messages, of finished turns alone", async () => {
    const listed = await scene.list("0", (turn) => turn.body.prompt === "fail" ? turn.die() : echoes(turn))
    const chat = await scene.open(listed, (await scene.buyer()).key)
    for (let n = 1; n <= 27; n++) await chat.turn(`${n}`)
    chat.message("fail")
    await chat.next("error")
    await chat.turn("last")
    const { history } = listed.agent.turns.at(-1)!.body
    expect(history).toHaveLength(50)
    expect([history[0], history.at(-1)]).toEqual([{ role: "user", content: "3" }, { role: "assistant", content: "27" }])
  })

  it("with at most 64 KiB of what was said, in whole turns, also after the gateway has forgotten and read it again", async () => {
    const listed = await scene.list("0", (turn) => turn.end("a".repeat(10_000)))
    const buyer = await scene.buyer()
    const before = await scene.open(listed, buyer.key)
    for (let n = 1; n <= 6; n++) await before.turn(`${n}${"é".repeat(5_000)}`)
    const heard = async (chat: ChatSocket): Promise<ReadonlyArray<string>> => {
      await chat.turn("now")
      return listed.agent.turns.at(-1)!.body.history.filter(({ role }) => role === "user").map(({ content }) => content.slice(0, 1))
    }
    expect(await heard(before)).toEqual(["4", "5", "6"])
    await scene.gateway.stop()
    await scene.restart()
    const after = await scene.open(listed, buyer.key, before.session["session_id"])
    expect(await heard(after)).toEqual(["5", "6", "n"])
  })
})
