/** What becomes of a chat session whose socket, or whose gateway, has gone: nothing is charged twice, and nothing that is gone is told as there. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { echoes } from "../support/ChatAgent.ts"
import { type Buyer, ChatScene, type ListedAgent, expectNoHolds } from "../support/ChatScene.ts"
import type { ChatSocket } from "../support/ChatSocket.ts"
import { until } from "../support/GatewayProcess.ts"
import { RawSocket } from "../support/RawSocket.ts"
import { type Stage, useStage } from "../support/Stage.ts"

const stage: Stage = useStage(afterAll)

const left = async (chat: ChatSocket): Promise<string> => {
  chat.close()
  await chat.closed
  return chat.session["session_id"] as string
}
const said = (chat: ChatSocket): ReadonlyArray<string> => chat.frames.map(({ type }) => type).filter((type, at, types) => type !== "chunk" || types[at - 1] !== "chunk")

interface Talk {
  readonly listed: ListedAgent
  readonly buyer: Buyer
  readonly chat: ChatSocket
}
const talk = async (scene: ChatScene, behave?: ListedAgent["agent"]["behave"]): Promise<Talk> => {
  const listed = await scene.list("0.01", behave)
  const buyer = await scene.buyer("1.00")
  return { listed, buyer, chat: await scene.open(listed, buyer.key) }
}

describe("while its gateway runs, a session", () => {
  let scene: ChatScene
  beforeAll(async () => {
    scene = await ChatScene.set(stage)
  })
  afterAll(() => scene.gateway.kill9())

  it("whose socket goes in the middle of a turn is told the turn from its start, then the rest, and is charged once", async () => {
    const { listed, buyer, chat } = await talk(scene)
    chat.message("hello", "m-1")
    const turn = await listed.agent.next()
    turn.say("one ")
    await chat.next("chunk")
    const id = await left(chat)
    turn.say("two ")
    const again = await scene.open(listed, buyer.key, id)
    expect(again.session).toMatchObject({ resumed: true, replayed_from: 0, discontinuity: false, message_count: 0, session_total: "0.00", credits_reserved: "0.05" })
    await again.next("chunk")
    turn.say("three ")
    await again.until(() => again.text().endsWith("three "))
    turn.end("four")
    const billing = await again.next("billing")
    expect([again.text(), said(again)]).toEqual(["one two three four", ["session", "chunk", "done", "billing"]])
    expect(new Set(again.frames.slice(1).map((frame) => frame["id"]))).toEqual(new Set(["m-1"]))
    expect(billing).toMatchObject({ amount_charged: "0.01", session_total: "0.01" })
    expect(billing).not.toHaveProperty("replayed")
    expect(await scene.charges(buyer)).toBe(1)
    again.send({ type: "close" })
    await again.closed
    await scene.expectLeft(buyer, "0.99")
  })

  it("whose connection is cut without a word is no different", async () => {
    const listed = await scene.list("0.01")
    const buyer = await scene.buyer("1.00")
    const raw = await RawSocket.open(scene.gateway.port, `/v1/ws/agent/${listed.ticker}`)
    raw.send({ type: "auth", token: buyer.key })
    await raw.until("session")
    raw.send({ type: "message", prompt: "hello" })
    const turn = await listed.agent.next()
    turn.say("one ")
    await raw.until("chunk")
    raw.connection.destroy()
    const again = await scene.open(listed, buyer.key, raw.messages()[0]!["session_id"])
    turn.end("two")
    await again.next("billing")
    expect(again.text()).toBe("one two")
    expect(await scene.charges(buyer)).toBe(1)
  })

  it("whose turn ended meanwhile is told its text, its end and its bill once more, and then no more", async () => {
    const { listed, buyer, chat } = await talk(scene)
    chat.message("hello", "m-1")
    const turn = await listed.agent.next()
    turn.say("one ")
    await chat.next("chunk")
    const id = await left(chat)
    turn.end("two")
    await until(async () => await scene.charges(buyer) === 1)
    const again = await scene.open(listed, buyer.key, id)
    const billing = await again.next("billing")
    expect(again.session).toMatchObject({ replayed_from: 0, discontinuity: false, message_count: 1, session_total: "0.01" })
    expect([again.text(), said(again)]).toEqual(["one two", ["session", "chunk", "done", "billing"]])
    expect(billing).toMatchObject({ amount_charged: "0.01", credits_remaining: "0.95", credits_reserved: "0.04", session_total: "0.01", id: "m-1" })
    await left(again)
    const third = await scene.open(listed, buyer.key, id)
    expect(third.session).not.toHaveProperty("replayed_from")
    await third.message("more")
    ;(await listed.agent.next()).end("more")
    await third.next("billing")
    expect([third.text(), said(third)]).toEqual(["more", ["session", "chunk", "done", "billing"]])
    expect(await scene.charges(buyer)).toBe(2)
  })

  it("can be resumed again and again in one turn, also from a socket that is still there", async () => {
    const { listed, buyer, chat } = await talk(scene)
    chat.message("hello")
    const turn = await listed.agent.next()
    const sockets = [chat]
    let text = ""
    for (let n = 0; n < 5; n++) {
      turn.say(`${n} `)
      text += `${n} `
      await sockets.at(-1)!.until(() => sockets.at(-1)!.text() === text)
      if (n % 2 === 0) await left(sockets.at(-1)!)
      sockets.push(await scene.open(listed, buyer.key, chat.session["session_id"]))
    }
    turn.end("end")
    await sockets.at(-1)!.next("billing")
    expect(sockets.at(-1)!.text()).toBe(`${text}end`)
    expect(await sockets[1]!.ended()).toMatchObject({ code: 4409, error: { code: "session_replaced" } })
    // Of the end only the last socket has heard.
    expect(sockets.filter((socket) => socket.frames.some(({ type }) => type === "billing"))).toHaveLength(1)
    expect(await scene.charges(buyer)).toBe(1)
  })

  it("whose turn failed meanwhile says that something is gone, until its client goes on", async () => {
    const { listed, buyer, chat } = await talk(scene)
    chat.message("hello", "m-1")
    const turn = await listed.agent.next()
    turn.say("one ")
    await chat.next("chunk")
    const id = await left(chat)
    turn.die()
    const failed = 'tollgate_chat_turns_total{outcome="failed"}'
    await until(async () => (await scene.gateway.call("GET", "/metrics")).text.includes(failed))
    let again = await scene.open(listed, buyer.key, id)
    expect(again.session).toMatchObject({ discontinuity: true, message_count: 0, session_total: "0.00" })
    expect(again.session).not.toHaveProperty("replayed_from")
    await left(again)
    again = await scene.open(listed, buyer.key, id)
    expect(again.session["discontinuity"]).toBe(true)
    again.message("hello", "m-1")
    ;(await listed.agent.next()).end("well")
    expect(await again.next("billing")).toMatchObject({ amount_charged: "0.01", session_total: "0.01", id: "m-1" })
    await left(again)
    expect((await scene.open(listed, buyer.key, id)).session).toMatchObject({ discontinuity: false, message_count: 1 })
    expect(await scene.charges(buyer)).toBe(1)
  })

  it("tells a message that has finished again, and neither runs nor charges it again, before and after a reconnect", async () => {
    const { listed, buyer, chat } = await talk(scene, echoes)
    const first = await chat.turn("one two", "m-1")
    const expected = {
      text: "one two", done: { ...first.done, replayed: true },
      billing: { ...first.billing, replayed: true, credits_remaining: "0.95", credits_reserved: "0.04", session_total: "0.01" }
    }
    expect(await chat.turn("another prompt", "m-1")).toEqual(expected)
    const again = await scene.open(listed, buyer.key, await left(chat))
    expect(await again.turn("one two", "m-1")).toEqual(expected)
    expect((await again.turn("new", "m-2")).done).toMatchObject({ message_index: 2 })
    expect((await again.turn("one two", "m-1")).billing).toMatchObject({ replayed: true, amount_charged: "0.01", session_total: "0.02" })
    expect([listed.agent.turns.length, await scene.charges(buyer)]).toEqual([2, 2])
    // The history has each turn once, too.
    expect((await again.turn("last")).text).toBe("last")
    expect(listed.agent.turns.at(-1)!.body.history.map(({ content }) => content)).toEqual(["one two", "one two", "new", "new"])
  })

  it("refuses a message's id while it runs, and runs it again when it failed or was cancelled", async () => {
    const { listed, buyer, chat } = await talk(scene)
    chat.message("hello", "m-1")
    const first = await listed.agent.next()
    chat.message("hello", "m-1")
    expect(await chat.next("error")).toMatchObject({ code: "turn_in_progress", id: "m-1", fatal: false })
    first.die()
    await chat.until(({ code }) => code === "agent_error")
    let from = chat.frames.length
    chat.message("hello", "m-1")
    await listed.agent.next()
    chat.send({ type: "cancel" })
    await chat.next("notice", from)
    from = chat.frames.length
    chat.message("hello", "m-1")
    ;(await listed.agent.next()).end("at last")
    expect(await chat.next("billing", from)).toMatchObject({ id: "m-1", amount_charged: "0.01", session_total: "0.01" })
    expect([listed.agent.turns.length, await scene.charges(buyer)]).toEqual([3, 1])
  })

  it("tells ids of different sessions apart", async () => {
    const { listed, buyer, chat } = await talk(scene, echoes)
    const other = await scene.open(listed, buyer.key)
    expect((await chat.turn("one", "m-1")).text).toBe("one")
    expect((await other.turn("two", "m-1")).text).toBe("two")
    expect(await scene.charges(buyer)).toBe(2)
  })

  it("knows a message's id after a thousandth of it was forgotten", async () => {
    const { listed, buyer, chat } = await talk(scene, echoes)
    for (let n = 0; n < 70; n++) await chat.turn(`${n}`, `m-${n}`)
    expect((await chat.turn("0", "m-0")).billing).toMatchObject({ replayed: true, session_total: "0.70" })
    expect((await chat.turn("70", "m-70")).text).toBe("70")
    expect([listed.agent.turns.length, await scene.charges(buyer)]).toEqual([71, 71])
  })
})

it("a session that nobody came back to in time is closed, and what it held is free, but not before a running turn has ended", async () => {
  const scene = await ChatScene.set(stage, { CHAT_RESUME_SECONDS: "1" })
  const [idle, busy] = await Promise.all([talk(scene), talk(scene)])
  busy.chat.message("hello")
  const turn = await busy.listed.agent.next()
  await left(busy.chat)
  const id = await left(idle.chat)
  await until(async () => (await scene.gateway.ask(200, "GET", `/v1/sessions/${id}`, { token: idle.buyer.key })).status === "closed")
  await scene.expectLeft(idle.buyer, "1.00")
  const late = await scene.connect(idle.listed)
  late.send({ type: "auth", token: idle.buyer.key, session_id: id })
  expect(await late.ended()).toMatchObject({ code: 4410, error: { code: "session_closed" } })
  // Left earlier than the other one, and still there.
  const again = await scene.open(busy.listed, busy.buyer.key, busy.chat.session["session_id"])
  turn.end("well")
  expect((await again.next("billing"))["session_total"]).toBe("0.01")
  await left(again)
  await scene.expectLeft(busy.buyer, "0.99")
  await expectNoHolds(scene.gateway)
  await scene.gateway.stop()
})

describe.concurrent("after its gateway", { timeout: 60_000 }, () => {
  it("was killed, a session says that something may be gone; its finished turns are there, a running one is free and can be sent again", async () => {
    const scene = await ChatScene.set(stage)
    const { listed, buyer, chat } = await talk(scene)
    chat.message("first", "m-1")
    ;(await listed.agent.next()).end("one")
    const { order_id, output_hash } = await chat.next("done")
    await chat.next("billing")
    chat.message("second", "m-2")
    const running = await listed.agent.next()
    running.say("two")
    await chat.until(() => chat.text() === "onetwo")
    await Promise.all([scene.gateway.kill9(), chat.closed, running.gone])
    await scene.restart()

    const again = await scene.open(listed, buyer.key, chat.session["session_id"])
    expect(again.session).toMatchObject({ resumed: true, discontinuity: true, message_count: 1, session_total: "0.01", credits_reserved: "0.05" })
    expect(again.session).not.toHaveProperty("replayed_from")
    const told = await again.turn("first", "m-1")
    expect(told).toMatchObject({ text: "one", done: { order_id, output_hash, message_index: 1, replayed: true }, billing: { amount_charged: "0.01", session_total: "0.01", replayed: true } })
    expect(await scene.charges(buyer)).toBe(1)
    const from = again.frames.length
    again.message("second", "m-2")
    const rerun = await listed.agent.next()
    expect(rerun.body.history).toEqual([{ role: "user", content: "first" }, { role: "assistant", content: "one" }])
    rerun.end("two, really")
    expect(await again.next("billing", from)).toMatchObject({ amount_charged: "0.01", session_total: "0.02", id: "m-2" })
    again.send({ type: "close" })
    await again.closed
    await scene.expectLeft(buyer, "0.98")
    await expectNoHolds(scene.gateway)
  })

  it("was stopped, a session goes on as if nothing had been, and one whose turn did not end in time says so and was not charged", async () => {
    const scene = await ChatScene.set(stage)
    const [idle, cut] = await Promise.all([talk(scene), talk(scene)])
    idle.chat.message("first", "m-1")
    ;(await idle.listed.agent.next()).end("one")
    await idle.chat.next("billing")
    cut.chat.message("hello", "m-1")
    const running = await cut.listed.agent.next()
    running.say("begun")
    await cut.chat.next("chunk")
    // It waits nine seconds for the turn.
    scene.gateway.signal("SIGTERM")
    for (const { chat } of [idle, cut]) expect(await chat.ended()).toMatchObject({ code: 1001, error: { code: "server_shutdown" } })
    expect(await scene.gateway.ended).toBe(0)
    await running.gone
    await scene.restart()

    const again = await scene.open(idle.listed, idle.buyer.key, idle.chat.session["session_id"])
    expect(again.session).toMatchObject({ resumed: true, discontinuity: false, message_count: 1, session_total: "0.01" })
    expect((await again.turn("first", "m-1")).billing).toMatchObject({ replayed: true, session_total: "0.01" })
    const broken = await scene.open(cut.listed, cut.buyer.key, cut.chat.session["session_id"])
    expect(broken.session).toMatchObject({ resumed: true, discontinuity: true, message_count: 0, session_total: "0.00" })
    expect(await scene.charges(cut.buyer)).toBe(0)
    broken.message("hello", "m-1")
    ;(await cut.listed.agent.next()).end("well")
    expect(await broken.next("billing")).toMatchObject({ session_total: "0.01" })
    for (const chat of [again, broken]) {
      chat.send({ type: "close" })
      await chat.closed
    }
    await scene.expectLeft(idle.buyer, "0.99")
    await scene.expectLeft(cut.buyer, "0.99")
  })
})
