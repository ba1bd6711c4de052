/** Whatever ends a chat session or its socket in the middle of a turn: the contracted frame and code, and the right money. */
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { findSuspendable, suspend } from "../../src/store/OperatorStore.ts"
import { type Buyer, ChatScene, type ListedAgent, expectNoHolds } from "../support/ChatScene.ts"
import type { ChatSocket } from "../support/ChatSocket.ts"
import { until } from "../support/GatewayProcess.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)
let scene: ChatScene
beforeAll(async () => {
  scene = await ChatScene.set(stage, { CHAT_RESUME_SECONDS: "2" })
})

interface Talk {
  readonly listed: ListedAgent
  readonly buyer: Buyer
  readonly chat: ChatSocket
}
const talk = async (usd = "1.00", on = scene, key?: string): Promise<Talk> => {
  const listed = await on.list("0.01")
  const buyer = await on.buyer(usd)
  return { listed, buyer, chat: await on.open(listed, key ?? buyer.key) }
}
/** In the middle of a turn, some of which has been told. */
const inTurn = async ({ listed, chat }: Talk) => {
  chat.message("hello")
  const turn = await listed.agent.next()
  turn.say("begun, ")
  await chat.next("chunk")
  return turn
}
const afterBill = (chat: ChatSocket): ReadonlyArray<string> => {
  const types = chat.frames.map(({ type, code }) => type === "error" ? code as string : type)
  return types.slice(types.indexOf("done"))
}

describe("in the middle of a turn", () => {
  it("a revoked key ends its socket; the turn goes on, is charged, and told to another key of the account", async () => {
    const listed = await scene.list("0.01")
    const buyer = await scene.buyer("1.00")
    const { id, key } = await scene.gateway.ask(201, "POST", "/v1/api-keys", { token: buyer.token, body: { name: "short", scopes: "*" } })
    const chat = await scene.open(listed, key)
    const turn = await inTurn({ listed, buyer, chat })
    const untouched = await scene.open(listed, buyer.key)
    await scene.gateway.ask(204, "DELETE", `/v1/api-keys/${id}`, { token: buyer.token })
    expect(await chat.ended()).toMatchObject({ code: 4401, error: { code: "auth_failed", detail: "The credential was revoked" } })
    const sessionId = chat.session["session_id"] as string
    const refused = await scene.connect(listed)
    refused.send({ type: "auth", token: key, session_id: sessionId })
    expect(await refused.ended()).toMatchObject({ code: 4401 })
    const again = await scene.open(listed, buyer.key, sessionId)
    turn.end("done")
    expect(await again.next("billing")).toMatchObject({ amount_charged: "0.01", session_total: "0.01" })
    expect(again.text()).toBe("begun, done")
    again.message("more")
    ;(await listed.agent.next()).end("more")
    await again.until(({ session_total }) => session_total === "0.02")
    for (const socket of [again, untouched]) {
      socket.send({ type: "close" })
      expect((await socket.closed).code).toBe(1000)
    }
    await scene.expectLeft(buyer, "0.98")
  })

  it("a key that is revoked while nobody listens leaves its turn to be charged, and its session to be closed", async () => {
    const listed = await scene.list("0.01")
    const buyer = await scene.buyer("1.00")
    const { id, key } = await scene.gateway.ask(201, "POST", "/v1/api-keys", { token: buyer.token, body: { name: "short", scopes: "*" } })
    const chat = await scene.open(listed, key)
    const turn = await inTurn({ listed, buyer, chat })
    chat.close()
    await chat.closed
    await scene.gateway.ask(204, "DELETE", `/v1/api-keys/${id}`, { token: buyer.token })
    turn.end("done")
    await scene.expectLeft(buyer, "0.99")
  })

  it.each(["before", "after"])("DELETE %s output ends the session and its socket, tells the agent to stop, and charges nothing", async (when) => {
    const { listed, buyer, chat } = await talk()
    chat.message("hello")
    const turn = await listed.agent.next()
    if (when === "after") {
      turn.say("begun")
      await chat.next("chunk")
    }
    await scene.gateway.ask(204, "DELETE", `/v1/sessions/${chat.session["session_id"]}`, { token: buyer.key })
    expect(await chat.ended()).toMatchObject({ code: 4410, error: { code: "session_closed" } })
    await turn.gone
    await scene.expectLeft(buyer, "1.00")
    expect(await scene.charges(buyer)).toBe(0)
  })

  it.each(["before", "after"])("a close frame %s output ends the session and its socket, tells the agent to stop, and charges nothing", async (when) => {
    const { listed, buyer, chat } = await talk()
    chat.message("hello")
    const turn = await listed.agent.next()
    if (when === "after") {
      turn.say("begun")
      await chat.next("chunk")
    }
    chat.send({ type: "close" })
    expect(await chat.ended()).toEqual({ code: 1000, reason: "session_closed", error: undefined })
    expect(chat.frames.at(-1)).toMatchObject({ type: "notice", code: "session_closed" })
    await turn.gone
    await scene.expectLeft(buyer, "1.00")
    expect(await scene.charges(buyer)).toBe(0)
  })

  it("a cancel tells the agent to stop and charges nothing; the session goes on; what was cancelled late is counted for the agent's owner", async () => {
    const { listed, buyer, chat } = await talk()
    chat.message("hello", "m-1")
    const early = await listed.agent.next()
    chat.send({ type: "cancel" })
    expect(await chat.next("notice")).toEqual({ type: "notice", code: "turn_cancelled", detail: "The turn was cancelled. Nothing was charged", late: false, id: "m-1" })
    await early.gone
    const from = chat.frames.length
    const late = await inTurn({ listed, buyer, chat })
    chat.send({ type: "cancel" })
    expect(await chat.next("notice", from)).toEqual({ type: "notice", code: "turn_cancelled", detail: "The turn was cancelled. Nothing was charged", late: true })
    await late.gone
    const own = async (): Promise<any> => (await scene.gateway.ask(200, "GET", "/v1/agents/?owner=me&limit=100", { token: scene.seller.token })).find(({ id }: { id: string }) => id === listed.id)
    await until(async () => (await own()).late_cancels_today === 1)
    chat.message("again")
    const turn = await listed.agent.next()
    expect(turn.body.history).toEqual([])
    turn.end("well")
    expect(await chat.next("billing")).toMatchObject({ session_total: "0.01" })
    chat.close()
    await scene.expectLeft(buyer, "0.99")
  })

  it("a paused agent's turn is told and charged, then its socket ends", async () => {
    const before = await talk()
    const turn = await inTurn(before)
    await scene.change(before.listed, { status: "paused" })
    turn.end("done")
    expect(await before.chat.ended()).toMatchObject({ code: 4503, error: { code: "agent_paused" } })
    expect([before.chat.text(), afterBill(before.chat)]).toEqual(["begun, done", ["done", "billing", "agent_paused"]])
    await scene.expectLeft(before.buyer, "0.99")
  })

  it("a paused agent's turn that fails ends in its error, and so does that of one that is active again by then, whose session goes on", async () => {
    const { listed, buyer, chat } = await talk()
    const turn = await inTurn({ listed, buyer, chat })
    await scene.change(listed, { status: "paused" })
    await scene.change(listed, { status: "active" })
    turn.end("done")
    await chat.next("billing")
    chat.message("more")
    ;(await listed.agent.next()).end("more")
    await chat.until(({ session_total }) => session_total === "0.02")
    chat.send({ type: "close" })
    await chat.closed
    await scene.expectLeft(buyer, "0.98")
  })

  it("an agent that is paused while nobody listens, and active when somebody does, is not told as paused", async () => {
    const { listed, buyer, chat } = await talk()
    const turn = await inTurn({ listed, buyer, chat })
    chat.close()
    await chat.closed
    await scene.change(listed, { status: "paused" })
    turn.end("done")
    await until(async () => await scene.charges(buyer) === 1)
    await scene.change(listed, { status: "active" })
    const again = await scene.open(listed, buyer.key, chat.session["session_id"])
    await again.next("billing")
    again.message("more")
    ;(await listed.agent.next()).end("more")
    expect(await again.until(({ session_total }) => session_total === "0.02")).toMatchObject({ amount_charged: "0.01" })
  })

  it("credits that are gone don't matter to it; the next message finds out", async () => {
    const { listed, buyer, chat } = await talk("0.01")
    const turn = await inTurn({ listed, buyer, chat })
    expect(await scene.gateway.balance(buyer)).toEqual({ balance_usd: "0.00", reserved_usd: "0.01" })
    turn.end("done")
    expect(await chat.next("billing")).toMatchObject({ amount_charged: "0.01", credits_remaining: "0.00", credits_reserved: "0.00" })
    chat.message("more")
    expect(await chat.ended()).toMatchObject({ code: 4402, error: { code: "insufficient_credits", required_usd: "0.01", available_usd: "0.00" } })
    await scene.expectLeft(buyer, "0.00")
  })

  it("a key's budget that is gone doesn't matter to it; the next message finds out", async () => {
    const listed = await scene.list("0.01")
    const buyer = await scene.buyer("1.00")
    const chat = await scene.open(listed, await scene.gateway.key(buyer, { amount_usd: "0.01", window: "total" }))
    expect(chat.session["credits_reserved"]).toBe("0.01")
    ;(await inTurn({ listed, buyer, chat })).end("done")
    expect(await chat.next("billing")).toMatchObject({ amount_charged: "0.01", credits_reserved: "0.00" })
    chat.message("more")
    expect(await chat.ended()).toMatchObject({ code: 4402, error: { code: "insufficient_credits", window: "total", spent_usd: "0.01" } })
    await scene.expectLeft(buyer, "0.99")
  })

  it("a key with a spent budget can't resume another key's turn into nothing", async () => {
    const { listed, buyer, chat } = await talk()
    const turn = await inTurn({ listed, buyer, chat })
    const poor = await scene.gateway.key(buyer, { amount_usd: "0.001", window: "total" })
    const again = await scene.connect(listed)
    again.send({ type: "auth", token: poor, session_id: chat.session["session_id"] })
    await chat.closed
    turn.end("done")
    await until(async () => await scene.charges(buyer) === 1)
    await again.next("billing")
    again.message("more")
    expect(await again.ended()).toMatchObject({ code: 4402, error: { code: "insufficient_credits", budget_usd: "0.001" } })
    await scene.expectLeft(buyer, "0.99")
  })

  it("a suspended account's turn is charged, and its socket ends with the next message", async () => {
    const { listed, buyer, chat } = await talk()
    const turn = await inTurn({ listed, buyer, chat })
    const found = (await findSuspendable(scene.database.sql, buyer.accountId))!
    await suspend(scene.database.sql, found, true, { auditId: randomUUID(), atMs: Date.now() })
    turn.end("done")
    expect(await chat.next("billing")).toMatchObject({ amount_charged: "0.01", session_total: "0.01" })
    chat.message("more")
    expect(await chat.ended()).toMatchObject({ code: 4401, error: { code: "auth_failed", detail: "The account is suspended: contact the operator" } })
    expect(await scene.charges(buyer)).toBe(1)
  })
})

it("a stop ends idle sockets at once, each to come back at a time of its own, and a busy one once its turn is told and charged", async () => {
  const own = await ChatScene.set(stage)
  const busy = await talk("1.00", own)
  const idle = await Promise.all(Array.from({ length: 8 }, () => own.open(busy.listed, busy.buyer.key)))
  const fresh = await own.connect(busy.listed)
  const turn = await inTurn(busy)
  own.gateway.signal("SIGTERM")
  const ends = await Promise.all([fresh, ...idle].map((chat) => chat.ended()))
  for (const end of ends) expect(end).toMatchObject({ code: 1001, reason: "server_shutdown", error: { code: "server_shutdown", retry_after: expect.any(Number) } })
  const times = new Set(ends.map(({ error }) => error!["retry_after"]))
  expect(times.size).toBeGreaterThan(1)
  for (const time of times) expect(time, String(time)).toBeGreaterThanOrEqual(1)

  turn.end("done")
  expect(await busy.chat.ended()).toMatchObject({ code: 1001, error: { code: "server_shutdown" } })
  expect([busy.chat.text(), afterBill(busy.chat)]).toEqual(["begun, done", ["done", "billing", "server_shutdown"]])
  expect(await own.gateway.ended).toBe(0)
  await own.restart()
  const again = await own.open(busy.listed, busy.buyer.key, busy.chat.session["session_id"])
  expect(again.session).toMatchObject({ discontinuity: false, message_count: 1, session_total: "0.01" })
  for (const chat of [busy.chat, ...idle]) await own.gateway.call("DELETE", `/v1/sessions/${chat.session["session_id"]}`, { token: busy.buyer.key })
  await own.expectLeft(busy.buyer, "0.99")
})

it("of all of these no hold stays", async () => {
  scene.hangUp()
  await expectNoHolds(scene.gateway)
})
