/** What an agent may answer to a chat turn, what it may not, and what becomes of it when nobody takes its answer. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { AskedTurn } from "../support/ChatAgent.ts"
import { type Buyer, ChatScene, expectNoHolds } from "../support/ChatScene.ts"
import { RawAgent, head } from "../support/RawAgent.ts"
import { RawSocket } from "../support/RawSocket.ts"
import { until } from "../support/GatewayProcess.ts"
import { restingBytes, restingEnv } from "../support/restingMemory.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)
let scene: ChatScene
let buyer: Buyer
/** Turns that were charged so far, at a cent each. */
let charged = 0

beforeAll(async () => {
  scene = await ChatScene.set(stage, restingEnv)
  buyer = await scene.buyer("100.00")
})
afterAll(async () => {
  await scene.expectLeft(buyer, (100 - charged / 100).toFixed(2))
  await expectNoHolds(scene.gateway)
})

const asked = async (behave: (turn: AskedTurn) => void) => {
  const listed = await scene.list("0.01", behave)
  return { listed, chat: await scene.open(listed, buyer.key) }
}
const over = async (chat: { send(frame: object): void; readonly closed: Promise<unknown> }): Promise<void> => {
  chat.send({ type: "close" })
  await chat.closed
}
const lines = (...values: ReadonlyArray<unknown>): string => values.map((value) => `${JSON.stringify(value)}\n`).join("")
const events = (...values: ReadonlyArray<unknown>): string => values.map((value) => `data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`).join("")
const openAi = (content: string) => ({ id: "c-1", object: "chat.completion.chunk", choices: [{ index: 0, delta: { content }, finish_reason: null }] })

describe("an agent may answer with", () => {
  const forms: ReadonlyArray<readonly [string, string, string]> = [
    ["OpenAI's chunks", "text/event-stream", events({ choices: [{ delta: { role: "assistant" } }] }, openAi("Grüße, "), openAi("日本 👋"), { choices: [{ delta: {}, finish_reason: "stop" }] }, "[DONE]")],
    ["events of deltas, with comments and other events between", "text/event-stream; charset=utf-8", `: hello\n\nevent: ping\ndata: {}\n\n${events({ delta: "Grüße, " })}id: 5\nretry: 10\n${events({ delta: "日本 👋" })}`],
    ["events of data", "text/event-stream", events({ data: "Grüße, " }, { data: "日本 👋" }, "[DONE]")],
    ["events of text", "text/event-stream", events({ text: "Grüße, " }, { text: "日本 👋" })],
    ["events of content", "text/event-stream", events({ content: "Grüße, " }, { content: "日本 👋" })],
    ["events of response", "text/event-stream", events({ response: "Grüße, " }, { response: "日本 👋" })],
    ["events of plain text", "text/event-stream", events("Grüße, ", "日本 👋", "[DONE]")],
    ["Anthropic's events", "text/event-stream", `event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"Grüße, "}}\n\n${events({ type: "content_block_delta", delta: { text: "日本 👋" } })}event: message_stop\ndata: {"type":"message_stop"}\n\n`],
    ["lines of JSON", "application/x-ndjson", lines(openAi("Grüße, "), { delta: "日本 👋" })],
    ["one JSON object", "application/json", JSON.stringify({ response: "Grüße, 日本 👋" })],
    ["one of OpenAI's completions", "application/json; charset=utf-8", JSON.stringify({ choices: [{ message: { role: "assistant", content: "Grüße, 日本 👋" } }] })],
    ["one JSON string", "application/json", "\"Grüße, 日本 👋\""],
    ["plain text", "text/plain", "Grüße, 日本 👋"],
    ["text of a type that nobody knows", "application/octet-stream", "Grüße, 日本 👋"]
  ]
  it.each(forms)("%s, in one piece or byte by byte", async (_, contentType, body) => {
    let isWhole = true
    const { chat } = await asked((turn) => {
      if (isWhole) return turn.answer(contentType, body)
      turn.response.writeHead(200, { "content-type": contentType })
      turn.response.socket!.setNoDelay(true)
      for (const byte of Buffer.from(body)) turn.response.write(Uint8Array.of(byte))
      turn.response.end()
    })
    expect((await chat.turn("whole")).text).toBe("Grüße, 日本 👋")
    isWhole = false
    expect((await chat.turn("in bytes")).text).toBe("Grüße, 日本 👋")
    charged += 2
    await over(chat)
  })

  it("nothing at all, which is an answer", async () => {
    const { chat } = await asked((turn) => turn.answer("text/plain", ""))
    const { text, done } = await chat.turn("hello")
    expect([text, done["output_hash"]]).toEqual(["", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"])
    charged++
    await over(chat)
  })

  it("its end in words while its connection stays open, and is not waited for", async () => {
    const { chat, listed } = await asked((turn) => {
      turn.say("hello")
      turn.response.write("data: [DONE]\n\n")
    })
    expect((await chat.turn("hello")).text).toBe("hello")
    charged++
    await listed.agent.turns[0]!.gone
    await over(chat)
  })

  it("nothing but a success: any other status is a failure, and a redirect is not followed", async () => {
    for (const status of [301, 304, 404, 429]) {
      const { chat } = await asked((turn) => turn.response.writeHead(status, { location: "http://127.0.0.1:1/", "content-type": "text/plain" }).end(status === 304 ? undefined : "text"))
      chat.message("hello", "m-1")
      expect(await chat.next("error")).toEqual({
        type: "error", code: "agent_error", detail: expect.stringContaining(`it answered ${status}. Nothing was charged`), fatal: false, id: "m-1"
      })
      await over(chat)
    }
  })
})

describe("a turn fails, is free, and its session goes on, when the agent", () => {
  const tooLong = "x".repeat(70_000)
  const broken: ReadonlyArray<readonly [string, (turn: AskedTurn) => void, RegExp]> = [
    ["dies in the middle", (turn) => { turn.say("begun"); setImmediate(() => turn.die()) }, /broke off its answer/],
    ["dies before it answers", (turn) => turn.die(), /broke off its answer/],
    ["answers in a coding that nobody asked for", (turn) => turn.response.writeHead(200, { "content-type": "text/plain", "content-encoding": "gzip" }).end("x"), /encoded/],
    ["says that it failed in the middle", (turn) => { turn.say("begun"); turn.response.end(events({ error: { message: "I am lost" } })) }, /I am lost/],
    ["has an answer of more than a million characters", (turn) => turn.response.writeHead(200, { "content-type": "text/plain" }).end("x".repeat(1024 * 1024 + 1)), /longer than 1048576 characters/],
    ["has an event without end", (turn) => turn.response.writeHead(200, { "content-type": "text/event-stream" }).end(`data: ${tooLong.repeat(4)}`), /more than 262144 bytes/],
    ["streams and streams, and says nothing", (turn) => {
      turn.response.writeHead(200, { "content-type": "text/event-stream" })
      const comment = `: ${tooLong}\n\n`
      const more = (): void => { while (!turn.response.destroyed) if (!turn.response.write(comment)) return void turn.response.once("drain", more) }
      more()
    }, /more than \d+ bytes/]
  ]
  it.each(broken)("%s", async (_, behave, detail) => {
    let isBroken = true
    const { chat, listed } = await asked((turn) => isBroken ? behave(turn) : turn.end("well"))
    chat.message("hello", "m-1")
    expect(await chat.next("error")).toMatchObject({ code: "agent_error", detail: expect.stringMatching(detail), fatal: false, id: "m-1" })
    await listed.agent.turns[0]!.gone
    isBroken = false
    expect(await chat.turn("hello", "m-1").catch(String)).toMatchObject({ text: expect.stringMatching(/well$/), billing: { session_total: "0.01" } })
    charged++
    await over(chat)
  })

  it("answers what is no HTTP", async () => {
    const agent = await new RawAgent(({ socket }) => socket.end("hello\r\n\r\n")).listen()
    stage.onEnd(() => agent.close())
    const chat = await scene.open(await scene.gateway.list(scene.seller, agent.url, "0.01"), buyer.key)
    chat.message("hello")
    expect(await chat.next("error")).toMatchObject({ code: "agent_error", fatal: false })
    await over(chat)
  })

  it("promises more than it sends", async () => {
    const agent = await new RawAgent(({ socket }) => socket.end(`${head("content-type: text/plain", "content-length: 100")}half`)).listen()
    stage.onEnd(() => agent.close())
    const chat = await scene.open(await scene.gateway.list(scene.seller, agent.url, "0.01"), buyer.key)
    chat.message("hello")
    expect(await chat.next("error")).toMatchObject({ code: "agent_error", detail: expect.stringContaining("broke off its answer"), fatal: false })
    await over(chat)
  })
})

describe("what nobody takes", () => {
  /** A control character of one byte is told in six, and an event is twice as long by its comment: twelve million bytes come in, six go out. */
  const event = `: ${"-".repeat(6_000)}\ndata: ${JSON.stringify({ text: "\u0001".repeat(1_000) })}\n\n`
  const eventCount = 1_000
  const text = "\u0001".repeat(eventCount * 1_000)
  const pours = (turn: AskedTurn): void => {
    turn.response.writeHead(200, { "content-type": "text/event-stream" })
    let left = eventCount
    const more = (): void => {
      while (left-- > 0) if (!turn.response.write(event)) return void turn.response.once("drain", more)
      turn.end()
    }
    more()
  }
  /** So many readers who have stopped, each in the middle of a turn; somebody else's turn of the same agent has come and gone since. */
  const stopped = async (count: number) => {
    const { listed, chat } = await asked(pours)
    const own = await scene.buyer("1.00")
    // The first turn of this size makes the program itself larger.
    await chat.turn("hello")
    charged++
    const before = await restingBytes(scene.gateway)
    const sockets = await Promise.all(Array.from({ length: count }, async () => {
      const socket = await RawSocket.open(scene.gateway.port, `/v1/ws/agent/${listed.ticker}`)
      socket.send({ type: "auth", token: own.key })
      await socket.until("session")
      socket.pause()
      socket.send({ type: "message", prompt: "hello" })
      return socket
    }))
    await until(async () => listed.agent.turns.length === count + 1)
    expect((await chat.turn("hello")).text === text).toBe(true)
    charged++
    await over(chat)
    return { listed, own, sockets, bytes: await restingBytes(scene.gateway) - before }
  }

  it("stops its agent, costs little memory, and comes whole once it is taken again", async () => {
    const { own, sockets, bytes } = await stopped(6)
    // The agent of none of them was heard to its end.
    expect(await scene.charges(own)).toBe(0)
    expect(bytes).toBeLessThan(6 * 6_000_000)
    for (const socket of sockets) socket.resume()
    for (const socket of sockets) {
      await socket.connection.until((connection) => connection.text.includes("\"type\":\"billing\""))
      expect(socket.messages().filter(({ type }) => type === "chunk").map(({ data }) => data).join("") === text).toBe(true)
      socket.send({ type: "close" })
      await socket.connection.closed()
    }
    await scene.expectLeft(own, "0.94")
  })

  it("is not waited for when its reader has gone: the turn goes on, and is told to who comes back", async () => {
    const { listed, own, sockets: [socket] } = await stopped(1)
    expect(await scene.charges(own)).toBe(0)
    socket!.connection.destroy()
    await until(async () => await scene.charges(own) === 1)
    const again = await scene.open(listed, own.key, socket!.messages()[0]!["session_id"])
    await again.next("billing")
    expect(again.text() === text).toBe(true)
    await over(again)
    await scene.expectLeft(own, "0.99")
  })
})
