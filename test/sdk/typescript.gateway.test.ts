/** Every method of the TypeScript SDK against the real gateway, and what chat keeps when its socket is cut or the gateway dies. */
import { once } from "node:events"
import type { ServerResponse } from "node:http"
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest"
import { AutxClient, type ChatChunk } from "../../sdk/typescript/src/AutxClient.ts"
import type { GatewayProcess, Listed, Person } from "../support/GatewayProcess.ts"
import { until } from "../support/GatewayProcess.ts"
import { answers } from "../support/LoopbackAgent.ts"
import type { LoopbackAgent } from "../support/LoopbackAgent.ts"
import { type StageDatabase, expectCleanBooks, useStage } from "../support/Stage.ts"
import { TcpCut } from "./TcpCut.ts"

const stage = useStage(afterAll)

let database: StageDatabase
let gateway: GatewayProcess
let owner: Person
/** One per concern: an agent answers as its test wants. */
let agent: LoopbackAgent
let listed: Listed

beforeAll(async () => {
  database = await stage.database()
  gateway = await stage.gateway({ ...database.env, SECRETS_KEY: "k".repeat(32) })
  owner = await gateway.person("5.00")
  agent = await stage.agent()
  listed = await gateway.list(owner, agent.url, "0.01")
})

afterAll(() => expectCleanBooks(database.sql))

interface Caller {
  readonly client: AutxClient
  readonly person: Person
}

/** Somebody with $10 and a key of all scopes. */
const caller = async (baseUrl = `${gateway.url}/v1`): Promise<Caller> => {
  const person = await gateway.person("10.00")
  return { person, client: new AutxClient({ apiKey: await gateway.key(person), baseUrl }) }
}

/** Streams an answer of OpenAI chunks; each waits for `more`. */
class Streaming {
  readonly url: string
  readonly agent: LoopbackAgent
  readonly #responses: Array<ServerResponse> = []
  readonly #arrivals: Array<() => void> = []

  constructor(agent: LoopbackAgent) {
    this.agent = agent
    this.url = agent.url
    agent.behave = (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders()
      this.#responses.push(response)
      for (const arrived of this.#arrivals.splice(0)) arrived()
    }
  }

  async asked(): Promise<ServerResponse> {
    while (this.#responses.length === 0) await new Promise<void>((arrived) => this.#arrivals.push(arrived))
    return this.#responses.shift()!
  }

  static say(response: ServerResponse, ...deltas: ReadonlyArray<string>): void {
    for (const content of deltas) response.write(`data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`)
  }

  static end(response: ServerResponse): void {
    response.end("data: [DONE]\n\n")
  }
}

const streaming = async (price = "0.01"): Promise<{ readonly speaker: Streaming; readonly ticker: string }> => {
  const speaker = new Streaming(await stage.agent())
  return { speaker, ticker: (await gateway.list(owner, speaker.url, price)).ticker }
}

const read = async (answer: AsyncIterable<ChatChunk>): Promise<string> => {
  let text = ""
  for await (const { delta } of answer) text += delta
  return text
}

const charges = async ({ client }: Caller): Promise<number> => (await client.credits.transactions()).filter(({ type }) => type === "charge").length

describe("calls and orders", () => {
  it("a call brings the agent's answer with the gateway's facts", async () => {
    const { client } = await caller()
    agent.behave = (response) => void response.writeHead(201, { "content-type": "application/json", "x-agents-own": "1" }).end(`{"output":"Grüße"}`)
    const response = await client.proxy(listed.ticker.toLowerCase(), { prompt: "hi" })
    expect(response).toMatchObject({ statusCode: 201, contentType: "application/json", agentTicker: listed.ticker, requestId: expect.stringMatching(/^[\w-]{8,}$/), latencyMs: expect.any(Number) })
    expect(response.headers).toMatchObject({ "x-agents-own": "1", "x-autx-cost-usd": "0.01", "x-autx-balance-usd": "9.99" })
    expect(response.content).toBeInstanceOf(ArrayBuffer)
    expect(response.text()).toBe(`{"output":"Grüße"}`)
    expect(response.json<{ output: string }>().output).toBe("Grüße")
    await expect(client.proxy("NOBODY", { prompt: "hi" })).rejects.toMatchObject({ message: "Proxy error: 404", status: 404, detail: expect.stringContaining("No such agent") })
  })

  it("a call with a key that is made twice is one call", async () => {
    const { client } = await caller()
    agent.behave = answers("done")
    const asked = agent.asked.length
    const first = await client.proxy(listed.ticker, { prompt: "hi", idempotencyKey: "one" })
    const second = await client.proxy(listed.ticker, { prompt: "hi", idempotencyKey: "one" })
    expect([second.text(), second.headers["x-autx-transaction-id"]]).toEqual([first.text(), first.headers["x-autx-transaction-id"]])
    expect(agent.asked.length).toBe(asked + 1)
  })

  it("an order runs to its end and is listed, page by page", async () => {
    const { client } = await caller()
    agent.behave = answers(`{"output":"The answer"}`)
    const order = await client.order(listed.id, "Analyze this data")
    expect(order).toEqual({ id: expect.any(String), agent_id: listed.id, status: "pending", amount_paid: 0.01, platform_fee: 0.001, created_at: expect.any(String) })
    await until(async () => (await client.getOrder(order.id)).status === "completed")
    expect(await client.getOrder(order.id)).toMatchObject({
      id: order.id, output_text: "The answer", output_hash: expect.stringMatching(/^sha256:[0-9a-f]{64}$/), completed_at: expect.any(String), payment_method: "credits"
    })
    const second = await client.order(listed.ticker, "And this", { paymentMethod: "usdc" })
    const page = await client.listOrders({ limit: 1 })
    expect(page.map(({ id }) => id)).toEqual([second.id])
    expect((await client.listOrders({ limit: 1, cursor: page.nextCursor! })).map(({ id }) => id)).toEqual([order.id])
    await until(async () => (await client.listOrders({ status: "completed" })).length === 2)
  })

  it("an order whose answer was lost is sent again, and is charged once", async () => {
    const cut = await new TcpCut(gateway.port).listen()
    stage.onEnd(() => cut.close())
    const { client, person } = await caller(`${cut.url}/v1`)
    agent.behave = answers("done")
    let cuts = 0
    cut.watch = (bytes) => !bytes.includes("HTTP/1.1 201") || ++cuts > 2
    const order = await client.order(listed.id, "Once")
    expect(cuts).toBe(3)
    expect((await client.listOrders()).map(({ id }) => id)).toEqual([order.id])
    expect((await gateway.balance(person)).balance_usd).toBe("9.99")
  })

  it("an order may bring files", async () => {
    const form: { type?: string | undefined; body: string } = { body: "" }
    const files = await stage.agent((response, request) => {
      form.type = request.headers["content-type"]
      request.setEncoding("latin1").on("data", (part) => { form.body += part }).on("end", () => response.end("read"))
    })
    const { id } = await gateway.list(owner, files.url, "0.02")
    await gateway.ask(200, "GET", `/v1/agents/${id}`)
    const { client: own } = { client: new AutxClient({ apiKey: await gateway.key(owner), baseUrl: `${gateway.url}/v1` }) }
    await own.updateAgent(id, { manifest: { input: { type: "multipart", accepts_files: true } } })
    const { client } = await caller()
    const order = await client.order(id, "Extract invoice total", { files: [new Blob(["%PDF-"], { type: "application/pdf" }), ["invoice.pdf", Uint8Array.of(1, 2, 255)]] })
    await until(async () => (await client.getOrder(order.id)).status !== "pending")
    expect(await client.getOrder(order.id)).toMatchObject({ status: "completed", output_text: "read" })
    expect(form.type).toMatch(/^multipart\/form-data; ?boundary=/)
    expect(form.body).toMatch(/name="prompt"[^]*Extract invoice total[^]*filename="file"[^]*application\/pdf[^]*%PDF-[^]*filename="invoice\.pdf"[^]*\x01\x02\xff/)
  })
})

describe("agents and credits", () => {
  it("agents are found, and changed by their owner", async () => {
    const own = new AutxClient({ apiKey: await gateway.key(owner), baseUrl: `${gateway.url}/api/v1` })
    const mine = await gateway.list(owner, agent.url, "0.10")
    expect(await own.getAgentByTicker(mine.ticker)).toMatchObject({ id: mine.id, service_price: 0.1, status: "active" })
    expect(await own.updateAgent(mine.id, { service_price: "0.25", category: "Rare", manifest: { supports_sessions: false } })).toMatchObject({ service_price: 0.25 })
    expect((await own.listAgents({ category: "Rare" })).map(({ id }) => id)).toEqual([mine.id])
    expect((await own.listAgents({ q: mine.ticker, sort: "new" })).map(({ id }) => id)).toEqual([mine.id])
    expect(await own.updateProviderKey(mine.id, "sk-test", { provider: "anthropic" })).toMatchObject({ id: mine.id })
    await own.updateAgent(mine.ticker, { status: "paused" })
    expect((await own.listMyAgents()).map(({ id }) => id)).toContain(mine.id)
    expect((await own.listAgents({ q: mine.ticker })).length).toBe(0)
    const { client } = await caller()
    await expect(client.updateAgent(mine.id, { name: "Stolen" })).rejects.toMatchObject({ message: "Agent error: 403" })
  })

  it("credits are told, added, and listed by what moved them", async () => {
    const { client } = await caller()
    expect(await client.credits.balance()).toMatchObject({ balance_usd: "10.00", reserved_usd: "0.00" })
    expect(await client.credits.depositTest("2.50")).toEqual({ balance_usd: "12.50" })
    expect(await client.getCreditBalance()).toEqual(await client.credits.balance())
    expect(await client.credits.holds()).toEqual([])
    const page = await client.credits.transactions({ limit: 1 })
    expect(page).toMatchObject([{ type: "deposit", amount_usd: "2.50", balance_after: "12.50" }])
    expect(await client.credits.transactions({ cursor: page.nextCursor! })).toMatchObject([{ amount_usd: "10.00" }])
  })

  it("what this gateway has no means for is refused in its own words", async () => {
    const { client } = await caller()
    await expect(client.credits.deposit("0xabc123")).rejects.toMatchObject({ message: "Credit error: 501", detail: expect.stringContaining("Depositing") })
    await expect(client.credits.withdraw("5.00")).rejects.toMatchObject({ message: "Credit error: 501" })
  })
})

describe("chat", () => {
  it("a stream brings deltas while the agent still speaks, and its cost", async () => {
    const { speaker, ticker } = await streaming()
    const buyer = await caller()
    const stream = buyer.client.stream(ticker, "Summarize the Fed statement")
    const got: Array<string> = []
    let response!: ServerResponse
    const reading = (async () => {
      for await (const { delta } of stream) {
        got.push(delta)
        if (delta === "The ") Streaming.say(response, "Federal ")
        if (delta === "Federal ") {
          Streaming.say(response, "Reserve")
          Streaming.end(response)
        }
      }
    })()
    response = await speaker.asked()
    Streaming.say(response, "The ")
    await reading
    expect(got).toEqual(["The ", "Federal ", "Reserve"])
    expect(stream.text()).toBe("The Federal Reserve")
    expect(stream).toMatchObject({ costUsd: 0.01, amountCharged: "0.01", orderId: expect.any(String), sessionId: expect.stringMatching(/^ses_/) })
    expect(await buyer.client.getSession(stream.sessionId!)).toMatchObject({ agent_ticker: ticker, status: "closed", message_count: 1, consumed_usd: "0.01" })
    expect(await buyer.client.getCreditBalance()).toMatchObject({ balance_usd: "9.99", reserved_usd: "0.00" })
    expect(await buyer.client.getOrder(stream.orderId!)).toMatchObject({ status: "completed", output_text: "The Federal Reserve" })
  })

  it("a stream that is left early costs nothing and leaves nothing held", async () => {
    const { speaker, ticker } = await streaming()
    const buyer = await caller()
    const stream = buyer.client.stream(ticker, "Go on for ever")
    const reading = (async () => {
      for await (const _ of stream) break
    })()
    const response = await speaker.asked()
    const gone = once(response, "close")
    Streaming.say(response, "One", "Two")
    await reading
    await gone
    expect(stream.costUsd).toBe(0)
    expect(await buyer.client.getSession(stream.sessionId!)).toMatchObject({ status: "closed", consumed_usd: "0.00" })
    expect(await buyer.client.getCreditBalance()).toMatchObject({ balance_usd: "10.00", reserved_usd: "0.00" })
  })

  it("a session has many turns, its bill and its past, over the socket and by REST", async () => {
    const asked: Array<any> = []
    const bot = await stage.agent((response, request) => {
      let body = ""
      request.on("data", (part) => { body += part }).on("end", () => {
        asked.push(JSON.parse(body))
        response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ response: `You said ${asked.at(-1).prompt}` }))
      })
    })
    const { ticker } = await gateway.list(owner, bot.url, "0.01")
    const { client } = await caller()
    const session = await client.createSession(ticker)
    expect(session.agent).toMatchObject({ ticker })
    expect(await client.credits.holds()).toMatchObject([{ call: "chat", agent_ticker: ticker }])
    expect(await read(session.send("Hello"))).toBe("You said Hello")
    const turn = session.send("Again", { id: "mine" })
    expect(await read(turn)).toBe("You said Again")
    expect(session).toMatchObject({ sessionTotal: "0.02", messageCount: 0 })
    expect(asked[1].history).toEqual([{ role: "user", content: "Hello" }, { role: "assistant", content: "You said Hello" }])
    const repeated = session.send("Again", { id: "mine" })
    expect(await read(repeated)).toBe("You said Again")
    expect([repeated.orderId, session.sessionTotal, asked.length]).toEqual([turn.orderId, "0.02", 2])

    expect(await client.listSessions({ status: "active" })).toMatchObject([{ id: session.sessionId, status: "active", message_count: 2, consumed_usd: "0.02" }])
    expect((await client.getSessionMessages(session.sessionId!)).map(({ role, content }) => [role, content])).toEqual([
      ["user", "Hello"], ["assistant", "You said Hello"], ["user", "Again"], ["assistant", "You said Again"]
    ])
    await expect(client.getSessionReceipt(session.sessionId!)).rejects.toMatchObject({ message: "Session error: 400" })
    await session.close()
    expect(new TextDecoder().decode((await client.getSessionReceipt(session.sessionId!)).slice(0, 5))).toBe("%PDF-")
    expect(await client.getCreditBalance()).toMatchObject({ balance_usd: "9.98", reserved_usd: "0.00" })
  })

  it("a session that is closed by REST ends in the middle of its turn, unpaid", async () => {
    const { speaker, ticker } = await streaming()
    const { client } = await caller()
    const session = client.session(ticker)
    const turn = session.send("Hello")
    Streaming.say(await speaker.asked(), "Half")
    for await (const _ of turn) {
      await client.closeSession(session.sessionId!)
      break
    }
    expect(() => session.send("Again")).toThrow("Chat error: session_closed")
    await client.closeSession(session.sessionId!)
    expect(await client.getCreditBalance()).toMatchObject({ balance_usd: "10.00", reserved_usd: "0.00" })
  })

  it("a turn that is cancelled, or whose agent fails, is free; the next one is answered", async () => {
    const { speaker, ticker } = await streaming()
    const { client } = await caller()
    await using session = client.session(ticker)
    const first = session.send("Hello")
    Streaming.say(await speaker.asked(), "Half")
    for await (const _ of first) await session.cancel()
    expect(first).toMatchObject({ isCancelled: true, costUsd: 0 })
    const second = session.send("Hello")
    const response = await speaker.asked()
    response.destroy()
    await expect(read(second)).rejects.toMatchObject({ code: "agent_error" })
    const third = session.send("Hello")
    const last = await speaker.asked()
    Streaming.say(last, "Whole")
    Streaming.end(last)
    expect(await read(third)).toBe("Whole")
    expect(session.sessionTotal).toBe("0.01")
  })

  it("who can't pay is told what is missing", async () => {
    const { ticker } = await streaming("50.00")
    const { client } = await caller()
    await expect(client.createSession(ticker)).rejects.toMatchObject({ message: "Chat error: insufficient_credits", code: "insufficient_credits", closeCode: 4402 })
    await expect(new AutxClient({ apiKey: "autx_live_wrong", baseUrl: `${gateway.url}/v1` }).createSession(ticker)).rejects.toMatchObject({ code: "auth_failed", closeCode: 4401 })
    await expect(client.createSession("NOBODY")).rejects.toMatchObject({ code: "agent_not_found", closeCode: 4404 })
  })

  it("a socket cut anywhere in an answer loses and doubles nothing, and each turn is charged once", async () => {
    const cut = await new TcpCut(gateway.port).listen()
    stage.onEnd(() => cut.close())
    const { speaker, ticker } = await streaming()
    const buyer = await caller(`${cut.url}/v1`)
    const resumes: Array<boolean> = []
    const session = buyer.client.session(ticker, { onResumed: ({ discontinuity }) => resumes.push(discontinuity) })
    const words = ["Zwölf ", "Boxkämpfer ", "jagen ", "🦊🦊 ", "über ", "den ", "Deich"]
    for (let turns = 0; turns < words.length; turns++) {
      const turn = session.send(`Number ${turns}`)
      const response = await speaker.asked()
      let at = 0
      Streaming.say(response, words[at++]!)
      let text = ""
      for await (const { delta } of turn) {
        text += delta
        if (at === turns) cut.cut()
        if (at < words.length) Streaming.say(response, words[at++]!)
        else Streaming.end(response)
      }
      expect(text).toBe(words.join(""))
      expect(turn.costUsd).toBe(0.01)
    }
    expect(session.sessionTotal).toBe("0.07")
    expect(resumes.length).toBeGreaterThanOrEqual(5)
    expect(resumes).not.toContain(true)
    await session.close()
    expect(await charges(buyer)).toBe(words.length)
  })

  it("a bill that never arrived is asked for again, and is not charged again", async () => {
    const cut = await new TcpCut(gateway.port).listen()
    stage.onEnd(() => cut.close())
    const { speaker, ticker } = await streaming()
    const buyer = await caller(`${cut.url}/v1`)
    const session = buyer.client.session(ticker)
    const turn = session.send("Hello")
    const response = await speaker.asked()
    let cuts = 0
    cut.watch = (bytes) => !bytes.includes(`"done"`) || ++cuts > 1
    Streaming.say(response, "All of it")
    Streaming.end(response)
    expect(await read(turn)).toBe("All of it")
    expect([cuts, turn.costUsd, speaker.agent.asked.length]).toEqual([2, 0.01, 1])
    await session.close()
    expect(await charges(buyer)).toBe(1)
  })

  it("a gateway that is killed in the middle of an answer, and comes back, is asked again and charges once", async () => {
    // Tries come often, for the test's sake.
    const random = vi.spyOn(Math, "random").mockReturnValue(0.05)
    stage.onEnd(() => random.mockRestore())
    const { env, sql } = await stage.database()
    const settings = { ...env, SECRETS_KEY: "k".repeat(32) }
    const first = await stage.gateway(settings)
    const cut = await new TcpCut(first.port).listen()
    stage.onEnd(() => cut.close())
    const speaker = new Streaming(await stage.agent())
    const { ticker } = await first.list(await first.person(), speaker.url, "0.01")
    const person = await first.person("1.00")
    const client = new AutxClient({ apiKey: await first.key(person), baseUrl: `${cut.url}/v1` })
    const resumes: Array<boolean> = []
    const session = client.session(ticker, { onResumed: ({ discontinuity }) => resumes.push(discontinuity) })
    const turn = session.send("Hello")
    Streaming.say(await speaker.asked(), "The first answer")
    const got: Array<ChatChunk> = []
    let next: Promise<void> | undefined
    for await (const chunk of turn) {
      got.push(chunk)
      next ??= (async () => {
        await first.kill9()
        cut.port = (await stage.gateway(settings)).port
        const response = await speaker.asked()
        Streaming.say(response, "Another answer")
        Streaming.end(response)
      })()
    }
    await next
    expect(got).toEqual([{ delta: "The first answer" }, { delta: "Another answer", restarted: true }])
    expect([turn.text(), turn.costUsd, session.sessionTotal, resumes]).toEqual(["Another answer", 0.01, "0.01", [true]])
    await session.close()
    expect((await client.credits.transactions()).filter(({ type }) => type === "charge")).toHaveLength(1)
    await expectCleanBooks(sql)
  })
})
