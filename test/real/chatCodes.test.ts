/**
 * Every word that a chat socket can be refused with, and every code that it can
 * be closed with, each brought about against a real gateway. The lists are the
 * contract's.
 */
import { randomUUID } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { findSuspendable, suspend } from "../../src/store/OperatorStore.ts"
import { echoes } from "../support/ChatAgent.ts"
import { type Buyer, ChatScene, type ListedAgent } from "../support/ChatScene.ts"
import { ChatSocket, type Frame } from "../support/ChatSocket.ts"
import { until } from "../support/GatewayProcess.ts"
import { RawSocket } from "../support/RawSocket.ts"
import { useStage } from "../support/Stage.ts"

const codes = `invalid_json invalid_frame auth_timeout auth_failed forbidden_scope agent_not_found agent_paused sessions_not_supported
  insufficient_credits rate_limited turn_in_progress prompt_too_large session_not_found session_closed session_replaced idle_timeout agent_timeout
  agent_error slow_consumer server_shutdown internal_error`.split(/\s+/)
const doNotRetry = [4400, 4401, 4402, 4403, 4404, 4409, 4410]
const reconnect = [4429, 4408, 4503, 1001, 1011, 1013]

/** What a socket was told, however it was listened to. */
interface Refused {
  readonly error: Frame
  /** `undefined`: the socket goes on. */
  readonly close: number | undefined
  readonly reason?: string
}
interface Case {
  readonly code: string
  readonly close?: number
  readonly when: string
  readonly provoke: () => Promise<Refused>
  /** What the refusal says beside its code. */
  readonly says?: object
}

const stage = useStage(afterAll)
let main: ChatScene
/** Sessions that are idle, or left, for a second are over; twenty calls a minute. */
let brief: ChatScene
let echo: ListedAgent
let buyer: Buyer

beforeAll(async () => {
  ;[main, brief] = await Promise.all([
    ChatScene.set(stage, { CHAT_LATE_CANCELS_PER_DAY: "1", CHAT_SESSIONS_PER_ACCOUNT: "100" }),
    ChatScene.set(stage, { CHAT_IDLE_SECONDS: "1", CHAT_RESUME_SECONDS: "1", KEY_RATE_LIMIT_DEFAULT: "20" })
  ])
  doom = doomed()
  doom.catch(() => {}) // Each of its cases says so.
  echo = await main.list("0.01", echoes)
  buyer = await main.buyer("100.00")
})

/** It was the last thing that the socket heard. */
const ending = async (chat: ChatSocket): Promise<Refused> => {
  const { code, reason, error } = await chat.ended()
  expect(chat.frames.at(-1)).toBe(error)
  return { error: error!, close: code, reason }
}
/** The session goes on: it answers. */
const goingOn = async (chat: ChatSocket): Promise<Refused> => {
  const error = await chat.next("error")
  chat.send({ type: "ping" })
  await chat.next("pong", chat.frames.indexOf(error) + 1)
  return { error, close: undefined }
}
const auth = async (scene: ChatScene, agent: { readonly ticker: string }, token: string, sessionId?: string): Promise<Refused> => {
  const chat = await scene.connect(agent)
  chat.send({ type: "auth", token, ...(sessionId === undefined ? {} : { session_id: sessionId }) })
  return ending(chat)
}
const saying = (frame: object | string) => async (): Promise<Refused> => {
  const chat = await main.open(echo, buyer.key)
  chat.send(frame)
  return ending(chat)
}
const sayingFirst = (frame: object | string) => async (): Promise<Refused> => {
  const chat = await main.connect(echo)
  chat.send(frame)
  return ending(chat)
}
/** A buyer with an open session, whose account is altered behind the gateway's back, and which it then reads again. */
const altered = async (alter: (buyer: Buyer) => Promise<unknown>, isSuspended: boolean): Promise<Refused> => {
  const own = await main.buyer("1.00")
  await main.open(echo, own.key)
  await alter(own)
  const { sql } = main.database
  const found = (await findSuspendable(sql, own.accountId))!
  for (const suspended of isSuspended ? [true] : [true, false]) await suspend(sql, found, suspended, { auditId: randomUUID(), atMs: Date.now() })
  await until(async () => (await main.gateway.call("GET", "/v1/orders", { token: own.key })).status === (isSuspended ? 403 : 401))
  return auth(main, echo, own.key)
}
const failing = (behave: ListedAgent["agent"]["behave"]) => async (): Promise<Refused> =>
  main.open(await main.list("0.01", behave), buyer.key).then((chat) => {
    chat.message("hello")
    return goingOn(chat).finally(() => chat.send({ type: "close" }))
  })

/** What a client may not send, whenever it does. */
const badFrames: ReadonlyArray<readonly [string, object | string]> = [
  ["a frame of no known type", { type: "dance" }], ["a frame without a type", {}], ["a list", "[]"], ["a number", "5"], ["null", "null"], ["a text", "\"auth\""],
  ["a type that is no text", { type: 5 }], ["auth without a token", { type: "auth" }], ["auth with a token that is none", { type: "auth", token: 5 }],
  ["auth with a token without end", { type: "auth", token: "x".repeat(5_000) }], ["auth with a session that is no text", { type: "auth", token: "x", session_id: {} }],
  ["a message without a prompt", { type: "message" }], ["a message with an empty prompt", { type: "message", prompt: "" }], ["a message with a prompt that is no text", { type: "message", prompt: ["x"] }],
  ["a message with an id that is no text", { type: "message", prompt: "x", id: 5 }], ["a message with an empty id", { type: "message", prompt: "x", id: "" }],
  ["a message with an id without end", { type: "message", prompt: "x", id: "x".repeat(256) }], ["a message with a NUL", { type: "message", prompt: "x\0y" }],
  ["a message with half a character", "{\"type\":\"message\",\"prompt\":\"\\ud800\"}"], ["a message with an id with half a character", "{\"type\":\"message\",\"prompt\":\"x\",\"id\":\"\\udc00\"}"]
]

const cases: ReadonlyArray<Case> = [
  ...["{", "", "{\"type\":\"ping\"} x", "{'type':'ping'}"].flatMap((text): ReadonlyArray<Case> => [
    { code: "invalid_json", close: 4400, when: `${JSON.stringify(text)} comes before auth`, provoke: sayingFirst(text) },
    { code: "invalid_json", close: 4400, when: `${JSON.stringify(text)} comes`, provoke: saying(text) }
  ]),
  ...badFrames.flatMap(([title, frame]): ReadonlyArray<Case> => [
    { code: "invalid_frame", close: 4400, when: `${title} comes first`, provoke: sayingFirst(frame) },
    { code: "invalid_frame", close: 4400, when: `${title} comes`, provoke: saying(frame) }
  ]),
  ...[{ type: "message", prompt: "x" }, { type: "cancel" }, { type: "close" }].map((frame): Case =>
    ({ code: "invalid_frame", close: 4400, when: `${frame.type} comes before auth`, provoke: sayingFirst(frame) })),
  { code: "invalid_frame", close: 4400, when: "auth comes again", provoke: saying({ type: "auth", token: "autx_live_x" }) },
  {
    code: "invalid_frame", close: 4400, when: "a message does not wait for the session",
    provoke: async () => {
      for (let attempt = 0; ; attempt++) {
        const chat = await main.connect(echo)
        // A key that must be looked up takes its time, if seldom less than the next frame.
        chat.send({ type: "auth", token: `autx_live_${String(attempt).padStart(43, "y")}` })
        chat.message("hello")
        const refused = await ending(chat)
        if (refused.error?.["code"] === "invalid_frame" || attempt === 20) return refused
      }
    }
  },
  {
    code: "auth_timeout", close: 4401, when: "nothing comes",
    provoke: async () => (await doom)["auth_timeout"]!
  },
  { code: "auth_failed", close: 4401, when: "the key is unknown", provoke: () => auth(main, echo, `autx_live_${"x".repeat(43)}`) },
  { code: "auth_failed", close: 4401, when: "the credential is none", provoke: () => auth(main, echo, "hello") },
  { code: "auth_failed", close: 4401, when: "the credential has a line's end", provoke: () => auth(main, echo, `${buyer.key}\r\nx: y`) },
  {
    code: "auth_failed", close: 4401, when: "the key was revoked", says: { detail: "The credential was revoked" },
    provoke: async () => {
      const { id, key } = await main.gateway.ask(201, "POST", "/v1/api-keys", { token: buyer.token, body: { name: "short", scopes: "*" } })
      await main.gateway.ask(204, "DELETE", `/v1/api-keys/${id}`, { token: buyer.token })
      return auth(main, echo, key)
    }
  },
  {
    code: "auth_failed", close: 4401, when: "the key has expired",
    provoke: () => altered((own) => main.database.sql`update api_keys set expires_at = now() - interval '1 minute' where account_id = ${own.accountId}`, false)
  },
  {
    code: "auth_failed", close: 4401, when: "the account is suspended", says: { detail: "The account is suspended: contact the operator" },
    provoke: () => altered(async () => {}, true)
  },
  {
    code: "auth_failed", close: 4401, when: "the token is one that an agent was called with",
    provoke: async () => {
      const listed = await main.list("0", echoes)
      const own = await main.buyer()
      await (await main.open(listed, own.key)).turn("hello")
      return auth(main, listed, listed.agent.turns[0]!.headers.authorization!.replace("Bearer ", ""))
    }
  },
  {
    code: "forbidden_scope", close: 4403, when: "the key may not order", says: { detail: "The API key lacks the scope orders" },
    provoke: async () => auth(main, echo, (await main.gateway.ask(201, "POST", "/v1/api-keys", { token: buyer.token, body: { name: "proxy", scopes: "proxy" } })).key)
  },
  { code: "agent_not_found", close: 4404, when: "nobody has listed the agent", provoke: () => auth(main, { ticker: "NOBODY" }, buyer.key) },
  {
    code: "agent_paused", close: 4503, when: "the agent is paused",
    provoke: async () => auth(main, await main.list("0.01", echoes, { status: "paused" }), buyer.key)
  },
  {
    code: "agent_paused", close: 4503, when: "the agent was paused since",
    provoke: async () => {
      const listed = await main.list("0.01", echoes)
      const chat = await main.open(listed, buyer.key)
      await main.change(listed, { status: "paused" })
      chat.message("hello")
      return ending(chat)
    }
  },
  ...[{ supports_sessions: false }, { input: { type: "multipart" } }].map((manifest): Case => ({
    code: "sessions_not_supported", close: 4404, when: `the agent's manifest is ${JSON.stringify(manifest)}`,
    provoke: async () => auth(main, await main.list("0.01", echoes, { manifest }), buyer.key)
  })),
  {
    code: "insufficient_credits", close: 4402, when: "the account has not enough for one turn", says: { required_usd: "0.01", available_usd: "0.009999", held_usd: "0.00" },
    provoke: async () => auth(main, echo, (await main.buyer("0.009999")).key)
  },
  {
    code: "insufficient_credits", close: 4402, when: "the key's budget has not enough for one turn", says: { required_usd: "0.01", budget_usd: "0.005", window: "day", spent_usd: "0.00" },
    provoke: async () => auth(main, echo, await main.gateway.key(buyer, { amount_usd: "0.005", window: "day" }))
  },
  {
    code: "rate_limited", close: 4429, when: "the key's calls of this minute are used up: one for each message, also a refused one, none for auth or resume", says: { detail: "Rate limit exceeded" },
    provoke: async () => {
      const listed = await brief.list("0", echoes)
      const { key } = await brief.buyer()
      let chat = await brief.open(listed, key)
      for (let n = 0; n < 3; n++) {
        chat.close()
        chat = await brief.open(listed, key, chat.session["session_id"])
      }
      for (let n = 0; n < 18; n++) await chat.turn("hello")
      chat.message("x".repeat(100_001))
      await chat.until(({ code }) => code === "prompt_too_large")
      await chat.turn("the twentieth")
      chat.message("hello")
      return ending(chat)
    }
  },
  {
    code: "rate_limited", close: 4429, when: "more turns were cancelled today after the agent had begun to answer than may be", says: { detail: expect.stringContaining("More than 1 turns") },
    provoke: async () => {
      const listed = await main.list("0.01")
      const chat = await main.open(listed, buyer.key)
      chat.message("hello")
      ;(await listed.agent.next()).say("begun")
      await chat.next("chunk")
      chat.send({ type: "cancel" })
      await chat.next("notice")
      chat.message("hello again")
      return ending(chat)
    }
  },
  {
    code: "turn_in_progress", when: "a message comes before the turn before has ended", says: { retry_after: 1, id: "second" },
    provoke: async () => {
      const listed = await main.list("0.01")
      const chat = await main.open(listed, buyer.key)
      chat.message("hello", "first")
      const turn = await listed.agent.next()
      chat.message("hello", "second")
      const refused = await goingOn(chat)
      turn.end("well")
      expect((await chat.next("billing", chat.frames.indexOf(refused.error) + 1))["id"]).toBe("first")
      return refused
    }
  },
  {
    code: "prompt_too_large", when: "a prompt has more than 100,000 characters", says: { detail: "The prompt is too long: at most 100000 characters are allowed" },
    provoke: async () => {
      const chat = await main.open(echo, buyer.key)
      chat.message("é".repeat(100_001))
      return goingOn(chat)
    }
  },
  ...["ses_00000000000000000000000000000000", "x", "ses_", "' or 1=1 --", "__proto__"].map((id): Case =>
    ({ code: "session_not_found", close: 4404, when: `${id} is resumed`, provoke: () => auth(main, echo, buyer.key, id) })),
  {
    code: "session_not_found", close: 4404, when: "another account's session is resumed",
    provoke: async () => auth(main, echo, (await main.buyer()).key, (await main.open(echo, buyer.key)).session["session_id"])
  },
  {
    code: "session_not_found", close: 4404, when: "another agent's session is resumed",
    provoke: async () => {
          const { session } = await main.open(echo, buyer.key)
      return auth(main, await main.list("0.01", echoes), buyer.key, session["session_id"])
    }
  },
  {
    code: "session_closed", close: 4410, when: "a closed session is resumed",
    provoke: async () => {
          const chat = await main.open(echo, buyer.key)
      chat.send({ type: "close" })
      await chat.closed
      return auth(main, echo, buyer.key, chat.session["session_id"])
    }
  },
  {
    code: "session_closed", close: 4410, when: "the session is deleted",
    provoke: async () => {
          const chat = await main.open(echo, buyer.key)
      await main.gateway.ask(204, "DELETE", `/v1/sessions/${chat.session["session_id"]}`, { token: buyer.key })
      return ending(chat)
    }
  },
  {
    code: "session_replaced", close: 4409, when: "a newer socket resumes the session",
    provoke: async () => {
          const chat = await main.open(echo, buyer.key)
      const newer = await main.open(echo, buyer.key, chat.session["session_id"])
      expect((await newer.turn("hello")).text).toBe("hello")
      return ending(chat)
    }
  },
  {
    code: "idle_timeout", close: 4408, when: "nothing is said for long",
    provoke: async () => ending(await brief.open(await brief.list("0.01", echoes), (await brief.buyer("1.00")).key))
  },
  {
    code: "agent_timeout", when: "the agent does not answer", says: { detail: expect.stringContaining("did not answer in time") },
    provoke: async () => (await doom)["agent_timeout"]!
  },
  { code: "agent_error", when: "the agent answers 500", says: { detail: expect.stringContaining("it answered 500") }, provoke: failing((turn) => turn.answer("text/plain", "no", 500)) },
  { code: "agent_error", when: "the agent breaks off its answer", says: { detail: expect.stringContaining("broke off its answer") }, provoke: failing((turn) => turn.say("x") && turn.response.flushHeaders() === undefined && setImmediate(() => turn.die())) },
  { code: "agent_error", when: "the agent says that it failed", says: { detail: expect.stringContaining("out of tokens") }, provoke: failing((turn) => turn.answer("text/event-stream", "data: {\"error\":{\"message\":\"out of tokens\"}}\n\n")) },
  {
    code: "agent_error", when: "the agent can't be reached", says: { detail: expect.stringContaining("can't be reached") },
    provoke: async () => {
      const listed = await main.list("0.01", echoes)
      listed.agent.close()
      const chat = await main.open(listed, buyer.key)
      chat.message("hello")
      return goingOn(chat)
    }
  },
  {
    code: "slow_consumer", close: 1013, when: "nobody takes what the agent says",
    provoke: async () => {
      // A control character of one byte is told in six.
      const listed = await main.list("0.01", (turn) => turn.answer("text/plain", "\u0001".repeat(1_000_000)))
      const socket = await RawSocket.open(main.gateway.port, `/v1/ws/agent/${listed.ticker}`)
      socket.send({ type: "auth", token: buyer.key })
      await socket.until("session")
      socket.pause()
      socket.send({ type: "message", prompt: "hello" })
      // Nothing tells whoever doesn't read when it is too late: it reads again long after.
      await sleep(36_000)
      socket.resume()
      const close = await socket.closeCode()
      return { error: socket.messages().find(({ type }) => type === "error")!, close }
    }
  },
  {
    code: "server_shutdown", close: 1001, when: "the gateway stops",
    provoke: async () => (await doom)["server_shutdown"]!
  },
  {
    code: "internal_error", close: 1011, when: "the books can't be read",
    provoke: async () => (await doom)["internal_error"]!
  },
  {
    code: "internal_error", close: 1013, when: "the account has as many sessions as it may", says: { detail: expect.stringContaining("is busy") },
    provoke: async () => {
      const own = await main.buyer("1.00")
      const agent = await main.list("0", echoes)
      await Promise.all(Array.from({ length: 100 }, () => main.open(agent, own.key)))
      return auth(main, agent, own.key)
    }
  }
]

/** One gateway's end: its books can't be read, its clock runs forty times faster, and it is stopped. */
const doomed = async (): Promise<Readonly<Record<string, Refused>>> => {
  const scene = await ChatScene.set(stage, { NODE_OPTIONS: "--import ./test/support/hurry.mjs" })
  const { database: { sql }, gateway } = scene
  const [listed, own] = await Promise.all([scene.list("0.01"), scene.buyer("1.00")])
  const silent = await scene.open(listed, own.key)
  await sql`alter table sessions rename to elsewhere`
  const internal_error = await auth(scene, listed, own.key)
  await sql`alter table elsewhere rename to sessions`
  silent.message("hello")
  await listed.agent.next()
  gateway.signal("SIGUSR2")
  const [agent_timeout, auth_timeout] = await Promise.all([goingOn(silent), ending(await scene.connect(listed))])
  gateway.signal("SIGTERM")
  const server_shutdown = await ending(silent)
  return { internal_error, agent_timeout, auth_timeout, server_shutdown }
}
let doom: ReturnType<typeof doomed>

describe("the cases", () => {
  it("bring about every word and every close code of the contract, and no other", () => {
    expect([...new Set(cases.map(({ code }) => code))].toSorted()).toEqual(codes.toSorted())
    expect([...new Set(cases.flatMap(({ close }) => close ?? []))].toSorted()).toEqual([...doNotRetry, ...reconnect].toSorted())
  })
})

describe.concurrent("a socket is told", () => {
  it.each(cases)("$code when $when", { timeout: 90_000 }, async ({ code, close, provoke, says }) => {
    const refused = await provoke()
    expect(refused.error).toMatchObject({ type: "error", code, detail: expect.stringMatching(/^\S.{5,200}$/), fatal: close !== undefined, ...says })
    expect([refused.close, refused.reason ?? code]).toEqual([close, code])
    // Who should come back is told when.
    const { retry_after } = refused.error
    if (close !== undefined) expect(Number.isInteger(retry_after) && retry_after >= 1, `retry_after ${retry_after}`).toBe(reconnect.includes(close))
  })
})
